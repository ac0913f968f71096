//! One load from the first arrival to the last answer.

use std::cell::RefCell;
use std::io::{self, Write as _};
use std::rc::Rc;
use std::time::{Duration, Instant};

use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval_at};

use super::connection::{Line, Protocol};
use super::memory::Memory;
use super::own_cost;
use super::pacer::{self, Due};
use super::plan::{Plan, Shape};
use super::queue::Queue;
use super::record::Record;
use super::report::{Report, decimal};
use super::request::Asker;
use super::target::Target;
use super::worker::{self, Site};
use crate::error::Fatal;

/// Arrivals between the pacer and the generator. Full means that the generator stands still.
const HANDOVER: usize = 1024;
/// Time between the making of the plan and its first arrival.
const LEAD: Duration = Duration::from_millis(20);

/// Everything that says how to load.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    /// Where to.
    pub(crate) target: Target,
    /// When and what.
    pub(crate) shape: Shape,
    /// Protocol spoken.
    pub(crate) protocol: Protocol,
    /// Connections at most.
    pub(crate) connections: u16,
    /// Requests that wait or run at most.
    pub(crate) in_flight: usize,
    /// Seed of the service's content.
    pub(crate) content_seed: u64,
    /// Longest time from the intended start to the end of the answer.
    pub(crate) patience: Duration,
    /// Whether to write a line per second to the error stream.
    pub(crate) progress: bool,
    /// Process to end with.
    pub(crate) parent: Option<u32>,
}

/// Drives the load and sums it up. Ends early, with what it has, on an interrupt or when the parent is gone.
///
/// # Errors
/// The histogram library or the operating system refuses what the generator needs.
pub(crate) async fn drive(settings: Settings) -> Result<Report, Fatal> {
    let record = Record::new().map_err(|error| Fatal::Failed(format!("no histogram: {error}")))?;
    let record = Rc::new(RefCell::new(record));
    let target = Rc::new(settings.target.clone());
    let lines = Line::open_on_use(&target, settings.protocol, settings.connections, &record);
    let site = Rc::new(Site {
        queue: Queue::new(settings.in_flight),
        asker: Asker {
            target,
            protocol: settings.protocol,
            seed: settings.content_seed,
            run: run_number(),
        },
        memory: RefCell::new(Memory::default()),
        record: Rc::clone(&record),
        patience: settings.patience,
    });
    let mut workers = JoinSet::new();
    for line in lines {
        workers.spawn_local(worker::work(Rc::clone(&site), line));
    }
    let (sender, mut arrivals) = mpsc::channel::<Due>(HANDOVER);
    let cpu_before = own_cost::cpu_time();
    let start = Instant::now() + LEAD;
    pacer::start(Plan::new(settings.shape), start, sender).map_err(|source| Fatal::System {
        what: "no thread for the pacer",
        source,
    })?;

    let second = Duration::from_secs(1);
    let mut ticks = interval_at((start + second).into(), second);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let mut interrupt = std::pin::pin!(tokio::signal::ctrl_c());
    let mut planned = true;
    loop {
        tokio::select! {
            due = arrivals.recv(), if planned => match due {
                Some(due) => take_in(&site, due),
                None => {
                    planned = false;
                    site.queue.close();
                }
            },
            // Each worker ends once the queue is closed and empty, so the last one ends the load.
            ended = workers.join_next(), if !planned => {
                if ended.is_none() {
                    break;
                }
            }
            _ = ticks.tick() => {
                if settings.progress {
                    progress(start.elapsed(), &site);
                }
                if settings.parent.is_some_and(|parent| std::os::unix::process::parent_id() != parent) {
                    break;
                }
            }
            _ = &mut interrupt => break,
        }
    }
    let elapsed = start.elapsed();
    let cpu = own_cost::cpu_time()
        .zip(cpu_before)
        .map(|(after, before)| after.saturating_sub(before));
    Ok(Report::new(
        &record.borrow(),
        settings.shape.rate,
        elapsed,
        cpu,
    ))
}

fn take_in(site: &Site, due: Due) {
    let taken = Instant::now();
    if !site.queue.offer(due, taken) {
        let lag = taken.saturating_duration_since(due.intended);
        site.record
            .borrow_mut()
            .add_saturated(due.arrival.journey, lag);
    }
}

fn progress(elapsed: Duration, site: &Site) {
    let mut record = site.record.borrow_mut();
    let line = format!(
        "{:>4} s  {:>6} req  p95 {:>8} ms  errors {:>5}  in flight {}\n",
        elapsed.as_secs(),
        record.interval.requests,
        decimal(record.interval.latencies.quantile_ms(0.95), 2),
        record.interval.errors,
        site.queue.in_flight()
    );
    record.next_interval();
    // Nobody listens: the load matters more than the line.
    drop(io::stderr().write_all(line.as_bytes()));
}

/// A number that differs between runs, so that a second run's idempotency keys are new.
fn run_number() -> u64 {
    rand::random()
}
