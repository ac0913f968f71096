//! One message to a collector by gRPC, and what became of it.
//!
//! Source: the gRPC protocol over HTTP/2 ("PROTOCOL-HTTP2.md"), and the OTLP specification, "OTLP/gRPC Response":
//! which codes may be tried again, and that `RESOURCE_EXHAUSTED` may only with a `RetryInfo`. A unary call is one
//! request of one framed message, and a stream of one framed answer that ends in trailers.

use std::future::poll_fn;
use std::sync::Mutex;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use bytes::{BufMut as _, Bytes, BytesMut};
use h2::client::SendRequest;
use h2::{Reason, RecvStream};
use http::{HeaderMap, Method, Request, StatusCode};
use prost::Message as _;
use tokio::net::TcpStream;
use tokio::runtime::Runtime;
use tokio::time::timeout;

use super::post::{AGENT, ANSWER_BYTES, Outcome, packed, rejected};
use crate::config::otlp::Target;
use crate::store::sync::lock;

/// Bytes before a message: whether it is packed, and its length.
const FRAME_BYTES: usize = 5;
/// Bytes of an answer's headers.
const HEAD_BYTES: u32 = 16 << 10;

/// Calls one method of one collector. The connection is kept from one message to the next.
pub(super) struct Grpc {
    target: Target,
    method: &'static str,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// On the sending thread, which alone drives it.
    runtime: Option<Runtime>,
    connection: Option<SendRequest<Bytes>>,
}

impl Drop for State {
    fn drop(&mut self) {
        // Dropped as it is, it would wait for a name that is still looked up.
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

/// Why there is no answer.
#[derive(Debug)]
enum Failure {
    NameResolution,
    Connection,
    Protocol,
    Request,
}

impl From<h2::Error> for Failure {
    fn from(error: h2::Error) -> Self {
        let is_gone = error.is_io() || error.is_go_away() || error.reason() == Some(Reason::CANCEL);
        if is_gone {
            Self::Connection
        } else {
            Self::Protocol
        }
    }
}

impl Failure {
    fn outcome(&self) -> Outcome {
        let why = match self {
            Self::NameResolution => "name_resolution",
            Self::Connection => "connection",
            Self::Protocol => "protocol",
            Self::Request => {
                return Outcome::Refused {
                    why: "request".into(),
                };
            }
        };
        later(why, None)
    }
}

fn later(why: &'static str, after: Option<Duration>) -> Outcome {
    Outcome::Later {
        why: why.into(),
        after,
    }
}

impl Grpc {
    /// `None` for a target that is spoken to otherwise.
    pub(super) fn new(target: &Target) -> Option<Self> {
        Some(Self {
            method: target.grpc_method?,
            target: target.clone(),
            state: Mutex::default(),
        })
    }

    /// Sends a message and waits for its answer, at most for the target's timeout and as long as said.
    pub(super) fn send(&self, message: &[u8], most: Duration) -> Outcome {
        let limit = self.target.timeout.min(most);
        let Some(request) = self.request(limit) else {
            return Failure::Request.outcome();
        };
        let body = self.framed(message);
        let mut state = lock(&self.state);
        let kept = state.connection.take();
        let runtime = match state.runtime.take() {
            Some(runtime) => runtime,
            None => match runtime() {
                Ok(runtime) => runtime,
                Err(_) => return Failure::Connection.outcome(),
            },
        };
        let called = runtime.block_on(async {
            let call = self.call(kept, &request, body);
            timeout(limit, call).await
        });
        state.runtime = Some(runtime);
        match called {
            Ok(Ok((outcome, connection))) => {
                state.connection = Some(connection);
                outcome
            }
            Ok(Err(failure)) => failure.outcome(),
            Err(_) => later("timeout", None),
        }
    }

    async fn call(
        &self,
        kept: Option<SendRequest<Bytes>>,
        request: &Request<()>,
        body: Bytes,
    ) -> Result<(Outcome, SendRequest<Bytes>), Failure> {
        // A collector ends connections that are idle; that is found out by the next call.
        if let Some(connection) = kept
            && let Ok(done) = exchange(connection, request, body.clone()).await
        {
            return Ok(done);
        }
        exchange(self.connect(request).await?, request, body).await
    }

    async fn connect(&self, request: &Request<()>) -> Result<SendRequest<Bytes>, Failure> {
        let uri = request.uri();
        let host = uri.host().ok_or(Failure::Request)?;
        // An address of version 6 stands in brackets.
        let host = host.trim_matches(['[', ']']);
        let port = uri.port_u16().unwrap_or(80);
        let found = tokio::net::lookup_host((host, port)).await;
        let found: Vec<_> = found.map_err(|_| Failure::NameResolution)?.collect();
        let stream = TcpStream::connect(&*found).await;
        let stream = stream.map_err(|_| Failure::Connection)?;
        let mut builder = h2::client::Builder::new();
        builder.max_header_list_size(HEAD_BYTES).enable_push(false);
        let (connection, driven) = builder.handshake::<_, Bytes>(stream).await?;
        tokio::spawn(async {
            // Its end is seen by the next call.
            drop(driven.await);
        });
        Ok(connection)
    }

    /// `None` if it cannot be written as one.
    fn request(&self, limit: Duration) -> Option<Request<()>> {
        let uri = format!("{}{}", self.target.url.trim_end_matches('/'), self.method);
        let mut request = Request::builder().method(Method::POST).uri(uri);
        for (name, value) in &self.target.headers {
            request = request.header(name, value);
        }
        request = request
            .header("te", "trailers")
            .header("content-type", "application/grpc")
            .header("user-agent", AGENT)
            // At most eight digits, which the limit of a timeout keeps within.
            .header("grpc-timeout", format!("{}m", limit.as_millis().max(1)));
        if self.target.gzip {
            request = request.header("grpc-encoding", "gzip");
        }
        request.body(()).ok()
    }

    fn framed(&self, message: &[u8]) -> Bytes {
        let packed = if self.target.gzip {
            packed(message)
        } else {
            None
        };
        let is_packed = packed.is_some();
        let message = packed.as_deref().unwrap_or(message);
        let mut framed = BytesMut::with_capacity(FRAME_BYTES + message.len());
        framed.put_u8(u8::from(is_packed));
        framed.put_u32(u32::try_from(message.len()).unwrap_or(u32::MAX));
        framed.put_slice(message);
        framed.freeze()
    }
}

fn runtime() -> std::io::Result<Runtime> {
    tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .enable_time()
        .max_blocking_threads(1)
        // Looks names up.
        .thread_name("sg-otlp-dns")
        .build()
}

/// One call over a connection, which is given back for the next.
async fn exchange(
    connection: SendRequest<Bytes>,
    request: &Request<()>,
    body: Bytes,
) -> Result<(Outcome, SendRequest<Bytes>), Failure> {
    let mut connection = connection.ready().await?;
    let (answer, mut stream) = connection.send_request(request.clone(), false)?;
    stream.send_data(body, true)?;
    let (head, mut body) = answer.await?.into_parts();
    if head.status != StatusCode::OK {
        return Ok((of_status(head.status), connection));
    }
    let message = read(&mut body).await?;
    // An answer without a message ends in its headers.
    let trailers = body.trailers().await?.unwrap_or(head.headers);
    Ok((judged(&trailers, &message), connection))
}

/// As much of the answer as is looked at.
async fn read(body: &mut RecvStream) -> Result<Vec<u8>, Failure> {
    let mut message = Vec::new();
    while let Some(piece) = poll_fn(|context| body.poll_data(context)).await {
        let piece = piece?;
        body.flow_control().release_capacity(piece.len())?;
        if message.len() as u64 + piece.len() as u64 > ANSWER_BYTES {
            return Err(Failure::Protocol);
        }
        message.extend_from_slice(&piece);
    }
    Ok(message)
}

/// What stands for a server that answers as HTTP, such as a proxy.
fn of_status(status: StatusCode) -> Outcome {
    let why = status.as_u16().to_string().into();
    match status.as_u16() {
        429 | 502..=504 => Outcome::Later { why, after: None },
        _ => Outcome::Refused { why },
    }
}

fn judged(trailers: &HeaderMap, answer: &[u8]) -> Outcome {
    let text = |name| trailers.get(name)?.to_str().ok();
    let Some(code) = text("grpc-status").and_then(|code| code.parse::<u32>().ok()) else {
        return Failure::Protocol.outcome();
    };
    let after = text("grpc-status-details-bin").and_then(retry_delay);
    let why = word(code);
    match code {
        // What cannot be read of an answer changes nothing: the message is there.
        0 => Outcome::Accepted {
            rejected: rejected(answer.get(FRAME_BYTES..).unwrap_or_default()),
        },
        1 | 4 | 10 | 11 | 14 | 15 => later(why, after),
        8 if after.is_some() => later(why, after),
        _ => Outcome::Refused { why: why.into() },
    }
}

fn word(code: u32) -> &'static str {
    match code {
        1 => "CANCELLED",
        3 => "INVALID_ARGUMENT",
        4 => "DEADLINE_EXCEEDED",
        5 => "NOT_FOUND",
        6 => "ALREADY_EXISTS",
        7 => "PERMISSION_DENIED",
        8 => "RESOURCE_EXHAUSTED",
        9 => "FAILED_PRECONDITION",
        10 => "ABORTED",
        11 => "OUT_OF_RANGE",
        12 => "UNIMPLEMENTED",
        13 => "INTERNAL",
        14 => "UNAVAILABLE",
        15 => "DATA_LOSS",
        16 => "UNAUTHENTICATED",
        _ => "UNKNOWN",
    }
}

/// `google.rpc.Status`, of which only the details are read.
#[derive(Clone, PartialEq, prost::Message)]
struct Details {
    #[prost(message, repeated, tag = "3")]
    details: Vec<Detail>,
}

/// `google.protobuf.Any`.
#[derive(Clone, PartialEq, prost::Message)]
struct Detail {
    #[prost(string, tag = "1")]
    type_url: String,
    #[prost(bytes = "vec", tag = "2")]
    value: Vec<u8>,
}

/// `google.rpc.RetryInfo`.
#[derive(Clone, PartialEq, prost::Message)]
struct RetryInfo {
    #[prost(message, optional, tag = "1")]
    delay: Option<Delay>,
}

/// `google.protobuf.Duration`.
#[derive(Clone, Copy, PartialEq, prost::Message)]
struct Delay {
    #[prost(int64, tag = "1")]
    seconds: i64,
    #[prost(int32, tag = "2")]
    nanos: i32,
}

/// As long as a collector wants to be left alone.
fn retry_delay(header: &str) -> Option<Duration> {
    let bytes = STANDARD_NO_PAD.decode(header.trim_end_matches('=')).ok()?;
    let details = Details::decode(&*bytes).ok()?.details;
    let mut infos = details
        .iter()
        .filter(|detail| detail.type_url.ends_with("/google.rpc.RetryInfo"));
    let info = RetryInfo::decode(&*infos.next()?.value).ok()?;
    let delay = info.delay.unwrap_or_default();
    let seconds = u64::try_from(delay.seconds).unwrap_or(0);
    let nanos = u32::try_from(delay.nanos).unwrap_or(0);
    Some(Duration::new(seconds, nanos.min(999_999_999)))
}

#[cfg(test)]
#[path = "grpc_tests.rs"]
mod tests;
