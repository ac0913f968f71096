//! Successful answers: JSON with the headers that caches read.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{AGE, CACHE_CONTROL, CONTENT_TYPE, ETAG, HeaderName, VARY};
use http::{HeaderValue, StatusCode};
use serde::Serialize;
use warp::reply::Response;

use super::etag::BaseTag;
use super::kept::Kept;
use super::media::Media;
use crate::cache::Tag;

/// What an edge voids answers by.
pub(crate) const SURROGATE_KEY: HeaderName = HeaderName::from_static("surrogate-key");
use crate::problem::Problem;
use crate::work::buffers::Buffers;

/// For everybody: a browser keeps it a minute, a shared cache an hour, and may serve it stale while
/// it asks again or while the service is down.
const PUBLIC: &str =
    "public, max-age=60, s-maxage=3600, stale-while-revalidate=60, stale-if-error=600";

/// For the asker only, and nowhere kept.
const GATED: &str = "private, no-store";

/// A value as JSON, in a buffer that is used again.
///
/// # Errors
/// [`Problem::Internal`] where the value is none that JSON has.
pub(super) fn written(
    buffers: &Buffers,
    bytes: usize,
    value: &impl Serialize,
) -> Result<Bytes, Problem> {
    let mut buffer = buffers.take(bytes);
    serde_json::to_writer(&mut buffer, value)
        .map_err(|error| Problem::Internal(Arc::new(error)))?;
    Ok(buffer.freeze())
}

/// A JSON answer.
pub(super) fn json(status: StatusCode, body: Bytes, gated: bool) -> Response {
    bytes(status, "application/json", body, gated)
}

/// An answer of a media type.
pub(super) fn bytes(status: StatusCode, media: &'static str, body: Bytes, gated: bool) -> Response {
    let mut response = Response::new(body.into());
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(media));
    headers.insert(VARY, HeaderValue::from_static("Accept-Encoding, Accept"));
    let caching = if gated { GATED } else { PUBLIC };
    headers.insert(CACHE_CONTROL, HeaderValue::from_static(caching));
    response
}

/// Tells shared caches since when the answer is known and what voids it; one for the asker alone has no
/// shared cache.
pub(super) fn dated(mut response: Response, age: Duration, tags: &[Tag]) -> Response {
    let headers = response.headers_mut();
    if headers
        .get(CACHE_CONTROL)
        .is_some_and(|value| value == PUBLIC)
    {
        headers.insert(AGE, HeaderValue::from(age.as_secs()));
        let tags: Vec<String> = tags.iter().map(ToString::to_string).collect();
        if let Ok(keys) = HeaderValue::try_from(tags.join(" ")) {
            headers.insert(SURROGATE_KEY, keys);
        }
    }
    response
}

/// An answer with the tag of its representation, before its encoding is known.
pub(super) fn tagged(
    status: StatusCode,
    media: Media,
    body: Bytes,
    gated: bool,
    tag: &BaseTag,
) -> Response {
    let mut response = bytes(status, media.content_type(), body, gated);
    if let Ok(tag) = HeaderValue::try_from(tag.to_string()) {
        response.headers_mut().insert(ETAG, tag);
    }
    response
}

/// The same answer, whose encodings are kept here.
pub(super) fn kept(mut response: Response, kept: &Arc<Kept>) -> Response {
    response.extensions_mut().insert(Arc::clone(kept));
    response
}
