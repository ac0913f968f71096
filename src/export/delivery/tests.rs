//! Outages, each against a collector that behaves so, with a clock that only tests move.

use std::iter::repeat_with;
use std::net::TcpListener;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::MutexGuard;
use std::sync::mpsc::{Receiver, channel};
use std::thread;

use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTracePartialSuccess, ExportTraceServiceResponse,
};
use prost::Message as _;

use super::*;
use crate::export::push::tests::receiver::{Sent, Turn, answers, receiver};
use crate::store::metrics::Value;

/// A clock that moves when told, or when somebody waits.
#[derive(Clone, Default)]
pub(super) struct Time(Arc<Mutex<Duration>>);

impl Time {
    pub(super) fn pass(&self, time: Duration) {
        *lock(&self.0) += time;
    }
}

impl Clock for Time {
    fn now(&self) -> Duration {
        *lock(&self.0)
    }

    fn unix_nanos(&self) -> u64 {
        1_800_000_000_000_000_000 + u64::try_from(self.now().as_nanos()).unwrap()
    }

    fn jitter(&self, most: Duration) -> Duration {
        most
    }

    fn wait<'a>(
        &self,
        _changed: &Condvar,
        state: MutexGuard<'a, State>,
        most: Duration,
    ) -> MutexGuard<'a, State> {
        self.pass(most);
        state
    }
}

/// A collector that is a closure.
pub(super) struct Told<F>(pub(super) F);

impl<F: Fn(PushSignal, &[u8]) -> Outcome + Send + Sync> Transport for Told<F> {
    fn takes(&self, _signal: PushSignal) -> bool {
        true
    }

    fn send(&self, signal: PushSignal, message: &[u8], _most: Duration) -> Outcome {
        self.0(signal, message)
    }
}

pub(super) const ACCEPTED: Outcome = Outcome::Accepted { rejected: 0 };

pub(super) fn later() -> Outcome {
    Outcome::Later {
        why: "connection".into(),
        after: None,
    }
}

/// Sends wherever the operator points it.
#[derive(Clone)]
struct Line(Arc<Mutex<Arc<Posts>>>);

impl Line {
    fn to(address: &str) -> Self {
        Self(Arc::new(Mutex::new(posts(address))))
    }

    fn point(&self, address: &str) {
        *lock(&self.0) = posts(address);
    }
}

fn posts(address: &str) -> Arc<Posts> {
    let otlp = Otlp::to(address).unwrap();
    let mut otlp = otlp.timeout(Duration::from_millis(300)).unwrap();
    otlp.spans.as_mut().unwrap().gzip = false;
    Arc::new(Posts::new(&otlp))
}

impl Transport for Line {
    fn takes(&self, _signal: PushSignal) -> bool {
        true
    }

    fn send(&self, signal: PushSignal, message: &[u8], most: Duration) -> Outcome {
        let posts = Arc::clone(&lock(&self.0));
        posts.send(signal, message, most)
    }
}

/// A collector that behaves so at first, and then takes everything.
fn collector(turns: Vec<Turn>) -> (String, Receiver<Sent>) {
    let then = repeat_with(|| answers("200 OK", "", &[]));
    receiver(turns.into_iter().chain(then))
}

pub(super) struct Set {
    pub(super) delivery: Arc<Delivery>,
    pub(super) store: Arc<Store>,
    pub(super) time: Time,
}

impl Set {
    pub(super) fn new(limits: &Limits, transport: impl Transport + 'static) -> Self {
        let (store, time) = (Arc::new(Store::new(10_000)), Time::default());
        let clock = Box::new(time.clone());
        Self {
            delivery: Delivery::with(&store, limits, clock, Box::new(transport)),
            store,
            time,
        }
    }

    pub(super) fn producer(&self, signal: PushSignal) -> Producer {
        self.delivery.producer(signal).unwrap()
    }

    pub(super) fn counts(&self, signal: PushSignal) -> Counts {
        lock(&self.delivery.state).lane(signal).queue.counts()
    }

    /// Turns that many times, each when the one before said, and returns how long that took.
    fn turns(&self, turns: usize) -> Vec<Duration> {
        let turn = |_| {
            let wait = self.delivery.turn();
            self.time.pass(wait);
            wait
        };
        (0..turns).map(turn).collect()
    }

    /// Turns until nothing waits.
    pub(super) fn drain(&self) {
        while !lock(&self.delivery.state).is_empty() {
            self.turns(1);
        }
    }
}

fn messages(count: u8) -> Vec<Vec<u8>> {
    (0..count).map(|number| vec![number; 100_000]).collect()
}

fn seconds(seconds: &[u64]) -> Vec<Duration> {
    seconds.iter().copied().map(Duration::from_secs).collect()
}

/// Hands over messages of 10 items each while the collector behaves so for some attempts, then checks that
/// nothing was lost and all arrives once it is back.
fn outlives(address: &str, requests: &Receiver<Sent>, back: Option<&str>, attempts: usize) {
    let line = Line::to(address);
    let set = Set::new(&Limits::default(), line.clone());
    let producer = set.producer(PushSignal::Spans);
    let sent = messages(5);
    for message in &sent {
        producer.enqueue(message.clone(), 10);
    }
    for _ in 0..attempts {
        set.turns(2);
        let waiting = Counts {
            created: 50,
            queued: 50,
            ..Counts::default()
        };
        assert_eq!(set.counts(PushSignal::Spans), waiting);
    }
    if let Some(back) = back {
        line.point(back);
    }
    set.drain();
    let arrived = Counts {
        created: 50,
        delivered: 50,
        ..Counts::default()
    };
    assert_eq!(set.counts(PushSignal::Spans), arrived);
    let seen: Vec<Vec<u8>> = requests.try_iter().map(|sent| sent.body).collect();
    assert!(seen.ends_with(&sent), "each once, in order");
    assert!(seen.len() <= attempts + 5, "{} requests", seen.len());
}

#[test]
fn a_closed_port_loses_nothing() {
    let (back, requests) = collector(Vec::new());
    let closed = TcpListener::bind("127.0.0.1:0").unwrap();
    let closed = format!("http://{}", closed.local_addr().unwrap());
    outlives(&closed, &requests, Some(&back), 4);
}

#[test]
fn a_name_that_is_nowhere_loses_nothing() {
    let (back, requests) = collector(Vec::new());
    outlives("http://collector.invalid:4318", &requests, Some(&back), 2);
}

#[test]
fn a_collector_that_accepts_and_never_answers_loses_nothing() {
    let (address, requests) = collector(vec![Turn::KeepsSilent, Turn::KeepsSilent]);
    outlives(&address, &requests, None, 2);
}

#[test]
fn a_reset_before_the_message_is_read_loses_nothing() {
    let (address, requests) = collector(vec![Turn::Resets, Turn::Resets]);
    outlives(&address, &requests, None, 2);
}

#[test]
fn bursts_of_503_and_its_kin_lose_nothing() {
    let statuses = [
        "503 Service Unavailable",
        "502 Bad Gateway",
        "504 Gateway Timeout",
        "429 Too Many Requests",
    ];
    let replies = statuses.map(|status| answers(status, "", b"later"));
    let (address, requests) = collector(replies.into());
    outlives(&address, &requests, None, statuses.len());
}

#[test]
fn retries_wait_longer_each_time_up_to_half_a_minute_and_start_anew_after_success() {
    let left = Mutex::new(5);
    let set = Set::new(
        &Limits::default(),
        Told(move |_, _: &[u8]| {
            let mut left = lock(&left);
            *left -= 1;
            if *left == 0 { ACCEPTED } else { later() }
        }),
    );
    let producer = set.producer(PushSignal::Logs);
    producer.enqueue(vec![1], 1);
    let waits = set.turns(9);
    assert_eq!(waits, seconds(&[0, 5, 0, 10, 0, 20, 0, 30, 0]));
    producer.enqueue(vec![1], 1);
    assert_eq!(set.turns(2), seconds(&[0, 5]));
}

#[test]
fn retry_after_is_heeded_in_seconds_and_as_a_date_but_for_half_a_minute_at_most() {
    let busy = |headers: &str| answers("429 Too Many Requests", headers, &[]);
    let (address, _requests) = collector(vec![
        busy("Retry-After: 7\r\n"),
        busy(
            "Date: Wed, 21 Oct 2015 07:28:00 GMT\r\nRetry-After: Wed, 21 Oct 2015 07:28:11 GMT\r\n",
        ),
        busy("Retry-After: 1000000000\r\n"),
        // No pause at all would be a storm: as if it were not there.
        busy("Retry-After: 0\r\n"),
        busy("Retry-After: soon\r\n"),
    ]);
    let set = Set::new(&Limits::default(), Line::to(&address));
    set.producer(PushSignal::Spans).enqueue(vec![1], 1);
    let waits = set.turns(11);
    assert_eq!(waits, seconds(&[0, 7, 0, 11, 0, 30, 0, 30, 0, 30, 0]));
    assert_eq!(set.counts(PushSignal::Spans).delivered, 1);
}

#[test]
fn what_a_collector_refuses_or_rejects_is_counted_and_not_sent_again() {
    let partly = ExportTraceServiceResponse {
        partial_success: Some(ExportTracePartialSuccess {
            rejected_spans: 3,
            error_message: "no".to_owned(),
        }),
    };
    let all = ExportTraceServiceResponse {
        partial_success: Some(ExportTracePartialSuccess {
            rejected_spans: i64::MAX,
            error_message: String::new(),
        }),
    };
    let replies = [
        answers("400 Bad Request", "Retry-After: 1\r\n", b"never"),
        answers("413 Content Too Large", "", &[]),
        answers(
            "307 Temporary Redirect",
            "Location: http://127.0.0.1:1/\r\n",
            &[],
        ),
        answers("500 Internal Server Error", "", &[]),
        answers("200 OK", "", &partly.encode_to_vec()),
        answers("200 OK", "", &all.encode_to_vec()),
        answers("200 OK", "", b"no protobuf"),
    ];
    let (address, _requests) = collector(replies.into());
    let set = Set::new(&Limits::default(), Line::to(&address));
    let producer = set.producer(PushSignal::Spans);
    for message in messages(7) {
        producer.enqueue(message, 10);
    }
    assert_eq!(set.turns(8)[..7], seconds(&[0; 7]), "no pause after any");
    let counts = set.counts(PushSignal::Spans);
    assert_eq!(
        (counts.created, counts.delivered, counts.queued),
        (70, 17, 0)
    );
    assert_eq!(counts.dropped[Reason::Refused as usize], 40);
    assert_eq!(counts.dropped[Reason::Rejected as usize], 13);
}

/// One message of 10,000 bytes and 10 items a second for as long as the collector is away.
fn outage(length: Duration, limit: usize) -> (Counts, usize) {
    let away = Arc::new(Mutex::new(true));
    let is_away = Arc::clone(&away);
    let told = Told(move |_, _: &[u8]| if *lock(&is_away) { later() } else { ACCEPTED });
    let limits = Limits {
        queue_bytes: limit,
        ..Limits::default()
    };
    let set = Set::new(&limits, told);
    let producer = set.producer(PushSignal::Spans);
    let mut most = 0;
    while set.time.now() < length {
        producer.enqueue(vec![0; 10_000], 10);
        set.delivery.turn();
        set.time.pass(Duration::from_secs(1));
        most = most.max(
            lock(&set.delivery.state)
                .lane(PushSignal::Spans)
                .queue
                .bytes(),
        );
    }
    let outage = set.counts(PushSignal::Spans);
    assert_eq!(outage.created, outage.queued + outage.lost());
    *lock(&away) = false;
    set.drain();
    let counts = set.counts(PushSignal::Spans);
    // The last pause goes on for up to half a minute, in which some may become too old.
    let late = counts.lost() - outage.lost();
    assert!(late <= 300, "{late}");
    assert_eq!(
        counts.delivered,
        outage.queued - late,
        "what waited arrives"
    );
    (counts, most)
}

#[test]
fn an_outage_of_ten_seconds_or_a_minute_loses_nothing() {
    for length in [10, 60] {
        let (counts, _) = outage(Duration::from_secs(length), 1 << 20);
        let all = Counts {
            created: length * 10,
            delivered: length * 10,
            ..Counts::default()
        };
        assert_eq!(counts, all);
    }
}

#[test]
fn an_outage_beyond_the_bound_loses_the_oldest_and_counts_them() {
    let limit = 1 << 20;
    let (counts, most) = outage(Duration::from_secs(600), limit);
    assert!(most <= limit && most > limit - 11_000, "{most}");
    assert_eq!(counts.created, 6_000);
    let fit = (limit / 10_000) as u64 * 10;
    assert!((fit - 50..=fit).contains(&counts.delivered), "{counts:?}");
    assert_eq!(
        counts.dropped[Reason::QueueFull as usize],
        6_000 - counts.delivered
    );
}

#[test]
fn an_outage_beyond_the_age_gives_up_what_is_older() {
    let (counts, _) = outage(Duration::from_secs(4_000), 1 << 30);
    assert_eq!(counts.created, 40_000);
    let expired = counts.dropped[Reason::Expired as usize];
    assert_eq!(expired, counts.lost());
    // Those older than an hour when the collector came back, or in the pause after.
    assert!((4_000..=4_300).contains(&expired), "{counts:?}");
}

#[test]
fn a_message_larger_than_the_bound_is_dropped_and_takes_nobody_along() {
    let limits = Limits {
        queue_bytes: 1 << 20,
        ..Limits::default()
    };
    let set = Set::new(&limits, Told(|_, _: &[u8]| ACCEPTED));
    let producer = set.producer(PushSignal::Spans);
    producer.enqueue(vec![0; 1_000_000], 2);
    producer.enqueue(vec![0; 1 << 20], 5);
    let counts = set.counts(PushSignal::Spans);
    assert_eq!(
        (counts.queued, counts.dropped[Reason::QueueFull as usize]),
        (2, 5)
    );
}

#[test]
fn handing_over_waits_for_no_attempt_and_takes_no_room_beyond_the_bound() {
    let (began, beginning) = channel();
    let (end, ending) = channel::<()>();
    let ending = Mutex::new(ending);
    let limits = Limits {
        queue_bytes: 1 << 20,
        ..Limits::default()
    };
    let set = Set::new(
        &limits,
        Told(move |_, _: &[u8]| {
            began.send(()).unwrap();
            let _ended = lock(&ending).recv();
            ACCEPTED
        }),
    );
    let producer = set.producer(PushSignal::Spans);
    producer.enqueue(vec![0; 400_000], 1);
    let delivery = Arc::clone(&set.delivery);
    let turn = thread::spawn(move || delivery.turn());
    beginning.recv().unwrap();
    for _ in 0..10 {
        producer.enqueue(vec![0; 400_000], 1);
    }
    // The one that is being sent stays; of the others one has room beside it.
    let counts = set.counts(PushSignal::Spans);
    assert_eq!((counts.created, counts.queued), (11, 2));
    assert!(
        lock(&set.delivery.state)
            .lane(PushSignal::Spans)
            .queue
            .bytes()
            <= 1 << 20
    );
    end.send(()).unwrap();
    turn.join().unwrap();
    let counts = set.counts(PushSignal::Spans);
    assert_eq!((counts.delivered, counts.queued, counts.lost()), (1, 1, 9));
}

#[test]
fn a_panic_while_sending_loses_nothing() {
    let first = Mutex::new(true);
    let set = Set::new(
        &Limits::default(),
        Told(move |_, _: &[u8]| {
            assert!(!std::mem::take(&mut *lock(&first)), "planted");
            ACCEPTED
        }),
    );
    set.producer(PushSignal::Profiles).enqueue(vec![1], 4);
    let panicked = catch_unwind(AssertUnwindSafe(|| set.delivery.turn()));
    assert!(panicked.is_err());
    assert_eq!(set.counts(PushSignal::Profiles).queued, 4);
    set.turns(1);
    assert_eq!(set.counts(PushSignal::Profiles).delivered, 4);
}

#[test]
fn a_signal_that_nobody_takes_does_not_keep_the_others() {
    let set = Set::new(
        &Limits::default(),
        Told(|signal, _: &[u8]| match signal {
            PushSignal::Spans => later(),
            _ => ACCEPTED,
        }),
    );
    let producers = PushSignal::ALL.map(|signal| set.producer(signal));
    for _ in 0..3 {
        for producer in &producers {
            producer.enqueue(vec![1], 1);
        }
    }
    set.turns(8);
    let delivered = PushSignal::ALL.map(|signal| set.counts(signal).delivered);
    assert_eq!(delivered, [0, 3, 3]);
}

#[test]
fn the_page_says_what_the_books_say() {
    let outcomes = Mutex::new(
        [
            Outcome::Accepted { rejected: 1 },
            Outcome::Refused { why: "400".into() },
        ]
        .into_iter(),
    );
    let set = Set::new(
        &Limits::default(),
        Told(move |_, _: &[u8]| lock(&outcomes).next().unwrap_or_else(later)),
    );
    let producer = set.producer(PushSignal::Spans);
    for _ in 0..3 {
        producer.enqueue(vec![0; 1000], 5);
    }
    set.turns(4);
    let snapshot = set.store.metrics.snapshot();
    let value = |metric, labels: &[&str]| {
        let family = snapshot.family(metric).unwrap();
        let found = snapshot.values(family).find(|(series, _)| {
            series
                .values
                .iter()
                .map(|value| &**value)
                .eq(labels.iter().copied())
        });
        match found.unwrap().1 {
            Value::Total(total) => total,
            Value::Float(number) => format!("{number:.0}").parse().unwrap(),
            other => panic!("{other:?}"),
        }
    };
    let exported = |error| {
        value(
            &families::OTEL_EXPORTED_SPANS,
            &["otlp_http_span_exporter", error],
        )
    };
    let dropped = |reason| value(&families::AGENT_DROPPED, &["spans", reason]);
    let processed = value(
        &families::OTEL_PROCESSED_SPANS,
        &["batching_span_processor"],
    );
    assert_eq!(
        [exported(""), exported("rejected"), exported("400")],
        [4, 1, 5]
    );
    assert_eq!([dropped("rejected"), dropped("refused")], [1, 5]);
    assert_eq!(
        (processed, value(&families::AGENT_QUEUE_ITEMS, &["spans"])),
        (15, 5)
    );
    assert!(value(&families::AGENT_QUEUE_BYTES, &["spans"]) > 1000);
    assert!(value(&families::AGENT_LAST_SUCCESS, &["spans"]) > 1_700_000_000);
}

fn flushed(signal: &'static str, delivered: u64, kept: u64, lost: u64) -> Flushed {
    Flushed {
        signal,
        delivered,
        kept,
        lost,
    }
}

#[test]
fn an_end_delivers_what_waits_also_what_was_in_a_pause() {
    let first = Mutex::new(true);
    let set = Set::new(
        &Limits::default(),
        Told(move |_, _: &[u8]| {
            if std::mem::take(&mut *lock(&first)) {
                later()
            } else {
                ACCEPTED
            }
        }),
    );
    let producer = set.producer(PushSignal::Spans);
    producer.enqueue(vec![1], 1);
    producer.enqueue(vec![1], 2);
    set.turns(1);
    drop(producer);
    set.delivery.close(Duration::from_millis(1));
    set.delivery.run();
    let said = [flushed("spans", 3, 0, 0)];
    assert_eq!(set.delivery.flushed(), said);
    assert_eq!(set.delivery.flushed(), said, "asked twice");
    assert_eq!(set.time.now(), Duration::ZERO, "waited for nothing");
}

#[test]
fn an_end_without_a_collector_comes_at_its_deadline_and_says_what_is_lost() {
    let set = Set::new(&Limits::default(), Told(|_, _: &[u8]| later()));
    let producer = set.producer(PushSignal::Logs);
    producer.enqueue(vec![1], 7);
    set.delivery.close(Duration::from_secs(8));
    set.delivery.run();
    // The producer is still there: it might have had more to say.
    assert_eq!(set.time.now(), Duration::from_secs(8));
    producer.enqueue(vec![1], 2);
    assert_eq!(set.delivery.flushed(), [flushed("logs", 0, 0, 9)]);
    let counts = set.counts(PushSignal::Logs);
    assert_eq!(counts.dropped[Reason::Shutdown as usize], 9);
}

#[test]
fn an_end_during_a_hung_attempt_does_not_wait_for_it_and_counts_its_items_once() {
    let (began, beginning) = channel();
    let (end, ending) = channel::<()>();
    let ending = Mutex::new(ending);
    let set = Set::new(
        &Limits::default(),
        Told(move |_, _: &[u8]| {
            began.send(()).unwrap();
            let _ended = lock(&ending).recv();
            ACCEPTED
        }),
    );
    set.producer(PushSignal::Spans).enqueue(vec![1], 3);
    let delivery = Arc::clone(&set.delivery);
    let running = thread::spawn(move || delivery.run());
    beginning.recv().unwrap();
    set.delivery.close(Duration::ZERO);
    let said = [flushed("spans", 0, 0, 3)];
    assert_eq!(set.delivery.flushed(), said);
    drop(end);
    running.join().unwrap();
    assert_eq!(set.delivery.flushed(), said, "nobody knows more");
}

#[test]
fn what_is_made_while_the_agent_ends_is_still_delivered() {
    let delivery = Arc::new(Mutex::new(None::<Producer>));
    let late = Arc::clone(&delivery);
    let set = Set::new(
        &Limits::default(),
        Told(move |_, _: &[u8]| {
            // The last of the producers speaks while an earlier message is being sent.
            let last = lock(&late).take();
            if let Some(producer) = last {
                producer.enqueue(vec![2], 2);
            }
            ACCEPTED
        }),
    );
    let producer = set.producer(PushSignal::Spans);
    producer.enqueue(vec![1], 1);
    *lock(&delivery) = Some(producer);
    set.delivery.close(Duration::from_secs(5));
    set.delivery.run();
    assert_eq!(set.delivery.flushed(), [flushed("spans", 3, 0, 0)]);
}

#[test]
fn many_threads_hand_over_while_one_sends_and_every_item_is_counted_once() {
    // Attempts, and messages that were taken.
    let seen = Arc::new(Mutex::new((0, 0)));
    let told = Arc::clone(&seen);
    let told = Told(move |_, _: &[u8]| {
        let mut seen = lock(&told);
        seen.0 += 1;
        if seen.0 % 3 == 0 {
            return Outcome::Later {
                why: "503".into(),
                after: Some(Duration::from_nanos(1)),
            };
        }
        seen.1 += 1;
        ACCEPTED
    });
    let store = Arc::new(Store::new(10_000));
    let limits = Limits {
        queue_bytes: 64 << 10,
        ..Limits::default()
    };
    let clock = Box::new(MachineClock::new());
    let delivery = Delivery::with(&store, &limits, clock, Box::new(told));
    let sending = Arc::clone(&delivery);
    let sender = thread::spawn(move || sending.run());
    let hands = (0..8_u8).map(|hand| {
        let producer = delivery
            .producer(PushSignal::ALL[usize::from(hand) % 3])
            .unwrap();
        thread::spawn(move || {
            (0..500).for_each(|_| producer.enqueue(vec![0; 200], 2));
        })
    });
    let hands: Vec<_> = hands.collect();
    delivery.close(Duration::from_secs(60));
    for hand in hands {
        hand.join().unwrap();
    }
    sender.join().unwrap();
    let flushed = delivery.flushed();
    assert_eq!(flushed.len(), 3);
    let mut state = lock(&delivery.state);
    let counts = PushSignal::ALL.map(|signal| state.lane(signal).queue.counts());
    let created: Vec<u64> = counts.iter().map(|counts| counts.created).collect();
    assert_eq!(created, [3000, 3000, 2000]);
    for counts in counts {
        let full = counts.dropped[Reason::QueueFull as usize];
        assert_eq!(
            counts.created,
            counts.delivered + full,
            "none waits, none was given up"
        );
    }
}
