//! What makes two requests ask for the same representation.
//!
//! Guide 2.2 and 3.1. Breaking test: `encodings_are_told_apart_and_spellings_are_not`. What browsers write
//! into `Accept-Encoding` differs in a hundred ways and has four outcomes; without that, each spelling
//! would be a miss of its own.

use http::header::{ACCEPT, ACCEPT_ENCODING};
use http::{HeaderMap, HeaderValue, Uri};

/// Encodings that the service writes, in the order it prefers them at equal weight.
const ENCODINGS: [&str; 3] = ["zstd", "br", "gzip"];

/// Identity of a kept answer.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Key {
    /// Path and query as the client wrote them.
    target: Box<str>,
    accept: Box<str>,
    encoding: &'static str,
}

impl Key {
    pub(super) fn of(uri: &Uri, headers: &HeaderMap) -> Self {
        Self {
            target: target(uri).into(),
            accept: accept(headers).into(),
            encoding: encoding(headers),
        }
    }

    pub(super) fn target(&self) -> &str {
        &self.target
    }

    /// Bytes of the key and behind it.
    pub(super) fn bytes(&self) -> usize {
        size_of::<Self>() + self.target.len() + self.accept.len()
    }

    /// Asks the origin for the representation that this key names, whoever asked first.
    pub(super) fn write(&self, headers: &mut HeaderMap) {
        headers.remove(ACCEPT);
        if let Some(value) = HeaderValue::from_str(&self.accept)
            .ok()
            .filter(|v| !v.is_empty())
        {
            headers.insert(ACCEPT, value);
        }
        headers.insert(ACCEPT_ENCODING, HeaderValue::from_static(self.encoding));
    }
}

/// Path and query; `/` for a target without.
pub(super) fn target(uri: &Uri) -> &str {
    uri.path_and_query().map_or("/", |target| target.as_str())
}

/// Media types without spaces, in small letters; nothing when everything is wanted.
fn accept(headers: &HeaderMap) -> String {
    let values = headers.get_all(ACCEPT).iter();
    let texts: Vec<String> = values
        .filter_map(|value| value.to_str().ok())
        .map(|text| text.split_ascii_whitespace().collect::<String>())
        .collect();
    let text = texts.join(",").to_ascii_lowercase();
    if text == "*/*" { String::new() } else { text }
}

/// The encoding that the client ranks first of those there are; `identity` when it wants none.
fn encoding(headers: &HeaderMap) -> &'static str {
    let values = headers.get_all(ACCEPT_ENCODING).iter();
    let wishes = values.filter_map(|value| value.to_str().ok());
    let wishes: Vec<(String, f32)> = wishes.flat_map(|v| v.split(',')).map(wish).collect();
    let weight = |name: &str| {
        let given = |wanted: &str| wishes.iter().find(|(n, _)| n == wanted).map(|(_, q)| *q);
        given(name).or_else(|| given("*")).unwrap_or(0.0)
    };
    let mut best = ("identity", 0.0);
    for name in ENCODINGS {
        let weight = weight(name);
        if weight > best.1 {
            best = (name, weight);
        }
    }
    best.0
}

/// A coding in small letters and its weight; what is no weight weighs nothing.
fn wish(text: &str) -> (String, f32) {
    let mut parts = text.split(';').map(str::trim);
    let name = parts.next().unwrap_or("").to_ascii_lowercase();
    let weight = parts.find_map(|part| part.strip_prefix("q=").or_else(|| part.strip_prefix("Q=")));
    let weight = weight.map(|weight| weight.trim().parse().unwrap_or(0.0));
    (name, weight.unwrap_or(1.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(pairs: &[(&'static str, &'static str)]) -> Key {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(*name, HeaderValue::from_static(value));
        }
        Key::of(&Uri::from_static("/v1/content?limit=2"), &headers)
    }

    fn encoding_of(text: &'static str) -> &'static str {
        key(&[("accept-encoding", text)]).encoding
    }

    #[test]
    fn encodings_are_told_apart_and_spellings_are_not() {
        assert_eq!(encoding_of("gzip"), "gzip");
        assert_eq!(encoding_of("GZIP , deflate;q=0.5"), "gzip");
        assert_eq!(encoding_of("gzip;q=0.5, br;q=0.8"), "br");
        assert_eq!(encoding_of("gzip, deflate, br, zstd"), "zstd");
        assert_eq!(encoding_of("*"), "zstd");
        assert_eq!(encoding_of("*;q=0.1, zstd;q=0, br;q=0"), "gzip");
        for none in [
            "",
            "gzip;q=0",
            "*;q=0",
            "identity",
            "deflate",
            "gzip;q=x",
            "gzip;q=-1",
        ] {
            assert_eq!(encoding_of(none), "identity", "{none:?}");
        }
        assert_eq!(
            key(&[("accept-encoding", "gzip")]),
            key(&[("accept-encoding", "deflate, gzip;q=1.0")])
        );
    }

    #[test]
    fn accepting_anything_is_no_wish_and_spaces_are_none() {
        assert_eq!(key(&[("accept", "*/*")]), key(&[]));
        let spaced = key(&[("accept", "Application/JSON, text/html")]);
        assert_eq!(spaced, key(&[("accept", "application/json,text/html")]));
        assert_ne!(spaced, key(&[]));
    }
}
