//! Which requests' spans are kept, decided when all is known: at the end of the request.

use std::time::Duration;

use crate::config::traces::Sampling;

/// Why the spans of a request are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Keep {
    /// The service failed.
    Error,
    /// It took as long as the threshold or longer.
    Slow,
    /// The caller keeps its part of the trace.
    Parent,
    /// The ratio takes the trace.
    Ratio,
}

impl Keep {
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Slow => "slow",
            Self::Parent => "parent",
            Self::Ratio => "ratio",
        }
    }
}

/// What the start of a request says: whether those that it calls are told to keep their spans.
///
/// `parent` is whether the caller keeps its part, if there is one.
pub(crate) fn at_start(sampling: &Sampling, parent: Option<bool>, trace_id: u128) -> Option<Keep> {
    match parent.filter(|_| sampling.follows_parent) {
        Some(is_sampled) => is_sampled.then_some(Keep::Parent),
        None => sampling.takes(trace_id).then_some(Keep::Ratio),
    }
}

/// What the end says.
pub(crate) fn at_end(
    sampling: &Sampling,
    start: Option<Keep>,
    error: &str,
    elapsed: Duration,
) -> Option<Keep> {
    // A client that leaves is no failure of the service, and browsers leave all the time.
    let failed = !error.is_empty() && error != "client_gone";
    let slow = sampling.slow.is_some_and(|threshold| elapsed >= threshold);
    failed
        .then_some(Keep::Error)
        .or(slow.then_some(Keep::Slow))
        .or(start)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// By the low bits, which alone count.
    const TAKEN: u128 = 7 << 64;
    const LEFT: u128 = 7 << 64 | 1 << 63;

    #[test]
    fn the_outcome_comes_before_the_caller_and_the_caller_before_the_ratio() {
        let follows = Sampling::new(true, 0.5);
        let alone = Sampling::new(false, 0.5);
        let (quick, slow) = (Duration::from_millis(199), Duration::from_millis(200));
        let rows = [
            // sampler, parent, trace, error, took, told at the start, kept at the end
            (follows, None, TAKEN, "", quick, true, Some(Keep::Ratio)),
            (follows, None, LEFT, "", quick, false, None),
            (
                follows,
                Some(true),
                LEFT,
                "",
                quick,
                true,
                Some(Keep::Parent),
            ),
            (follows, Some(false), TAKEN, "", quick, false, None),
            (
                alone,
                Some(false),
                TAKEN,
                "",
                quick,
                true,
                Some(Keep::Ratio),
            ),
            (alone, Some(true), LEFT, "", quick, false, None),
            (
                follows,
                Some(false),
                LEFT,
                "",
                slow,
                false,
                Some(Keep::Slow),
            ),
            (follows, Some(true), TAKEN, "", slow, true, Some(Keep::Slow)),
            (follows, None, LEFT, "503", quick, false, Some(Keep::Error)),
            (
                follows,
                Some(true),
                TAKEN,
                "panic",
                slow,
                true,
                Some(Keep::Error),
            ),
            (follows, None, LEFT, "client_gone", quick, false, None),
            (
                follows,
                None,
                LEFT,
                "client_gone",
                slow,
                false,
                Some(Keep::Slow),
            ),
        ];
        for (at, (sampling, parent, trace, error, took, told, kept)) in rows.into_iter().enumerate()
        {
            let sampling = Sampling {
                slow: Some(slow),
                ..sampling
            };
            let start = at_start(&sampling, parent, trace);
            assert_eq!(start.is_some(), told, "row {at}");
            assert_eq!(at_end(&sampling, start, error, took), kept, "row {at}");
        }
        assert_eq!(
            at_end(&follows, None, "", Duration::MAX),
            None,
            "no threshold"
        );
    }
}
