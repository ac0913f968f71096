//! Wishes to see what the allocator's samples say, and what they are answered with.

use std::sync::{Arc, OnceLock};

use super::NoProfile;
use super::demand::Board;
use super::profile::{Profile, Sample, ValueType};
use super::symbols::Symbol;
use crate::config;

/// Blocks allocated since the start.
pub(crate) const ALLOC_OBJECTS: ValueType = ValueType {
    name: "alloc_objects",
    unit: "count",
};
/// Their bytes.
pub(crate) const ALLOC_SPACE: ValueType = ValueType {
    name: "alloc_space",
    unit: "bytes",
};
/// Blocks that are in use.
pub(crate) const INUSE_OBJECTS: ValueType = ValueType {
    name: "inuse_objects",
    unit: "count",
};
/// Their bytes.
pub(crate) const INUSE_SPACE: ValueType = ValueType {
    name: "inuse_space",
    unit: "bytes",
};
/// The columns of a heap profile, in the order that Go's has.
pub(crate) const COLUMNS: [ValueType; 4] = [ALLOC_OBJECTS, ALLOC_SPACE, INUSE_OBJECTS, INUSE_SPACE];

/// Bytes of memory, the type of a heap profile's period.
pub(crate) const SPACE: ValueType = ValueType {
    name: "space",
    unit: "bytes",
};

/// The label that says how long ago a live block was allocated.
pub(crate) const AGE: &str = "age";

/// The mean size of a sample's objects, in a profile of the heap: of those allocated or, where the
/// sample speaks of none, of those in use.
pub(crate) fn object_bytes(profile: &Profile, sample: &Sample) -> Option<i64> {
    let [allocated, allocated_bytes, in_use, in_use_bytes] = *sample.values else {
        return None;
    };
    if profile.sample_types != COLUMNS {
        return None;
    }
    let mean = |bytes: i64, objects: i64| bytes.checked_div(objects);
    mean(allocated_bytes, allocated).or_else(|| mean(in_use_bytes, in_use))
}

/// Between readers and the thread that reads the allocator's samples.
#[derive(Debug)]
pub(crate) struct Heap {
    pub(crate) wishes: Arc<Board<HeapWish, HeapAnswer>>,
    /// Empty until it is known: an agent finds out when it starts.
    pub(crate) recording: OnceLock<Recording>,
}

impl Default for Heap {
    fn default() -> Self {
        Self {
            wishes: Arc::new(Board::new(config::PROFILE_READERS)),
            recording: OnceLock::new(),
        }
    }
}

/// Whether there are samples of the heap.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Recording {
    /// The host has not made the recording allocator its own.
    NotInstalled,
    /// There are none, for this reason.
    Off(&'static str),
    On,
}

/// What a reader wants to know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum HeapWish {
    Profile(HeapProfileWish),
    Stats,
    /// The stacks of these sites, as readings number them.
    Sites(Arc<[u64]>),
}

/// A wish for a heap profile.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct HeapProfileWish {
    pub(crate) moment: HeapMoment,
    /// The column that the reader wants to see first.
    pub(crate) column: ValueType,
    /// Whether live blocks are told apart by age.
    pub(crate) ages: bool,
    /// Whether addresses get names; else whoever reads the profile names them.
    pub(crate) names: bool,
}

/// Which heap is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum HeapMoment {
    Now,
    /// The last that was kept for this reason.
    Kept(KeptFor),
    /// One that was kept, by its place in the list; 0 is the newest.
    Number(usize),
}

/// Why a heap was kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum KeptFor {
    /// More was in use than ever before.
    Peak,
    /// The process's memory came near its limit.
    Limit,
}

impl KeptFor {
    pub(crate) const fn word(self) -> &'static str {
        match self {
            Self::Peak => "peak",
            Self::Limit => "limit",
        }
    }
}

/// What was asked for, or why it cannot be had.
pub(crate) type HeapAnswer = Result<HeapSeen, NoProfile>;

/// The answer to a wish, of its kind.
#[derive(Debug, Clone)]
pub(crate) enum HeapSeen {
    Profile(Arc<Profile>),
    Stats(Arc<HeapStats>),
    Sites(Arc<[SiteStack]>),
}

/// Whose the memory of one site is.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct SiteStack {
    pub(crate) site: u64,
    /// From the function that allocated outwards.
    pub(crate) frames: Vec<Symbol>,
    /// Live bytes by the route of the request that allocated them, most first; `None`: no labelled
    /// request.
    pub(crate) routes: Vec<(Option<Arc<str>>, f64)>,
}

/// A number of blocks and their bytes, estimated from samples.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(crate) struct Estimate {
    pub(crate) objects: f64,
    pub(crate) bytes: f64,
}

impl Estimate {
    pub(crate) fn add(&mut self, more: Self) {
        self.objects += more.objects;
        self.bytes += more.bytes;
    }
}

/// The heap in numbers.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct HeapStats {
    /// Mean bytes between two samples.
    pub(crate) rate: u64,
    /// Since when samples are taken.
    pub(crate) start_unix_nanos: u64,
    pub(crate) samples: u64,
    pub(crate) live_samples: u64,
    /// The table of live samples.
    pub(crate) blocks: Fill,
    pub(crate) live: Estimate,
    /// Standard error of the live bytes.
    pub(crate) live_bytes_error: f64,
    pub(crate) allocated: Estimate,
    /// Over the last seconds; `None` until they are over.
    pub(crate) allocated_per_second: Option<Estimate>,
    /// Most bytes first.
    pub(crate) routes: Vec<RouteHeap>,
    /// By cause.
    pub(crate) lost: Vec<LostHeap>,
    pub(crate) stacks: Fill,
    /// Stacks by labels.
    pub(crate) sites: Fill,
    /// Memory of the three tables.
    pub(crate) tables_bytes: u64,
    /// Samples whose stack was folded into `[overflow]`.
    pub(crate) folded: u64,
    /// Newest first.
    pub(crate) kept: Vec<KeptRow>,
}

/// What the allocator could not record for one reason.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct LostHeap {
    pub(crate) cause: &'static str,
    pub(crate) samples: u64,
    pub(crate) estimate: Estimate,
}

/// What the requests of one route allocated.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct RouteHeap {
    /// `None`: work that served no labelled request.
    pub(crate) route: Option<Arc<str>>,
    pub(crate) allocated: Estimate,
    pub(crate) live: Estimate,
    pub(crate) allocated_per_second: Option<Estimate>,
}

/// How much of something bounded is in use.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Fill {
    pub(crate) used: u64,
    pub(crate) limit: u64,
}

/// A heap that was kept.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct KeptRow {
    pub(crate) kept_for: KeptFor,
    pub(crate) unix_nanos: u64,
    pub(crate) live: Estimate,
}
