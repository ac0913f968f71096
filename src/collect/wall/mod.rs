//! Wall-clock profiles and the threads of this moment: where threads are, running or blocked.
//!
//! Nothing is looked at until somebody asks. Runs on a thread of its own, beside the CPU engine and
//! also without it; it shares only the signal, the unwinder's code and the names.

mod asker;
mod calls;
mod gathered;
mod marks;
mod profile;
mod threads;

use std::fmt;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use super::code::desk::{Answering, Desk};
use crate::store::looks::{BLOCKED, Look, RUNNING, ThreadChoice};
use crate::store::metrics::unix_nanos_now;
use crate::store::sync::lock;
use crate::store::{Store, Unavailable};
use asker::{Asker, Moment, Owed};
use gathered::Gathered;
use profile::Taken;
use threads::Thread;

/// How long to wait for a wish; a new one ends the wait at once.
const IDLE_TURN: Duration = Duration::from_millis(250);
/// Between the two looks at all threads that a page of this moment takes.
const NOTED: Duration = Duration::from_millis(20);
/// A look that takes 1 ms is followed by at least this many without one: a tenth of one core at most.
const PAUSE: u32 = 9;
/// How long answers may take after the last moment of a look: a scheduler's turn or two of a busy
/// machine.
const SETTLE: Duration = Duration::from_millis(100);
/// The longest wait while answers are being named: a new wish may come between a turn and the wait.
const ANSWER_TURN: Duration = Duration::from_millis(50);
/// Between two looks at whether they have come.
const SETTLE_TURN: Duration = Duration::from_millis(2);

/// What the thread does between two waits.
pub(crate) struct WallCollector {
    workers: Arc<[String]>,
    readers: Vec<Reader>,
    /// There while somebody looks.
    asker: Option<Asker>,
    store: Arc<Store>,
    answers: Answering,
    /// Readers whose addresses are being named.
    answering: Vec<u64>,
}

impl fmt::Debug for WallCollector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WallCollector")
            .field("readers", &self.readers.len())
            .finish_non_exhaustive()
    }
}

/// A wish that is being fulfilled.
#[derive(Debug)]
struct Reader {
    id: u64,
    look: Look,
    start: Instant,
    start_unix_nanos: u64,
    /// The next moment to look at, and the last: a moment stands for the time since the one before.
    next: Instant,
    last: Instant,
    moments: u64,
    /// Since when only answers are waited for.
    settling: Option<Instant>,
    /// Threads were looked at once, so that it is known which of them compute.
    noted: bool,
    /// A thread was among the chosen.
    met: bool,
    gathered: Gathered,
}

impl Reader {
    fn new(id: u64, look: Look, now: Instant) -> Self {
        let (next, gathered) = match &look {
            Look::Over(wish) => (now + wish.rate.period(), Gathered::Window(Box::default())),
            Look::Now { .. } => (now, Gathered::Now(Vec::new())),
        };
        Self {
            id,
            start: now,
            start_unix_nanos: unix_nanos_now(),
            next,
            last: now,
            moments: 0,
            settling: None,
            noted: matches!(look, Look::Over(_) | Look::Now { stacks: false }),
            met: false,
            gathered,
            look,
        }
    }

    fn is_due(&self, now: Instant) -> bool {
        self.settling.is_none() && self.next <= now
    }

    fn wants(&self, thread: &Thread, is_worker: bool) -> bool {
        match &self.look {
            Look::Now { .. } => true,
            Look::Over(_) if thread.is_agents_own() => false,
            Look::Over(wish) => match &wish.threads {
                ThreadChoice::Workers => is_worker,
                ThreadChoice::All => true,
                ThreadChoice::Prefix(prefix) => thread.name.starts_with(threads::cut(prefix)),
            },
        }
    }

    /// Moves on to the next moment, past those that were missed, and so far that looking takes no
    /// more than its share: a moment stands for the time since the one before, however long.
    fn step(&mut self, now: Instant, took: Duration) {
        self.last = now;
        if !self.noted {
            self.noted = true;
            self.next = now + NOTED;
            return;
        }
        let soon = match &self.look {
            Look::Now { .. } => self.next,
            Look::Over(wish) => {
                let (period, passed) = (wish.rate.period(), now.duration_since(self.next));
                let whole = passed.as_nanos() / period.as_nanos().max(1);
                self.next += period * (u32::try_from(whole).unwrap_or(u32::MAX - 1) + 1);
                self.next = self.next.max(now + took * PAUSE);
                self.moments += 1;
                let end = self.start + wish.duration;
                if self.next <= end {
                    return;
                }
                // The last moment is at the end, so that the whole window is told.
                self.next = end;
                now + period / 2
            }
        };
        if self.next <= soon {
            self.settling = Some(now);
        }
    }
}

impl WallCollector {
    /// `workers` are names that the host gave to the threads of its runtimes.
    pub(crate) fn new(store: Arc<Store>, workers: &[String]) -> Self {
        Self {
            workers: workers.into(),
            readers: Vec::new(),
            asker: None,
            answers: Answering::new(Arc::clone(&store)),
            store,
            answering: Vec::new(),
        }
    }

    /// Does what is due, then waits until something else is.
    pub(crate) fn turn(&mut self) {
        let looks = Arc::clone(&self.store.looks);
        let wait = self.work(Instant::now());
        if self.readers.is_empty() && self.answering.is_empty() {
            looks.wait_for_wish(IDLE_TURN);
        } else {
            looks.wait(wait);
        }
    }

    fn work(&mut self, now: Instant) -> Duration {
        let looks = &self.store.looks;
        looks.expire(now);
        let open = looks.open();
        let is_open = |id| open.iter().any(|(open, _)| *open == id);
        self.readers.retain(|reader| is_open(reader.id));
        self.answering.retain(|id| is_open(*id));
        for (id, look) in open {
            let known = self.readers.iter().any(|reader| reader.id == id);
            if !known && !self.answering.contains(&id) {
                self.readers.push(Reader::new(id, look, now));
            }
        }
        if self.readers.is_empty() {
            // The unwinder's copies and the session go with it.
            self.asker = None;
            return ANSWER_TURN;
        }
        if let Err(why) = self.look(now) {
            for reader in self.readers.drain(..) {
                self.store.looks.answer(reader.id, Err(why.clone()));
            }
            self.asker = None;
            return IDLE_TURN;
        }
        self.finish(now);
        let waits = self.readers.iter().map(|reader| match reader.settling {
            Some(_) => SETTLE_TURN,
            None => reader.next.saturating_duration_since(Instant::now()),
        });
        waits.min().unwrap_or(ANSWER_TURN).min(IDLE_TURN)
    }

    /// Takes answers, and asks for the moments that are due.
    fn look(&mut self, now: Instant) -> Result<(), Unavailable> {
        let asker = match &mut self.asker {
            Some(asker) if !asker.is_hijacked() => asker,
            place => {
                // A session is let go before the next is begun.
                *place = None;
                place.insert(Asker::begin(&self.workers)?)
            }
        };
        let readers = &mut self.readers;
        asker.take(&mut |moment| tell(readers, moment));
        if !readers.iter().any(|reader| reader.is_due(now)) {
            return Ok(());
        }
        let threads = asker
            .threads()
            .map_err(|error| Unavailable(format!("the threads cannot be listed: {error}")))?;
        asker.sweep(&threads, &mut |moment| tell(readers, moment));
        let noting = readers.iter().any(|reader| !reader.noted);
        for thread in &threads {
            let is_worker = asker.is_worker(thread);
            let mut owed = Vec::new();
            let due = readers.iter_mut().filter(|reader| reader.is_due(now));
            for reader in due.filter(|reader| reader.noted) {
                if reader.wants(thread, is_worker) {
                    reader.met = true;
                    let state = if thread.runs() { RUNNING } else { BLOCKED };
                    reader.gathered.list(thread, state);
                    if reader.look != (Look::Now { stacks: false }) {
                        let passed = now.duration_since(reader.last).as_nanos();
                        owed.push(Owed {
                            reader: reader.id,
                            samples: 1,
                            nanos: u64::try_from(passed).unwrap_or(u64::MAX),
                        });
                    }
                }
            }
            if !owed.is_empty() {
                asker.meet(thread, &owed, &mut |moment| tell(readers, moment));
            } else if !is_worker && thread.runs() && noting {
                asker.computes(thread);
            }
        }
        let took = now.elapsed();
        for reader in readers.iter_mut().filter(|reader| reader.is_due(now)) {
            reader.step(now, took);
        }
        Ok(())
    }

    /// Answers readers whose look is over and whose threads have answered.
    fn finish(&mut self, now: Instant) {
        let mut place = 0;
        while let Some(reader) = self.readers.get(place) {
            let over = reader.settling.is_some_and(|since| {
                let patient = now.duration_since(since) < SETTLE;
                let owed = self
                    .asker
                    .as_ref()
                    .is_some_and(|asker| asker.owes(reader.id));
                !(patient && owed)
            });
            if !over {
                place += 1;
                continue;
            }
            let mut reader = self.readers.swap_remove(place);
            if let Some(asker) = &mut self.asker {
                let one = std::slice::from_mut(&mut reader);
                let id = one.first().map_or(0, |reader| reader.id);
                asker.close(id, &mut |moment| tell(one, moment));
            }
            if self.readers.is_empty() {
                // Before the answer, so that whoever asks next finds the session free.
                self.asker = None;
            }
            self.answer(reader);
        }
    }

    fn answer(&mut self, reader: Reader) {
        if !reader.met {
            let why = Unavailable(nobody(&reader.look, &self.workers));
            self.store.looks.answer(reader.id, Err(why));
            return;
        }
        self.answering.push(reader.id);
        let reader = Mutex::new(Some(reader));
        self.answers.spawn(move |desk| {
            let reader = lock(&reader).take();
            if let Some(reader) = reader {
                answer(desk, reader);
            }
        });
    }

    /// Stops looking and turns away whoever waits.
    pub(crate) fn stop(&mut self) {
        self.asker = None;
        self.readers.clear();
        let why = Unavailable("the agent is stopping".to_owned());
        self.store.looks.close(Err(why));
        self.answers.finish();
    }
}

/// Hands a moment to the readers that it is owed to.
fn tell(readers: &mut [Reader], moment: &Moment<'_>) {
    for owed in moment.owed {
        if let Some(reader) = readers.iter_mut().find(|reader| reader.id == owed.reader) {
            reader.gathered.add(moment, *owed);
        }
    }
}

fn nobody(look: &Look, workers: &[String]) -> String {
    match look {
        Look::Over(wish) => match &wish.threads {
            ThreadChoice::Prefix(prefix) => {
                format!("no thread has a name that begins with {prefix:?}")
            }
            ThreadChoice::Workers => {
                let more: Vec<String> = workers.iter().map(|name| format!(" or {name}")).collect();
                format!(
                    "no thread is named like a worker of an async runtime (tokio-rt-worker{}); \
                     choose with threads=all or threads=<prefix>",
                    more.concat()
                )
            }
            ThreadChoice::All => "no thread but the agent's own was there".to_owned(),
        },
        Look::Now { .. } => "no thread was there".to_owned(),
    }
}

fn answer(desk: &Desk, reader: Reader) {
    let looks = &desk.store.looks;
    let taken = Taken {
        duration: reader.last.duration_since(reader.start),
        start_unix_nanos: reader.start_unix_nanos,
        moments: reader.moments,
        look: reader.look,
    };
    let addresses = reader.gathered.addresses();
    let asked = match &taken.look {
        Look::Over(wish) => wish.duration,
        Look::Now { .. } => Duration::ZERO,
    };
    let symbolised = desk.symbolise(&addresses, true, asked, &|| looks.is_open(reader.id));
    let seen = profile::seen(reader.gathered, symbolised, &taken);
    looks.answer(reader.id, Ok(Arc::new(seen)));
}
