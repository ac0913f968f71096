//! The flight recorder: samples in buckets of about a second, merged for whoever asks for a span.
//!
//! Each bucket has one period, because a change of rate cuts it; so sums of nanoseconds are exact
//! over any span. Many readers read the same buckets.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::Detail;
use super::label::{LabelSet, Mark, Trace};
use super::metrics::{halves, whole, whole_nanos};
use super::profile::{Slice, push_time, to_usize};
use super::recorder::HeldSpan;
use super::stacks::{self, Interned, Limits, OVERFLOWED};

mod unseen;

/// How much the recorder may hold.
#[derive(Debug, Clone, Copy)]
pub(crate) struct WindowLimits {
    pub(crate) age: Duration,
    /// Bytes of buckets.
    pub(crate) bytes: usize,
    pub(crate) stacks: Limits,
    pub(crate) threads: Limits,
    pub(crate) traces: Limits,
}

/// Samples, newest bucket last.
#[derive(Debug)]
pub(crate) struct Windows {
    stacks: Interned<[u64]>,
    threads: Interned<str>,
    /// Trace ids as words; the empty one stands for work that is not traced.
    traces: Interned<[u64]>,
    open: Open,
    buckets: VecDeque<Bucket>,
    bytes: usize,
    limits: WindowLimits,
    dropped: Dropped,
    /// A bucket has gone since stacks were last compacted, so that doing it again may free some.
    stale: bool,
}

/// What found no place, since start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Dropped {
    /// Buckets that had to leave before their time.
    pub(crate) buckets: u64,
    /// Samples whose stack, thread or trace was folded into `[overflow]`.
    pub(crate) folded: u64,
}

/// The bucket that is being filled.
#[derive(Debug, Default)]
struct Open {
    weights: HashMap<Key, u32>,
    lost: BTreeMap<&'static str, u64>,
    truncated: u64,
    unseen: u64,
}

/// When a bucket was filled and what its samples mean.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Span {
    pub(crate) start: Instant,
    pub(crate) end: Instant,
    pub(crate) start_unix_nanos: u64,
    /// CPU time that one sample stands for.
    pub(crate) period: Duration,
    /// CPU time that the process used; `None`: not known.
    pub(crate) cpu: Option<Duration>,
    /// The rate was lower than wished for, because sampling cost too much.
    pub(crate) slowed: bool,
}

impl Span {
    fn duration(&self) -> Duration {
        self.end.saturating_duration_since(self.start)
    }

    fn end_unix_nanos(&self) -> u64 {
        let length = whole_nanos(self.duration());
        self.start_unix_nanos.saturating_add(length)
    }
}

#[derive(Debug)]
struct Bucket {
    span: Span,
    entries: Box<[Entry]>,
    lost: BTreeMap<&'static str, u64>,
    truncated: u64,
    unseen: u64,
}

#[derive(Debug, Clone, Copy)]
struct Entry {
    key: Key,
    weight: u32,
}

/// What tells samples apart, as numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Key {
    stack: u32,
    thread: u32,
    set: LabelSet,
    trace: u32,
}

impl Key {
    fn is_overflow(&self) -> bool {
        [self.stack, self.thread, self.trace].contains(&OVERFLOWED)
    }
}

/// Bytes of a bucket beside its entries.
const BUCKET_BYTES: usize = 256;
/// Bytes of an entry while its bucket is open: key, weight and a place in the table.
const OPEN_ENTRY_BYTES: usize = 24;

impl Bucket {
    fn bytes(&self) -> usize {
        BUCKET_BYTES + size_of_val::<[Entry]>(&self.entries)
    }
}

/// The buckets of a span, added up.
#[derive(Debug, Clone)]
pub(crate) struct Window {
    pub(crate) start_unix_nanos: u64,
    pub(crate) duration: Duration,
    /// The smallest and the largest; they differ if the rate changed within the span.
    pub(crate) periods: (Duration, Duration),
    pub(crate) stacks: Vec<WindowStack>,
    /// Its buckets, if it is told when samples were taken.
    pub(crate) slices: Vec<Slice>,
    /// CPU time that the process used; `None` if it is not known for a bucket.
    pub(crate) cpu: Option<Duration>,
    /// Samples that this CPU time should have given.
    pub(crate) expected: Option<u64>,
    pub(crate) lost: BTreeMap<&'static str, u64>,
    pub(crate) truncated: u64,
    /// Samples that were due although nobody saw their stack.
    pub(crate) unseen: u64,
    /// How long the rate was lower than wished for.
    pub(crate) slowed: Duration,
}

/// One distinct stack of one thread under one mark.
#[derive(Debug, Clone)]
pub(crate) struct WindowStack {
    /// Leaf first.
    pub(crate) addresses: Arc<[u64]>,
    pub(crate) thread: Arc<str>,
    pub(crate) mark: Mark,
    pub(crate) samples: u64,
    pub(crate) nanos: u64,
    /// Nanoseconds by the place of their slice, in order.
    pub(crate) times: Vec<(u32, u64)>,
}

/// What a window adds up for one key.
#[derive(Debug, Default)]
struct Sum {
    samples: u64,
    nanos: u64,
    times: Vec<(u32, u64)>,
}

impl Windows {
    pub(crate) fn new(limits: WindowLimits) -> Self {
        Self {
            stacks: stacks::stacks(limits.stacks),
            threads: stacks::names(limits.threads),
            traces: stacks::stacks(limits.traces),
            open: Open::default(),
            buckets: VecDeque::new(),
            bytes: 0,
            limits,
            dropped: Dropped::default(),
            stale: false,
        }
    }

    /// Adds samples of a stack (leaf first) to the open bucket.
    pub(crate) fn add(&mut self, stack: &[u64], thread: &str, mark: Mark, weight: u32) {
        let mut key = self.key(stack, thread, mark);
        if key.is_overflow() && self.stale {
            self.compact();
            key = self.key(stack, thread, mark);
        }
        let full = self.open.weights.len() * OPEN_ENTRY_BYTES >= self.limits.bytes;
        if full && !self.open.weights.contains_key(&key) {
            key = Key {
                stack: OVERFLOWED,
                thread: OVERFLOWED,
                set: LabelSet::NONE,
                trace: OVERFLOWED,
            };
        }
        if key.is_overflow() {
            self.dropped.folded += u64::from(weight);
        }
        let sum = self.open.weights.entry(key).or_default();
        *sum = sum.saturating_add(weight);
    }

    fn key(&mut self, stack: &[u64], thread: &str, mark: Mark) -> Key {
        let words = trace_words(mark.trace);
        let is_traced = mark.trace != Trace::default();
        let words = if is_traced { &words[..] } else { &[] };
        Key {
            stack: self.stacks.intern(stack),
            thread: self.threads.intern(thread),
            set: mark.set,
            trace: self.traces.intern(words),
        }
    }

    /// Notes samples that were due but not recorded.
    pub(crate) fn lose(&mut self, reason: &'static str, samples: u64) {
        if samples > 0 {
            *self.open.lost.entry(reason).or_default() += samples;
        }
    }

    /// Notes samples whose stack was deeper than is kept.
    pub(crate) fn truncate(&mut self, samples: u64) {
        self.open.truncated += samples;
    }

    /// Closes the open bucket; what is added from now on belongs to the next.
    pub(crate) fn cut(&mut self, span: Span) {
        let open = std::mem::take(&mut self.open);
        let entries = open.weights.into_iter();
        let entries = entries.map(|(key, weight)| Entry { key, weight });
        let bucket = Bucket {
            span,
            entries: entries.collect(),
            lost: open.lost,
            truncated: open.truncated,
            unseen: open.unseen,
        };
        self.bytes += bucket.bytes();
        self.buckets.push_back(bucket);
        while let Some(oldest) = self.buckets.front() {
            let aged = span.end.saturating_duration_since(oldest.span.end) > self.limits.age;
            let crowded = self.bytes > self.limits.bytes;
            if !(aged || crowded) {
                break;
            }
            self.dropped.buckets += u64::from(!aged);
            self.bytes -= oldest.bytes();
            self.buckets.pop_front();
            self.stale = true;
        }
    }

    /// Adds up the buckets whose middle lies in a span, or the one around the span's own middle if it
    /// is shorter than a bucket; `None` if there are none.
    pub(crate) fn merge(&self, from: Instant, to: Instant, detail: Detail) -> Option<Window> {
        let middle = from + to.saturating_duration_since(from) / 2;
        let inside = |span: &Span| (from..to).contains(&(span.start + span.duration() / 2));
        self.sum(detail, inside)
            .or_else(|| self.sum(detail, |span| (span.start..span.end).contains(&middle)))
    }

    /// The same between two moments of wall time, in nanoseconds since 1970.
    pub(crate) fn merge_unix(&self, from: u64, to: u64, detail: Detail) -> Option<Window> {
        let halfway = |from: u64, to: u64| from + to.saturating_sub(from) / 2;
        let edges = |span: &Span| (span.start_unix_nanos, span.end_unix_nanos());
        let inside = |span: &Span| {
            let (start, end) = edges(span);
            (from..to).contains(&halfway(start, end))
        };
        self.sum(detail, inside).or_else(|| {
            self.sum(detail, |span| {
                let (start, end) = edges(span);
                (start..end).contains(&halfway(from, to))
            })
        })
    }

    /// From the first bucket to the last; `None` while there is none.
    pub(crate) fn held(&self) -> Option<HeldSpan> {
        let (first, last) = (self.buckets.front()?, self.buckets.back()?);
        Some(HeldSpan {
            from: first.span.start_unix_nanos,
            to: last.span.end_unix_nanos(),
        })
    }

    /// Closed buckets.
    pub(crate) fn len(&self) -> usize {
        self.buckets.len()
    }

    fn sum(&self, detail: Detail, chosen: impl Fn(&Span) -> bool) -> Option<Window> {
        let buckets = self.buckets.iter();
        let buckets = buckets.filter(|bucket| chosen(&bucket.span));
        let first = buckets.clone().next()?.span;
        let mut window = Window {
            start_unix_nanos: first.start_unix_nanos,
            duration: Duration::ZERO,
            periods: (first.period, first.period),
            stacks: Vec::new(),
            slices: Vec::new(),
            cpu: Some(Duration::ZERO),
            expected: None,
            lost: BTreeMap::new(),
            truncated: 0,
            unseen: 0,
            slowed: Duration::ZERO,
        };
        let mut sums: HashMap<Key, Sum> = HashMap::new();
        let untraced = |key: Key| {
            if detail.traces {
                key
            } else {
                Key { trace: 0, ..key }
            }
        };
        let mut cpu_by_period: BTreeMap<u64, Duration> = BTreeMap::new();
        for (slice, bucket) in (0..).zip(buckets) {
            let span = bucket.span;
            if detail.times {
                let since = |at: Instant| at.saturating_duration_since(first.start);
                window.slices.push(Slice {
                    from: since(span.start),
                    to: since(span.end),
                    period: span.period,
                });
            }
            let period = whole_nanos(span.period);
            let (smallest, largest) = window.periods;
            window.periods = (smallest.min(span.period), largest.max(span.period));
            window.duration += span.duration();
            if span.slowed {
                window.slowed += span.duration();
            }
            window.cpu = window.cpu.zip(span.cpu).map(|(sum, cpu)| sum + cpu);
            *cpu_by_period.entry(period).or_default() += span.cpu.unwrap_or_default();
            for (reason, samples) in &bucket.lost {
                *window.lost.entry(reason).or_default() += samples;
            }
            window.truncated += bucket.truncated;
            window.unseen += bucket.unseen;
            for entry in &bucket.entries {
                let weight = u64::from(entry.weight);
                let sum = sums.entry(untraced(entry.key)).or_default();
                let nanos = weight.saturating_mul(period);
                sum.samples += weight;
                sum.nanos = sum.nanos.saturating_add(nanos);
                if detail.times {
                    push_time(&mut sum.times, slice, nanos);
                }
            }
        }
        let expected = cpu_by_period.iter();
        let expected = expected.map(|(period, cpu)| whole_nanos(*cpu) / (*period).max(1));
        window.expected = window.cpu.map(|_| expected.sum());
        let stacks = sums.into_iter();
        let stacks = stacks.map(|(key, sum)| WindowStack {
            addresses: Arc::clone(self.stacks.get(key.stack)),
            thread: Arc::clone(self.threads.get(key.thread)),
            mark: Mark {
                set: key.set,
                trace: trace_of(self.traces.get(key.trace)),
            },
            samples: sum.samples,
            nanos: sum.nanos,
            times: sum.times,
        });
        window.stacks = stacks.collect();
        Some(window)
    }

    /// What found no place, since start.
    pub(crate) fn dropped(&self) -> Dropped {
        self.dropped
    }

    /// Bytes held in buckets and interned stacks.
    pub(crate) fn bytes(&self) -> usize {
        let open = self.open.weights.len() * OPEN_ENTRY_BYTES;
        let interned = self.stacks.bytes() + self.threads.bytes() + self.traces.bytes();
        self.bytes + open + interned
    }

    /// Makes room by dropping stacks, threads and traces that only departed buckets used.
    fn compact(&mut self) {
        let mut stacks = vec![false; self.stacks.len() + 1];
        let mut threads = vec![false; self.threads.len() + 1];
        let mut traces = vec![false; self.traces.len() + 1];
        let closed = self.buckets.iter().flat_map(|bucket| &bucket.entries);
        let closed = closed.map(|entry| entry.key);
        for key in closed.chain(self.open.weights.keys().copied()) {
            for (used, id) in [
                (&mut stacks, key.stack),
                (&mut threads, key.thread),
                (&mut traces, key.trace),
            ] {
                if let Some(used) = used.get_mut(to_usize(id)) {
                    *used = true;
                }
            }
        }
        let is = |used: &[bool], id: u32| used.get(to_usize(id)).copied().unwrap_or(false);
        let stacks = self.stacks.compact(|id| is(&stacks, id));
        let threads = self.threads.compact(|id| is(&threads, id));
        let traces = self.traces.compact(|id| is(&traces, id));
        let at = |map: &HashMap<u32, u32>, id| map.get(&id).copied().unwrap_or(OVERFLOWED);
        let moved = |key: Key| Key {
            stack: at(&stacks, key.stack),
            thread: at(&threads, key.thread),
            trace: at(&traces, key.trace),
            ..key
        };
        for bucket in &mut self.buckets {
            for entry in &mut bucket.entries {
                entry.key = moved(entry.key);
            }
        }
        let open = std::mem::take(&mut self.open.weights);
        let open = open.into_iter().map(|(key, weight)| (moved(key), weight));
        self.open.weights = open.collect();
        self.stale = false;
    }
}

/// Trace ids as they are interned.
fn trace_words(trace: Trace) -> [u64; 3] {
    let [high, low] = halves(trace.trace_id);
    [high, low, trace.span_id]
}

fn trace_of(words: &[u64]) -> Trace {
    match *words {
        [high, low, span_id] => Trace {
            trace_id: whole([high, low]),
            span_id,
        },
        _ => Trace::default(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    pub(super) const MANY: Limits = Limits {
        count: 1000,
        bytes: 1 << 20,
    };

    pub(super) fn windows(bytes: usize, stacks: Limits) -> Windows {
        Windows::new(WindowLimits {
            age: Duration::from_secs(10),
            bytes,
            stacks,
            threads: MANY,
            traces: MANY,
        })
    }

    /// Buckets of a second, counted from one start.
    pub(super) struct Seconds(pub(super) Instant);

    impl Seconds {
        pub(super) fn at(&self, second: u64) -> Instant {
            self.0 + Duration::from_secs(second)
        }

        pub(super) fn span(&self, second: u64, hertz: u64) -> Span {
            Span {
                start: self.at(second),
                end: self.at(second + 1),
                start_unix_nanos: second * 1_000_000_000,
                period: Duration::from_nanos(1_000_000_000 / hertz),
                cpu: Some(Duration::from_millis(500)),
                slowed: false,
            }
        }
    }

    #[test]
    fn a_span_adds_up_its_buckets_and_no_others() {
        let time = Seconds(Instant::now());
        let mut windows = windows(1 << 20, MANY);
        for second in 0..4 {
            windows.add(&[7, 8], "main", Mark::NONE, 10);
            windows.add(&[7], "main", Mark::NONE, 1);
            windows.lose("full", 2);
            windows.cut(time.span(second, 100));
        }
        let window = windows
            .merge(time.at(1), time.at(3), Detail::default())
            .unwrap();
        let mut sums: Vec<(usize, u64, u64)> = window
            .stacks
            .iter()
            .map(|held| (held.addresses.len(), held.samples, held.nanos))
            .collect();
        sums.sort_unstable();
        assert_eq!(sums, [(1, 2, 20_000_000), (2, 20, 200_000_000)]);
        assert_eq!(window.start_unix_nanos, 1_000_000_000);
        assert_eq!(window.duration, Duration::from_secs(2));
        assert_eq!(window.expected, Some(100));
        assert_eq!(window.lost, BTreeMap::from([("full", 4)]));
        assert!(
            windows
                .merge(time.at(4), time.at(9), Detail::default())
                .is_none()
        );
    }

    #[test]
    fn a_span_takes_the_buckets_nearest_to_its_edges_by_either_clock() {
        let time = Seconds(Instant::now());
        let mut windows = windows(1 << 20, MANY);
        for second in 0..10 {
            windows.add(&[7], "main", Mark::NONE, 1 << second);
            windows.cut(time.span(second, 100));
        }
        let millis = |from: u64, to: u64| {
            let at = |millis| time.0 + Duration::from_millis(millis);
            let by_instant = windows.merge(at(from), at(to), Detail::default());
            let by_wall = windows.merge_unix(from * 1_000_000, to * 1_000_000, Detail::default());
            let sum = |window: Window| window.stacks.iter().map(|held| held.samples).sum::<u64>();
            let sums = (by_instant.map(sum), by_wall.map(sum));
            assert_eq!(sums.0, sums.1);
            sums.0
        };
        assert_eq!(millis(2400, 5600), Some(0b11_1100));
        assert_eq!(millis(2600, 5400), Some(0b01_1000));
        assert_eq!(millis(3100, 3200), Some(0b00_1000), "never an empty one");
        assert_eq!(millis(8000, 60_000), Some(0b11_0000_0000));
        assert_eq!(millis(10_000, 60_000), None);
        let held = windows.held().unwrap();
        assert_eq!((held.from, held.to), (0, 10_000_000_000));
    }

    #[test]
    fn a_timed_span_says_in_which_bucket_each_nanosecond_fell() {
        let time = Seconds(Instant::now());
        let mut windows = windows(1 << 20, MANY);
        let traced = Mark {
            trace: Trace {
                trace_id: 1,
                span_id: 2,
            },
            ..Mark::NONE
        };
        for (second, weight, hertz) in [(0, 3, 100), (1, 0, 100), (4, 5, 50)] {
            if weight > 0 {
                windows.add(&[7], "main", Mark::NONE, weight);
                windows.add(&[7], "main", traced, 1);
            }
            windows.cut(time.span(second, hertz));
        }
        let detail = Detail {
            times: true,
            ..Detail::default()
        };
        let window = windows.merge(time.at(0), time.at(9), detail).unwrap();
        let held = &window.stacks[0];
        assert_eq!(held.times, [(0, 40_000_000), (2, 120_000_000)]);
        assert_eq!(held.nanos, 160_000_000);
        let slices: Vec<(u64, u64)> = window
            .slices
            .iter()
            .map(|slice| (slice.from.as_secs(), slice.to.as_secs()))
            .collect();
        assert_eq!(slices, [(0, 1), (1, 2), (4, 5)]);
        let plain = windows.merge(time.at(0), time.at(9), Detail::default());
        let plain = plain.unwrap();
        assert!(plain.slices.is_empty() && plain.stacks[0].times.is_empty());
    }

    #[test]
    fn nanoseconds_stay_exact_across_a_change_of_rate() {
        let time = Seconds(Instant::now());
        let mut windows = windows(1 << 20, MANY);
        windows.add(&[7], "main", Mark::NONE, 50);
        windows.cut(time.span(0, 100));
        windows.add(&[7], "main", Mark::NONE, 125);
        windows.cut(time.span(1, 250));
        let window = windows
            .merge(time.at(0), time.at(2), Detail::default())
            .unwrap();
        let held = &window.stacks[0];
        assert_eq!((held.samples, held.nanos), (175, 1_000_000_000));
        let (smallest, largest) = window.periods;
        assert_eq!((smallest.as_millis(), largest.as_millis()), (4, 10));
        assert_eq!(window.expected, Some(50 + 125));
    }

    #[test]
    fn old_buckets_leave_quietly_and_crowded_out_ones_are_counted() {
        let time = Seconds(Instant::now());
        let mut aged = windows(1 << 20, MANY);
        for second in 0..30 {
            aged.add(&[7], "main", Mark::NONE, 1);
            aged.cut(time.span(second, 100));
        }
        let window = aged
            .merge(time.at(0), time.at(30), Detail::default())
            .unwrap();
        assert_eq!(window.duration, Duration::from_secs(11));
        assert_eq!(aged.dropped(), Dropped::default());

        let mut crowded = windows(2000, MANY);
        for second in 0..9 {
            crowded.add(&[7], "main", Mark::NONE, 1);
            crowded.cut(time.span(second, 100));
            assert!(crowded.bytes <= 2000);
        }
        assert_eq!(crowded.dropped().buckets, 2);
    }

    #[test]
    fn a_flood_of_stacks_folds_and_loses_no_sample() {
        let time = Seconds(Instant::now());
        let few = Limits {
            count: 10,
            bytes: 1 << 20,
        };
        let mut windows = windows(1 << 20, few);
        for address in 0..100 {
            windows.add(&[address], "main", Mark::NONE, 1);
        }
        windows.cut(time.span(0, 100));
        let window = windows
            .merge(time.at(0), time.at(1), Detail::default())
            .unwrap();
        let total: u64 = window.stacks.iter().map(|held| held.samples).sum();
        assert_eq!(total, 100);
        assert_eq!(windows.dropped().folded, 90);
        let folded = window
            .stacks
            .iter()
            .find(|held| *held.addresses == [stacks::OVERFLOW]);
        assert_eq!(folded.unwrap().samples, 90);
    }

    #[test]
    fn stacks_of_departed_buckets_make_room_for_new_ones() {
        let time = Seconds(Instant::now());
        let few = Limits {
            count: 2,
            bytes: 1 << 20,
        };
        let mut windows = windows(1 << 20, few);
        for second in 0..40 {
            // One stack stays, the other is new each second and fills the table.
            windows.add(&[1], "main", Mark::NONE, 1);
            windows.add(&[100 + second / 20], "main", Mark::NONE, 1);
            windows.cut(time.span(second, 100));
        }
        let window = windows
            .merge(time.at(35), time.at(40), Detail::default())
            .unwrap();
        let mut stacks: Vec<&[u64]> = window.stacks.iter().map(|held| &*held.addresses).collect();
        stacks.sort_unstable();
        assert_eq!(stacks, [&[1][..], &[101][..]]);
    }
}
