//! `GET /v1/streams/{id}/manifest.m3u8` and `/v1/streams/{id}/segments/{n}`: HTTP Live Streaming, RFC 8216.
//!
//! Breaking tests: `a_stream_plays_from_its_manifest`, `a_segment_is_answered_in_parts`,
//! `a_gated_stream_needs_a_token_of_an_owner`.
//!
//! Segments are made while they are sent, the same bytes for the same content and number each time: there is
//! no video in the demo, and what is shown is how it would be served.

use std::sync::Arc;

use bytes::Bytes;
use http::header::{ACCEPT_RANGES, CONTENT_RANGE, ETAG};
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use uuid::Uuid;
use warp::filters::BoxedFilter;
use warp::reply::Response;
use warp::{Filter, path};

use super::ask::{Ask, ask, with};
use super::content::{uuid, view};
use super::range::Asked;
use super::state::App;
use super::verify::{admit, token};
use super::{answer, etag, reply};
use crate::problem::Problem;
use crate::seed::ids::{Draw, mix};

/// Segments of every stream, and how long each plays.
const SEGMENTS: u64 = 10;
const SEGMENT_SECONDS: u32 = 6;

/// A transport stream packet, ISO/IEC 13818-1, and how many make a segment: 94 KiB, 128 kbit/s.
const PACKET_BYTES: usize = 188;
const PACKETS: usize = 512;
const SEGMENT_BYTES: usize = PACKET_BYTES * PACKETS;
const SYNC_BYTE: u8 = 0x47;

/// Manifest and segments.
pub(super) fn routes(app: &Arc<App>) -> BoxedFilter<(Response,)> {
    let agent = &app.observe.agent;
    let manifests = path!("v1" / "streams" / String / "manifest.m3u8")
        .and(agent.route("/v1/streams/{id}/manifest.m3u8"))
        .and(with(Arc::clone(app)))
        .and(ask())
        .then(async |id: String, app, ask| answer(manifest(&id, app, ask).await));
    let segments = path!("v1" / "streams" / String / "segments" / String)
        .and(agent.route("/v1/streams/{id}/segments/{n}"))
        .and(with(Arc::clone(app)))
        .and(ask())
        .then(async |id: String, n: String, app, ask| answer(segment(&id, &n, app, ask).await));
    manifests.or(segments).unify().boxed()
}

/// A stream that the asker may see.
struct Opened {
    id: Uuid,
    gated: bool,
    /// The token that opened it.
    token: Option<String>,
}

async fn open<S>(id: &str, app: &Arc<App>, ask: &mut Ask<S>) -> Result<Opened, Problem> {
    if ask.method != Method::GET {
        return Err(Problem::MethodNotAllowed("GET, HEAD"));
    }
    let id = uuid("id", id)?;
    let token = token(ask.query.take("token")?, &ask.headers);
    std::mem::take(&mut ask.query).finish("token")?;
    let view = view(app, id, false).await?;
    let gated = view.content.is_gated();
    if gated {
        admit(app, id, token.as_deref()).await?;
    }
    // After the gate: who may not see it does not learn how far it has come.
    if view.content.status != "ready" {
        return Err(Problem::NotFound);
    }
    Ok(Opened {
        id,
        gated,
        token: token.filter(|_| gated),
    })
}

async fn manifest<S>(id: &str, app: Arc<App>, mut ask: Ask<S>) -> Result<Response, Problem> {
    let stream = open(id, &app, &mut ask).await?;
    let mut text = format!(
        "#EXTM3U\n#EXT-X-VERSION:3\n#EXT-X-TARGETDURATION:{SEGMENT_SECONDS}\n\
         #EXT-X-MEDIA-SEQUENCE:0\n#EXT-X-PLAYLIST-TYPE:VOD\n"
    );
    let query = stream.token.map(|token| format!("?token={token}"));
    let query = query.unwrap_or_default();
    for n in 0..SEGMENTS {
        text.push_str(&format!(
            "#EXTINF:{SEGMENT_SECONDS}.000,\nsegments/{n}{query}\n"
        ));
    }
    text.push_str("#EXT-X-ENDLIST\n");
    let media = "application/vnd.apple.mpegurl";
    Ok(reply::bytes(
        StatusCode::OK,
        media,
        text.into(),
        stream.gated,
    ))
}

async fn segment<S>(
    id: &str,
    n: &str,
    app: Arc<App>,
    mut ask: Ask<S>,
) -> Result<Response, Problem> {
    let number = n.parse().ok().filter(|n| *n < SEGMENTS);
    let number = number.ok_or_else(|| Problem::parameter("n", &format!("0..={}", SEGMENTS - 1), n));
    let stream = open(id, &app, &mut ask).await?;
    let segment = bytes_of(stream.id, number?);
    let base = etag::BaseTag::of_segment(stream.id, n);
    Ok(partial(&ask.headers, segment, stream.gated, &base))
}

/// The whole, one part of it, or 416.
fn partial(headers: &HeaderMap, whole: Bytes, gated: bool, tag: &etag::BaseTag) -> Response {
    let length = whole.len();
    let total = u64::try_from(length).unwrap_or(u64::MAX);
    let (status, body, range) = match Asked::of(headers, total, &tag.uncompressed()) {
        Asked::Whole => (StatusCode::OK, whole, None),
        Asked::Part(range) => {
            let at = |n: u64| usize::try_from(n).unwrap_or(length).min(length);
            let part = whole.slice(at(range.start)..at(range.end));
            let text = format!("bytes {}-{}/{total}", range.start, range.end - 1);
            (StatusCode::PARTIAL_CONTENT, part, Some(text))
        }
        Asked::Nothing => return Problem::RangeNotSatisfiable { length: total }.into_response(),
    };
    let mut response = reply::bytes(status, "video/mp2t", body, gated);
    let headers = response.headers_mut();
    headers.insert(ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    if let Some(Ok(range)) = range.map(HeaderValue::try_from) {
        headers.insert(CONTENT_RANGE, range);
    }
    if let Ok(tag) = HeaderValue::try_from(tag.to_string()) {
        headers.insert(ETAG, tag);
    }
    response
}

/// Packets whose first byte is right and whose others look like compressed video: nothing packs them.
fn bytes_of(stream: Uuid, number: u64) -> Bytes {
    let (high, low) = stream.as_u64_pair();
    let words = (0..).map(|word| mix(high ^ low, Draw::Segment, number, word).to_be_bytes());
    let mut bytes: Vec<u8> = words.flatten().take(SEGMENT_BYTES).collect();
    bytes
        .iter_mut()
        .step_by(PACKET_BYTES)
        .for_each(|first| *first = SYNC_BYTE);
    bytes.into()
}
