//! The collector with an engine that counts, and once with the real one.

use std::cell::Cell;
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use super::{CpuCollector, CpuEngine, Sink};
use crate::config::{HZ_HIGH, SampleRate};
use crate::store::demand::{Demand, Outcome};
use crate::store::label::Mark;
use crate::store::profile::Profile;
use crate::store::{CpuAnswer, CpuWish, Store, Unavailable};

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

fn cpu() -> Option<Duration> {
    Some(Duration::from_millis(CPU_MILLIS.get()))
}

type Wait = Demand<CpuWish, CpuAnswer>;

struct Bench {
    store: Arc<Store>,
    collector: CpuCollector,
    engine: Counting,
    start: Instant,
}

impl Bench {
    fn new() -> Self {
        let store = Arc::new(Store::new(1000));
        let engine = Counting::default();
        let boxed = Box::new(engine.clone());
        CPU_MILLIS.set(0);
        Self {
            collector: CpuCollector::with_engine(Arc::clone(&store), boxed, cpu),
            store,
            engine,
            start: Instant::now(),
        }
    }

    fn wish(&self, hertz: u32, millis: u64) -> Wait {
        let wish = CpuWish {
            rate: SampleRate::new(hertz, &HZ_HIGH).unwrap(),
            duration: Duration::from_millis(millis),
            traces: false,
        };
        let deadline = Instant::now() + Duration::from_secs(600);
        self.store.cpu.ask(wish, deadline).unwrap()
    }

    /// A turn at a time after the start, with some samples waiting in the engine.
    fn turn(&mut self, millis: u64, weight: u32) -> Duration {
        self.engine.0.lock().unwrap().weight = weight;
        // Starting the engine takes a moment that shifts the readers' windows.
        let slack = Duration::from_millis(10);
        self.collector
            .turn(self.start + slack * 10 + Duration::from_millis(millis))
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
    bench.turn(2000, 20);
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
    let wait = bench.turn(0, 0);
    assert!(wait <= Duration::from_millis(100), "{wait:?}");
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
    let samples = snapshot.family(&crate::catalog::families::AGENT_PROFILE_SAMPLES);
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
        assert_eq!(why.0, "SIGPROF is taken");
    }
    assert_eq!(bench.told(|told| told.rates.len()), 0);
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
    let mut collector = CpuCollector::new(Arc::clone(&store));
    let stop = Arc::new(AtomicBool::new(false));
    let burn = {
        let stop = Arc::clone(&stop);
        let thread = std::thread::Builder::new().name("burner".to_owned());
        thread.spawn(move || a_function_that_burns(&stop)).unwrap()
    };
    let wish = CpuWish {
        rate: SampleRate::new(99, &HZ_HIGH).unwrap(),
        duration: Duration::from_millis(1500),
        traces: false,
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
    assert!(lines.iter().all(|line| *line > 200), "{lines:?}");
    assert!(profile.accounting.coverage.unwrap() > 0.0);
    assert!(profile.mappings[0].complete, "{:?}", profile.comments);
}
