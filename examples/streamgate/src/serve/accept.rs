//! The accept loop: a cap on connections, and a pause when the system hands none over.
//!
//! Metrics: `streamgate_connections_refused_total`, `streamgate_accept_failures_total`. Breaking test:
//! `a_connection_over_the_cap_is_closed`.

use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

use super::stack::Serves;
use super::stop::told;
use super::{connection, tls};
use crate::observe::Observe;

/// First pause after a failed accept. Without one, a process without file descriptors spins: the
/// connection stays in the queue and accept fails again at once.
const PAUSE: Duration = Duration::from_millis(100);

/// Longest pause: how late the service is back after descriptors are.
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// Accepts until told to stop; gives the connections that are still open.
pub(super) async fn accept(
    listener: TcpListener,
    tls: Option<TlsAcceptor>,
    service: impl Serves,
    observe: Observe,
    connections: usize,
    mut stop: watch::Receiver<bool>,
) -> JoinSet<()> {
    let free = Arc::new(Semaphore::new(connections));
    let mut open = JoinSet::new();
    let mut pause = PAUSE;
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            // The finished are taken away here, so that the set holds open connections only.
            Some(_) = open.join_next() => continue,
            () = told(&mut stop) => return open,
        };
        let stream = match accepted {
            Ok((stream, _)) => stream,
            Err(error) => {
                observe.accept_failures.inc();
                tracing::warn!(%error, "no connection was accepted");
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(LONGEST_PAUSE);
                continue;
            }
        };
        pause = PAUSE;
        let Ok(place) = Arc::clone(&free).try_acquire_owned() else {
            observe.refused.inc();
            continue;
        };
        quicken(&stream);
        let (tls, service) = (tls.clone(), service.clone());
        let (observe, stop) = (observe.clone(), stop.clone());
        open.spawn(async move {
            match tls {
                None => connection::serve(stream, service, observe, stop).await,
                Some(tls) => {
                    if let Some(stream) = tls::agree(&tls, stream).await {
                        connection::serve(stream, service, observe, stop).await;
                    }
                }
            }
            drop(place);
        });
    }
}

/// Small answers leave at once; a failure costs latency only.
fn quicken(stream: &TcpStream) {
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "TCP_NODELAY was refused");
    }
}
