//! Outside the compression: what depends on the encoding that was chosen.
//!
//! Guide 3.1. Metric: `streamgate_response_bytes_total{stage=raw|sent}`. Breaking tests:
//! `each_encoding_has_its_own_strong_tag`, `a_known_tag_is_answered_304_without_body`,
//! `head_has_the_headers_of_get_and_no_body`, `refusing_every_encoding_does_not_undo_a_write`.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::header::{CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, ETAG, RANGE};
use http::{HeaderValue, Method, Request, Response, StatusCode};
use http_body::Body;
use http_body_util::{Either, Empty};
use streamgate_agent::Counter;
use tower::Service;

use super::counted::Counted;
use super::origin::Original;
use super::reuse::Keep;
use crate::api::etag::{IfNoneMatch, with_encoding};
use crate::observe::Observe;

/// Finishes responses.
#[derive(Clone, Debug)]
pub(super) struct Front<S> {
    inner: S,
    raw: Counter,
    sent: Counter,
}

/// A body, or none where the request or the status forbids one.
type Finished<B> = Response<Either<Counted<B>, Empty<Bytes>>>;

impl<S> Front<S> {
    pub(super) fn new(inner: S, observe: &Observe) -> Self {
        Self {
            inner,
            raw: observe.bytes_raw.clone(),
            sent: observe.bytes_sent.clone(),
        }
    }
}

impl<S, B, R> Service<Request<B>> for Front<S>
where
    S: Service<Request<B>, Response = Response<R>, Error = Infallible>,
    S::Future: Send + 'static,
    R: Body<Data = Bytes> + Unpin,
{
    type Response = Finished<R>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Finished<R>, Infallible>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, mut request: Request<B>) -> Self::Future {
        let is_head = request.method() == Method::HEAD;
        let reads = is_head || request.method() == Method::GET;
        let known = reads.then(|| IfNoneMatch::of(request.headers()));
        if is_head {
            // The routes answer as to GET; the body is dropped below, before it is compressed.
            *request.method_mut() = Method::GET;
            // A range is defined for GET alone, RFC 9110 section 14.2.
            request.headers_mut().remove(RANGE);
        }
        let (raw, sent) = (self.raw.clone(), self.sent.clone());
        let answer = self.inner.call(request);
        Box::pin(async move {
            let Ok(mut response) = answer.await;
            let original = response.extensions_mut().remove::<Original>();
            if let Some(original) = original {
                *response.status_mut() = original.status;
            }
            tag(&mut response);
            if known.is_some_and(|known| is_known(&response, &known)) {
                return Ok(not_modified(response));
            }
            if is_head {
                return Ok(without_body(response));
            }
            let keep = response.extensions_mut().remove::<Keep>();
            let keep = keep.zip(response.headers().get(CONTENT_ENCODING).cloned());
            raw.add(original.map_or(0, |original| original.bytes));
            Ok(response.map(|body| Either::Left(Counted::new(body, sent, keep))))
        })
    }
}

/// Completes the tag with the encoding.
fn tag<R>(response: &mut Response<R>) {
    let headers = response.headers_mut();
    let complete = headers
        .get(ETAG)
        .and_then(|tag| with_encoding(tag, headers.get(CONTENT_ENCODING)));
    if let Some(complete) = complete {
        headers.insert(ETAG, complete);
    }
}

fn is_known<R>(response: &Response<R>, known: &IfNoneMatch) -> bool {
    let tag = response.headers().get(ETAG);
    let has_content = [StatusCode::OK, StatusCode::PARTIAL_CONTENT].contains(&response.status());
    has_content && tag.is_some_and(|tag| known.holds(tag))
}

/// Keeps the headers that a cache updates: tag, Vary, Cache-Control.
fn not_modified<B>(response: Response<B>) -> Finished<B> {
    let (mut parts, _) = response.into_parts();
    parts.status = StatusCode::NOT_MODIFIED;
    for name in [CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE] {
        parts.headers.remove(name);
    }
    Response::from_parts(parts, Either::Right(Empty::new()))
}

fn without_body<B: Body>(response: Response<B>) -> Finished<B> {
    let (mut parts, body) = response.into_parts();
    // Unknown when it would be compressed: then GET has no length either.
    if let Some(bytes) = body.size_hint().exact() {
        parts
            .headers
            .insert(CONTENT_LENGTH, HeaderValue::from(bytes));
    }
    Response::from_parts(parts, Either::Right(Empty::new()))
}
