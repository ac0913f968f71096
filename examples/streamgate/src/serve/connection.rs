//! One client connection: HTTP/1.1 with keep-alive, or HTTP/2, over clear text or TLS.
//!
//! Guide 5.1 and 5.2. Metrics: `http_server_open_connections`, `http_server_connections_total`,
//! `http_server_requests_per_connection`, each by `network_protocol_version`. Breaking tests:
//! `a_silent_connection_is_closed`, `a_slow_head_is_closed_and_an_idle_connection_is_not`, `h2c_is_served`.

use std::convert::Infallible;
use std::time::Duration;

use http::header::CONNECTION;
use http::{HeaderValue, Request, Response};
use http_body::Body;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::watch;
use tower::Service;

use super::head_clock::{self, AwaitsHead, Version};
use super::stop::told;
use crate::faults::{Fault, Faults};
use crate::observe::Listener;

/// How long a kept-alive connection may idle; hyper's head timer runs meanwhile too.
const IDLE: Duration = Duration::from_secs(30);

/// Streams of one HTTP/2 connection at once.
const STREAMS: u32 = 128;

/// Streams a client may open and reset before it is cut off: rapid reset, CVE-2023-44487.
const PENDING_RESETS: usize = 32;

/// Bytes and number of the headers of one request.
const HEAD_BYTES: u32 = 16 << 10;
const HEADERS: usize = 64;

/// How often a silent HTTP/2 peer is asked whether it lives, and how long it may take to answer.
const PING: Duration = Duration::from_secs(20);
const PONG: Duration = Duration::from_secs(10);

/// Serves one connection to its end, or until `stop` and the answer under way.
pub(super) async fn serve<T, S, R>(
    stream: T,
    service: S,
    observe: Listener,
    mut stop: watch::Receiver<bool>,
) where
    T: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    S: Service<Request<Incoming>, Response = Response<R>, Error = Infallible>
        + Clone
        + Send
        + 'static,
    S::Future: Send + 'static,
    R: Body<Data: Send, Error: Into<Box<dyn std::error::Error + Send + Sync>>> + Send + 'static,
{
    let opened = tokio::select! {
        opened = head_clock::open(stream) => opened,
        () = told(&mut stop) => return,
    };
    let Some((io, version)) = opened else { return };
    let awaits_head = io.awaits_head();
    let connection = observe.agent.connection(version.label());
    let faults = observe.faults.clone();
    let service = service_fn(move |request: Request<Incoming>| {
        connection.request();
        let answering = awaits_head.as_ref().map(AwaitsHead::answering);
        let mut service = service.clone();
        let response = service.call(request);
        let fault = |faults: &Faults| faults.is_on(Fault::ConnClose);
        let close = version == Version::Http1 && faults.as_ref().is_some_and(fault);
        async move {
            let Ok(mut response) = response.await;
            drop(answering);
            if close {
                let close = HeaderValue::from_static("close");
                response.headers_mut().insert(CONNECTION, close);
            }
            Ok::<_, Infallible>(response)
        }
    });

    let builder = builder(version);
    let serving = builder.serve_connection(TokioIo::new(io), service);
    let mut serving = std::pin::pin!(serving);
    let ended = tokio::select! {
        ended = serving.as_mut() => ended,
        () = told(&mut stop) => {
            serving.as_mut().graceful_shutdown();
            serving.await
        }
    };
    if let Err(error) = ended {
        // Clients leave: that is their right and no warning.
        tracing::debug!(error, "a connection ended early");
    }
}

fn builder(version: Version) -> auto::Builder<TokioExecutor> {
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder
        .http1()
        // Without the timer the head timeout would never fire.
        .timer(TokioTimer::new())
        .header_read_timeout(IDLE)
        .max_headers(HEADERS)
        .max_buf_size(usize::try_from(HEAD_BYTES).unwrap_or(usize::MAX))
        .keep_alive(true);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(STREAMS)
        .max_pending_accept_reset_streams(PENDING_RESETS)
        .max_header_list_size(HEAD_BYTES)
        .keep_alive_interval(PING)
        .keep_alive_timeout(PONG);
    match version {
        Version::Http1 => builder.http1_only(),
        Version::Http2 => builder,
    }
}
