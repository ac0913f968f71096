//! Reads request bodies within a limit that also holds after decompression.
//!
//! Guide 3.1. Breaking tests: `an_oversized_body_is_413`, `a_gzip_bomb_is_413_and_honest_gzip_is_read`.

use async_compression::tokio::bufread::GzipDecoder;
use bytes::{Buf, Bytes, BytesMut};
use futures_util::{Stream, StreamExt as _};
use http::HeaderMap;
use http::header::{CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE};
use tokio::io::AsyncReadExt as _;

use crate::problem::Problem;

/// Reads a JSON body of at most `limit` bytes.
///
/// # Errors
/// 413 when it is larger, 415 when it says it is something else, 400 when it breaks off.
pub(super) async fn json<B: Buf>(
    headers: &HeaderMap,
    body: impl Stream<Item = Result<B, warp::Error>>,
    limit: usize,
) -> Result<Bytes, Problem> {
    let media = headers
        .get(CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .unwrap_or("");
    let media = media.split(';').next().unwrap_or("").trim();
    let json = ["application/json", "application/merge-patch+json"];
    if !json.iter().any(|known| media.eq_ignore_ascii_case(known)) {
        return Err(Problem::UnsupportedMediaType("application/json"));
    }
    let sent = collect(headers, body, limit).await?;
    match headers.get(CONTENT_ENCODING).map(|value| value.as_bytes()) {
        None | Some(b"identity") => Ok(sent),
        Some(b"gzip") => gunzip(&sent, limit).await,
        Some(_) => Err(Problem::UnsupportedMediaType("plain or gzip")),
    }
}

async fn collect<B: Buf>(
    headers: &HeaderMap,
    body: impl Stream<Item = Result<B, warp::Error>>,
    limit: usize,
) -> Result<Bytes, Problem> {
    // Judged before reading: a client that says so need not send it.
    let announced = headers
        .get(CONTENT_LENGTH)
        .and_then(|value| value.to_str().ok());
    if announced
        .and_then(|text| text.parse::<usize>().ok())
        .is_some_and(|length| length > limit)
    {
        return Err(Problem::BodyTooLarge { limit });
    }
    let mut bytes = BytesMut::new();
    let mut body = std::pin::pin!(body);
    while let Some(chunk) = body.next().await {
        let chunk = chunk.map_err(|_| Problem::BadParameter("the body broke off".to_owned()))?;
        if bytes.len().saturating_add(chunk.remaining()) > limit {
            return Err(Problem::BodyTooLarge { limit });
        }
        let mut chunk = chunk;
        bytes.extend_from_slice(&chunk.copy_to_bytes(chunk.remaining()));
    }
    Ok(bytes.freeze())
}

async fn gunzip(sent: &[u8], limit: usize) -> Result<Bytes, Problem> {
    let one_more = u64::try_from(limit).unwrap_or(u64::MAX).saturating_add(1);
    let mut plain = Vec::new();
    GzipDecoder::new(sent)
        .take(one_more)
        .read_to_end(&mut plain)
        .await
        .map_err(|_| Problem::BadParameter("the body must be gzip, as announced".to_owned()))?;
    if plain.len() > limit {
        return Err(Problem::BodyTooLarge { limit });
    }
    Ok(plain.into())
}
