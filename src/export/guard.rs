//! Who may ask: target length, rate, Host and Origin, path and method of a request head.
//!
//! A pure function of head, addresses and clock, so that every way in runs it: the agent's own
//! listener, a warp filter, a tower service, a host's call of `respond`. Absent on purpose: caps
//! and clocks of connections, which only the own listener has.

use core::net::{IpAddr, SocketAddr};
use std::borrow::Cow;
use std::time::{Duration, Instant};

use crate::catalog::endpoints::{self, Place, Plane};
use crate::catalog::families::AGENT_HTTP_DENIED;
use crate::config;
use crate::export::rate::Rate;
use crate::export::respond::message::Request;
use crate::store::metrics::{Counter, Metrics};

/// Why something was refused: the closed set of values of `reason` in `agent_http_denied_total`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reason {
    /// All connections taken.
    Connections,
    /// All connections of one peer taken.
    PeerConnections,
    /// No whole head in time.
    HeadTimeout,
    /// The answer was taken too slowly.
    SlowReader,
    /// Not HTTP/1.
    Malformed,
    HeadSize,
    UriSize,
    BodySize,
    Rate,
    Host,
    CrossSite,
    Route,
    Method,
    Parameter,
    ContentType,
    /// Too many waiting profile readers.
    Readers,
    /// The sampling rate was raised too often.
    Raises,
    /// Too many scrapes in flight.
    Scrapes,
    /// Too many large answers still being taken.
    LargeBodies,
    /// Switched off by the host, or not built.
    Absent,
    /// The profiler could not do it.
    Unavailable,
}

impl Reason {
    pub(crate) const ALL: [Self; 21] = [
        Self::Connections,
        Self::PeerConnections,
        Self::HeadTimeout,
        Self::SlowReader,
        Self::Malformed,
        Self::HeadSize,
        Self::UriSize,
        Self::BodySize,
        Self::Rate,
        Self::Host,
        Self::CrossSite,
        Self::Route,
        Self::Method,
        Self::Parameter,
        Self::ContentType,
        Self::Readers,
        Self::Raises,
        Self::Scrapes,
        Self::LargeBodies,
        Self::Absent,
        Self::Unavailable,
    ];

    pub(crate) const fn word(self) -> &'static str {
        match self {
            Self::Connections => "connections",
            Self::PeerConnections => "peer_connections",
            Self::HeadTimeout => "head_timeout",
            Self::SlowReader => "slow_reader",
            Self::Malformed => "malformed",
            Self::HeadSize => "head_size",
            Self::UriSize => "uri_size",
            Self::BodySize => "body_size",
            Self::Rate => "rate",
            Self::Host => "host",
            Self::CrossSite => "cross_site",
            Self::Route => "route",
            Self::Method => "method",
            Self::Parameter => "parameter",
            Self::ContentType => "content_type",
            Self::Readers => "readers",
            Self::Raises => "raises",
            Self::Scrapes => "scrapes",
            Self::LargeBodies => "large_bodies",
            Self::Absent => "absent",
            Self::Unavailable => "unavailable",
        }
    }
}

/// Counts refusals.
#[derive(Debug)]
pub(crate) struct Denied([Option<Counter>; Reason::ALL.len()]);

impl Denied {
    /// Shows every reason from the start, so that a rate over the first refusal is seen.
    pub(crate) fn new(metrics: &Metrics) -> Self {
        let counter = |reason: Reason| metrics.counter(&AGENT_HTTP_DENIED, &[reason.word()]).ok();
        Self(Reason::ALL.map(counter))
    }

    pub(crate) fn count(&self, reason: Reason) {
        if let Some(counter) = self.0.get(reason as usize).and_then(Option::as_ref) {
            counter.inc();
        }
    }
}

/// A refusal: what the client is told and what is counted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Refusal {
    pub(crate) status: u16,
    pub(crate) reason: Reason,
    pub(crate) text: Cow<'static, str>,
    pub(crate) retry_after: Option<Duration>,
    pub(crate) allow: Option<&'static str>,
}

impl Refusal {
    pub(crate) fn new(status: u16, reason: Reason, text: impl Into<Cow<'static, str>>) -> Self {
        Self {
            status,
            reason,
            text: text.into(),
            retry_after: None,
            allow: None,
        }
    }

    #[must_use]
    pub(crate) fn retry_after(mut self, wait: Duration) -> Self {
        self.retry_after = Some(wait);
        self
    }

    pub(crate) fn body_size() -> Self {
        let text = format!("body over {} bytes", config::BODY_BYTES);
        Self::new(413, Reason::BodySize, text)
    }

    /// Whether the connection can carry no further request, as this one was not read to its end.
    pub(crate) fn closes(&self) -> bool {
        matches!(
            self.reason,
            Reason::HeadSize | Reason::UriSize | Reason::BodySize
        )
    }
}

/// The check that precedes every answer.
#[derive(Debug)]
pub(crate) struct Guard {
    rate: Rate,
    /// Names that clients may call us by, beside `localhost` and our own address.
    names: Vec<String>,
    /// Whether requests may change the program.
    control: bool,
}

impl Guard {
    pub(crate) fn new(names: Vec<String>, control: bool) -> Self {
        let (per_second, burst) = config::REQUEST_RATE;
        Self {
            rate: Rate::new(Duration::from_secs(1) / per_second, burst),
            names,
            control,
        }
    }

    /// What the request asks for, or why it is not answered; the first reason found counts.
    pub(crate) fn check(&self, request: &Request, now: Instant) -> Result<Place, Refusal> {
        let target = request.path.len() + request.query.len();
        if target > config::URI_BYTES {
            let text = format!("request target over {} bytes", config::URI_BYTES);
            return Err(Refusal::new(414, Reason::UriSize, text));
        }
        // An orchestrator that is told 429 would restart the host.
        if !matches!(&*request.path, "/healthz" | "/readyz") {
            self.rate.take(now).map_err(|wait| {
                let text = format!("rate limit {}/s", config::REQUEST_RATE.0);
                Refusal::new(429, Reason::Rate, text).retry_after(wait)
            })?;
        }
        let host = self.host(request)?;
        same_site(request, host)?;
        self.place(request)
    }

    fn host<'a>(&self, request: &'a Request) -> Result<&'a str, Refusal> {
        let mut hosts = request.values("host");
        let (Some(host), None) = (hosts.next(), hosts.next()) else {
            let text = "one Host header required";
            return Err(Refusal::new(400, Reason::Host, text));
        };
        std::str::from_utf8(host)
            .ok()
            .filter(|host| self.is_ours(host, request.local))
            .ok_or_else(|| Refusal::new(403, Reason::Host, "host not allowed"))
    }

    /// Whether a client that means us may send this Host. A page that rebinds its name to our
    /// address sends its own name, so any port is fine but not any name.
    fn is_ours(&self, host: &str, local: Option<SocketAddr>) -> bool {
        let Some(name) = without_port(host) else {
            return false;
        };
        let bare = name
            .strip_prefix('[')
            .and_then(|rest| rest.strip_suffix(']'));
        if let Ok(ip) = bare.unwrap_or(name).parse::<IpAddr>() {
            // Without the local address any literal will do: a literal cannot be rebound.
            return local.is_none_or(|own| own.ip().to_canonical() == ip.to_canonical());
        }
        let same = |own: &String| own.eq_ignore_ascii_case(name) || own.eq_ignore_ascii_case(host);
        name.eq_ignore_ascii_case("localhost") || self.names.iter().any(same)
    }

    fn place(&self, request: &Request) -> Result<Place, Refusal> {
        let place = endpoints::find(&request.path).ok_or_else(|| {
            if request.path.starts_with(endpoints::QUERIER) {
                let names = endpoints::METHODS.map(|method| method.name);
                let text = format!("no such method, but {}", names.join(", "));
                return Refusal::new(501, Reason::Route, text);
            }
            let text = if request.path.starts_with("/debug/pprof/") {
                "Unknown profile"
            } else {
                "no such endpoint; / lists them"
            };
            Refusal::new(404, Reason::Route, text)
        })?;
        let (get, post, allow) = match place {
            Place::Served(endpoint) => (true, endpoint.post, endpoint.allow()),
            Place::Absent(_) => (true, None, "GET, HEAD"),
            Place::Query(_) => (false, Some(Plane::Profile), "POST"),
        };
        let text = match (&*request.method, post) {
            ("POST", Some(Plane::Control)) if !self.control => {
                let text = "control plane is off";
                return Err(Refusal::new(404, Reason::Absent, text));
            }
            ("POST", Some(_)) => return Ok(place),
            ("GET" | "HEAD", _) if get => return Ok(place),
            (_, Some(_)) if !get => "method POST required",
            (_, Some(_)) => "method GET or POST required",
            (_, None) => "method GET required",
        };
        let mut refusal = Refusal::new(405, Reason::Method, text);
        refusal.allow = Some(allow);
        Err(refusal)
    }
}

/// Host without `:port`; `None` if the port is no number.
fn without_port(host: &str) -> Option<&str> {
    let after_bracket = host.rfind(']').map_or(0, |end| end + 1);
    let Some(colon) = host.rfind(':').filter(|colon| *colon >= after_bracket) else {
        return Some(host);
    };
    let (name, port) = host.split_at(colon);
    let digits = port.bytes().skip(1).all(|byte| byte.is_ascii_digit());
    digits.then_some(name)
}

/// Refuses what a page of another site asks for. `same-site` counts as another: it includes any
/// other port of localhost.
fn same_site(request: &Request, host: &str) -> Result<(), Refusal> {
    let own_origin = |origin: &[u8]| {
        let text = std::str::from_utf8(origin).unwrap_or_default();
        let rest = text
            .strip_prefix("http://")
            .or_else(|| text.strip_prefix("https://"));
        rest.is_some_and(|rest| rest.eq_ignore_ascii_case(host))
    };
    let own_fetch = |site: &[u8]| matches!(site, b"same-origin" | b"none");
    if request.values("origin").all(own_origin) && request.values("sec-fetch-site").all(own_fetch) {
        return Ok(());
    }
    let text = "cross-site request refused";
    Err(Refusal::new(403, Reason::CrossSite, text))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn local() -> SocketAddr {
        "127.0.0.1:6060".parse().unwrap()
    }

    fn get(path: &str, headers: &[(&str, &str)]) -> Request {
        let request = Request::new("GET", path).local(local());
        headers.iter().fold(request, |request, (name, value)| {
            request.header(*name, *value)
        })
    }

    fn verdict(request: &Request) -> (u16, String) {
        let guard = Guard::new(
            vec!["Agent.Example".to_owned(), "svc:9000".to_owned()],
            false,
        );
        match guard.check(request, Instant::now()) {
            Ok(_) => (200, String::new()),
            Err(refusal) => (refusal.status, refusal.text.into_owned()),
        }
    }

    type Lines = &'static [(&'static str, &'static str)];

    #[test]
    fn each_head_gets_its_exact_answer() {
        const OWN: (&str, &str) = ("Host", "127.0.0.1:6060");
        let host = "host not allowed";
        let one = "one Host header required";
        let cross = "cross-site request refused";
        let rows: &[(Lines, u16, &str)] = &[
            (&[OWN], 200, ""),
            (&[("host", "127.0.0.1")], 200, ""),
            (&[("host", "127.0.0.1:1")], 200, ""),
            (&[("host", "localhost:6060")], 200, ""),
            (&[("host", "LOCALHOST")], 200, ""),
            (&[("host", "[::ffff:127.0.0.1]:6060")], 200, ""),
            (&[("host", "agent.example:6060")], 200, ""),
            (&[("host", "svc:9000")], 200, ""),
            (&[("host", "svc:9001")], 403, host),
            (&[("host", "svc")], 403, host),
            (&[("host", "127.0.0.2")], 403, host),
            (&[("host", "[::1]:6060")], 403, host),
            (&[("host", "evil.example")], 403, host),
            (&[("host", "localhost.evil.example")], 403, host),
            (&[("host", "localhost:6060@evil.example")], 403, host),
            (&[("host", "localhost:x")], 403, host),
            (&[("host", "")], 403, host),
            (&[("host", "loc\u{e4}lhost")], 403, host),
            (&[], 400, one),
            (&[OWN, OWN], 400, one),
            (&[OWN, ("Origin", "http://127.0.0.1:6060")], 200, ""),
            (&[OWN, ("Origin", "http://127.0.0.1:8080")], 403, cross),
            (&[OWN, ("Origin", "http://127.0.0.1")], 403, cross),
            (&[OWN, ("Origin", "null")], 403, cross),
            (&[OWN, ("Origin", "")], 403, cross),
            (&[OWN, ("Origin", "file://127.0.0.1:6060")], 403, cross),
            (&[OWN, ("Sec-Fetch-Site", "same-origin")], 200, ""),
            (&[OWN, ("Sec-Fetch-Site", "none")], 200, ""),
            (&[OWN, ("Sec-Fetch-Site", "same-site")], 403, cross),
            (&[OWN, ("Sec-Fetch-Site", "cross-site")], 403, cross),
            (&[OWN, ("Sec-Fetch-Site", "?")], 403, cross),
        ];
        for (headers, status, text) in rows {
            let seen = verdict(&get("/metrics", headers));
            assert_eq!(seen, (*status, (*text).to_owned()), "{headers:?}");
        }
    }

    #[test]
    fn each_target_and_method_gets_its_exact_answer() {
        let long = format!("/metrics?{}", "a".repeat(config::URI_BYTES));
        let rows: &[(&str, &str, u16, &str)] = &[
            ("GET", "/", 200, ""),
            ("HEAD", "/metrics", 200, ""),
            ("POST", "/debug/pprof/symbol", 200, ""),
            ("POST", "/metrics", 405, "method GET required"),
            (
                "DELETE",
                "/debug/pprof/symbol",
                405,
                "method GET or POST required",
            ),
            ("OPTIONS", "/debug/pprof/heap", 405, "method GET required"),
            ("POST", "/querier.v1.QuerierService/Diff", 200, ""),
            (
                "GET",
                "/querier.v1.QuerierService/Diff",
                405,
                "method POST required",
            ),
            (
                "HEAD",
                "/querier.v1.QuerierService/Diff",
                405,
                "method POST required",
            ),
            (
                "POST",
                "/querier.v1.QuerierService/Nope",
                501,
                "no such method, but ProfileTypes, LabelNames, LabelValues, Series, \
                 SelectMergeStacktraces, SelectMergeSpanProfile, SelectSeries, SelectMergeProfile, Diff",
            ),
            ("get", "/metrics", 405, "method GET required"),
            ("GET", "/nope", 404, "no such endpoint; / lists them"),
            ("GET", "/metrics/", 404, "no such endpoint; / lists them"),
            (
                "GET",
                "/%2e%2e/etc/passwd",
                404,
                "no such endpoint; / lists them",
            ),
            ("GET", "/debug/pprof/nope", 404, "Unknown profile"),
            ("GET", &long, 414, "request target over 4096 bytes"),
        ];
        for (method, target, status, text) in rows {
            let request = Request::new(*method, target).header("host", "localhost");
            let seen = verdict(&request);
            assert_eq!(seen, (*status, (*text).to_owned()), "{method} {target}");
        }
    }

    #[test]
    fn a_mounted_guard_that_knows_no_local_address_takes_any_literal_but_not_any_name() {
        let ask = |host: &str| verdict(&Request::new("GET", "/").header("host", host)).0;
        assert_eq!(ask("10.0.0.7:8080"), 200);
        assert_eq!(ask("[2001:db8::1]"), 200);
        assert_eq!(ask("rebound.example"), 403);
    }

    #[test]
    fn the_41st_request_at_once_waits_and_probes_never_do() {
        let guard = Guard::new(Vec::new(), false);
        let now = Instant::now();
        let own = [("host", "localhost")];
        let ask = |path, after| guard.check(&get(path, &own), now + after);
        let after = Duration::from_millis;
        for _ in 0..40 {
            assert!(ask("/metrics", after(0)).is_ok());
        }
        let refusal = ask("/metrics", after(0)).unwrap_err();
        assert_eq!((refusal.status, &*refusal.text), (429, "rate limit 20/s"));
        assert_eq!(refusal.retry_after, Some(after(50)));
        assert!(ask("/healthz", after(0)).is_ok());
        assert!(ask("/readyz", after(0)).is_ok());
        assert!(ask("/metrics", after(49)).is_err());
        assert!(ask("/metrics", after(50)).is_ok());
        assert!(ask("/metrics", after(50)).is_err());
        for _ in 0..40 {
            assert!(
                ask("/metrics", after(10_000)).is_ok(),
                "the burst came back"
            );
        }
    }

    #[test]
    fn rate_is_judged_before_the_host_so_that_floods_cost_least() {
        let guard = Guard::new(Vec::new(), false);
        let now = Instant::now();
        let bad = get("/metrics", &[("host", "evil.example")]);
        let seen: Vec<u16> = (0..41)
            .map(|_| guard.check(&bad, now).unwrap_err().status)
            .collect();
        assert_eq!(seen.iter().filter(|status| **status == 403).count(), 40);
        assert_eq!(seen.last(), Some(&429));
    }

    #[test]
    fn every_reason_has_a_word_of_its_own_at_its_own_place() {
        let mut words: Vec<&str> = Reason::ALL.map(Reason::word).to_vec();
        for (place, reason) in Reason::ALL.iter().enumerate() {
            assert_eq!(*reason as usize, place);
        }
        words.sort_unstable();
        words.dedup();
        assert_eq!(words.len(), Reason::ALL.len());
    }
}
