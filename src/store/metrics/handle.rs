//! What recording code holds: a cell, found once, written without looking anything up.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::cells::Place;
use super::exemplar::{ExemplarSlot, TraceContext};
use super::family::Series;
use super::layout::Layout;

/// The bits of a cell whose value is not known: a NaN that no computation yields.
pub(crate) const ABSENT: u64 = 0x7ff8_dead_0000_0001;

/// A value's bits in a cell; a NaN of any kind is an absent value.
pub(crate) fn to_bits(value: f64) -> u64 {
    if value.is_nan() {
        ABSENT
    } else {
        value.to_bits()
    }
}

/// The value of bits in a cell; `None` for an absent one.
fn of_bits(bits: u64) -> Option<f64> {
    (bits != ABSENT).then(|| f64::from_bits(bits))
}

macro_rules! handle {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone)]
        pub struct $name(Place);

        impl $name {
            pub(crate) fn new(place: Place) -> Self {
                Self(place)
            }
        }
    };
}

handle! {
    /// Counts events. Cloning is cheap and shares the series.
    ///
    /// # Cost
    /// One relaxed load and store on the thread's own cell; no lock, no allocation after the
    /// thread's first write near this series.
    Counter
}

impl Counter {
    /// Adds `events`.
    #[inline]
    pub fn add(&self, events: u64) {
        self.0.add(events);
    }

    /// Adds one event.
    #[inline]
    pub fn inc(&self) {
        self.add(1);
    }
}

handle! {
    /// A number that many threads raise and lower; its value is the sum of the differences.
    UpDown
}

impl UpDown {
    /// Adds a difference, which may be negative.
    #[inline]
    pub fn add(&self, difference: i64) {
        self.0.add(difference.cast_unsigned());
    }

    /// Raises the number by one until the guard is dropped.
    #[must_use]
    pub fn hold(&self) -> Held {
        self.add(1);
        Held(self.clone())
    }
}

/// Lowers an [`UpDown`] again when dropped, however the scope ends.
#[derive(Debug)]
pub struct Held(UpDown);

impl Drop for Held {
    fn drop(&mut self) {
        self.0.add(-1);
    }
}

handle! {
    /// A value that is set; absent from every output until then.
    Gauge
}

impl Gauge {
    /// Sets the value; NaN makes it absent.
    pub fn set(&self, value: f64) {
        self.0.set(to_bits(value));
    }

    /// Adds a difference, which may be negative; an absent value counts as zero.
    pub fn add(&self, difference: f64) {
        let sum = |bits| to_bits(of_bits(bits).unwrap_or(0.0) + difference);
        self.0.update(sum);
    }

    /// Makes the value absent: not known is not zero.
    pub fn clear(&self) {
        self.0.set(ABSENT);
    }

    /// The value; `None` while it is absent.
    pub fn get(&self) -> Option<f64> {
        of_bits(self.0.get())
    }
}

handle! {
    /// A total that is read elsewhere, such as a kernel counter; absent until the first reading.
    ObservedCounter
}

impl ObservedCounter {
    /// Sets the total. A lower one than before is a restart of its source and is shown as such;
    /// one below zero, or NaN, is no total and makes it absent.
    pub fn set(&self, total: f64) {
        let known = if total >= 0.0 { total } else { f64::NAN };
        self.0.set(to_bits(known));
    }

    /// Adds to the total; an absent one counts as zero.
    #[cfg_attr(
        not(feature = "opentelemetry"),
        expect(dead_code, reason = "only their counters have fractions")
    )]
    pub(crate) fn add(&self, more: f64) {
        Gauge(self.0.clone()).add(more);
    }

    /// The last total, `None` before the first reading.
    pub fn get(&self) -> Option<f64> {
        of_bits(self.0.get())
    }
}

/// A distribution: counts per bucket and a sum.
#[derive(Clone)]
pub struct Histogram {
    place: Place,
    layout: &'static Layout,
    /// Present only in families that carry exemplars.
    series: Option<Arc<Series>>,
}

impl fmt::Debug for Histogram {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Histogram")
            .field("place", &self.place)
            .finish_non_exhaustive()
    }
}

impl Histogram {
    pub(crate) fn new(place: Place, layout: &'static Layout, series: Option<Arc<Series>>) -> Self {
        Self {
            place,
            layout,
            series,
        }
    }

    /// Records a duration. Durations beyond 584 years count as that.
    ///
    /// # Cost
    /// Two relaxed loads and stores on the thread's own cells and at most four comparisons.
    #[inline]
    pub fn record(&self, duration: Duration) {
        self.record_value(whole_nanos(duration));
    }

    /// Records a value in the smallest unit: nanoseconds, bytes or things.
    #[inline]
    pub fn record_value(&self, value: u64) {
        let cell = self.layout.cell(value);
        self.place.record(cell, self.layout.sum_cell(), value);
    }

    /// Records a duration and offers the trace of its request as an exemplar.
    ///
    /// Pass a trace only if its span is kept, or the link leads nowhere.
    #[inline]
    pub fn record_traced(&self, duration: Duration, trace: Option<TraceContext>) {
        let nanos = whole_nanos(duration);
        self.record_value(nanos);
        if let (Some(trace), Some(series)) = (trace, &self.series) {
            self.offer(series, trace, nanos);
        }
    }

    #[cold]
    fn offer(&self, series: &Series, trace: TraceContext, value: u64) {
        let slots = series.exemplars.get_or_init(|| {
            let buckets = self.layout.classic().count() + 1;
            std::iter::repeat_with(ExemplarSlot::default)
                .take(buckets)
                .collect()
        });
        let now = unix_nanos_now();
        if let Some(slot) = slots.get(self.layout.classic_bucket(value)) {
            slot.offer(trace, value, now);
        }
    }
}

/// Whole nanoseconds; what does not fit counts as the largest.
#[inline]
pub(crate) fn whole_nanos(duration: Duration) -> u64 {
    let whole = duration.as_secs().saturating_mul(1_000_000_000);
    whole.saturating_add(u64::from(duration.subsec_nanos()))
}

/// Wall time for people and links; 0 if the clock stands before 1970.
pub(crate) fn unix_nanos_now() -> u64 {
    SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .ok()
        .and_then(|since| u64::try_from(since.as_nanos()).ok())
        .unwrap_or(0)
}
