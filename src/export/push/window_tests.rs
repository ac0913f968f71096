//! Windows over a recorder and a heap that answer by hand.

use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::thread;

use super::*;
use crate::store::heap::{COLUMNS, SPACE};
use crate::store::profile::{Accounting, CPU, Function, Line, Location, SAMPLES, Sample};

const SECOND: u64 = 1_000;
/// Some moment in 2026, in milliseconds since 1970.
const START: u64 = 1_790_000_000_000;

/// A store whose wishes a thread answers until it is dropped.
pub(in crate::export) struct Answered {
    pub(in crate::export) store: Arc<Store>,
    over: Arc<AtomicBool>,
}

impl Drop for Answered {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Release);
        self.store.cpu.nudge();
    }
}

/// Each CPU wish gets one sample for each second of its span; each heap has allocated one object of 100
/// bytes more than the one before, and has two in use.
pub(in crate::export) fn answered_store() -> Answered {
    let store = Arc::new(Store::new(10_000));
    store.heap.recording.get_or_init(|| Recording::On);
    let over = Arc::new(AtomicBool::new(false));
    let (inside, ended) = (Arc::clone(&store), Arc::clone(&over));
    let moments = AtomicI64::new(10);
    thread::spawn(move || {
        while !ended.load(Ordering::Acquire) {
            for (id, wish) in inside.cpu.open() {
                inside.cpu.answer(id, Ok(Arc::new(cpu(wish))));
            }
            for (id, _) in inside.heap.wishes.open() {
                let profile = heap(moments.fetch_add(1, Ordering::Relaxed));
                let seen = HeapSeen::Profile(Arc::new(profile));
                inside.heap.wishes.answer(id, Ok(seen));
            }
            inside.cpu.wait(Duration::from_millis(5));
        }
    });
    Answered { store, over }
}

fn cpu(wish: CpuWish) -> Profile {
    assert!(wish.names && wish.detail.times && wish.detail.traces);
    let CpuSpan::Between { from, to } = wish.span else {
        panic!("{wish:?}");
    };
    let seconds = i64::try_from((to - from) / SECOND).unwrap();
    Profile {
        start_unix_nanos: from * 1_000_000,
        duration: Duration::from_millis(to - from),
        period_type: CPU,
        period: 1_000_000_000,
        sample_types: vec![SAMPLES, CPU],
        default_type: CPU.name,
        samples: vec![sample(&[seconds, seconds * 1_000_000_000])],
        ..empty()
    }
}

pub(in crate::export) fn heap(allocated: i64) -> Profile {
    Profile {
        start_unix_nanos: START * 1_000_000 + u64::try_from(allocated).unwrap() * 1_000_000_000,
        period_type: SPACE,
        period: 524_288,
        sample_types: COLUMNS.to_vec(),
        default_type: INUSE_SPACE.name,
        samples: vec![sample(&[allocated, 100 * allocated, 2, 200])],
        ..empty()
    }
}

fn sample(values: &[i64]) -> Sample {
    Sample {
        stack: [0].into(),
        values: values.to_vec(),
        labels: Vec::new(),
        times: Vec::new(),
    }
}

fn empty() -> Profile {
    let line = Line {
        function: 0,
        line: 7,
    };
    Profile {
        start_unix_nanos: 0,
        duration: Duration::ZERO,
        period_type: CPU,
        period: 1,
        sample_types: Vec::new(),
        default_type: "",
        samples: Vec::new(),
        slices: Vec::new(),
        locations: vec![Location {
            address: 1,
            mapping: None,
            lines: vec![line],
        }],
        functions: vec![Function::named("shop::work")],
        mappings: Vec::new(),
        accounting: Accounting::default(),
        comments: Vec::new(),
    }
}

/// Seconds since the start at which each window that was sent begins and ends.
fn spans(windows: &mut CpuWindows, at: u64, taken: usize) -> (Vec<(u64, u64)>, Turn) {
    let mut seen = Vec::new();
    let turn = windows.turn(START + at * SECOND, &mut |profile| {
        if seen.len() == taken {
            return Sent::Later(Duration::from_secs(7));
        }
        let from = profile.start_unix_nanos / 1_000_000 - START;
        let length = u64::try_from(profile.duration.as_millis()).unwrap();
        seen.push((from / SECOND, (from + length) / SECOND));
        Sent::Done
    });
    (seen, turn)
}

#[test]
fn windows_follow_each_other_without_a_gap_and_what_is_not_taken_is_asked_for_again() {
    let answered = answered_store();
    let mut windows = CpuWindows::new(&answered.store, START);
    let all = usize::MAX;
    assert_eq!(
        spans(&mut windows, 16, all),
        (vec![], Turn::default()),
        "not closed"
    );
    assert_eq!(spans(&mut windows, 17, all).0, [(0, 15)]);
    let later = Turn {
        wait: Duration::from_secs(7),
        lost: 0,
    };
    assert_eq!(spans(&mut windows, 32, 0), (vec![], later));
    assert_eq!(spans(&mut windows, 62, 1), (vec![(15, 30)], later));
    assert_eq!(spans(&mut windows, 63, all).0, [(30, 45), (45, 60)]);
}

#[test]
fn windows_that_the_recorder_no_longer_holds_are_lost_and_counted() {
    let answered = answered_store();
    let mut windows = CpuWindows::new(&answered.store, START);
    let (seen, turn) = spans(&mut windows, 885 + 31, usize::MAX);
    assert_eq!(
        turn.lost, 3,
        "45 s, of which 31 are past what is made up for"
    );
    assert_eq!((seen.len(), seen[0], seen[56]), (57, (45, 60), (885, 900)));
}

#[test]
fn at_the_end_a_window_that_has_only_begun_goes_too_and_what_is_not_taken_is_left() {
    let answered = answered_store();
    let mut windows = CpuWindows::new(&answered.store, START);
    windows.end(Instant::now() + Duration::from_secs(60));
    let now = START + 37 * SECOND;
    assert_eq!(spans(&mut windows, 37, 1).0, [(0, 15)]);
    assert_eq!(windows.left(now), 2);
    let left = spans(&mut windows, 37, usize::MAX).0;
    assert_eq!((left, windows.left(now)), (vec![(15, 30), (30, 37)], 0));
    assert!(answered.store.cpu.is_held());
    drop(windows);
    assert!(!answered.store.cpu.is_held());
}

#[test]
fn a_clock_that_steps_back_begins_anew() {
    let answered = answered_store();
    let mut windows = CpuWindows::new(&answered.store, START + 1_000 * SECOND);
    assert_eq!(
        spans(&mut windows, 10, usize::MAX),
        (vec![], Turn::default())
    );
    assert_eq!(spans(&mut windows, 27, usize::MAX).0, [(10, 25)]);
}

#[test]
fn of_the_heap_goes_what_was_allocated_since_the_last_that_was_taken_and_all_in_use() {
    let answered = answered_store();
    let mut windows = HeapWindows::new(&answered.store);
    let mut turn = |sent: Sent| {
        let mut seen = Vec::new();
        windows.turn(&mut |profile| {
            assert_eq!(profile.samples.len(), 1);
            seen.extend_from_slice(&profile.samples[0].values);
            seen.push(i64::try_from(profile.duration.as_secs()).unwrap());
            sent
        });
        seen
    };
    assert_eq!(turn(Sent::Done), [10, 1000, 2, 200, 0], "since the start");
    assert_eq!(turn(Sent::Done), [1, 100, 2, 200, 1]);
    assert_eq!(
        turn(Sent::Later(Duration::from_secs(1))),
        [1, 100, 2, 200, 1]
    );
    assert_eq!(
        turn(Sent::Done),
        [2, 200, 2, 200, 2],
        "with what was not taken"
    );
}

#[test]
fn a_process_that_does_not_record_its_heap_sends_none() {
    let store = Arc::new(Store::new(10));
    let never = |_: &Profile| panic!("sent");
    assert_eq!(
        HeapWindows::new(&store).turn(&mut { never }),
        Duration::ZERO
    );
}
