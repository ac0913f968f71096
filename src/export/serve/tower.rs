//! The endpoints as a service for any tower or hyper server, and the way between http's types and
//! ours.

use std::convert::Infallible;
use std::fmt;
use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::StatusCode;
use http::header::{CONTENT_LENGTH, HOST, HeaderMap, HeaderName, HeaderValue};
use http_body::{Body, Frame, SizeHint};
use http_body_util::{BodyExt, LengthLimitError, Limited};

use crate::config;
use crate::export::guard::{Reason, Refusal};
use crate::export::respond::message;
use crate::export::respond::{Reply, Request};

type Answering = Pin<Box<dyn Future<Output = Reply> + Send>>;

/// The agent's endpoints as a service, to be mounted in a server of the host's own.
///
/// Serves `tower` (axum's `fallback_service` and `nest_service`) and, by [`filter`](Self::filter),
/// warp. Every check of the agent's listener runs here too, save what only a listener can see:
/// caps and clocks of connections are the host's. The `Host` header must be `localhost`, an IP
/// address, or a name given to the builder.
#[derive(Clone)]
pub struct AgentService {
    answer: Arc<dyn Fn(Request) -> Answering + Send + Sync>,
}

impl fmt::Debug for AgentService {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AgentService").finish_non_exhaustive()
    }
}

/// Who is connected to what; a host's server may put it into the extensions of its requests.
///
/// With it the agent answers to its own address only and knows who asked for profiles.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Connected {
    /// The client's address.
    pub peer: SocketAddr,
    /// The address that the client connected to.
    pub local: Option<SocketAddr>,
}

impl AgentService {
    pub(crate) fn new<F, A>(answer: F) -> Self
    where
        F: Fn(Request) -> A + Send + Sync + 'static,
        A: Future<Output = Reply> + Send + 'static,
    {
        Self {
            answer: Arc::new(move |request| Box::pin(answer(request))),
        }
    }

    /// Answers a request whose head is known and whose body is read here, within its limit.
    pub(super) async fn answer<B>(&self, head: Head, body: B) -> http::Response<AgentBody>
    where
        B: Body,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let body = received(&head.headers, body).await;
        into_response((self.answer)(head.into_request(body)).await)
    }
}

/// A request's head, wherever it came from.
#[derive(Debug)]
pub(super) struct Head {
    pub(super) method: http::Method,
    /// Path and query, below the prefix that the host mounted us at.
    pub(super) target: String,
    /// The authority of the target, which stands for Host in HTTP/2.
    pub(super) authority: Option<String>,
    pub(super) headers: HeaderMap,
    pub(super) connected: Option<Connected>,
}

impl Head {
    fn into_request(self, body: Result<Vec<u8>, Refusal>) -> Request {
        let mut request = Request::new(self.method.as_str(), &self.target);
        request.body = body;
        if let (Some(authority), false) = (self.authority, self.headers.contains_key(HOST)) {
            request = request.header("host", authority);
        }
        for (name, value) in &self.headers {
            request = request.header(name.as_str(), value.as_bytes());
        }
        if let Some(connected) = self.connected {
            request = request.peer(connected.peer);
            if let Some(local) = connected.local {
                request = request.local(local);
            }
        }
        request
    }
}

/// Reads a body of at most [`config::BODY_BYTES`]; one that says it is longer is not read at all.
async fn received<B>(headers: &HeaderMap, body: B) -> Result<Vec<u8>, Refusal>
where
    B: Body,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let declared = headers
        .get(CONTENT_LENGTH)
        .and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
    if declared.is_some_and(|declared| declared > config::BODY_BYTES as u64) {
        return Err(Refusal::body_size());
    }
    match Limited::new(body, config::BODY_BYTES).collect().await {
        Ok(body) => Ok(body.to_bytes().to_vec()),
        Err(error) if error.is::<LengthLimitError>() => Err(Refusal::body_size()),
        Err(_) => Err(Refusal::new(400, Reason::Malformed, "body broke off")),
    }
}

fn into_response(reply: Reply) -> http::Response<AgentBody> {
    let mut response = http::Response::new(AgentBody(Bytes::new()));
    if let Ok(status) = StatusCode::from_u16(reply.status) {
        *response.status_mut() = status;
    }
    for (name, value) in reply.headers() {
        let name = HeaderName::from_bytes(name.as_bytes());
        let value = HeaderValue::from_str(value);
        // Both are our own texts; one that cannot stand in a header is left out.
        if let (Ok(name), Ok(value)) = (name, value) {
            response.headers_mut().append(name, value);
        }
    }
    *response.body_mut() = AgentBody(Bytes::from_owner(Shared(reply.body)));
    response
}

/// A body that other answers may share, as hyper takes it.
struct Shared(Arc<message::Body>);

impl AsRef<[u8]> for Shared {
    fn as_ref(&self) -> &[u8] {
        self.0.as_ref().as_ref()
    }
}

/// The body of an answer, all of it in memory.
#[derive(Debug, Default)]
pub struct AgentBody(Bytes);

impl AgentBody {
    /// The bytes that were not taken yet.
    pub fn into_bytes(self) -> Bytes {
        self.0
    }
}

impl Body for AgentBody {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let bytes = std::mem::take(&mut self.0);
        Poll::Ready((!bytes.is_empty()).then(|| Ok(Frame::data(bytes))))
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.0.len() as u64)
    }
}

impl<B> tower_service::Service<http::Request<B>> for AgentService
where
    B: Body<Data: Send> + Send + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    type Response = http::Response<AgentBody>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, _context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<B>) -> Self::Future {
        let (parts, body) = request.into_parts();
        let target = parts
            .uri
            .path_and_query()
            .map_or("/", |target| target.as_str());
        let head = Head {
            target: target.to_owned(),
            method: parts.method,
            authority: parts
                .uri
                .authority()
                .map(|authority| authority.as_str().to_owned()),
            headers: parts.headers,
            connected: parts.extensions.get().copied(),
        };
        let service = self.clone();
        Box::pin(async move { Ok(service.answer(head, body).await) })
    }
}
