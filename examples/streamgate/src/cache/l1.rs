//! The bounded map with single flight.
//!
//! Guide 2.1 and 3.3. Metrics: `cache_requests_total`, `cache_loads_total`,
//! `cache_coalesced_requests_total`, `cache_evictions_total`, `cache_size_bytes`. Breaking tests:
//! `a_thousand_cold_readers_cause_one_load`, `an_aborted_reader_does_not_cancel_the_load`,
//! `a_load_in_flight_does_not_bring_back_the_old_value`.
//!
//! While the process holds too much memory the cache keeps half of its budget, oldest loads out first
//! (`cache_evictions_total{cause="pressure"}`, `under_pressure_half_is_kept_and_afterwards_all`).
//!
//! A value past its lifetime is served for a while longer while it is loaded in the background.
//!
//! Every flight runs in a task of its own: a client that leaves must not cancel what others wait
//! for. Errors are shared with the waiters and not kept.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use moka::future::Cache;
use moka::notification::RemovalCause;
use moka::ops::compute::Op;
use streamgate_agent::{
    self as agent, CacheSize, EvictionCause, MemoryPressure, MemoryPressureSubscription,
    PressureLevel,
};
use tokio::sync::watch;

use super::asker::Asker;
use super::entry::{Cached, Entry, Found, Lifetime, Lives};
use super::epoch::{Epochs, Stamp, Tag};
use super::key::CacheKey;
use super::level2::{Asked, Level2};
use crate::db::DbError;
use crate::faults::{Fault, Faults};
use crate::observe::Observe;

/// Longest wait for a load, then 503: more than a statement may take is a queue, not a load.
const WAIT: Duration = Duration::from_secs(2);

/// Flights that may end outdated before a reader gives up. One older flight can be under way when
/// a reader arrives, so two suffice; the third is for a shared place in the epoch table.
const FLIGHTS: usize = 3;

/// One part of so many of its capacity is kept while the process holds too much memory: what is asked
/// for most is loaded again at once and then the youngest, so that a smaller cache still hits.
const PRESSED: u64 = 2;

/// Why there is no value.
#[derive(Clone, Debug, thiserror::Error)]
pub(crate) enum LoadError {
    /// The load failed; everybody who waited gets the same cause.
    #[error(transparent)]
    Failed(DbError),
    /// The load takes too long, panicked, or was overtaken by writes each time.
    #[error("the value was not loaded in time")]
    TooSlow,
}

/// Why a flight ended without a kept entry.
enum Unkept<V> {
    TooLarge(Arc<Entry<V>>),
    Failed(DbError),
}

/// What a reader brought home and how.
struct Landed<V> {
    entry: Arc<Entry<V>>,
    /// `None`: this reader loaded it. Otherwise the time spent waiting for another's load.
    waited: Option<Duration>,
}

type Map<V> = Cache<CacheKey, Arc<Entry<V>>>;

/// A cache of one kind of value.
pub(crate) struct L1<V> {
    map: Map<V>,
    epochs: Arc<Epochs>,
    observe: agent::Cache,
    lives: Lives,
    l2: Option<Level2>,
    faults: Faults,
    /// Ends the task that shrinks the cache, too.
    _pressure: MemoryPressureSubscription,
}

impl<V> fmt::Debug for L1<V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("L1")
            .field("entries", &self.map.entry_count())
            .finish_non_exhaustive()
    }
}

impl<V: Cached> L1<V> {
    /// A cache of at most `capacity` weighed bytes.
    ///
    /// # Errors
    /// The agent looks at too many things already.
    pub(crate) fn new(
        capacity: u64,
        epochs: Arc<Epochs>,
        observe: agent::Cache,
        from: &Observe,
        l2: Option<Level2>,
    ) -> Result<Self, agent::Error> {
        let lives = Lives::GUIDE;
        Ok(Self {
            l2,
            ..Self::with_lives(capacity, epochs, observe, from, lives)?
        })
    }

    fn with_lives(
        capacity: u64,
        epochs: Arc<Epochs>,
        observe: agent::Cache,
        from: &Observe,
        lives: Lives,
    ) -> Result<Self, agent::Error> {
        let evictions = observe.clone();
        let map = Cache::builder()
            .max_capacity(capacity)
            .weigher(|_, entry: &Arc<Entry<V>>| entry.weight)
            .expire_after(Lifetime)
            .eviction_listener(move |_, entry: Arc<Entry<V>>, cause| {
                let cause = match cause {
                    _ if entry.pressed_out.load(Ordering::Relaxed) => EvictionCause::Pressure,
                    RemovalCause::Size => EvictionCause::Size,
                    RemovalCause::Expired => EvictionCause::Expired,
                    RemovalCause::Replaced => EvictionCause::Replaced,
                    RemovalCause::Explicit => EvictionCause::Explicit,
                };
                evictions.evicted(cause, 1);
            })
            .build();
        let budget = Arc::new(AtomicU64::new(capacity));
        let (watched, allowed) = (map.clone(), Arc::clone(&budget));
        observe.observe(move || CacheSize {
            entries: watched.entry_count(),
            bytes: watched.weighted_size(),
            capacity_bytes: allowed.load(Ordering::Relaxed),
        })?;
        let (tell, told) = watch::channel(capacity);
        let pressure = from.agent.on_memory_pressure(move |pressure| {
            let bytes = allowance(capacity, pressure);
            budget.store(bytes, Ordering::Relaxed);
            tell.send_replace(bytes);
        })?;
        tokio::spawn(follow(map.clone(), told));
        Ok(Self {
            map,
            epochs,
            observe,
            lives,
            l2: None,
            faults: from.faults.clone(),
            _pressure: pressure,
        })
    }

    /// The value, from the cache or by `load`; `None` when there is no such row.
    ///
    /// A reader gets a value whose load began after he asked, or a kept one that no write has voided
    /// since. Readers that miss together share one load.
    ///
    /// # Errors
    /// The load failed, or took longer than two seconds.
    pub(crate) async fn get<F, L>(
        self: &Arc<Self>,
        key: CacheKey,
        tags: &[Tag],
        load: F,
    ) -> Result<Option<Found<V>>, LoadError>
    where
        F: Fn() -> L + Send + Sync + 'static,
        L: Future<Output = Result<Option<V>, DbError>> + Send + 'static,
    {
        let asker = Asker::now();
        let wanted = self.epochs.stamp(tags);
        let lookup = self.observe.get();
        if self.faults.is_on(Fault::L1Off) {
            self.map.invalidate(&key).await;
        }
        if let Some(entry) = self.map.get(&key).await
            && entry.stamp >= wanted
        {
            if entry.is_stale() {
                if !entry.refreshing.swap(true, Ordering::Relaxed) {
                    let (cache, tags, old) = (Arc::clone(self), tags.to_vec(), Arc::clone(&entry));
                    tokio::spawn(async move { cache.refresh(key, &tags, &old, &load).await });
                }
                lookup.stale(asker.class(entry.class()));
            } else {
                lookup.hit(asker.class(entry.class()));
            }
            return Ok(entry.found());
        }
        let flight = {
            let (cache, tags) = (Arc::clone(self), tags.to_vec());
            tokio::spawn(streamgate_agent::in_request(async move {
                cache.fly(key, &tags, wanted, asker, &load).await
            }))
        };
        let landed = match tokio::time::timeout(WAIT, flight).await {
            Ok(Ok(landed)) => landed?,
            // A panic ends here as a slow load; the runtime has printed it.
            Ok(Err(_)) | Err(_) => return Err(LoadError::TooSlow),
        };
        if let Some(waited) = landed.waited {
            self.observe.coalesced(true, waited);
        }
        lookup.miss(asker.class(landed.entry.class()));
        Ok(landed.entry.found())
    }

    /// Removes a value that a write has voided, so that its memory is free at once.
    pub(crate) async fn remove(&self, key: &CacheKey) {
        self.map.invalidate(key).await;
    }

    /// Loads or waits until the value is as new as `wanted`.
    async fn fly<F, L>(
        &self,
        key: CacheKey,
        tags: &[Tag],
        wanted: Stamp,
        asker: Asker,
        load: &F,
    ) -> Result<Landed<V>, LoadError>
    where
        F: Fn() -> L + Send + Sync,
        L: Future<Output = Result<Option<V>, DbError>> + Send,
    {
        let started = Instant::now();
        for _ in 0..FLIGHTS {
            self.drop_outdated(key, wanted).await;
            if self.faults.is_on(Fault::SingleflightOff) {
                return self.load_alone(key, tags, asker, load).await;
            }
            let led = AtomicBool::new(false);
            let outcome = self
                .map
                .try_get_with(key, async {
                    led.store(true, Ordering::Relaxed);
                    self.load(key, tags, asker, load).await
                })
                .await;
            let waited = (!led.into_inner()).then(|| started.elapsed());
            let entry = match outcome {
                Ok(entry) => entry,
                Err(unkept) => match &*unkept {
                    Unkept::TooLarge(entry) => Arc::clone(entry),
                    Unkept::Failed(error) => {
                        if let Some(waited) = waited {
                            self.observe.coalesced(false, waited);
                        }
                        return Err(LoadError::Failed(error.clone()));
                    }
                },
            };
            // A flight that began before this reader asked may carry what a write has replaced.
            if entry.stamp >= wanted {
                return Ok(Landed { entry, waited });
            }
        }
        Err(LoadError::TooSlow)
    }

    /// Loads without asking whether somebody else does: what the fault `singleflight_off` is.
    async fn load_alone<F, L>(
        &self,
        key: CacheKey,
        tags: &[Tag],
        asker: Asker,
        load: &F,
    ) -> Result<Landed<V>, LoadError>
    where
        F: Fn() -> L + Send + Sync,
        L: Future<Output = Result<Option<V>, DbError>> + Send,
    {
        let entry = match self.load(key, tags, asker, load).await {
            Ok(entry) => {
                self.map.insert(key, Arc::clone(&entry)).await;
                entry
            }
            Err(Unkept::TooLarge(entry)) => entry,
            Err(Unkept::Failed(error)) => return Err(LoadError::Failed(error)),
        };
        Ok(Landed {
            entry,
            waited: None,
        })
    }

    async fn load<F, L>(
        &self,
        key: CacheKey,
        tags: &[Tag],
        asker: Asker,
        load: &F,
    ) -> Result<Arc<Entry<V>>, Unkept<V>>
    where
        F: Fn() -> L + Send + Sync,
        L: Future<Output = Result<Option<V>, DbError>> + Send,
    {
        let entry = self.make(key, tags, Some(asker), load).await;
        let entry = entry.map_err(Unkept::Failed)?;
        if entry.is_too_large() {
            return Err(Unkept::TooLarge(entry));
        }
        Ok(entry)
    }

    /// The value by L2, or by `load`. Without an asker it is a refresh, which counts as that alone.
    async fn make<F, L>(
        &self,
        key: CacheKey,
        tags: &[Tag],
        asker: Option<Asker>,
        load: &F,
    ) -> Result<Arc<Entry<V>>, DbError>
    where
        F: Fn() -> L + Send + Sync,
        L: Future<Output = Result<Option<V>, DbError>> + Send,
    {
        // Before the load, never after: what it reads may change while it runs.
        let stamp = self.epochs.stamp(tags);
        let l2 = match &self.l2 {
            Some(level) => level.ask(key, tags, asker).await,
            None => Asked::Absent,
        };
        let (token, lookup) = match l2 {
            Asked::Found { value, age, rest } => {
                let entry = Entry::new(&key, stamp, Some(value), self.lives);
                return Ok(Arc::new(entry.aged(age, rest)));
            }
            Asked::Nothing { token, lookup } => (Some(token), lookup.map(|l| (l, false))),
            Asked::Unavailable { lookup } => (None, lookup.map(|lookup| (lookup, true))),
            Asked::Absent => (None, None),
        };
        let guard = asker.map(|asker| (asker, self.observe.load()));
        let value = load().await?;
        let entry = Arc::new(Entry::new(&key, stamp, value, self.lives));
        if let Some((asker, guard)) = guard {
            let class = asker.class(entry.class());
            guard.done(class);
            match lookup {
                Some((lookup, false)) => lookup.miss(class),
                Some((lookup, true)) => lookup.error(class),
                None => {}
            }
        }
        if let (Some(level), Some(token), Some(value)) = (&self.l2, token, &entry.value)
            && !entry.is_too_large()
        {
            level.keep(key, tags, token, Arc::clone(value));
        }
        Ok(entry)
    }

    /// Replaces a stale entry, unless a write or another load has done so meanwhile.
    async fn refresh<F, L>(&self, key: CacheKey, tags: &[Tag], old: &Arc<Entry<V>>, load: &F)
    where
        F: Fn() -> L + Send + Sync,
        L: Future<Output = Result<Option<V>, DbError>> + Send,
    {
        self.observe.refreshed();
        let Ok(entry) = self.make(key, tags, None, load).await else {
            // The next reader tries again, until the stale time is over.
            old.refreshing.store(false, Ordering::Relaxed);
            return;
        };
        let replace = |present: Option<moka::Entry<CacheKey, Arc<Entry<V>>>>| {
            let same = present.is_some_and(|present| Arc::ptr_eq(present.value(), old));
            std::future::ready(match (same, entry.is_too_large()) {
                (false, _) => Op::Nop,
                (true, true) => Op::Remove,
                (true, false) => Op::Put(entry),
            })
        };
        self.map.entry(key).and_compute_with(replace).await;
    }

    /// Removes the entry if a write has voided it; one that another reader has renewed stays.
    async fn drop_outdated(&self, key: CacheKey, wanted: Stamp) {
        self.map
            .entry(key)
            .and_compute_with(|entry| {
                let outdated = entry.is_some_and(|entry| entry.value().stamp < wanted);
                std::future::ready(if outdated { Op::Remove } else { Op::Nop })
            })
            .await;
    }
}

const fn allowance(capacity: u64, pressure: MemoryPressure) -> u64 {
    match pressure.level {
        PressureLevel::High => capacity / PRESSED,
        _ => capacity,
    }
}

/// Shrinks the cache whenever the agent tells, until the cache is gone. What is loaded between two
/// tellings, a second apart while pressure lasts, may lie above the budget.
async fn follow<V: Cached>(map: Map<V>, mut budget: watch::Receiver<u64>) {
    while budget.changed().await.is_ok() {
        let bytes = *budget.borrow_and_update();
        shrink(&map, bytes).await;
    }
}

/// Removes what was loaded longest ago until the rest weighs at most `bytes`. The map's own policy
/// knows one capacity for ever, so this sorts: 40 bytes and a reference for each entry, for a moment.
async fn shrink<V: Cached>(map: &Map<V>, bytes: u64) {
    map.run_pending_tasks().await;
    let mut excess = map.weighted_size().saturating_sub(bytes);
    if excess == 0 {
        return;
    }
    let mut entries: Vec<_> = map.iter().collect();
    entries.sort_unstable_by_key(|(_, entry)| entry.loaded);
    for (key, entry) in entries {
        if excess == 0 {
            break;
        }
        entry.pressed_out.store(true, Ordering::Relaxed);
        map.invalidate(&*key).await;
        excess = excess.saturating_sub(entry.weight.into());
    }
    map.run_pending_tasks().await;
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use streamgate_agent::{Agent, CacheClass, Tier};
    use tokio::sync::Semaphore;
    use uuid::Uuid;

    use super::*;
    use crate::cache::entry::LARGEST_VALUE;
    use crate::cache::key::{Resource, Variant};

    #[derive(Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
    struct Text(String);

    impl Cached for Text {
        fn bytes(&self) -> usize {
            self.0.len()
        }

        fn class(&self) -> CacheClass {
            CacheClass::Public
        }
    }

    /// A source whose loads wait for a permit and then return what it holds.
    #[derive(Debug)]
    struct Source {
        text: std::sync::Mutex<Option<&'static str>>,
        gate: Semaphore,
        loads: AtomicUsize,
    }

    impl Source {
        fn new(text: Option<&'static str>, permits: usize) -> Arc<Self> {
            Arc::new(Self {
                text: std::sync::Mutex::new(text),
                gate: Semaphore::new(permits),
                loads: AtomicUsize::new(0),
            })
        }

        fn set(&self, text: &'static str) {
            *self.text.lock().unwrap() = Some(text);
        }

        fn loads(&self) -> usize {
            self.loads.load(Ordering::SeqCst)
        }

        /// Reads first and waits then, as a slow statement with an old snapshot does.
        async fn load(self: Arc<Self>) -> Result<Option<Text>, DbError> {
            self.loads.fetch_add(1, Ordering::SeqCst);
            let text = *self.text.lock().unwrap();
            self.gate.acquire().await.unwrap().forget();
            Ok(text.map(|text| Text(text.to_owned())))
        }
    }

    fn cache(capacity: u64) -> (Arc<L1<Text>>, Arc<Epochs>) {
        let agent = Agent::builder("test").no_listener().start().unwrap();
        cache_of(&agent, capacity)
    }

    fn cache_of(agent: &agent::AgentHandle, capacity: u64) -> (Arc<L1<Text>>, Arc<Epochs>) {
        let epochs = Arc::new(Epochs::default());
        let observe = agent.cache("test", Tier::L1);
        let from = Observe::new(agent.clone()).unwrap();
        let cache = L1::new(capacity, Arc::clone(&epochs), observe, &from, None);
        (Arc::new(cache.unwrap()), epochs)
    }

    fn key(n: u128) -> CacheKey {
        CacheKey::row(Resource::Content, Uuid::from_u128(n), Variant::Row)
    }

    const TAG: Tag = Tag::Content(Uuid::from_u128(1));

    async fn get(
        cache: &Arc<L1<Text>>,
        source: &Arc<Source>,
    ) -> Result<Option<Found<Text>>, LoadError> {
        let source = Arc::clone(source);
        cache
            .get(key(1), &[TAG], move || Arc::clone(&source).load())
            .await
    }

    fn text(got: Result<Option<Found<Text>>, LoadError>) -> String {
        got.unwrap().unwrap().0.clone()
    }

    async fn until(what: impl Fn() -> bool) {
        let deadline = Instant::now() + Duration::from_secs(10);
        while !what() {
            assert!(Instant::now() < deadline, "the condition never held");
            tokio::task::yield_now().await;
        }
    }

    #[tokio::test]
    async fn a_thousand_cold_readers_cause_one_load() {
        let (cache, _) = cache(1 << 20);
        let source = Source::new(Some("a"), 0);
        let readers: Vec<_> = (0..1_000)
            .map(|_| {
                let (cache, source) = (Arc::clone(&cache), Arc::clone(&source));
                tokio::spawn(async move { get(&cache, &source).await })
            })
            .collect();
        until(|| source.loads() == 1).await;
        source.gate.add_permits(1_000);
        for reader in readers {
            assert_eq!(text(reader.await.unwrap()), "a");
        }
        assert_eq!(source.loads(), 1);
    }

    #[tokio::test]
    async fn an_aborted_reader_does_not_cancel_the_load() {
        let (cache, _) = cache(1 << 20);
        let source = Source::new(Some("a"), 0);
        let leader = {
            let (cache, source) = (Arc::clone(&cache), Arc::clone(&source));
            tokio::spawn(async move { get(&cache, &source).await.is_ok() })
        };
        until(|| source.loads() == 1).await;
        leader.abort();
        assert!(leader.await.unwrap_err().is_cancelled());
        source.gate.add_permits(1);
        assert_eq!(text(get(&cache, &source).await), "a");
        assert_eq!(source.loads(), 1);
    }

    #[tokio::test]
    async fn after_a_leaders_panic_a_waiter_loads() {
        let (cache, _) = cache(1 << 20);
        let calls = Arc::new(AtomicUsize::new(0));
        let reader = || {
            let (cache, calls) = (Arc::clone(&cache), Arc::clone(&calls));
            tokio::spawn(async move {
                let load = move || {
                    let first = calls.fetch_add(1, Ordering::SeqCst) == 0;
                    async move {
                        tokio::task::yield_now().await;
                        assert!(!first, "the first load panics");
                        Ok(Some(Text("a".to_owned())))
                    }
                };
                cache.get(key(1), &[TAG], load).await
            })
        };
        let readers = [reader(), reader(), reader()];
        let mut failed = 0;
        for reader in readers {
            match reader.await.unwrap() {
                Ok(found) => assert_eq!(found.unwrap().0, "a"),
                Err(_) => failed += 1,
            }
        }
        assert_eq!((failed, calls.load(Ordering::SeqCst)), (1, 2));
    }

    #[tokio::test]
    async fn a_load_in_flight_does_not_bring_back_the_old_value() {
        let (cache, epochs) = cache(1 << 20);
        let source = Source::new(Some("old"), 0);
        let early = {
            let (cache, source) = (Arc::clone(&cache), Arc::clone(&source));
            tokio::spawn(async move { get(&cache, &source).await })
        };
        until(|| source.loads() == 1).await;
        // The write commits and invalidates while the load holds what it read before.
        source.set("new");
        epochs.bump(TAG);
        let late = {
            let (cache, source) = (Arc::clone(&cache), Arc::clone(&source));
            tokio::spawn(async move { get(&cache, &source).await })
        };
        source.gate.add_permits(2);
        assert_eq!(
            text(late.await.unwrap()),
            "new",
            "who asks after the write sees it"
        );
        assert_eq!(
            text(early.await.unwrap()),
            "old",
            "who asked before may see either"
        );
        assert_eq!(text(get(&cache, &source).await), "new");
        assert_eq!(source.loads(), 2);
    }

    #[tokio::test]
    async fn a_stale_value_is_served_while_one_task_loads_it_anew() {
        let agent = Agent::builder("test").no_listener().start().unwrap();
        let epochs = Arc::new(Epochs::default());
        let lives = Lives {
            fresh: Duration::ZERO,
            stale: Duration::from_secs(60),
        };
        let observe = agent.cache("test", Tier::L1);
        let from = Observe::new(agent.clone()).unwrap();
        let cache = L1::with_lives(1 << 20, Arc::clone(&epochs), observe, &from, lives);
        let cache = Arc::new(cache.unwrap());
        let source = Source::new(Some("old"), 1);
        assert_eq!(text(get(&cache, &source).await), "old");
        source.set("new");
        for _ in 0..10 {
            assert_eq!(text(get(&cache, &source).await), "old", "nobody waits");
        }
        until(|| source.loads() == 2).await;
        // The refresh is under way, and a write voids what it and the cache hold.
        source.set("newest");
        epochs.bump(TAG);
        source.gate.add_permits(2);
        assert_eq!(
            text(get(&cache, &source).await),
            "newest",
            "a voided value is not served"
        );
        assert_eq!(source.loads(), 3, "ten stale readers caused one refresh");
    }

    #[tokio::test]
    async fn a_failed_load_is_shared_and_not_kept() {
        let (cache, _) = cache(1 << 20);
        let failing = || async { Err(DbError::PoolTimeout) };
        let failed = cache.get(key(1), &[TAG], failing).await;
        assert!(matches!(
            failed,
            Err(LoadError::Failed(DbError::PoolTimeout))
        ));
        let source = Source::new(Some("a"), 1);
        assert_eq!(text(get(&cache, &source).await), "a");
    }

    #[tokio::test]
    async fn an_absent_row_is_believed_absent_for_a_while() {
        let (cache, _) = cache(1 << 20);
        let source = Source::new(None, 10);
        for _ in 0..2 {
            assert!(get(&cache, &source).await.unwrap().is_none());
        }
        assert_eq!(source.loads(), 1);
    }

    #[tokio::test]
    async fn a_value_over_the_limit_is_served_and_not_kept() {
        let (cache, _) = cache(64 << 20);
        let loads = Arc::new(AtomicUsize::new(0));
        for _ in 0..2 {
            let counted = Arc::clone(&loads);
            let load = move || {
                counted.fetch_add(1, Ordering::SeqCst);
                async { Ok(Some(Text("x".repeat(LARGEST_VALUE + 1)))) }
            };
            let found = cache.get(key(1), &[TAG], load).await;
            assert_eq!(text(found).len(), LARGEST_VALUE + 1);
        }
        assert_eq!(loads.load(Ordering::SeqCst), 2);
    }

    #[tokio::test]
    async fn the_weight_stays_within_the_capacity() {
        let (cache, _) = cache(10_000);
        for n in 0..200 {
            let load = || async { Ok(Some(Text("x".repeat(1_000)))) };
            cache.get(key(n), &[TAG], load).await.unwrap();
        }
        cache.map.run_pending_tasks().await;
        assert!(
            cache.map.weighted_size() <= 10_000,
            "{}",
            cache.map.weighted_size()
        );
        assert!(cache.map.entry_count() < 10);
    }

    async fn fill(cache: &Arc<L1<Text>>, keys: std::ops::Range<u128>) {
        for n in keys {
            let load = || async { Ok(Some(Text("x".repeat(1_000)))) };
            cache.get(key(n), &[TAG], load).await.unwrap();
        }
        cache.map.run_pending_tasks().await;
    }

    /// Pressure is injected here; the agent's own is the next test's.
    #[tokio::test]
    async fn under_pressure_half_is_kept_and_afterwards_all() {
        let capacity = 100_000;
        let pressure = |level| MemoryPressure {
            level,
            used_bytes: 900,
            soft_limit_bytes: 800,
        };
        let (cache, _) = cache(capacity);
        fill(&cache, 0..80).await;
        assert!(cache.map.weighted_size() > 80_000);
        let high = allowance(capacity, pressure(PressureLevel::High));
        shrink(&cache.map, high).await;
        let kept = cache.map.weighted_size();
        assert!((45_000..=50_000).contains(&kept), "{kept}");
        // The youngest is a hit, so nobody loads it; the oldest is loaded and kept again.
        let never = || async { Err(DbError::PoolTimeout) };
        assert!(cache.get(key(79), &[TAG], never).await.unwrap().is_some());
        assert!(cache.get(key(0), &[TAG], never).await.is_err());
        fill(&cache, 0..1).await;
        assert!(cache.get(key(0), &[TAG], never).await.unwrap().is_some());
        let normal = allowance(capacity, pressure(PressureLevel::Normal));
        fill(&cache, 100..140).await;
        shrink(&cache.map, normal).await;
        let grown = cache.map.weighted_size();
        assert!(grown > high && grown <= capacity, "{grown}");
    }

    /// A soft limit of some kilobytes, which every process is above.
    #[tokio::test]
    async fn the_agents_signal_shrinks_the_cache_and_the_evictions_say_why() {
        let agent = Agent::builder("test").no_listener();
        let agent = agent.memory_soft_limit(1e-6).start().unwrap();
        let (cache, _) = cache_of(&agent, 100_000);
        fill(&cache, 0..80).await;
        until(|| cache.map.weighted_size() <= 50_000).await;
        let request = agent::Request::new("GET", "/metrics").header("host", "localhost");
        let page = agent.respond(request).await;
        let page = String::from_utf8_lossy(page.body()).into_owned();
        let start =
            "cache_evictions_total{cache_name=\"test\",cache_level=\"l1\",cause=\"pressure\"} ";
        let evicted = page.lines().find_map(|line| line.strip_prefix(start));
        assert!(evicted.unwrap().parse::<f64>().unwrap() > 20.0);
    }
}
