//! The families behind names that are only known when something is recorded, and handles on their series.
//!
//! For those that record through crates of others. Names, label names and help are kept for the life of the process, as families are; so there may be only
//! so many of them.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use crate::catalog::{Kind, Metric, Unit, families};
use crate::error::Error;
use crate::store::Store;
use crate::store::metrics::names::is_label_name;
use crate::store::metrics::{Counter, Histogram, Metrics};
use crate::store::sync::lock;

/// Names that are taken: a service and its libraries have hundreds, a name made of an id has no end.
const FAMILIES: usize = 1_000;
/// Labels of a family, as the core has it.
const LABELS: usize = 10;
/// Bytes of a name.
const NAME_BYTES: usize = 128;
/// Bytes of a description.
const HELP_BYTES: usize = 512;

/// What a name was used for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Use {
    Counter,
    /// One whose total is set, or has fractions.
    Total,
    UpDown,
    Gauge,
    Histogram,
}

/// Something to be recorded, as it was told.
#[derive(Debug, Clone, Copy)]
pub(super) struct Told<'a> {
    pub(super) name: &'a str,
    /// What it is called where names have dots; `None`: as on the page.
    pub(super) otel_name: Option<&'a str>,
    /// In any order.
    pub(super) labels: &'a [(&'a str, &'a str)],
}

/// All families that were opened so far.
#[derive(Debug)]
pub(super) struct Families {
    store: Arc<Store>,
    state: Mutex<State>,
    /// The help of a family that nobody has described.
    undescribed: &'static str,
    refused: Counter,
}

#[derive(Debug, Default)]
struct State {
    /// By the name that is shown.
    opened: HashMap<&'static str, Opened>,
    /// Help of names that were described before they were used.
    described: HashMap<String, &'static str>,
}

#[derive(Debug, Clone, Copy)]
struct Opened {
    /// The name as it was given, since two may look alike once shown.
    given: &'static str,
    used: Use,
    /// `None`: another family has the name.
    metric: Option<Metric>,
}

impl Families {
    /// `source`: whose names are refused, in `agent_scrape_conflicts_total`.
    pub(super) fn new(store: &Arc<Store>, source: &'static str, undescribed: &'static str) -> Self {
        let row = &families::AGENT_SCRAPE_CONFLICTS;
        Self {
            refused: store.metrics.own_counter(row, &[source]),
            undescribed,
            store: Arc::clone(store),
            state: Mutex::default(),
        }
    }

    /// Finds the series of something; `None`, and counted, if there can be none.
    pub(super) fn series<T>(
        &self,
        used: Use,
        told: Told<'_>,
        find: impl Fn(&Metrics, &Metric, &[&str]) -> Result<T, Error>,
    ) -> Option<T> {
        let mut state = lock(&self.state);
        let found = self.open(&mut state, used, told).and_then(|metric| {
            let values: Vec<&str> = metric.labels.iter().map(|name| value(told, name)).collect();
            find(&self.store.metrics, &metric, &values).ok()
        });
        drop(state);
        if found.is_none() {
            self.refuse();
        }
        found
    }

    /// Counts something that cannot be recorded.
    pub(super) fn refuse(&self) {
        self.refused.inc();
    }

    fn open(&self, state: &mut State, used: Use, told: Told<'_>) -> Option<Metric> {
        let labels = label_names(told)?;
        let shown = shown_name(used, told.name)?;
        let Some(opened) = state.opened.get(&*shown).copied() else {
            if state.opened.len() >= FAMILIES {
                return None;
            }
            let help = state.described.remove(told.name);
            let help = help.unwrap_or(self.undescribed);
            let metric = declared(used, kept(&shown), help).labels(kept_labels(&[], labels));
            let metric = match told.otel_name {
                Some(name) => metric.otel(kept(name)),
                None => metric,
            };
            // Found out once: afterwards nothing more is kept for the name.
            let is_free = self.begin(&metric).is_ok();
            let opened = Opened {
                given: kept(told.name),
                used,
                metric: is_free.then_some(metric),
            };
            state.opened.insert(metric.name, opened);
            return opened.metric;
        };
        if opened.used != used || opened.given != told.name {
            return None;
        }
        let metric = opened.metric?;
        let more = labels
            .into_iter()
            .filter(|name| !metric.labels.contains(&&**name));
        let more: Vec<String> = more.collect();
        if more.is_empty() {
            return Some(metric);
        }
        if metric.labels.len() + more.len() > LABELS {
            return None;
        }
        let metric = metric.labels(kept_labels(metric.labels, more));
        self.redeclare(state, opened, metric)
    }

    fn begin(&self, metric: &Metric) -> Result<(), Error> {
        self.store.metrics.declare(metric)
    }

    fn redeclare(&self, state: &mut State, opened: Opened, metric: Metric) -> Option<Metric> {
        self.store.metrics.redeclare(&metric).ok()?;
        let metric = Some(metric);
        let opened = Opened { metric, ..opened };
        state.opened.insert(opened.metric?.name, opened);
        metric
    }

    /// Keeps what was said first about a name.
    pub(super) fn describe(&self, used: Use, name: &str, unit: Option<&str>, text: &str) {
        let Some(shown) = shown_name(used, name) else {
            return;
        };
        let mut state = lock(&self.state);
        let Some(opened) = state.opened.get(&*shown).copied() else {
            let is_new = !state.described.contains_key(name);
            if is_new && state.described.len() < FAMILIES {
                let help = help(&shown, unit, text);
                state.described.insert(name.to_owned(), help);
            }
            return;
        };
        let is_it = opened.used == used && opened.given == name;
        if let Some(mut metric) = opened.metric.filter(|_| is_it)
            && metric.help == self.undescribed
        {
            metric.help = help(&shown, unit, text);
            self.redeclare(&mut state, opened, metric);
        }
    }
}

/// The value of a label by the name that is shown.
fn value<'a>(told: Told<'a>, shown: &str) -> &'a str {
    let mut labels = told.labels.iter();
    let label = labels.find(|(name, _)| shown_label(name) == shown);
    label.map_or("", |(_, value)| value)
}

/// The names of the labels as they are shown; `None` if they cannot be.
fn label_names(told: Told<'_>) -> Option<Vec<String>> {
    let labels = told.labels.iter();
    let names: Vec<String> = labels.map(|(name, _)| shown_label(name)).collect();
    let reserved = ["le", "otel_metric_overflow"];
    let fits = |(place, name): (usize, &String)| {
        let twice = names.iter().take(place).any(|earlier| earlier == name);
        let is_short = name.len() <= NAME_BYTES;
        is_label_name(name) && is_short && !twice && !reserved.contains(&&**name)
    };
    let all = names.len() <= LABELS && names.iter().enumerate().all(fits);
    all.then_some(names)
}

fn shown_label(name: &str) -> String {
    word(name, |letter| {
        letter.is_ascii_alphanumeric() || letter == '_'
    })
}

/// What a family is called on every page: `_total` stands on counters and on nothing else.
fn shown_name(used: Use, name: &str) -> Option<String> {
    let allowed = |letter: char| letter.is_ascii_alphanumeric() || "_:".contains(letter);
    let shown = word(name, allowed);
    let stem = shown.trim_end_matches("_total");
    let shown = match used {
        Use::Counter | Use::Total => format!("{stem}_total"),
        Use::UpDown | Use::Gauge | Use::Histogram => stem.to_owned(),
    };
    (!stem.is_empty() && shown.len() <= NAME_BYTES).then_some(shown)
}

fn word(name: &str, allowed: impl Fn(char) -> bool) -> String {
    let digit = name.starts_with(|first: char| first.is_ascii_digit());
    let letters = name
        .chars()
        .map(|letter| if allowed(letter) { letter } else { '_' });
    digit.then_some('_').into_iter().chain(letters).collect()
}

/// A family by its name, whose end is its unit.
fn declared(used: Use, name: &'static str, help: &'static str) -> Metric {
    let stem = name.trim_end_matches("_total");
    let ends: [(&str, Unit); 3] = [
        ("_seconds", Unit::Seconds),
        ("_bytes", Unit::Bytes),
        ("_ratio", Unit::Ratio),
    ];
    let unit = ends.into_iter().find(|(end, _)| stem.ends_with(end));
    let unit = unit.map_or(Unit::Count, |(_, unit)| unit);
    match (used, unit) {
        (Use::Counter, unit) => Metric::counter(name, help).unit(unit),
        (Use::Total, unit) => Metric::observed_counter(name, help).unit(unit),
        (Use::UpDown, unit) => Metric::up_down(name, help).unit(unit),
        (Use::Gauge, unit) => Metric::gauge(name, help).unit(unit),
        (Use::Histogram, Unit::Seconds) => Metric::wait_histogram(name, help),
        (Use::Histogram, Unit::Bytes) => Metric::size_histogram(name, help),
        (Use::Histogram, _) => Metric::number_histogram(name, help),
    }
}

/// What was said of a name, and the unit where the name does not say it.
fn help(shown: &str, unit: Option<&str>, text: &str) -> &'static str {
    let text = text
        .get(..text.floor_char_boundary(HELP_BYTES))
        .unwrap_or(text);
    let stem = shown.trim_end_matches("_total");
    match unit.filter(|unit| !stem.ends_with(unit)) {
        Some(unit) => kept(&format!("{text} ({unit})")),
        None => kept(text),
    }
}

fn kept(text: &str) -> &'static str {
    Box::leak(Box::from(text))
}

fn kept_labels(held: &[&'static str], more: Vec<String>) -> &'static [&'static str] {
    let more = more.iter().map(|name| kept(name));
    Box::leak(held.iter().copied().chain(more).collect())
}

/// What could not be counted, by why.
#[derive(Debug, Clone)]
pub(super) struct Lost {
    pub(super) negative: Counter,
    pub(super) not_a_number: Counter,
}

impl Lost {
    pub(super) fn new(metrics: &Metrics) -> Self {
        let lost = |why| metrics.own_counter(&families::AGENT_DROPPED, &["metrics", why]);
        Self {
            negative: lost("negative"),
            not_a_number: lost("not_a_number"),
        }
    }

    /// Whether a value is a number and not below zero; if not, it is counted.
    pub(super) fn fits(&self, value: f64) -> bool {
        if value.is_nan() {
            self.not_a_number.inc();
        } else if value < 0.0 {
            self.negative.inc();
        }
        value >= 0.0
    }
}

/// A histogram whose values are numbers of any kind.
#[derive(Debug, Clone)]
pub(super) struct Distribution {
    histogram: Histogram,
    /// The factor from a value to the whole numbers that the core counts in.
    smallest: f64,
}

impl Distribution {
    pub(super) fn find(core: &Metrics, metric: &Metric, values: &[&str]) -> Result<Self, Error> {
        let smallest = match (metric.kind, metric.unit) {
            (Kind::Histogram(_), Unit::Seconds | Unit::Number) => 1e9,
            _ => 1.0,
        };
        let histogram = core.histogram(metric, values)?;
        Ok(Self {
            histogram,
            smallest,
        })
    }

    /// Records a value that is a number and not below zero.
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "rounded and not below zero; a conversion from float keeps within the type's range"
    )]
    pub(super) fn record(&self, value: f64) {
        let whole = (value * self.smallest).round() as u64;
        self.histogram.record_value(whole);
    }
}
