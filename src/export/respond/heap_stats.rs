//! The heap in numbers, as JSON.

use std::collections::BTreeMap;

use serde::Serialize;

use super::Plane;
use super::about::json;
use super::heap::{another_answer, is_recorded, wished};
use super::message::{Reply, Request};
use super::profile::is_served;
use crate::catalog::endpoints::JSON;
use crate::catalog::families;
use crate::export::guard::Refusal;
use crate::store::heap::{Estimate, Fill, HeapSeen, HeapStats, HeapWish, KeptRow};
use crate::store::metrics::{Snapshot, Value};

/// What there is to say, also where nothing is recorded.
#[derive(Debug, Serialize)]
struct Page {
    recorded: bool,
    /// Why nothing is.
    obstacle: Option<String>,
    resident_bytes: Option<f64>,
    /// What allocators say themselves, at most ten seconds ago; empty where none can be asked.
    allocators: Vec<Allocator>,
    heap: Option<Heap>,
}

/// The series of `allocator_bytes`.
#[derive(Debug, Serialize)]
struct Allocator {
    allocator: String,
    bytes: BTreeMap<String, f64>,
}

fn allocators(metrics: &Snapshot) -> Vec<Allocator> {
    let mut allocators: BTreeMap<String, BTreeMap<String, f64>> = BTreeMap::new();
    let family = metrics.family(&families::ALLOCATOR_BYTES);
    for (series, value) in family.into_iter().flat_map(|family| metrics.values(family)) {
        if let ([allocator, kind], Value::Float(bytes)) = (&*series.values, value) {
            let kinds = allocators.entry(allocator.to_string()).or_default();
            kinds.insert(kind.to_string(), bytes);
        }
    }
    allocators
        .into_iter()
        .map(|(allocator, bytes)| Allocator { allocator, bytes })
        .collect()
}

#[derive(Debug, Serialize)]
struct Heap {
    /// Mean bytes between two samples.
    period_bytes: u64,
    start_unix_milliseconds: u64,
    samples: u64,
    live_samples: u64,
    /// The table of live samples.
    blocks: Filled,
    live: Numbers,
    live_bytes_standard_error: f64,
    allocated: Numbers,
    allocated_per_second: Option<Numbers>,
    routes: Vec<Route>,
    lost: Vec<Lost>,
    stacks: Filled,
    /// Stacks by labels.
    sites: Filled,
    /// Memory of the three tables.
    tables_bytes: u64,
    folded_samples: u64,
    kept: Vec<Kept>,
}

/// An estimate.
#[derive(Debug, Serialize)]
struct Numbers {
    bytes: f64,
    objects: f64,
}

impl From<Estimate> for Numbers {
    fn from(estimate: Estimate) -> Self {
        Self {
            bytes: estimate.bytes.round(),
            objects: estimate.objects.round(),
        }
    }
}

#[derive(Debug, Serialize)]
struct Filled {
    used: u64,
    limit: u64,
}

impl From<Fill> for Filled {
    fn from(Fill { used, limit }: Fill) -> Self {
        Self { used, limit }
    }
}

#[derive(Debug, Serialize)]
struct Route {
    /// `null`: work that served no labelled request.
    http_route: Option<String>,
    live: Numbers,
    allocated: Numbers,
    allocated_per_second: Option<Numbers>,
}

#[derive(Debug, Serialize)]
struct Lost {
    reason: &'static str,
    samples: u64,
    estimate: Numbers,
}

/// A heap that was kept; `at` is what shows it.
#[derive(Debug, Serialize)]
struct Kept {
    at: usize,
    kept_for: &'static str,
    unix_milliseconds: u64,
    live: Numbers,
    profile: String,
}

impl Kept {
    fn new((at, row): (usize, &KeptRow)) -> Self {
        Self {
            at,
            kept_for: row.kept_for.word(),
            unix_milliseconds: row.unix_nanos / 1_000_000,
            live: row.live.into(),
            profile: format!("/debug/pprof/heap?at={at}"),
        }
    }
}

impl Heap {
    fn new(stats: &HeapStats) -> Self {
        Self {
            period_bytes: stats.rate,
            start_unix_milliseconds: stats.start_unix_nanos / 1_000_000,
            samples: stats.samples,
            live_samples: stats.live_samples,
            blocks: stats.blocks.into(),
            live: stats.live.into(),
            live_bytes_standard_error: stats.live_bytes_error.round(),
            allocated: stats.allocated.into(),
            allocated_per_second: stats.allocated_per_second.map(Numbers::from),
            routes: stats
                .routes
                .iter()
                .map(|route| Route {
                    http_route: route.route.as_deref().map(str::to_owned),
                    live: route.live.into(),
                    allocated: route.allocated.into(),
                    allocated_per_second: route.allocated_per_second.map(Numbers::from),
                })
                .collect(),
            lost: stats
                .lost
                .iter()
                .map(|lost| Lost {
                    reason: lost.cause,
                    samples: lost.samples,
                    estimate: lost.estimate.into(),
                })
                .collect(),
            stacks: stats.stacks.into(),
            sites: stats.sites.into(),
            tables_bytes: stats.tables_bytes,
            folded_samples: stats.folded,
            kept: stats.kept.iter().enumerate().map(Kept::new).collect(),
        }
    }
}

/// The heap in numbers; where nothing is recorded, why.
pub(super) async fn stats(plane: &Plane, request: &Request) -> Result<Reply, Refusal> {
    is_served(plane)?;
    if request.is_head() {
        return Ok(Reply::new(200, JSON, Vec::new()).without_length());
    }
    let (heap, obstacle) = match is_recorded(plane) {
        Err(refusal) => (None, Some(refusal.text.into_owned())),
        Ok(()) => match wished(plane, HeapWish::Stats).await? {
            HeapSeen::Stats(stats) => (Some(Heap::new(&stats)), None),
            HeapSeen::Profile(_) | HeapSeen::Sites(_) => return Err(another_answer()),
        },
    };
    let metrics = plane.store.metrics.snapshot();
    json(&Page {
        recorded: heap.is_some(),
        obstacle,
        allocators: allocators(&metrics),
        resident_bytes: metrics.float(&families::PROCESS_MEMORY_USAGE),
        heap,
    })
}
