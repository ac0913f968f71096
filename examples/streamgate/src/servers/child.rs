//! A program that ends with us, however we end.
//!
//! Breaking tests: `a_program_ends_with_the_value_that_stands_for_it`,
//! `a_program_ends_and_its_data_goes_when_its_owner_is_killed`.
//!
//! Linux can send a signal to a child whose parent died (`PR_SET_PDEATHSIG`), but asking for it takes
//! `unsafe`, and it is lost where the program changes its user. So a shell goes first: it leaves a
//! watcher behind that reads from a pipe of ours, and turns into the program. The kernel closes the pipe
//! in whichever way we end, and then the watcher ends the program and removes its data.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;
use tokio::time::Instant;

use crate::error::Fatal;

/// `$1` is the signal that ends the program soonest, `$2` its directory, the rest its command line.
///
/// The watcher is a grandchild, so that the program never sees an end of a child it does not know. It
/// continues a stopped program, which takes no other signal than KILL.
const SCRIPT: &str = r#"
signal=$1 dir=$2
shift 2
exec 3<&0
(
    {
        read -r word <&3
        kill -s "$signal" $$
        kill -s CONT $$
        turns=0
        while kill -s 0 $$ && [ "$turns" -lt 100 ]; do
            turns=$((turns + 1))
            sleep 0.1
        done
        if [ "$turns" -eq 100 ]; then
            kill -s KILL $$
        fi
        if [ "$word" != keep ]; then
            rm -rf -- "$dir"
        fi
    } >/dev/null 2>&1 &
)
exec "$@" </dev/null 3<&-
"#;

/// Pause between two looks at whether a program is ready or gone.
const LOOK: Duration = Duration::from_millis(20);

/// Bytes at the end of its log that say why a program did not start.
const SAID: usize = 2_000;

/// What is to be started.
#[derive(Clone, Debug)]
pub struct Program {
    /// Its name in messages.
    pub name: &'static str,
    /// The file.
    pub file: PathBuf,
    /// What follows on the command line.
    pub arguments: Vec<OsString>,
    /// Prefix of the command line for another user, as [`as_user`] gives it; empty for our own.
    pub prefix: Vec<OsString>,
    /// The signal that ends it soonest, as `kill -s` names it: `TERM`.
    pub end: &'static str,
}

/// A directory for the data of a program. Its path leads through nothing that only we may enter, unless
/// `TMPDIR` does.
///
/// # Errors
/// The directory cannot be made.
pub fn scratch(name: &str) -> Result<TempDir, Fatal> {
    tempfile::Builder::new()
        .prefix(&format!("streamgate-{name}-"))
        .tempdir()
        .map_err(|source| Fatal::File {
            path: std::env::temp_dir(),
            source,
        })
}

/// A loopback port that nobody had a moment ago.
///
/// # Errors
/// The system has none.
pub fn free_port() -> Result<u16, Fatal> {
    TcpListener::bind(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))
        .and_then(|listener| listener.local_addr())
        .map(|address| address.port())
        .map_err(|source| Fatal::System {
            what: "no loopback port is free",
            source,
        })
}

/// A started program with its directory.
#[derive(Debug)]
pub struct Child {
    program: Program,
    dir: TempDir,
    /// `None` between an end and a new start.
    process: Option<std::process::Child>,
}

impl Child {
    /// Starts the program; its output goes to `log` in the directory.
    ///
    /// # Errors
    /// The shell or the log cannot be opened. A program that is missing or refuses its options ends at
    /// once, which [`ready`](Self::ready) reports.
    pub fn start(program: Program, dir: TempDir) -> Result<Self, Fatal> {
        let process = Some(spawn(&program, dir.path())?);
        Ok(Self {
            program,
            dir,
            process,
        })
    }

    /// The directory of its data.
    #[must_use]
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// Its process id; `None` after its end.
    #[must_use]
    pub fn id(&self) -> Option<u32> {
        self.process.as_ref().map(std::process::Child::id)
    }

    /// Waits until `probe` says yes.
    ///
    /// # Errors
    /// The program ended, or the time is over; the end of its log is in the text.
    pub async fn ready(
        &mut self,
        within: Duration,
        mut probe: impl AsyncFnMut() -> bool,
    ) -> Result<(), Fatal> {
        let deadline = Instant::now() + within;
        loop {
            if self.ended() {
                return Err(self.failed("ended before it was ready"));
            }
            let asked = tokio::time::timeout_at(deadline, probe()).await;
            if asked == Ok(true) {
                return Ok(());
            }
            if Instant::now() >= deadline {
                return Err(self.failed("was not ready in time"));
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Ends it at once, as a crash would, and keeps its data for [`restart`](Self::restart).
    pub fn kill(&mut self) {
        if let Some(id) = self.id() {
            // One that has ended already is as dead.
            drop(signal(id, Signal::KILL));
        }
        self.end(true);
    }

    /// Starts it again on the same data after [`kill`](Self::kill).
    ///
    /// # Errors
    /// As [`start`](Self::start).
    pub fn restart(&mut self) -> Result<(), Fatal> {
        self.end(true);
        self.process = Some(spawn(&self.program, self.dir.path())?);
        Ok(())
    }

    fn ended(&mut self) -> bool {
        let Some(process) = &mut self.process else {
            return true;
        };
        // An error means that nobody knows of such a process.
        !matches!(process.try_wait(), Ok(None))
    }

    /// Tells the watcher, which ends the program within seconds, and waits for that.
    fn end(&mut self, keep: bool) {
        let Some(mut process) = self.process.take() else {
            return;
        };
        if let Some(mut pipe) = process.stdin.take() {
            // Without the word, or without a watcher, the end of the pipe says the rest.
            let word: &[u8] = if keep { b"keep\n" } else { b"" };
            drop(pipe.write_all(word));
        }
        drop(process.wait());
    }

    fn failed(&self, what: &str) -> Fatal {
        let log = std::fs::read(self.dir.path().join("log")).unwrap_or_default();
        let end = log.get(log.len().saturating_sub(SAID)..).unwrap_or(&log);
        let said = String::from_utf8_lossy(end);
        Fatal::Failed(format!(
            "{} {what}; it said: {}",
            self.program.name,
            said.trim()
        ))
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        // The directory goes right after, by its own drop.
        self.end(true);
    }
}

/// Sends a signal to a process.
///
/// # Errors
/// There is no such process, or it is somebody else's.
pub fn signal(process: u32, signal: Signal) -> io::Result<()> {
    let pid = i32::try_from(process).ok().and_then(Pid::from_raw);
    let pid = pid.ok_or(io::ErrorKind::InvalidInput)?;
    Ok(kill_process(pid, signal)?)
}

/// Processes whose parent this is now.
#[must_use]
pub fn children(parent: u32) -> Vec<u32> {
    let entries = std::fs::read_dir("/proc").into_iter().flatten();
    let of_parent = entries.filter_map(|entry| {
        let name = entry.ok()?.file_name();
        let id: u32 = name.to_str()?.parse().ok()?;
        let stat = std::fs::read_to_string(format!("/proc/{id}/stat")).ok()?;
        // The name of the program stands in parentheses and may hold any character.
        let mut fields = stat.rsplit_once(')')?.1.split_whitespace();
        let its_parent: u32 = fields.nth(1)?.parse().ok()?;
        (its_parent == parent).then_some(id)
    });
    of_parent.collect()
}

/// The command-line prefix that runs a program as this user, with no group of ours.
#[must_use]
pub fn as_user(user: &str) -> Vec<OsString> {
    let words = [
        "setpriv",
        "--reuid",
        user,
        "--regid",
        user,
        "--clear-groups",
        "--",
    ];
    words.map(OsString::from).to_vec()
}

fn spawn(program: &Program, dir: &Path) -> Result<std::process::Child, Fatal> {
    let path = dir.join("log");
    let log = File::options().create(true).append(true).open(&path);
    let log = log.and_then(|log| Ok((log.try_clone()?, log)));
    let (log, also) = log.map_err(|source| Fatal::File { path, source })?;
    let words = [OsStr::new(program.end), dir.as_os_str()];
    let command = program.prefix.iter().map(OsString::as_os_str);
    let command = command
        .chain([program.file.as_os_str()])
        .chain(program.arguments.iter().map(OsString::as_os_str));
    Command::new("sh")
        .args(["-c", SCRIPT, "sh"])
        .args(words)
        .args(command)
        .current_dir(dir)
        .stdin(Stdio::piped())
        .stdout(log)
        .stderr(also)
        // Ctrl-C in a terminal goes to our group; the program ends after what we still ask of it.
        .process_group(0)
        .spawn()
        .map_err(|source| Fatal::System {
            what: "cannot start a shell",
            source,
        })
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead as _, BufReader};
    use std::time::Instant;

    use super::*;

    fn sleeper() -> Program {
        Program {
            name: "sleep",
            file: "sleep".into(),
            arguments: vec!["1000".into()],
            prefix: Vec::new(),
            end: "TERM",
        }
    }

    fn runs(process: u32) -> bool {
        let stat = std::fs::read_to_string(format!("/proc/{process}/stat"));
        stat.is_ok_and(|stat| !stat.contains(") Z "))
    }

    fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
        let deadline = Instant::now() + Duration::from_secs(60);
        while !holds() {
            assert!(Instant::now() < deadline, "never: {what}");
            std::thread::sleep(LOOK);
        }
    }

    #[test]
    fn a_program_ends_with_the_value_that_stands_for_it() {
        let mut child = Child::start(sleeper(), scratch("test").unwrap()).unwrap();
        let (first, dir) = (child.id().unwrap(), child.dir().to_owned());
        // Stopped, it would take no TERM.
        signal(first, Signal::STOP).unwrap();
        child.kill();
        assert!(!runs(first) && dir.exists());
        child.restart().unwrap();
        let second = child.id().unwrap();
        assert!(runs(second));
        drop(child);
        assert!(!runs(second) && !dir.exists());
    }

    /// The owner is a process of its own: this test binary, told to run `hold` alone.
    #[test]
    fn a_program_ends_and_its_data_goes_when_its_owner_is_killed() {
        let mut owner = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "servers::child::tests::hold", "--nocapture"])
            .env("STREAMGATE_TEST_HOLD", "1")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(owner.stdout.take().unwrap()).lines();
        let line = lines
            .map(Result::unwrap)
            .find(|line| line.contains("holding "));
        let line = line.unwrap();
        let mut words = line.split("holding ").nth(1).unwrap().split(' ');
        let process: u32 = words.next().unwrap().parse().unwrap();
        let dir = PathBuf::from(words.next().unwrap());
        eventually("the program runs", || {
            std::fs::read_to_string(format!("/proc/{process}/comm"))
                .is_ok_and(|name| name == "sleep\n")
        });
        assert!(dir.exists());
        owner.kill().unwrap();
        owner.wait().unwrap();
        eventually("the program ends", || !runs(process));
        eventually("its data goes", || !dir.exists());
    }

    /// Not a test by itself: the owner that the test above kills.
    #[test]
    fn hold() {
        if std::env::var_os("STREAMGATE_TEST_HOLD").is_none() {
            return;
        }
        let child = Child::start(sleeper(), scratch("test").unwrap()).unwrap();
        let line = format!(
            "holding {} {}\n",
            child.id().unwrap(),
            child.dir().display()
        );
        io::stdout().write_all(line.as_bytes()).unwrap();
        let mut forever = String::new();
        drop(io::stdin().read_line(&mut forever));
    }

    #[tokio::test]
    async fn a_program_that_does_not_start_says_why() {
        let mut program = sleeper();
        program.arguments = vec!["nonsense".into()];
        let mut child = Child::start(program, scratch("test").unwrap()).unwrap();
        let never = child.ready(Duration::from_secs(60), async || false).await;
        let text = never.unwrap_err().to_string();
        assert!(
            text.contains("ended before") && text.contains("nonsense"),
            "{text}"
        );
    }
}
