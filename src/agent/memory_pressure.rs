//! Tells the host when the process holds more memory than its soft limit.

use std::fmt;
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use crate::assess::memory_pressure::{MemoryPressure, PressureLevel, PressureWatch};
use crate::catalog::families as rows;
use crate::collect::Source;
use crate::collect::callbacks::call;
use crate::config;
use crate::error::Error;
use crate::store::callbacks;
use crate::store::metrics::{Counter, Gauge, Metrics};
use crate::store::sync::lock;

type Callback = dyn Fn(MemoryPressure) + Send + Sync;

/// Who wants to be told; those who dropped their subscription are forgotten.
#[derive(Default)]
pub(crate) struct Subscribers {
    held: Mutex<Vec<Weak<Callback>>>,
}

impl fmt::Debug for Subscribers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Subscribers")
            .field("held", &lock(&self.held).len())
            .finish()
    }
}

impl Subscribers {
    /// `None` when there is no room.
    pub(super) fn add(
        &self,
        callback: impl Fn(MemoryPressure) + Send + Sync + 'static,
    ) -> Option<MemoryPressureSubscription> {
        let mut held = lock(&self.held);
        held.retain(|callback| callback.strong_count() > 0);
        if held.len() >= callbacks::LIMIT {
            return None;
        }
        let callback: Arc<Callback> = Arc::new(callback);
        held.push(Arc::downgrade(&callback));
        Some(MemoryPressureSubscription {
            _callback: callback,
        })
    }

    fn all(&self) -> Vec<Arc<Callback>> {
        lock(&self.held).iter().filter_map(Weak::upgrade).collect()
    }
}

/// Keeps a closure told of memory pressure until it is dropped; a call that is under way then still
/// ends.
#[must_use = "the closure is told of nothing once this is dropped"]
pub struct MemoryPressureSubscription {
    _callback: Arc<Callback>,
}

impl fmt::Debug for MemoryPressureSubscription {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryPressureSubscription")
            .finish_non_exhaustive()
    }
}

/// Judges what the process's source has read.
///
/// # Cost
/// Each second two loads and three stores, then whatever the subscribers do.
pub(super) struct MemoryPressureSource {
    subscribers: Arc<Subscribers>,
    watch: PressureWatch,
    used: Gauge,
    limit: Gauge,
    soft_limit: Gauge,
    pressure: Gauge,
    to_normal: Counter,
    to_high: Counter,
    panics: Counter,
}

impl MemoryPressureSource {
    /// # Errors
    /// Out of range if a family was declared with another shape before.
    pub(super) fn new(
        metrics: &Metrics,
        share: f64,
        subscribers: Arc<Subscribers>,
    ) -> Result<Self, Error> {
        let gauge = |metric| metrics.gauge(metric, &[]);
        let changes = |to| metrics.counter(&rows::PROCESS_MEMORY_PRESSURE_CHANGES, &[to]);
        Ok(Self {
            subscribers,
            watch: PressureWatch::new(share),
            used: gauge(&rows::PROCESS_MEMORY_USAGE)?,
            limit: gauge(&rows::PROCESS_MEMORY_LIMIT)?,
            soft_limit: gauge(&rows::PROCESS_MEMORY_SOFT_LIMIT)?,
            pressure: gauge(&rows::PROCESS_MEMORY_PRESSURE)?,
            to_normal: changes("normal")?,
            to_high: changes("high")?,
            panics: metrics.counter(&rows::AGENT_PANICS, &["callback"])?,
        })
    }
}

impl Source for MemoryPressureSource {
    fn component(&self) -> &'static str {
        "memory_pressure"
    }

    fn interval(&self) -> Duration {
        config::COLLECT_INTERVAL
    }

    /// Who scrapes must not make the host's caches work.
    fn on_scrape(&self) -> bool {
        false
    }

    fn collect(&mut self) {
        let Some(judged) = self.watch.judge(self.used.get(), self.limit.get()) else {
            self.soft_limit.clear();
            self.pressure.clear();
            return;
        };
        let pressure = judged.pressure;
        let high = pressure.level == PressureLevel::High;
        self.soft_limit.set(pressure.soft_limit_bytes as f64);
        self.pressure.set(f64::from(u8::from(high)));
        if judged.changed {
            let to = if high { &self.to_high } else { &self.to_normal };
            to.inc();
        }
        if high || judged.changed {
            for callback in self.subscribers.all() {
                call(&self.panics, move || callback(pressure));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Store;
    use std::sync::mpsc;

    /// The process's own readings are set by hand here.
    struct Process {
        store: Store,
        source: MemoryPressureSource,
        subscribers: Arc<Subscribers>,
    }

    impl Process {
        fn new() -> Self {
            let store = Store::new(1000);
            let subscribers = Arc::new(Subscribers::default());
            let told = Arc::clone(&subscribers);
            let source = MemoryPressureSource::new(&store.metrics, 0.8, told).unwrap();
            source.limit.set(1000.0);
            Self {
                store,
                source,
                subscribers,
            }
        }

        fn holds(&mut self, bytes: f64) {
            self.source.used.set(bytes);
            self.source.collect();
        }

        fn subscribe(&self) -> (MemoryPressureSubscription, mpsc::Receiver<MemoryPressure>) {
            let (tell, told) = mpsc::channel();
            let told_of = move |pressure| tell.send(pressure).unwrap_or_default();
            (self.subscribers.add(told_of).unwrap(), told)
        }

        fn gauge(&self, metric: &crate::catalog::Metric) -> Option<f64> {
            self.store.metrics.gauge(metric, &[]).unwrap().get()
        }

        fn changes(&self) -> String {
            let snapshot = self.store.metrics.snapshot();
            let family = snapshot.family(&rows::PROCESS_MEMORY_PRESSURE_CHANGES);
            let values = snapshot.values(family.unwrap());
            let lines = values.map(|(series, value)| format!("{:?} {value:?}", series.values));
            lines.collect::<Vec<_>>().join("\n")
        }
    }

    #[test]
    fn subscribers_are_told_of_each_change_and_while_pressure_lasts() {
        let mut process = Process::new();
        let (_subscription, told) = process.subscribe();
        for used in [100.0, 790.0, 810.0, 900.0, 760.0, 700.0, 600.0] {
            process.holds(used);
        }
        let seen: Vec<_> = told
            .try_iter()
            .map(|told| (told.used_bytes, told.level, told.over_bytes()))
            .collect();
        let expected = [
            (810, PressureLevel::High, 10),
            (900, PressureLevel::High, 100),
            (760, PressureLevel::High, 0),
            (700, PressureLevel::Normal, 0),
        ];
        assert_eq!(seen, expected);
        let changes = process.changes();
        assert!(changes.contains("\"high\"] Total(1)"), "{changes}");
        assert!(changes.contains("\"normal\"] Total(1)"), "{changes}");
    }

    #[test]
    fn where_a_reading_is_missing_nobody_is_told_and_the_rows_are_absent() {
        let mut process = Process::new();
        let (_subscription, told) = process.subscribe();
        process.holds(900.0);
        assert_eq!(process.gauge(&rows::PROCESS_MEMORY_PRESSURE), Some(1.0));
        assert_eq!(process.gauge(&rows::PROCESS_MEMORY_SOFT_LIMIT), Some(800.0));
        assert_eq!(told.try_iter().count(), 1);
        process.holds(f64::NAN);
        assert_eq!(process.gauge(&rows::PROCESS_MEMORY_PRESSURE), None);
        assert_eq!(process.gauge(&rows::PROCESS_MEMORY_SOFT_LIMIT), None);
        process.source.limit.clear();
        process.holds(100.0);
        assert_eq!(process.gauge(&rows::PROCESS_MEMORY_PRESSURE), None);
        assert_eq!(told.try_iter().count(), 0);
    }

    #[test]
    fn a_subscriber_that_panics_does_not_keep_the_next_from_being_told() {
        let mut process = Process::new();
        let _broken = process.subscribers.add(|_| panic!("host bug")).unwrap();
        let (_subscription, told) = process.subscribe();
        process.holds(900.0);
        assert_eq!(told.try_iter().count(), 1);
    }

    #[test]
    fn a_dropped_subscription_frees_its_closure_and_its_place() {
        let mut process = Process::new();
        let (subscription, told) = process.subscribe();
        drop(subscription);
        process.holds(900.0);
        assert_eq!(told.try_recv(), Err(mpsc::TryRecvError::Disconnected));
        let all = (0..callbacks::LIMIT).map(|_| process.subscribe().0);
        let all: Vec<_> = all.collect();
        assert!(process.subscribers.add(|_| ()).is_none());
        drop(all);
        assert!(process.subscribers.add(|_| ()).is_some());
    }
}
