//! The threads of this process as the kernel sees them at one moment.

use std::fs::{self, File};
use std::io::{self, Read};
use std::time::Duration;

use super::calls;
use crate::collect::sys::sampling::records::{self, ThreadName};
use crate::collect::sys::sampling::{signal, timer};

/// How tokio names its workers and its blocking threads; the kernel keeps 15 bytes of a name.
///
/// Source: tokio 1.54 `tokio-rt-worker`, before 1.41 `tokio-runtime-worker`.
const WORKERS: [&str; 2] = ["tokio-rt-worker", "tokio-runtime-w"];

/// A thread's state and what it does in the kernel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Thread {
    pub(super) tid: u32,
    pub(super) name: String,
    /// As `ps` shows it: `R` runs or wants to, `S` waits, `D` waits without being interruptible.
    pub(super) state: u8,
    pub(super) call: Call,
}

/// Where a thread is in the kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Call {
    /// In none, or running.
    None,
    Number(u16),
    /// The kernel does not say.
    Unknown,
}

/// More of a thread, at the price of another file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Status {
    blocked: u64,
    /// How often it has waited.
    pub(super) waits: u64,
}

impl Status {
    /// Whether the thread keeps our signal from itself: then it would never answer.
    pub(super) fn blocks(self, number: i32) -> bool {
        signal::is_in(self.blocked, number)
    }
}

impl Thread {
    pub(super) fn runs(&self) -> bool {
        self.state == b'R'
    }

    /// Waits where a spurious return is legal, if it is a worker of an async runtime: workers wait
    /// in loops for tasks and events.
    pub(super) fn waits_for_work(&self) -> bool {
        let parks = |number| calls::FUTEX == number || calls::is_epoll(number);
        self.state == b'S' && matches!(self.call, Call::Number(number) if parks(number))
    }

    pub(super) fn is_worker(&self, named_by_host: &[String]) -> bool {
        let named = named_by_host.iter().map(|name| cut(name));
        WORKERS
            .into_iter()
            .chain(named)
            .any(|prefix| !prefix.is_empty() && self.name.starts_with(prefix))
    }

    pub(super) fn is_agents_own(&self) -> bool {
        let mut name = ThreadName::default();
        for (place, byte) in name.iter_mut().zip(self.name.bytes()) {
            *place = byte;
        }
        records::is_agents_own(&name)
    }

    /// CPU time that it has used.
    pub(super) fn cpu(&self) -> Option<Duration> {
        timer::thread_cpu(self.tid)
    }
}

/// What the kernel keeps of a thread's name.
pub(super) fn cut(name: &str) -> &str {
    name.get(..name.floor_char_boundary(15)).unwrap_or_default()
}

/// Reads threads, with one buffer for all.
#[derive(Debug, Default)]
pub(super) struct Reader {
    buffer: Vec<u8>,
}

impl Reader {
    /// The ids of all threads.
    ///
    /// # Errors
    /// If the kernel does not show the process its own threads.
    pub(super) fn all(&self) -> io::Result<Vec<u32>> {
        let tasks = fs::read_dir("/proc/self/task")?;
        let ids = tasks.filter_map(|task| task.ok()?.file_name().to_str()?.parse().ok());
        Ok(ids.collect())
    }

    /// A thread now; `None` if it has ended.
    pub(super) fn look(&mut self, tid: u32) -> Option<Thread> {
        self.read(tid, "stat").ok()?;
        let (name, state) = stat(&self.buffer)?;
        let call = if state == b'R' {
            Call::None
        } else {
            match self.read(tid, "syscall") {
                Ok(()) => call(&self.buffer),
                Err(_) => Call::Unknown,
            }
        };
        Some(Thread {
            tid,
            name,
            state,
            call,
        })
    }

    /// What else the kernel says of a thread; `None` if it has ended.
    pub(super) fn status(&mut self, tid: u32) -> Option<Status> {
        self.read(tid, "status").ok()?;
        let text = String::from_utf8_lossy(&self.buffer);
        let value = |key: &str| {
            let mut lines = text.lines();
            lines.find_map(|line| line.strip_prefix(key)).map(str::trim)
        };
        Some(Status {
            blocked: u64::from_str_radix(value("SigBlk:")?, 16).ok()?,
            waits: value("voluntary_ctxt_switches:")?.parse().ok()?,
        })
    }

    fn read(&mut self, tid: u32, file: &str) -> io::Result<()> {
        self.buffer.clear();
        let mut file = File::open(format!("/proc/self/task/{tid}/{file}"))?;
        file.read_to_end(&mut self.buffer).map(drop)
    }
}

/// Name and state: fields 2 and 3. The name may hold anything, parentheses too.
fn stat(bytes: &[u8]) -> Option<(String, u8)> {
    let text = String::from_utf8_lossy(bytes);
    let (_, rest) = text.split_once('(')?;
    let (name, rest) = rest.rsplit_once(')')?;
    let state = rest.trim_start().bytes().next()?;
    Some((name.to_owned(), state))
}

/// `running`, or the number of the system call and its arguments; -1 outside of one.
fn call(bytes: &[u8]) -> Call {
    let text = String::from_utf8_lossy(bytes);
    match text.split_whitespace().next() {
        Some("running" | "-1") => Call::None,
        Some(number) => number.parse().map_or(Call::Unknown, Call::Number),
        None => Call::Unknown,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn name_state_and_call_are_read_from_the_kernels_lines() {
        let line = b"12466 (a (b) c) S 12465 12462 29746 0 -1 4194304 128";
        assert_eq!(stat(line), Some(("a (b) c".to_owned(), b'S')));
        assert_eq!(call(b"230 0x0 0x0 0x7fff 0x7f71\n"), Call::Number(230));
        assert_eq!(call(b"running\n"), Call::None);
        assert_eq!(call(b"-1 0x7ffd 0x7f5\n"), Call::None);
        assert_eq!(call(b""), Call::Unknown);
    }

    #[test]
    fn a_thread_that_waits_for_a_message_sits_in_a_futex_and_one_that_looks_runs() {
        let (ready, waits) = std::sync::mpsc::channel();
        let (release, blocked) = std::sync::mpsc::channel::<()>();
        let thread = std::thread::Builder::new().name("wall-waits".to_owned());
        let thread = thread
            .spawn(move || {
                ready.send(timer::current_tid()).unwrap();
                blocked.recv().unwrap_or_default();
            })
            .unwrap();
        let tid = waits.recv().unwrap();
        let mut reader = Reader::default();
        assert!(reader.all().unwrap().contains(&tid));
        let deadline = std::time::Instant::now() + Duration::from_secs(30);
        let seen = loop {
            let seen = reader.look(tid).unwrap();
            if seen.waits_for_work() || std::time::Instant::now() > deadline {
                break seen;
            }
            std::thread::yield_now();
        };
        assert_eq!(
            (&*seen.name, seen.call),
            ("wall-waits", Call::Number(calls::FUTEX))
        );
        assert!(seen.waits_for_work() && !seen.is_worker(&[]));
        assert!(seen.is_worker(&["wall-".to_owned()]) && !seen.is_worker(&[String::new()]));
        let own = reader.look(timer::current_tid()).unwrap();
        assert!(own.runs() && own.call == Call::None);
        let status = reader.status(tid).unwrap();
        assert!(!status.blocks(libc::SIGRTMAX()) && status.waits > 0);
        drop(release);
        thread.join().unwrap();
    }

    #[test]
    fn a_long_name_is_compared_as_the_kernel_cuts_it() {
        assert_eq!(cut("tokio-runtime-worker"), "tokio-runtime-w");
        assert_eq!(cut("short"), "short");
        assert_eq!(cut("12345678901234ä"), "12345678901234");
    }
}
