//! What the agent itself costs: CPU of its threads, memory and label sets of its metrics.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::Source;
use super::kept_file::KeptFile;
use super::process::number;
use crate::catalog::families;
use crate::config;
use crate::error::Error;
use crate::store::Store;
use crate::store::metrics::{Counter, Gauge, ObservedCounter};
use crate::store::sync::lock;

/// Threads that are remembered; the agent starts four.
const THREADS: usize = 64;

/// The agent's own threads. Each registers itself, so that nobody has to search all threads of
/// the host for them.
#[derive(Debug, Default)]
pub(crate) struct AgentThreads {
    threads: Mutex<Vec<Thread>>,
}

#[derive(Debug)]
struct Thread {
    component: &'static str,
    schedstat: KeptFile,
    seconds: f64,
}

impl AgentThreads {
    /// Counts the running thread's CPU time towards `component` until it ends.
    pub(crate) fn register(&self, component: &'static str) {
        // The link leads to the thread that follows it, so it is followed here; its target,
        // `<pid>/task/<tid>`, says the same to every thread.
        let Ok(own) = std::fs::read_link("/proc/thread-self") else {
            return;
        };
        let path = std::path::Path::new("/proc").join(own).join("schedstat");
        let mut threads = lock(&self.threads);
        if threads.len() < THREADS {
            threads.push(Thread {
                component,
                schedstat: KeptFile::new(path),
                seconds: 0.0,
            });
        }
    }
}

/// Shows the agent's cost.
///
/// # Cost
/// Each second one kept-open file per agent thread and one short lock per family.
#[derive(Debug)]
pub(crate) struct AgentCost {
    store: Arc<Store>,
    threads: Arc<AgentThreads>,
    buffer: Vec<u8>,
    cpu: BTreeMap<&'static str, ObservedCounter>,
    /// CPU seconds of threads that have ended.
    ended: BTreeMap<&'static str, f64>,
    memory: Gauge,
    families: BTreeMap<&'static str, FamilySize>,
}

#[derive(Debug)]
struct FamilySize {
    series: Gauge,
    overflow: Counter,
    overflowed: u64,
}

impl AgentCost {
    /// # Errors
    /// Out of range if a family was declared with another shape before.
    pub(crate) fn new(store: Arc<Store>, threads: Arc<AgentThreads>) -> Result<Self, Error> {
        let memory = store.metrics.gauge(&families::AGENT_MEMORY, &["metrics"])?;
        Ok(Self {
            store,
            threads,
            buffer: Vec::new(),
            cpu: BTreeMap::new(),
            ended: BTreeMap::new(),
            memory,
            families: BTreeMap::new(),
        })
    }

    fn read_cpu(&mut self) {
        let mut totals = self.ended.clone();
        lock(&self.threads.threads).retain_mut(|thread| {
            let text = thread.schedstat.read(&mut self.buffer);
            let alive = match text.and_then(|text| number(text.split(' ').next()?)) {
                Some(nanos) => {
                    thread.seconds = nanos / 1e9;
                    true
                }
                None => {
                    *self.ended.entry(thread.component).or_default() += thread.seconds;
                    false
                }
            };
            *totals.entry(thread.component).or_default() += thread.seconds;
            alive
        });
        for (component, seconds) in totals {
            if !self.cpu.contains_key(component) {
                let metrics = &self.store.metrics;
                let total = metrics.observed_counter(&families::AGENT_CPU, &[component]);
                self.cpu.extend(total.ok().map(|total| (component, total)));
            }
            if let Some(total) = self.cpu.get(component) {
                total.set(seconds);
            }
        }
    }

    fn read_sizes(&mut self) {
        let metrics = &self.store.metrics;
        self.memory.set(metrics.bytes() as f64);
        for (family, series, overflowed) in metrics.sizes() {
            if series == 0 {
                continue;
            }
            if !self.families.contains_key(family) {
                let gauge = metrics.gauge(&families::AGENT_SERIES, &[family]);
                let counter = metrics.counter(&families::AGENT_SERIES_OVERFLOW, &[family]);
                let (Ok(series), Ok(overflow)) = (gauge, counter) else {
                    continue;
                };
                let size = FamilySize {
                    series,
                    overflow,
                    overflowed: 0,
                };
                self.families.insert(family, size);
            }
            if let Some(size) = self.families.get_mut(family) {
                size.series.set(series as f64);
                size.overflow
                    .add(overflowed.saturating_sub(size.overflowed));
                size.overflowed = overflowed;
            }
        }
    }
}

impl Source for AgentCost {
    fn component(&self) -> &'static str {
        "agent_cost"
    }

    fn interval(&self) -> Duration {
        config::COLLECT_INTERVAL
    }

    fn collect(&mut self) {
        self.read_cpu();
        self.read_sizes();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalog::Metric;
    use crate::collect::fixture::{shown, value};

    fn cost() -> (Arc<Store>, Arc<AgentThreads>, AgentCost) {
        let store = Arc::new(Store::new(1000));
        let threads = Arc::new(AgentThreads::default());
        let cost = AgentCost::new(Arc::clone(&store), Arc::clone(&threads)).unwrap();
        (store, threads, cost)
    }

    #[test]
    fn threads_count_towards_their_component_and_stay_counted_when_they_end() {
        let (store, threads, mut cost) = cost();
        let seconds = |component| value(&store.metrics, &families::AGENT_CPU, component);
        let (burnt, is_burnt) = std::sync::mpsc::channel();
        let (release, released) = std::sync::mpsc::channel::<()>();
        let registered = Arc::clone(&threads);
        let burning = std::thread::spawn(move || {
            registered.register("burning");
            let mut file = KeptFile::new("/proc/thread-self/schedstat");
            let (mut buffer, mut sum) = (Vec::new(), 0_u64);
            loop {
                let text = file.read(&mut buffer).unwrap().into_owned();
                if number(text.split(' ').next().unwrap()).unwrap() > 50e6 {
                    break;
                }
                sum = (0..100_000).fold(sum, |sum, value| std::hint::black_box(sum ^ value));
            }
            burnt.send(()).unwrap();
            assert!(released.recv().is_err());
        });
        is_burnt.recv().unwrap();
        cost.collect();
        assert_eq!(shown(&store.metrics, &families::AGENT_CPU).len(), 1);
        let used = seconds("burning").unwrap();
        assert!((0.05..5.0).contains(&used), "{used}");
        drop(release);
        burning.join().unwrap();
        // The thread's entry in /proc may outlive join() by a moment.
        let deadline = std::time::Instant::now() + Duration::from_secs(30);
        while !lock(&threads.threads).is_empty() {
            assert!(std::time::Instant::now() < deadline, "still held");
            cost.collect();
        }
        assert!(seconds("burning").unwrap() >= used);
        cost.collect();
        assert!(seconds("burning").unwrap() >= used);
    }

    #[test]
    fn families_with_series_show_their_number_and_overflow() {
        const PAIRS: Metric = Metric::counter("pairs_total", "Pairs.")
            .labels(&["a"])
            .series_limit(2);
        let (store, _, mut cost) = cost();
        let count = |values: &[&str]| {
            for value in values {
                store.metrics.counter(&PAIRS, &[value]).unwrap().inc();
            }
        };
        count(&["x", "y"]);
        cost.collect();
        let series = || value(&store.metrics, &families::AGENT_SERIES, "pairs_total");
        let overflow = || {
            value(
                &store.metrics,
                &families::AGENT_SERIES_OVERFLOW,
                "pairs_total",
            )
        };
        assert_eq!((series(), overflow()), (Some(2.0), Some(0.0)));
        count(&["z", "z"]);
        cost.collect();
        cost.collect();
        assert_eq!((series(), overflow()), (Some(3.0), Some(2.0)));
        let memory = value(&store.metrics, &families::AGENT_MEMORY, "metrics").unwrap();
        assert!((memory - store.metrics.bytes() as f64).abs() < 0.5 && memory > 0.0);
    }
}
