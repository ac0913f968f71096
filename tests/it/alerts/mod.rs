//! The alert rules and their tests: made from `targets.toml`, committed under `alerts/`, compared here.
//!
//! `STREAMGATE_WRITE=1 cargo test --test it alerts` writes the files anew.

mod agent;
mod budgets;
mod caches_seen;
pub(crate) mod catalogued;
mod names;
mod parts;
mod parts_seen;
mod recording;
mod requests_seen;
mod rule;
mod scenario;
mod seen;
#[expect(dead_code, reason = "the agent reads the keys that no rule needs")]
#[path = "../../../src/assess/target_file.rs"]
mod target_file;
mod targets;
mod traffic_seen;
mod week_seen;
mod world;
mod yaml;

use std::collections::BTreeSet;
use std::path::Path;

use rule::{Group, Rule};
use scenario::Scenario;
pub(crate) use target_file::{Op, TargetFile, Threshold};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

pub(crate) fn target_file() -> TargetFile {
    toml::from_str(&read("targets.toml")).unwrap()
}

pub(crate) fn read(file: &str) -> String {
    let path = root().join(file);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Every group in the order in which Prometheus evaluates them.
pub(crate) fn groups(file: &TargetFile) -> Vec<Group> {
    let mut groups = recording::groups(file);
    for (name, alerts) in [
        ("streamgate.alerts.slo", budgets::alerts(file)),
        ("streamgate.alerts.targets", targets::alerts(file)),
        (
            "streamgate.alerts.parts",
            [parts::alerts(file), agent::alerts(file)].concat(),
        ),
        ("streamgate.alerts.meta", seen::alerts(file)),
    ] {
        groups.push(Group {
            name,
            interval: "30s",
            rules: alerts.into_iter().map(Rule::Alert).collect(),
        });
    }
    groups
}

const MADE: &str =
    "# Made from targets.toml by tests/it/alerts: STREAMGATE_WRITE=1 cargo test --test it alerts\n";

/// The files as they should be.
fn made() -> [(&'static str, String); 3] {
    let file = target_file();
    let groups = groups(&file);
    let rules = yaml::document(MADE, &rule::rules_file(&groups, &file));
    let hours: Vec<Scenario> = [
        requests_seen::all(&file),
        traffic_seen::all(&file),
        caches_seen::all(&file),
        parts_seen::all(&file),
    ]
    .into_iter()
    .flatten()
    .collect();
    let hours = yaml::document(MADE, &scenario::tests_file(&hours, "1m", &groups));
    let week = yaml::document(
        MADE,
        &scenario::tests_file(&week_seen::all(), "5m", &groups),
    );
    [
        ("alerts/streamgate.rules.yml", rules),
        ("alerts/tests/hours.test.yml", hours),
        ("alerts/tests/week.test.yml", week),
    ]
}

/// Holds a committed file against what is made from `targets.toml`, or writes it where that is asked for.
pub(crate) fn is_as_made(path: &str, text: &str) {
    let whole = root().join(path);
    if std::env::var_os("STREAMGATE_WRITE").is_some() {
        std::fs::create_dir_all(whole.parent().unwrap()).unwrap();
        std::fs::write(&whole, text).unwrap();
    }
    let committed = std::fs::read_to_string(&whole).unwrap_or_default();
    assert!(
        committed == text,
        "{path}: not as made from targets.toml; STREAMGATE_WRITE=1 writes it"
    );
}

#[test]
fn alerts_are_as_generated() {
    for (path, text) in made() {
        is_as_made(path, &text);
    }
}

#[test]
fn every_alert_has_a_runbook_and_every_runbook_an_alert() {
    let file = target_file();
    let groups = groups(&file);
    let alerts: BTreeSet<String> = rule::alerts(&groups).map(rule::Alert::full_name).collect();
    let text = read("alerts/runbooks.md");
    let sections: Vec<&str> = text.split("\n## ").skip(1).collect();
    let named = sections.iter().filter_map(|section| section.lines().next());
    let named: BTreeSet<String> = named.map(str::to_owned).collect();
    assert_eq!(named, alerts);
    assert_eq!(named.len(), sections.len(), "a section stands twice");
    for section in sections {
        for part in [
            "Meaning",
            "First look",
            "Causes",
            "Profile",
            "Recovered when",
        ] {
            assert!(
                section.contains(&format!("- **{part}:** ")),
                "{part}: {section}"
            );
        }
    }
}

#[test]
fn every_limit_of_the_targets_file_is_used_by_a_rule() {
    let file = target_file();
    let shown = |groups: &[Group]| {
        let alerts = rule::alerts(groups).map(|alert| alert.expr.clone());
        alerts.collect::<Vec<String>>().join("\n")
    };
    let before = shown(&groups(&file));
    for name in file.limit.keys() {
        let mut changed = file.clone();
        let limit = changed.limit.get_mut(name).unwrap();
        for side in [&mut limit.above, &mut limit.below].into_iter().flatten() {
            *side *= 2.0;
        }
        assert_ne!(shown(&groups(&changed)), before, "limit.{name}");
    }
}
