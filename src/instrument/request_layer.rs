//! The tower layer: times every request of the service below it and keeps its scope current.

use std::borrow::Cow;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use http::{Extensions, HeaderMap, header};
use pin_project_lite::pin_project;
use tower_layer::Layer;
use tower_service::Service;

use super::method::Method;
use super::request::{End, Head, RequestRecord, Requests};
use super::request_body::ResponseBody;
use super::scope::{self, Entered, Scope};

type RouteReader = fn(&Extensions) -> Option<&str>;

/// A tower layer that records every request: duration, status, route, sizes, aborts.
///
/// Put it outermost. The route is what [`AgentHandle::route`](crate::AgentHandle::route) said (warp)
/// or what [`matched_path`](Self::matched_path) reads (axum); without either it is `<unmatched>`,
/// never the path, which clients choose.
///
/// # Cost
/// Three clock reads, one boxed scope and six cell writes per request.
#[derive(Clone)]
pub struct HttpLayer {
    requests: Arc<Requests>,
    https: bool,
    matched_path: Option<RouteReader>,
}

impl fmt::Debug for HttpLayer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HttpLayer")
            .field("https", &self.https)
            .finish_non_exhaustive()
    }
}

impl HttpLayer {
    pub(crate) fn new(requests: Arc<Requests>) -> Self {
        Self {
            requests,
            https: false,
            matched_path: None,
        }
    }

    /// Says that clients speak TLS: the label `url_scheme` becomes `https`.
    #[must_use]
    pub fn https(mut self) -> Self {
        self.https = true;
        self
    }

    /// Reads the route template from the request's extensions.
    ///
    /// For axum: `.matched_path(|e| e.get::<MatchedPath>().map(MatchedPath::as_str))`, with the
    /// layer added by `Router::layer`, which runs after the match.
    #[must_use]
    pub fn matched_path(mut self, read: fn(&Extensions) -> Option<&str>) -> Self {
        self.matched_path = Some(read);
        self
    }
}

impl<S> Layer<S> for HttpLayer {
    type Service = HttpService<S>;

    fn layer(&self, inner: S) -> HttpService<S> {
        HttpService {
            inner,
            layer: self.clone(),
        }
    }
}

/// A service whose requests are recorded; made by [`HttpLayer`].
#[derive(Debug, Clone)]
pub struct HttpService<S> {
    inner: S,
    layer: HttpLayer,
}

impl<S, B, R> Service<http::Request<B>> for HttpService<S>
where
    S: Service<http::Request<B>, Response = http::Response<R>>,
    R: http_body::Body,
{
    type Response = http::Response<ResponseBody<R>>;
    type Error = S::Error;
    type Future = ResponseFuture<S::Future>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: http::Request<B>) -> Self::Future {
        let text = |name| {
            request
                .headers()
                .get(name)
                .and_then(|value| value.to_str().ok())
        };
        let head = Head {
            method: Method::of(request.method().as_str()),
            https: self.layer.https,
            content_length: text(header::CONTENT_LENGTH).and_then(|text| text.parse().ok()),
        };
        let target = request.uri().path_and_query();
        let target = target.map_or("", http::uri::PathAndQuery::as_str);
        let joined = |name| joined(request.headers(), name);
        let record = self.layer.requests.begin(head, target, joined);
        let matched = self.layer.matched_path;
        let template = matched.and_then(|read| read(request.extensions()));
        let mut scope = Some(record.scope(template));
        let inner = {
            // Some services do their routing in `call`, before the first poll.
            let _entered = Entered::new(&mut scope);
            self.inner.call(request)
        };
        ResponseFuture {
            inner,
            record: Some(record),
            scope,
        }
    }
}

/// All lines of a header, joined by commas; `None` if there are none, or one is no text.
fn joined<'a>(headers: &'a HeaderMap, name: &'static str) -> Option<Cow<'a, str>> {
    let mut lines = headers.get_all(name).iter().map(|line| line.to_str().ok());
    let mut all = Cow::Borrowed(lines.next()??);
    for line in lines {
        let text = all.to_mut();
        text.push(',');
        text.push_str(line?);
    }
    Some(all)
}

pin_project! {
    /// The response of an [`HttpService`].
    #[derive(Debug)]
    pub struct ResponseFuture<F> {
        #[pin]
        inner: F,
        record: Option<RequestRecord>,
        scope: Option<Box<Scope>>,
    }

    impl<F> PinnedDrop for ResponseFuture<F> {
        fn drop(this: Pin<&mut Self>) {
            let this = this.project();
            if let (Some(record), Some(scope)) = (this.record.as_mut(), this.scope.as_deref()) {
                // Now, while the inner future still has open what it waited for.
                scope.resume();
                record.absorb(scope);
            }
        }
    }
}

impl<F, R, E> Future for ResponseFuture<F>
where
    F: Future<Output = Result<http::Response<R>, E>>,
    R: http_body::Body,
{
    type Output = Result<http::Response<ResponseBody<R>>, E>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let inner = this.inner;
        let result = ready!(scope::poll(this.scope, || inner.poll(context)));
        let record = this.record.take();
        let scope = this.scope.take();
        let Some(mut record) = record else {
            return Poll::Ready(result.map(|response| response.map(ResponseBody::unrecorded)));
        };
        if let Some(scope) = scope.as_deref() {
            record.absorb(scope);
        }
        match result {
            Ok(response) => {
                record.responded(response.status().as_u16());
                if let Some(scope) = scope.as_deref() {
                    scope.send();
                }
                Poll::Ready(Ok(
                    response.map(|body| ResponseBody::new(body, record, scope))
                ))
            }
            Err(error) => {
                record.end(End::ServiceError);
                Poll::Ready(Err(error))
            }
        }
    }
}
