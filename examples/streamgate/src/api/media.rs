//! In which media type an answer is sent: JSON, or protobuf for whoever ranks it higher.
//!
//! Guide 5.3. Breaking test: `the_media_type_is_what_the_client_ranks_first`.
//!
//! Who accepts neither gets JSON: RFC 9110 section 12.4.1 lets a server answer so, and a text that a person
//! can read is worth more than a 406.

use bytes::Bytes;
use http::HeaderMap;
use http::header::ACCEPT;
use prost::Message;
use serde::de::DeserializeOwned;

use super::wire;

const JSON: &str = "application/json";
const PROTOBUF: &str = "application/x-protobuf";

/// The media types of answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Media {
    Json,
    Protobuf,
}

/// How well a type is accepted; ordered.
#[derive(Clone, Copy, Debug, PartialEq, PartialOrd)]
struct Rank {
    quality: f32,
    /// 2 by its name, 1 by its kind, 0 by `*/*`.
    exactness: u8,
}

impl Media {
    /// What the Accept header asks for.
    pub(super) fn of(headers: &HeaderMap) -> Self {
        let texts = headers.get_all(ACCEPT).iter();
        let texts: Vec<&str> = texts.filter_map(|value| value.to_str().ok()).collect();
        let ranges = || texts.iter().flat_map(|text| text.split(','));
        let json = rank(ranges(), JSON);
        match rank(ranges(), PROTOBUF) {
            Some((protobuf, at)) if protobuf.quality > 0.0 => match json {
                Some((json, other)) if json > protobuf || (json == protobuf && other <= at) => {
                    Self::Json
                }
                _ => Self::Protobuf,
            },
            _ => Self::Json,
        }
    }

    pub(super) fn content_type(self) -> &'static str {
        match self {
            Self::Json => JSON,
            Self::Protobuf => PROTOBUF,
        }
    }

    /// The letter in entity tags.
    pub(super) fn letter(self) -> char {
        match self {
            Self::Json => 'j',
            Self::Protobuf => 'p',
        }
    }

    /// A JSON answer in this type.
    ///
    /// # Errors
    /// The text is no JSON of the message: never one of the service's own.
    pub(super) fn encode<M>(self, json: Bytes) -> serde_json::Result<Bytes>
    where
        M: Message + DeserializeOwned,
    {
        match self {
            Self::Json => Ok(json),
            Self::Protobuf => wire::of_json::<M>(&json),
        }
    }
}

/// The rank of a type and its place in the header. The most exact range counts, whatever its quality.
fn rank<'a>(ranges: impl Iterator<Item = &'a str>, media: &str) -> Option<(Rank, usize)> {
    let mut best: Option<(Rank, usize)> = None;
    for (at, range) in ranges.enumerate() {
        let mut parts = range.split(';');
        let name = parts.next().unwrap_or("").trim();
        let exactness = match name {
            "*/*" => 0,
            "application/*" => 1,
            name if name.eq_ignore_ascii_case(media) => 2,
            _ => continue,
        };
        let quality = parts
            .filter_map(|part| part.split_once('='))
            .find(|(name, _)| name.trim().eq_ignore_ascii_case("q"))
            .map_or(Some(1.0), |(_, value)| value.trim().parse().ok())
            .filter(|quality| (0.0..=1.0).contains(quality));
        // A range without a sound weight is no wish.
        let Some(quality) = quality else { continue };
        if best.is_none_or(|(best, _)| exactness > best.exactness) {
            best = Some((Rank { quality, exactness }, at));
        }
    }
    best
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn the_media_type_is_what_the_client_ranks_first() {
        let of = |values: &[&'static str]| {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append(ACCEPT, HeaderValue::from_static(value));
            }
            Media::of(&headers)
        };
        for (accept, media) in [
            ("application/x-protobuf", Media::Protobuf),
            ("Application/X-Protobuf", Media::Protobuf),
            ("application/x-protobuf, */*", Media::Protobuf),
            (
                "application/x-protobuf;q=0.9, application/json;q=0.8",
                Media::Protobuf,
            ),
            ("application/x-protobuf, application/json", Media::Protobuf),
            ("text/html, application/x-protobuf;q=0.1", Media::Protobuf),
            (
                "application/x-protobuf; v=1; Q=0.5, */*;q=0.4",
                Media::Protobuf,
            ),
            ("application/json, application/x-protobuf", Media::Json),
            (
                "application/json;q=0.9, application/x-protobuf;q=0.8",
                Media::Json,
            ),
            ("application/x-protobuf;q=0", Media::Json),
            ("application/x-protobuf;q=0, */*", Media::Json),
            ("application/x-protobuf;q=0.5, */*", Media::Json),
            ("application/x-protobuf;q=2", Media::Json),
            ("application/x-protobuf;q=x", Media::Json),
            ("*/*", Media::Json),
            ("application/*", Media::Json),
            ("text/html", Media::Json),
            ("application/x-protobufs", Media::Json),
            (";;,,=", Media::Json),
            ("", Media::Json),
        ] {
            assert_eq!(of(&[accept]), media, "{accept:?}");
        }
        assert_eq!(of(&[]), Media::Json);
        let two = ["application/json;q=0.5", "application/x-protobuf"];
        assert_eq!(of(&two), Media::Protobuf, "one list in two lines");
    }
}
