//! Asks threads where they are, without disturbing those whose code would notice.
//!
//! A signal ends some waits early (EINTR), whatever its flags. So workers are asked while they run or
//! sit in a futex or an epoll wait, where a spurious return is legal, and other threads only if they
//! have been computing for a while: one that was just woken runs too, but on its way out of a call that
//! the signal would end. Of all others the system call is shown.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::marks;
use super::threads::{Reader, Thread};
use crate::collect::code::unwind::{End, Unwinder};
use crate::collect::cpu::engine;
use crate::collect::sys::sampling::ask::{SLOTS, Session};
use crate::collect::sys::sampling::sampler::Sampler;
use crate::collect::sys::sampling::signal;
use crate::store::Unavailable;
use crate::store::looks::{BLOCKED, RUNNING};
use crate::store::stacks::TRUNCATED;

/// How long a thread that waits may take to answer before it is asked no more.
const PATIENCE: Duration = Duration::from_secs(1);

/// CPU time that a thread must have used between two looks: more than a way out of a call takes.
const COMPUTING: Duration = Duration::from_millis(1);

/// What a reader gets for a moment of a thread.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Owed {
    pub(super) reader: u64,
    pub(super) samples: u64,
    pub(super) nanos: u64,
}

/// Where a thread was.
#[derive(Debug)]
pub(super) struct Moment<'a> {
    pub(super) tid: u32,
    pub(super) name: &'a str,
    /// [`RUNNING`] or [`BLOCKED`].
    pub(super) state: &'static str,
    /// Leaf first; one mark where the thread was not asked.
    pub(super) stack: &'a [u64],
    pub(super) truncated: bool,
    pub(super) owed: &'a [Owed],
}

/// A question without an answer yet.
#[derive(Debug)]
struct Pending {
    name: String,
    state: &'static str,
    asked: Instant,
    owed: Vec<Owed>,
}

impl Pending {
    fn owe(&mut self, more: Owed) {
        match self.owed.iter_mut().find(|owed| owed.reader == more.reader) {
            Some(owed) => {
                owed.samples += more.samples;
                owed.nanos += more.nanos;
            }
            None => self.owed.push(more),
        }
    }
}

pub(super) struct Asker {
    sampler: &'static Sampler,
    session: Session,
    unwinder: Unwinder,
    reader: Reader,
    workers: Arc<[String]>,
    pending: HashMap<u32, Pending>,
    /// Threads that were found to take the signal.
    open: HashSet<u32>,
    /// Threads that did not answer.
    deaf: HashSet<u32>,
    /// How often each thread that ran had waited, and its CPU time then.
    computing: HashMap<u32, (u64, Duration)>,
    frames: Vec<u64>,
}

impl fmt::Debug for Asker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Asker")
            .field("pending", &self.pending.len())
            .finish_non_exhaustive()
    }
}

impl Asker {
    /// # Errors
    /// With a text for the reader when this process cannot be asked.
    pub(super) fn begin(workers: &Arc<[String]>) -> Result<Self, Unavailable> {
        let sampler = engine::sampler()?;
        let session = sampler.asks.begin().ok_or_else(|| {
            Unavailable(
                "another agent of this process is looking at its threads; ask again when it is done"
                    .to_owned(),
            )
        })?;
        Ok(Self {
            sampler,
            session,
            unwinder: Unwinder::default(),
            reader: Reader::default(),
            workers: Arc::clone(workers),
            pending: HashMap::new(),
            open: HashSet::new(),
            deaf: HashSet::new(),
            computing: HashMap::new(),
            frames: Vec::new(),
        })
    }

    /// All threads as they are now.
    ///
    /// # Errors
    /// If the kernel does not show the process its own threads.
    pub(super) fn threads(&mut self) -> io::Result<Vec<Thread>> {
        let ids = self.reader.all()?;
        Ok(ids
            .into_iter()
            .filter_map(|tid| self.reader.look(tid))
            .collect())
    }

    pub(super) fn is_worker(&self, thread: &Thread) -> bool {
        thread.is_worker(&self.workers)
    }

    /// Whether the signal still is ours to send.
    pub(super) fn is_hijacked(&self) -> bool {
        !signal::is_ours(self.sampler.signal)
    }

    /// Asks a thread for the readers, or says at once what is to be said of it.
    pub(super) fn meet(
        &mut self,
        thread: &Thread,
        owed: &[Owed],
        tell: &mut dyn FnMut(&Moment<'_>),
    ) {
        if let Some(pending) = self.pending.get_mut(&thread.tid) {
            // It has not run since it was asked, so it is where it was.
            owed.iter().for_each(|owed| pending.owe(*owed));
            if !thread.runs() && pending.asked.elapsed() > PATIENCE {
                self.deaf.insert(thread.tid);
                self.give_up(thread.tid, tell);
            }
            return;
        }
        let state = if thread.runs() { RUNNING } else { BLOCKED };
        if self.may_ask(thread) && self.session.ask(self.sampler.signal, thread.tid).is_ok() {
            let pending = Pending {
                name: thread.name.clone(),
                state,
                asked: Instant::now(),
                owed: owed.to_vec(),
            };
            self.pending.insert(thread.tid, pending);
            return;
        }
        tell(&Moment {
            tid: thread.tid,
            name: &thread.name,
            state,
            stack: &[marks::of(thread)],
            truncated: false,
            owed,
        });
    }

    fn may_ask(&mut self, thread: &Thread) -> bool {
        if thread.is_agents_own() || self.deaf.contains(&thread.tid) {
            return false;
        }
        let legal = if self.is_worker(thread) {
            (thread.runs() || thread.waits_for_work()) && self.takes_signal(thread.tid)
        } else {
            self.computes(thread)
        };
        legal && self.pending.len() < SLOTS
    }

    /// Whether a thread lets the signal through; one that is just starting blocks all for a moment and
    /// is looked at again.
    fn takes_signal(&mut self, tid: u32) -> bool {
        if self.open.contains(&tid) {
            return true;
        }
        let status = self.reader.status(tid);
        let takes = status.is_some_and(|status| !status.blocks(self.sampler.signal));
        if takes {
            self.open.insert(tid);
        }
        takes
    }

    /// Whether a thread has used the CPU since it was last looked at and has not waited.
    pub(super) fn computes(&mut self, thread: &Thread) -> bool {
        let before = self.computing.remove(&thread.tid);
        if !thread.runs() || thread.is_agents_own() {
            return false;
        }
        let status = self.reader.status(thread.tid);
        let Some((status, cpu)) = status.zip(thread.cpu()) else {
            return false;
        };
        self.computing.insert(thread.tid, (status.waits, cpu));
        let went_on = |(waits, used): (u64, Duration)| {
            waits == status.waits && cpu.saturating_sub(used) >= COMPUTING
        };
        before.is_some_and(went_on) && !status.blocks(self.sampler.signal)
    }

    /// Takes the answers that have come.
    pub(super) fn take(&mut self, tell: &mut dyn FnMut(&Moment<'_>)) {
        if self.pending.is_empty() {
            return;
        }
        self.unwinder.refresh();
        let (unwinder, frames, pending) = (&mut self.unwinder, &mut self.frames, &mut self.pending);
        self.session.take(|head, stack| {
            let Some(asked) = pending.remove(&head.tid) else {
                return;
            };
            let truncated = unwinder.unwind(head, stack, frames) == End::Truncated;
            if truncated {
                frames.push(TRUNCATED);
            }
            tell(&Moment {
                tid: head.tid,
                name: &asked.name,
                state: asked.state,
                stack: frames,
                truncated,
                owed: &asked.owed,
            });
        });
    }

    /// Gives up on threads that have ended.
    pub(super) fn sweep(&mut self, alive: &[Thread], tell: &mut dyn FnMut(&Moment<'_>)) {
        let alive: HashSet<u32> = alive.iter().map(|thread| thread.tid).collect();
        self.open.retain(|tid| alive.contains(tid));
        self.deaf.retain(|tid| alive.contains(tid));
        self.computing.retain(|tid, _| alive.contains(tid));
        let ended: Vec<u32> = self.pending.keys().copied().collect();
        for tid in ended.into_iter().filter(|tid| !alive.contains(tid)) {
            self.give_up(tid, tell);
        }
    }

    fn give_up(&mut self, tid: u32, tell: &mut dyn FnMut(&Moment<'_>)) {
        if let Some(asked) = self.pending.remove(&tid) {
            tell(&Moment {
                tid,
                name: &asked.name,
                state: asked.state,
                stack: &[marks::NO_ANSWER],
                truncated: false,
                owed: &asked.owed,
            });
        }
    }

    /// Whether answers for a reader are still to come.
    pub(super) fn owes(&self, reader: u64) -> bool {
        let mut owed = self.pending.values().flat_map(|pending| &pending.owed);
        owed.any(|owed| owed.reader == reader)
    }

    /// Ends the waiting for a reader's answers.
    pub(super) fn close(&mut self, reader: u64, tell: &mut dyn FnMut(&Moment<'_>)) {
        for (tid, pending) in &mut self.pending {
            let of_reader = |owed: &&mut Owed| owed.reader == reader;
            let Some(owed) = pending.owed.iter_mut().find(of_reader).map(|owed| *owed) else {
                continue;
            };
            pending.owed.retain(|owed| owed.reader != reader);
            tell(&Moment {
                tid: *tid,
                name: &pending.name,
                state: pending.state,
                stack: &[marks::NO_ANSWER],
                truncated: false,
                owed: &[owed],
            });
        }
    }
}
