//! Which seconds a profile request means: those to come, or some that are over.

use std::ops::RangeInclusive;
use std::time::Duration;

use super::query::Query;
use crate::config::{self, SampleRate};
use crate::error::Error;
use crate::export::guard::{Reason, Refusal};
use crate::store::CpuSpan;

/// Milliseconds since 1970 until the year 2286: a value in microseconds or nanoseconds is refused.
const UNIX_MILLIS: RangeInclusive<u64> = 0..=9_999_999_999_999;

/// Reads `seconds` with `hz` or with `ago`, or `from` with `to`.
pub(super) fn read(query: &Query, rates: &RangeInclusive<u32>) -> Result<CpuSpan, Refusal> {
    if query.has("from") || query.has("to") {
        return between(query);
    }
    if query.has("ago") {
        return ago(query);
    }
    let seconds = query.number(
        "seconds",
        &config::PROFILE_SECONDS,
        config::PROFILE_SECONDS_DEFAULT,
    )?;
    let wide = u64::from(*rates.start())..=u64::from(*rates.end());
    let hz = query.number("hz", &wide, config::HZ_DEFAULT.into())?;
    let refused = |error: Error| refuse(error.to_string());
    let rate = SampleRate::new(u32::try_from(hz).unwrap_or(0), rates).map_err(refused)?;
    Ok(CpuSpan::Next {
        rate,
        duration: Duration::from_secs(seconds),
    })
}

fn ago(query: &Query) -> Result<CpuSpan, Refusal> {
    if query.has("hz") {
        return Err(refuse(
            "hz and ago exclude each other: the past has the rate at which it was sampled",
        ));
    }
    let lengths = 1..=config::RECORDED_SECONDS;
    let seconds = query.number("seconds", &lengths, config::PROFILE_SECONDS_DEFAULT)?;
    let ago = query.number("ago", &(seconds..=config::RECORDED_SECONDS), 0)?;
    Ok(CpuSpan::Ago {
        ago: Duration::from_secs(ago),
        duration: Duration::from_secs(seconds),
    })
}

fn between(query: &Query) -> Result<CpuSpan, Refusal> {
    for other in ["seconds", "ago", "hz"] {
        if query.has(other) {
            return Err(refuse(format!("{other} and from, to exclude each other")));
        }
    }
    if !(query.has("from") && query.has("to")) {
        return Err(refuse("from and to belong together"));
    }
    let from = query.number("from", &UNIX_MILLIS, 0)?;
    let ends = from + 1000..=from + 1000 * config::RECORDED_SECONDS;
    let to = query.number("to", &ends, 0)?;
    Ok(CpuSpan::Between { from, to })
}

fn refuse(text: impl Into<std::borrow::Cow<'static, str>>) -> Refusal {
    Refusal::new(400, Reason::Parameter, text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn span(query: &str) -> Result<CpuSpan, String> {
        read(&Query::parse(query), &config::HZ).map_err(|refusal| {
            assert_eq!(refusal.status, 400);
            refusal.text.into_owned()
        })
    }

    #[test]
    fn the_past_is_named_by_its_age_or_by_wall_time() {
        let ago = |ago, seconds| CpuSpan::Ago {
            ago: Duration::from_secs(ago),
            duration: Duration::from_secs(seconds),
        };
        assert_eq!(span("ago=120&seconds=30"), Ok(ago(120, 30)));
        assert_eq!(span("ago=30"), Ok(ago(30, 30)));
        assert_eq!(span("seconds=900&ago=900"), Ok(ago(900, 900)));
        let (from, to) = (1_700_000_000_000, 1_700_000_030_000);
        let between = CpuSpan::Between { from, to };
        let query = format!("from={from}&to={to}");
        assert_eq!(span(&query), Ok(between));
        assert_eq!(between.duration(), Duration::from_secs(30));
        let next = span("seconds=5").unwrap();
        assert_eq!(next.duration(), Duration::from_secs(5));
    }

    #[test]
    fn bad_values_name_parameter_range_and_value() {
        let rows = [
            ("ago=29", "ago must be 30..=900 (got \"29\")"),
            ("ago=901", "ago must be 30..=900 (got \"901\")"),
            ("ago=5&seconds=10", "ago must be 10..=900 (got \"5\")"),
            ("ago=x", "ago must be 30..=900 (got \"x\")"),
            ("ago=900&seconds=0", "seconds must be 1..=900 (got \"0\")"),
            (
                "ago=900&seconds=901",
                "seconds must be 1..=900 (got \"901\")",
            ),
            ("seconds=61", "seconds must be 1..=60 (got \"61\")"),
            (
                "ago=60&hz=99",
                "hz and ago exclude each other: the past has the rate at which it was sampled",
            ),
            ("from=5000", "from and to belong together"),
            ("to=5000", "from and to belong together"),
            (
                "from=5000&to=6000&seconds=1",
                "seconds and from, to exclude each other",
            ),
            (
                "from=5000&to=6000&ago=9",
                "ago and from, to exclude each other",
            ),
            ("to=6000&hz=9", "hz and from, to exclude each other"),
            (
                "from=5000&to=5999",
                "to must be 6000..=905000 (got \"5999\")",
            ),
            (
                "from=5000&to=905001",
                "to must be 6000..=905000 (got \"905001\")",
            ),
            (
                "from=1700000000000000&to=1",
                "from must be 0..=9999999999999 (got \"1700000000000000\")",
            ),
        ];
        for (query, wanted) in rows {
            assert_eq!(span(query), Err(wanted.to_owned()), "{query}");
        }
    }
}
