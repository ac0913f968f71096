//! Stopping without failing anybody: not ready, stop accepting, drain requests and jobs, then the agent.
//!
//! Breaking test: `a_stop_finishes_the_request_under_way`.

use std::fmt;
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal as listen};
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::Instant;

use super::Running;
use crate::error::Fatal;

/// Time of a whole stop after a signal: notice 5 s, drain 20 s, flush 5 s.
pub(crate) const DEADLINE: Duration = Duration::from_secs(30);

/// The part of the time that is left for the database and the agent: a sixth, 5 s of 30.
const FLUSH_PARTS: u32 = 6;

/// What runs beside the caller and how it is told to end.
#[derive(Debug)]
pub(super) struct Tasks {
    pub(super) stop: watch::Sender<bool>,
    pub(super) acceptor: JoinHandle<JoinSet<()>>,
    /// What ends with the process and holds nobody up.
    pub(super) background: Vec<JoinHandle<()>>,
    /// Hears what other instances write, until the last request has ended.
    pub(super) bus: Option<JoinHandle<()>>,
}

/// How a stop went.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stopped {
    /// Connections that were cut because they did not end in time.
    pub cut: usize,
    /// Threads of the agent that did not end in time.
    pub agent_still_running: Vec<&'static str>,
}

impl fmt::Display for Stopped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} connections cut", self.cut)?;
        if !self.agent_still_running.is_empty() {
            write!(
                f,
                "; still running: {}",
                self.agent_still_running.join(", ")
            )?;
        }
        Ok(())
    }
}

impl Running {
    /// Stops: reports "not ready" and waits the notice, accepts no more, lets requests under way
    /// end, closes the database, then the agent. What is left at the deadline is cut.
    pub async fn stop(self, deadline: Duration) -> Stopped {
        let end = Instant::now() + deadline;
        let drained_by = end - deadline / FLUSH_PARTS;
        self.agent.ready(false);
        let notice = Instant::now() + self.settings.stop_notice;
        tokio::time::sleep_until(notice.min(drained_by)).await;

        let Tasks {
            stop,
            acceptor,
            background,
            bus,
        } = self.tasks;
        stop.send_replace(true);
        background.iter().for_each(JoinHandle::abort);
        let cut = drain(acceptor, drained_by).await;
        if let Some(bus) = bus {
            bus.abort();
        }
        let given_up = self.app.work.workers.drain(drained_by).await;
        if given_up > 0 {
            tracing::warn!(given_up, "jobs waited when the time was over");
        }
        if tokio::time::timeout_at(end, self.app.db.close())
            .await
            .is_err()
        {
            tracing::warn!("the database did not close in time");
        }
        let left = end.saturating_duration_since(Instant::now());
        let agent_still_running = match self.agent.shutdown(left).await {
            Ok(shutdown) => shutdown.still_running,
            Err(error) => {
                tracing::warn!(%error, "the agent did not stop");
                Vec::new()
            }
        };
        Stopped {
            cut,
            agent_still_running,
        }
    }
}

/// Waits until an accept loop and its connections have ended; gives those that were cut at the deadline.
pub(crate) async fn drain(mut acceptor: JoinHandle<JoinSet<()>>, by: Instant) -> usize {
    match tokio::time::timeout_at(by, &mut acceptor).await {
        Ok(Ok(mut open)) => {
            let drained = async { while open.join_next().await.is_some() {} };
            if tokio::time::timeout_at(by, drained).await.is_ok() {
                return 0;
            }
            let cut = open.len();
            open.shutdown().await;
            cut
        }
        // It panicked, and its connections went with it.
        Ok(Err(_)) => 0,
        Err(_) => {
            acceptor.abort();
            0
        }
    }
}

/// Waits until the service is told to stop; a sender that is gone has stopped as well.
pub(super) async fn told(stop: &mut watch::Receiver<bool>) {
    drop(stop.wait_for(|stop| *stop).await);
}

/// Waits for SIGINT or SIGTERM.
///
/// # Errors
/// The system refuses to report signals.
pub(crate) async fn signal() -> Result<(), Fatal> {
    let refused = |source| Fatal::System {
        what: "signals cannot be listened for",
        source,
    };
    let mut interrupt = listen(SignalKind::interrupt()).map_err(refused)?;
    let mut terminate = listen(SignalKind::terminate()).map_err(refused)?;
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
    Ok(())
}
