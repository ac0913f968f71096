//! Scenarios of requests: near every target, and near every window of the error budgets.

use super::scenario::{Check, Fired, Firing, Scenario, Value, Whole, scenario};
use super::target_file::{TargetFile, Threshold};
use super::world::{Mix, Phase, World};

/// A service with these requests and nothing else.
fn asked(phases: &[Phase<Mix>]) -> World {
    let minutes = phases.iter().map(|(minutes, _)| minutes).sum();
    World::one(minutes).requests(phases)
}

/// The share of the requests at which a burn rate alerts.
fn burns_at(row: &Threshold, place: usize) -> f64 {
    row.burn[place].factor * row.budget.unwrap()
}

pub(crate) fn all(file: &TargetFile) -> Vec<Scenario> {
    let mut all = plain_ones(file);
    all.extend(near_burn_rates(file));
    all.extend(guards());
    all.extend(missing());
    all
}

fn plain_ones(file: &TargetFile) -> Vec<Scenario> {
    let (latency, errors) = (&file.target.latency_p95, &file.target.error_ratio);
    let (slow, failed) = (latency.budget.unwrap(), errors.must);
    let under = Mix {
        fast: 0.0,
        near: 100.0 * (1.0 - 0.95 * (slow + failed)),
        ..Mix::bad(100.0, failed * 0.95, slow * 0.95)
    };
    vec![
        scenario(
            "a healthy service",
            asked(&[(60, Mix::fast(100.0))]),
            vec![Firing(2, ""), Firing(30, ""), Firing(60, "")],
        ),
        scenario(
            "requests just under their targets",
            asked(&[(90, under)]),
            vec![Firing(30, ""), Firing(90, "")],
        ),
        scenario(
            "latency just over its target",
            asked(&[(90, Mix::bad(100.0, 0.0, slow * 1.05))]),
            vec![
                Firing(9, ""),
                Firing(13, "LatencyP95AboveTarget"),
                Firing(90, "LatencyP95AboveTarget"),
            ],
        ),
        scenario(
            "failures just over their target, after an hour without",
            asked(&[
                (60, Mix::fast(100.0)),
                (90, Mix::bad(100.0, failed * 1.05, 0.0)),
            ]),
            vec![
                Firing(73, ""),
                Firing(77, "ErrorRateAboveTarget"),
                Firing(150, "ErrorRateAboveTarget"),
            ],
        ),
        outage(),
    ]
}

/// Half of the requests fail for twenty minutes; the page comes within twelve and goes within thirty.
fn outage() -> Scenario {
    let page = |value: &'static str| Fired {
        labels: vec![
            ("severity", "critical"),
            ("slo", "errors"),
            ("long", "1h"),
            ("short", "5m"),
            ("job", "streamgate"),
        ],
        annotations: vec![
            (
                "summary",
                "So many requests fail that the budget of 30 days will not last.",
            ),
            ("description", value),
            (
                "runbook_url",
                "https://example.invalid/streamgate/alerts/runbooks.md#streamgateerrorbudgetburn",
            ),
            ("dashboard", "/d/streamgate-slo"),
        ],
    };
    scenario(
        "an outage of twenty minutes after three good hours",
        asked(&[
            (180, Mix::fast(100.0)),
            (20, Mix::bad(100.0, 0.9, 0.0)),
            (180, Mix::fast(100.0)),
        ]),
        vec![
            Firing(180, ""),
            Firing(192, "ErrorBudgetBurn/critical ErrorRateAboveTarget"),
            Whole(
                192,
                "ErrorBudgetBurn",
                vec![page(
                    "streamgate: 18% of requests miss the objective over 1h (budget 1%); at 14.4 \
                     times the budget, which is the threshold, 30 days of it last 2.08 days. Start \
                     with the panel of failures by route and status.",
                )],
            ),
            // The short windows are clean again; those of two and six hours are not.
            Firing(230, ""),
            Firing(262, "ErrorBudgetBurn/warning"),
            Firing(325, ""),
        ],
    )
}

/// Constant shares just under and just over each burn rate, held longer than each `for`.
fn near_burn_rates(file: &TargetFile) -> Vec<Scenario> {
    let (latency, errors) = (&file.target.latency_p95, &file.target.error_ratio);
    let at = |place: usize, times: f64| {
        Mix::bad(
            100.0,
            burns_at(errors, place) * times,
            burns_at(latency, place) * times,
        )
    };
    const TARGETS: &str = "ErrorRateAboveTarget LatencyP95AboveTarget";
    let set = |critical: usize, warning: usize| -> &'static str {
        match (critical, warning) {
            (0, 0) => TARGETS,
            (0, 1) => {
                "ErrorBudgetBurn/warning LatencyBudgetBurn/warning ErrorRateAboveTarget LatencyP95AboveTarget"
            }
            (0, _) => {
                "ErrorBudgetBurn/warning x2 LatencyBudgetBurn/warning x2 ErrorRateAboveTarget LatencyP95AboveTarget"
            }
            (1, 0) => {
                "ErrorBudgetBurn/critical LatencyBudgetBurn/critical ErrorRateAboveTarget LatencyP95AboveTarget"
            }
            (1, 1) => {
                "ErrorBudgetBurn/critical LatencyBudgetBurn/critical ErrorBudgetBurn/warning LatencyBudgetBurn/warning ErrorRateAboveTarget LatencyP95AboveTarget"
            }
            _ => {
                "ErrorBudgetBurn/critical x2 LatencyBudgetBurn/critical x2 ErrorBudgetBurn/warning LatencyBudgetBurn/warning ErrorRateAboveTarget LatencyP95AboveTarget"
            }
        }
    };
    let no_targets = "ErrorBudgetBurn/critical LatencyBudgetBurn/critical";
    vec![
        scenario(
            "just over the fast page",
            asked(&[(70, at(0, 1.05))]),
            vec![
                Firing(2, ""),
                Firing(4, no_targets),
                Firing(15, set(1, 0)),
                Firing(
                    17,
                    "ErrorBudgetBurn/critical x2 LatencyBudgetBurn/critical x2 ErrorRateAboveTarget LatencyP95AboveTarget",
                ),
                Firing(
                    59,
                    "ErrorBudgetBurn/critical x2 LatencyBudgetBurn/critical x2 ErrorRateAboveTarget LatencyP95AboveTarget",
                ),
                Firing(63, set(2, 1)),
            ],
        ),
        scenario(
            "just under the fast page, over the slow one",
            asked(&[(70, at(0, 0.95))]),
            vec![
                Firing(15, TARGETS),
                Firing(17, set(1, 0)),
                Firing(70, set(1, 1)),
            ],
        ),
        scenario(
            "just over the slow page",
            asked(&[(20, at(1, 1.05))]),
            vec![Firing(15, TARGETS), Firing(17, set(1, 0))],
        ),
        scenario(
            "just under the slow page, over the first ticket",
            asked(&[(185, at(1, 0.95))]),
            vec![
                Firing(59, TARGETS),
                Firing(63, set(0, 1)),
                Firing(179, set(0, 1)),
                Firing(183, set(0, 2)),
            ],
        ),
        scenario(
            "just over the first ticket",
            asked(&[(65, at(2, 1.05))]),
            vec![Firing(59, TARGETS), Firing(63, set(0, 1))],
        ),
        scenario(
            "just under the first ticket, over the second",
            asked(&[(185, at(2, 0.95))]),
            vec![Firing(179, TARGETS), Firing(183, set(0, 1))],
        ),
        scenario(
            "just over the second ticket",
            asked(&[(185, at(3, 1.05))]),
            vec![Firing(179, TARGETS), Firing(183, set(0, 1))],
        ),
        scenario(
            "just under the second ticket",
            asked(&[(185, at(3, 0.95))]),
            vec![Firing(183, "")],
        ),
    ]
}

/// Alerts count bad requests, and not traffic.
fn guards() -> Vec<Scenario> {
    let mut all = few();
    for (name, events) in [
        (
            "nine and a half bad requests at once, and nothing else",
            9.5,
        ),
        ("eleven bad requests at once, and nothing else", 10.8),
    ] {
        let bad = events / 60.0;
        let bursts = [
            (
                Mix {
                    failed: bad,
                    ..Mix::default()
                },
                "ErrorBudgetBurn/critical",
                "ErrorBudgetBurn/warning",
            ),
            (
                Mix {
                    slow: bad,
                    ..Mix::default()
                },
                "LatencyBudgetBurn/critical",
                "LatencyBudgetBurn/warning",
            ),
        ];
        for (burst, page, ticket) in bursts {
            let enough = events > 10.0;
            let set = |set| if enough { set } else { "" };
            all.push(scenario(
                name,
                asked(&[(60, Mix::default()), (1, burst), (200, Mix::default())]),
                // Of each window while the short one still holds the burst.
                vec![
                    Firing(64, set(page)),
                    Firing(80, set(page)),
                    Firing(150, set(ticket)),
                    Firing(250, set(ticket)),
                ],
            ));
        }
    }
    all
}

fn few() -> Vec<Scenario> {
    let none = Mix::default();
    let burst = |events: f64| Mix {
        failed: events / 60.0,
        ..none
    };
    let quiet = |failed: f64| Mix { failed, ..none };
    vec![
        scenario(
            "one failure an hour, of an hourly request",
            asked(&[
                (30, none),
                (1, burst(1.0)),
                (59, none),
                (1, burst(1.0)),
                (59, none),
                (1, burst(1.0)),
                (59, none),
            ]),
            vec![
                Firing(32, ""),
                Firing(60, ""),
                Firing(95, ""),
                Firing(155, ""),
                Firing(210, ""),
            ],
        ),
        scenario(
            "nine requests an hour, which all fail",
            asked(&[(120, quiet(9.0 / 3600.0))]),
            vec![Firing(70, ""), Firing(95, "ErrorBudgetBurn/critical")],
        ),
        scenario(
            "five failures in five minutes",
            asked(&[
                (30, Mix::bad(5.0 / 300.0 / 0.025, 0.025 * 0.95, 0.0)),
                (30, Mix::bad(5.0 / 300.0 / 0.025, 0.025 * 1.05, 0.0)),
            ]),
            vec![
                Firing(30, ""),
                Firing(40, ""),
                Firing(50, "ErrorRateAboveTarget"),
            ],
        ),
        scenario(
            "a slow service with one request a second",
            asked(&[
                (30, Mix::bad(0.95, 0.0, 0.06)),
                (30, Mix::bad(1.05, 0.0, 0.06)),
            ]),
            vec![
                Firing(30, ""),
                Firing(40, ""),
                Firing(48, "LatencyP95AboveTarget"),
            ],
        ),
    ]
}

/// What is not there is no zero and no failure.
fn missing() -> Vec<Scenario> {
    let ratio = |window: &str| format!("job:http_server_requests_errors:ratio_rate{window}");
    let no_failures = |window: &str| {
        Value(
            10,
            ratio(window),
            vec![(
                match window {
                    "5m" => "job:http_server_requests_errors:ratio_rate5m{job=\"streamgate\"}",
                    "1h" => "job:http_server_requests_errors:ratio_rate1h{job=\"streamgate\"}",
                    _ => "job:http_server_requests_errors:ratio_rate3d{job=\"streamgate\"}",
                },
                0.0,
            )],
        )
    };
    let absent = |at: u32, series: String| Value(at, series, Vec::new());
    vec![
        scenario(
            "no series of failures: their share is 0",
            asked(&[(30, Mix::fast(10.0))]),
            vec![
                no_failures("5m"),
                no_failures("1h"),
                no_failures("3d"),
                Firing(30, ""),
            ],
        ),
        scenario(
            "no traffic since the start: no share at all",
            asked(&[(60, Mix::default())]),
            {
                let windows = ["5m", "30m", "1h", "2h", "6h", "1d", "3d"];
                let slow =
                    |window: &str| format!("job:http_server_requests_slow:ratio_rate{window}");
                let both = windows
                    .iter()
                    .flat_map(|window| [ratio(window), slow(window)]);
                let mut checks: Vec<Check> = both.map(|series| absent(30, series)).collect();
                checks.push(Firing(60, ""));
                checks
            },
        ),
        another_job(),
    ]
}

/// All of it fails, and nothing is recorded of it.
fn another_job() -> Scenario {
    let other = "job=\"billing\"";
    let instance = "instance=\"c:9090\"";
    let bad = Mix::bad(2000.0, 0.5, 0.5);
    let mut world = World::one(200)
        .requests(&[(200, Mix::fast(100.0))])
        .requests_of(other, instance, &[(200, bad)]);
    let flows = [
        ("http_server_requests_shed_total", "reason=\"pool\""),
        ("process_cpu_seconds_total", ""),
        ("system_disk_io_time_seconds_total", "system_device=\"sda\""),
        ("db_client_slow_queries_total", "db_query_summary=\"q\""),
        ("cache_flushes_total", "cache_name=\"c\",reason=\"gap\""),
        (
            "cache_loads_total",
            "cache_name=\"c\",cache_class=\"public\"",
        ),
        (
            "cache_requests_total",
            "cache_name=\"c\",cache_level=\"l1\",cache_result=\"miss\",cache_class=\"public\"",
        ),
        ("agent_panics_total", "component=\"serve\""),
        ("agent_dropped_total", "signal=\"spans\",reason=\"full\""),
        (
            "agent_profile_samples_total",
            "kind=\"cpu\",result=\"lost\"",
        ),
        ("agent_series_overflow_total", "family=\"f\""),
        ("agent_http_denied_total", "reason=\"host\""),
        ("agent_cpu_seconds_total", "component=\"serve\""),
        (
            "db_client_connection_wait_time_seconds_bucket",
            "db_client_connection_pool_name=\"p\",le=\"10.0\"",
        ),
        (
            "db_client_connection_wait_time_seconds_bucket",
            "db_client_connection_pool_name=\"p\",le=\"+Inf\"",
        ),
        (
            "tokio_schedule_delay_seconds_bucket",
            "runtime=\"main\",le=\"10.0\"",
        ),
        (
            "tokio_schedule_delay_seconds_bucket",
            "runtime=\"main\",le=\"+Inf\"",
        ),
        (
            "cache_invalidation_lag_seconds_bucket",
            "cache_name=\"c\",le=\"10.0\"",
        ),
        (
            "cache_invalidation_lag_seconds_bucket",
            "cache_name=\"c\",le=\"+Inf\"",
        ),
    ];
    let named = |name: &str, labels: &str| match labels {
        "" => format!("{name}{{{other},{instance}}}"),
        _ => format!("{name}{{{other},{instance},{labels}}}"),
    };
    for (name, labels) in flows {
        world = world.raw_flow(named(name, labels), &[(200, 3.0)]);
    }
    let levels = [
        ("up", "", "0"),
        ("process_start_time_seconds", "", "-90000"),
        ("process_cpu_limit_cores", "", "1"),
        ("process_resident_memory_bytes", "", "99"),
        ("process_memory_limit_bytes", "", "100"),
        (
            "db_client_connections",
            "db_client_connection_pool_name=\"p\",db_client_connection_state=\"used\"",
            "9",
        ),
        (
            "db_client_connection_max",
            "db_client_connection_pool_name=\"p\"",
            "9",
        ),
        ("streamgate_archive_oldest_age_seconds", "", "99999999"),
        ("agent_up", "component=\"serve\"", "0"),
        (
            "agent_last_success_timestamp_seconds",
            "signal=\"metrics\"",
            "-9999",
        ),
        ("agent_queue_bytes", "signal=\"spans\"", "99999999"),
        ("agent_signal_hijacked", "", "1"),
        ("agent_insecure", "", "1"),
        ("agent_target_threshold", "target=\"latency_p95\"", "9"),
        ("agent_target_threshold", "target=\"cache_hit\"", "9"),
        ("agent_target_threshold", "target=\"cache_hit_l1\"", "9"),
        ("agent_target_threshold", "target=\"cache_hit_l2\"", "9"),
        ("agent_target_threshold", "target=\"cache_hit_l3\"", "9"),
        ("agent_target_threshold", "target=\"error_ratio\"", "9"),
        ("agent_target_threshold", "target=\"throughput\"", "9"),
        ("agent_target_threshold", "target=\"cpu\"", "9"),
        ("agent_target_threshold", "target=\"memory\"", "9"),
        ("agent_target_threshold", "target=\"disk_busy\"", "9"),
    ];
    for (name, labels, value) in levels {
        world
            .series
            .push((named(name, labels), format!("{value}+0x200")));
    }
    let nothing = |at| {
        Check::Value(
            at,
            "{__name__=~\"[a-z_]+:.+\",job=\"billing\"}".to_owned(),
            vec![],
        )
    };
    scenario(
        "another job fails at everything: nothing fires, nothing is recorded",
        world,
        vec![
            nothing(30),
            nothing(200),
            Firing(30, ""),
            Firing(90, ""),
            Firing(200, ""),
        ],
    )
}
