//! The endpoints: path, plane, help, and what they answer with.

use serde::Serialize;

use super::Signal;

/// Which switch, scope and limits govern an endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Plane {
    /// Numbers and health: cheap, asked for all the time.
    Scrape,
    /// Profiles and what they show of the program.
    Profile,
}

/// One path that the agent answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub(crate) struct Endpoint {
    pub(crate) path: &'static str,
    pub(crate) plane: Plane,
    pub(crate) signal: &'static str,
    pub(crate) help: &'static str,
    pub(crate) parameters: &'static str,
    pub(crate) content_type: &'static str,
    /// Methods beside GET and HEAD.
    pub(crate) post: bool,
}

const fn row(
    path: &'static str,
    plane: Plane,
    signal: Signal,
    content_type: &'static str,
    parameters: &'static str,
    help: &'static str,
) -> Endpoint {
    let signal = signal.word();
    Endpoint {
        path,
        plane,
        signal,
        help,
        parameters,
        content_type,
        post: false,
    }
}

pub(crate) const HTML: &str = "text/html; charset=utf-8";
pub(crate) const JSON: &str = "application/json";
pub(crate) const TEXT: &str = "text/plain; charset=utf-8";
pub(crate) const PPROF: &str = "application/octet-stream";
pub(crate) const SVG: &str = "image/svg+xml";
/// Prometheus text format 0.0.4.
pub(crate) const METRICS: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Every path, in the order of the index page.
pub(crate) static ALL: &[Endpoint] = &[
    row(
        "/",
        Plane::Scrape,
        Signal::Agent,
        HTML,
        "",
        "This page: what the agent answers.",
    ),
    row(
        "/metrics",
        Plane::Scrape,
        Signal::Agent,
        METRICS,
        "",
        "All metrics as Prometheus text 0.0.4 or, by Accept, OpenMetrics 1.0 with exemplars.",
    ),
    row(
        "/targets",
        Plane::Scrape,
        Signal::Agent,
        JSON,
        "",
        "The target table: what is measured, against what, with which verdict.",
    ),
    row(
        "/healthz",
        Plane::Scrape,
        Signal::Agent,
        TEXT,
        "",
        "200 while the agent's threads run.",
    ),
    row(
        "/readyz",
        Plane::Scrape,
        Signal::Agent,
        TEXT,
        "",
        "200 while the service wants traffic, else 503.",
    ),
    row(
        "/debug/flamegraph",
        Plane::Profile,
        Signal::Cpu,
        SVG,
        "seconds=1..=60 (30), hz=1..=250 (99), format=svg|folded|pprof",
        "CPU flame graph of the next seconds.",
    ),
    row(
        "/debug/pprof/",
        Plane::Profile,
        Signal::Cpu,
        HTML,
        "",
        "The profiles that Go's tools find at this path.",
    ),
    row(
        "/debug/pprof/profile",
        Plane::Profile,
        Signal::Cpu,
        PPROF,
        "seconds=1..=60 (30), hz=1..=250 (99), format=pprof|folded|svg",
        "CPU profile of the next seconds, for `go tool pprof`.",
    ),
    row(
        "/debug/pprof/cmdline",
        Plane::Profile,
        Signal::Process,
        TEXT,
        "",
        "The program's name; arguments may hold secrets and are left out.",
    ),
    Endpoint {
        post: true,
        ..row(
            "/debug/pprof/symbol",
            Plane::Profile,
            Signal::Cpu,
            TEXT,
            "0x1234+0x5678 in the query or the body, at most 4096",
            "Function names of addresses.",
        )
    },
    row(
        "/debug/agent",
        Plane::Scrape,
        Signal::Agent,
        JSON,
        "",
        "The agent itself: limits, threads, losses, recent profile requests.",
    ),
];
