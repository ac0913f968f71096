//! What is on disk outlives the process, whole or not at all, and within its bound.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use super::record::{HEAD_BYTES, Head};
use super::tests::{ACCEPTED, Set, Told, later};
use super::*;
use crate::export::push::tests::receiver::{Turn, answers, receiver};
use crate::store::metrics::Value;

/// A directory that goes with its test.
pub(super) struct Directory {
    path: PathBuf,
    aside: PathBuf,
}

impl Directory {
    pub(super) fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("sg-spool-{}-{number}", std::process::id());
        let path = std::env::temp_dir().join(name);
        Self {
            aside: path.with_extension("aside"),
            path,
        }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Puts a file where the directory was, which keeps root out too, or the directory back.
    pub(super) fn works(&self, works: bool) {
        if works && self.path.is_file() {
            fs::remove_file(&self.path).unwrap();
            if self.aside.is_dir() {
                fs::rename(&self.aside, &self.path).unwrap();
            }
        } else if !works && !self.path.is_file() {
            drop(fs::rename(&self.path, &self.aside));
            fs::write(&self.path, "").unwrap();
        }
    }

    fn files(&self) -> Vec<PathBuf> {
        let entries =
            [&self.path, &self.aside].map(|path| fs::read_dir(path).into_iter().flatten());
        let paths = entries
            .into_iter()
            .flatten()
            .map(|entry| entry.unwrap().path());
        let mut files: Vec<PathBuf> = paths
            .filter(|path| path.extension().is_some_and(|end| end == "otlp"))
            .collect();
        files.sort();
        files
    }

    pub(super) fn bytes(&self) -> u64 {
        let lengths = self
            .files()
            .into_iter()
            .map(|path| fs::metadata(path).unwrap().len());
        lengths.map(|length| length.next_multiple_of(4096)).sum()
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        self.works(true);
        drop(fs::remove_dir_all(&self.path));
    }
}

fn limits(directory: &Directory) -> Limits {
    Limits {
        spool: Some(directory.path().to_owned()),
        ..Limits::default()
    }
}

type Arrived = Arc<Mutex<Vec<Vec<u8>>>>;

/// A set whose collector is away, and one whose collector keeps what arrives.
fn away(limits: &Limits) -> Set {
    Set::new(limits, Told(|_, _: &[u8]| later()))
}

fn keeping(limits: &Limits) -> (Set, Arrived) {
    let arrived = Arrived::default();
    let kept = Arc::clone(&arrived);
    let told = Told(move |_, message: &[u8]| {
        lock(&kept).push(message.to_vec());
        ACCEPTED
    });
    (Set::new(limits, told), arrived)
}

fn torn(set: &Set) -> u64 {
    let snapshot = set.store.metrics.snapshot();
    let family = snapshot.family(&families::AGENT_SPOOL_TORN).unwrap();
    match snapshot.values(family).next().unwrap().1 {
        Value::Total(total) => total,
        other => panic!("{other:?}"),
    }
}

fn spooled(set: &Set) -> Option<f64> {
    let gauge = set
        .store
        .metrics
        .own_gauge(&families::AGENT_SPOOL_BYTES, &[]);
    gauge.get()
}

#[test]
fn a_head_is_read_as_it_was_written_and_not_after_any_bit_has_changed() {
    let head = Head::of(PushSignal::Logs, 7, 1_800_000_000_000_000_000, b"message");
    let bytes: [u8; HEAD_BYTES] = head.encode().try_into().unwrap();
    assert_eq!(Head::decode(&bytes), Some(head));
    assert!(head.fits(b"message") && !head.fits(b"massage") && !head.fits(b"messages"));
    for bit in 0..HEAD_BYTES * 8 {
        let mut changed = bytes;
        changed[bit / 8] ^= 1 << (bit % 8);
        assert_eq!(Head::decode(&changed), None, "bit {bit}");
    }
}

#[test]
fn what_one_process_could_not_deliver_the_next_does_with_all_that_was_known_of_it() {
    let directory = Directory::new();
    let limits = limits(&directory);
    let before = away(&limits);
    let producers = PushSignal::ALL.map(|signal| before.producer(signal));
    for number in 0..9_u8 {
        producers[usize::from(number % 3)].enqueue(vec![number; 1000], u64::from(number));
    }
    drop(producers);
    before.delivery.close(Duration::ZERO);
    before.delivery.run();
    let kept = before.delivery.flushed();
    let said = [("spans", 9), ("logs", 12), ("profiles", 15)];
    for (one, (signal, items)) in kept.iter().zip(said) {
        assert_eq!(
            (one.signal, one.delivered, one.kept, one.lost),
            (signal, 0, items, 0)
        );
    }
    assert_eq!(spooled(&before), Some(9.0 * 4096.0));
    drop(before);
    let (after, arrived) = keeping(&limits);
    after.delivery.turn();
    after.drain();
    let mut arrived = std::mem::take(&mut *lock(&arrived));
    arrived.sort();
    assert_eq!(
        arrived,
        (0..9_u8)
            .map(|number| vec![number; 1000])
            .collect::<Vec<_>>()
    );
    let delivered = PushSignal::ALL.map(|signal| after.counts(signal).delivered);
    assert_eq!(delivered, [9, 12, 15]);
    assert_eq!(directory.files().len(), 0);
}

#[test]
fn a_message_is_on_disk_before_the_first_attempt_and_gone_after_the_last() {
    let directory = Directory::new();
    let path = directory.path().to_owned();
    let set = Set::new(
        &limits(&directory),
        Told(move |_, message: &[u8]| {
            let file = fs::read(path.join(format!("{:020}.otlp", 0))).unwrap();
            assert_eq!(&file[HEAD_BYTES..], message);
            ACCEPTED
        }),
    );
    set.producer(PushSignal::Spans).enqueue(b"one".to_vec(), 1);
    set.delivery.turn();
    assert_eq!(set.counts(PushSignal::Spans).delivered, 1);
    assert_eq!(directory.files().len(), 0);
}

#[test]
fn age_goes_on_while_no_process_runs_and_no_clock_makes_it_less() {
    let directory = Directory::new();
    let limits = limits(&directory);
    let before = away(&limits);
    before.time.pass(Duration::from_secs(1000));
    before.producer(PushSignal::Spans).enqueue(vec![1], 1);
    before.delivery.turn();
    drop(before);
    // The next process's clock stands 1000 s earlier: the message is new to it.
    let after = away(&limits);
    after.delivery.turn();
    after.time.pass(Duration::from_secs(3599));
    after.delivery.turn();
    assert_eq!(after.counts(PushSignal::Spans).queued, 1);
    drop(after);
    let late = away(&limits);
    late.time.pass(Duration::from_secs(1000 + 3600));
    late.delivery.turn();
    late.delivery.turn();
    let counts = late.counts(PushSignal::Spans);
    assert_eq!(
        (counts.created, counts.dropped[Reason::Expired as usize]),
        (1, 1)
    );
    assert_eq!(directory.files().len(), 0);
}

#[test]
fn a_file_that_ends_early_anywhere_is_skipped_counted_and_removed() {
    let directory = Directory::new();
    let limits = limits(&directory);
    let before = away(&limits);
    let producer = before.producer(PushSignal::Spans);
    producer.enqueue(b"first".to_vec(), 1);
    producer.enqueue(b"torn".to_vec(), 1);
    producer.enqueue(b"last".to_vec(), 1);
    before.delivery.turn();
    drop((producer, before));
    let files = directory.files();
    let whole: Vec<Vec<u8>> = files.iter().map(|path| fs::read(path).unwrap()).collect();
    assert_eq!(whole[1].len(), HEAD_BYTES + 4);
    for length in 0..whole[1].len() {
        for (path, bytes) in files.iter().zip(&whole) {
            fs::write(path, bytes).unwrap();
        }
        fs::write(&files[1], &whole[1][..length]).unwrap();
        let (after, arrived) = keeping(&limits);
        after.delivery.turn();
        after.drain();
        assert_eq!(
            *lock(&arrived),
            [b"first".to_vec(), b"last".to_vec()],
            "{length} bytes"
        );
        assert_eq!(torn(&after), 1);
        assert_eq!(after.counts(PushSignal::Spans).created, 2);
        assert_eq!(directory.files().len(), 0);
    }
}

#[test]
fn a_message_whose_bytes_have_changed_is_not_sent_and_its_items_are_counted() {
    let directory = Directory::new();
    let limits = limits(&directory);
    let before = away(&limits);
    before.producer(PushSignal::Spans).enqueue(vec![5; 100], 8);
    before.delivery.turn();
    drop(before);
    let file = &directory.files()[0];
    let mut bytes = fs::read(file).unwrap();
    bytes[HEAD_BYTES + 50] ^= 1;
    fs::write(file, bytes).unwrap();
    let (after, arrived) = keeping(&limits);
    after.delivery.turn();
    after.drain();
    let counts = after.counts(PushSignal::Spans);
    assert_eq!(
        (counts.created, counts.dropped[Reason::Unreadable as usize]),
        (8, 8)
    );
    assert!(lock(&arrived).is_empty() && directory.files().is_empty());
}

#[test]
fn the_disk_is_bounded_and_the_oldest_of_all_signals_go() {
    let directory = Directory::new();
    let limits = Limits {
        spool_bytes: 10 * 8192,
        ..limits(&directory)
    };
    let set = away(&limits);
    let producers = PushSignal::ALL.map(|signal| set.producer(signal));
    for number in 0..30_usize {
        // A little more than a block.
        producers[number % 3].enqueue(vec![0; 4096], 1);
        set.delivery.turn();
        assert!(directory.bytes() <= 10 * 8192);
    }
    let queued = PushSignal::ALL.map(|signal| set.counts(signal).queued);
    assert_eq!(queued, [3, 3, 4]);
    let lost = PushSignal::ALL.map(|signal| set.counts(signal).dropped[Reason::QueueFull as usize]);
    assert_eq!(lost, [7, 7, 6]);
    drop((producers, set));
    // The next process has less room.
    let less = away(&Limits {
        spool_bytes: 4 * 8192,
        ..limits
    });
    less.delivery.turn();
    let queued = PushSignal::ALL.map(|signal| less.counts(signal).queued);
    assert_eq!(
        (queued.iter().sum::<u64>(), directory.bytes()),
        (4, 4 * 8192)
    );
}

#[test]
fn a_disk_that_takes_nothing_is_left_alone_for_a_minute_while_memory_serves() {
    let directory = Directory::new();
    let (set, arrived) = keeping(&limits(&directory));
    directory.works(false);
    let producer = set.producer(PushSignal::Spans);
    producer.enqueue(b"in memory".to_vec(), 1);
    set.delivery.turn();
    assert_eq!(*lock(&arrived), [b"in memory".to_vec()]);
    assert_eq!(spooled(&set), None, "not zero: not there");
    directory.works(true);
    set.time.pass(Duration::from_secs(59));
    set.delivery.turn();
    assert_eq!(spooled(&set), None);
    set.time.pass(Duration::from_secs(1));
    set.delivery.turn();
    assert_eq!(spooled(&set), Some(0.0));
}

#[test]
fn a_disk_that_fails_between_keeps_what_it_holds_and_nobody_waits_for_it() {
    let directory = Directory::new();
    let back = Arc::new(Mutex::new(false));
    let is_back = Arc::clone(&back);
    let set = Set::new(
        &limits(&directory),
        Told(move |_, _: &[u8]| if *lock(&is_back) { ACCEPTED } else { later() }),
    );
    let producer = set.producer(PushSignal::Spans);
    producer.enqueue(vec![1], 1);
    set.delivery.turn();
    directory.works(false);
    *lock(&back) = true;
    producer.enqueue(vec![2], 2);
    for _ in 0..9 {
        let wait = set.delivery.turn();
        set.time.pass(wait.min(Duration::from_secs(5)));
    }
    let counts = set.counts(PushSignal::Spans);
    assert_eq!((counts.delivered, counts.queued, counts.lost()), (2, 1, 0));
    directory.works(true);
    set.drain();
    assert_eq!(set.counts(PushSignal::Spans).delivered, 3);
}

#[test]
fn a_directory_belongs_to_one_process_at_a_time() {
    let directory = Directory::new();
    let limits = limits(&directory);
    let first = away(&limits);
    first.delivery.turn();
    first
        .producer(PushSignal::Spans)
        .enqueue(b"mine".to_vec(), 1);
    first.delivery.turn();
    let (second, arrived) = keeping(&limits);
    second
        .producer(PushSignal::Spans)
        .enqueue(b"yours".to_vec(), 1);
    second.delivery.turn();
    second.delivery.turn();
    assert_eq!(*lock(&arrived), [b"yours".to_vec()]);
    assert_eq!(directory.files().len(), 1, "it writes nothing there");
    drop(first);
    second.time.pass(Duration::from_secs(60));
    second.delivery.turn();
    second.drain();
    assert_eq!(*lock(&arrived), [b"yours".to_vec(), b"mine".to_vec()]);
}

const CHILD: &str = "STREAMGATE_SPOOL_CHILD";

/// Runs one test of this file in a process of its own.
fn child(test: &str, prefix: &str, address: &str, directory: &Directory) -> Command {
    let program = std::env::current_exe().unwrap();
    let mut command = Command::new("sh");
    command
        .arg("-c")
        .arg(format!("{prefix} exec \"$0\" \"$@\""))
        .arg(program)
        .args(["--exact", &format!("export::delivery::spool_tests::{test}")])
        .args(["--ignored", "--nocapture", "--test-threads=1"])
        .env(CHILD, format!("{} {address}", directory.path().display()))
        .stdout(Stdio::piped())
        .stderr(Stdio::null());
    command
}

/// What a child was told: its directory and its collector.
fn told() -> (PathBuf, String) {
    let told = std::env::var(CHILD).unwrap();
    let (directory, address) = told.split_once(' ').unwrap();
    (PathBuf::from(directory), address.to_owned())
}

#[test]
fn a_full_disk_takes_what_fits_and_memory_the_rest() {
    let directory = Directory::new();
    // Files end at 64 KiB, as a full disk ends them: within a write.
    let limit = "trap '' XFSZ; ulimit -f 128;";
    let output = child("in_a_process_whose_files_end_early", limit, "-", &directory)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success() && said.contains("1 passed"),
        "{said}"
    );
}

#[test]
#[ignore = "for the process that a_full_disk_takes_what_fits_and_memory_the_rest starts"]
fn in_a_process_whose_files_end_early() {
    let (path, _) = told();
    let limits = Limits {
        spool: Some(path.clone()),
        ..Limits::default()
    };
    let (set, arrived) = keeping(&limits);
    let files = || fs::read_dir(&path).unwrap().count();
    let producer = set.producer(PushSignal::Spans);
    producer.enqueue(vec![1; 100_000], 1);
    set.delivery.turn();
    assert_eq!(lock(&arrived).len(), 1, "sent from memory");
    assert_eq!(files(), 1, "nothing but the lock: no half of a file stays");
    assert_eq!(spooled(&set), None);
    set.time.pass(Duration::from_secs(60));
    producer.enqueue(vec![2; 1000], 1);
    set.delivery.turn();
    assert_eq!(lock(&arrived).len(), 2);
    assert!(spooled(&set).is_some(), "what fits is written again");
}

#[test]
fn kill_9_at_any_moment_loses_nothing_spooled_and_repeats_one_message_at_most() {
    let kills: u32 = match std::env::var("STREAMGATE_SPOOL_KILLS") {
        Ok(kills) => kills.parse().unwrap(),
        Err(_) => 20,
    };
    let directory = Directory::new();
    // Takes one of three messages, so that there is always something on disk.
    let (address, requests) = receiver((0_u64..).map(|turn| match turn % 3 {
        0 => answers("200 OK", "", &[]),
        _ => Turn::Resets,
    }));
    let mut random = 12_345_u32;
    let mut on_disk = Vec::new();
    let mut torn_files = 0;
    for _ in 0..kills {
        random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        let lines = (random >> 16) % 60;
        let mut running = child("in_a_process_that_is_killed", "", &address, &directory)
            .spawn()
            .unwrap();
        let mut output = BufReader::new(running.stdout.take().unwrap());
        let mut line = String::new();
        let mut said = |line: &mut String, on_disk: &mut Vec<Vec<u8>>| {
            line.clear();
            let read = output.read_line(line).unwrap();
            // The test runner may stand before the first.
            if let Some((_, name)) = line.split_once("spooled ") {
                on_disk.push(name.trim_end().as_bytes().to_vec());
            }
            read > 0
        };
        let before = on_disk.len() + lines as usize;
        while on_disk.len() < before && said(&mut line, &mut on_disk) {}
        running.kill().unwrap();
        while said(&mut line, &mut on_disk) {}
        running.wait().unwrap();
        torn_files += directory
            .files()
            .iter()
            .filter(|path| fs::read(path).unwrap().len() != HEAD_BYTES + 2000)
            .count();
    }
    assert!(on_disk.len() > kills as usize, "{} messages", on_disk.len());
    let (last, rest) = keeping(&limits(&directory));
    last.delivery.turn();
    last.drain();
    let mut arrived: Vec<Vec<u8>> = requests.try_iter().map(|sent| sent.body).collect();
    let live = arrived.len();
    arrived.append(&mut lock(&rest));
    assert!(
        live > 0 && live < arrived.len(),
        "{live} of {}",
        arrived.len()
    );
    let names: Vec<&[u8]> = arrived
        .iter()
        .map(|message| message.trim_ascii_end())
        .collect();
    for name in &on_disk {
        let name: &[u8] = name;
        assert!(
            names.contains(&name),
            "{} is lost",
            String::from_utf8_lossy(name)
        );
    }
    let distinct: std::collections::BTreeSet<&[u8]> = names.iter().copied().collect();
    let repeated = names.len() - distinct.len();
    assert!(
        repeated <= kills as usize,
        "{repeated} repeated in {kills} kills"
    );
    assert!(
        torn_files <= kills as usize,
        "{torn_files} torn in {kills} kills"
    );
    println!(
        "{kills} kills: {} messages on disk, {repeated} repeated, {torn_files} torn",
        on_disk.len()
    );
}

#[test]
#[ignore = "for the process that kill_9_at_any_moment_loses_nothing_spooled starts"]
fn in_a_process_that_is_killed() {
    let (path, address) = told();
    let mut otlp = Otlp::to(&address).unwrap();
    otlp.spans.as_mut().unwrap().gzip = false;
    let limits = Limits {
        spool: Some(path),
        // Time passes fast here.
        queue_age: Duration::from_secs(1 << 40),
        ..Limits::default()
    };
    let set = Set::new(&limits, Posts::new(&otlp));
    let producer = set.producer(PushSignal::Spans);
    let mut stdout = std::io::stdout();
    for number in 0_u32.. {
        let name = format!("{}/{number}", std::process::id());
        let mut message = name.clone().into_bytes();
        message.resize(2000, b' ');
        producer.enqueue(message, 1);
        set.delivery.turn();
        writeln!(stdout, "spooled {name}").unwrap();
        set.time.pass(Duration::from_secs(10));
    }
}
