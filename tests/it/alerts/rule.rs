//! A rule, and what every rule carries: labels, annotations, its place in a group.

use super::target_file::TargetFile;
use super::yaml::{Node, map, plain, text};

/// Rules that Prometheus evaluates one after the other.
#[derive(Debug)]
pub(crate) struct Group {
    pub(crate) name: &'static str,
    pub(crate) interval: &'static str,
    pub(crate) rules: Vec<Rule>,
}

#[derive(Debug)]
pub(crate) enum Rule {
    Record { name: String, expr: String },
    Alert(Alert),
}

#[derive(Debug, Clone)]
pub(crate) struct Alert {
    /// Without the prefix that all but the watchdog have.
    pub(crate) name: &'static str,
    pub(crate) expr: String,
    /// `None`: fires at once.
    pub(crate) hold: Option<String>,
    pub(crate) severity: &'static str,
    /// What the alert is about; `None` where the service as a whole cannot be seen.
    pub(crate) slo: Option<&'static str>,
    /// Labels that tell alerts of one name apart.
    pub(crate) labels: Vec<(&'static str, String)>,
    /// A sentence that holds for every case.
    pub(crate) summary: String,
    /// What is seen where, against which target, and what to do next.
    pub(crate) description: String,
    pub(crate) evidence: Evidence,
}

/// The profile that shows the cause of an alert about one instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Evidence {
    None,
    Cpu,
    Heap,
}

impl Alert {
    /// The name as Alertmanager and readers see it.
    pub(crate) fn full_name(&self) -> String {
        match self.name {
            "Watchdog" => self.name.to_owned(),
            name => format!("StreamGate{name}"),
        }
    }

    fn dashboard(&self) -> &'static str {
        match self.slo {
            Some("errors") => "/d/streamgate-slo",
            Some("latency") => "/d/streamgate-api",
            Some("cache") => "/d/streamgate-cache",
            Some("cpu" | "memory" | "disk" | "runtime") => "/d/streamgate-runtime",
            Some("database" | "storage") => "/d/streamgate-database",
            Some("agent") => "/d/streamgate-agent",
            _ => "/d/streamgate-overview",
        }
    }

    /// The labels that the rule itself sets, in the order of the file.
    pub(crate) fn own_labels(&self) -> Vec<(&'static str, String)> {
        let mut labels = vec![("severity", self.severity.to_owned())];
        labels.extend(self.slo.map(|slo| ("slo", slo.to_owned())));
        labels.extend(self.labels.iter().cloned());
        labels
    }

    pub(crate) fn annotations(&self, file: &TargetFile) -> Vec<(&'static str, String)> {
        let anchor = self.full_name().to_ascii_lowercase();
        let mut notes = vec![
            ("summary", self.summary.clone()),
            ("description", self.description.clone()),
            ("runbook_url", format!("{}#{anchor}", file.runbooks)),
            ("dashboard", self.dashboard().to_owned()),
        ];
        // The recorder keeps 15 min: two minutes back lies the minute that the alert saw.
        let path = match self.evidence {
            Evidence::None => return notes,
            Evidence::Cpu => "/debug/pprof/profile?format=svg&ago=120&seconds=60",
            Evidence::Heap => "/debug/pprof/heap?format=svg",
        };
        notes.push((
            "profile",
            format!("http://{{{{ $labels.instance }}}}{path}"),
        ));
        notes
    }
}

fn entries(pairs: Vec<(&'static str, String)>) -> Node {
    let entry = |(key, value): (&str, String)| (key.to_owned(), text(value));
    Node::Map(pairs.into_iter().map(entry).collect())
}

fn rule_node(rule: &Rule, file: &TargetFile) -> Node {
    match rule {
        Rule::Record { name, expr } => map([("record", text(name)), ("expr", text(expr))]),
        Rule::Alert(alert) => {
            let mut node = vec![
                ("alert".to_owned(), text(alert.full_name())),
                ("expr".to_owned(), text(&alert.expr)),
            ];
            if let Some(hold) = &alert.hold {
                node.push(("for".to_owned(), plain(hold)));
            }
            node.push(("labels".to_owned(), entries(alert.own_labels())));
            node.push(("annotations".to_owned(), entries(alert.annotations(file))));
            Node::Map(node)
        }
    }
}

/// The rules as Prometheus loads them.
pub(crate) fn rules_file(groups: &[Group], file: &TargetFile) -> Node {
    let group = |group: &Group| {
        let rules = group.rules.iter().map(|rule| rule_node(rule, file));
        map([
            ("name", text(group.name)),
            ("interval", plain(group.interval)),
            ("rules", Node::List(rules.collect())),
        ])
    };
    map([("groups", Node::List(groups.iter().map(group).collect()))])
}

/// Every alert of the groups.
pub(crate) fn alerts(groups: &[Group]) -> impl Iterator<Item = &Alert> {
    let rules = groups.iter().flat_map(|group| &group.rules);
    rules.filter_map(|rule| match rule {
        Rule::Alert(alert) => Some(alert),
        Rule::Record { .. } => None,
    })
}
