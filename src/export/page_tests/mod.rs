//! The metrics pages as a whole: what they look like, that strangers can read them, that they agree.

mod parser;
#[cfg(feature = "otlp")]
mod pushed;
mod tests;
mod verdict;

use crate::store::metrics::MetricsLimits;

const LIMITS: MetricsLimits = MetricsLimits {
    series: 10_000,
    bytes: 32 << 20,
};
