//! What comes in and what goes out, free of any HTTP crate, so that any server can carry it.

use core::net::SocketAddr;
use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use super::bodies::Place;
use crate::catalog::endpoints::TEXT;
use crate::config;
use crate::export::guard::Refusal;

/// A request to one of the agent's endpoints, as a server of the host's own hands it over.
///
/// ```
/// use streamgate_agent::Request;
///
/// let request = Request::new("GET", "/metrics?debug=1")
///     .header("host", "localhost:6060")
///     .header("accept", "text/plain");
/// ```
#[derive(Clone)]
pub struct Request {
    pub(crate) method: String,
    pub(crate) path: String,
    pub(crate) query: String,
    headers: Vec<(String, Vec<u8>)>,
    pub(crate) peer: Option<SocketAddr>,
    pub(crate) local: Option<SocketAddr>,
    /// Or why it was not read to its end.
    pub(crate) body: Result<Vec<u8>, Refusal>,
}

/// Shows method and path only: queries and headers may carry secrets.
impl fmt::Debug for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Request")
            .field("method", &self.method)
            .field("path", &self.path)
            .finish_non_exhaustive()
    }
}

impl Request {
    /// A request without headers or body; `target` is a path with an optional query.
    pub fn new(method: impl Into<String>, target: &str) -> Self {
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        Self {
            method: method.into(),
            path: path.to_owned(),
            query: query.to_owned(),
            headers: Vec::new(),
            peer: None,
            local: None,
            body: Ok(Vec::new()),
        }
    }

    /// Adds a header line. `host`, `origin` and `sec-fetch-site` decide whether the request is
    /// answered at all, so all that the client sent must be added.
    #[must_use]
    pub fn header(mut self, name: impl Into<String>, value: impl Into<Vec<u8>>) -> Self {
        self.headers.push((name.into(), value.into()));
        self
    }

    /// Says who asks; shown in the record of profile requests.
    #[must_use]
    pub fn peer(mut self, peer: SocketAddr) -> Self {
        self.peer = Some(peer);
        self
    }

    /// Says at which address the client arrived; its IP is a `Host` that is answered.
    #[must_use]
    pub fn local(mut self, local: SocketAddr) -> Self {
        self.local = Some(local);
        self
    }

    /// Adds the body. Read at most 64 KiB of it: a longer one is refused.
    #[must_use]
    pub fn body(mut self, body: impl Into<Vec<u8>>) -> Self {
        let body = body.into();
        self.body = if body.len() > config::BODY_BYTES {
            Err(Refusal::body_size())
        } else {
            Ok(body)
        };
        self
    }

    /// Every value of a header, in order.
    pub(crate) fn values<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a [u8]> + 'a {
        let named = move |line: &&(String, Vec<u8>)| line.0.eq_ignore_ascii_case(name);
        self.headers.iter().filter(named).map(|line| &*line.1)
    }

    /// All values of a list header joined by commas, as RFC 9110 reads them; text only.
    pub(crate) fn list(&self, name: &str) -> Option<String> {
        let texts: Vec<&str> = self
            .values(name)
            .filter_map(|value| std::str::from_utf8(value).ok())
            .collect();
        (!texts.is_empty()).then(|| texts.join(", "))
    }

    pub(crate) fn is_head(&self) -> bool {
        self.method == "HEAD"
    }
}

/// The bytes of an answer; readers of one scrape share them.
#[derive(Default)]
pub(crate) struct Body {
    bytes: Vec<u8>,
    /// Held while a large body is alive.
    _place: Option<Place>,
}

impl Body {
    pub(crate) fn new(bytes: Vec<u8>, place: Option<Place>) -> Self {
        Self {
            bytes,
            _place: place,
        }
    }
}

impl AsRef<[u8]> for Body {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

pub(crate) type Headers = Vec<(&'static str, Cow<'static, str>)>;

/// An answer. Cloning shares the body.
#[derive(Clone)]
pub struct Reply {
    pub(crate) status: u16,
    pub(crate) headers: Headers,
    pub(crate) body: Arc<Body>,
}

impl fmt::Debug for Reply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reply")
            .field("status", &self.status)
            .field("headers", &self.headers)
            .field("body_bytes", &self.body().len())
            .finish()
    }
}

impl Reply {
    pub(crate) fn new(status: u16, content_type: &'static str, body: Vec<u8>) -> Self {
        Self::shared(status, content_type, Arc::new(Body::new(body, None)))
    }

    pub(crate) fn shared(status: u16, content_type: &'static str, body: Arc<Body>) -> Self {
        let length = body.as_ref().as_ref().len();
        let headers = vec![
            ("Content-Type", content_type.into()),
            ("Content-Length", length.to_string().into()),
            ("X-Content-Type-Options", "nosniff".into()),
            ("X-Frame-Options", "DENY".into()),
            ("Cache-Control", "no-store".into()),
        ];
        Self {
            status,
            headers,
            body,
        }
    }

    /// The answer of an agent that has stopped.
    pub(crate) fn stopped() -> Self {
        Self::new(503, TEXT, b"the agent has stopped\n".to_vec())
    }

    #[must_use]
    pub(crate) fn with(mut self, name: &'static str, value: impl Into<Cow<'static, str>>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    /// The same answer to HEAD: every header, the length among them, and no body.
    #[must_use]
    pub(crate) fn without_body(mut self) -> Self {
        self.body = Arc::default();
        self
    }

    /// The same answer where the length is not known.
    #[must_use]
    pub(crate) fn without_length(mut self) -> Self {
        self.headers.retain(|(name, _)| *name != "Content-Length");
        self
    }

    /// The status code.
    pub fn status(&self) -> u16 {
        self.status
    }

    /// The header lines, `Content-Type` and `Content-Length` among them.
    pub fn headers(&self) -> impl Iterator<Item = (&str, &str)> {
        self.headers.iter().map(|(name, value)| (*name, &**value))
    }

    /// The body; empty for HEAD, where `Content-Length` still says how long it would be.
    pub fn body(&self) -> &[u8] {
        self.body.as_ref().as_ref()
    }
}
