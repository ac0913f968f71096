//! The way to the origin: kept-alive connections, one deadline, no headers of another connection.
//!
//! Guide 5.1. Metric: `streamgate_client_connections_total`. Breaking tests:
//! `the_edge_keeps_its_connections_to_the_origin`, `an_origin_that_is_gone_is_502_and_one_that_hangs_504`.

use std::time::Duration;

use bytes::Bytes;
use http::header::{
    CONNECTION, HOST, HeaderName, PROXY_AUTHENTICATE, PROXY_AUTHORIZATION, TE, TRAILER,
    TRANSFER_ENCODING, UPGRADE, VIA,
};
use http::uri::{Authority, Scheme};
use http::{HeaderMap, HeaderValue, Method, Request, Response, Uri};
use http_body_util::BodyExt as _;
use http_body_util::combinators::UnsyncBoxBody;
use hyper::body::Incoming;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::client::legacy::{Client, ResponseFuture};
use hyper_util::rt::{TokioExecutor, TokioTimer};
use streamgate_agent::Counter;
use tower::ServiceExt as _;

use crate::error::Fatal;
use crate::problem::Problem;

/// The guide's: idle connections in all, those of one host, and how long one may idle. There is one
/// host here, so the first two are the same.
const IDLE_CONNECTIONS: usize = 100;
const IDLE: Duration = Duration::from_secs(90);

/// How long a connection may take.
const CONNECT: Duration = Duration::from_secs(1);

/// Tells the service that an edge asks and not a client.
pub(crate) const EDGE_TOKEN: HeaderName = HeaderName::from_static("x-streamgate-edge");

pub(super) type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// A body on its way to the origin or to a client.
pub(super) type Body = UnsyncBoxBody<Bytes, BoxError>;

/// The client, whose type names the closure that counts its connections.
type SendRequest = dyn Fn(Request<Body>) -> ResponseFuture + Send + Sync;

/// The origin that this edge stands before.
pub(super) struct Origin {
    send: Box<SendRequest>,
    authority: Authority,
    token: Option<HeaderValue>,
    deadline: Duration,
}

/// Why the origin gave no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Failure {
    Unreachable,
    TooSlow,
}

impl std::fmt::Debug for Origin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Origin")
            .field("authority", &self.authority)
            .finish_non_exhaustive()
    }
}

impl From<Failure> for Problem {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Unreachable => Self::BadGateway,
            Failure::TooSlow => Self::GatewayTimeout,
        }
    }
}

impl Origin {
    /// # Errors
    /// The address is not `http://host[:port]`, or the token is no value of a header.
    pub(super) fn new(
        address: &str,
        token: Option<&str>,
        deadline: Duration,
        opened: Counter,
    ) -> Result<Self, Fatal> {
        let wrong = || Fatal::OutOfRange {
            parameter: "--origin",
            range: "http://host[:port]".to_owned(),
            seen: address.to_owned(),
        };
        let uri: Uri = address.parse().map_err(|_| wrong())?;
        if uri.scheme() != Some(&Scheme::HTTP) || !matches!(uri.path(), "" | "/") {
            return Err(wrong());
        }
        let authority = uri.authority().cloned().ok_or_else(wrong)?;
        let token = token.map(HeaderValue::from_str).transpose();
        let token = token.map_err(|_| Fatal::OutOfRange {
            parameter: "--token-file",
            range: "one line of visible characters".to_owned(),
            seen: "others".to_owned(),
        })?;
        let mut connector = HttpConnector::new();
        connector.set_nodelay(true);
        connector.set_connect_timeout(Some(CONNECT));
        let connector = connector.map_response(move |connection| {
            opened.inc();
            connection
        });
        let client = Client::builder(TokioExecutor::new())
            .pool_max_idle_per_host(IDLE_CONNECTIONS)
            .pool_idle_timeout(IDLE)
            .pool_timer(TokioTimer::new())
            .build::<_, Body>(connector);
        Ok(Self {
            send: Box::new(move |request| client.request(request)),
            authority,
            token,
            deadline,
        })
    }

    /// Sends a request; the answer's body is still to be read.
    pub(super) async fn send(
        &self,
        method: Method,
        target: &str,
        mut headers: HeaderMap,
        body: Body,
    ) -> Result<Response<Incoming>, Failure> {
        drop_hop_by_hop(&mut headers);
        headers.remove(EDGE_TOKEN);
        if let Some(token) = &self.token {
            headers.insert(EDGE_TOKEN, token.clone());
        }
        headers.append(VIA, HeaderValue::from_static("1.1 streamgate-edge"));
        // The answer must not depend on a name that the key does not hold.
        if let Ok(host) = HeaderValue::from_str(self.authority.as_str()) {
            headers.insert(HOST, host);
        }
        let uri = Uri::builder()
            .scheme(Scheme::HTTP)
            .authority(self.authority.clone())
            .path_and_query(target)
            .build();
        let mut request = Request::new(body);
        *request.uri_mut() = uri.map_err(|_| Failure::Unreachable)?;
        *request.method_mut() = method;
        *request.headers_mut() = headers;
        match tokio::time::timeout(self.deadline, (self.send)(request)).await {
            Ok(Ok(mut response)) => {
                drop_hop_by_hop(response.headers_mut());
                Ok(response)
            }
            Ok(Err(error)) => {
                tracing::debug!(%error, "the origin gave no answer");
                Err(Failure::Unreachable)
            }
            Err(_) => Err(Failure::TooSlow),
        }
    }

    /// Time for one answer.
    pub(super) fn deadline(&self) -> Duration {
        self.deadline
    }
}

pub(super) fn boxed(body: Incoming) -> Body {
    body.map_err(BoxError::from).boxed_unsync()
}

/// RFC 9110 section 7.6.1.
fn drop_hop_by_hop(headers: &mut HeaderMap) {
    let named = headers.get_all(CONNECTION).iter();
    let named = named.flat_map(|value| value.to_str().unwrap_or("").split(','));
    let named: Vec<HeaderName> = named.filter_map(|name| name.trim().parse().ok()).collect();
    let own = [
        CONNECTION,
        HeaderName::from_static("keep-alive"),
        HeaderName::from_static("proxy-connection"),
        PROXY_AUTHENTICATE,
        PROXY_AUTHORIZATION,
        TE,
        TRAILER,
        TRANSFER_ENCODING,
        UPGRADE,
    ];
    for name in own.into_iter().chain(named) {
        headers.remove(name);
    }
}
