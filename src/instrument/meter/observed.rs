//! Instruments that are asked: their callbacks run on the agent's thread, among the host's other closures.

use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::{Arc, Mutex};

use opentelemetry::KeyValue;
use opentelemetry::metrics::{AsyncInstrument, Callback};

use super::Meter;
use super::instrument::{Named, Recording};
use super::unit::Translated;
use crate::store::metrics::{Gauge, ObservedCounter};
use crate::store::sync::lock;

/// Attribute sets of one run of a callback. A family shows 2,000; one that never ends has no more.
const SETS: usize = 10_000;

/// A handle whose value is set, or absent.
pub(super) trait Observed: Recording {
    /// NaN makes it absent.
    fn set_to(&self, value: f64);
}

impl Observed for Gauge {
    fn set_to(&self, value: f64) {
        self.set(value);
    }
}

impl Observed for ObservedCounter {
    fn set_to(&self, value: f64) {
        self.set(value);
    }
}

/// What a callback may observe.
pub(super) trait Number: Copy + Send + Sync + 'static {
    fn as_f64(self) -> f64;
}

impl Number for f64 {
    fn as_f64(self) -> f64 {
        self
    }
}

impl Number for u64 {
    fn as_f64(self) -> f64 {
        self as f64
    }
}

impl Number for i64 {
    fn as_f64(self) -> f64 {
        self as f64
    }
}

type Attributes = Vec<KeyValue>;

/// Has the callbacks asked from now on; one for which there is no room is counted.
pub(super) fn start<H: Observed, M: Number>(named: Named, callbacks: Vec<Callback<M>>) {
    let translated = Arc::new(named.translated(H::USE));
    for callback in callbacks {
        let meter = Arc::downgrade(&named.meter);
        let shown = Shown::<H> {
            translated: Arc::clone(&translated),
            held: Mutex::default(),
        };
        let ask = move || {
            match meter.upgrade() {
                Some(meter) => shown.ask(&meter, &callback),
                // Whoever had it asked is gone.
                None => shown.clear(),
            }
        };
        if !named.meter.store.callbacks.add(ask) {
            named.meter.families.refuse();
        }
    }
}

/// What a callback observed the last time.
struct Shown<H> {
    translated: Arc<Translated>,
    held: Mutex<HashMap<Attributes, H>>,
}

impl<H: Observed> Shown<H> {
    fn ask<M: Number>(&self, meter: &Meter, callback: &Callback<M>) {
        let observing = Observing::default();
        let ended = catch_unwind(AssertUnwindSafe(|| callback(&observing)));
        self.show(meter, &std::mem::take(&mut *lock(&observing.0)));
        if let Err(panic) = ended {
            // Counted by whoever runs the host's closures.
            resume_unwind(panic);
        }
    }

    fn clear(&self) {
        for (_, handle) in lock(&self.held).drain() {
            handle.set_to(f64::NAN);
        }
    }

    fn show(&self, meter: &Meter, observed: &HashMap<Attributes, f64>) {
        let mut held = lock(&self.held);
        held.retain(|attributes, handle| {
            let is_there = observed.contains_key(attributes);
            if !is_there {
                handle.set_to(f64::NAN);
            }
            is_there
        });
        for (attributes, value) in observed {
            let known = held.get(attributes).cloned();
            let found = known.or_else(|| meter.series(&self.translated, attributes));
            let Some(handle): Option<H> = found else {
                continue;
            };
            handle.set_to(*value);
            held.insert(attributes.clone(), handle);
        }
    }
}

/// What a callback has observed so far; of the same attributes the last.
#[derive(Default)]
struct Observing(Mutex<HashMap<Attributes, f64>>);

impl<M: Number> AsyncInstrument<M> for Observing {
    fn observe(&self, measurement: M, attributes: &[KeyValue]) {
        let mut attributes = attributes.to_vec();
        attributes.sort_by(|one, other| one.key.cmp(&other.key));
        let mut observed = lock(&self.0);
        if observed.len() < SETS || observed.contains_key(&attributes) {
            observed.insert(attributes, measurement.as_f64());
        }
    }
}
