//! The first look: every target, then the nine key metrics of the guide.

use super::board::{Board, row};
use super::panel::{Kind, Panel, against, lines, panel};
use crate::alerts::{TargetFile, Threshold};

/// A target as a number with its verdict's colour; the title says against what.
fn tile(threshold: &Threshold, name: &str, expr: &str, onward: &'static str) -> Panel {
    let unit = match threshold.unit.as_str() {
        "ratio" => "percentunit",
        "1/s" => "reqps",
        unit => {
            assert_eq!(unit, "s");
            "s"
        }
    };
    let title = format!("{name}, {}", against(threshold));
    panel(Kind::Stat, title, unit)
        .asks(expr, name)
        .target(threshold)
        .leads(onward)
        .wide(3)
}

pub(super) fn board(file: &TargetFile) -> Board {
    let target = &file.target;
    let targets = vec![
        tile(
            &target.latency_p95,
            "P95",
            &format!("{}{{$J}}", target.latency_p95.value),
            "api",
        )
        .says(
            "Time below which 95 % of requests are answered",
            "under the target",
            "see which route is slow",
        )
        .runbook("StreamGateLatencyP95AboveTarget"),
        tile(
            &target.cache_hit,
            "Cache hits",
            &format!("{}{{$J}}", target.cache_hit.value),
            "cache",
        )
        .says(
            "Share of lookups that no load followed, over all levels",
            "above the target once warm",
            "see which level misses",
        )
        .runbook("StreamGateCacheHitRatioOverallLow"),
        tile(
            &target.error_ratio,
            "Errors",
            "job:http_server_requests_errors:ratio_rate5m{$J}",
            "slo",
        )
        .says(
            "Share of requests answered 5xx",
            "under the target",
            "see what burns the budget",
        )
        .runbook("StreamGateErrorRateAboveTarget"),
        tile(
            &target.throughput,
            "Served",
            "job:http_server_requests_served:rate5m{$J}",
            "api",
        )
        .says(
            "Requests a second that were not turned away",
            "all that come; the target is for a load test",
            "see what was shed",
        )
        .runbook("StreamGateThroughputShortfall"),
        tile(
            &target.cpu,
            "CPU",
            "max by (job) (instance:process_cpu:ratio_rate5m{$S})",
            "runtime",
        )
        .says(
            "Processor time of the limit, the busiest instance",
            "under the target",
            "look at the CPU profile",
        )
        .runbook("StreamGateCPUHigh"),
        tile(
            &target.memory,
            "Memory",
            "max by (job) (instance:process_memory:ratio{$S})",
            "runtime",
        )
        .says(
            "Resident memory of the limit, the fullest instance",
            "under the target",
            "look at the heap profile",
        )
        .runbook("StreamGateMemoryHigh"),
        tile(
            &target.disk_busy,
            "Disk I/O",
            "max by (job) (instance_device:system_disk_io:ratio_rate5m{$S})",
            "runtime",
        )
        .says(
            "Share of time with a request in flight, the busiest disk",
            "under the target",
            "see which device, and the stalls beside it",
        )
        .runbook("StreamGateDiskIOHigh"),
        panel(Kind::Stat, "Instances up", "short")
            .says(
                "Instances that answer Prometheus",
                "as many as there are",
                "see the log of the missing",
            )
            .asks("sum by (job) (up{$S})", "up")
            .runbook("StreamGateInstanceDown")
            .wide(3),
    ];
    let requests = vec![
        lines("Requests by status", "reqps")
            .says("Answers a second by status", "few 5xx", "see the routes that fail")
            .asks("sum by (http_response_status_code) (rate(http_server_request_duration_seconds_count{$S}[$W]))", "{{http_response_status_code}}")
            .leads("api"),
        lines(format!("Error ratio, {}", against(&target.error_ratio)), "percentunit")
            .says("Share of requests answered 5xx, over 5 minutes", "under the line", "see what burns the budget")
            .asks("job:http_server_requests_errors:ratio_rate5m{$J}", "{{job}}")
            .target(&target.error_ratio)
            .runbook("StreamGateErrorRateAboveTarget")
            .leads("slo"),
        lines(format!("Latency, P95 {}", against(&target.latency_p95)), "s")
            .says("Time from the request's head to the end of the answer", "P95 under the line", "open an exemplar, or the profile of that time")
            .quantiles("http_server_request_duration_seconds", None)
            .target(&target.latency_p95)
            .runbook("StreamGateLatencyP95AboveTarget")
            .leads("api"),
    ];
    let cache = vec![
        lines(format!("Hit ratio by level, L1 {}", against(&target.cache_hit_l1)), "percentunit")
            .says("Lookups that a level answered, of those that asked it; a level that does not exist has no line", "L1 above its line once warm", "see classes and invalidations")
            .asks("job_level:cache_hits:ratio_rate15m{$J}", "{{cache_level}}")
            .target(&target.cache_hit_l1)
            .runbook("StreamGateCacheHitRatioLow")
            .leads("cache")
            .wide(12),
        lines("Lookups by level", "ops")
            .says("Lookups a second", "few reach the database", "see what invalidates")
            .asks("job_level:cache_lookups:rate15m{$J}", "{{cache_level}}")
            .leads("cache")
            .wide(12),
    ];
    let resources = vec![
        lines(format!("CPU of the limit, {}", against(&target.cpu)), "percentunit")
            .says("Processor time of the cores the process may use", "under the line", "open the CPU profile")
            .asks("instance:process_cpu:ratio_rate5m{$S}", "{{instance}}")
            .target(&target.cpu)
            .runbook("StreamGateCPUHigh")
            .leads("profiles")
            .wide(6),
        lines(format!("Memory of the limit, {}", against(&target.memory)), "percentunit")
            .says("Resident memory of what the process may use", "under the line and level", "open the heap profile")
            .asks("instance:process_memory:ratio{$S}", "{{instance}}")
            .target(&target.memory)
            .runbook("StreamGateMemoryHigh")
            .leads("profiles")
            .wide(6),
        lines(format!("Disk busy, {}", against(&target.disk_busy)), "percentunit")
            .says("Share of time with a request in flight, by device", "under the line", "see the pressure stalls beside it")
            .asks("instance_device:system_disk_io:ratio_rate5m{$S}", "{{instance}} {{system_device}}")
            .target(&target.disk_busy)
            .runbook("StreamGateDiskIOHigh")
            .leads("runtime")
            .wide(6),
        lines("Network of the host", "Bps")
            .says("Bytes a second by direction, all interfaces", "what the load explains", "see the bytes sent by route")
            .asks("sum by (instance, network_io_direction) (rate(system_network_io_bytes_total{$S}[$W]))", "{{instance}} {{network_io_direction}}")
            .leads("runtime")
            .wide(6),
    ];
    let database = vec![
        lines("Query time, P95", "s")
            .says(
                "Time of statements, by operation",
                "milliseconds",
                "see the statement that is slow",
            )
            .quantiles(
                "db_client_operation_duration_seconds",
                Some("db_operation_name"),
            )
            .runbook("StreamGateSlowQueries")
            .leads("database")
            .wide(12),
        lines("Wait for a connection, P95", "s")
            .says(
                "Time until a pool had a connection free",
                "under a millisecond",
                "see how many are in use",
            )
            .quantiles(
                "db_client_connection_wait_time_seconds",
                Some("db_client_connection_pool_name"),
            )
            .runbook("StreamGatePoolWait")
            .leads("database")
            .wide(12),
    ];
    let alerts = vec![
        panel(Kind::Table, "Firing alerts", "short")
            .says(
                "What fires now",
                "nothing but the watchdog",
                "open the runbook of its name",
            )
            .asks(
                "sum by (alertname, severity, slo) (ALERTS{alertstate=\"firing\",job=~\"$job\"})",
                "{{alertname}}",
            )
            .leads("slo")
            .wide(24),
    ];
    Board {
        name: "overview",
        title: "Overview",
        about: "Is the service within its targets, and if not, where to look next.",
        rows: vec![
            row("Targets", targets),
            row("Requests", requests),
            row("Cache", cache),
            row("Resources", resources),
            row("Database", database),
            row("Alerts", alerts),
        ],
        profiles: false,
    }
}
