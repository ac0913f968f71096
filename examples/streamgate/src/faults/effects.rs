//! Faults that act by themselves: what runs while a switch is on.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::Instant;

use super::{Fault, Faults, leak};
use crate::api::App;

/// Pause between two blocks of a worker: a runtime that never polls answers nobody, and nobody would see
/// that only some of its polls are late.
const BETWEEN_BLOCKS: Duration = Duration::from_millis(100);

/// Time that is burnt before the switch is looked at again.
const BURN: Duration = Duration::from_millis(5);

/// Longest time for taking an index away or giving one back, and the pause until it is tried again.
const SWAP: Duration = Duration::from_secs(10);
const AGAIN: Duration = Duration::from_secs(1);

/// What runs, and with which value; it ends when this is dropped.
#[derive(Debug)]
struct Effect {
    value: u64,
    _end: oneshot::Sender<Infallible>,
}

/// Keeps what runs in step with the switches, and ends faults whose time is over. Runs until aborted.
pub(crate) async fn drive(app: Arc<App>) {
    let faults = app.observe.faults.clone();
    let mut changed = faults.0.changed.subscribe();
    let mut leak: Option<Effect> = None;
    let mut block: Option<Effect> = None;
    let mut burn: Option<Effect> = None;
    // `None` where nobody knows: a swap that was given up may still be made.
    let mut dropped = Some(0);
    loop {
        let mut next = faults.expire();
        follow(&faults, Fault::Leak, &mut leak, |rate, end| {
            tokio::spawn(until(end, leak::leak(rate)));
        });
        follow(&faults, Fault::BlockWorker, &mut block, |time, end| {
            tokio::spawn(until(end, block_workers(Duration::from_millis(time))));
        });
        follow(&faults, Fault::CpuBurn, &mut burn, |_, end| {
            let burning = std::thread::Builder::new().name("cpu-burn".to_owned());
            if let Err(error) = burning.spawn(move || burn_cpu(end)) {
                tracing::warn!(%error, "the fault cpu_burn has no thread");
            }
        });
        let wanted = faults.value(Fault::DropIndex);
        if dropped != Some(wanted) {
            dropped = None;
            // All are made again first, so that another name does not leave two away.
            match tokio::time::timeout(SWAP, app.db.swap_index(wanted)).await {
                Ok(Ok(())) => dropped = Some(wanted),
                Ok(Err(error)) => tracing::warn!(%error, "drop_index is not as it should be"),
                Err(_) => tracing::warn!("the database has not swapped an index in {SWAP:?}"),
            }
        }
        if dropped.is_none() {
            let again = Instant::now() + AGAIN;
            next = Some(next.map_or(again, |next| next.min(again)));
        }
        let over = async {
            match next {
                Some(next) => tokio::time::sleep_until(next).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            told = changed.changed() => if told.is_err() { return },
            () = over => {}
        }
    }
}

/// Starts, ends or restarts what a fault runs, where its value has changed.
fn follow(
    faults: &Faults,
    fault: Fault,
    running: &mut Option<Effect>,
    start: impl FnOnce(u64, oneshot::Receiver<Infallible>),
) {
    let value = faults.value(fault);
    if running.as_ref().map_or(0, |effect| effect.value) == value {
        return;
    }
    *running = None;
    if value != 0 {
        let (end, ended) = oneshot::channel();
        start(value, ended);
        *running = Some(Effect { value, _end: end });
    }
}

async fn until(end: oneshot::Receiver<Infallible>, effect: impl Future<Output = ()>) {
    tokio::select! {
        _ = end => {}
        () = effect => {}
    }
}

/// Blocks as many tasks as there are workers: one alone would leave the others to poll what is woken.
async fn block_workers(time: Duration) {
    let workers = tokio::runtime::Handle::current().metrics().num_workers();
    let mut blocking = tokio::task::JoinSet::new();
    for _ in 0..workers {
        blocking.spawn(block_worker(time));
    }
    while blocking.join_next().await.is_some() {}
}

/// What nobody should do in a task: it keeps the worker that polls it from polling others.
async fn block_worker(time: Duration) {
    loop {
        std::thread::sleep(time);
        tokio::time::sleep(BETWEEN_BLOCKS).await;
    }
}

/// The function that a CPU profile names. Never inlined, or its caller would stand in its place.
#[inline(never)]
fn burn_cpu(mut end: oneshot::Receiver<Infallible>) {
    let mut state = 1_u64;
    while matches!(end.try_recv(), Err(oneshot::error::TryRecvError::Empty)) {
        let started = Instant::now();
        while started.elapsed() < BURN {
            for _ in 0..1_000 {
                state = std::hint::black_box(state.wrapping_mul(6_364_136_223_846_793_005) ^ 1);
            }
        }
    }
}
