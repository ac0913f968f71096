//! The metrics core: families of series whose cells each recording thread owns.
//!
//! An event is recorded once; every output is written from one [`Snapshot`]. Label sets are
//! resolved when routes, pools and caches are built, so recording hashes nothing. Absent on
//! purpose: names and help (the catalogue has them), text formats, clocks on the hot path.

mod cells;
mod exemplar;
mod family;
mod handle;
mod layout;
#[cfg_attr(
    not(feature = "prometheus"),
    expect(dead_code, reason = "only foreign registries have names to compare")
)]
pub(crate) mod names;
#[cfg(any(feature = "metrics", feature = "opentelemetry"))]
mod redeclare;
mod snapshot;
mod thread_index;

use std::collections::{BTreeMap, HashSet};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, RwLock};

pub use exemplar::TraceContext;
pub(crate) use exemplar::{Exemplar, halves, whole};
pub(crate) use family::{Family, Series, push_label};
pub use handle::{Counter, Gauge, Held, Histogram, ObservedCounter, UpDown};
pub(crate) use handle::{unix_nanos_now, whole_nanos};
pub(crate) use layout::Layout;
pub(crate) use snapshot::{Distribution, FamilySnapshot, Snapshot, Value, scale};

use crate::catalog::bounds::Bounds;
use crate::catalog::{Kind, Metric, Signal};
use crate::error::Error;
use crate::store::sync::{lock, read, write};

use cells::{Cells, Place};
use names::{is_label_name, is_metric_name};

/// Labels that one family may have.
const LABELS: usize = 10;

/// How much the core may hold.
#[derive(Debug, Clone, Copy)]
pub(crate) struct MetricsLimits {
    /// Label sets over all families.
    pub(crate) series: usize,
    /// Bytes in the threads' own copies of cells.
    pub(crate) bytes: usize,
}

#[derive(Debug)]
pub(crate) struct Metrics {
    cells: Cells,
    families: RwLock<Families>,
    /// Label sets held. The lock orders reservations; it is never taken together with `families`.
    series: Mutex<usize>,
    /// Held while the cells are added up: readers that overtake each other would see sums wrap
    /// that did not, and counters step back.
    reading: Mutex<()>,
    limits: MetricsLimits,
    /// Takes events that found no place at all, so that recording code need not know.
    sink: Place,
}

#[derive(Debug, Default)]
struct Families {
    by_name: BTreeMap<&'static str, Arc<Family>>,
    /// Every name that they take up on any page.
    claimed: HashSet<String>,
}

impl Metrics {
    pub(crate) fn new(limits: MetricsLimits) -> Self {
        let cells = Cells::new(limits.bytes);
        let sink = cells.sink();
        Self {
            cells,
            families: RwLock::default(),
            series: Mutex::new(0),
            reading: Mutex::default(),
            limits,
            sink,
        }
    }

    /// The counter of these label values.
    ///
    /// # Errors
    /// Out of range if the family's name, kind or labels do not fit.
    pub(crate) fn counter(&self, metric: &Metric, values: &[&str]) -> Result<Counter, Error> {
        let place = self.place(metric, values, |kind| kind == Kind::Counter, "Counter")?;
        Ok(Counter::new(place))
    }

    /// The up-down number of these label values.
    ///
    /// # Errors
    /// Out of range if the family's name, kind or labels do not fit.
    pub(crate) fn up_down(&self, metric: &Metric, values: &[&str]) -> Result<UpDown, Error> {
        let place = self.place(metric, values, |kind| kind == Kind::UpDown, "UpDown")?;
        Ok(UpDown::new(place))
    }

    /// The gauge of these label values, absent until it is set.
    ///
    /// # Errors
    /// Out of range if the family's name, kind or labels do not fit.
    pub(crate) fn gauge(&self, metric: &Metric, values: &[&str]) -> Result<Gauge, Error> {
        let place = self.place(metric, values, |kind| kind == Kind::Gauge, "Gauge")?;
        Ok(Gauge::new(place))
    }

    /// The observed counter of these label values, absent until it is set.
    ///
    /// # Errors
    /// Out of range if the family's name, kind or labels do not fit.
    pub(crate) fn observed_counter(
        &self,
        metric: &Metric,
        values: &[&str],
    ) -> Result<ObservedCounter, Error> {
        let fits = |kind| kind == Kind::ObservedCounter;
        let place = self.place(metric, values, fits, "ObservedCounter")?;
        Ok(ObservedCounter::new(place))
    }

    /// The histogram of these label values.
    ///
    /// # Errors
    /// Out of range if the family's name, kind or labels do not fit.
    pub(crate) fn histogram(&self, metric: &Metric, values: &[&str]) -> Result<Histogram, Error> {
        let family = self.family(
            metric,
            |kind| matches!(kind, Kind::Histogram(_)),
            "Histogram",
        )?;
        let Some(layout) = family.layout else {
            return Err(Error::out_of_range("metric kind", "Histogram", metric.name));
        };
        let series = self.admit(&family, values);
        let place = self.place_of(series.as_deref());
        let series = series.filter(|_| metric.exemplars);
        Ok(Histogram::new(place, layout, series))
    }

    /// Shows a family whose labels are its message.
    ///
    /// # Errors
    /// Out of range if the family's name, kind or labels do not fit.
    pub(crate) fn info(&self, metric: &Metric, values: &[&str]) -> Result<(), Error> {
        self.place(metric, values, |kind| kind == Kind::Info, "Info")
            .map(|_| ())
    }

    /// A counter of a catalogue row, whose shape always fits: hosts are refused its name.
    pub(crate) fn own_counter(&self, row: &Metric, values: &[&str]) -> Counter {
        let sink = || Counter::new(self.sink.clone());
        self.counter(row, values).unwrap_or_else(|_| sink())
    }

    /// An up-down number of a catalogue row.
    pub(crate) fn own_up_down(&self, row: &Metric, values: &[&str]) -> UpDown {
        let sink = || UpDown::new(self.sink.clone());
        self.up_down(row, values).unwrap_or_else(|_| sink())
    }

    /// A gauge of a catalogue row.
    pub(crate) fn own_gauge(&self, row: &Metric, values: &[&str]) -> Gauge {
        let sink = || Gauge::new(self.sink.clone());
        self.gauge(row, values).unwrap_or_else(|_| sink())
    }

    /// A histogram of a catalogue row.
    pub(crate) fn own_histogram(&self, row: &Metric, values: &[&str]) -> Histogram {
        let layout = || match row.kind {
            Kind::Histogram(bounds) => Layout::of(bounds),
            _ => Layout::of(Bounds::Wait),
        };
        let sink = || Histogram::new(self.sink.clone(), layout(), None);
        self.histogram(row, values).unwrap_or_else(|_| sink())
    }

    /// All numbers now.
    pub(crate) fn snapshot(&self) -> Snapshot {
        let families: Vec<Arc<Family>> = {
            let families = read(&self.families);
            families.by_name.values().map(Arc::clone).collect()
        };
        let _order = lock(&self.reading);
        // The lists before the cells: a series in a list then always has its cells in the sums.
        let listed: Vec<_> = families.iter().map(|family| family.all()).collect();
        let cells = self.cells.sum();
        let families = families
            .iter()
            .zip(listed)
            .map(|(family, (series, lines))| FamilySnapshot {
                metric: family.metric,
                layout: family.layout,
                series,
                lines,
                wraps: family.wraps(&cells),
            })
            .collect();
        Snapshot { cells, families }
    }

    /// Bytes held in cells.
    pub(crate) fn bytes(&self) -> usize {
        self.cells.bytes()
    }

    /// For each family its name, label sets, and how many were sent to its overflow series.
    pub(crate) fn sizes(&self) -> Vec<(&'static str, usize, u64)> {
        let families = read(&self.families);
        families
            .by_name
            .values()
            .map(|family| {
                let overflowed = family.overflowed.load(Ordering::Relaxed);
                (family.metric.name, family.len(), overflowed)
            })
            .collect()
    }

    fn place(
        &self,
        metric: &Metric,
        values: &[&str],
        fits: impl Fn(Kind) -> bool,
        wanted: &'static str,
    ) -> Result<Place, Error> {
        let family = self.family(metric, fits, wanted)?;
        Ok(self.place_of(self.admit(&family, values).as_deref()))
    }

    fn place_of(&self, series: Option<&Series>) -> Place {
        series.map_or_else(|| self.sink.clone(), |series| series.place.clone())
    }

    fn family(
        &self,
        metric: &Metric,
        fits: impl Fn(Kind) -> bool,
        wanted: &'static str,
    ) -> Result<Arc<Family>, Error> {
        if !fits(metric.kind) {
            let seen = format!("{:?} {}", metric.kind, metric.name);
            return Err(Error::out_of_range("metric kind", wanted, seen));
        }
        if let Some(family) = read(&self.families).by_name.get(metric.name) {
            return same_shape(family, metric);
        }
        check_shape(metric)?;
        let mut families = write(&self.families);
        if let Some(family) = families.by_name.get(metric.name) {
            return same_shape(family, metric);
        }
        let host = metric.signal == Signal::Custom;
        let taken =
            |name: &String| families.claimed.contains(name) || (host && names::in_catalogue(name));
        if let Some(name) = names::claims_of(metric).find(taken) {
            let range = format!("one that no other family uses; {name} is taken");
            return Err(Error::out_of_range("metric name", range, metric.name));
        }
        let family = Arc::new(Family::new(*metric));
        families.claimed.extend(names::claims_of(metric));
        families.by_name.insert(metric.name, Arc::clone(&family));
        Ok(family)
    }

    fn admit(&self, family: &Family, values: &[&str]) -> Option<Arc<Series>> {
        let absent_at_first = matches!(family.metric.kind, Kind::Gauge | Kind::ObservedCounter);
        family.series(values, |overflow| {
            let mut held = lock(&self.series);
            if !overflow && *held >= self.limits.series {
                return None;
            }
            let (slot, place) = self.cells.reserve(family.cells())?;
            if absent_at_first {
                place.set(handle::ABSENT);
            }
            *held += 1;
            Some((slot, place))
        })
    }
}

fn same_shape(family: &Arc<Family>, metric: &Metric) -> Result<Arc<Family>, Error> {
    let held = &family.metric;
    if held.kind == metric.kind && held.labels == metric.labels && held.unit == metric.unit {
        return Ok(Arc::clone(family));
    }
    let range = format!(
        "the {:?} with labels {:?} declared before",
        held.kind, held.labels
    );
    Err(Error::out_of_range("metric", range, metric.name))
}

fn check_shape(metric: &Metric) -> Result<(), Error> {
    if !is_metric_name(metric.name) {
        return Err(Error::out_of_range(
            "metric name",
            "[a-zA-Z_:][a-zA-Z0-9_:]*",
            metric.name,
        ));
    }
    let counts = matches!(metric.kind, Kind::Counter | Kind::ObservedCounter);
    if counts != metric.name.ends_with("_total") {
        return Err(Error::out_of_range(
            "metric name",
            "with _total exactly on counters",
            metric.name,
        ));
    }
    if metric.labels.len() > LABELS {
        return Err(Error::out_of_range(
            "labels",
            format!("0..={LABELS}"),
            metric.labels.len(),
        ));
    }
    for (place, label) in metric.labels.iter().enumerate() {
        let twice = metric
            .labels
            .iter()
            .take(place)
            .any(|earlier| earlier == label);
        if twice || !is_label_name(label) || ["le", family::OVERFLOW_LABEL].contains(label) {
            return Err(Error::out_of_range(
                "label name",
                "a distinct [a-zA-Z_][a-zA-Z0-9_]* other than le and otel_metric_overflow",
                label,
            ));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
