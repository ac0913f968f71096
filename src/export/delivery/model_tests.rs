//! Whatever happens in whatever order, every item is delivered, waiting or counted as lost.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use proptest::prelude::*;

use super::tests::{Set, Told, later};
use super::*;
use crate::export::delivery::spool_tests::Directory;

const MEMORY: usize = 64 << 10;
const DISK: u64 = 96 << 10;

#[derive(Debug, Clone)]
enum Step {
    Enqueue {
        signal: usize,
        bytes: usize,
        items: u64,
    },
    Turn(Collector),
    Pass(u64),
    /// The disk takes nothing, or does again.
    Disk(bool),
    GiveUp,
}

#[derive(Debug, Clone, Copy)]
enum Collector {
    Accepts,
    Rejects(u64),
    Refuses,
    Postpones,
    Panics,
    /// More comes while a message is on its way.
    Floods,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let collector = prop_oneof![
        3 => Just(Collector::Accepts),
        1 => (0..20_u64).prop_map(Collector::Rejects),
        1 => Just(Collector::Refuses),
        4 => Just(Collector::Postpones),
        1 => Just(Collector::Panics),
        2 => Just(Collector::Floods),
    ];
    let size = prop_oneof![4 => 0..2_000_usize, 2 => 2_000..30_000_usize, 1 => Just(MEMORY)];
    let enqueue = (0..3_usize, size, 0..20_u64);
    let step = prop_oneof![
        20 => enqueue.prop_map(|(signal, bytes, items)| Step::Enqueue { signal, bytes, items }),
        20 => collector.prop_map(Step::Turn),
        4 => (0..90_000_u64).prop_map(Step::Pass),
        2 => any::<bool>().prop_map(Step::Disk),
    ];
    // Few histories end the agent, and only at their end.
    let end = prop_oneof![3 => Just(None), 1 => Just(Some(Step::GiveUp))];
    (prop::collection::vec(step, 0..120), end).prop_map(|(mut steps, end)| {
        steps.extend(end);
        steps
    })
}

/// A message that says itself how many items it has.
fn message(bytes: usize, items: u64) -> Vec<u8> {
    let mut message = items.to_le_bytes().to_vec();
    message.resize(bytes.max(8), 0);
    message
}

fn check(set: &Set, directory: Option<&Directory>, accepted: &[AtomicU64; 3]) {
    let mut state = lock(&set.delivery.state);
    for (place, signal) in PushSignal::ALL.into_iter().enumerate() {
        let queue = &mut state.lane(signal).queue;
        let counts = queue.counts();
        assert_eq!(
            counts.created,
            counts.delivered + counts.queued + counts.lost()
        );
        assert_eq!(
            counts.queued,
            queue.items(),
            "what waits is what the books say"
        );
        assert_eq!(counts.delivered, accepted[place].load(Ordering::Relaxed));
        assert!(queue.bytes() <= MEMORY, "{} bytes", queue.bytes());
        assert!(
            queue.memory() <= queue.bytes(),
            "{} bytes of memory",
            queue.memory()
        );
    }
    if let Some(directory) = directory {
        assert!(
            directory.bytes() <= DISK,
            "{} bytes on disk",
            directory.bytes()
        );
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn created_is_delivered_and_queued_and_dropped_after_every_step(
        steps in steps(),
        on_disk in any::<bool>(),
    ) {
        let directory = on_disk.then(Directory::new);
        let limits = Limits {
            queue_bytes: MEMORY,
            queue_age: Duration::from_secs(120),
            spool: directory.as_ref().map(|directory| directory.path().to_owned()),
            spool_bytes: DISK,
        };
        let collector = Arc::new(Mutex::new(Collector::Accepts));
        let told = Arc::clone(&collector);
        let flood: Arc<Mutex<Vec<Producer>>> = Arc::default();
        let flooding = Arc::clone(&flood);
        let accepted: Arc<[AtomicU64; 3]> = Arc::default();
        let tally = Arc::clone(&accepted);
        let odd = AtomicBool::new(false);
        let set = Set::new(&limits, Told(move |signal, sent: &[u8]| {
            let items = u64::from_le_bytes(*sent.first_chunk().unwrap());
            let accept = |rejected: u64| {
                let usable = items.saturating_sub(rejected);
                tally[signal as usize].fetch_add(usable, Ordering::Relaxed);
                Outcome::Accepted { rejected }
            };
            let collector = *lock(&told);
            match collector {
                Collector::Accepts => accept(0),
                Collector::Rejects(rejected) => accept(rejected),
                Collector::Refuses => Outcome::Refused { why: "400".into() },
                Collector::Postpones => later(),
                Collector::Panics => panic!("planted"),
                Collector::Floods => {
                    for producer in lock(&flooding).iter() {
                        (0..9).for_each(|_| producer.enqueue(message(9_000, 1), 1));
                    }
                    if odd.fetch_xor(true, Ordering::Relaxed) { accept(0) } else { later() }
                }
            }
        }));
        let producers = PushSignal::ALL.map(|signal| set.producer(signal));
        lock(&flood).extend(PushSignal::ALL.map(|signal| set.producer(signal)));
        for step in steps {
            match step {
                Step::Enqueue { signal, bytes, items } => {
                    producers[signal].enqueue(message(bytes, items), items);
                }
                Step::Turn(next) => {
                    *lock(&collector) = next;
                    let turn = || set.delivery.turn();
                    drop(std::panic::catch_unwind(std::panic::AssertUnwindSafe(turn)));
                }
                Step::Pass(millis) => set.time.pass(Duration::from_millis(millis)),
                Step::Disk(works) => if let Some(directory) = &directory { directory.works(works) },
                Step::GiveUp => set.delivery.give_up(),
            }
            check(&set, directory.as_ref(), &accepted);
        }
        lock(&flood).clear();
    }
}
