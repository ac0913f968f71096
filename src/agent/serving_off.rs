//! The serving thread where no listener is built: answers for hosts that ask through `respond`.

use std::net::TcpListener;
use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::{Builder, Handle};
use tokio::sync::watch;
use tokio::time::MissedTickBehavior;

use super::Shared;
use super::threads;
use crate::config::Config;
use crate::error::Error;
use crate::export::respond::{self, Plane, Reply, Request};

/// How often overdue demands are looked for.
const EXPIRE_INTERVAL: Duration = Duration::from_millis(50);

/// How to reach the serving thread.
#[derive(Debug)]
pub(super) struct Serving {
    /// Answers are encoded on its runtime, never on the host's.
    pub(super) runtime: Handle,
    stop: watch::Sender<bool>,
}

impl Serving {
    /// Ends the thread; there is nothing to drain.
    pub(super) fn stop(&self, _drain: Duration) {
        self.stop.send_replace(true);
    }
}

/// Refuses an address that the host asked for by name.
pub(super) fn bind(config: &Config) -> Result<Option<TcpListener>, Error> {
    if config.address_given && config.address.is_some() {
        return Err(Error::refused("listen", "built without feature \"http\""));
    }
    Ok(None)
}

/// Starts the thread.
pub(super) fn start(
    shared: &Shared,
    _listener: Option<TcpListener>,
    plane: Arc<Plane>,
) -> Result<Serving, Error> {
    let runtime = Builder::new_current_thread()
        .enable_time()
        .build()
        .map_err(Error::runtime)?;
    let (stop, asked) = watch::channel(false);
    let serving = Serving {
        runtime: runtime.handle().clone(),
        stop,
    };
    threads::start("sg-serve", "serve", shared, move || {
        let (plane, mut asked) = (Arc::clone(&plane), asked.clone());
        runtime.block_on(async move {
            let mut ticks = tokio::time::interval(EXPIRE_INTERVAL);
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            while !*asked.borrow_and_update() {
                ticks.tick().await;
                plane.expire(std::time::Instant::now());
            }
        });
    })?;
    Ok(serving)
}

/// Makes one answer, on the serving thread's runtime.
pub(super) async fn answer(plane: Arc<Plane>, request: Request) -> Reply {
    respond::respond(&plane, request).await
}
