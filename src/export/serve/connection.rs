//! One connection of our listener: hyper's HTTP/1 over a [`Wire`], its service, its end.

use std::convert::Infallible;
use std::future::{Future, poll_fn};
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tower_service::Service;

use super::Stop;
use super::tower::Connected;
use super::wire::{Cut, Io, Limits, Wire};
use crate::config;
use crate::export::guard::Reason;
use crate::export::respond::Plane;
use crate::store::sync::lock;

/// How a connection ended.
enum End {
    Cut(Cut),
    Over(Result<(), hyper::Error>),
}

/// Serves a connection until its end, counting a refusal that ended it.
pub(super) async fn serve<S, B>(
    stream: TcpStream,
    peer: SocketAddr,
    service: S,
    plane: Arc<Plane>,
    limits: Limits,
    stop: Stop,
) where
    S: Service<http::Request<Received>, Response = http::Response<B>, Error = Infallible>,
    S: Clone + Send + 'static,
    S::Future: Send,
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let connected = Connected {
        peer,
        local: stream.local_addr().ok(),
    };
    let wire = Arc::new(Mutex::new(Wire::new(stream, limits)));
    let end = converse(&wire, connected, service, stop).await;
    match end {
        End::Cut(cut) => {
            let reason = match cut {
                Cut::Late => Some(Reason::HeadTimeout),
                Cut::Slow => Some(Reason::SlowReader),
                Cut::Ahead => Some(Reason::Malformed),
                Cut::Idle | Cut::Left => None,
            };
            if let Some(reason) = reason {
                plane.denied.count(reason);
            }
            if cut == Cut::Slow {
                lock(&wire).reset();
            }
        }
        End::Over(result) => {
            let broken = result.is_err();
            if let Some(reason) = result.err().and_then(|error| refused(&error)) {
                plane.denied.count(reason);
            }
            if broken || lock(&wire).unread {
                // Elapsed or not: the connection closes.
                let drain = poll_fn(|context| lock(&wire).poll_drain(context));
                timeout(limits.linger, drain).await.unwrap_or_default();
            }
        }
    }
}

async fn converse<S, B>(
    wire: &Arc<Mutex<Wire>>,
    connected: Connected,
    service: S,
    mut stop: Stop,
) -> End
where
    S: Service<http::Request<Received>, Response = http::Response<B>, Error = Infallible>,
    S: Clone + Send + 'static,
    S::Future: Send,
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let service = service_fn(|request: http::Request<Incoming>| {
        lock(wire).head_done(!request.body().is_end_stream());
        let mut request = request.map(|body| Received {
            whole: body.is_end_stream(),
            body,
            wire: Arc::clone(wire),
        });
        request.extensions_mut().insert(connected);
        let answer = service.clone().call(request);
        let wire = Arc::clone(wire);
        async move {
            let response = answer.await?;
            Ok::<_, Infallible>(response.map(|body| Sent {
                body: Box::pin(body),
                wire,
            }))
        }
    });
    let connection = http1::Builder::new()
        // The wire has the clocks; hyper's one would need a timer and could not tell a slow head
        // from an idle connection.
        .header_read_timeout(None)
        .max_headers(config::HEADERS)
        .max_header_size(config::HEAD_BYTES)
        .max_buf_size(config::HEAD_BYTES)
        .serve_connection(TokioIo::new(Io(Arc::clone(wire))), service);
    let mut connection = Box::pin(connection);
    let mut stopping = pin!(async move {
        // A sender that is gone means stop as well.
        stop.wait_for(Option::is_some)
            .await
            .map(|_| ())
            .unwrap_or_default();
    });
    let mut stopped = false;
    poll_fn(|context| {
        if !stopped && stopping.as_mut().poll(context).is_ready() {
            stopped = true;
            connection.as_mut().graceful_shutdown();
        }
        if let Poll::Ready(result) = connection.as_mut().poll(context) {
            return Poll::Ready(End::Over(result));
        }
        lock(wire).watch(context).map(End::Cut)
    })
    .await
}

/// What hyper refused by itself, with a bare status line or without a word.
fn refused(error: &hyper::Error) -> Option<Reason> {
    if error.is_parse_too_large() {
        Some(Reason::HeadSize)
    } else if error.is_parse() {
        Some(Reason::Malformed)
    } else {
        None
    }
}

/// A request's body; tells the wire when nobody waits for it any more.
#[derive(Debug)]
pub(super) struct Received {
    body: Incoming,
    whole: bool,
    wire: Arc<Mutex<Wire>>,
}

impl Body for Received {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let frame = Pin::new(&mut self.body).poll_frame(context);
        self.whole |= matches!(frame, Poll::Ready(None));
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for Received {
    fn drop(&mut self) {
        lock(&self.wire).body_done(self.whole);
    }
}

/// An answer's body; tells the wire when hyper has taken all of it.
struct Sent<B> {
    body: Pin<Box<B>>,
    wire: Arc<Mutex<Wire>>,
}

impl<B: Body<Data = Bytes>> Body for Sent<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        self.body.as_mut().poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl<B> Drop for Sent<B> {
    fn drop(&mut self) {
        lock(&self.wire).answered();
    }
}
