//! Heap profiles: reads the samples of the recording allocator, follows their stacks, adds them up.
//!
//! Runs on a thread of its own, whose own allocations are not sampled. What was allocated since the
//! start is held once per process, as the allocator is: several agents read the same sums.

mod callers;
mod estimate;
mod kept;
mod meters;
mod profile;
mod sites;
mod tally;

use std::collections::HashMap;
use std::sync::{Arc, LazyLock, Mutex};
use std::time::{Duration, Instant};

use super::code::desk::Answering;
use super::code::unwind::{End, Unwinder};
use super::sys::heap;
pub(crate) use super::sys::heap::leave_out_this_thread;
use crate::catalog::families;
use crate::config::Config;
use crate::config::heap as limits;
use crate::error::Error;
use crate::store::heap::{
    Estimate, HeapMoment, HeapProfileWish, HeapSeen, HeapStats, HeapWish, LostHeap, Recording,
    RouteHeap,
};
use crate::store::label::{LabelSet, ROUTE};
use crate::store::metrics::unix_nanos_now;
use crate::store::stacks::TRUNCATED;
use crate::store::sync::lock;
use crate::store::{NoProfile, Store, Unavailable};
use estimate::Weighed;
use kept::KeptHeaps;
use meters::Meters;
use tally::{LiveSums, Snapshot, Tally};

/// The shortest wait for samples where nobody asks. At the limit of 500 a second they fill a quarter of the
/// ring in 128 ms; when they come faster, the allocator wakes at half of it.
const SHORTEST: Duration = Duration::from_millis(100);
/// A look at all live blocks that takes 1 ms is followed by at least this many without one: a fifth of a
/// percent of one core at most.
const PAUSE: u32 = 500;

/// What is known of the process's heap since its start.
#[derive(Default)]
struct Known {
    tally: Tally,
    unwinder: Unwinder,
    frames: Vec<u64>,
    /// Agents that read it; sampling ends with the last.
    agents: usize,
    start_unix_nanos: u64,
}

static KNOWN: LazyLock<Mutex<Known>> = LazyLock::new(Mutex::default);

impl Known {
    /// Takes the samples that wait; returns how many did.
    fn drain(&mut self) -> u32 {
        let Self {
            tally,
            unwinder,
            frames,
            ..
        } = self;
        unwinder.refresh();
        heap::drain(|block, head, stack| {
            let end = unwinder.unwind(head, stack, frames);
            if end == End::Truncated {
                frames.push(TRUNCATED);
                tally.truncated += 1;
            }
            let weighed = Weighed::block(block.size, block.estimate().objects);
            tally.add(frames, block.mark.set, weighed)
        })
    }
}

/// How long samples may be left to themselves, of which so many came in the time before: until a quarter of
/// the ring is full.
///
/// Then a steady flow neither fills it nor makes the allocator's half-full call, a system call, and the slots
/// whose stack bytes are touched stay few. Where nothing is sampled the thread wakes only to look.
fn until_quarter_full(drained: u32, within: Duration) -> Duration {
    let quarter = within.saturating_mul(limits::RING_SLOTS / 4);
    let until = quarter.checked_div(drained).unwrap_or(limits::LOOK);
    until.clamp(SHORTEST, limits::LOOK)
}

/// All live blocks of this moment.
fn live() -> LiveSums {
    let now = heap::now_millis();
    let mut sums = LiveSums::default();
    heap::live(|block| {
        let age = now.saturating_sub(block.born_millis);
        let weighed = Weighed::block(block.size, block.estimate().objects);
        sums.add(block.stack, block.mark.set, age, weighed);
    });
    sums
}

/// What the allocator could not record, by cause.
fn lost() -> Vec<(&'static str, Weighed)> {
    let counts = heap::counts();
    let causes = [
        (
            "no room for the stack",
            counts.stacks_lost,
            counts.stack_lost,
        ),
        ("no room for the block", counts.blocks_lost, counts.lost),
    ];
    let lost = causes.into_iter().filter(|(_, samples, _)| *samples > 0);
    lost.map(|(cause, samples, estimate)| {
        let weighed = Weighed {
            samples,
            objects: estimate.objects,
            bytes: estimate.bytes,
            variance: 0.0,
        };
        (cause, weighed)
    })
    .collect()
}

/// Says whether there will be samples.
pub(crate) fn begin(store: &Store, config: &Config) -> Recording {
    let recording = if !heap::is_installed() {
        Recording::NotInstalled
    } else if config.heap_sampling == 0 {
        heap::set_rate(0);
        Recording::Off("heap profiles are off: the host chose heap_sampling(0)")
    } else {
        Recording::On
    };
    *store.heap.recording.get_or_init(|| recording)
}

/// What the thread does between two waits.
#[derive(Debug)]
pub(crate) struct HeapCollector {
    store: Arc<Store>,
    answers: Answering,
    /// Readers whose addresses are being named.
    answering: Vec<u64>,
    kept: KeptHeaps,
    meters: Meters,
    drained_at: Instant,
    look_due: Instant,
    sites_due: Instant,
    pace: Pace,
}

impl HeapCollector {
    /// # Errors
    /// When the catalogue's rows do not fit, which a test excludes.
    pub(crate) fn new(store: Arc<Store>, config: &Config) -> Result<Self, Error> {
        let meters = Meters::new(Arc::clone(&store))?;
        let mut known = lock(&KNOWN);
        // Under the lock, under which the last agent before this one ended sampling.
        heap::set_rate(config.heap_sampling);
        if known.agents == 0 && known.start_unix_nanos == 0 {
            known.start_unix_nanos = unix_nanos_now();
        }
        known.agents += 1;
        drop(known);
        store.heap.wishes.wakes(heap::wake);
        let now = Instant::now();
        Ok(Self {
            answers: Answering::new(Arc::clone(&store)),
            meters,
            store,
            answering: Vec::new(),
            kept: KeptHeaps::default(),
            drained_at: now,
            look_due: now,
            sites_due: now,
            pace: Pace::new(now),
        })
    }

    /// Does what is due, then waits until it is time to look or to drain, or somebody asks.
    pub(crate) fn turn(&mut self) {
        let seen = heap::news();
        let now = Instant::now();
        let mut known = lock(&KNOWN);
        // Wishes first: all that was allocated before one is among its samples.
        let wishes = self.store.heap.wishes.open();
        let within = now.saturating_duration_since(self.drained_at);
        let wait = until_quarter_full(known.drain(), within);
        self.drained_at = now;
        if now >= self.look_due {
            self.look(&known, now);
            self.look_due = now + limits::LOOK.max(now.elapsed() * PAUSE);
        }
        self.answer(&known, wishes);
        drop(known);
        let look = self.look_due.saturating_duration_since(Instant::now());
        heap::wait(seen, wait.min(look));
    }

    /// Looks how large the heap is, shows its numbers, and keeps it if it is larger than ever.
    fn look(&mut self, known: &Known, now: Instant) {
        let live = live();
        self.pace.step(now, &known.tally);
        self.meters.show(&self.stats(known, &live));
        if now >= self.sites_due {
            let readings = sites::readings(&known.tally, &live);
            self.store.sites.put(now, readings);
            self.sites_due = now + limits::SITES;
        }
        let used = used_ratio(&self.store);
        if let Some(kept_for) = self.kept.reason(live.total.bytes, used) {
            self.kept.keep(kept_for, self.snapshot(known, &live));
        }
    }

    fn snapshot(&self, known: &Known, live: &LiveSums) -> Snapshot {
        let metrics = self.store.metrics.snapshot();
        Snapshot {
            unix_nanos: unix_nanos_now(),
            rate: heap::rate(),
            resident_bytes: metrics.float(&families::PROCESS_MEMORY_USAGE),
            ..Snapshot::new(&known.tally, live, lost())
        }
    }

    /// Answers whoever wishes for something.
    fn answer(&mut self, known: &Known, open: Vec<(u64, HeapWish)>) {
        let wishes = Arc::clone(&self.store.heap.wishes);
        self.answering
            .retain(|id| open.iter().any(|(open, _)| open == id));
        for (id, wish) in open {
            if self.answering.contains(&id) {
                continue;
            }
            match wish {
                HeapWish::Profile(wish) => self.begin_profile(known, id, wish),
                HeapWish::Stats => {
                    let stats = self.stats(known, &live());
                    wishes.answer(id, Ok(HeapSeen::Stats(Arc::new(stats))));
                }
                HeapWish::Sites(wanted) => self.begin_sites(known, id, &wanted),
            }
        }
    }

    fn begin_profile(&mut self, known: &Known, id: u64, wish: HeapProfileWish) {
        let (snapshot, kept) = if wish.moment == HeapMoment::Now {
            (Arc::new(self.snapshot(known, &live())), None)
        } else {
            let Some(kept) = self.kept.get(wish.moment) else {
                let text = no_such(wish.moment, self.kept.rows().len());
                let answer = NoProfile {
                    text,
                    not_held: true,
                };
                self.store.heap.wishes.answer(id, Err(answer));
                return;
            };
            (Arc::clone(&kept.snapshot), Some(kept.kept_for))
        };
        self.answering.push(id);
        self.answers.spawn(move |desk| {
            let wishes = &desk.store.heap.wishes;
            let addresses = snapshot.addresses();
            let wanted = || wishes.is_open(id);
            let symbolised = desk.symbolise(&addresses, wish.names, Duration::ZERO, &wanted);
            let profile = profile::profile(&snapshot, kept, symbolised, wish);
            wishes.answer(id, Ok(HeapSeen::Profile(Arc::new(profile))));
        });
    }

    fn begin_sites(&mut self, known: &Known, id: u64, sites: &[u64]) {
        let wanted = sites::wanted(&known.tally, &live(), sites);
        self.answering.push(id);
        self.answers.spawn(move |desk| {
            let wishes = &desk.store.heap.wishes;
            let addresses = tally::addresses(wanted.iter().map(|one| &one.stack));
            let is_open = || wishes.is_open(id);
            let symbolised = desk.symbolise(&addresses, true, Duration::ZERO, &is_open);
            let named = sites::named(&wanted, &symbolised);
            wishes.answer(id, Ok(HeapSeen::Sites(named.into())));
        });
    }

    fn stats(&self, known: &Known, live: &LiveSums) -> HeapStats {
        let lost = lost();
        let mut allocated = known.tally.total;
        for (_, weighed) in &lost {
            allocated.add(*weighed);
        }
        HeapStats {
            rate: heap::rate(),
            start_unix_nanos: known.start_unix_nanos,
            samples: known.tally.total.samples,
            live_samples: live.total.samples,
            blocks: heap::fill(),
            live: live.total.estimate(),
            live_bytes_error: live.total.variance.sqrt(),
            allocated: allocated.estimate(),
            allocated_per_second: self.pace.all(),
            routes: self.routes(known, live),
            lost: lost
                .iter()
                .map(|(cause, weighed)| LostHeap {
                    cause,
                    samples: weighed.samples,
                    estimate: weighed.estimate(),
                })
                .collect(),
            stacks: known.tally.stacks(),
            sites: known.tally.sites(),
            tables_bytes: heap::table_bytes() + known.tally.bytes(),
            folded: known.tally.folded,
            kept: self.kept.rows(),
        }
    }

    fn routes(&self, known: &Known, live: &LiveSums) -> Vec<RouteHeap> {
        let mut routes: HashMap<Option<Arc<str>>, RouteHeap> = HashMap::new();
        let mut of = |set: LabelSet, add: &dyn Fn(&mut RouteHeap)| {
            let route = set.value(ROUTE);
            let held = routes.entry(route.clone()).or_insert_with(|| RouteHeap {
                route,
                ..RouteHeap::default()
            });
            add(held);
        };
        for (set, weighed) in &known.tally.by_set {
            let pace = self.pace.of(*set);
            of(*set, &|held| {
                held.allocated.add(weighed.estimate());
                if let Some(pace) = pace {
                    let sum = held.allocated_per_second.get_or_insert_default();
                    sum.add(pace);
                }
            });
        }
        for (set, weighed) in live.by_set() {
            of(set, &|held| held.live.add(weighed.estimate()));
        }
        let mut routes: Vec<RouteHeap> = routes.into_values().collect();
        routes.sort_by(|a, b| {
            let bytes = b.allocated.bytes.total_cmp(&a.allocated.bytes);
            bytes.then_with(|| a.route.cmp(&b.route))
        });
        routes
    }

    /// Turns away whoever waits; with the last agent sampling ends.
    pub(crate) fn stop(&mut self) {
        let why = Unavailable("the agent is stopping".to_owned());
        self.store.heap.wishes.close(Err(why.into()));
        self.answers.finish();
    }
}

impl Drop for HeapCollector {
    fn drop(&mut self) {
        let mut known = lock(&KNOWN);
        known.agents = known.agents.saturating_sub(1);
        if known.agents == 0 {
            heap::set_rate(0);
        }
    }
}

fn no_such(moment: HeapMoment, kept: usize) -> String {
    match moment {
        HeapMoment::Kept(kept_for) => format!(
            "no heap was kept for its {} yet; /debug/heap/stats lists those that were",
            kept_for.word()
        ),
        HeapMoment::Number(_) | HeapMoment::Now => {
            format!("{kept} heaps are kept; /debug/heap/stats lists them")
        }
    }
}

/// The share of its memory limit that the process uses, or its cgroup, whichever is more.
fn used_ratio(store: &Store) -> Option<f64> {
    let metrics = store.metrics.snapshot();
    let own = metrics.float(&families::PROCESS_MEMORY_UTILIZATION);
    let limit = metrics.float(&families::CONTAINER_MEMORY_LIMIT);
    let used = metrics.float(&families::CONTAINER_MEMORY_WORKING_SET);
    let group = used.zip(limit).map(|(used, limit)| used / limit);
    own.into_iter().chain(group).reduce(f64::max)
}

/// How fast is allocated, over the last seconds.
#[derive(Debug)]
struct Pace {
    since: Instant,
    before: HashMap<LabelSet, Estimate>,
    /// Per second; empty until the first span is over.
    now: Option<HashMap<LabelSet, Estimate>>,
}

impl Pace {
    fn new(now: Instant) -> Self {
        let sets = lock(&KNOWN).tally.by_set.clone();
        Self {
            since: now,
            before: sets
                .iter()
                .map(|(set, sum)| (*set, sum.estimate()))
                .collect(),
            now: None,
        }
    }

    fn step(&mut self, now: Instant, tally: &Tally) {
        let seconds = now.duration_since(self.since);
        if seconds < limits::RATE_SPAN {
            return;
        }
        let seconds = seconds.as_secs_f64();
        let mut paces = HashMap::new();
        for (set, sum) in &tally.by_set {
            let before = self.before.get(set).copied().unwrap_or_default();
            let pace = Estimate {
                objects: (sum.objects - before.objects) / seconds,
                bytes: (sum.bytes - before.bytes) / seconds,
            };
            paces.insert(*set, pace);
            self.before.insert(*set, sum.estimate());
        }
        self.since = now;
        self.now = Some(paces);
    }

    fn of(&self, set: LabelSet) -> Option<Estimate> {
        let now = self.now.as_ref()?;
        Some(now.get(&set).copied().unwrap_or_default())
    }

    fn all(&self) -> Option<Estimate> {
        let mut sum = Estimate::default();
        for pace in self.now.as_ref()?.values() {
            sum.add(*pace);
        }
        Some(sum)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn samples_wait_until_a_quarter_of_the_ring_or_the_next_look() {
        let rows = [
            (0, SECOND, 1000),
            (0, Duration::ZERO, 1000),
            (10, SECOND, 1000),
            (128, SECOND, 500),
            (500, SECOND, 128),
            (64, 128 * SECOND / 1000, 128),
            (100_000, SECOND, 100),
        ];
        for (drained, within, millis) in rows {
            let wait = until_quarter_full(drained, within);
            assert_eq!(
                wait,
                Duration::from_millis(millis),
                "{drained} in {within:?}"
            );
        }
    }

    #[test]
    fn a_wish_and_its_end_are_news_to_the_thread_that_drains() {
        // It sets the rate of the process.
        let _turn = heap::tests::turn(0);
        let store = Arc::new(Store::new(100));
        let _collector = HeapCollector::new(Arc::clone(&store), &Config::new("shop")).unwrap();
        let later = Instant::now() + 60 * SECOND;
        let before = heap::news();
        let wish = store.heap.wishes.ask(HeapWish::Stats, later).unwrap();
        let asked = heap::news();
        assert_ne!(before, asked);
        drop(wish);
        assert_ne!(asked, heap::news());
    }
}
