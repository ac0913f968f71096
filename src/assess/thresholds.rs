//! What the targets ask for, read from `targets.toml`.
//!
//! The file is part of the program, so that rules, panels and verdicts can be generated from the
//! same numbers. It is checked all the same: a threshold between two histogram bounds, or a
//! stretch that is easier than its target, would give verdicts that nobody meant.

use std::fmt;
use std::time::Duration;

use serde::Deserialize;
use serde::de::Error as _;

use crate::catalog::bounds::Bounds;
use crate::error::Error;

/// The file as it was when the program was built.
const BUILT_IN: &str = include_str!("../../targets.toml");

/// On which side of the threshold a value should lie.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub(crate) enum Op {
    #[serde(rename = "<")]
    Below,
    #[serde(rename = ">")]
    Above,
}

impl Op {
    pub(crate) fn sign(self) -> &'static str {
        match self {
            Self::Below => "<",
            Self::Above => ">",
        }
    }

    /// Says whether `value` meets `threshold`; exactly at it does not.
    pub(crate) fn holds(self, value: f64, threshold: f64) -> bool {
        match self {
            Self::Below => value < threshold,
            Self::Above => value > threshold,
        }
    }
}

/// One target.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Threshold {
    pub(crate) title: String,
    pub(crate) op: Op,
    pub(crate) must: f64,
    pub(crate) stretch: f64,
    pub(crate) unit: String,
    /// Caches only.
    #[serde(default, deserialize_with = "span")]
    warmup: Option<Duration>,
    /// Caches only.
    min_lookups: Option<u64>,
}

impl Threshold {
    /// Uptime before which a cache is not judged: one lifetime of its entries.
    pub(crate) fn warmup(&self) -> Duration {
        self.warmup.unwrap_or_default()
    }

    /// Lookups before which a cache is not judged.
    pub(crate) fn min_lookups(&self) -> u64 {
        self.min_lookups.unwrap_or(0)
    }
}

/// Every target by its id.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Thresholds {
    pub(crate) latency_p95: Threshold,
    pub(crate) cache_hit: Threshold,
    pub(crate) cache_hit_l1: Threshold,
    pub(crate) cache_hit_l2: Threshold,
    pub(crate) cache_hit_l3: Threshold,
    pub(crate) error_ratio: Threshold,
    pub(crate) throughput: Threshold,
    pub(crate) cpu: Threshold,
    pub(crate) memory: Threshold,
    pub(crate) disk_busy: Threshold,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    target: Thresholds,
}

impl Thresholds {
    /// The thresholds that the program was built with.
    ///
    /// # Errors
    /// Refused, naming key, range and value, if the file was changed for the worse.
    pub(crate) fn built_in() -> Result<Self, Error> {
        Self::parse(BUILT_IN)
    }

    /// # Errors
    /// Refused, naming key, range and value.
    fn parse(text: &str) -> Result<Self, Error> {
        let thresholds = match toml::from_str::<File>(text) {
            Ok(file) => file.target,
            Err(error) => return Err(refused(in_line(text, &error))),
        };
        thresholds.check()?;
        Ok(thresholds)
    }

    fn check(&self) -> Result<(), Error> {
        use Op::{Above, Below};
        let rows = [
            ("latency_p95", &self.latency_p95, Below, "s"),
            ("cache_hit", &self.cache_hit, Above, "ratio"),
            ("cache_hit_l1", &self.cache_hit_l1, Above, "ratio"),
            ("cache_hit_l2", &self.cache_hit_l2, Above, "ratio"),
            ("cache_hit_l3", &self.cache_hit_l3, Above, "ratio"),
            ("error_ratio", &self.error_ratio, Below, "ratio"),
            ("throughput", &self.throughput, Above, "1/s"),
            ("cpu", &self.cpu, Below, "ratio"),
            ("memory", &self.memory, Below, "ratio"),
            ("disk_busy", &self.disk_busy, Below, "ratio"),
        ];
        for (id, row, op, unit) in rows {
            check_row(id, row, op, unit)?;
        }
        Ok(())
    }
}

fn check_row(id: &str, row: &Threshold, op: Op, unit: &str) -> Result<(), Error> {
    let key = |key: &str| format!("target.{id}.{key}");
    if row.op != op {
        return Err(wrong(&key("op"), op.sign(), row.op.sign()));
    }
    if row.unit != unit {
        return Err(wrong(&key("unit"), unit, &row.unit));
    }
    let top = if unit == "ratio" { 1.0 } else { f64::MAX };
    for (name, value) in [("must", row.must), ("stretch", row.stretch)] {
        if !(value > 0.0 && value <= top) {
            let range = if unit == "ratio" {
                "above 0 and at most 1"
            } else {
                "above 0 and finite"
            };
            return Err(wrong(&key(name), range, value));
        }
        if id == "latency_p95" && !is_request_bound(value) {
            let range = format!("one of the bounds {}", request_bounds());
            return Err(wrong(&key(name), range, value));
        }
    }
    if op.holds(row.must, row.stretch) {
        let side = match op {
            Op::Below => "at most",
            Op::Above => "at least",
        };
        let range = format!("{side} {}, the value of must", row.must);
        return Err(wrong(&key("stretch"), range, row.stretch));
    }
    let cache = id.starts_with("cache_hit");
    for (name, present) in [
        ("warmup", row.warmup.is_some()),
        ("min_lookups", row.min_lookups.is_some()),
    ] {
        if present != cache {
            let (range, seen) = if cache {
                ("present", "nothing")
            } else {
                ("absent: only caches warm up", "a value")
            };
            return Err(wrong(&key(name), range, seen));
        }
    }
    Ok(())
}

/// With a bound at the threshold, the share of requests on its good side is exact.
fn is_request_bound(seconds: f64) -> bool {
    let nanos = Duration::try_from_secs_f64(seconds).map_or(0, |duration| duration.as_nanos());
    let mut bounds = Bounds::Request.classic().iter();
    bounds.any(|bound| u128::from(*bound) == nanos)
}

fn request_bounds() -> String {
    let bounds = Bounds::Request.classic().iter();
    let seconds: Vec<String> = bounds
        .map(|nanos| Duration::from_nanos(*nanos).as_secs_f64().to_string())
        .collect();
    seconds.join(" ")
}

fn refused(why: impl fmt::Display) -> Error {
    Error::refused("targets.toml", why)
}

fn wrong(key: &str, range: impl fmt::Display, seen: impl fmt::Display) -> Error {
    refused(format!("{key} must be {range} (got \"{seen}\")"))
}

fn in_line(text: &str, error: &toml::de::Error) -> String {
    let before = error.span().and_then(|span| text.get(..span.start));
    match before {
        Some(before) => {
            let line = before.matches('\n').count() + 1;
            format!("line {line}: {}", error.message())
        }
        None => error.message().to_owned(),
    }
}

/// Reads `45s`, `10m`, `1h` or `35d`.
fn span<'de, D: serde::Deserializer<'de>>(from: D) -> Result<Option<Duration>, D::Error> {
    let text = String::deserialize(from)?;
    let seconds = match text.chars().last() {
        Some('s') => 1,
        Some('m') => 60,
        Some('h') => 3600,
        Some('d') => 86_400,
        _ => 0,
    };
    let number = text.get(..text.len().saturating_sub(1)).unwrap_or_default();
    number
        .parse::<u32>()
        .ok()
        .map(|number| Duration::from_secs(u64::from(number) * seconds))
        .filter(|duration| !duration.is_zero())
        .map(Some)
        .ok_or_else(|| {
            let message = format!(
                "a duration must be a whole number with s, m, h or d, above 0 (got {text:?})"
            );
            D::Error::custom(message)
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(from: &str, to: &str) -> String {
        assert!(BUILT_IN.contains(from), "{from}");
        let text = BUILT_IN.replacen(from, to, 1);
        Thresholds::parse(&text).unwrap_err().to_string()
    }

    #[test]
    fn the_built_in_file_holds_the_numbers_of_the_guide() {
        let targets = Thresholds::built_in().unwrap();
        let pair = |row: &Threshold| (row.op.sign(), row.must, row.stretch);
        assert_eq!(pair(&targets.latency_p95), ("<", 0.2, 0.1));
        assert_eq!(pair(&targets.cache_hit), (">", 0.8, 0.95));
        assert_eq!(pair(&targets.error_ratio), ("<", 0.01, 0.005));
        assert_eq!(pair(&targets.throughput), (">", 1000.0, 5000.0));
        assert_eq!(pair(&targets.cpu), ("<", 0.7, 0.5));
        assert_eq!(pair(&targets.memory), ("<", 0.8, 0.6));
        assert_eq!(pair(&targets.disk_busy), ("<", 0.7, 0.4));
        let must = [
            targets.cache_hit_l1.must,
            targets.cache_hit_l2.must,
            targets.cache_hit_l3.must,
        ];
        let shown = must.map(|share| share.to_string());
        assert_eq!(shown, ["0.9", "0.8", "0.7"]);
        assert_eq!(targets.cache_hit.warmup(), Duration::from_secs(300));
        assert_eq!(targets.cache_hit.min_lookups(), 1000);
    }

    #[test]
    fn a_bad_value_is_refused_by_key_range_and_value() {
        let cases = [
            (
                "must = 0.2\n",
                "must = 0.21\n",
                "target.latency_p95.must must be one of the bounds 0.005 0.01",
            ),
            (
                "stretch = 0.1\n",
                "stretch = 11.0\n",
                "target.latency_p95.stretch must be one of the bounds",
            ),
            (
                "stretch = 0.1\n",
                "stretch = 0.25\n",
                "target.latency_p95.stretch must be at most 0.2, the value of must (got \"0.25\")",
            ),
            (
                "stretch = 5000\n",
                "stretch = 900\n",
                "target.throughput.stretch must be at least 1000, the value of must (got \"900\")",
            ),
            (
                "must = 0.7\nstretch = 0.5",
                "must = 1.7\nstretch = 0.5",
                "target.cpu.must must be above 0 and at most 1 (got \"1.7\")",
            ),
            (
                "must = 1000\n",
                "must = inf\n",
                "target.throughput.must must be above 0 and finite (got \"inf\")",
            ),
            (
                "must = 0.01\n",
                "must = nan\n",
                "target.error_ratio.must must be above 0 and at most 1 (got \"NaN\")",
            ),
            (
                "op = \"<\"",
                "op = \">\"",
                "target.latency_p95.op must be < (got \">\")",
            ),
            (
                "unit = \"s\"",
                "unit = \"ms\"",
                "target.latency_p95.unit must be s (got \"ms\")",
            ),
            (
                "min_lookups = 1000\n",
                "",
                "target.cache_hit.min_lookups must be present (got \"nothing\")",
            ),
            (
                "unit = \"1/s\"",
                "unit = \"1/s\"\nwarmup = \"1m\"",
                "target.throughput.warmup must be absent: only caches warm up (got \"a value\")",
            ),
        ];
        for (from, to, expected) in cases {
            let error = with(from, to);
            assert!(error.contains(expected), "{to}: {error}");
        }
    }

    #[test]
    fn an_unknown_or_missing_key_is_refused_with_its_line() {
        assert!(
            with("op = \"<\"", "opp = \"<\"")
                .starts_with("targets.toml: line 6: unknown field `opp`")
        );
        assert!(with("[target.cpu]", "[target.cpus]").contains("unknown field `cpus`"));
        assert!(with("must = 0.2\n", "").contains("missing field `must`"));
        assert!(with("op = \"<\"", "op = \"<=\"").contains("unknown variant `<=`"));
        for bad in ["5", "m", "0m", "-5m", "5w", "", "5é"] {
            let error = with("\"5m\"", &format!("{bad:?}"));
            assert!(error.contains(&format!("above 0 (got {bad:?})")), "{error}");
        }
    }

    #[test]
    fn exactly_at_the_threshold_does_not_meet_it() {
        assert!(!Op::Below.holds(0.2, 0.2) && Op::Below.holds(0.199, 0.2));
        assert!(!Op::Above.holds(0.8, 0.8) && Op::Above.holds(0.801, 0.8));
    }
}
