//! Where and how signals are pushed to an OpenTelemetry collector.
//!
//! Source: the OpenTelemetry specification, "OTLP exporter configuration", "Environment variables" and
//! "Resource SDK". A variable that is set and empty counts as not set, as it says there.

#[path = "otlp_delivery.rs"]
pub(crate) mod delivery;
#[cfg_attr(feature = "otlp-grpc", path = "otlp_protocols.rs")]
#[cfg_attr(not(feature = "otlp-grpc"), path = "otlp_protocols_off.rs")]
mod protocols;

use std::collections::BTreeMap;
use std::fmt;
use std::ops::RangeInclusive;
use std::time::Duration;

use super::traces::Sampling;
use crate::error::Error;

use delivery::Limits;
use protocols::PROTOCOLS;

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
    pub(crate) spans: Option<Target>,
    pub(crate) logs: Option<Target>,
    pub(crate) profiles: Option<Target>,
    /// How spans, logs and profiles wait for a collector that is away.
    pub(crate) delivery: Limits,
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
    /// `http://host:port/v1/metrics`; by gRPC `http://host:port`.
    pub(crate) url: String,
    pub(crate) headers: BTreeMap<String, String>,
    pub(crate) timeout: Duration,
    pub(crate) gzip: bool,
    /// What is called by gRPC; `None`: protobuf over HTTP.
    pub(crate) grpc_method: Option<&'static str>,
}

impl fmt::Debug for Otlp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Otlp")
            .field("metrics", &self.metrics)
            .field("spans", &self.spans)
            .field("logs", &self.logs)
            .field("profiles", &self.profiles)
            .field("delivery", &self.delivery)
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
            .field("grpc_method", &self.grpc_method)
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
    /// Read are `OTEL_SDK_DISABLED`, `OTEL_METRICS_EXPORTER`, `OTEL_TRACES_EXPORTER`,
    /// `OTEL_LOGS_EXPORTER`, `OTEL_TRACES_SAMPLER`, `OTEL_TRACES_SAMPLER_ARG`, `OTEL_SERVICE_NAME`, `OTEL_RESOURCE_ATTRIBUTES`, `OTEL_METRIC_EXPORT_INTERVAL`,
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
        for target in self.targets() {
            target.headers.insert(name.to_owned(), value.to_owned());
        }
        Ok(self)
    }

    /// Pushes metrics this often, 1 s to 1 h.
    ///
    /// # Errors
    /// If it is out of range.
    pub fn metrics_interval(mut self, interval: Duration) -> Result<Self, Error> {
        self.interval = within("metrics interval", INTERVALS, interval)?;
        Ok(self)
    }

    /// Gives each attempt so long, name look-up and answer included, 100 ms to 30 s; the default is 5 s.
    ///
    /// # Errors
    /// If it is out of range.
    pub fn timeout(mut self, timeout: Duration) -> Result<Self, Error> {
        let timeout = within("timeout", TIMEOUTS, timeout)?;
        for target in self.targets() {
            target.timeout = timeout;
        }
        Ok(self)
    }

    /// Pushes histograms with exponential buckets, 2^(1/8) wide, where the agent counts so finely. Without
    /// it they have the bounds of the page, at which "below 200 ms" is exact.
    pub fn exponential_histograms(mut self) -> Self {
        self.exponential = true;
        self
    }

    /// Pushes no profiles, for a collector that takes none: this part of the protocol is in development. In
    /// the environment `OTEL_PROFILES_EXPORTER=none` says it.
    pub fn without_profiles(mut self) -> Self {
        self.profiles = None;
        self
    }

    fn targets(&mut self) -> impl Iterator<Item = &mut Target> {
        [
            &mut self.metrics,
            &mut self.spans,
            &mut self.logs,
            &mut self.profiles,
        ]
        .into_iter()
        .flatten()
    }

    fn read(variable: &dyn Fn(&'static str) -> Option<String>) -> Result<Self, Error> {
        let set = |name| variable(name).filter(|value| !value.trim().is_empty());
        let is = |name, word: &str| {
            set(name).is_some_and(|value: String| value.trim().eq_ignore_ascii_case(word))
        };
        let off = is("OTEL_SDK_DISABLED", "true");
        let read = |names: &Names| {
            if off || !exports(&set, names.exporter)? {
                Ok(None)
            } else {
                Target::read(&set, names).map(Some)
            }
        };
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
            Some(text) => pairs(&text)
                .ok_or_else(|| Error::out_of_range("OTEL_RESOURCE_ATTRIBUTES", PAIRS, text))?,
            None => BTreeMap::new(),
        };
        Ok(Self {
            metrics: read(&METRICS)?,
            spans: read(&SPANS)?,
            logs: read(&LOGS)?,
            profiles: read(&PROFILES)?,
            delivery: Limits::default(),
            interval,
            exponential,
            sampling: Sampling::read(&set)?,
            service: set("OTEL_SERVICE_NAME"),
            attributes,
        })
    }
}

/// What the variables of one signal are called.
struct Names {
    exporter: &'static str,
    endpoint: &'static str,
    headers: &'static str,
    timeout: &'static str,
    protocol: &'static str,
    compression: &'static str,
    /// Below the base address.
    path: &'static str,
    grpc_method: &'static str,
}

macro_rules! names {
    ($exporter:literal, $signal:literal, $path:literal, $service:literal) => {
        Names {
            exporter: $exporter,
            endpoint: concat!("OTEL_EXPORTER_OTLP_", $signal, "_ENDPOINT"),
            headers: concat!("OTEL_EXPORTER_OTLP_", $signal, "_HEADERS"),
            timeout: concat!("OTEL_EXPORTER_OTLP_", $signal, "_TIMEOUT"),
            protocol: concat!("OTEL_EXPORTER_OTLP_", $signal, "_PROTOCOL"),
            compression: concat!("OTEL_EXPORTER_OTLP_", $signal, "_COMPRESSION"),
            path: $path,
            grpc_method: concat!("/opentelemetry.proto.collector.", $service, "/Export"),
        }
    };
}

const METRICS: Names = names!(
    "OTEL_METRICS_EXPORTER",
    "METRICS",
    "/v1/metrics",
    "metrics.v1.MetricsService"
);
const SPANS: Names = names!(
    "OTEL_TRACES_EXPORTER",
    "TRACES",
    "/v1/traces",
    "trace.v1.TraceService"
);
const LOGS: Names = names!(
    "OTEL_LOGS_EXPORTER",
    "LOGS",
    "/v1/logs",
    "logs.v1.LogsService"
);
/// The specification has no names for profiles yet: these are its pattern.
const PROFILES: Names = names!(
    "OTEL_PROFILES_EXPORTER",
    "PROFILES",
    "/v1development/profiles",
    "profiles.v1development.ProfilesService"
);

impl Target {
    fn read(set: &dyn Fn(&'static str) -> Option<String>, names: &Names) -> Result<Self, Error> {
        let either = |own: &'static str, all: &'static str| {
            set(own)
                .map(|value| (own, value))
                .or_else(|| set(all).map(|value| (all, value)))
        };
        let all = word(set, "OTEL_EXPORTER_OTLP_PROTOCOL", &PROTOCOLS, false)?;
        let is_grpc = word(set, names.protocol, &PROTOCOLS, all)?;
        let url = match either(names.endpoint, "OTEL_EXPORTER_OTLP_ENDPOINT") {
            Some((name, url)) if is_grpc => base(name, url)?,
            Some((name, url)) if name == names.endpoint => checked(name, url)?,
            Some((name, url)) => below(&checked(name, url)?, names.path),
            None if is_grpc => "http://localhost:4317".to_owned(),
            None => below("http://localhost:4318", names.path),
        };
        let headers = match either(names.headers, "OTEL_EXPORTER_OTLP_HEADERS") {
            Some((name, text)) => {
                // Not shown: what a wrong one holds is a password all the same.
                let headers =
                    pairs(&text).ok_or_else(|| Error::out_of_range(name, PAIRS, "***"))?;
                for (header, value) in &headers {
                    check_header(name, header, value)?;
                }
                headers
            }
            None => BTreeMap::new(),
        };
        let timeout = match either(names.timeout, "OTEL_EXPORTER_OTLP_TIMEOUT") {
            Some((name, text)) => millis(name, &text, TIMEOUTS)?,
            None => TIMEOUT,
        };
        let compressions = [("gzip", true), ("none", false)];
        let all = word(set, "OTEL_EXPORTER_OTLP_COMPRESSION", &compressions, true)?;
        let gzip = word(set, names.compression, &compressions, all)?;
        Ok(Self {
            url,
            headers,
            timeout,
            gzip,
            grpc_method: is_grpc.then_some(names.grpc_method),
        })
    }
}

fn below(base: &str, path: &str) -> String {
    format!("{}{path}", base.trim_end_matches('/'))
}

/// An address for gRPC, which has no path, and with us no TLS.
fn base(name: &'static str, url: String) -> Result<String, Error> {
    let url = checked(name, url)?;
    let host = url
        .strip_prefix("http://")
        .map(|rest| rest.trim_end_matches('/'));
    if host.is_some_and(|host| !host.contains(['/', '?', '#'])) {
        return Ok(url);
    }
    let range = "http:// and a host, without a path, for gRPC; https:// goes by http/protobuf";
    Err(Error::out_of_range(name, range, url))
}

pub(super) fn checked(name: &'static str, url: String) -> Result<String, Error> {
    let url = url.trim();
    // What stands before it is a password: neither sent nor shown.
    let shown = url.rsplit_once('@').map_or(url, |(_, rest)| rest);
    let rest = url
        .strip_prefix("http://")
        .or_else(|| url.strip_prefix("https://"));
    let host = rest.and_then(|rest| rest.split(['/', '?', '#']).next());
    let fits = host.is_some_and(|host| !host.is_empty() && !host.contains('@'));
    if !fits || !url.bytes().all(|byte| byte.is_ascii_graphic()) {
        let range = "an http:// or https:// address without a password";
        return Err(Error::out_of_range(name, range, shown));
    }
    Ok(url.to_owned())
}

fn millis(name: &'static str, text: &str, range: RangeInclusive<u64>) -> Result<Duration, Error> {
    let number = text
        .trim()
        .parse()
        .ok()
        .filter(|number| range.contains(number));
    let (least, most) = (range.start(), range.end());
    let millis = number
        .ok_or_else(|| Error::out_of_range(name, format!("{least}..={most} milliseconds"), text))?;
    Ok(Duration::from_millis(millis))
}

fn within(
    parameter: &'static str,
    range: RangeInclusive<u64>,
    seen: Duration,
) -> Result<Duration, Error> {
    let millis = u64::try_from(seen.as_millis()).unwrap_or(u64::MAX);
    if range.contains(&millis) {
        return Ok(seen);
    }
    let (least, most) = (range.start(), range.end());
    let range = format!("{least}..={most} milliseconds");
    Err(Error::out_of_range(parameter, range, millis))
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
    let found = words
        .iter()
        .find(|(word, _)| text.trim().eq_ignore_ascii_case(word));
    found.map(|(_, meaning)| *meaning).ok_or_else(|| {
        let words: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
        Error::out_of_range(name, words.join("|"), text)
    })
}

/// Whether a list of exporters names this one, as it does where it is not set. Those that the
/// specification knows beside it are others' business: what they show is not pushed for that.
fn exports(
    set: &dyn Fn(&'static str) -> Option<String>,
    name: &'static str,
) -> Result<bool, Error> {
    let Some(text) = set(name) else {
        return Ok(true);
    };
    let mut pushed = false;
    for word in text.split(',').map(str::trim) {
        let is = |known: &&str| word.eq_ignore_ascii_case(known);
        if is(&"otlp") {
            pushed = true;
        } else if !["none", "console", "prometheus", "zipkin"].iter().any(is) {
            let range = "otlp|none|console|prometheus|zipkin, joined by commas";
            return Err(Error::out_of_range(name, range, text));
        }
    }
    Ok(pushed)
}

const PAIRS: &str = "key=value pairs, joined by commas, %-encoded";

/// `key=value,key=value`, with `%2C` for what would end a value; `None` if it is anything else.
fn pairs(text: &str) -> Option<BTreeMap<String, String>> {
    let parts = text
        .split(',')
        .map(str::trim)
        .filter(|part| !part.is_empty());
    let pair = |part: &str| {
        let (key, value) = part.split_once('=')?;
        let (key, value) = (key.trim(), decoded(value.trim())?);
        (!key.is_empty()).then(|| (key.to_owned(), value))
    };
    parts.map(pair).collect()
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

pub(super) fn check_header(parameter: &'static str, name: &str, value: &str) -> Result<(), Error> {
    let is_token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    let named = !name.is_empty() && name.bytes().all(is_token);
    let is_text = |byte: u8| byte == b'\t' || (byte >= b' ' && byte != 0x7f);
    if named && value.bytes().all(is_text) {
        return Ok(());
    }
    // The value is not shown: it may be a password.
    Err(Error::out_of_range(
        parameter,
        "a header's name and a value of one line",
        name,
    ))
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
        assert_eq!(
            target(&[("OTEL_EXPORTER_OTLP_ENDPOINT", " ")]),
            metrics,
            "empty is not set"
        );
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
            (
                "OTEL_EXPORTER_OTLP_METRICS_HEADERS",
                "api-key=a%2Cb%3D, x = y ,",
            ),
        ]);
        assert_eq!(both.url, "http://own:2/x");
        assert_eq!(both.timeout, Duration::from_millis(100));
        assert!(!both.gzip);
        let headers = [("api-key", "a,b="), ("x", "y")];
        let headers = headers.map(|(name, value)| (name.to_owned(), value.to_owned()));
        assert_eq!(both.headers, BTreeMap::from(headers));
        let common = with(&[("OTEL_EXPORTER_OTLP_ENDPOINT", "https://all:1/base/")]).unwrap();
        let targets = [common.metrics, common.spans, common.logs, common.profiles];
        let paths = [
            "v1/metrics",
            "v1/traces",
            "v1/logs",
            "v1development/profiles",
        ];
        for (target, path) in targets.into_iter().zip(paths) {
            assert_eq!(target.unwrap().url, format!("https://all:1/base/{path}"));
        }
    }

    #[test]
    fn a_wrong_variable_is_named_with_what_it_may_be() {
        let rows = [
            (
                "OTEL_EXPORTER_OTLP_ENDPOINT",
                "collector:4318",
                "an http:// or https:// address without a password",
            ),
            (
                "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT",
                "http:///v1",
                "an http:// or https:// address without a password",
            ),
            ("OTEL_EXPORTER_OTLP_COMPRESSION", "zstd", "gzip|none"),
            (
                "OTEL_TRACES_EXPORTER",
                "otlp,jaeger",
                "otlp|none|console|prometheus|zipkin, joined by commas",
            ),
            (
                "OTEL_EXPORTER_OTLP_TIMEOUT",
                "5s",
                "100..=30000 milliseconds",
            ),
            (
                "OTEL_METRIC_EXPORT_INTERVAL",
                "0",
                "1000..=3600000 milliseconds",
            ),
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
    fn a_protocol_that_is_not_built_is_refused_and_named() {
        let protocols = PROTOCOLS.map(|(word, _)| word).join("|");
        let variables = [
            "OTEL_EXPORTER_OTLP_PROTOCOL",
            "OTEL_EXPORTER_OTLP_LOGS_PROTOCOL",
        ];
        for name in variables {
            let error = with(&[(name, "http/json")]).unwrap_err().to_string();
            let expected = format!(r#"{name} must be {protocols} (got "http/json")"#);
            assert_eq!(error, expected);
        }
        let is_built = PROTOCOLS.iter().any(|(_, is_grpc)| *is_grpc);
        let grpc = with(&[("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")]);
        assert_eq!(grpc.is_ok(), is_built);
        let Ok(grpc) = grpc else {
            return;
        };
        let logs = grpc.logs.unwrap();
        assert_eq!(logs.url, "http://localhost:4317");
        let service = "/opentelemetry.proto.collector.logs.v1.LogsService/Export";
        assert_eq!(logs.grpc_method, Some(service));
        let apart = with(&[
            ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://c:1/"),
            ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc"),
            ("OTEL_EXPORTER_OTLP_METRICS_PROTOCOL", "http/protobuf"),
        ]);
        let apart = apart.unwrap();
        assert_eq!(apart.spans.unwrap().url, "http://c:1/");
        let metrics = apart.metrics.unwrap();
        assert_eq!(metrics.url, "http://c:1/v1/metrics");
        assert_eq!(metrics.grpc_method, None);
        for url in ["https://c:4317", "http://c:4317/v1/traces"] {
            let error = with(&[
                ("OTEL_EXPORTER_OTLP_ENDPOINT", url),
                ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc"),
            ]);
            let error = error.unwrap_err().to_string();
            assert!(error.contains("for gRPC") && error.contains(url), "{error}");
        }
    }

    #[test]
    fn no_header_value_is_shown_in_an_error_or_by_debug() {
        let secret = "s3cret";
        for broken in ["no good=s3cret", "s3cret", "token=s3cret%"] {
            let error = with(&[("OTEL_EXPORTER_OTLP_HEADERS", broken)]).unwrap_err();
            assert!(!error.to_string().contains(secret), "{error}");
        }
        let error = Otlp::to("http://user:s3cret@c").unwrap_err().to_string();
        let range = "an http:// or https:// address without a password";
        assert_eq!(
            error,
            format!(r#"OTEL_EXPORTER_OTLP_ENDPOINT must be {range} (got "c")"#)
        );
        let otlp = Otlp::to("http://c")
            .unwrap()
            .header("token", secret)
            .unwrap();
        let shown = format!("{otlp:?}");
        assert!(
            shown.contains("token") && !shown.contains(secret),
            "{shown}"
        );
        let broken = otlp.header("token", "two\nlines").unwrap_err();
        assert!(broken.is_out_of_range(), "{broken}");
    }

    #[test]
    fn an_interval_or_a_timeout_out_of_range_is_named_with_the_range() {
        let otlp = || Otlp::to("http://c").unwrap();
        let never = otlp().metrics_interval(Duration::MAX).unwrap_err();
        let range = "1000..=3600000 milliseconds";
        let seen = u64::MAX;
        let text = format!(r#"metrics interval must be {range} (got "{seen}")"#);
        assert_eq!(never.to_string(), text);
        let hasty = otlp().timeout(Duration::from_millis(99)).unwrap_err();
        let text = r#"timeout must be 100..=30000 milliseconds (got "99")"#;
        assert_eq!(hasty.to_string(), text);
        let longest = otlp().timeout(Duration::from_secs(30)).unwrap();
        assert_eq!(longest.metrics.unwrap().timeout, Duration::from_secs(30));
    }

    #[test]
    fn pushing_can_be_switched_off_and_the_resource_named() {
        let off = with(&[("OTEL_SDK_DISABLED", "True")]).unwrap();
        assert_eq!(
            [off.metrics, off.spans, off.logs, off.profiles],
            [const { None }; 4]
        );
        let spans_only = with(&[
            ("OTEL_METRICS_EXPORTER", "none"),
            ("OTEL_LOGS_EXPORTER", "None"),
        ]);
        let spans_only = spans_only.unwrap();
        assert!(spans_only.metrics.is_none() && spans_only.logs.is_none());
        assert!(spans_only.spans.is_some() && spans_only.profiles.is_some());
        let logs_only = with(&[
            ("OTEL_METRICS_EXPORTER", "prometheus"),
            ("OTEL_TRACES_EXPORTER", "none"),
            ("OTEL_LOGS_EXPORTER", "console, otlp"),
        ]);
        let logs_only = logs_only.unwrap();
        assert!(logs_only.metrics.is_none() && logs_only.spans.is_none());
        assert!(logs_only.logs.is_some() && logs_only.profiles.is_some());
        let otlp = with(&[
            ("OTEL_SERVICE_NAME", "shop"),
            (
                "OTEL_RESOURCE_ATTRIBUTES",
                "deployment.environment.name=prod,a=%20",
            ),
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
