//! One record for each sampled thread: its timer, and where its stack lies.
//!
//! A fixed table, so that the handler can find a record by number and by thread id without a lock.
//! Numbers come back with a generation, as a signal may arrive after its thread's record was reused,
//! and as any process of the same user can forge one.

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU32, AtomicU64, AtomicUsize, Ordering};

use super::bits::Bits;

/// Threads sampled at once; further ones are left out and counted.
pub(crate) const RECORDS: usize = 4096;

const FREE: u32 = 0;
const CLAIMED: u32 = 1;
const ARMED: u32 = 2;

/// A thread's name as the kernel has it: at most 15 bytes, then zeros.
pub(crate) type ThreadName = [u8; 16];

/// The names of the agent's own threads: left out of profiles, their cost has metrics of its own.
const AGENTS: [&[u8]; 14] = [
    b"sg-collect",
    b"sg-deliver",
    b"sg-heap",
    b"sg-otlp",
    b"sg-otlp-dns",
    b"sg-otlp-prof",
    b"sg-profile",
    b"sg-pyroscope",
    b"sg-serve",
    b"sg-symbols",
    b"sg-traces",
    b"sg-watch",
    b"sg-stop",
    b"sg-wall",
];

/// The bytes of a name before its first zero.
pub(crate) fn trimmed(name: &ThreadName) -> &[u8] {
    name.split(|byte| *byte == 0).next().unwrap_or_default()
}

pub(crate) fn is_agents_own(name: &ThreadName) -> bool {
    AGENTS.contains(&trimmed(name))
}

#[derive(Debug, Default)]
pub(crate) struct Record {
    state: AtomicU32,
    /// Raised whenever the record changes hands.
    generation: AtomicU32,
    tid: AtomicU32,
    /// The kernel's timer number, -1 while there is none.
    timer: AtomicI32,
    /// The thread pointer, which lies inside the thread's stack mapping; 0 until the first sample.
    pub(crate) thread_pointer: AtomicUsize,
    /// The bounds within which the stack may be read; 0 until they are known.
    pub(crate) low: AtomicUsize,
    pub(crate) high: AtomicUsize,
    /// The thread's start in clock ticks since boot: with the id it names a thread for good. 0 while
    /// only the thread itself has met it.
    pub(crate) started: AtomicU64,
    /// CPU time that the next sample stands for beside its own: see `Sampler::arm`.
    pub(super) late_nanos: AtomicU64,
    /// The thread's CPU time at which the timer expires first since it was set.
    pub(super) first_nanos: AtomicU64,
    /// Samples that its signals stood for since then.
    pub(super) signalled: AtomicU64,
    /// Sampled since the watcher last looked.
    pub(crate) seen: AtomicBool,
    name: [AtomicU64; 2],
    /// CPU time of an exempt thread when the watcher last looked.
    pub(crate) cpu_nanos: AtomicU64,
}

impl Record {
    pub(crate) fn tid(&self) -> u32 {
        self.tid.load(Ordering::Relaxed)
    }

    pub(crate) fn timer(&self) -> Option<i32> {
        Some(self.timer.load(Ordering::Acquire)).filter(|timer| *timer >= 0)
    }

    pub(crate) fn generation(&self) -> u32 {
        self.generation.load(Ordering::Acquire)
    }

    pub(crate) fn is_armed(&self) -> bool {
        self.state.load(Ordering::Acquire) == ARMED
    }

    /// The record now has this timer.
    pub(crate) fn arm(&self, timer: i32) {
        self.timer.store(timer, Ordering::Release);
        self.state.store(ARMED, Ordering::Release);
    }

    /// A sample taken in the middle of a change may see half of each name.
    pub(crate) fn set_name(&self, name: ThreadName) {
        let words = u128::from_le_bytes(name);
        for (word, place) in [(words, 0), (words >> 64, 1)] {
            if let Some(half) = self.name.get(place) {
                half.store(low_half(word), Ordering::Relaxed);
            }
        }
    }

    pub(crate) fn name(&self) -> ThreadName {
        let [low, high] = &self.name;
        let half = |half: &AtomicU64| u128::from(half.load(Ordering::Relaxed));
        (half(low) | half(high) << 64).to_le_bytes()
    }
}

fn low_half(word: u128) -> u64 {
    let [a, b, c, d, e, f, g, h, ..] = word.to_le_bytes();
    u64::from_le_bytes([a, b, c, d, e, f, g, h])
}

/// All records, found by number or by thread id.
///
/// What is looked for lies side by side, apart from the records: few of them are in use, and a look
/// at each would read half a megabyte.
pub(crate) struct Records {
    all: Box<[Record]>,
    /// The thread of each record; 0 while it has none.
    tids: Box<[AtomicU32]>,
    held: Bits,
    exempt: Bits,
}

impl fmt::Debug for Records {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Records").finish_non_exhaustive()
    }
}

impl Records {
    pub(crate) fn new() -> Self {
        let make = || Record {
            timer: AtomicI32::new(-1),
            ..Record::default()
        };
        Self {
            all: std::iter::repeat_with(make).take(RECORDS).collect(),
            tids: std::iter::repeat_with(AtomicU32::default)
                .take(RECORDS)
                .collect(),
            held: Bits::none(RECORDS),
            exempt: Bits::none(RECORDS),
        }
    }

    /// The record of this number if the generation still is its own.
    pub(crate) fn get(&self, number: u32, generation: u32) -> Option<&Record> {
        let record = self.all.get(usize::try_from(number).ok()?)?;
        (record.generation() == generation && record.is_armed()).then_some(record)
    }

    /// The armed records.
    pub(crate) fn armed(&self) -> impl Iterator<Item = &Record> {
        self.held().filter(|record| record.is_armed())
    }

    /// The records that belong to a thread, sampled or left out.
    pub(crate) fn held(&self) -> impl Iterator<Item = &Record> {
        self.held.iter().filter_map(|number| self.all.get(number))
    }

    pub(crate) fn held_count(&self) -> usize {
        self.held.count()
    }

    /// The records of threads that are left out: claimed and never armed.
    pub(crate) fn exempt(&self) -> impl Iterator<Item = &Record> {
        self.exempt.iter().filter_map(|number| self.all.get(number))
    }

    /// The thread of this record is not to be sampled: no timer, and the process's timer passes it by.
    pub(crate) fn leave_out(&self, number: u32) {
        self.exempt
            .insert(usize::try_from(number).unwrap_or(usize::MAX));
    }

    /// The places that a thread id may have, always in the same order.
    fn places(tid: u32) -> impl Iterator<Item = usize> {
        let start = usize::try_from(tid).unwrap_or(0).wrapping_mul(0x9e37_79b1);
        (0..PROBES).map(move |step| start.wrapping_add(step) % RECORDS)
    }

    /// The first of a thread id's places that belongs to the thread `holder`.
    fn find(&self, tid: u32, holder: u32) -> Option<(usize, &Record)> {
        let held_by = |place: &usize| {
            let held = self.tids.get(*place);
            held.is_some_and(|held| held.load(Ordering::Acquire) == holder)
        };
        let place = Self::places(tid).find(held_by)?;
        Some((place, self.all.get(place)?))
    }

    /// Takes a record for a thread that has none; `None` if it has one or all its places are taken.
    /// A thread may claim for itself while the watcher does so for it, and then
    /// at most one of them succeeds.
    pub(crate) fn claim(&self, tid: u32) -> Option<(u32, &Record)> {
        let order = Ordering::SeqCst;
        let free = |place: &usize| match self.tids.get(*place) {
            Some(holder) => match holder.compare_exchange(0, tid, order, order) {
                Ok(_) => Some(true),
                Err(held) => (held == tid).then_some(false),
            },
            None => None,
        };
        let taken = Self::places(tid).find_map(|place| Some((place, free(&place)?)));
        let (place, _) = taken.filter(|(_, is_mine)| *is_mine)?;
        let holder = self.tids.get(place)?;
        let is_held = |place: usize| self.tids.get(place).is_some_and(|it| it.load(order) == tid);
        if Self::places(tid).any(|other| other != place && is_held(other)) {
            // The other one found another place, as one was given back in between.
            holder.store(0, order);
            return None;
        }
        let record = self.all.get(place)?;
        record.generation.fetch_add(1, Ordering::AcqRel);
        record.tid.store(tid, Ordering::Relaxed);
        record.timer.store(-1, Ordering::Relaxed);
        for word in [&record.thread_pointer, &record.low, &record.high] {
            word.store(0, Ordering::Relaxed);
        }
        record.started.store(0, Ordering::Relaxed);
        for word in [
            &record.late_nanos,
            &record.first_nanos,
            &record.signalled,
            &record.cpu_nanos,
        ] {
            word.store(0, Ordering::Relaxed);
        }
        record.seen.store(false, Ordering::Relaxed);
        record.state.store(CLAIMED, Ordering::Release);
        self.held.insert(place);
        Some((u32::try_from(place).ok()?, record))
    }

    /// The thread's record, if it has one. Safe in the handler: no lock, no allocation.
    pub(crate) fn of(&self, tid: u32) -> Option<(u32, &Record)> {
        let (place, record) = self.find(tid, tid)?;
        Some((u32::try_from(place).ok()?, record))
    }

    /// Gives a record back; its generation is over.
    pub(crate) fn release(&self, record: &Record) {
        let tid = record.tid();
        let Some((place, _)) = self.find(tid, tid).filter(|_| tid != 0) else {
            return;
        };
        record.generation.fetch_add(1, Ordering::AcqRel);
        record.tid.store(0, Ordering::Relaxed);
        record.state.store(FREE, Ordering::Release);
        self.exempt.remove(place);
        self.held.remove(place);
        if let Some(holder) = self.tids.get(place) {
            holder.store(0, Ordering::Release);
        }
    }
}

/// Places that one thread id may use.
const PROBES: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Barrier;

    #[test]
    fn of_two_who_claim_for_one_thread_at_most_one_succeeds() {
        let records = Records::new();
        // All of them want the same few places, which others give back all the time.
        let tid = |round: u32| 1 + round * u32::try_from(RECORDS).unwrap();
        let (go, done) = (Barrier::new(2), Barrier::new(2));
        let claims = |round| records.claim(tid(round)).map(|(number, _)| number);
        let neighbour = |round: u32| {
            let held = records.claim(tid(round + 5000));
            move |records: &Records| held.into_iter().for_each(|(_, it)| records.release(it))
        };
        std::thread::scope(|scope| {
            let other = scope.spawn(|| {
                let rounds = (0..5000).map(|round| {
                    go.wait();
                    let taken = claims(round);
                    done.wait();
                    taken
                });
                rounds.collect::<Vec<_>>()
            });
            let mut mine = Vec::new();
            for round in 0..5000 {
                let release = neighbour(round);
                go.wait();
                release(&records);
                mine.push(claims(round));
                done.wait();
                assert!(records.held_count() <= 1 + mine.len());
            }
            for (round, both) in mine.into_iter().zip(other.join().unwrap()).enumerate() {
                assert!(both.0.is_none() || both.1.is_none(), "{round}: {both:?}");
            }
        });
    }

    #[test]
    fn a_thread_has_one_record_and_a_reused_record_has_a_new_generation() {
        let records = Records::new();
        assert!(records.of(7).is_none());
        let (number, record) = records.claim(7).unwrap();
        assert_eq!(records.of(7).unwrap().0, number);
        let generation = record.generation();
        assert!(records.get(number, generation).is_none(), "not armed yet");
        record.arm(3);
        assert!(records.get(number, generation).is_some());
        assert!(records.get(number, generation + 1).is_none());
        assert!(records.get(u32::MAX, generation).is_none());
        records.release(record);
        assert!(records.get(number, generation).is_none() && records.of(7).is_none());
        let (again, record) = records.claim(7).unwrap();
        record.arm(3);
        assert_eq!(again, number);
        assert!(records.get(number, generation).is_none());
    }

    #[test]
    fn a_crowded_neighbourhood_is_full_and_nothing_is_overwritten() {
        let records = Records::new();
        let mut held = Vec::new();
        for tid in 1..20_000 {
            if let Some((number, record)) = records.claim(tid) {
                record.arm(0);
                held.push((number, tid));
            }
        }
        assert!(held.len() > RECORDS * 9 / 10);
        assert_eq!(records.held().count(), held.len());
        for (number, tid) in held {
            assert_eq!(records.of(tid).unwrap().0, number);
        }
    }

    #[test]
    fn a_name_comes_back_and_the_agents_own_threads_are_known() {
        let record = Record::default();
        let name = *b"sg-profile\0\0\0\0\0\0";
        record.set_name(name);
        assert_eq!(record.name(), name);
        assert!(is_agents_own(&name));
        assert!(!is_agents_own(b"sg-profiler\0\0\0\0\0"));
        assert_eq!(trimmed(b"0123456789abcdef"), b"0123456789abcdef");
    }

    #[test]
    fn a_thread_that_is_left_out_is_held_and_leaves_no_trace() {
        let records = Records::new();
        let (number, record) = records.claim(7).unwrap();
        records.leave_out(number);
        let ids = |records: Vec<&Record>| records.iter().map(|record| record.tid()).collect();
        let (held, exempt): (Vec<u32>, Vec<u32>) = (
            ids(records.held().collect()),
            ids(records.exempt().collect()),
        );
        assert_eq!((held, exempt), (vec![7], vec![7]));
        assert_eq!(records.armed().count(), 0);
        records.release(record);
        assert_eq!(records.held().count() + records.exempt().count(), 0);
        let (_, record) = records.claim(7).unwrap();
        record.arm(3);
        assert_eq!((records.armed().count(), records.exempt().count()), (1, 0));
    }
}
