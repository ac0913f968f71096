//! What the cache keeps of a value: when it was loaded, how long it lives, what it weighs.
//!
//! Guide 2.1. Metrics: `cache_size_bytes`, `cache_evictions_total{cause="expired"}`. Breaking test:
//! `lifetimes_are_spread_over_a_tenth`.

use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use moka::Expiry;
use serde::Serialize;
use serde::de::DeserializeOwned;
use streamgate_agent::CacheClass;

use super::epoch::Stamp;
use super::key::CacheKey;

/// The guide's lifetime, section 2.1.
const LIFE: Duration = Duration::from_secs(300);

/// Largest part of the lifetime that is taken off at random, so that values loaded together do not
/// expire together.
const JITTER: f64 = 0.10;

/// How long a value past its lifetime is still served while one reader's task loads it anew: nobody
/// waits for a value that is asked for. A value that a write has voided is never served.
const STALE: Duration = Duration::from_secs(30);

/// How long "there is no such row" is believed: a row written by another process appears within it.
const ABSENT_LIFE: Duration = Duration::from_secs(1);

/// What an entry costs beside key and value: the map's own nodes, an estimate (moka 0.12).
const ENTRY_BYTES: usize = 96;

/// Larger values are served and not kept: a few of them would push out thousands.
pub(super) const LARGEST_VALUE: usize = 1 << 20;

/// What the cache has to know of a value.
pub(crate) trait Cached: Serialize + DeserializeOwned + Send + Sync + 'static {
    /// Bytes on the heap and in the value itself.
    fn bytes(&self) -> usize;
    /// Whether the value is for everybody.
    fn class(&self) -> CacheClass;
}

/// One value, or the knowledge that there is none.
pub(super) struct Entry<V> {
    pub(super) stamp: Stamp,
    pub(super) value: Option<Arc<V>>,
    pub(super) loaded: Instant,
    /// When it was read from the database; before `loaded` if it came by L2.
    read: Instant,
    fresh: Duration,
    /// Past `fresh`, while a refresh runs.
    stale: Duration,
    pub(super) refreshing: AtomicBool,
    /// Removed because memory is short.
    pub(super) pressed_out: AtomicBool,
    pub(super) weight: u32,
}

/// A value that was found, and since when it is known.
#[derive(Debug)]
pub(crate) struct Found<V> {
    value: Arc<V>,
    /// When it was read from the database.
    read: Instant,
}

impl<V> Found<V> {
    /// Time since the value was read from the database, by whichever level it came.
    pub(crate) fn age(&self) -> Duration {
        self.read.elapsed()
    }
}

impl<V> Deref for Found<V> {
    type Target = V;

    fn deref(&self) -> &V {
        &self.value
    }
}

/// How long values are fresh and, after that, stale.
#[derive(Clone, Copy, Debug)]
pub(super) struct Lives {
    pub(super) fresh: Duration,
    pub(super) stale: Duration,
}

/// Tells the map how long each entry lives, fresh and stale together.
pub(super) struct Lifetime;

impl<V> Expiry<CacheKey, Arc<Entry<V>>> for Lifetime {
    fn expire_after_create(&self, _: &CacheKey, e: &Arc<Entry<V>>, _: Instant) -> Option<Duration> {
        Some(e.fresh + e.stale)
    }

    fn expire_after_update(
        &self,
        _: &CacheKey,
        entry: &Arc<Entry<V>>,
        _: Instant,
        _: Option<Duration>,
    ) -> Option<Duration> {
        Some(entry.fresh + entry.stale)
    }
}

impl Lives {
    /// What the guide asks for, and a stale time.
    pub(super) const GUIDE: Self = Self {
        fresh: LIFE,
        stale: STALE,
    };
}

impl<V: Cached> Entry<V> {
    /// An entry loaded now; `stamp` is from before the load.
    pub(super) fn new(key: &CacheKey, stamp: Stamp, value: Option<V>, lives: Lives) -> Self {
        let (fresh, stale) = match &value {
            Some(_) => (jittered(lives.fresh), lives.stale),
            None => (ABSENT_LIFE, Duration::ZERO),
        };
        let now = Instant::now();
        let bytes = value.as_ref().map_or(0, Cached::bytes);
        let weight = size_of_val(key)
            .saturating_add(bytes)
            .saturating_add(ENTRY_BYTES);
        Self {
            stamp,
            value: value.map(Arc::new),
            loaded: now,
            read: now,
            fresh,
            stale,
            refreshing: AtomicBool::new(false),
            pressed_out: AtomicBool::new(false),
            weight: u32::try_from(weight).unwrap_or(u32::MAX),
        }
    }

    /// The same with what L2 says of it: how old it is, and how long it may live yet. Lifetimes of levels
    /// must not add up.
    pub(super) fn aged(mut self, age: Duration, rest: Duration) -> Self {
        self.read = self.read.checked_sub(age).unwrap_or(self.read);
        self.fresh = self.fresh.min(rest);
        self
    }

    /// The value for a reader; `None` when there is no such row.
    pub(super) fn found(&self) -> Option<Found<V>> {
        let value = Arc::clone(self.value.as_ref()?);
        Some(Found {
            value,
            read: self.read,
        })
    }

    /// Whether the lifetime is over and the stale time runs.
    pub(super) fn is_stale(&self) -> bool {
        self.loaded.elapsed() > self.fresh
    }

    /// The class of the value; one that is not there is absent.
    pub(super) fn class(&self) -> CacheClass {
        self.value
            .as_ref()
            .map_or(CacheClass::Absent, |value| value.class())
    }

    /// Whether the value is served and not kept.
    pub(super) fn is_too_large(&self) -> bool {
        let value = self.value.as_ref();
        value.is_some_and(|value| value.bytes() > LARGEST_VALUE)
    }
}

fn jittered(life: Duration) -> Duration {
    life.mul_f64(1.0 - JITTER * rand::random::<f64>())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lifetimes_are_spread_over_a_tenth() {
        let lives: Vec<Duration> = (0..1_000).map(|_| jittered(LIFE)).collect();
        let (least, most) = (lives.iter().min().unwrap(), lives.iter().max().unwrap());
        assert!(*least >= LIFE.mul_f64(0.9) && *most <= LIFE);
        assert!(
            *most - *least > Duration::from_secs(15),
            "they do not expire together"
        );
    }
}
