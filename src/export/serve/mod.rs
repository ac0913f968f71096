//! The only sockets of the crate: our own listener, and adapters for servers of the host.
//!
//! Thin on purpose: it moves bytes and keeps caps and clocks of connections. What a request may do
//! is judged behind `respond`, so no way in can skip it.

mod accept;
mod connection;
pub(crate) mod tower;
mod warp;
mod wire;

use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval};

use crate::export::respond::{self, Plane, Reply, Request};

pub(crate) use accept::{bind, run};
pub use tower::{AgentBody, AgentService, Connected};

/// Asks to stop, with the time that open answers get.
pub(crate) type Stop = watch::Receiver<Option<Duration>>;

/// How often overdue demands are looked for while an answer is being made.
const EXPIRE_INTERVAL: Duration = Duration::from_millis(50);

/// Answers a request on a tokio runtime, whose clock ends the waiting of overdue readers even if
/// the collecting threads are stuck in a callback of the host.
pub(crate) async fn answer(plane: &Plane, request: Request) -> Reply {
    let mut answer = pin!(respond::respond(plane, request));
    let mut ticks = interval(EXPIRE_INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    poll_fn(|context| {
        loop {
            if let Poll::Ready(reply) = answer.as_mut().poll(context) {
                return Poll::Ready(reply);
            }
            let Poll::Ready(now) = ticks.poll_tick(context) else {
                return Poll::Pending;
            };
            plane.expire(now.into_std());
        }
    })
    .await
}

/// The endpoints of a plane, answered on the runtime that asks.
fn endpoints(plane: &Arc<Plane>) -> AgentService {
    let plane = Arc::clone(plane);
    AgentService::new(move |request| {
        let plane = Arc::clone(&plane);
        async move { answer(&plane, request).await }
    })
}

#[cfg(test)]
mod tests;
