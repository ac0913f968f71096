//! Questions to single threads: what is it doing right now, whether it runs or waits?
//!
//! A question is our signal, sent to one thread with a value that names thread and session. Any process
//! of the same user may send the signal with the same code, so the session's number is drawn at random;
//! one that guesses it gets a true stack recorded at the wrong moment. The handler answers into an arena
//! of its own, so that timers' samples and answers never mix.
#![expect(
    unsafe_code,
    reason = "a signal with a value of our own for one thread"
)]

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};
use std::io;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

use super::arena::{Arena, Head};
use super::timer::Cookie;

/// Questions that may wait for their answers to be taken.
pub(crate) const SLOTS: usize = 128;

/// Questions and their answers. One session asks at a time.
#[derive(Debug)]
pub(crate) struct Asks {
    /// The session that takes answers; 0 between sessions.
    open: AtomicU32,
    /// The last session's number.
    last: AtomicU32,
    taken: AtomicBool,
    answers: Arena,
    /// Answers that came after their session, and those that found no slot.
    late: AtomicU64,
    full: AtomicU64,
}

/// A signal that is a question of ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Question {
    pub(crate) tid: u32,
    pub(crate) session: u32,
}

impl Asks {
    /// # Errors
    /// The kernel's if it gives no memory.
    pub(crate) fn new() -> io::Result<Self> {
        Ok(Self {
            open: AtomicU32::new(0),
            last: AtomicU32::new(0),
            taken: AtomicBool::new(false),
            answers: Arena::new(SLOTS)?,
            late: AtomicU64::new(0),
            full: AtomicU64::new(0),
        })
    }

    /// Begins to ask; `None` while another session does.
    pub(crate) fn begin(&'static self) -> Option<Session> {
        if self.taken.swap(true, Ordering::AcqRel) {
            return None;
        }
        // What is left belongs to nobody.
        self.answers.drain(|_, _| {});
        let number = random();
        self.last.store(number, Ordering::Release);
        self.open.store(number, Ordering::Release);
        Some(Session { asks: self, number })
    }

    /// What a signal asks, if it is of this session or the last.
    #[inline]
    pub(crate) fn question(&self, code: i32, value: u64) -> Option<Question> {
        let Cookie {
            number: tid,
            generation: session,
        } = Cookie::from_bits(value);
        let known = session != 0 && session == self.last.load(Ordering::Acquire);
        (code == libc::SI_QUEUE && known).then_some(Question { tid, session })
    }

    /// Answers, called from the handler: no lock, allocation or system call of its own.
    #[inline]
    pub(crate) fn answer(&self, question: Question, fill: impl FnOnce(*mut u8) -> Head) {
        if self.open.load(Ordering::Acquire) != question.session {
            self.late.fetch_add(1, Ordering::Relaxed);
        } else if !self.answers.write(fill) {
            self.full.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// A number that is not 0: SipHash under random keys of the standard library.
fn random() -> u32 {
    let [a, b, c, d, ..] = RandomState::new().build_hasher().finish().to_le_bytes();
    u32::from_le_bytes([a, b, c, d]).max(1)
}

/// The right to ask; ends when it is dropped.
#[derive(Debug)]
pub(crate) struct Session {
    asks: &'static Asks,
    number: u32,
}

impl Session {
    /// Asks a thread; the answer comes when it next runs outside the kernel. A thread is asked again
    /// only after it has answered, or its queue of signals would grow.
    ///
    /// # Errors
    /// The kernel's: ESRCH when the thread is gone, EAGAIN when the user's pending signals are used up.
    pub(crate) fn ask(&self, signal: i32, tid: u32) -> io::Result<()> {
        let info = AskInfo {
            signal,
            errno: 0,
            code: libc::SI_QUEUE,
            padding: 0,
            pid: std::process::id(),
            uid: 0,
            value: self.cookie(tid).to_bits(),
            rest: [0; 12],
        };
        let pid = std::process::id();
        // SAFETY: `info` is a live local of the 128 bytes that the call reads.
        let result = unsafe {
            libc::syscall(
                libc::SYS_rt_tgsigqueueinfo,
                pid,
                tid,
                signal,
                &raw const info,
            )
        };
        if result == 0 {
            Ok(())
        } else {
            Err(io::Error::last_os_error())
        }
    }

    /// What a question to a thread carries.
    pub(super) fn cookie(&self, tid: u32) -> Cookie {
        Cookie {
            number: tid,
            generation: self.number,
        }
    }

    /// Hands over the answers that have come.
    pub(crate) fn take(&self, mut answer: impl FnMut(&Head, &[u8])) {
        self.asks.answers.drain(|head, stack| {
            // A handler that was held up may write for the session before.
            if head.weight == self.number {
                answer(head, stack);
            }
        });
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.asks.open.store(0, Ordering::Release);
        self.asks.taken.store(false, Ordering::Release);
    }
}

/// The kernel's siginfo for a signal that carries a value, on every 64-bit Linux.
#[repr(C)]
struct AskInfo {
    signal: i32,
    errno: i32,
    code: i32,
    padding: i32,
    pid: u32,
    uid: u32,
    value: u64,
    rest: [u64; 12],
}

const _: () = assert!(size_of::<AskInfo>() == size_of::<libc::siginfo_t>());

#[cfg(test)]
mod tests {
    use super::*;

    fn asks() -> &'static Asks {
        Box::leak(Box::new(Asks::new().unwrap()))
    }

    fn head(session: u32) -> Head {
        Head {
            weight: session,
            ..Head::default()
        }
    }

    #[test]
    fn one_session_asks_at_a_time_and_takes_only_its_own_answers() {
        let asks = asks();
        let of = |session: &Session| Question {
            tid: 7,
            session: session.number,
        };
        let first = asks.begin().unwrap();
        assert!(asks.begin().is_none());
        let old = of(&first);
        asks.answer(old, |_| head(old.session));
        drop(first);
        let second = asks.begin().unwrap();
        asks.answer(old, |_| panic!("the session is over"));
        let new = of(&second);
        asks.answer(new, |_| head(old.session));
        asks.answer(new, |_| head(new.session));
        let mut taken = 0;
        second.take(|_, _| taken += 1);
        assert_eq!(taken, 1);
        assert_eq!(asks.late.load(Ordering::Relaxed), 1);
    }

    #[test]
    fn a_signal_of_another_code_or_session_is_no_question() {
        let asks = asks();
        let value = |session| {
            let cookie = Cookie {
                number: 7,
                generation: session,
            };
            cookie.to_bits()
        };
        assert_eq!(asks.question(libc::SI_QUEUE, value(0)), None);
        let session = asks.begin().unwrap().number;
        let ours = Question { tid: 7, session };
        assert_eq!(asks.question(libc::SI_QUEUE, value(session)), Some(ours));
        assert_eq!(asks.question(libc::SI_TIMER, value(session)), None);
        let guessed = value(session.wrapping_add(1));
        assert_eq!(asks.question(libc::SI_QUEUE, guessed), None);
        assert_eq!(asks.question(libc::SI_QUEUE, 0), None);
    }
}
