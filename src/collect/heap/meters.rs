//! The heap's numbers on the metrics page.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use crate::catalog::families;
use crate::error::Error;
use crate::store::Store;
use crate::store::heap::HeapStats;
use crate::store::metrics::{Gauge, Metrics, ObservedCounter};

/// The route of work that serves no request.
const NONE: &str = "<none>";

pub(super) struct Meters {
    store: Arc<Store>,
    live_bytes: Gauge,
    allocated_bytes: ObservedCounter,
    allocations: ObservedCounter,
    samples: ObservedCounter,
    period: Gauge,
    memory: Gauge,
    /// What each table holds, and may hold.
    tables: [[Gauge; 2]; 3],
    lost: HashMap<&'static str, ObservedCounter>,
    routes: HashMap<Arc<str>, ObservedCounter>,
}

impl fmt::Debug for Meters {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Meters")
            .field("routes", &self.routes.len())
            .finish_non_exhaustive()
    }
}

fn table(metrics: &Metrics, name: &str) -> Result<[Gauge; 2], Error> {
    Ok([
        metrics.gauge(&families::AGENT_HEAP_ENTRIES, &[name])?,
        metrics.gauge(&families::AGENT_HEAP_LIMIT, &[name])?,
    ])
}

impl Meters {
    pub(super) fn new(store: Arc<Store>) -> Result<Self, Error> {
        let metrics = &store.metrics;
        Ok(Self {
            live_bytes: metrics.gauge(&families::HEAP_PROFILE_LIVE, &[])?,
            allocated_bytes: metrics.observed_counter(&families::ALLOCATOR_ALLOCATED, &[])?,
            allocations: metrics.observed_counter(&families::ALLOCATOR_ALLOCATIONS, &[])?,
            samples: metrics.observed_counter(&families::AGENT_HEAP_SAMPLES, &[])?,
            period: metrics.gauge(&families::AGENT_HEAP_PERIOD, &[])?,
            memory: metrics.gauge(&families::AGENT_HEAP_MEMORY, &[])?,
            tables: [
                table(metrics, "blocks")?,
                table(metrics, "stacks")?,
                table(metrics, "sites")?,
            ],
            lost: HashMap::new(),
            routes: HashMap::new(),
            store,
        })
    }

    pub(super) fn show(&mut self, stats: &HeapStats) {
        self.live_bytes.set(stats.live.bytes);
        self.allocated_bytes.set(stats.allocated.bytes);
        self.allocations.set(stats.allocated.objects);
        self.samples.set(stats.samples as f64);
        self.period.set(stats.rate as f64);
        self.memory.set(stats.tables_bytes as f64);
        let fills = [stats.blocks, stats.stacks, stats.sites];
        for ([used, limit], fill) in self.tables.iter().zip(fills) {
            used.set(fill.used as f64);
            limit.set(fill.limit as f64);
        }
        let metrics = &self.store.metrics;
        for lost in &stats.lost {
            let family = &families::AGENT_HEAP_LOST;
            if !self.lost.contains_key(lost.cause)
                && let Ok(counter) = metrics.observed_counter(family, &[lost.cause])
            {
                self.lost.insert(lost.cause, counter);
            }
            if let Some(counter) = self.lost.get(lost.cause) {
                counter.set(lost.samples as f64);
            }
        }
        for route in &stats.routes {
            let name = route.route.clone().unwrap_or_else(|| NONE.into());
            let family = &families::HTTP_SERVER_ALLOCATED;
            if !self.routes.contains_key(&name)
                && let Ok(counter) = metrics.observed_counter(family, &[&name])
            {
                self.routes.insert(Arc::clone(&name), counter);
            }
            if let Some(counter) = self.routes.get(&name) {
                counter.set(route.allocated.bytes);
            }
        }
    }
}
