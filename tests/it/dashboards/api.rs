//! Requests by route: how many, how fast, how large, and which were turned away.

use super::board::{Board, row};
use super::panel::{Kind, against, lines, panel};
use crate::alerts::TargetFile;

pub(super) fn board(file: &TargetFile) -> Board {
    let target = &file.target.latency_p95;
    let p95 = "Time below which 95 % of the requests of a route are answered";
    let routes = vec![
        panel(Kind::Table, "Requests a second by route", "reqps")
            .says("Routes by traffic over the last five minutes", "the routes you expect", "a new route is a new series: see who asks")
            .asks("sort_desc(sum by (http_route, http_request_method) (rate(http_server_request_duration_seconds_count{$S}[$W])))", "{{http_route}}")
            .wide(8),
        panel(Kind::Table, "Errors by route", "percentunit")
            .says("Share of 5xx of a route's answers", "none", "open a trace of the route")
            .asks("sort_desc(sum by (http_route) (rate(http_server_request_duration_seconds_count{$S,http_response_status_code=~\"5..\"}[$W])) / (sum by (http_route) (rate(http_server_request_duration_seconds_count{$S}[$W])) > 0))", "{{http_route}}")
            .runbook("StreamGateErrorRateAboveTarget")
            .leads("slo")
            .wide(8),
        panel(Kind::Table, format!("P95 by route, {}", against(target)), "s")
            .says(p95, "under the target", "open the profile of the route")
            .asks("sort_desc(histogram_quantile(0.95, sum by (http_route, le) (rate(http_server_request_duration_seconds_bucket{$S}[$W]))))", "{{http_route}}")
            .target(target)
            .runbook("StreamGateLatencyP95AboveTarget")
            .leads("profiles")
            .wide(8),
    ];
    let latency = vec![
        panel(Kind::Heatmap, "Latency of all requests", "s")
            .says(
                "How many requests took how long",
                "one band, low",
                "two bands: a cache that misses, or a queue",
            )
            .asks(
                "sum by (le) (rate(http_server_request_duration_seconds_bucket{$S}[$W]))",
                "{{le}}",
            )
            .leads("cache")
            .wide(12),
        lines(format!("P95 by route, {}", against(target)), "s")
            .says(
                p95,
                "under the line",
                "open an exemplar, or the profile of that time",
            )
            .quantiles("http_server_request_duration_seconds", Some("http_route"))
            .target(target)
            .runbook("StreamGateLatencyP95AboveTarget")
            .leads("profiles")
            .wide(12),
        lines("Time to the first byte, P95 by route", "s")
            .says(
                "Time until the answer's head left",
                "close to the latency above",
                "large answers: see the bytes",
            )
            .quantiles("http_server_time_to_first_byte_seconds", Some("http_route"))
            .leads("profiles")
            .wide(12),
        lines("Processor time by route", "short")
            .says(
                "Cores that a route keeps busy, from the profiler's samples",
                "what its traffic explains",
                "open the profile with its route",
            )
            .asks(
                "sum by (http_route) (rate(http_server_cpu_seconds_total{$S}[$W]))",
                "{{http_route}}",
            )
            .leads("profiles")
            .wide(12),
    ];
    let bytes = vec![
        lines("Bytes before and after compression", "Bps")
            .says(
                "Bodies a second, raw and as sent",
                "sent well under raw",
                "compression is off, or clients do not ask for it",
            )
            .asks(
                "sum by (stage) (rate(streamgate_response_bytes_total{$S}[$W]))",
                "{{stage}}",
            )
            .wide(12),
        lines("Bytes of an answer, P95 by route", "bytes")
            .says(
                "Size of answers as sent",
                "what the route needs",
                "ask for fewer fields",
            )
            .quantiles("http_server_response_body_size_bytes", Some("http_route"))
            .wide(12),
    ];
    let refused = vec![
        lines("Requests in flight", "short")
            .says(
                "Requests being worked on",
                "far under the limit",
                "see the schedule delay and the pool",
            )
            .asks(
                "sum by (instance) (http_server_active_requests{$S})",
                "{{instance}}",
            )
            .leads("runtime"),
        lines("Turned away, by reason", "reqps")
            .says(
                "Requests refused without being worked on",
                "none",
                "queue and pool: too much load or too slow a database",
            )
            .asks(
                "sum by (reason) (rate(http_server_requests_shed_total{$S}[$W]))",
                "{{reason}}",
            )
            .runbook("StreamGateThroughputShortfall")
            .leads("database"),
        lines("Answers that were broken off", "reqps")
            .says(
                "Answers that did not leave whole, by reason",
                "few",
                "clients leave: see the latency",
            )
            .asks(
                "sum by (http_route, reason) (rate(http_server_response_aborted_total{$S}[$W]))",
                "{{http_route}} {{reason}}",
            ),
    ];
    let connections = vec![
        lines("Requests per connection, P95", "short")
            .says(
                "Requests that a connection carried before it ended",
                "many",
                "clients that close, or a proxy without keep-alive",
            )
            .quantiles(
                "http_server_requests_per_connection",
                Some("network_protocol_version"),
            )
            .wide(12),
        lines("Open connections", "short")
            .says(
                "Connections by protocol version",
                "level",
                "see who opens them",
            )
            .asks(
                "sum by (network_protocol_version) (http_server_open_connections{$S})",
                "{{network_protocol_version}}",
            )
            .wide(12),
    ];
    Board {
        name: "api",
        title: "API",
        about: "Which route is slow, failing, large or turned away.",
        rows: vec![
            row("Routes", routes),
            row("Latency", latency),
            row("Bytes", bytes),
            row("Turned away", refused),
            row("Connections", connections),
        ],
        profiles: false,
    }
}
