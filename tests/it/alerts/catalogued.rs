//! Every metric and label that a rule names exists: in the catalogue, among StreamGate's own families,
//! or among the recorded series.

use std::collections::{BTreeMap, BTreeSet};

use super::rule::{Group, Rule};

/// Families that no code fills yet, with the reason.
const EXCUSED: &[(&str, &str)] = &[];

/// What Prometheus itself adds to a series.
const ADDED: [&str; 3] = ["job", "instance", "le"];

/// Metrics with their labels.
pub(crate) type Known = BTreeMap<String, BTreeSet<String>>;

/// What instances show: the catalogue and the service's own families.
pub(crate) fn families(observe: &str) -> Known {
    let mut known = Known::new();
    let mut add = |name: &str, labels: &[&str]| {
        let labels = labels.iter().chain(&ADDED).map(|label| (*label).to_owned());
        known.insert(name.to_owned(), labels.collect());
    };
    for (metric, bounds) in streamgate_agent::bench_door::catalogue() {
        let name = metric.name();
        if bounds.is_empty() {
            add(name, metric.label_names());
        } else {
            for part in ["bucket", "count", "sum"] {
                add(&format!("{name}_{part}"), metric.label_names());
            }
        }
    }
    add("up", &[]);
    for (name, _) in EXCUSED {
        add(name, &[]);
    }
    // A declaration ends with its semicolon; strings in it are the name, the help and the labels.
    for declared in observe.split("static ").skip(1) {
        let declared = declared.split(";\n").next().unwrap();
        let strings: Vec<&str> = declared.split('"').skip(1).step_by(2).collect();
        if let Some(name) = strings
            .first()
            .filter(|name| name.starts_with("streamgate_"))
        {
            add(name, &strings[2..]);
        }
    }
    known
}

/// Words of an expression that are neither strings nor durations, with what follows them.
fn words(expr: &str) -> Vec<(String, char)> {
    let mut found = Vec::new();
    // What stands between quotes is a value.
    let code: String = expr.split('"').step_by(2).collect::<Vec<_>>().join("\"");
    let inside = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | ':');
    let mut rest = code.as_str();
    while let Some(start) = rest.find(inside) {
        let (_, tail) = rest.split_at(start);
        let (word, after) = tail.split_at(tail.find(|c| !inside(c)).unwrap_or(tail.len()));
        let next = after.trim_start().chars().next().unwrap_or(' ');
        if !word.starts_with(|c: char| c.is_ascii_digit()) {
            found.push((word.to_owned(), next));
        }
        rest = after;
    }
    found
}

const OPERATORS: [&str; 12] = [
    "sum", "count", "max", "min", "avg", "and", "or", "unless", "on", "by", "offset", "without",
];

/// The names in an expression that nobody knows.
pub(crate) fn unknown(expr: &str, known: &Known) -> Vec<String> {
    let labels: BTreeSet<&String> = known.values().flatten().collect();
    let is_wrong = |(word, next): &(String, char)| {
        let called = *next == '(' || OPERATORS.contains(&word.as_str());
        !called && !known.contains_key(word) && !labels.contains(word)
    };
    let wrong = words(expr).into_iter().filter(is_wrong);
    let mut wrong: Vec<String> = wrong.map(|(word, _)| word).collect();
    // Of a selector, each label is one of its metric's.
    for (name, selected) in selectors(expr) {
        let Some(has) = known.get(&name) else {
            continue;
        };
        let strange = selected.into_iter().filter(|label| !has.contains(label));
        wrong.extend(strange.map(|label| format!("{name}{{{label}}}")));
    }
    wrong
}

/// Metrics with the labels in braces behind them.
fn selectors(expr: &str) -> Vec<(String, Vec<String>)> {
    let pieces: Vec<&str> = expr.split('{').collect();
    let inside = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | ':');
    let name = |before: &str| before.rsplit(|c| !inside(c)).next().unwrap().to_owned();
    let labels = |braces: &str| words(braces.split('}').next().unwrap());
    pieces
        .windows(2)
        .map(|pair| {
            let labels = labels(pair[1]).into_iter().map(|(label, _)| label);
            (name(pair[0]), labels.collect())
        })
        .collect()
}

/// The recorded series, with the labels that their names promise.
pub(crate) fn with_recorded(mut known: Known, groups: &[Group]) -> Known {
    let words = [
        ("job", "job"),
        ("instance", "instance"),
        ("level", "cache_level"),
        ("class", "cache_class"),
        ("device", "system_device"),
    ];
    for rule in groups.iter().flat_map(|group| &group.rules) {
        let Rule::Record { name, .. } = rule else {
            continue;
        };
        let level = name.split(':').next().unwrap();
        let labels = words.iter().filter(|(word, _)| level.contains(word));
        let mut labels: BTreeSet<String> = labels.map(|(_, label)| (*label).to_owned()).collect();
        labels.insert("job".to_owned());
        known.insert(name.clone(), labels);
    }
    known
}

#[test]
fn every_name_in_a_rule_exists() {
    let file = super::target_file();
    let groups = super::groups(&file);
    let observe = super::read("examples/streamgate/src/observe.rs");
    let known = with_recorded(families(&observe), &groups);
    for rule in groups.iter().flat_map(|group| &group.rules) {
        let expr = match rule {
            Rule::Record { expr, .. } => expr,
            Rule::Alert(alert) => &alert.expr,
        };
        let unknown = unknown(expr, &known);
        assert!(unknown.is_empty(), "{unknown:?} in {expr}");
    }
    let excused_for_nothing = EXCUSED.iter().find(|(name, _)| observe.contains(name));
    assert!(excused_for_nothing.is_none(), "{excused_for_nothing:?}");
}

#[test]
fn a_metric_or_label_that_nobody_has_is_found() {
    let known =
        families("static X: Metric = Metric::gauge(\"streamgate_x\", \"X.\").labels(&[\"step\"]);");
    let cases = [
        ("rate(upp{job=\"a\"}[5m]) > 0", vec!["upp"]),
        ("sum by (jobb) (up)", vec!["jobb"]),
        ("up{cache_level=\"l1\"}", vec!["up{cache_level}"]),
        ("streamgate_x{step=\"a\"} > 1 and on (job) up", vec![]),
        (
            "http_server_request_duration_seconds{job=\"a\"}",
            vec!["http_server_request_duration_seconds"],
        ),
    ];
    for (expr, expected) in cases {
        assert_eq!(unknown(expr, &known), expected, "{expr}");
    }
}
