//! The last minute: totals at a few moments, and what happened between them.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use crate::catalog::bounds::Bounds;
use crate::catalog::families;
use crate::config;
use crate::store::metrics::{Layout, Snapshot, Value};

use super::target_file::Thresholds;

/// A reading is kept for good if it lies this far from the one before, else the next replaces it:
/// so the newest is always fresh, and frequent readings do not shorten the window. A little under
/// the interval, for ticks are never exact.
const SPACING: Duration = config::ASSESS_INTERVAL.saturating_sub(Duration::from_millis(500));

/// Totals of requests since the start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Requests {
    /// Duration cells, summed over all series.
    pub(crate) cells: Vec<u64>,
    /// Status 5xx, or no status at all.
    pub(crate) failed: u64,
    /// Answered with what was asked for: neither failed nor 429. A shed request is no throughput.
    pub(crate) served: u64,
}

impl Requests {
    fn none() -> Self {
        Self {
            cells: vec![0; Layout::of(Bounds::Request).buckets()],
            failed: 0,
            served: 0,
        }
    }

    pub(crate) fn finished(&self) -> u64 {
        self.cells.iter().sum()
    }

    fn since(&self, before: &Self) -> Self {
        let pairs = || self.cells.iter().zip(&before.cells);
        let restarted = self.failed < before.failed
            || self.served < before.served
            || pairs().any(|(now, then)| now < then);
        if restarted {
            return self.clone();
        }
        Self {
            cells: pairs().map(|(now, then)| now - then).collect(),
            failed: self.failed - before.failed,
            served: self.served - before.served,
        }
    }

    fn add(&mut self, more: &Self) {
        for (sum, more) in self.cells.iter_mut().zip(&more.cells) {
            *sum += more;
        }
        self.failed += more.failed;
        self.served += more.served;
    }
}

/// Lookups of one cache level that count for its ratio.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Lookups {
    /// hit + stale + miss + error.
    pub(crate) asked: u64,
    /// hit + stale.
    pub(crate) served: u64,
}

/// Totals of all caches since the start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Caches {
    /// L1, L2, L3; `None` for a level that the service does not have.
    pub(crate) levels: [Option<Lookups>; 3],
    /// Loads from behind the last level; `None` if nobody counts them.
    pub(crate) loads: Option<u64>,
}

impl Caches {
    /// Lookups of the first level asked: the edge's public ones and L1's own.
    pub(crate) fn demands(&self) -> u64 {
        let [l1, _, l3] = self.levels.map(|level| level.unwrap_or_default().asked);
        l1 + l3
    }

    fn since(&self, before: &Self) -> Self {
        let pairs = || self.levels.iter().zip(&before.levels);
        let less = |(now, then): (&Option<Lookups>, &Option<Lookups>)| {
            let (now, then) = (now.unwrap_or_default(), then.unwrap_or_default());
            now.asked < then.asked || now.served < then.served
        };
        if pairs().any(less) || self.loads.unwrap_or(0) < before.loads.unwrap_or(0) {
            return *self;
        }
        let mut grown = *self;
        for (now, then) in grown.levels.iter_mut().zip(&before.levels) {
            if let (Some(now), Some(then)) = (now, then) {
                now.asked -= then.asked;
                now.served -= then.served;
            }
        }
        grown.loads = self.loads.map(|loads| loads - before.loads.unwrap_or(0));
        grown
    }

    fn add(&mut self, more: &Self) {
        for (sum, more) in self.levels.iter_mut().zip(&more.levels) {
            if let Some(more) = more {
                let sum = sum.get_or_insert_default();
                sum.asked += more.asked;
                sum.served += more.served;
            }
        }
        if let Some(more) = more.loads {
            *self.loads.get_or_insert(0) += more;
        }
    }
}

/// The totals that targets rest on, at one moment.
#[derive(Debug, Clone)]
pub(crate) struct Reading {
    at: Instant,
    requests: Requests,
    pub(crate) caches: Caches,
    cpu_seconds: Option<f64>,
    pub(crate) cpu_limit: Option<f64>,
    pub(crate) memory_ratio: Option<f64>,
    /// Busy seconds of each disk.
    disks: BTreeMap<Box<str>, f64>,
}

impl Reading {
    /// Picks the totals out of a snapshot that was taken at `at`.
    ///
    /// # Cost
    /// One pass over the request, cache and disk series.
    pub(crate) fn of(snapshot: &Snapshot, at: Instant) -> Self {
        Self {
            at,
            requests: requests(snapshot),
            caches: caches(snapshot),
            cpu_seconds: snapshot.float(&families::PROCESS_CPU_SECONDS),
            cpu_limit: snapshot.float(&families::PROCESS_CPU_LIMIT),
            memory_ratio: snapshot.float(&families::PROCESS_MEMORY_UTILIZATION),
            disks: disks(snapshot),
        }
    }
}

/// The place of the status among the labels of the request family.
const STATUS: usize = 2;

fn requests(snapshot: &Snapshot) -> Requests {
    let mut totals = Requests::none();
    let Some(family) = snapshot.family(&families::HTTP_SERVER_REQUEST_DURATION) else {
        return totals;
    };
    for (series, value) in snapshot.values(family) {
        let Value::Histogram(row) = value else {
            continue;
        };
        for (sum, cell) in totals.cells.iter_mut().zip(row.cells) {
            *sum += cell;
        }
        match series.values.get(STATUS).map(|status| &**status) {
            Some(status) if status.is_empty() || status.starts_with('5') => {
                totals.failed += row.count();
            }
            Some("429") => {}
            // The overflow series has no labels: its requests were answered, nobody knows how.
            _ => totals.served += row.count(),
        }
    }
    totals
}

fn caches(snapshot: &Snapshot) -> Caches {
    let mut totals = Caches::default();
    if let Some(family) = snapshot.family(&families::CACHE_REQUESTS) {
        for (series, value) in snapshot.values(family) {
            let ([_, level, result, class], Value::Total(events)) = (&*series.values, value) else {
                continue;
            };
            let level = match &**level {
                "l1" => &mut totals.levels[0],
                "l2" => &mut totals.levels[1],
                "l3" => &mut totals.levels[2],
                _ => continue,
            };
            let level = level.get_or_insert_default();
            // What a trusted edge fetches and what does not exist is shown, never judged. Gated
            // content passes the edge and is judged at L1.
            let judged = match &**class {
                "fill" | "absent" => false,
                "gated" => !matches!(series.values.get(1).map(|level| &**level), Some("l3")),
                _ => true,
            };
            if !judged {
                continue;
            }
            match &**result {
                "hit" | "stale" => {
                    level.asked += events;
                    level.served += events;
                }
                "miss" | "error" => level.asked += events,
                _ => {}
            }
        }
    }
    if let Some(family) = snapshot.family(&families::CACHE_LOADS) {
        for (series, value) in snapshot.values(family) {
            let ([_, class], Value::Total(events)) = (&*series.values, value) else {
                continue;
            };
            let loads = totals.loads.get_or_insert(0);
            if &**class != "absent" {
                *loads += events;
            }
        }
    }
    totals
}

fn disks(snapshot: &Snapshot) -> BTreeMap<Box<str>, f64> {
    let Some(family) = snapshot.family(&families::SYSTEM_DISK_IO_TIME) else {
        return BTreeMap::new();
    };
    let values = snapshot.values(family);
    values
        .filter_map(|(series, value)| match (&*series.values, value) {
            ([device], Value::Float(seconds)) => Some((device.clone(), seconds)),
            _ => None,
        })
        .collect()
}

/// What happened between the oldest and the newest reading.
#[derive(Debug)]
pub(crate) struct Change {
    pub(crate) elapsed: Duration,
    pub(crate) requests: Requests,
    pub(crate) caches: Caches,
    /// Cores that the process used on average.
    pub(crate) cores: Option<f64>,
    /// The busiest disk and the share of time that it was busy.
    pub(crate) busiest: Option<(Box<str>, f64)>,
}

/// The latest readings, 10 s apart: one verdict looks back on 60 s.
#[derive(Debug)]
pub(crate) struct Window {
    pub(crate) thresholds: Thresholds,
    readings: VecDeque<Reading>,
}

impl Window {
    pub(crate) fn new(thresholds: Thresholds) -> Self {
        Self {
            thresholds,
            readings: VecDeque::with_capacity(config::ASSESS_WINDOWS + 2),
        }
    }

    /// Adds a reading. The one made at the agent's start counts, so that a young process is judged
    /// over its whole life.
    pub(crate) fn push(&mut self, reading: Reading) {
        let mut latest = self.readings.iter().rev();
        if let (Some(last), Some(earlier)) = (latest.next(), latest.next())
            && last.at.saturating_duration_since(earlier.at) < SPACING
        {
            self.readings.pop_back();
        }
        self.readings.push_back(reading);
        if self.readings.len() > config::ASSESS_WINDOWS + 1 {
            self.readings.pop_front();
        }
    }

    pub(crate) fn latest(&self) -> Option<&Reading> {
        self.readings.back()
    }

    /// What happened in the window; `None` before the second reading.
    ///
    /// Differences are added up from reading to reading. A total that stepped back was started
    /// anew by its source and counts from zero.
    pub(crate) fn change(&self) -> Option<Change> {
        let (first, last) = (self.readings.front()?, self.readings.back()?);
        let elapsed = last.at.saturating_duration_since(first.at);
        if elapsed.is_zero() {
            return None;
        }
        let mut requests = Requests::none();
        let mut caches = Caches::default();
        let mut cpu = Rate::default();
        let mut disks: BTreeMap<&str, Rate> = BTreeMap::new();
        for (before, now) in self.readings.iter().zip(self.readings.iter().skip(1)) {
            let seconds = now.at.saturating_duration_since(before.at).as_secs_f64();
            requests.add(&now.requests.since(&before.requests));
            caches.add(&now.caches.since(&before.caches));
            cpu.add(before.cpu_seconds, now.cpu_seconds, seconds);
            for (disk, busy) in &now.disks {
                let rate = disks.entry(disk).or_default();
                rate.add(before.disks.get(disk).copied(), Some(*busy), seconds);
            }
        }
        let busiest = disks
            .into_iter()
            // Totals are read a moment before the clock; no disk is busy more than all the time.
            .filter_map(|(disk, rate)| Some((disk, rate.value()?.min(1.0))))
            .max_by(|(_, one), (_, other)| one.total_cmp(other))
            .map(|(disk, ratio)| (disk.into(), ratio));
        Some(Change {
            elapsed,
            requests,
            caches,
            cores: cpu.value(),
            busiest,
        })
    }
}

/// Growth of an observed total over the time in which it was known.
#[derive(Debug, Default)]
struct Rate {
    grown: f64,
    seconds: f64,
}

impl Rate {
    fn add(&mut self, before: Option<f64>, now: Option<f64>, seconds: f64) {
        if let (Some(before), Some(now)) = (before, now) {
            self.grown += if now < before { now } else { now - before };
            self.seconds += seconds;
        }
    }

    fn value(&self) -> Option<f64> {
        (self.seconds > 0.0).then(|| self.grown / self.seconds)
    }
}
