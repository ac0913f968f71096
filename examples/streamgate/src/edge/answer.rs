//! What a client gets from a kept answer: whole, a part, "not modified", and by which way it came.
//!
//! RFC 9110 sections 13 and 14, RFC 9211. Breaking tests: `a_known_tag_is_answered_304_by_the_edge`,
//! `one_range_is_cut_from_the_kept_answer`.

use bytes::Bytes;
use http::header::{
    ACCEPT_RANGES, AGE, CONTENT_LENGTH, CONTENT_RANGE, HeaderName, IF_RANGE, RANGE,
};
use http::{HeaderMap, HeaderValue, Method, Response, StatusCode};
use http_body_util::{BodyExt as _, Full};

use super::kept::Kept;
use super::origin::{Body, BoxError};
use crate::api::etag::IfNoneMatch;

const CACHE_STATUS: HeaderName = HeaderName::from_static("cache-status");

/// The name of this cache towards clients.
const NAME: &str = "streamgate-edge";

/// A body that is here already.
pub(super) fn whole(bytes: Bytes) -> Body {
    Full::new(bytes)
        .map_err(|never| -> BoxError { match never {} })
        .boxed_unsync()
}

/// Adds this cache to the caches that an answer came through.
pub(super) fn mark<B>(response: &mut Response<B>, how: &str) {
    if let Ok(value) = HeaderValue::from_str(&format!("{NAME}; {how}")) {
        response.headers_mut().append(CACHE_STATUS, value);
    }
}

/// The answer to one request from what is kept.
pub(super) fn of_kept(kept: &Kept, method: &Method, request: &HeaderMap) -> Response<Body> {
    let mut response = Response::new(whole(kept.body.clone()));
    *response.status_mut() = kept.status;
    response.headers_mut().clone_from(&kept.headers);
    let headers = response.headers_mut();
    headers.insert(AGE, HeaderValue::from(kept.age().as_secs()));
    headers.insert(CONTENT_LENGTH, HeaderValue::from(kept.body.len()));
    if kept.status == StatusCode::OK {
        headers.insert(ACCEPT_RANGES, HeaderValue::from_static("bytes"));
        let known = IfNoneMatch::of(request);
        if kept.etag().is_some_and(|tag| known.holds(tag)) {
            *response.status_mut() = StatusCode::NOT_MODIFIED;
            *response.body_mut() = whole(Bytes::new());
            response.headers_mut().remove(CONTENT_LENGTH);
            return response;
        }
        if method == Method::GET {
            cut(&mut response, kept, request);
        }
    }
    if method == Method::HEAD {
        *response.body_mut() = whole(Bytes::new());
    }
    response
}

/// Replaces the whole by the part that was asked for, if it is one part of this representation.
fn cut(response: &mut Response<Body>, kept: &Kept, request: &HeaderMap) {
    let Some(range) = request.get(RANGE) else {
        return;
    };
    // If-Range holds a tag, compared strongly, or a date, which no answer of ours has.
    let same = request.get(IF_RANGE).is_none_or(|tag| {
        let weak = tag.as_bytes().starts_with(b"W/");
        !weak && Some(tag) == kept.etag()
    });
    let Some(wanted) = range.to_str().ok().and_then(Part::parse).filter(|_| same) else {
        return;
    };
    let total = kept.body.len();
    let (status, content_range, body) = match wanted.of(total) {
        Some((start, end)) => (
            StatusCode::PARTIAL_CONTENT,
            format!("bytes {start}-{}/{total}", end - 1),
            kept.body.slice(start..end),
        ),
        None => (
            StatusCode::RANGE_NOT_SATISFIABLE,
            format!("bytes */{total}"),
            Bytes::new(),
        ),
    };
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_LENGTH, HeaderValue::from(body.len()));
    if let Ok(value) = HeaderValue::from_str(&content_range) {
        headers.insert(CONTENT_RANGE, value);
    }
    *response.body_mut() = whole(body);
}

/// One range of bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    From(usize, Option<usize>),
    Last(usize),
}

impl Part {
    /// `None` for what may be ignored: other units, several ranges, nonsense.
    fn parse(text: &str) -> Option<Self> {
        let (first, last) = text.strip_prefix("bytes=")?.split_once('-')?;
        let number = |text: &str| -> Option<usize> {
            let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
            // Beyond any length is as good as the greatest.
            digits.then(|| text.parse().unwrap_or(usize::MAX))
        };
        match (first, last) {
            ("", last) => Some(Self::Last(number(last)?)),
            (first, "") => Some(Self::From(number(first)?, None)),
            (first, last) => {
                let (first, last) = (number(first)?, number(last)?);
                (first <= last).then_some(Self::From(first, Some(last)))
            }
        }
    }

    /// Start and end of the part, `None` when nothing of it exists.
    fn of(self, total: usize) -> Option<(usize, usize)> {
        let (start, end) = match self {
            Self::From(first, last) => {
                let end = last.map_or(total, |last| last.saturating_add(1).min(total));
                (first, end)
            }
            Self::Last(n) => (total.saturating_sub(n), total),
        };
        (start < end).then_some((start, end))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_names_a_part_or_nothing() {
        let of = |text: &str| Part::parse(text).map(|part| part.of(10));
        assert_eq!(of("bytes=0-3"), Some(Some((0, 4))));
        assert_eq!(of("bytes=8-"), Some(Some((8, 10))));
        assert_eq!(of("bytes=8-99999999999999999999999"), Some(Some((8, 10))));
        assert_eq!(of("bytes=-3"), Some(Some((7, 10))));
        assert_eq!(of("bytes=-99"), Some(Some((0, 10))));
        assert_eq!(of("bytes=10-"), Some(None));
        assert_eq!(of("bytes=-0"), Some(None));
        for ignored in [
            "bytes=3-2",
            "bytes=0-1,3-4",
            "lines=0-1",
            "bytes=a-b",
            "bytes=-",
            "bytes=",
        ] {
            assert_eq!(of(ignored), None, "{ignored:?}");
        }
    }
}
