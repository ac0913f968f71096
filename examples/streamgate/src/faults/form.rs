//! What values faults take, and how they are written.

use super::leak;
use crate::bench::duration;
use crate::db::indexes;

/// A share of 1 as [`Form::Percent`] counts it: in hundredths of a percent.
pub(super) const WHOLE: u64 = 10_000;

/// What may follow the `=` of a setting. The number that stands for it is never 0, which is "off".
#[derive(Clone, Copy, Debug)]
pub(super) enum Form {
    /// Nothing: on or off.
    Flag,
    Count {
        most: u64,
    },
    /// A time such as `500ms`, with or without a plus sign.
    Milliseconds {
        most: u64,
    },
    /// A share such as `5%`.
    Percent,
    /// `1MiB/s`.
    BytesPerSecond,
    /// The name of an index; its number is its place, from 1.
    Index,
}

impl Form {
    /// The number of a value; `None` where it is outside the range.
    pub(super) fn parse(self, text: Option<&str>) -> Option<u64> {
        let (text, most) = match (self, text) {
            (Self::Flag, None) => return Some(1),
            (Self::Flag, Some(_)) | (_, None) => return None,
            (Self::Count { most } | Self::Milliseconds { most }, Some(text)) => (text, most),
            (Self::Percent, Some(text)) => (text, WHOLE),
            (Self::BytesPerSecond | Self::Index, Some(text)) => (text, u64::MAX),
        };
        let value = match self {
            Self::Flag => None,
            Self::Count { .. } => text.parse().ok(),
            Self::Milliseconds { .. } => {
                let time = duration::parse(text.strip_prefix('+').unwrap_or(text)).ok()?;
                u64::try_from(time.as_millis()).ok()
            }
            Self::Percent => hundredths(text.strip_suffix('%')?),
            Self::BytesPerSecond => leak::parse(text).ok(),
            Self::Index => {
                let place = indexes::all().position(|(name, _)| name == text)?;
                u64::try_from(place + 1).ok()
            }
        };
        value.filter(|value| (1..=most).contains(value))
    }

    /// The values as an error names them.
    pub(super) fn range(self) -> String {
        match self {
            Self::Flag => "given without a value".to_owned(),
            Self::Count { most } => format!("1..={most}"),
            Self::Milliseconds { most } => format!("a time, 1ms..={most}ms"),
            Self::Percent => "a share, 0.01%..=100%".to_owned(),
            Self::BytesPerSecond => "a rate, 64KiB/s..=64MiB/s".to_owned(),
            Self::Index => {
                let names: Vec<&str> = indexes::all().map(|(name, _)| name).collect();
                format!("one of {}", names.join(", "))
            }
        }
    }
}

/// Percent with at most two digits after the point, in hundredths.
fn hundredths(text: &str) -> Option<u64> {
    let (whole, part) = text.split_once('.').unwrap_or((text, "0"));
    let part: u64 = match part.len() {
        1 => part.parse::<u64>().ok()? * 10,
        2 => part.parse().ok()?,
        _ => return None,
    };
    whole
        .parse::<u64>()
        .ok()?
        .checked_mul(100)?
        .checked_add(part)
}
