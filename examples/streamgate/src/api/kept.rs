//! The encodings of a cached answer, kept beside it.
//!
//! Guide 3.1 and 2.1. Metric: `streamgate_compressions_saved_total`. Breaking tests:
//! `an_answer_is_compressed_once_for_each_encoding`, `the_encoding_is_what_the_client_ranks_first`.
//!
//! Compressing took 38 % of the service's CPU time under the reading mix, nearly all of it for answers
//! whose JSON lay in the cache. Which encoding a client gets is still the compression's decision: what it
//! decided and made for a value of Accept-Encoding is what the next client with the same value gets.

use std::sync::{Mutex, PoisonError};

use bytes::Bytes;
use http::HeaderValue;

/// Values of Accept-Encoding kept for one answer: browsers, programs and proxies share a few.
const VALUES: usize = 4;

/// Longest value of Accept-Encoding that is kept; Chromium's has 23 bytes.
const LONGEST: usize = 64;

/// An answer's body in one encoding.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Encoded {
    /// What Content-Encoding says.
    pub(crate) encoding: HeaderValue,
    pub(crate) body: Bytes,
}

/// Encodings of one answer by the Accept-Encoding that led to them, at most [`VALUES`].
///
/// The value is copied: a `HeaderValue` of a request is a piece of the connection's read buffer, and one
/// that stays keeps all 8 KiB of it. Measured, 2026-11-27: half of the service's memory after two minutes
/// at 500 requests/s.
#[derive(Debug, Default)]
pub(crate) struct Kept(Mutex<Vec<(Box<[u8]>, Encoded)>>);

impl Kept {
    /// What all that may be kept weighs for a body of so many bytes: three encodings, of which text takes
    /// about a third of its length each.
    pub(super) fn weight(bytes: usize) -> usize {
        bytes.saturating_add(VALUES * LONGEST)
    }

    /// The body for a client that accepts this.
    pub(crate) fn get(&self, accept: &HeaderValue) -> Option<Encoded> {
        let kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let found = kept.iter().find(|(known, _)| **known == *accept.as_bytes());
        found.map(|(_, encoded)| encoded.clone())
    }

    /// Keeps what was made for a client that accepts this. Two values that lead to one encoding share its
    /// bytes.
    pub(crate) fn put(&self, accept: &HeaderValue, made: Encoded) {
        if accept.len() > LONGEST {
            return;
        }
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.len() >= VALUES || kept.iter().any(|(known, _)| **known == *accept.as_bytes()) {
            return;
        }
        let same = kept
            .iter()
            .find(|(_, other)| other.encoding == made.encoding);
        let encoded = same.map_or(made, |(_, other)| other.clone());
        kept.push((accept.as_bytes().into(), encoded));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn made(encoding: &'static str, body: &'static [u8]) -> Encoded {
        Encoded {
            encoding: HeaderValue::from_static(encoding),
            body: Bytes::from_static(body),
        }
    }

    #[test]
    fn what_one_value_led_to_is_given_to_that_value_alone() {
        let kept = Kept::default();
        let (gzip, all) = (
            HeaderValue::from_static("gzip"),
            HeaderValue::from_static("gzip, br"),
        );
        kept.put(&gzip, made("gzip", b"g"));
        assert_eq!(kept.get(&gzip), Some(made("gzip", b"g")));
        assert_eq!(kept.get(&all), None);
        kept.put(&all, made("br", b"b"));
        assert_eq!(kept.get(&all), Some(made("br", b"b")));
    }

    #[test]
    fn values_with_one_encoding_share_its_bytes() {
        let kept = Kept::default();
        let (one, other) = (
            HeaderValue::from_static("gzip"),
            HeaderValue::from_static("gzip;q=1"),
        );
        kept.put(&one, made("gzip", b"first"));
        kept.put(&other, made("gzip", b"later"));
        assert_eq!(kept.get(&other), kept.get(&one));
    }

    #[test]
    fn nothing_of_the_request_is_kept_with_the_answer() {
        let read_buffer = Bytes::from(vec![b'g'; 8_192]);
        let accept = HeaderValue::from_maybe_shared(read_buffer.slice(..4)).unwrap();
        let kept = Kept::default();
        kept.put(&accept, made("gzip", b"g"));
        drop(accept);
        assert!(read_buffer.is_unique());
        assert!(kept.get(&HeaderValue::from_static("gggg")).is_some());
    }

    #[test]
    fn the_values_kept_are_bounded_in_number_and_length() {
        let kept = Kept::default();
        let value = |n: usize| HeaderValue::try_from(format!("gzip;q=0.{n}")).unwrap();
        (0..100).for_each(|n| kept.put(&value(n), made("gzip", b"g")));
        assert_eq!(
            (0..100).filter(|n| kept.get(&value(*n)).is_some()).count(),
            VALUES
        );
        let kept = Kept::default();
        let long = HeaderValue::try_from("x".repeat(LONGEST + 1)).unwrap();
        kept.put(&long, made("gzip", b"g"));
        assert_eq!(kept.get(&long), None);
    }
}
