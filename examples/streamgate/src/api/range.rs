//! One byte range of a representation, RFC 9110 section 14.
//!
//! Breaking tests: `a_range_is_the_bytes_that_it_names`, `a_segment_is_answered_in_parts`.
//!
//! What the server may ignore it ignores: other units, several ranges (answered whole rather than as
//! `multipart/byteranges`, which players do not ask for), nonsense, and any range whose If-Range names other
//! bytes.

use std::ops::Range;

use http::HeaderMap;
use http::header::{IF_RANGE, RANGE};

/// What a request asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Asked {
    Whole,
    Part(Range<u64>),
    /// It begins behind the end: 416.
    Nothing,
}

impl Asked {
    /// Reads Range and If-Range for a representation of `length` bytes with this strong tag.
    pub(super) fn of(headers: &HeaderMap, length: u64, tag: &str) -> Self {
        let condition = headers.get(IF_RANGE);
        if condition.is_some_and(|value| value.as_bytes() != tag.as_bytes()) {
            return Self::Whole;
        }
        let mut ranges = headers.get_all(RANGE).iter();
        match (ranges.next(), ranges.next()) {
            (Some(range), None) => range
                .to_str()
                .ok()
                .and_then(|text| part(text, length))
                .unwrap_or(Self::Whole),
            _ => Self::Whole,
        }
    }
}

/// `None`: not one range of bytes.
fn part(text: &str, length: u64) -> Option<Asked> {
    let (unit, set) = text.split_once('=')?;
    if !unit.trim().eq_ignore_ascii_case("bytes") {
        return None;
    }
    let (first, last) = set.trim().split_once('-')?;
    let range = if first.is_empty() {
        let last_bytes = number(last)?;
        length.saturating_sub(last_bytes)..length
    } else {
        let first = number(first)?;
        let last = if last.is_empty() {
            u64::MAX
        } else {
            number(last)?
        };
        if last < first {
            return None;
        }
        first..last.saturating_add(1).min(length)
    };
    let satisfied = range.start < range.end;
    Some(if satisfied {
        Asked::Part(range)
    } else {
        Asked::Nothing
    })
}

/// Digits only: `+1` is a number to the parser and none to the grammar. Too many digits lie behind every
/// end.
fn number(text: &str) -> Option<u64> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    digits.then(|| text.parse().unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn asked(values: &[&'static str]) -> Asked {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(RANGE, HeaderValue::from_static(value));
        }
        Asked::of(&headers, 10, "\"a\"")
    }

    #[test]
    fn a_range_is_the_bytes_that_it_names() {
        for (text, range) in [
            ("bytes=0-0", 0..1),
            ("bytes=2-4", 2..5),
            ("bytes=2-", 2..10),
            ("bytes=9-99", 9..10),
            ("bytes=0-18446744073709551615", 0..10),
            ("bytes=0-99999999999999999999999", 0..10),
            ("bytes=-3", 7..10),
            ("bytes=-99", 0..10),
            ("Bytes=1-1", 1..2),
        ] {
            assert_eq!(asked(&[text]), Asked::Part(range), "{text}");
        }
    }

    #[test]
    fn what_lies_behind_the_end_is_nothing_and_what_is_no_range_is_ignored() {
        for text in [
            "bytes=10-",
            "bytes=10-11",
            "bytes=-0",
            "bytes=99999999999999999999999-",
        ] {
            assert_eq!(asked(&[text]), Asked::Nothing, "{text}");
        }
        for text in [
            "bytes=4-2",
            "bytes=",
            "bytes=-",
            "bytes=a-b",
            "bytes=+1-2",
            "bytes=1",
            "items=0-1",
            "0-1",
            "bytes=0-1,3-4",
            "bytes=0-1, 3-4",
            "",
        ] {
            assert_eq!(asked(&[text]), Asked::Whole, "{text}");
        }
        assert_eq!(asked(&[]), Asked::Whole);
        assert_eq!(asked(&["bytes=0-1", "bytes=2-3"]), Asked::Whole);
    }

    #[test]
    fn if_range_with_another_or_a_weak_tag_asks_for_the_whole() {
        let with = |condition| {
            let mut headers = HeaderMap::new();
            headers.insert(RANGE, HeaderValue::from_static("bytes=0-1"));
            headers.insert(IF_RANGE, HeaderValue::from_static(condition));
            Asked::of(&headers, 10, "\"a\"")
        };
        assert_eq!(with("\"a\""), Asked::Part(0..2));
        for other in ["\"b\"", "W/\"a\"", "Sun, 06 Nov 1994 08:49:37 GMT"] {
            assert_eq!(with(other), Asked::Whole, "{other}");
        }
    }
}
