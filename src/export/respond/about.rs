//! What the agent says of itself and of its targets.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Serialize;

use super::Plane;
use super::actions::Action;
use super::message::Reply;
use crate::catalog::Metric;
use crate::catalog::endpoints::{JSON, TEXT};
use crate::catalog::families::{AGENT_DROPPED, AGENT_HTTP_DENIED, AGENT_PANICS};
use crate::config;
use crate::export::guard::{Reason, Refusal};
use crate::store::metrics::{Snapshot, Value};
use crate::store::sync::lock;

pub(super) fn targets(plane: &Plane) -> Result<Reply, Refusal> {
    json(&*plane.published.targets())
}

pub(super) fn health(plane: &Plane) -> Reply {
    let down = plane.published.down();
    if down.is_empty() {
        return Reply::new(200, TEXT, b"ok\n".to_vec());
    }
    let text = format!("down: {}\n", down.join(", "));
    Reply::new(503, TEXT, text.into_bytes())
}

pub(super) fn ready(plane: &Plane) -> Reply {
    if plane.published.is_ready() {
        Reply::new(200, TEXT, b"ok\n".to_vec())
    } else {
        Reply::new(503, TEXT, b"not ready\n".to_vec())
    }
}

#[derive(Serialize)]
struct About {
    service: String,
    service_version: String,
    agent_version: &'static str,
    uptime_seconds: f64,
    down: Vec<&'static str>,
    profile_readers_waiting: usize,
    scrapes_waiting: usize,
    series: usize,
    series_overflowed: u64,
    metric_cell_bytes: usize,
    dropped: BTreeMap<String, u64>,
    denied: BTreeMap<String, u64>,
    panics: BTreeMap<String, u64>,
    recorder: Recorder,
    limits: Limits,
    profile_requests: Vec<Action>,
}

/// The flight recorder.
#[derive(Serialize)]
struct Recorder {
    /// Its rate as the host set it; 0: off.
    set_hz: u32,
    /// The rate of sampling now, which a reader may have raised; `None`: nothing is sampled.
    hz: Option<u32>,
    /// The rate above which sampling cost too much; `None`: any rate is allowed.
    limit_hz: Option<u32>,
    budget_ratio: f64,
    /// Why nothing is sampled although something should be.
    obstacle: Option<String>,
    held_seconds: f64,
    /// What may be asked for with `from` and `to`.
    held_unix_milliseconds: Option<[u64; 2]>,
    held_bytes: usize,
    buckets: usize,
}

#[derive(Serialize)]
struct Limits {
    profile_seconds: [u64; 2],
    profile_past_seconds: u64,
    profile_hz: [u32; 2],
    profile_readers: usize,
    profile_body_bytes: usize,
    scrapes: usize,
    metrics_body_bytes: usize,
    requests_per_second: u32,
    requests_burst: u32,
    connections: usize,
    connections_per_peer: usize,
    head_seconds: f64,
    idle_seconds: f64,
    head_bytes: usize,
    headers: usize,
    target_bytes: usize,
    body_bytes: usize,
    series: usize,
    metric_cell_bytes: usize,
}

pub(super) fn agent(plane: &Plane) -> Result<Reply, Refusal> {
    let snapshot = plane.store.metrics.snapshot();
    let sizes = plane.store.metrics.sizes();
    json(&About {
        service: plane.config.service.clone(),
        service_version: plane.config.version.clone(),
        agent_version: env!("CARGO_PKG_VERSION"),
        uptime_seconds: plane.started.elapsed().as_secs_f64(),
        down: plane.published.down(),
        profile_readers_waiting: plane.store.cpu.waiting(),
        scrapes_waiting: plane.store.refresh.waiting(),
        series: sizes.iter().map(|size| size.1).sum(),
        series_overflowed: sizes.iter().map(|size| size.2).sum(),
        metric_cell_bytes: plane.store.metrics.bytes(),
        dropped: counts(&snapshot, &AGENT_DROPPED),
        denied: counts(&snapshot, &AGENT_HTTP_DENIED),
        panics: counts(&snapshot, &AGENT_PANICS),
        recorder: recorder(plane),
        limits: limits(plane),
        profile_requests: plane.actions.all(),
    })
}

fn recorder(plane: &Plane) -> Recorder {
    let now = lock(&plane.store.recorder).clone();
    let held = now.held.map(|held| held.to.saturating_sub(held.from));
    Recorder {
        set_hz: if plane.config.profiling {
            plane.config.recorder
        } else {
            0
        },
        hz: now.hz,
        limit_hz: now.limit_hz,
        budget_ratio: plane.config.profiling_budget,
        obstacle: now.obstacle,
        held_seconds: Duration::from_nanos(held.unwrap_or(0)).as_secs_f64(),
        held_unix_milliseconds: now
            .held
            .map(|held| [held.from.div_ceil(1_000_000), held.to / 1_000_000]),
        held_bytes: now.bytes,
        buckets: now.buckets,
    }
}

fn limits(plane: &Plane) -> Limits {
    let hz = plane.config.hz();
    Limits {
        profile_seconds: [
            *config::PROFILE_SECONDS.start(),
            *config::PROFILE_SECONDS.end(),
        ],
        profile_past_seconds: config::RECORDED_SECONDS,
        profile_hz: [*hz.start(), *hz.end()],
        profile_readers: config::PROFILE_READERS,
        profile_body_bytes: config::PROFILE_BODY_BYTES,
        scrapes: config::SCRAPES,
        metrics_body_bytes: config::METRICS_BODY_BYTES,
        requests_per_second: config::REQUEST_RATE.0,
        requests_burst: config::REQUEST_RATE.1,
        connections: config::CONNECTIONS,
        connections_per_peer: config::CONNECTIONS_PER_PEER,
        head_seconds: config::HEAD_TIMEOUT.as_secs_f64(),
        idle_seconds: config::IDLE_TIMEOUT.as_secs_f64(),
        head_bytes: config::HEAD_BYTES,
        headers: config::HEADERS,
        target_bytes: config::URI_BYTES,
        body_bytes: config::BODY_BYTES,
        series: plane.config.series,
        metric_cell_bytes: config::CELL_BYTES,
    }
}

/// The counters of a family that are not zero, by label values.
fn counts(snapshot: &Snapshot, metric: &Metric) -> BTreeMap<String, u64> {
    let Some(family) = snapshot.family(metric) else {
        return BTreeMap::new();
    };
    let counted = snapshot.values(family).filter_map(|(series, value)| {
        let Value::Total(total @ 1..) = value else {
            return None;
        };
        let values: Vec<&str> = series.labels(metric).map(|(_, value)| value).collect();
        Some((values.join("/"), total))
    });
    counted.collect()
}

pub(super) fn json<T: Serialize>(value: &T) -> Result<Reply, Refusal> {
    let mut bytes = serde_json::to_vec(value)
        .map_err(|error| Refusal::new(500, Reason::Unavailable, format!("JSON: {error}")))?;
    bytes.push(b'\n');
    Ok(Reply::new(200, JSON, bytes))
}
