//! What holds for every dashboard, each rule with a planted violation.
//!
//! Source: the rules of github.com/grafana/dashboard-linter, and the lessons of dashboards that show nothing.

use std::collections::BTreeSet;

use serde_json::Value;

use super::boards;
use crate::alerts::catalogued::{Known, families, unknown, with_recorded};
use crate::alerts::{groups, read, target_file};

/// Series that Prometheus makes of what fires.
const ALERT_LABELS: [&str; 7] = [
    "alertname",
    "alertstate",
    "severity",
    "slo",
    "long",
    "job",
    "instance",
];

fn known() -> Known {
    let file = target_file();
    let declared = [
        "examples/streamgate/src/observe.rs",
        "examples/streamgate/src/faults/mod.rs",
    ];
    let declared = declared.map(read).concat();
    let mut known = with_recorded(families(&declared), &groups(&file));
    let labels = ALERT_LABELS.map(str::to_owned);
    known.insert("ALERTS".to_owned(), labels.into());
    known
}

/// All panels but the rows that hold them.
fn panels(board: &Value) -> Vec<&Value> {
    let list = board["panels"].as_array().unwrap();
    let inside = list.iter().flat_map(|row| row["panels"].as_array());
    let all = list.iter().chain(inside.flatten());
    all.filter(|panel| panel["type"] != "row").collect()
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

/// The names of what breaks a rule, each with its panel.
fn broken(board: &Value, uids: &BTreeSet<String>, known: &Known) -> Vec<String> {
    let mut found = Vec::new();
    let board_rules = [
        ("editable", board["editable"] == false),
        ("tag", board["tags"][0] == "streamgate"),
        ("tooltip", board["graphTooltip"] == 1),
        ("refresh", board["refresh"] == "30s"),
        ("variables", variables_are_whole(board)),
    ];
    found.extend(failed(&board_rules, "the dashboard"));
    for panel in panels(board) {
        let title = text(&panel["title"]);
        let is_graph = panel["type"] == "flamegraph";
        let description = text(&panel["description"]);
        let defaults = &panel["fieldConfig"]["defaults"];
        let link = text(&panel["links"][0]["url"]);
        let leads = link
            .strip_prefix("/d/")
            .and_then(|link| link.split('?').next());
        let steps = defaults["thresholds"]["steps"].as_array().unwrap();
        let style = &defaults["custom"]["thresholdsStyle"]["mode"];
        let targets = panel["targets"].as_array().unwrap();
        let panel_rules = [
            ("title", !title.is_empty()),
            (
                "description",
                ["Good: ", "If not: "]
                    .iter()
                    .all(|part| description.contains(part)),
            ),
            ("unit", is_graph || !text(&defaults["unit"]).is_empty()),
            ("mappings", defaults.get("mappings").is_none()),
            ("no data", !text(&defaults["noValue"]).is_empty()),
            ("targets", !targets.is_empty()),
            ("onward", leads.is_some_and(|uid| uids.contains(uid))),
            ("target line", !title.contains("target") || steps.len() == 3),
            (
                "drawn line",
                panel["type"] != "timeseries" || (steps.len() > 1) == (*style == "dashed"),
            ),
            (
                "data source",
                text(&panel["datasource"]["uid"]).starts_with("${"),
            ),
        ];
        found.extend(failed(&panel_rules, title));
        for target in targets.iter().filter(|_| !is_graph) {
            let expr = text(&target["expr"]);
            let legend = text(&target["legendFormat"]);
            let timed = expr.contains("_seconds_bucket") && target["range"] == true;
            let links = defaults["links"].as_array().map_or(0, Vec::len);
            let names = unknown(&expr.replace("$__rate_interval", "5m"), known);
            let query_rules = [
                ("job and instance", selectors_are_whole(expr)),
                (
                    "rate interval",
                    expr.split("rate(").skip(1).all(rate_is_of_the_interval),
                ),
                ("counter", counters_are_rates(expr)),
                (
                    "exemplars",
                    !timed || (target["exemplar"] == true && links > 0),
                ),
                (
                    "legend",
                    legend_labels(legend).all(|label| survives(expr, label, known)),
                ),
                ("names", names.is_empty()),
            ];
            found.extend(failed(&query_rules, &format!("{title}: {expr} {names:?}")));
        }
    }
    found
}

fn failed(rules: &[(&str, bool)], place: &str) -> Vec<String> {
    let broken = rules.iter().filter(|(_, holds)| !holds);
    broken.map(|(rule, _)| format!("{rule}: {place}")).collect()
}

fn variables_are_whole(board: &Value) -> bool {
    let list = board["templating"]["list"].as_array().unwrap();
    let names: Vec<&str> = list.iter().map(|one| text(&one["name"])).collect();
    let asked = |name: &str| {
        let one = list.iter().find(|one| one["name"] == name);
        one.is_some_and(|one| {
            one["multi"] == true && one["allValue"] == ".+" && one["refresh"] == 2
        })
    };
    names.starts_with(&["datasource", "job", "instance", "agent_url"])
        && asked("job")
        && asked("instance")
}

/// Metrics with what stands in the braces behind them.
fn selectors(expr: &str) -> Vec<(&str, &str)> {
    let outside = |c: char| !(c.is_ascii_alphanumeric() || matches!(c, '_' | ':'));
    let pieces: Vec<&str> = expr.split('{').collect();
    pieces
        .windows(2)
        .map(|pair| {
            let name = pair[0].rsplit(outside).next().unwrap();
            (name, pair[1].split('}').next().unwrap())
        })
        .collect()
}

fn selectors_are_whole(expr: &str) -> bool {
    selectors(expr).iter().all(|(name, inside)| {
        // What is recorded or fires per job has no instance.
        let of_job = name.starts_with("job") || *name == "ALERTS";
        inside.contains("job=~\"$job\"") && (of_job || inside.contains("instance=~\"$instance\""))
    })
}

fn rate_is_of_the_interval(rate: &str) -> bool {
    let window = rate.split('[').nth(1);
    window.is_some_and(|window| window.starts_with("$__rate_interval]"))
}

/// Whether each counter stands right behind the parenthesis of a rate or an increase.
fn counters_are_rates(expr: &str) -> bool {
    selectors(expr)
        .iter()
        .filter(|(name, _)| name.ends_with("_total") || name.ends_with("_bucket"))
        .all(|(name, _)| {
            let called = |function: &str| expr.contains(&format!("{function}({name}{{"));
            called("rate") || called("increase")
        })
}

fn legend_labels(legend: &str) -> impl Iterator<Item = &str> {
    let parts = legend.split("{{").skip(1);
    parts.filter_map(|part| part.split("}}").next())
}

/// Whether a label is there after the aggregations.
fn survives(expr: &str, label: &str, known: &Known) -> bool {
    let kept: Vec<&str> = expr.split("by (").skip(1).collect();
    if kept.is_empty() {
        let mut named = selectors(expr).into_iter();
        return named.any(|(name, _)| known.get(name).is_some_and(|has| has.contains(label)));
    }
    let lists = kept.iter().filter_map(|list| list.split(')').next());
    lists
        .flat_map(|list| list.split(", "))
        .any(|one| one == label)
}

fn uids() -> BTreeSet<String> {
    boards(&target_file())
        .iter()
        .map(super::Board::uid)
        .collect()
}

#[test]
fn every_dashboard_keeps_every_rule() {
    let file = target_file();
    let (uids, known) = (uids(), known());
    for board in boards(&file) {
        let broken = broken(&board.json(&file), &uids, &known);
        assert!(broken.is_empty(), "{}: {broken:#?}", board.uid());
        let runbooks = read("alerts/runbooks.md");
        for panel in board.panels() {
            if let Some(alert) = panel.runbook {
                assert!(runbooks.contains(&format!("\n## {alert}\n")), "{alert}");
            }
        }
    }
}

#[test]
fn every_target_is_a_tile_and_a_line() {
    let file = target_file();
    let made = boards(&file);
    for (id, target) in file.target.rows() {
        let drawn = made.iter().flat_map(super::Board::panels).filter(|panel| {
            let json = panel.json(1, (0, 0), "");
            let steps = &json["fieldConfig"]["defaults"]["thresholds"]["steps"];
            let values: Vec<f64> = (0..3)
                .filter_map(|at| steps[at]["value"].as_f64())
                .collect();
            let is = |wanted: f64| values.iter().any(|value| (value - wanted).abs() < 1e-9);
            is(target.must) && is(target.stretch)
        });
        assert!(drawn.count() > 0, "{id}");
    }
}

#[test]
fn each_rule_finds_its_violation() {
    let file = target_file();
    let (uids, known) = (uids(), known());
    let whole = boards(&file)[0].json(&file);
    assert!(broken(&whole, &uids, &known).is_empty());
    // The first open panel is a tile, and there is a panel of lines with exemplars in the second row.
    let tile = "/panels/1";
    let latency = whole["panels"]
        .as_array()
        .unwrap()
        .iter()
        .enumerate()
        .find_map(|(at, row)| {
            let inside = row["panels"].as_array()?;
            let place = inside
                .iter()
                .position(|panel| panel["targets"][0]["exemplar"] == true)?;
            Some(format!("/panels/{at}/panels/{place}"))
        });
    let latency = latency.unwrap();
    let expr = |text: &str| Value::from(text);
    let cases: Vec<(&str, String, Value)> = vec![
        ("editable", "/editable".into(), true.into()),
        ("tag", "/tags/0".into(), "other".into()),
        ("tooltip", "/graphTooltip".into(), 0.into()),
        ("refresh", "/refresh".into(), "5s".into()),
        ("variables", "/templating/list/1/multi".into(), false.into()),
        ("title", format!("{tile}/title"), "".into()),
        (
            "description",
            format!("{tile}/description"),
            "a number".into(),
        ),
        (
            "unit",
            format!("{tile}/fieldConfig/defaults/unit"),
            "".into(),
        ),
        (
            "no data",
            format!("{tile}/fieldConfig/defaults/noValue"),
            "".into(),
        ),
        (
            "targets",
            format!("{tile}/targets"),
            Value::Array(Vec::new()),
        ),
        (
            "onward",
            format!("{tile}/links/0/url"),
            "/d/elsewhere".into(),
        ),
        (
            "target line",
            format!("{tile}/fieldConfig/defaults/thresholds/steps"),
            Value::Array(Vec::new()),
        ),
        (
            "data source",
            format!("{tile}/datasource/uid"),
            "prometheus".into(),
        ),
        (
            "drawn line",
            format!("{latency}/fieldConfig/defaults/custom/thresholdsStyle/mode"),
            "off".into(),
        ),
        (
            "exemplars",
            format!("{latency}/targets/0/exemplar"),
            false.into(),
        ),
        (
            "job and instance",
            format!("{tile}/targets/0/expr"),
            expr("up{job=~\"$job\"}"),
        ),
        (
            "rate interval",
            format!("{tile}/targets/0/expr"),
            expr("rate(process_cpu_seconds_total{job=~\"$job\",instance=~\"$instance\"}[5m])"),
        ),
        (
            "counter",
            format!("{tile}/targets/0/expr"),
            expr("sum(process_cpu_seconds_total{job=~\"$job\",instance=~\"$instance\"})"),
        ),
        (
            "legend",
            format!("{tile}/targets/0/legendFormat"),
            "{{plugin}}".into(),
        ),
        (
            "names",
            format!("{tile}/targets/0/expr"),
            expr("job:gone{job=~\"$job\"}"),
        ),
    ];
    for (rule, place, value) in cases {
        let mut board = whole.clone();
        *board
            .pointer_mut(&place)
            .unwrap_or_else(|| panic!("{place}")) = value;
        let broken = broken(&board, &uids, &known);
        assert!(
            broken
                .iter()
                .any(|found| found.starts_with(&format!("{rule}: "))),
            "{rule}: {broken:#?}"
        );
    }
    let mut board = whole;
    board.pointer_mut(tile).unwrap()["fieldConfig"]["defaults"]["mappings"] =
        Value::Array(Vec::new());
    assert!(broken(&board, &uids, &known)[0].starts_with("mappings: "));
}
