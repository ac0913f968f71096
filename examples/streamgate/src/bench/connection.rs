//! Keep-alive connections, opened on first use and again when the service has closed them.

use std::cell::RefCell;
use std::rc::Rc;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::client::conn::{TrySendError, http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpStream;
use tokio::sync::Mutex;

use super::record::{Fault, Record};
use super::target::Target;

/// Requests that share one HTTP/2 connection; below the 100 streams that servers commonly allow.
pub(crate) const STREAMS: u16 = 64;

/// Protocol spoken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Protocol {
    /// HTTP/1.1, one request at a time.
    Http1,
    /// HTTP/2 with prior knowledge (h2c), [`STREAMS`] requests at a time.
    Http2,
}

/// A place for one request at a time: an HTTP/1.1 connection, or a share of an HTTP/2 connection.
#[derive(Debug, Clone)]
pub(crate) struct Line {
    target: Rc<Target>,
    protocol: Protocol,
    sender: Rc<Mutex<Option<Sender>>>,
    record: Rc<RefCell<Record>>,
}

#[derive(Debug)]
enum Sender {
    Http1(http1::SendRequest<Full<Bytes>>),
    Http2(http2::SendRequest<Full<Bytes>>),
}

impl Line {
    /// Makes the lines of up to `connections` connections; none is opened yet.
    pub(crate) fn open_on_use(
        target: &Rc<Target>,
        protocol: Protocol,
        connections: u16,
        record: &Rc<RefCell<Record>>,
    ) -> Vec<Self> {
        let streams = match protocol {
            Protocol::Http1 => 1,
            Protocol::Http2 => STREAMS,
        };
        (0..connections)
            .flat_map(|_| {
                let line = Self {
                    target: Rc::clone(target),
                    protocol,
                    sender: Rc::default(),
                    record: Rc::clone(record),
                };
                std::iter::repeat_n(line, usize::from(streams))
            })
            .collect()
    }

    /// Sends a request and gives the answer's head with the body still to read.
    ///
    /// A connection that died while idle is noticed only by sending on it. The request is tried once more
    /// if no byte of it was sent, so a write is never made twice.
    ///
    /// # Errors
    /// [`Fault::Connect`] or [`Fault::Transport`].
    pub(crate) async fn send(
        &self,
        mut request: Request<Full<Bytes>>,
    ) -> Result<Response<Incoming>, Fault> {
        for _ in 0..2 {
            match self.try_send(request).await? {
                Ok(response) => return Ok(response),
                Err(mut failed) => match failed.take_message() {
                    Some(unsent) => request = unsent,
                    None => return Err(Fault::Transport),
                },
            }
        }
        Err(Fault::Transport)
    }

    /// Gives the connection up: after a fault nobody knows what is still to come on it.
    pub(crate) async fn abandon(&self) {
        if self.protocol == Protocol::Http1 {
            self.sender.lock().await.take();
        }
    }

    async fn try_send(
        &self,
        request: Request<Full<Bytes>>,
    ) -> Result<Result<Response<Incoming>, TrySendError<Request<Full<Bytes>>>>, Fault> {
        let mut slot = self.sender.lock().await;
        let usable = match slot.as_mut() {
            Some(Sender::Http1(sender)) => sender.ready().await.is_ok(),
            Some(Sender::Http2(sender)) => sender.ready().await.is_ok(),
            None => false,
        };
        if !usable {
            *slot = Some(self.connect().await.map_err(|_| Fault::Connect)?);
            self.record.borrow_mut().connections += 1;
        }
        match slot.as_mut() {
            Some(Sender::Http1(sender)) => Ok(sender.try_send_request(request).await),
            Some(Sender::Http2(sender)) => {
                // The lock must not be held for the whole exchange: the other streams need it to start.
                let mut sender = sender.clone();
                drop(slot);
                Ok(sender.try_send_request(request).await)
            }
            None => Err(Fault::Connect),
        }
    }

    async fn connect(&self) -> Result<Sender, Fault> {
        let stream = TcpStream::connect(self.target.addresses())
            .await
            .map_err(refused)?;
        stream.set_nodelay(true).map_err(refused)?;
        let io = TokioIo::new(stream);
        match self.protocol {
            Protocol::Http1 => {
                let (sender, connection) = http1::handshake(io).await.map_err(refused)?;
                tokio::task::spawn_local(until_closed(connection));
                Ok(Sender::Http1(sender))
            }
            Protocol::Http2 => {
                let (sender, connection) = http2::handshake(TokioExecutor::new(), io)
                    .await
                    .map_err(refused)?;
                tokio::task::spawn_local(until_closed(connection));
                Ok(Sender::Http2(sender))
            }
        }
    }
}

/// The request on the connection reports what is worth reporting; this only keeps the reason findable.
async fn until_closed(connection: impl Future<Output = hyper::Result<()>>) {
    if let Err(error) = connection.await {
        tracing::debug!(%error, "connection ended");
    }
}

fn refused(error: impl std::fmt::Display) -> Fault {
    tracing::debug!(%error, "no connection");
    Fault::Connect
}
