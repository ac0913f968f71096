//! Which requests' spans are kept: the sampler's rate, and the bound above which a request is slow.
//!
//! Source: the OpenTelemetry specification, "Environment variables", `OTEL_TRACES_SAMPLER`.

use std::time::Duration;

use super::otlp::Otlp;
use crate::error::Error;

/// What the environment may say of a variable; empty is not set.
type Variable<'a> = &'a dyn Fn(&'static str) -> Option<String>;

const SAMPLER: &str = "OTEL_TRACES_SAMPLER";
const RATIO: &str = "OTEL_TRACES_SAMPLER_ARG";

/// Which requests' spans are kept, beside those that failed.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Sampling {
    /// Whether the caller's decision comes before the ratio.
    pub(crate) follows_parent: bool,
    /// Of 2^63 trace ids, so many are sampled.
    pub(crate) bound: u64,
    /// Requests that take as long are kept; `None`: as long as the latency target allows.
    pub(crate) slow: Option<Duration>,
}

impl Sampling {
    pub(crate) fn new(follows_parent: bool, ratio: f64) -> Self {
        Self {
            follows_parent,
            bound: bound(ratio),
            slow: None,
        }
    }

    /// Whether the ratio takes this trace: the low 63 bits decide, as in OpenTelemetry's own samplers, so
    /// that services of one ratio take the same traces.
    pub(crate) fn takes(&self, trace_id: u128) -> bool {
        let low = u64::try_from(trace_id & u128::from(u64::MAX)).unwrap_or(0);
        low >> 1 < self.bound
    }

    /// As the variables say; without any every trace that no caller left out.
    ///
    /// # Errors
    /// Names the variable, what it may be and what it is.
    pub(crate) fn read(variable: Variable<'_>) -> Result<Option<Self>, Error> {
        let set = |name| variable(name).map(|value| value.trim().to_ascii_lowercase());
        let is = |name, word: &str| set(name).is_some_and(|value| value == word);
        if is("OTEL_SDK_DISABLED", "true") || is("OTEL_TRACES_EXPORTER", "none") {
            return Ok(None);
        }
        let name = set(SAMPLER).filter(|name| !name.is_empty());
        let name = name.as_deref().unwrap_or("parentbased_always_on");
        let rest = name.strip_prefix("parentbased_");
        let ratio = match rest.unwrap_or(name) {
            "always_on" => 1.0,
            "always_off" => 0.0,
            "traceidratio" => match set(RATIO).filter(|text| !text.is_empty()) {
                Some(text) => {
                    let number = text.parse().ok();
                    checked(RATIO, number.ok_or_else(|| wrong(RATIO, &text))?)?
                }
                None => 1.0,
            },
            _ => {
                let known = "always_on|always_off|traceidratio, each also with parentbased_";
                return Err(Error::out_of_range(SAMPLER, known, name));
            }
        };
        Ok(Some(Self::new(rest.is_some(), ratio)))
    }
}

impl Otlp {
    /// Keeps the spans of this share of traces, 0 to 1, where no caller has decided; the default is 1.
    ///
    /// Requests that failed or were slow are kept in any case: what is kept is decided at the end of the
    /// request. A trace is taken or left by its id, so that services with one ratio take the same ones.
    ///
    /// ```
    /// use streamgate_agent::Otlp;
    ///
    /// let otlp = Otlp::to("http://collector:4318")?.trace_ratio(0.01)?;
    /// let error = otlp.trace_ratio(1.5).unwrap_err();
    /// assert_eq!(error.to_string(), "trace ratio must be 0 to 1 (got \"1.5\")");
    /// # Ok::<(), streamgate_agent::Error>(())
    /// ```
    ///
    /// # Errors
    /// If it is out of range.
    pub fn trace_ratio(mut self, ratio: f64) -> Result<Self, Error> {
        let ratio = checked("trace ratio", ratio)?;
        if let Some(sampling) = &mut self.sampling {
            sampling.bound = bound(ratio);
        }
        Ok(self)
    }

    /// Keeps the spans of every request that takes as long as this or longer; the default is the latency
    /// target, 200 ms.
    pub fn slow_request(mut self, threshold: Duration) -> Self {
        if let Some(sampling) = &mut self.sampling {
            sampling.slow = Some(threshold);
        }
        self
    }
}

fn checked(name: &'static str, ratio: f64) -> Result<f64, Error> {
    let fits = (0.0..=1.0).contains(&ratio);
    fits.then_some(ratio)
        .ok_or_else(|| wrong(name, &ratio.to_string()))
}

fn wrong(name: &'static str, value: &str) -> Error {
    Error::out_of_range(name, "0 to 1", value)
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a share of 2^63 fits"
)]
fn bound(ratio: f64) -> u64 {
    (ratio * 2_f64.powi(63)) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(variables: &[(&str, &str)]) -> Result<Option<Sampling>, Error> {
        Sampling::read(&|name| {
            let found = variables.iter().find(|(key, _)| *key == name);
            found.map(|(_, value)| (*value).to_owned())
        })
    }

    #[test]
    fn each_standard_sampler_is_a_ratio_with_or_without_the_parent() {
        let rows = [
            ("always_on", false, 1.0),
            ("always_off", false, 0.0),
            ("traceidratio", false, 0.25),
            ("parentbased_always_on", true, 1.0),
            ("parentbased_always_off", true, 0.0),
            ("parentbased_TraceIdRatio", true, 0.25),
            (" ", true, 1.0),
        ];
        for (name, follows, ratio) in rows {
            let read = with(&[(SAMPLER, name), (RATIO, "0.25")]).unwrap();
            assert_eq!(read, Some(Sampling::new(follows, ratio)), "{name}");
        }
        assert_eq!(with(&[]).unwrap(), Some(Sampling::new(true, 1.0)));
        for off in [
            ("OTEL_SDK_DISABLED", "TRUE"),
            ("OTEL_TRACES_EXPORTER", "none"),
        ] {
            assert_eq!(with(&[off]).unwrap(), None);
        }
    }

    #[test]
    fn an_unknown_sampler_and_a_ratio_beyond_one_are_named() {
        let error = with(&[(SAMPLER, "jaeger_remote")]).unwrap_err().to_string();
        assert!(
            error.starts_with("OTEL_TRACES_SAMPLER must be always_on|"),
            "{error}"
        );
        for bad in ["1.01", "-0.1", "NaN", "1%"] {
            let error = with(&[(SAMPLER, "traceidratio"), (RATIO, bad)]).unwrap_err();
            let text = format!(
                "{RATIO} must be 0 to 1 (got {:?})",
                bad.to_ascii_lowercase()
            );
            assert_eq!(
                error.to_string().to_ascii_lowercase(),
                text.to_ascii_lowercase()
            );
        }
    }

    #[test]
    fn the_ratio_takes_its_share_of_ids_and_one_takes_all() {
        let share = |ratio| {
            let sampling = Sampling::new(true, ratio);
            let step = u128::from(u64::MAX) / 1_000;
            (0..1_000)
                .filter(|n| sampling.takes(n * step + step / 2))
                .count()
        };
        assert_eq!(
            [share(0.0), share(0.01), share(0.5), share(1.0)],
            [0, 10, 500, 1_000]
        );
        assert!(Sampling::new(true, 1.0).takes(u128::MAX));
    }
}
