//! Strong entity tags per representation, and the two conditions that read them.
//!
//! Guide 5.3. Breaking tests: `each_encoding_has_its_own_strong_tag`,
//! `a_weak_tag_never_satisfies_if_match`, `a_known_tag_is_answered_304_without_body`.
//!
//! If-Match compares strongly, so a weak tag could never guard a write. A strong tag promises equal
//! bytes, so it must name the encoding too: `"<version>-<view>-<encoding>"`. The handler knows
//! version and view; the encoding is added outside the compression. If-None-Match compares the
//! whole tag, If-Match only the version in it: whoever has seen a version in any view may change it.

use std::fmt;

use http::header::{IF_MATCH, IF_NONE_MATCH};
use http::{HeaderMap, HeaderName, HeaderValue};
use sha2::{Digest as _, Sha256};

use super::fields::FieldSet;
use super::media::Media;
use crate::problem::Problem;

/// The tag of a representation without its encoding.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct BaseTag(String);

impl BaseTag {
    /// Of a row in some fields and a media type: the version says it all, but for a payload that is shown to be in
    /// cold storage.
    pub(super) fn of_row(version: i64, fields: FieldSet, media: Media, shows_cold: bool) -> Self {
        let cold = if shows_cold { "c" } else { "" };
        Self(format!(
            "{version}-{:x}{}{cold}",
            fields.bits(),
            media.letter()
        ))
    }

    /// Of a row with others joined to it: these do not move the version, so the body is hashed.
    pub(super) fn of_body(version: i64, fields: FieldSet, media: Media, body: &[u8]) -> Self {
        let digest: [u8; 32] = Sha256::digest(body).into();
        let hash: String = digest
            .iter()
            .take(8)
            .map(|byte| format!("{byte:02x}"))
            .collect();
        Self(format!(
            "{version}-{:x}{}{hash}",
            fields.bits(),
            media.letter()
        ))
    }

    /// Of a segment, which is the same for ever.
    pub(super) fn of_segment(stream: uuid::Uuid, number: &str) -> Self {
        Self(format!("{}-{number}", stream.simple()))
    }

    /// The tag of the representation that is not compressed, as clients see it.
    pub(super) fn uncompressed(&self) -> String {
        format!("\"{}-identity\"", self.0)
    }
}

impl fmt::Display for BaseTag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{}\"", self.0)
    }
}

/// Adds the encoding to a handler's tag; `None` if it is none of ours.
pub(crate) fn with_encoding(
    tag: &HeaderValue,
    encoding: Option<&HeaderValue>,
) -> Option<HeaderValue> {
    let base = tag.to_str().ok()?.strip_suffix('"')?;
    let encoding = encoding.map_or(Some("identity"), |value| value.to_str().ok())?;
    HeaderValue::try_from(format!("{base}-{encoding}\"")).ok()
}

/// The tags of If-None-Match, kept while the request is handled.
#[derive(Clone, Debug)]
pub(crate) struct IfNoneMatch(Vec<HeaderValue>);

impl IfNoneMatch {
    pub(crate) fn of(headers: &HeaderMap) -> Self {
        Self(headers.get_all(IF_NONE_MATCH).iter().cloned().collect())
    }

    /// Whether the client holds this representation. Weakly compared, as RFC 9110 section 13.1.2
    /// says, so `W/` is ignored.
    pub(crate) fn holds(&self, tag: &HeaderValue) -> bool {
        let Ok(tag) = tag.to_str() else { return false };
        self.0
            .iter()
            .filter_map(|value| value.to_str().ok())
            .any(|value| {
                value.trim() == "*"
                    || tags(value).any(|(_, opaque)| tag.trim_matches('"') == opaque)
            })
    }
}

/// The versions a client is ready to change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Expected {
    /// `*`: whatever is there.
    Any,
    Versions(Vec<i64>),
}

impl Expected {
    /// Reads If-Match.
    ///
    /// # Errors
    /// [`Problem::PreconditionRequired`] without the header.
    pub(super) fn of(headers: &HeaderMap) -> Result<Self, Problem> {
        let values = header_texts(headers, &IF_MATCH);
        if values.is_empty() {
            return Err(Problem::PreconditionRequired);
        }
        if values.iter().any(|value| value.trim() == "*") {
            return Ok(Self::Any);
        }
        let versions = values.iter().flat_map(|value| tags(value));
        let versions = versions
            .filter(|(weak, _)| !weak)
            .filter_map(|(_, opaque)| opaque.split_once('-')?.0.parse().ok());
        Ok(Self::Versions(versions.collect()))
    }

    pub(super) fn accepts(&self, version: i64) -> bool {
        match self {
            Self::Any => true,
            Self::Versions(versions) => versions.contains(&version),
        }
    }
}

fn header_texts<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Vec<&'a str> {
    headers
        .get_all(name)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .collect()
}

/// The tags of a list as (weak, text between the quotes). A comma may stand inside a tag, so the
/// quotes are what separates.
fn tags(list: &str) -> impl Iterator<Item = (bool, &str)> {
    let mut rest = list;
    std::iter::from_fn(move || {
        let (before, after) = rest.split_once('"')?;
        let (opaque, behind) = after.split_once('"')?;
        rest = behind;
        Some((before.trim_end().ends_with("W/"), opaque))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(name: HeaderName, values: &[&'static str]) -> HeaderMap {
        let mut map = HeaderMap::new();
        for value in values {
            map.append(&name, HeaderValue::from_static(value));
        }
        map
    }

    #[test]
    fn a_weak_tag_never_satisfies_if_match() {
        let expected = |values| Expected::of(&headers(IF_MATCH, values));
        assert!(expected(&["\"3-fj-gzip\""]).unwrap().accepts(3));
        assert!(!expected(&["W/\"3-fj-gzip\""]).unwrap().accepts(3));
        assert!(!expected(&["\"2-fj-gzip\""]).unwrap().accepts(3));
        assert!(expected(&["\"2-fj-br\", \"3-fj-br\""]).unwrap().accepts(3));
        assert!(
            expected(&["\"2-fj-br\"", "\"3-fj-br\""])
                .unwrap()
                .accepts(3)
        );
        assert!(expected(&["*"]).unwrap().accepts(3));
        assert!(!expected(&["nonsense"]).unwrap().accepts(3));
        assert!(matches!(expected(&[]), Err(Problem::PreconditionRequired)));
    }

    #[test]
    fn if_none_match_compares_the_whole_tag_weakly() {
        let held = |values: &[&'static str]| {
            IfNoneMatch::of(&headers(IF_NONE_MATCH, values))
                .holds(&HeaderValue::from_static("\"3-fj-gzip\""))
        };
        assert!(held(&["\"3-fj-gzip\""]));
        assert!(held(&["W/\"3-fj-gzip\""]));
        assert!(held(&["\"x,y\" , \"3-fj-gzip\""]));
        assert!(held(&["*"]));
        assert!(!held(&["\"3-fj-br\""]));
        assert!(!held(&["3-fj-gzip"]));
        assert!(!held(&[]));
    }

    #[test]
    fn the_encoding_stands_inside_the_quotes() {
        let tag = HeaderValue::from_static("\"3-fj\"");
        let gzip = HeaderValue::from_static("gzip");
        assert_eq!(with_encoding(&tag, Some(&gzip)).unwrap(), "\"3-fj-gzip\"");
        assert_eq!(with_encoding(&tag, None).unwrap(), "\"3-fj-identity\"");
    }
}
