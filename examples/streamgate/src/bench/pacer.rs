//! Releases each arrival at its time.
//!
//! A thread of its own, because tokio's timers tick in milliseconds: at 1000 arrivals per second they
//! would add half a millisecond to every latency.

use std::io;
use std::thread;
use std::time::{Duration, Instant};

use tokio::sync::mpsc::Sender;

use super::plan::Arrival;

/// Longest nap, after which the pacer looks whether anybody still listens.
const NAP: Duration = Duration::from_millis(200);

/// An arrival with its intended start.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Due {
    /// What to ask.
    pub(crate) arrival: Arrival,
    /// When it was to be asked; latency counts from here.
    pub(crate) intended: Instant,
}

/// Sends the arrivals of a plan, each at `start` plus its offset, until the plan or the listener ends.
///
/// A full channel delays the sending and skips nothing: the intended start stays what it was, so the delay
/// shows as send lag and as latency.
///
/// # Errors
/// The operating system gives no thread.
pub(crate) fn start(
    plan: impl Iterator<Item = Arrival> + Send + 'static,
    start: Instant,
    arrivals: Sender<Due>,
) -> io::Result<thread::JoinHandle<()>> {
    thread::Builder::new()
        .name("bench-pacer".to_owned())
        .spawn(move || {
            for arrival in plan {
                let intended = start + arrival.at;
                if !sleep_until(intended, &arrivals) {
                    return;
                }
                if arrivals.blocking_send(Due { arrival, intended }).is_err() {
                    return;
                }
            }
        })
}

/// Whether the listener is still there at the deadline.
fn sleep_until(deadline: Instant, arrivals: &Sender<Due>) -> bool {
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return true;
        }
        if arrivals.is_closed() {
            return false;
        }
        thread::sleep(left.min(NAP));
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::mpsc;

    use super::*;
    use crate::bench::mix::Journey;

    fn arrival(at: Duration) -> Arrival {
        Arrival {
            number: 0,
            at,
            journey: Journey::Detail,
            content: 0,
            user: 0,
            form: 0,
            conditional: false,
            following: false,
            trace: None,
        }
    }

    #[test]
    fn intended_starts_do_not_move_while_the_listener_is_late() {
        let (sender, mut receiver) = mpsc::channel(1);
        let begin = Instant::now();
        let plan: Vec<Arrival> = (0..5).map(|n| arrival(Duration::from_millis(n))).collect();
        let pacer = start(plan.into_iter(), begin, sender).unwrap();
        // The channel holds one, so the rest leave only as they are taken, all after their time.
        while begin.elapsed() < Duration::from_millis(30) {
            thread::yield_now();
        }
        let mut intended = Vec::new();
        while let Some(due) = receiver.blocking_recv() {
            intended.push(due.intended - begin);
        }
        pacer.join().unwrap();
        assert_eq!(
            intended,
            (0..5).map(Duration::from_millis).collect::<Vec<_>>()
        );
    }

    #[test]
    fn pacer_ends_when_nobody_listens() {
        let (sender, receiver) = mpsc::channel(1);
        let pacer = start(
            [arrival(Duration::from_secs(3600))].into_iter(),
            Instant::now(),
            sender,
        )
        .unwrap();
        drop(receiver);
        pacer.join().unwrap();
    }
}
