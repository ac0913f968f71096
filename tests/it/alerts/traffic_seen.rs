//! Scenarios of throughput: turned away, gone, drained, and merely little.

use super::scenario::{Firing, Scenario, scenario};
use super::target_file::TargetFile;
use super::world::{A, B, Mix, World};

fn shed(world: World, reason: &str, minutes: u32, per_second: f64) -> World {
    let labels = format!("{A},reason=\"{reason}\"");
    world.flow(
        "http_server_requests_shed_total",
        &labels,
        &[(minutes, per_second)],
    )
}

pub(crate) fn all(file: &TargetFile) -> Vec<Scenario> {
    let must = file.target.throughput.must;
    let served = |per_second: f64| World::one(30).requests(&[(30, Mix::fast(per_second))]);
    let mut all = vec![
        scenario(
            "700 served, 800 turned away by a full queue",
            shed(
                World::one(30).requests(&[(
                    30,
                    Mix {
                        refused: 800.0,
                        ..Mix::fast(700.0)
                    },
                )]),
                "queue",
                30,
                800.0,
            ),
            vec![
                Firing(5, "ErrorBudgetBurn/critical"),
                Firing(
                    30,
                    "ErrorBudgetBurn/critical x2 ErrorRateAboveTarget ThroughputShortfall",
                ),
            ],
        ),
        scenario(
            "950 served, a pool that is full, and clients over their own limit",
            shed(
                shed(
                    World::one(30).requests(&[(
                        30,
                        Mix {
                            limited: 800.0,
                            ..Mix::fast(must * 0.95)
                        },
                    )]),
                    "rate",
                    30,
                    800.0,
                ),
                "pool",
                30,
                2.0,
            ),
            vec![Firing(5, ""), Firing(8, "ThroughputShortfall")],
        ),
        scenario(
            "turning away 0.95 requests a second",
            shed(served(must * 0.5), "queue", 30, 0.95),
            vec![Firing(30, "")],
        ),
        scenario(
            "turning away 1.05 requests a second",
            shed(served(must * 0.5), "queue", 30, 1.05),
            vec![Firing(30, "ThroughputShortfall")],
        ),
        scenario(
            "1050 served, though some are turned away",
            shed(served(must * 1.05), "queue", 30, 5.0),
            vec![Firing(30, "")],
        ),
        scenario(
            "clients over their own limit, and a drain",
            shed(shed(served(100.0), "rate", 30, 800.0), "drain", 30, 800.0),
            vec![Firing(30, "")],
        ),
    ];
    all.extend(gone());
    all
}

fn gone() -> Vec<Scenario> {
    let none = Mix::default();
    let up = |phases: &[(u32, f64)]| {
        let minutes = phases.iter().map(|(minutes, _)| minutes).sum();
        World::default().level("up", A, phases).level(
            "process_start_time_seconds",
            A,
            &[(minutes, -86_400.0)],
        )
    };
    vec![
        scenario(
            "traffic of 5.25 requests a second stops at a service that is up",
            World::one(170).requests(&[(130, Mix::fast(5.25)), (40, none)]),
            vec![
                Firing(130, ""),
                Firing(143, ""),
                Firing(149, "NoTraffic"),
                Firing(170, "NoTraffic"),
            ],
        ),
        scenario(
            "traffic of 4.75 requests a second stops",
            World::one(200).requests(&[(130, Mix::fast(4.75)), (70, none)]),
            vec![Firing(149, ""), Firing(200, "")],
        ),
        scenario(
            "drained, then stopped: it is down, and not without traffic",
            up(&[(132, 1.0), (40, 0.0)]).requests(&[(130, Mix::fast(50.0)), (42, none)]),
            vec![
                Firing(133, ""),
                Firing(136, "InstanceDown Down"),
                Firing(170, "InstanceDown Down"),
            ],
        ),
        scenario(
            "one of two is down",
            up(&[(10, 1.0), (20, 0.0)])
                .instance(B, -1440, 30)
                .requests(&[(30, Mix::fast(50.0))])
                .requests_of("job=\"streamgate\"", B, &[(30, Mix::fast(50.0))]),
            vec![
                Firing(11, ""),
                Firing(13, "InstanceDown"),
                Firing(30, "InstanceDown"),
            ],
        ),
        scenario(
            "all gone, as if never configured",
            World::default(),
            vec![Firing(1, ""), Firing(2, "Down"), Firing(30, "Down")],
        ),
        scenario(
            "up without the series of requests",
            World::one(30),
            vec![Firing(9, ""), Firing(11, "SLIMissing")],
        ),
    ]
}
