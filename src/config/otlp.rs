//! Where and how signals are pushed to an OpenTelemetry collector.
//!
//! Source: the OpenTelemetry specification, "OTLP exporter configuration", "Environment variables" and
//! "Resource SDK". A variable that is set and empty counts as not set, as it says there.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::RangeInclusive;
use std::time::Duration;

use super::traces::Sampling;
use crate::error::Error;

/// Between two pushes of metrics: as often as Prometheus scrapes by our rules, so that both see the same.
const INTERVAL: Duration = Duration::from_secs(15);
/// For one attempt. The specification's 10 s would outlast a push that comes every 5.
const TIMEOUT: Duration = Duration::from_secs(5);

const INTERVALS: RangeInclusive<u64> = 1_000..=3_600_000;
const TIMEOUTS: RangeInclusive<u64> = 100..=30_000;

/// A collector, and how it is spoken to.
///
/// ```
/// use streamgate_agent::Otlp;
///
/// let otlp = Otlp::to("http://collector:4318")?.header("x-tenant", "shop")?;
/// # Ok::<(), streamgate_agent::Error>(())
/// ```
#[derive(Clone, PartialEq)]
pub struct Otlp {
    pub(crate) metrics: Option<Target>,
    pub(crate) interval: Duration,
    pub(crate) exponential: bool,
    /// `None`: there are no spans.
    pub(crate) sampling: Option<Sampling>,
    /// By `OTEL_SERVICE_NAME`, which comes before the agent's own.
    pub(crate) service: Option<String>,
    pub(crate) attributes: BTreeMap<String, String>,
}

/// Where one signal goes.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Target {
    /// `http://host:port/v1/metrics`.
    pub(crate) url: String,
    pub(crate) headers: BTreeMap<String, String>,
    pub(crate) timeout: Duration,
    pub(crate) gzip: bool,
}

impl fmt::Debug for Otlp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Otlp")
            .field("metrics", &self.metrics)
            .field("interval", &self.interval)
            .field("exponential", &self.exponential)
            .finish_non_exhaustive()
    }
}

/// Without the headers' values, which are passwords more often than not.
impl fmt::Debug for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<&String> = self.headers.keys().collect();
        f.debug_struct("Target")
            .field("url", &self.url)
            .field("headers", &names)
            .field("timeout", &self.timeout)
            .field("gzip", &self.gzip)
            .finish()
    }
}

impl Otlp {
    /// Pushes to the collector at a base address, such as `http://127.0.0.1:4318`: protobuf over HTTP,
    /// gzip, metrics every 15 s.
    ///
    /// # Errors
    /// If this is no `http://` or `https://` address.
    pub fn to(endpoint: &str) -> Result<Self, Error> {
        Self::read(&|name| (name == "OTEL_EXPORTER_OTLP_ENDPOINT").then(|| endpoint.to_owned()))
    }

    /// As the standard `OTEL_*` variables of the environment say; without any to `http://localhost:4318`.
    ///
    /// Read are `OTEL_SDK_DISABLED`, `OTEL_METRICS_EXPORTER`, `OTEL_SERVICE_NAME`,
    /// `OTEL_RESOURCE_ATTRIBUTES`, `OTEL_METRIC_EXPORT_INTERVAL`,
    /// `OTEL_EXPORTER_OTLP_METRICS_DEFAULT_HISTOGRAM_AGGREGATION` and
    /// `OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE`, and `OTEL_EXPORTER_OTLP_ENDPOINT`, `_HEADERS`,
    /// `_TIMEOUT`, `_COMPRESSION` and `_PROTOCOL`, each also for one signal, as in
    /// `OTEL_EXPORTER_OTLP_METRICS_ENDPOINT`.
    ///
    /// # Errors
    /// Names the variable, what it may be and what it is.
    pub fn from_env() -> Result<Self, Error> {
        Self::read(&|name| std::env::var(name).ok())
    }

    /// Sends a header with every push, such as a token.
    ///
    /// # Errors
    /// If a server could not read it as one header.
    pub fn header(mut self, name: &str, value: &str) -> Result<Self, Error> {
        check_header("header", name, value)?;
        if let Some(target) = &mut self.metrics {
            target.headers.insert(name.to_owned(), value.to_owned());
        }
        Ok(self)
    }

    /// Pushes metrics this often, 1 s to 1 h.
    ///
    /// # Errors
    /// If it is out of range.
    pub fn metrics_interval(mut self, interval: Duration) -> Result<Self, Error> {
        let millis = u64::try_from(interval.as_millis()).unwrap_or(u64::MAX);
        if !INTERVALS.contains(&millis) {
            let range = "1 s to 1 h";
            return Err(Error::out_of_range("metrics interval", range, format!("{interval:?}")));
        }
        self.interval = interval;
        Ok(self)
    }

    /// Pushes histograms with exponential buckets, 2^(1/8) wide, where the agent counts so finely. Without
    /// it they have the bounds of the page, at which "below 200 ms" is exact.
    pub fn exponential_histograms(mut self) -> Self {
        self.exponential = true;
        self
    }

    fn read(variable: &dyn Fn(&'static str) -> Option<String>) -> Result<Self, Error> {
        let set = |name| variable(name).filter(|value| !value.trim().is_empty());
        let is = |name, word: &str| {
            set(name).is_some_and(|value: String| value.trim().eq_ignore_ascii_case(word))
        };
        let off = is("OTEL_SDK_DISABLED", "true") || is("OTEL_METRICS_EXPORTER", "none");
        let metrics = if off { None } else { Some(Target::read(&set)?) };
        let interval = match set("OTEL_METRIC_EXPORT_INTERVAL") {
            Some(text) => millis("OTEL_METRIC_EXPORT_INTERVAL", &text, INTERVALS)?,
            None => INTERVAL,
        };
        let exponential = word(
            &set,
            "OTEL_EXPORTER_OTLP_METRICS_DEFAULT_HISTOGRAM_AGGREGATION",
            &[
                ("explicit_bucket_histogram", false),
                ("base2_exponential_bucket_histogram", true),
            ],
            false,
        )?;
        // A collector makes differences of totals; what a push of differences loses is lost.
        word(
            &set,
            "OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE",
            &[("cumulative", ())],
            (),
        )?;
        let attributes = match set("OTEL_RESOURCE_ATTRIBUTES") {
            Some(text) => pairs("OTEL_RESOURCE_ATTRIBUTES", &text)?,
            None => BTreeMap::new(),
        };
        Ok(Self {
            metrics,
            interval,
            exponential,
            sampling: Sampling::read(&set)?,
            service: set("OTEL_SERVICE_NAME"),
            attributes,
        })
    }
}

impl Target {
    fn read(set: &dyn Fn(&'static str) -> Option<String>) -> Result<Self, Error> {
        let either = |own: &'static str, all: &'static str| {
            set(own)
                .map(|value| (own, value))
                .or_else(|| set(all).map(|value| (all, value)))
        };
        let own = "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT";
        let url = match (set(own), set("OTEL_EXPORTER_OTLP_ENDPOINT")) {
            (Some(url), _) => checked(own, url)?,
            (None, Some(base)) => below(&checked("OTEL_EXPORTER_OTLP_ENDPOINT", base)?),
            (None, None) => below("http://localhost:4318"),
        };
        let headers = either("OTEL_EXPORTER_OTLP_METRICS_HEADERS", "OTEL_EXPORTER_OTLP_HEADERS");
        let headers = match headers {
            Some((name, text)) => {
                let headers = pairs(name, &text)?;
                for (header, value) in &headers {
                    check_header(name, header, value)?;
                }
                headers
            }
            None => BTreeMap::new(),
        };
        let timeout = either("OTEL_EXPORTER_OTLP_METRICS_TIMEOUT", "OTEL_EXPORTER_OTLP_TIMEOUT");
        let timeout = match timeout {
            Some((name, text)) => millis(name, &text, TIMEOUTS)?,
            None => TIMEOUT,
        };
        let protocols = [("http/protobuf", ())];
        let names = ["OTEL_EXPORTER_OTLP_METRICS_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL"];
        for name in names {
            word(set, name, &protocols, ())?;
        }
        let compressions = [("gzip", true), ("none", false)];
        let all = word(set, "OTEL_EXPORTER_OTLP_COMPRESSION", &compressions, true)?;
        let own = "OTEL_EXPORTER_OTLP_METRICS_COMPRESSION";
        let gzip = word(set, own, &compressions, all)?;
        Ok(Self {
            url,
            headers,
            timeout,
            gzip,
        })
    }
}

/// A base address with the path of metrics.
fn below(base: &str) -> String {
    format!("{}/v1/metrics", base.trim_end_matches('/'))
}

fn checked(name: &'static str, url: String) -> Result<String, Error> {
    let url = url.trim();
    let rest = url.strip_prefix("http://").or_else(|| url.strip_prefix("https://"));
    let host = rest.and_then(|rest| rest.split(['/', '?', '#']).next());
    let plain = url.bytes().all(|byte| byte.is_ascii_graphic());
    if !plain || host.is_none_or(str::is_empty) {
        return Err(Error::out_of_range(name, "an http:// or https:// address", url));
    }
    Ok(url.to_owned())
}

fn millis(
    name: &'static str,
    text: &str,
    range: RangeInclusive<u64>,
) -> Result<Duration, Error> {
    let number = text.trim().parse().ok().filter(|number| range.contains(number));
    let (least, most) = (range.start(), range.end());
    let millis = number
        .ok_or_else(|| Error::out_of_range(name, format!("{least}..={most} milliseconds"), text))?;
    Ok(Duration::from_millis(millis))
}

fn word<T: Copy>(
    set: &dyn Fn(&'static str) -> Option<String>,
    name: &'static str,
    words: &[(&str, T)],
    default: T,
) -> Result<T, Error> {
    let Some(text) = set(name) else {
        return Ok(default);
    };
    let found = words.iter().find(|(word, _)| text.trim().eq_ignore_ascii_case(word));
    found.map(|(_, meaning)| *meaning).ok_or_else(|| {
        let words: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
        Error::out_of_range(name, words.join("|"), text)
    })
}

/// `key=value,key=value`, with `%2C` for what would end a value.
fn pairs(name: &'static str, text: &str) -> Result<BTreeMap<String, String>, Error> {
    let wrong = || Error::out_of_range(name, "key=value pairs, joined by commas, %-encoded", text);
    let parts = text.split(',').map(str::trim).filter(|part| !part.is_empty());
    parts
        .map(|part| {
            let (key, value) = part.split_once('=').ok_or_else(wrong)?;
            let (key, value) = (key.trim(), decoded(value.trim()).ok_or_else(wrong)?);
            if key.is_empty() {
                return Err(wrong());
            }
            Ok((key.to_owned(), value))
        })
        .collect()
}

fn decoded(text: &str) -> Option<String> {
    let mut parts = text.split('%');
    let mut bytes = parts.next().unwrap_or_default().as_bytes().to_vec();
    for part in parts {
        let digits = part.get(..2)?;
        bytes.push(u8::from_str_radix(digits, 16).ok()?);
        bytes.extend_from_slice(part.get(2..)?.as_bytes());
    }
    String::from_utf8(bytes).ok()
}

fn check_header(parameter: &'static str, name: &str, value: &str) -> Result<(), Error> {
    let is_token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    let named = !name.is_empty() && name.bytes().all(is_token);
    let is_text = |byte: u8| byte == b'\t' || (byte >= b' ' && byte != 0x7f);
    if named && value.bytes().all(is_text) {
        return Ok(());
    }
    // The value is not shown: it may be a password.
    Err(Error::out_of_range(parameter, "a header's name and a value of one line", name))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(variables: &[(&str, &str)]) -> Result<Otlp, Error> {
        Otlp::read(&|name| {
            let found = variables.iter().find(|(key, _)| *key == name);
            found.map(|(_, value)| (*value).to_owned())
        })
    }

    fn target(variables: &[(&str, &str)]) -> Target {
        with(variables).unwrap().metrics.unwrap()
    }

    #[test]
    fn without_variables_metrics_go_to_the_local_collector_in_gzip() {
        let otlp = with(&[]).unwrap();
        assert_eq!(otlp.interval, Duration::from_secs(15));
        assert!(!otlp.exponential && otlp.service.is_none());
        let metrics = otlp.metrics.unwrap();
        assert_eq!(metrics.url, "http://localhost:4318/v1/metrics");
        assert_eq!(metrics.timeout, Duration::from_secs(5));
        assert!(metrics.gzip && metrics.headers.is_empty());
        assert_eq!(target(&[("OTEL_EXPORTER_OTLP_ENDPOINT", " ")]), metrics, "empty is not set");
    }

    #[test]
    fn a_signals_own_variable_comes_before_the_common_one_and_is_taken_as_it_is() {
        let both = target(&[
            ("OTEL_EXPORTER_OTLP_ENDPOINT", "https://all:1/base/"),
            ("OTEL_EXPORTER_OTLP_METRICS_ENDPOINT", "http://own:2/x"),
            ("OTEL_EXPORTER_OTLP_TIMEOUT", "10000"),
            ("OTEL_EXPORTER_OTLP_METRICS_TIMEOUT", "100"),
            ("OTEL_EXPORTER_OTLP_COMPRESSION", "gzip"),
            ("OTEL_EXPORTER_OTLP_METRICS_COMPRESSION", "NONE"),
            ("OTEL_EXPORTER_OTLP_HEADERS", "a=1"),
            ("OTEL_EXPORTER_OTLP_METRICS_HEADERS", "api-key=a%2Cb%3D, x = y ,"),
        ]);
        assert_eq!(both.url, "http://own:2/x");
        assert_eq!(both.timeout, Duration::from_millis(100));
        assert!(!both.gzip);
        let headers = [("api-key", "a,b="), ("x", "y")];
        let headers = headers.map(|(name, value)| (name.to_owned(), value.to_owned()));
        assert_eq!(both.headers, BTreeMap::from(headers));
        let common = target(&[("OTEL_EXPORTER_OTLP_ENDPOINT", "https://all:1/base/")]);
        assert_eq!(common.url, "https://all:1/base/v1/metrics");
    }

    #[test]
    fn a_wrong_variable_is_named_with_what_it_may_be() {
        let rows = [
            (
                "OTEL_EXPORTER_OTLP_ENDPOINT",
                "collector:4318",
                "an http:// or https:// address",
            ),
            (
                "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT",
                "http:///v1",
                "an http:// or https:// address",
            ),
            ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc", "http/protobuf"),
            ("OTEL_EXPORTER_OTLP_COMPRESSION", "zstd", "gzip|none"),
            ("OTEL_EXPORTER_OTLP_TIMEOUT", "5s", "100..=30000 milliseconds"),
            ("OTEL_METRIC_EXPORT_INTERVAL", "0", "1000..=3600000 milliseconds"),
            (
                "OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE",
                "delta",
                "cumulative",
            ),
            (
                "OTEL_EXPORTER_OTLP_METRICS_DEFAULT_HISTOGRAM_AGGREGATION",
                "fine",
                "explicit_bucket_histogram|base2_exponential_bucket_histogram",
            ),
            (
                "OTEL_RESOURCE_ATTRIBUTES",
                "a=1,b",
                "key=value pairs, joined by commas, %-encoded",
            ),
        ];
        for (name, value, range) in rows {
            let error = with(&[(name, value)]).unwrap_err().to_string();
            assert_eq!(error, format!("{name} must be {range} (got {value:?})"));
        }
    }

    #[test]
    fn no_header_value_is_shown_in_an_error_or_by_debug() {
        let secret = "s3cret";
        let error = with(&[("OTEL_EXPORTER_OTLP_HEADERS", "no good=s3cret")]).unwrap_err();
        assert!(!error.to_string().contains(secret), "{error}");
        let otlp = Otlp::to("http://c").unwrap().header("token", secret).unwrap();
        let shown = format!("{otlp:?}");
        assert!(shown.contains("token") && !shown.contains(secret), "{shown}");
        let broken = otlp.header("token", "two\nlines").unwrap_err();
        assert!(broken.is_out_of_range(), "{broken}");
    }

    #[test]
    fn pushing_can_be_switched_off_and_the_resource_named() {
        assert_eq!(with(&[("OTEL_SDK_DISABLED", "True")]).unwrap().metrics, None);
        assert_eq!(with(&[("OTEL_METRICS_EXPORTER", "none")]).unwrap().metrics, None);
        let otlp = with(&[
            ("OTEL_SERVICE_NAME", "shop"),
            ("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment.name=prod,a=%20"),
            (
                "OTEL_EXPORTER_OTLP_METRICS_DEFAULT_HISTOGRAM_AGGREGATION",
                "base2_exponential_bucket_histogram",
            ),
        ])
        .unwrap();
        assert_eq!(otlp.service.as_deref(), Some("shop"));
        assert_eq!(otlp.attributes["deployment.environment.name"], "prod");
        assert_eq!(otlp.attributes["a"], " ");
        assert!(otlp.exponential);
    }
}
