//! Caches: what lookups found, how long they took, and what the cache holds.
//!
//! Hit ratio = (hit + stale) / (hit + stale + miss + error); `bypass` is no lookup. A key's class is
//! known only after its load, so a lookup says result and class together, at its end.

use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use super::awaits::{self, OpenAwait};
use super::traces::{self, Begun, Site, Took};
use crate::catalog::families as rows;
use crate::error::Error;
use crate::store::Store;
use crate::store::awaits::Frame;
use crate::store::metrics::{Counter, Held, Histogram, UpDown};

/// How near to the caller a cache lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Tier {
    /// In the process.
    L1,
    /// Shared by instances, such as Redis.
    L2,
    /// At the edge.
    L3,
}

impl Tier {
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::L1 => "l1",
            Self::L2 => "l2",
            Self::L3 => "l3",
        }
    }
}

/// What kind of content a lookup was for; hit ratios are judged on `Public` and `Gated`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum CacheClass {
    /// Anyone may see it.
    Public,
    /// Only some may see it.
    Gated,
    /// Fetched by a trusted cache in front, not by a client.
    Fill,
    /// It does not exist.
    Absent,
}

const CLASSES: [&str; 4] = ["public", "gated", "fill", "absent"];
const RESULTS: [&str; 5] = ["hit", "miss", "stale", "error", "bypass"];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum CacheResult {
    Hit,
    Miss,
    Stale,
    Error,
    Bypass,
}

/// Why an entry left a cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum EvictionCause {
    /// The cache was full.
    Size,
    /// The entry's time was up.
    Expired,
    /// A newer entry took its key.
    Replaced,
    /// Someone removed it.
    Explicit,
    /// The process held too much memory.
    Pressure,
}

const CAUSES: [&str; 5] = ["size", "expired", "replaced", "explicit", "pressure"];

/// What made entries invalid.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum InvalidationKind {
    /// Their time was up.
    Ttl,
    /// What they hold was changed.
    Event,
    /// Something that they were made from was changed.
    Dependency,
}

const KINDS: [&str; 3] = ["ttl", "event", "dependency"];

/// What a cache holds at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[expect(clippy::exhaustive_structs, reason = "hosts write it as a literal")]
pub struct CacheSize {
    /// Entries held.
    pub entries: u64,
    /// Their weight.
    pub bytes: u64,
    /// The weight at which the cache evicts.
    pub capacity_bytes: u64,
}

/// One level of a cache of the host. Cloning is cheap.
#[derive(Debug, Clone)]
pub struct Cache {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    store: Arc<Store>,
    name: Box<str>,
    tier: Tier,
    lookups: [OnceLock<Counter>; RESULTS.len() * CLASSES.len()],
    gets: [OnceLock<Histogram>; RESULTS.len()],
    loads: [OnceLock<Counter>; CLASSES.len()],
    loaded: Histogram,
    load_failed: Histogram,
    inflight: UpDown,
    refreshes: Counter,
    coalesced: [Counter; 2],
    coalesce_wait: Histogram,
    evictions: [Counter; CAUSES.len()],
    invalidations: [Counter; KINDS.len()],
    lag: Histogram,
    get: Frame,
    load: Frame,
    get_site: Site,
    load_site: Site,
}

impl Cache {
    pub(crate) fn new(store: &Arc<Store>, name: &str, tier: Tier) -> Self {
        let metrics = &store.metrics;
        let level = tier.word();
        let operation = |operation, result| {
            metrics.own_histogram(
                &rows::CACHE_OPERATION_DURATION,
                &[name, level, operation, result],
            )
        };
        let evicted = |cause| metrics.own_counter(&rows::CACHE_EVICTIONS, &[name, level, cause]);
        let invalid = |kind| metrics.own_counter(&rows::CACHE_INVALIDATIONS, &[name, level, kind]);
        let coalesced =
            |outcome| metrics.own_counter(&rows::CACHE_COALESCED_REQUESTS, &[name, outcome]);
        let [ttl, event, dependency] = KINDS;
        let cache = Self {
            inner: Arc::new(Inner {
                lookups: [const { OnceLock::new() }; RESULTS.len() * CLASSES.len()],
                gets: [const { OnceLock::new() }; RESULTS.len()],
                loads: [const { OnceLock::new() }; CLASSES.len()],
                loaded: operation("load", ""),
                load_failed: operation("load", "error"),
                inflight: metrics.own_up_down(&rows::CACHE_LOAD_INFLIGHT, &[name]),
                refreshes: metrics.own_counter(&rows::CACHE_REFRESHES, &[name]),
                coalesced: [coalesced("leader_failed"), coalesced("ok")],
                coalesce_wait: metrics.own_histogram(&rows::CACHE_COALESCE_WAIT, &[name]),
                evictions: CAUSES.map(evicted),
                invalidations: [invalid(ttl), invalid(event), invalid(dependency)],
                lag: metrics.own_histogram(&rows::CACHE_INVALIDATION_LAG, &[name]),
                get: store.awaits.frame(&format!("cache get {name} {level}")),
                load: store.awaits.frame(&format!("cache load {name}")),
                get_site: traces::cache_site(store, name, tier, "get"),
                load_site: traces::cache_site(store, name, tier, "load"),
                store: Arc::clone(store),
                name: name.into(),
                tier,
            }),
        };
        // Known from the start, so that a rate sees the first event and a ratio is 0, not absent.
        for result in [
            CacheResult::Hit,
            CacheResult::Miss,
            CacheResult::Stale,
            CacheResult::Error,
        ] {
            cache.inner.lookups(result, CacheClass::Public);
        }
        cache.inner.loads(CacheClass::Public);
        cache
    }

    /// Begins a lookup.
    pub fn get(&self) -> Lookup {
        Lookup {
            trace: Begun::now(&self.inner.store),
            cache: self.clone(),
            started: Instant::now(),
            _open: awaits::open(&self.inner.store, self.inner.get),
        }
    }

    /// Begins a load from behind the last level.
    #[must_use]
    pub fn load(&self) -> Load {
        Load {
            trace: Begun::now(&self.inner.store),
            cache: self.clone(),
            started: Instant::now(),
            class: None,
            _inflight: self.inner.inflight.hold(),
            _open: awaits::open(&self.inner.store, self.inner.load),
        }
    }

    /// A lookup waited for another one's load, which succeeded or not.
    pub fn coalesced(&self, ok: bool, waited: Duration) {
        let [failed, succeeded] = &self.inner.coalesced;
        if ok {
            succeeded.inc()
        } else {
            failed.inc()
        }
        self.inner.coalesce_wait.record(waited);
    }

    /// An entry was renewed in the background while its stale value was served.
    pub fn refreshed(&self) {
        self.inner.refreshes.inc();
    }

    /// Entries left the cache.
    pub fn evicted(&self, cause: EvictionCause, entries: u64) {
        if let Some(counter) = self.inner.evictions.get(cause as usize) {
            counter.add(entries);
        }
    }

    /// Entries became invalid.
    pub fn invalidated(&self, kind: InvalidationKind, entries: u64) {
        if let Some(counter) = self.inner.invalidations.get(kind as usize) {
            counter.add(entries);
        }
    }

    /// An invalidation took this long from the committed change to here.
    pub fn invalidation_lag(&self, lag: Duration) {
        self.inner.lag.record(lag);
    }

    /// The whole cache was dropped; `reason` is a word from a small set.
    pub fn flushed(&self, reason: &'static str) {
        let labels = [&*self.inner.name, self.inner.tier.word(), reason];
        self.inner
            .store
            .metrics
            .own_counter(&rows::CACHE_FLUSHES, &labels)
            .inc();
    }

    /// Has the cache's size read about once a second on the agent's thread.
    ///
    /// # Errors
    /// Refused when the host has already given the agent 4,096 such closures.
    pub fn observe(
        &self,
        read: impl Fn() -> CacheSize + Send + Sync + 'static,
    ) -> Result<(), Error> {
        let metrics = &self.inner.store.metrics;
        let labels = [&*self.inner.name, self.inner.tier.word()];
        let entries = metrics.own_gauge(&rows::CACHE_ENTRIES, &labels);
        let bytes = metrics.own_gauge(&rows::CACHE_SIZE, &labels);
        let capacity = metrics.own_gauge(&rows::CACHE_CAPACITY, &labels);
        let held = self.inner.store.callbacks.add(move || {
            let size = read();
            entries.set(size.entries as f64);
            bytes.set(size.bytes as f64);
            capacity.set(size.capacity_bytes as f64);
        });
        if held {
            Ok(())
        } else {
            Err(Error::refused("cache.observe", "4096 closures are held"))
        }
    }
}

impl Inner {
    fn lookups(&self, result: CacheResult, class: CacheClass) -> Option<&Counter> {
        let place = self
            .lookups
            .get(result as usize * CLASSES.len() + class as usize)?;
        if let Some(counter) = place.get() {
            return Some(counter);
        }
        let labels = [
            &*self.name,
            self.tier.word(),
            RESULTS.get(result as usize)?,
            CLASSES.get(class as usize)?,
        ];
        let counter = self
            .store
            .metrics
            .own_counter(&rows::CACHE_REQUESTS, &labels);
        Some(place.get_or_init(|| counter))
    }

    fn gets(&self, result: CacheResult) -> Option<&Histogram> {
        let place = self.gets.get(result as usize)?;
        if let Some(histogram) = place.get() {
            return Some(histogram);
        }
        let labels = [
            &*self.name,
            self.tier.word(),
            "get",
            RESULTS.get(result as usize)?,
        ];
        let histogram = self
            .store
            .metrics
            .own_histogram(&rows::CACHE_OPERATION_DURATION, &labels);
        Some(place.get_or_init(|| histogram))
    }

    fn loads(&self, class: CacheClass) -> Option<&Counter> {
        let place = self.loads.get(class as usize)?;
        if let Some(counter) = place.get() {
            return Some(counter);
        }
        let labels = [&*self.name, CLASSES.get(class as usize)?];
        let counter = self.store.metrics.own_counter(&rows::CACHE_LOADS, &labels);
        Some(place.get_or_init(|| counter))
    }
}

/// A lookup under way; dropped without a result it records nothing.
#[derive(Debug)]
#[must_use = "a lookup records when its result is said"]
pub struct Lookup {
    cache: Cache,
    started: Instant,
    trace: Begun,
    _open: Option<OpenAwait>,
}

impl Lookup {
    /// The entry was there and fresh.
    pub fn hit(self, class: CacheClass) {
        self.end(CacheResult::Hit, class);
    }

    /// The entry was not there, or no longer valid.
    pub fn miss(self, class: CacheClass) {
        self.end(CacheResult::Miss, class);
    }

    /// The entry was served from its stale window while a refresh runs.
    pub fn stale(self, class: CacheClass) {
        self.end(CacheResult::Stale, class);
    }

    /// The level is configured and could not answer.
    pub fn error(self, class: CacheClass) {
        self.end(CacheResult::Error, class);
    }

    /// A rule forbids asking this level.
    pub fn bypass(self, class: CacheClass) {
        self.end(CacheResult::Bypass, class);
    }

    fn end(mut self, result: CacheResult, class: CacheClass) {
        let inner = &self.cache.inner;
        let took = Took {
            store: &inner.store,
            began: self.started,
            elapsed: self.started.elapsed(),
        };
        if let Some(histogram) = inner.gets(result) {
            histogram.record(took.elapsed);
        }
        let words = (RESULTS.get(result as usize), CLASSES.get(class as usize));
        if let (Some(result), Some(class)) = words {
            self.trace.lookup(took, inner.get_site, result, class);
        }
        if let Some(counter) = self.cache.inner.lookups(result, class) {
            counter.inc();
        }
    }
}

/// A load under way; dropped without [`done`](Self::done) it counts as failed.
#[derive(Debug)]
pub struct Load {
    cache: Cache,
    started: Instant,
    trace: Begun,
    class: Option<CacheClass>,
    _inflight: Held,
    _open: Option<OpenAwait>,
}

impl Load {
    /// The load succeeded; `class` is what it turned out to be.
    pub fn done(mut self, class: CacheClass) {
        self.class = Some(class);
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        let inner = &self.cache.inner;
        let (histogram, class) = match self.class {
            Some(class) => (&inner.loaded, class),
            None => (&inner.load_failed, CacheClass::Public),
        };
        let took = Took {
            store: &inner.store,
            began: self.started,
            elapsed: self.started.elapsed(),
        };
        histogram.record(took.elapsed);
        let failed = self.class.is_none();
        self.trace.load(took, inner.load_site, failed);
        if let Some(counter) = inner.loads(class) {
            counter.inc();
        }
    }
}
