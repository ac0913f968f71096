//! A scenario: what Prometheus has seen, and every alert that fires at some minutes of it.

use std::collections::BTreeMap;

use super::rule::{Alert, Group, alerts};
use super::world::World;
use super::yaml::{Node, map, plain, text};

#[derive(Debug)]
pub(crate) struct Scenario {
    pub(crate) name: &'static str,
    pub(crate) world: World,
    pub(crate) checks: Vec<Check>,
}

#[derive(Debug)]
pub(crate) enum Check {
    /// Exactly these alerts fire at this minute: names, `/severity` where a name has several,
    /// `x2` where several fire.
    Firing(u32, &'static str),
    /// The expression has these values, by labels.
    Value(u32, String, Vec<(&'static str, f64)>),
    /// The alert with all its labels and annotations.
    Whole(u32, &'static str, Vec<Fired>),
}

/// Labels and annotations of one alert that fires.
#[derive(Debug)]
pub(crate) struct Fired {
    pub(crate) labels: Vec<(&'static str, &'static str)>,
    pub(crate) annotations: Vec<(&'static str, &'static str)>,
}

pub(crate) fn scenario(name: &'static str, world: World, checks: Vec<Check>) -> Scenario {
    Scenario {
        name,
        world,
        checks,
    }
}

pub(crate) use Check::{Firing, Value, Whole};

const ALL_FIRING: &str =
    "count by (alertname, severity, slo) (ALERTS{alertstate=\"firing\",alertname!=\"Watchdog\"})";

/// The file of promtool.
pub(crate) fn tests_file(scenarios: &[Scenario], every: &str, groups: &[Group]) -> Node {
    let order = groups.iter().map(|group| text(group.name)).collect();
    let tests = scenarios
        .iter()
        .map(|scenario| node(scenario, groups))
        .collect();
    map([
        (
            "rule_files",
            Node::List(vec![text("../streamgate.rules.yml")]),
        ),
        ("evaluation_interval", plain(every)),
        // Without an order promtool takes a random one, and what rules read may be a step old.
        ("group_eval_order", Node::List(order)),
        ("tests", Node::List(tests)),
    ])
}

fn node(scenario: &Scenario, groups: &[Group]) -> Node {
    let input = |(series, values): &(String, String)| {
        map([("series", text(series)), ("values", text(values))])
    };
    let mut node = vec![
        ("name".to_owned(), text(scenario.name)),
        ("interval".to_owned(), plain("1m")),
        (
            "input_series".to_owned(),
            Node::List(scenario.world.series.iter().map(input).collect()),
        ),
    ];
    let (mut values, mut whole) = (Vec::new(), Vec::new());
    for check in &scenario.checks {
        match check {
            Firing(minute, set) => values.push(firing(*minute, set, groups)),
            Value(minute, expr, samples) => {
                values.push(value(*minute, expr, samples.iter().copied()))
            }
            Whole(minute, name, fired) => whole.push(whole_node(*minute, name, fired)),
        }
    }
    for (key, list) in [("promql_expr_test", values), ("alert_rule_test", whole)] {
        if !list.is_empty() {
            node.push((key.to_owned(), Node::List(list)));
        }
    }
    Node::Map(node)
}

fn value<L: Into<String>>(
    minute: u32,
    expr: &str,
    samples: impl Iterator<Item = (L, f64)>,
) -> Node {
    let sample =
        |(labels, value): (L, f64)| map([("labels", text(labels)), ("value", plain(value))]);
    map([
        ("expr", text(expr)),
        ("eval_time", plain(format!("{minute}m"))),
        ("exp_samples", Node::List(samples.map(sample).collect())),
    ])
}

fn firing(minute: u32, set: &str, groups: &[Group]) -> Node {
    let mut counts: BTreeMap<String, f64> = BTreeMap::new();
    let mut last = String::new();
    for word in set.split_whitespace() {
        if let Some(times) = word
            .strip_prefix('x')
            .and_then(|times| times.parse::<f64>().ok())
        {
            *counts.get_mut(&last).unwrap() += times - 1.0;
            continue;
        }
        last = labels_of(word, groups);
        *counts.entry(last.clone()).or_default() += 1.0;
    }
    value(minute, ALL_FIRING, counts.into_iter())
}

/// The labels by which firing alerts are counted.
fn labels_of(word: &str, groups: &[Group]) -> String {
    let (name, severity) = word.split_once('/').unwrap_or((word, ""));
    let named: Vec<&Alert> = alerts(groups)
        .filter(|alert| alert.name == name && (severity.is_empty() || alert.severity == severity))
        .collect();
    let first = named.first().unwrap_or_else(|| panic!("no alert {word}"));
    assert!(
        named.iter().all(|alert| alert.severity == first.severity),
        "{word}: of which severity?"
    );
    let slo = first
        .slo
        .map(|slo| format!(",slo=\"{slo}\""))
        .unwrap_or_default();
    format!(
        "{{alertname=\"{}\",severity=\"{}\"{slo}}}",
        first.full_name(),
        first.severity
    )
}

fn whole_node(minute: u32, name: &str, fired: &[Fired]) -> Node {
    let pairs = |pairs: &[(&'static str, &'static str)]| {
        let pair = |(key, value): &(&str, &str)| ((*key).to_owned(), text(*value));
        Node::Map(pairs.iter().map(pair).collect())
    };
    let alert = |fired: &Fired| {
        map([
            ("exp_labels", pairs(&fired.labels)),
            ("exp_annotations", pairs(&fired.annotations)),
        ])
    };
    map([
        ("eval_time", plain(format!("{minute}m"))),
        ("alertname", text(format!("StreamGate{name}"))),
        ("exp_alerts", Node::List(fired.iter().map(alert).collect())),
    ])
}
