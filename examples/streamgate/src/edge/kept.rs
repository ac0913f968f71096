//! Kept answers: bounded by weight, voided by surrogate key.
//!
//! Guide 2.1 and 2.3. Metrics: `cache_size_bytes{cache_level="l3"}`, `cache_evictions_total`. Breaking tests:
//! `a_purge_voids_what_carries_the_key_and_nothing_else`, `a_fetch_that_began_before_a_purge_is_not_kept`.
//!
//! A purge notes when it came; an answer counts only if its fetch began after the last purge of each of
//! its keys. That needs no list of what carries a key and reaches fetches under way.

use std::hash::{BuildHasher as _, RandomState};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::header::{AGE, ETAG, HeaderName};
use http::{HeaderMap, HeaderValue, StatusCode};
use moka::Expiry;
use moka::future::Cache;
use moka::notification::RemovalCause;
use streamgate_agent::{self as agent, CacheSize, EvictionCause};

use super::key::Key;
use super::policy::Lives;
use crate::api::reply::SURROGATE_KEY;

/// Answers beyond this are passed on and not kept: a few of them would push out thousands.
pub(super) const LARGEST: usize = 8 << 20;

/// Places for the times of purges, 512 KiB. Keys that share one are purged together.
const PLACES: usize = 65_536;

/// What an entry costs beside key and answer, an estimate (moka 0.12).
const ENTRY_BYTES: usize = 96;

/// One answer of the origin.
#[derive(Debug)]
pub(super) struct Kept {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
    pub(super) lives: Lives,
    /// How old it was on arrival.
    age: Duration,
    arrived: Instant,
    /// The number of purges when its fetch began.
    began: u64,
    places: Box<[usize]>,
}

impl Kept {
    /// Time since it left the database, as far as those before this cache tell.
    pub(super) fn age(&self) -> Duration {
        self.age.saturating_add(self.arrived.elapsed())
    }

    pub(super) fn is_fresh(&self) -> bool {
        self.age() < self.lives.fresh
    }

    /// Whether it may be served while it is fetched anew.
    pub(super) fn may_be_stale(&self) -> bool {
        self.age() < self.lives.fresh.saturating_add(self.lives.while_revalidate)
    }

    /// Whether it may be served because the origin fails.
    pub(super) fn serves_errors(&self) -> bool {
        self.age() < self.lives.fresh.saturating_add(self.lives.if_error)
    }

    pub(super) fn etag(&self) -> Option<&HeaderValue> {
        self.headers.get(ETAG)
    }

    fn weight(&self, key: &Key) -> u32 {
        let headers = self.headers.iter().map(|(name, value)| {
            name.as_str().len() + value.len() + size_of::<(HeaderName, HeaderValue)>()
        });
        let bytes = size_of::<Self>()
            + ENTRY_BYTES
            + key.bytes()
            + headers.sum::<usize>()
            + self.body.len()
            + size_of_val(&*self.places);
        u32::try_from(bytes).unwrap_or(u32::MAX)
    }
}

/// All kept answers.
#[derive(Debug)]
pub(super) struct Store {
    map: Cache<Key, Arc<Kept>>,
    purges: AtomicU64,
    /// The number of the last purge of the keys with this place.
    purged: Box<[AtomicU64]>,
    hasher: RandomState,
}

/// Tells the map how long each answer is of use.
struct Lifetime;

impl Expiry<Key, Arc<Kept>> for Lifetime {
    fn expire_after_create(&self, _: &Key, kept: &Arc<Kept>, _: Instant) -> Option<Duration> {
        Some(kept.lives.longest().saturating_sub(kept.age))
    }

    fn expire_after_update(
        &self,
        key: &Key,
        kept: &Arc<Kept>,
        now: Instant,
        _: Option<Duration>,
    ) -> Option<Duration> {
        self.expire_after_create(key, kept, now)
    }
}

impl Store {
    /// At most `capacity` weighed bytes.
    ///
    /// # Errors
    /// The agent looks at too many things already.
    pub(super) fn new(capacity: u64, observe: &agent::Cache) -> Result<Self, agent::Error> {
        let evictions = observe.clone();
        let map = Cache::builder()
            .max_capacity(capacity)
            .weigher(|key: &Key, kept: &Arc<Kept>| kept.weight(key))
            .expire_after(Lifetime)
            .eviction_listener(move |_, _, cause| {
                let cause = match cause {
                    RemovalCause::Size => EvictionCause::Size,
                    RemovalCause::Expired => EvictionCause::Expired,
                    RemovalCause::Replaced => EvictionCause::Replaced,
                    RemovalCause::Explicit => EvictionCause::Explicit,
                };
                evictions.evicted(cause, 1);
            })
            .build();
        let watched = map.clone();
        observe.observe(move || CacheSize {
            entries: watched.entry_count(),
            bytes: watched.weighted_size(),
            capacity_bytes: capacity,
        })?;
        Ok(Self {
            map,
            purges: AtomicU64::new(0),
            purged: (0..PLACES).map(|_| AtomicU64::new(0)).collect(),
            hasher: RandomState::new(),
        })
    }

    /// What is kept and no purge has voided.
    pub(super) async fn get(&self, key: &Key) -> Option<Arc<Kept>> {
        let kept = self.map.get(key).await?;
        self.is_valid(&kept).then_some(kept)
    }

    pub(super) async fn insert(&self, key: Key, kept: Arc<Kept>) {
        self.map.insert(key, kept).await;
    }

    /// The time a fetch begins, to be given to [`keep`](Self::keep).
    pub(super) fn now(&self) -> u64 {
        self.purges.load(Ordering::Acquire)
    }

    /// An answer as it is kept; its age is counted on from now.
    pub(super) fn keep(
        &self,
        key: &Key,
        status: StatusCode,
        mut headers: HeaderMap,
        body: Bytes,
        lives: Lives,
        began: u64,
    ) -> Kept {
        let tags = headers.get_all(SURROGATE_KEY).iter();
        let tags = tags.flat_map(|v| v.to_str().unwrap_or("").split_ascii_whitespace());
        let mut places: Vec<usize> = tags.map(|tag| self.place(tag)).collect();
        places.push(self.place(key.target()));
        let age = headers
            .get(AGE)
            .and_then(|age| age.to_str().ok()?.parse().ok());
        // The surrogate keys stay: a validation may not repeat them. Clients do not see them.
        headers.remove(AGE);
        Kept {
            status,
            headers: own(&headers),
            body,
            lives,
            age: Duration::from_secs(age.unwrap_or(0)),
            arrived: Instant::now(),
            began,
            places: places.into(),
        }
    }

    /// Whether no key of it was purged since its fetch began.
    pub(super) fn is_valid(&self, kept: &Kept) -> bool {
        kept.places.iter().all(|place| {
            let purged = self.purged.get(*place);
            purged.is_some_and(|purged| purged.load(Ordering::Acquire) <= kept.began)
        })
    }

    /// Voids what carries this surrogate key, or has this path and query.
    pub(super) fn purge(&self, tag: &str) {
        let now = self.purges.fetch_add(1, Ordering::AcqRel) + 1;
        if let Some(purged) = self.purged.get(self.place(tag)) {
            purged.fetch_max(now, Ordering::AcqRel);
        }
    }

    fn place(&self, tag: &str) -> usize {
        usize::try_from(self.hasher.hash_one(tag)).unwrap_or(usize::MAX) % PLACES
    }
}

/// Values that came in one head are pieces of the connection's read buffer, all of which one piece keeps.
fn own(headers: &HeaderMap) -> HeaderMap {
    let mut own = HeaderMap::with_capacity(headers.len());
    for (name, value) in headers {
        if let Ok(value) = HeaderValue::from_bytes(value.as_bytes()) {
            own.append(name, value);
        }
    }
    own
}

#[cfg(test)]
mod tests {
    use http::Uri;
    use streamgate_agent::{Agent, Tier};

    use super::*;

    fn store() -> Store {
        let agent = Agent::builder("test").no_listener().start().unwrap();
        Store::new(1 << 20, &agent.cache("edge", Tier::L3)).unwrap()
    }

    fn kept(store: &Store, target: &'static str, tags: &'static str, began: u64) -> (Key, Kept) {
        let key = Key::of(&Uri::from_static(target), &HeaderMap::new());
        let mut headers = HeaderMap::new();
        headers.insert(SURROGATE_KEY, HeaderValue::from_static(tags));
        let lives = Lives {
            fresh: Duration::from_secs(60),
            while_revalidate: Duration::ZERO,
            if_error: Duration::ZERO,
        };
        let kept = store.keep(&key, StatusCode::OK, headers, Bytes::new(), lives, began);
        (key, kept)
    }

    #[tokio::test]
    async fn a_purge_voids_what_carries_the_key_and_nothing_else() {
        let store = store();
        let (a, kept_a) = kept(&store, "/a", "content:1 user:7", store.now());
        let (b, kept_b) = kept(&store, "/b", "content:2", store.now());
        store.insert(a.clone(), Arc::new(kept_a)).await;
        store.insert(b.clone(), Arc::new(kept_b)).await;
        store.purge("user:7");
        assert!(store.get(&a).await.is_none());
        assert!(store.get(&b).await.is_some());
        store.purge("/b");
        assert!(store.get(&b).await.is_none(), "its own target is a key too");
    }

    #[tokio::test]
    async fn a_fetch_that_began_before_a_purge_is_not_kept() {
        let store = store();
        let began = store.now();
        store.purge("content:1");
        let (a, early) = kept(&store, "/a", "content:1", began);
        store.insert(a.clone(), Arc::new(early)).await;
        assert!(store.get(&a).await.is_none());
        let (_, late) = kept(&store, "/a", "content:1", store.now());
        store.insert(a.clone(), Arc::new(late)).await;
        assert!(store.get(&a).await.is_some());
    }

    #[tokio::test]
    async fn nothing_of_the_connection_is_kept_with_an_answer() {
        let store = store();
        let read_buffer = Bytes::from(vec![b'v'; 8_192]);
        let mut headers = HeaderMap::new();
        let value = HeaderValue::from_maybe_shared(read_buffer.slice(..9)).unwrap();
        headers.insert(ETAG, value);
        let (key, kept) = kept(&store, "/a", "content:1", store.now());
        let kept = store.keep(&key, kept.status, headers, Bytes::new(), kept.lives, 0);
        assert_eq!(kept.etag().unwrap().as_bytes(), b"vvvvvvvvv");
        assert!(read_buffer.is_unique());
    }
}
