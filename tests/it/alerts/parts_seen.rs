//! Scenarios of resources, parts and the agent: just under every limit, just over it.

use super::scenario::{Firing, Scenario, scenario};
use super::target_file::TargetFile;
use super::world::{A, Mix, World};

const POOL: &str = "db_client_connection_pool_name=\"main\"";

fn with(labels: &str) -> String {
    match labels {
        "" => A.to_owned(),
        _ => format!("{A},{labels}"),
    }
}

/// Every part at this share of its limit, waits between these bounds.
fn parts(file: &TargetFile, times: f64, bounds: [[&str; 2]; 3], minutes: u32) -> World {
    let above = |name: &str| file.limit[name].above.unwrap() * times;
    let flow = |world: World, name: &str, labels: &str, per_second: f64| {
        world.flow(name, &with(labels), &[(minutes, per_second)])
    };
    let level = |world: World, name: &str, labels: &str, value: f64| {
        world.level(name, &with(labels), &[(minutes, value)])
    };
    let mut world = World::one(minutes).requests(&[(minutes, Mix::fast(10.0))]);
    world = flow(
        world,
        "db_client_slow_queries_total",
        "db_query_summary=\"q\"",
        above("slow_queries"),
    );
    world = flow(
        world,
        "agent_http_denied_total",
        "reason=\"host\"",
        above("requests_denied"),
    );
    world = flow(
        world,
        "agent_cpu_seconds_total",
        "component=\"serve\"",
        above("agent_cpu"),
    );
    let lost = above("samples_lost");
    world = flow(
        world,
        "agent_profile_samples_total",
        "kind=\"cpu\",result=\"lost\"",
        lost,
    );
    world = flow(
        world,
        "agent_profile_samples_total",
        "kind=\"cpu\",result=\"recorded\"",
        1.0 - lost,
    );
    // Half of the queue in each of two series, since they are summed.
    let half = above("queue_bytes") / 2.0;
    world = level(
        world,
        "agent_queue_bytes",
        "signal=\"spans\",place=\"memory\"",
        half,
    );
    world = level(
        world,
        "agent_queue_bytes",
        "signal=\"spans\",place=\"flight\"",
        half,
    );
    world = level(
        world,
        "streamgate_archive_oldest_age_seconds",
        "",
        above("archive_age"),
    );
    world = level(world, "db_client_connection_max", POOL, 100.0);
    let used = format!("{POOL},db_client_connection_state=\"used\"");
    world = level(
        world,
        "db_client_connections",
        &used,
        100.0 * above("pool_used"),
    );
    let idle = format!("{POOL},db_client_connection_state=\"idle\"");
    world = level(world, "db_client_connections", &idle, 100.0);
    let [pool, stall, stale] = bounds;
    world
        .between(
            "db_client_connection_wait_time_seconds",
            &with(POOL),
            pool,
            minutes,
        )
        .between(
            "tokio_schedule_delay_seconds",
            &with("runtime=\"main\""),
            stall,
            minutes,
        )
        .between(
            "cache_invalidation_lag_seconds",
            &with("cache_name=\"content\""),
            stale,
            minutes,
        )
        // The last push was this long ago.
        .slope(
            "agent_last_success_timestamp_seconds",
            &with("signal=\"metrics\""),
            minutes,
            (-above("export_age"), 60.0),
        )
}

pub(crate) fn all(file: &TargetFile) -> Vec<Scenario> {
    let under = parts(
        file,
        0.95,
        [["0.0099", "0.01"], ["0.0249", "0.025"], ["0.99", "1.0"]],
        80,
    );
    let over = parts(
        file,
        1.05,
        [["0.01", "0.0105"], ["0.025", "0.0252"], ["1.0", "1.05"]],
        80,
    );
    let mut all = vec![
        scenario(
            "every part just under its limit",
            under,
            vec![Firing(30, ""), Firing(80, "")],
        ),
        scenario(
            "every part just over its limit, each for its time",
            over,
            vec![
                Firing(4, ""),
                Firing(
                    9,
                    "PoolWait RuntimeStall StaleReads AgentExportStalled AgentQueueFull",
                ),
                Firing(
                    14,
                    "PoolWait RuntimeStall StaleReads AgentExportStalled AgentQueueFull",
                ),
                Firing(
                    17,
                    "PoolWait RuntimeStall StaleReads AgentExportStalled AgentQueueFull SlowQueries AgentRequestsDenied AgentSamplesLost",
                ),
                Firing(
                    19,
                    "PoolWait RuntimeStall StaleReads AgentExportStalled AgentQueueFull SlowQueries AgentRequestsDenied AgentSamplesLost",
                ),
                Firing(
                    22,
                    "PoolWait RuntimeStall StaleReads AgentExportStalled AgentQueueFull SlowQueries AgentRequestsDenied AgentSamplesLost AgentCostHigh",
                ),
                Firing(
                    59,
                    "PoolWait RuntimeStall StaleReads AgentExportStalled AgentQueueFull SlowQueries AgentRequestsDenied AgentSamplesLost AgentCostHigh",
                ),
                Firing(
                    62,
                    "PoolWait RuntimeStall StaleReads AgentExportStalled AgentQueueFull SlowQueries AgentRequestsDenied AgentSamplesLost AgentCostHigh ArchiveOverdue",
                ),
            ],
        ),
    ];
    all.extend(resources(file));
    all.extend(agent(file));
    all
}

fn base(minutes: u32) -> World {
    World::one(minutes).requests(&[(minutes, Mix::fast(10.0))])
}

fn resources(file: &TargetFile) -> Vec<Scenario> {
    let targets = &file.target;
    let at = |times: f64| {
        base(60)
            .flow(
                "process_cpu_seconds_total",
                A,
                &[(60, 2.0 * targets.cpu.must * times)],
            )
            .level("process_cpu_limit_cores", A, &[(60, 2.0)])
            .level(
                "process_resident_memory_bytes",
                A,
                &[(60, 1000.0 * targets.memory.must * times)],
            )
            .level("process_memory_limit_bytes", A, &[(60, 1000.0)])
            .flow(
                "system_disk_io_time_seconds_total",
                &with("system_device=\"sda\""),
                &[(60, targets.disk_busy.must * times)],
            )
    };
    let growing = |from: f64, by: f64| {
        base(120)
            .slope("process_resident_memory_bytes", A, 120, (from, by))
            .level("process_memory_limit_bytes", A, &[(120, 1000.0)])
    };
    vec![
        scenario(
            "resources just under their targets",
            at(0.95),
            vec![Firing(30, ""), Firing(60, "")],
        ),
        scenario(
            "resources just over their targets",
            at(1.05),
            vec![
                Firing(9, ""),
                Firing(12, "MemoryHigh"),
                Firing(18, "MemoryHigh"),
                Firing(22, "MemoryHigh CPUHigh DiskIOHigh"),
            ],
        ),
        scenario(
            "twelve minutes of CPU",
            base(60)
                .flow(
                    "process_cpu_seconds_total",
                    A,
                    &[(20, 0.2), (12, 1.7), (28, 0.2)],
                )
                .level("process_cpu_limit_cores", A, &[(60, 2.0)]),
            vec![Firing(32, ""), Firing(36, ""), Firing(60, "")],
        ),
        scenario(
            "a leak: the limit is four hours away, and half of it taken",
            growing(400.0, 3.0),
            vec![Firing(60, ""), Firing(68, "MemoryExhaustionPredicted")],
        ),
        scenario(
            "a leak that reaches the limit within four hours",
            growing(510.0, 2.2),
            vec![Firing(30, ""), Firing(35, "MemoryExhaustionPredicted")],
        ),
        scenario(
            "growing to nine tenths of the limit in four hours",
            growing(510.0, 1.2),
            vec![Firing(60, ""), Firing(80, "")],
        ),
        scenario(
            "a cache that fills, far from the limit",
            growing(100.0, 3.0),
            vec![Firing(60, ""), Firing(120, "")],
        ),
        scenario(
            "a pool in use for seven eighths, with waits",
            base(30)
                .level("db_client_connection_max", &with(POOL), &[(30, 8.0)])
                .level(
                    "db_client_connections",
                    &with(&format!("{POOL},db_client_connection_state=\"used\"")),
                    &[(30, 7.0)],
                )
                .between(
                    "db_client_connection_wait_time_seconds",
                    &with(POOL),
                    ["0.1", "0.25"],
                    30,
                ),
            vec![Firing(30, "")],
        ),
    ]
}

fn agent(file: &TargetFile) -> Vec<Scenario> {
    let once = [(10, 0.0), (1, 1.0 / 60.0), (49, 0.0)];
    let flushes = |count: f64| {
        let at = |reason: &str, count: f64| {
            (
                format!("{A},cache_name=\"content\",reason=\"{reason}\""),
                count,
            )
        };
        let world = [at("gap", count), at("admin", 9.0)];
        world.into_iter().fold(base(60), |world, (labels, count)| {
            world.flow(
                "cache_flushes_total",
                &labels,
                &[(30, 0.0), (1, count / 60.0), (29, 0.0)],
            )
        })
    };
    let drifted = file
        .target
        .rows()
        .into_iter()
        .fold(base(30), |world, (id, row)| {
            world.level(
                "agent_target_threshold",
                &with(&format!("target=\"{id}\"")),
                &[(30, row.must * 1.1)],
            )
        });
    let as_here = file
        .target
        .rows()
        .into_iter()
        .fold(base(30), |world, (id, row)| {
            world.level(
                "agent_target_threshold",
                &with(&format!("target=\"{id}\"")),
                &[(30, row.must)],
            )
        });
    vec![
        scenario(
            "two flushes for a gap",
            flushes(1.9),
            vec![Firing(38, ""), Firing(60, "")],
        ),
        scenario(
            "three flushes for a gap",
            flushes(2.1),
            vec![Firing(34, ""), Firing(39, "StaleReads"), Firing(60, "")],
        ),
        scenario(
            "a panic and an overflow, once",
            base(60)
                .flow("agent_panics_total", &with("component=\"serve\""), &once)
                .flow("agent_series_overflow_total", &with("family=\"f\""), &once),
            vec![
                Firing(9, ""),
                Firing(12, "AgentPanicked AgentSeriesOverflow"),
                Firing(23, "AgentPanicked AgentSeriesOverflow"),
                Firing(28, ""),
            ],
        ),
        scenario(
            "items dropped all the time, and once",
            base(60)
                .flow(
                    "agent_dropped_total",
                    &with("signal=\"spans\",reason=\"age\""),
                    &[(60, 0.02)],
                )
                .flow(
                    "agent_dropped_total",
                    &with("signal=\"logs\",reason=\"age\""),
                    &once,
                ),
            vec![
                Firing(9, ""),
                Firing(14, "AgentDataLost"),
                Firing(60, "AgentDataLost"),
            ],
        ),
        scenario(
            "the agent's own state",
            base(30)
                .level("agent_up", &with("component=\"serve\""), &[(30, 0.0)])
                .level("agent_up", &with("component=\"cpu\""), &[(30, 1.0)])
                .level("agent_signal_hijacked", A, &[(10, 0.0), (20, 1.0)])
                .level("agent_insecure", A, &[(30, 1.0)]),
            vec![
                Firing(4, ""),
                Firing(6, "AgentComponentDown AgentInsecure"),
                Firing(11, "AgentComponentDown AgentInsecure AgentSignalHijacked"),
            ],
        ),
        scenario(
            "an agent that is well",
            as_here
                .level("agent_up", &with("component=\"serve\""), &[(30, 1.0)])
                .level("agent_signal_hijacked", A, &[(30, 0.0)])
                .level("agent_insecure", A, &[(30, 0.0)]),
            vec![Firing(30, "")],
        ),
        scenario(
            "other targets than these rules",
            drifted,
            vec![Firing(14, ""), Firing(16, "TargetDrift x10")],
        ),
        scenario(
            "requests without a bucket at the target",
            World::one(30)
                .flow(
                    "http_server_request_duration_seconds_count",
                    A,
                    &[(30, 10.0)],
                )
                .flow(
                    "http_server_request_duration_seconds_bucket",
                    &with("le=\"0.25\""),
                    &[(30, 10.0)],
                ),
            vec![Firing(9, ""), Firing(11, "SLOBucketMissing")],
        ),
    ]
}
