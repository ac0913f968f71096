//! The collector with an engine that counts, and once with the real one.

use std::cell::Cell;
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use super::{Clocks, CpuCollector, CpuEngine, Sink};
use crate::catalog::{Metric, families};
use crate::config::{Config, HZ_HIGH, SampleRate};
use crate::store::demand::{Demand, Outcome};
use crate::store::label::Mark;
use crate::store::metrics::unix_nanos_now;
use crate::store::profile::Profile;
use crate::store::sync::lock;
use crate::store::{CpuAnswer, CpuSpan, CpuWish, Detail, NoProfile, Store, Unavailable};

/// What an engine was told to do, and what it hands over at each drain.
#[derive(Default)]
struct Told {
    rates: Vec<u32>,
    stops: usize,
    weight: u32,
    refusal: Option<&'static str>,
}

#[derive(Clone, Default)]
struct Counting(Arc<Mutex<Told>>);

impl CpuEngine for Counting {
    fn start(&mut self, rate: SampleRate) -> Result<(), Unavailable> {
        let mut told = self.0.lock().unwrap();
        if let Some(why) = told.refusal {
            return Err(Unavailable(why.to_owned()));
        }
        told.rates.push(rate.hz());
        Ok(())
    }

    fn drain(&mut self, sink: &mut Sink<'_>) {
        let weight = self.0.lock().unwrap().weight;
        sink.sample(&[0x20, 0x10], "worker", Mark::NONE, weight);
        sink.lost("ring full", 1);
    }

    fn stop(&mut self) {
        self.0.lock().unwrap().stops += 1;
    }

    fn name(&self) -> &'static str {
        "counting"
    }

    fn leaves_out(&self) -> Option<&'static str> {
        Some("nothing at all")
    }

    fn interval(&self) -> Duration {
        Duration::from_secs(1)
    }
}

thread_local! {
    static CPU_MILLIS: Cell<u64> = const { Cell::new(0) };
}

thread_local! {
    static SAMPLING_MILLIS: Cell<u64> = const { Cell::new(0) };
}

fn clocks() -> Clocks {
    Clocks {
        host: Some(Duration::from_millis(CPU_MILLIS.get())),
        sampling: Some(Duration::from_millis(SAMPLING_MILLIS.get())),
    }
}

type Wait = Demand<CpuWish, CpuAnswer>;

struct Bench {
    store: Arc<Store>,
    collector: CpuCollector,
    engine: Counting,
    start: Instant,
}

impl Bench {
    /// Samples only while somebody reads.
    fn new() -> Self {
        Self::recording(0)
    }

    fn recording(hertz: u32) -> Self {
        let mut config = Config::new("test");
        config.recorder = hertz;
        let store = Arc::new(Store::new(1000));
        let engine = Counting::default();
        let boxed = Box::new(engine.clone());
        CPU_MILLIS.set(0);
        SAMPLING_MILLIS.set(0);
        Self {
            collector: CpuCollector::with_engine(Arc::clone(&store), &config, boxed, clocks),
            store,
            engine,
            start: Instant::now(),
        }
    }

    fn wish(&self, hertz: u32, millis: u64) -> Wait {
        self.ask(CpuSpan::Next {
            rate: SampleRate::new(hertz, &HZ_HIGH).unwrap(),
            duration: Duration::from_millis(millis),
        })
    }

    fn ask(&self, span: CpuSpan) -> Wait {
        let deadline = Instant::now() + Duration::from_secs(600);
        self.store
            .cpu
            .ask(
                CpuWish {
                    span,
                    detail: Detail::default(),
                    names: true,
                },
                deadline,
            )
            .unwrap()
    }

    fn ago(&self, ago: u64, seconds: u64) -> Wait {
        self.ask(CpuSpan::Ago {
            ago: Duration::from_secs(ago),
            duration: Duration::from_secs(seconds),
        })
    }

    fn value(&self, metric: &'static Metric) -> Option<f64> {
        crate::collect::fixture::value(&self.store.metrics, metric, "cpu")
    }

    /// A turn at a time after the start, with some samples waiting in the engine.
    fn turn(&mut self, millis: u64, weight: u32) -> Duration {
        self.engine.0.lock().unwrap().weight = weight;
        // Starting the engine takes a moment that shifts the readers' windows.
        let slack = Duration::from_millis(10);
        self.collector
            .turn(self.start + slack * 10 + Duration::from_millis(millis))
    }

    /// A turn some whole seconds after the start.
    fn second(&mut self, second: u64, weight: u32) {
        // The first bucket begins once the engine has started.
        let late = if second == 0 { 0 } else { 5 };
        self.turn(1000 * second + late, weight);
    }

    fn told<T>(&self, read: impl Fn(&Told) -> T) -> T {
        read(&self.engine.0.lock().unwrap())
    }
}

fn answer(demand: &mut Wait) -> Option<CpuAnswer> {
    match Pin::new(demand).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(Outcome::Answered(answer)) => Some(answer),
        Poll::Ready(Outcome::Expired) => panic!("the wish expired"),
        Poll::Pending => None,
    }
}

/// The profile, which another thread is naming.
fn profile(demand: &mut Wait) -> Arc<Profile> {
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        if let Some(answer) = answer(demand) {
            break answer.expect("a profile");
        }
        assert!(Instant::now() < deadline, "no answer");
        std::thread::yield_now();
    }
}

#[test]
fn second_reader_shares_the_window() {
    let mut bench = Bench::new();
    let mut first = bench.wish(100, 3000);
    bench.turn(0, 0);
    let mut second = bench.wish(100, 1900);
    bench.turn(1000, 10);
    bench.turn(2010, 20);
    assert!(answer(&mut second).is_none());
    bench.turn(3050, 40);
    let (first, second) = (profile(&mut first), profile(&mut second));
    assert_eq!(first.total(0), 70);
    assert_eq!(
        second.total(0),
        60,
        "what came before its start is not its own"
    );
    assert_eq!(second.accounting.lost, [("ring full", 2)]);
    assert_eq!(bench.told(|told| told.rates.clone()), [100]);
    assert_eq!(bench.told(|told| told.stops), 1);
    assert_eq!(first.sample_types.len(), 2);
    assert_eq!(&*first.samples[0].labels[0].value, "worker");
}

#[test]
fn reader_that_leaves_stops_the_engine() {
    let mut bench = Bench::new();
    let first = bench.wish(100, 30_000);
    let second = bench.wish(100, 30_000);
    bench.turn(0, 0);
    drop(first);
    bench.turn(10, 0);
    assert_eq!(bench.told(|told| told.stops), 0, "somebody still reads");
    drop(second);
    bench.turn(20, 0);
    assert_eq!(bench.told(|told| told.stops), 1);
    let mut next = bench.wish(100, 1000);
    bench.turn(30, 0);
    bench.turn(1500, 5);
    assert_eq!(profile(&mut next).total(0), 5);
}

#[test]
fn a_reader_whose_profile_is_being_named_is_not_sampled_again() {
    let mut bench = Bench::new();
    let mut reader = bench.wish(100, 1000);
    bench.turn(0, 0);
    for millis in 1100..1200 {
        bench.turn(millis, 5);
    }
    assert_eq!(profile(&mut reader).total(0), 5);
    assert_eq!(bench.told(|told| told.rates.len()), 1);
    bench.collector.stop();
}

#[test]
fn a_change_of_rate_cuts_the_bucket_and_keeps_nanoseconds_exact() {
    let mut bench = Bench::new();
    let mut slow = bench.wish(100, 3000);
    bench.turn(0, 0);
    let mut fast = bench.wish(250, 1000);
    bench.turn(500, 50);
    bench.turn(1600, 275);
    bench.turn(3500, 140);
    assert_eq!(bench.told(|told| told.rates.clone()), [100, 250, 100]);
    let (slow, fast) = (profile(&mut slow), profile(&mut fast));
    assert_eq!((fast.total(0), fast.period), (275, 4_000_000));
    assert_eq!(slow.total(0), 50 + 275 + 140);
    assert_eq!(slow.total(1), 500_000_000 + 1_100_000_000 + 1_400_000_000);
    assert_eq!(
        slow.period, 10_000_000,
        "the largest, as the go tool takes it"
    );
    let comments = slow.comments.join("\n");
    assert!(comments.contains("the rate changed within the window (100 and 250 Hz)"));
}

#[test]
fn coverage_is_sampled_time_over_used_time_and_a_gap_is_said() {
    let mut bench = Bench::new();
    let mut demand = bench.wish(100, 1000);
    bench.turn(0, 0);
    CPU_MILLIS.set(2000);
    bench.turn(1100, 150);
    let gappy = profile(&mut demand);
    assert!((gappy.accounting.coverage.unwrap() - 0.75).abs() < 1e-9);
    assert_eq!(gappy.accounting.expected, Some(200));
    assert_eq!(gappy.total(0), 150, "nothing is scaled up");
    let words = "25 % of the CPU time is missing from this profile; \
                 this engine leaves out nothing at all; nothing was scaled up";
    assert!(gappy.comments.iter().any(|line| line == words));

    let mut demand = bench.wish(100, 1000);
    bench.turn(2000, 0);
    CPU_MILLIS.set(4000);
    bench.turn(3100, 199);
    let whole = profile(&mut demand);
    assert!(!whole.comments.join("\n").contains("missing"));
    let snapshot = bench.store.metrics.snapshot();
    let samples = snapshot.family(&families::AGENT_PROFILE_SAMPLES);
    assert_eq!(samples.unwrap().series.len(), 2);
}

#[test]
fn an_engine_that_cannot_start_turns_all_readers_away_with_its_reason() {
    let mut bench = Bench::new();
    bench.engine.0.lock().unwrap().refusal = Some("SIGPROF is taken");
    let mut readers = [bench.wish(100, 1000), bench.wish(200, 1000)];
    bench.turn(0, 0);
    for reader in &mut readers {
        let why = answer(reader).unwrap().unwrap_err();
        assert_eq!(why, unavailable("SIGPROF is taken"));
    }
    assert_eq!(bench.told(|told| told.rates.len()), 0);
    let recorder = lock(&bench.store.recorder).clone();
    assert_eq!(recorder.obstacle, None, "nobody wishes for anything");
}

fn unavailable(why: &str) -> NoProfile {
    Unavailable(why.to_owned()).into()
}

#[test]
fn the_recorder_samples_unasked_and_answers_the_past_at_once() {
    let mut bench = Bench::recording(19);
    for second in 0..10 {
        bench.second(second, 19);
    }
    assert_eq!(bench.told(|told| told.rates.clone()), [19]);
    let mut past = bench.ago(6, 3);
    let mut newest = bench.ago(2, 2);
    bench.turn(9600, 7);
    assert_eq!(profile(&mut past).total(0), 3 * 19);
    let newest = profile(&mut newest);
    assert_eq!(newest.total(0), 19 + 7, "the open bucket is cut for it");
    assert_eq!(newest.period, 52_631_578);
    assert_eq!(bench.told(|told| told.rates.clone()), [19]);
    let recorder = lock(&bench.store.recorder).clone();
    assert_eq!((recorder.hz, recorder.buckets), (Some(19), 10));
    assert_eq!(recorder.obstacle, None);
}

#[test]
fn eight_readers_of_one_span_get_equal_totals() {
    let mut bench = Bench::recording(19);
    for second in 0..10 {
        bench.second(second, 10 + u32::try_from(second).unwrap());
    }
    let mut readers: Vec<Wait> = (0..8).map(|_| bench.ago(8, 5)).collect();
    bench.turn(9200, 0);
    let totals: Vec<(i64, i64)> = readers
        .iter_mut()
        .map(|reader| {
            let profile = profile(reader);
            (profile.total(0), profile.total(1))
        })
        .collect();
    assert!(totals[0].0 > 0);
    assert_eq!(totals, [totals[0]; 8]);
}

#[test]
fn a_reader_raises_the_rate_for_its_window_and_the_recorder_goes_on_after_it() {
    let mut bench = Bench::recording(19);
    for second in 0..3 {
        bench.second(second, 19);
    }
    let mut fast = bench.wish(999, 2000);
    bench.turn(2500, 9);
    bench.turn(3600, 1000);
    let other = bench.wish(99, 30_000);
    bench.turn(3700, 0);
    bench.turn(4700, 1200);
    assert_eq!(bench.told(|told| told.rates.clone()), [19, 999, 99]);
    drop(other);
    bench.turn(4800, 10);
    bench.turn(5900, 20);
    assert_eq!(bench.told(|told| told.rates.clone()), [19, 999, 99, 19]);
    let fast = profile(&mut fast);
    assert_eq!((fast.total(0), fast.period), (2200, 1_001_001));
    let mut all = bench.ago(6, 6);
    bench.turn(6000, 0);
    let all = profile(&mut all);
    let nanos = |samples: i64, hertz: i64| samples * (1_000_000_000 / hertz);
    let due = nanos(2 * 19 + 9 + 20, 19) + nanos(2200, 999) + nanos(10, 99);
    assert_eq!(all.total(1), due, "each sample at the period of its bucket");
    assert_eq!(all.period, 52_631_578);
    assert!(all.comments.join("\n").contains("(19 and 999 Hz)"));
}

#[test]
fn a_span_that_is_not_held_is_refused_with_the_one_that_is() {
    let mut bench = Bench::recording(19);
    let mut early = bench.ago(30, 5);
    bench.turn(0, 0);
    let why = answer(&mut early).unwrap().unwrap_err();
    assert_eq!(
        why,
        unavailable("the flight recorder holds nothing yet: ask again in a second")
    );
    for second in 1..5 {
        bench.second(second, 19);
    }
    let mut before = bench.ago(60, 5);
    let mut partly = bench.ago(60, 60);
    let mut later = bench.ask(CpuSpan::Between {
        from: unix_nanos_now() / 1_000_000 + 3_600_000,
        to: unix_nanos_now() / 1_000_000 + 3_700_000,
    });
    bench.turn(5000, 0);
    for refused in [&mut before, &mut later] {
        let NoProfile {
            text: why,
            not_held,
        } = answer(refused).unwrap().unwrap_err();
        assert!(not_held);
        let (_, held) = why.split_once("the flight recorder holds ").unwrap();
        assert!(held.contains(" s, from="), "{why}");
    }
    let partly = profile(&mut partly);
    assert_eq!(partly.total(0), 4 * 19);
    let comments = partly.comments.join("\n");
    assert!(
        comments.contains("of the 60 s asked for 5 s are held"),
        "{comments}"
    );

    let mut off = Bench::new();
    let mut past = off.ago(30, 5);
    off.turn(0, 0);
    let why = answer(&mut past).unwrap().unwrap_err();
    assert!(why.text.starts_with("the flight recorder is off") && !why.not_held);
}

#[test]
fn a_recorder_that_cannot_start_tries_again_quietly_and_says_why_it_is_off() {
    let mut bench = Bench::recording(19);
    bench.engine.0.lock().unwrap().refusal = Some("another agent samples");
    bench.turn(0, 0);
    let state = |bench: &Bench| lock(&bench.store.recorder).clone();
    assert_eq!(
        state(&bench).obstacle.as_deref(),
        Some("another agent samples")
    );
    let mut reader = bench.wish(99, 1000);
    let mut past = bench.ago(30, 30);
    bench.turn(10, 0);
    for reader in [&mut reader, &mut past] {
        let why = answer(reader).unwrap().unwrap_err();
        assert_eq!(why, unavailable("another agent samples"));
    }
    bench.engine.0.lock().unwrap().refusal = None;
    let wait = bench.turn(20, 0);
    assert!(
        bench.told(|told| told.rates.is_empty()),
        "not at every turn"
    );
    assert!(wait <= Duration::from_millis(500));
    bench.turn(31_000, 0);
    assert_eq!(bench.told(|told| told.rates.clone()), [19]);
    assert_eq!((state(&bench).hz, state(&bench).obstacle), (Some(19), None));
}

#[test]
fn sampling_that_costs_too_much_slows_down_and_says_so() {
    let mut bench = Bench::recording(19);
    for second in 0..30 {
        // 10 % of a host that uses one core.
        CPU_MILLIS.set(1000 * second);
        SAMPLING_MILLIS.set(100 * second);
        bench.second(second, 10);
    }
    assert_eq!(bench.told(|told| told.rates.clone()), [19, 9, 4]);
    let slowed = bench.ago(5, 5);
    let reader = bench.wish(999, 2000);
    bench.turn(30_000, 0);
    assert_eq!(
        bench.told(|told| told.rates.len()),
        3,
        "the limit holds for readers"
    );
    assert_eq!(bench.value(&families::AGENT_PROFILE_RATE), Some(4.0));
    assert_eq!(bench.value(&families::AGENT_PROFILE_RATE_LIMIT), Some(4.0));
    assert_eq!(bench.value(&families::AGENT_PROFILE_SLOWDOWNS), Some(2.0));
    assert_eq!(lock(&bench.store.recorder).limit_hz, Some(4));
    let mut slowed = slowed;
    let comments = profile(&mut slowed).comments.join("\n");
    assert!(
        comments.contains("\nthe rate was lower than wished for during "),
        "{comments}"
    );
    let why = " s: sampling cost more than 3 % of the host's CPU time\n";
    assert!(comments.contains(why), "{comments}");
    drop(reader);
}

#[test]
fn samples_are_accounted_for_as_metrics_and_coverage_covers_a_minute() {
    let mut bench = Bench::recording(19);
    for second in 0..=60 {
        assert_eq!(bench.value(&families::AGENT_PROFILE_COVERAGE), None);
        // Half a core: 9.5 samples a second are due.
        CPU_MILLIS.set(500 * second);
        bench.second(second, 9);
    }
    let expected = bench.value(&families::AGENT_PROFILE_EXPECTED).unwrap();
    assert!((expected - 570.0).abs() < 1.5, "{expected}");
    let coverage = bench.value(&families::AGENT_PROFILE_COVERAGE).unwrap();
    assert!((coverage - 540.0 / 570.0).abs() < 0.001, "{coverage}");
    let lost = bench.store.metrics.snapshot();
    let lost = lost.family(&families::AGENT_PROFILE_LOST).unwrap();
    assert_eq!(lost.series.len(), 1);
    // A minute of almost nothing says nothing.
    for second in 61..=120 {
        CPU_MILLIS.set(30_000 + second);
        bench.second(second, 0);
    }
    assert_eq!(bench.value(&families::AGENT_PROFILE_COVERAGE), None);
    bench.collector.stop();
    assert_eq!(bench.value(&families::AGENT_PROFILE_RATE), None);
}

#[test]
fn stopping_turns_readers_away_and_stops_the_engine() {
    let mut bench = Bench::new();
    let mut reader = bench.wish(100, 30_000);
    bench.turn(0, 0);
    bench.collector.stop();
    assert!(answer(&mut reader).unwrap().is_err());
    assert_eq!(bench.told(|told| told.stops), 1);
}

#[inline(never)]
fn a_function_that_burns(until: &AtomicBool) -> u64 {
    let mut number = 1_u64;
    while !until.load(Ordering::Relaxed) {
        for step in 0..1000_u64 {
            number = std::hint::black_box(number.wrapping_mul(31) ^ step);
        }
    }
    number
}

/// The only unit test that samples this process, since one engine runs at a time.
#[test]
fn the_real_engine_finds_a_busy_function_with_its_line() {
    let store = Arc::new(Store::new(1000));
    let mut config = Config::new("test");
    config.recorder = 0;
    let mut collector = CpuCollector::new(Arc::clone(&store), &config);
    let stop = Arc::new(AtomicBool::new(false));
    let burn = {
        let stop = Arc::clone(&stop);
        let thread = std::thread::Builder::new().name("burner".to_owned());
        thread.spawn(move || a_function_that_burns(&stop)).unwrap()
    };
    let span = CpuSpan::Next {
        rate: SampleRate::new(99, &HZ_HIGH).unwrap(),
        duration: Duration::from_millis(1500),
    };
    let wish = CpuWish {
        span,
        detail: Detail::default(),
        names: true,
    };
    let deadline = Instant::now() + Duration::from_secs(120);
    let mut demand = store.cpu.ask(wish, deadline).unwrap();
    let answer = loop {
        let wait = collector.turn(Instant::now());
        if let Some(answer) = answer(&mut demand) {
            break answer;
        }
        assert!(Instant::now() < deadline, "no answer");
        store.cpu.wait(wait);
    };
    stop.store(true, Ordering::Relaxed);
    burn.join().unwrap();
    let profile = answer.unwrap();
    let burner = |sample: &&crate::store::profile::Sample| {
        sample.labels.iter().any(|label| &*label.value == "burner")
    };
    let sample = profile
        .samples
        .iter()
        .find(burner)
        .expect("the busy thread");
    let names: Vec<&str> = profile.names(sample).collect();
    let place = names
        .iter()
        .position(|name| name.ends_with("tests::a_function_that_burns"))
        .unwrap_or_else(|| panic!("not among {names:?}"));
    assert!(
        names.iter().take(place).all(|name| !name.contains("pprof")),
        "frames of the handler: {names:?}"
    );
    assert!(
        names
            .iter()
            .any(|name| name.contains("__rust_begin_short_backtrace"))
    );
    let lines: Vec<u32> = profile
        .locations
        .iter()
        .flat_map(|location| &location.lines)
        .filter(|line| {
            let function = &profile.functions[line.function as usize];
            function.name.ends_with("a_function_that_burns")
        })
        .map(|line| line.line)
        .collect();
    assert!(profile.accounting.coverage.unwrap() > 0.0);
    // On a machine busy with other builds the time for naming may be over before lines are read, and then
    // the profile says so.
    let late = |comment: &String| comment.ends_with("time ran out");
    let read = profile.mappings[0].complete && lines.iter().all(|line| *line > 200);
    assert!(
        read || profile.comments.iter().any(late),
        "{lines:?}: {:?}",
        profile.comments
    );
}
