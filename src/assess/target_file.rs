//! The shape of `targets.toml`: what may stand in it, not yet whether it makes sense.
//!
//! Tied to nothing of the crate, so that what generates the alert rules reads the file by the same
//! types. Whether the values make sense is asked in `thresholds`.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer};

/// The whole file.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct TargetFile {
    /// The label `job` that every rule selects.
    pub(crate) job: String,
    /// How often Prometheus asks.
    pub(crate) scrape: Span,
    /// How long Prometheus keeps what it got.
    pub(crate) retention: Span,
    /// Where the runbooks stand.
    pub(crate) runbooks: String,
    pub(crate) target: Thresholds,
    /// What alerts compare with that are about no target, by name.
    pub(crate) limit: BTreeMap<String, Limit>,
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

impl Thresholds {
    /// Every target with its id.
    pub(crate) fn rows(&self) -> [(&'static str, &Threshold); 10] {
        [
            ("latency_p95", &self.latency_p95),
            ("cache_hit", &self.cache_hit),
            ("cache_hit_l1", &self.cache_hit_l1),
            ("cache_hit_l2", &self.cache_hit_l2),
            ("cache_hit_l3", &self.cache_hit_l3),
            ("error_ratio", &self.error_ratio),
            ("throughput", &self.throughput),
            ("cpu", &self.cpu),
            ("memory", &self.memory),
            ("disk_busy", &self.disk_busy),
        ]
    }
}

/// One target.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Threshold {
    pub(crate) title: String,
    pub(crate) signal: String,
    /// The recorded series that an alert judges.
    pub(crate) value: String,
    pub(crate) op: Op,
    pub(crate) must: f64,
    pub(crate) stretch: f64,
    pub(crate) unit: String,
    /// Caches only: uptime before which there is no verdict.
    pub(crate) warmup: Option<Span>,
    /// Caches only: lookups before which there is no verdict.
    pub(crate) min_lookups: Option<u64>,
    /// Caches only: uptime before which there is no alert.
    pub(crate) alert_after: Option<Span>,
    /// What else decides by this target.
    pub(crate) gate: Option<String>,
    /// How long the value misses the target before the alert fires.
    #[serde(rename = "for")]
    pub(crate) hold: Span,
    pub(crate) guard: Option<Guard>,
    pub(crate) severity: Severity,
    /// The share of requests that may miss the target.
    pub(crate) budget: Option<f64>,
    #[serde(default)]
    pub(crate) burn: Vec<Burn>,
}

/// How fast the budget may be used up: an alert with two windows.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(from = "(Severity, Span, Span, Span, f64)")]
pub(crate) struct Burn {
    pub(crate) severity: Severity,
    pub(crate) hold: Span,
    pub(crate) long: Span,
    pub(crate) short: Span,
    /// Times the budget.
    pub(crate) factor: f64,
}

impl From<(Severity, Span, Span, Span, f64)> for Burn {
    fn from((severity, hold, long, short, factor): (Severity, Span, Span, Span, f64)) -> Self {
        Self {
            severity,
            hold,
            long,
            short,
            factor,
        }
    }
}

/// What an alert compares with that is about no target: one of the two sides.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Limit {
    pub(crate) above: Option<f64>,
    pub(crate) below: Option<f64>,
    pub(crate) unit: String,
    /// The histogram whose quantile is compared.
    pub(crate) of: Option<String>,
}

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

/// Whom an alert reaches.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Severity {
    /// Someone, at once.
    Critical,
    /// A list that someone reads.
    Warning,
    /// Whoever looks at a dashboard.
    Info,
}

/// What must be seen beside a missed target, in requests: `rps > 1`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Guard {
    pub(crate) counted: Counted,
    pub(crate) above: f64,
}

/// What a guard counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Counted {
    /// `rps`: requests per second.
    Requests,
    /// `errors`: failed requests in 5 min.
    Errors,
    /// `shed`: requests per second that were turned away.
    Shed,
}

impl<'de> Deserialize<'de> for Guard {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = String::deserialize(from)?;
        let parsed = text.split_once(" > ").and_then(|(counted, above)| {
            let counted = match counted {
                "rps" => Counted::Requests,
                "errors" => Counted::Errors,
                "shed" => Counted::Shed,
                _ => return None,
            };
            let above = above.parse().ok().filter(|above: &f64| above.is_finite())?;
            Some(Self { counted, above })
        });
        parsed.ok_or_else(|| {
            let message =
                format!("a guard must be rps, errors or shed, then > and a number (got {text:?})");
            D::Error::custom(message)
        })
    }
}

/// A length of time, written as `45s`, `10m`, `1h` or `35d`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Span(pub(crate) Duration);

/// The units from the longest on, with their seconds.
const UNITS: [(char, u64); 4] = [('d', 86_400), ('h', 3_600), ('m', 60), ('s', 1)];

/// In the largest unit that holds it a whole number of times, as PromQL reads it.
impl fmt::Display for Span {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.0.as_secs();
        for (unit, of_it) in UNITS {
            if seconds.is_multiple_of(of_it) {
                return write!(to, "{}{unit}", seconds / of_it);
            }
        }
        Ok(())
    }
}

impl<'de> Deserialize<'de> for Span {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = String::deserialize(from)?;
        let unit = UNITS.iter().find(|(unit, _)| text.ends_with(*unit));
        let number = text.get(..text.len().saturating_sub(1)).unwrap_or_default();
        unit.and_then(|(_, seconds)| {
            let number = u64::from(number.parse::<u32>().ok()?);
            Some(Duration::from_secs(number * seconds))
        })
        .filter(|duration| !duration.is_zero())
        .map(Self)
        .ok_or_else(|| {
            let message = format!(
                "a duration must be a whole number with s, m, h or d, above 0 (got {text:?})"
            );
            D::Error::custom(message)
        })
    }
}
