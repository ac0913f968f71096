//! The serving thread: the listener, and answers for hosts that mount the endpoints themselves.

use std::net::TcpListener;
use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::{Builder, Handle};
use tokio::sync::watch;

use super::Shared;
use super::threads;
use crate::config::Config;
use crate::error::Error;
use crate::export::respond::{Plane, Reply, Request};

/// How to reach the serving thread.
#[derive(Debug)]
pub(super) struct Serving {
    /// Answers are encoded on its runtime, never on the host's.
    pub(super) runtime: Handle,
    stop: watch::Sender<Option<Duration>>,
}

impl Serving {
    /// Ends the thread: no new connections, open ones get `drain` to finish.
    pub(super) fn stop(&self, drain: Duration) {
        self.stop.send_replace(Some(drain));
    }
}

/// Binds the listener that the host asked for.
pub(super) fn bind(config: &Config) -> Result<Option<TcpListener>, Error> {
    config.address.map(crate::export::serve::bind).transpose()
}

/// Starts the thread.
pub(super) fn start(
    shared: &Shared,
    listener: Option<TcpListener>,
    plane: Arc<Plane>,
) -> Result<Serving, Error> {
    let runtime = Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(Error::runtime)?;
    let (stop, asked) = watch::channel(None);
    let serving = Serving {
        runtime: runtime.handle().clone(),
        stop,
    };
    threads::start("sg-serve", "serve", shared, move || {
        // After a panic the same listener goes on: clients meet a closed connection, not a refused one.
        let serve = crate::export::serve::run(listener.as_ref(), Arc::clone(&plane), asked.clone());
        runtime.block_on(serve);
    })?;
    Ok(serving)
}

/// Makes one answer, on the serving thread's runtime.
pub(super) async fn answer(plane: Arc<Plane>, request: Request) -> Reply {
    crate::export::serve::answer(&plane, request).await
}
