//! Scenarios of caches: near the target of each level, cold, unasked, and classes that are not judged.

use super::scenario::{Check, Firing, Scenario, Value, scenario};
use super::target_file::TargetFile;
use super::world::{A, Mix, World};

const LOOKUPS: f64 = 10.0;

/// Lookups of one level, of which this share hits.
fn level(world: World, level: &str, minutes: u32, (lookups, hits): (f64, f64)) -> World {
    world
        .lookups(level, "public", "hit", &[(minutes, lookups * hits)])
        .lookups(
            level,
            "public",
            "miss",
            &[(minutes, lookups * (1.0 - hits))],
        )
}

/// A service that is asked and well.
fn asked() -> World {
    World::one(60).requests(&[(60, Mix::fast(10.0))])
}

/// Three levels: client, edge, process, shared cache; the shared one is asked for what misses before.
fn levels(minutes: u32, started: i32, hits: [f64; 3]) -> World {
    let names = ["l1", "l2", "l3"];
    let world = World::default()
        .instance(A, started, minutes)
        .requests(&[(minutes, Mix::fast(10.0))]);
    names
        .into_iter()
        .zip(hits)
        .fold(world, |world, (name, hits)| {
            level(world, name, minutes, (LOOKUPS, hits))
        })
}

pub(crate) fn all(file: &TargetFile) -> Vec<Scenario> {
    let targets = &file.target;
    let must = [
        targets.cache_hit_l1.must,
        targets.cache_hit_l2.must,
        targets.cache_hit_l3.must,
    ];
    let mut all = judged(targets.cache_hit.must, must);
    all.extend(not_judged());
    all
}

fn judged(overall: f64, must: [f64; 3]) -> Vec<Scenario> {
    // Misses just over what a level may miss, and just under.
    let missing = |times: f64| must.map(|must| 1.0 - (1.0 - must) * times);
    let demands = 2.0 * LOOKUPS;
    let loads = |share: f64| demands * (1.0 - overall) * share;
    vec![
        scenario(
            "every level just over its target, and all together",
            levels(60, -1440, missing(0.95)).loads("public", &[(60, loads(0.95))]),
            vec![Firing(20, ""), Firing(60, "")],
        ),
        scenario(
            "every level just under its target, and all together",
            levels(60, -1440, missing(1.05)).loads("public", &[(60, loads(1.05))]),
            vec![
                Firing(14, ""),
                Firing(
                    20,
                    "CacheHitRatioLow/warning x2 CacheHitRatioLow/info CacheHitRatioOverallLow",
                ),
            ],
        ),
        scenario(
            "L1 hits 85 %, the others do well",
            levels(40, -1440, [0.85, 0.95, 0.95]),
            vec![Firing(40, "CacheHitRatioLow/warning")],
        ),
        scenario(
            "a cold start: each level may fill first",
            levels(80, 0, [0.0, 0.0, 0.0]).loads("public", &[(80, demands)]),
            vec![
                Firing(29, ""),
                Firing(32, "CacheHitRatioLow/warning"),
                Firing(42, "CacheHitRatioLow/warning"),
                Firing(48, "CacheHitRatioLow/warning x2 CacheHitRatioOverallLow"),
                Firing(66, "CacheHitRatioLow/warning x2 CacheHitRatioOverallLow"),
                Firing(
                    78,
                    "CacheHitRatioLow/warning x2 CacheHitRatioLow/info CacheHitRatioOverallLow",
                ),
            ],
        ),
        scenario(
            "levels do well, and together they do not",
            levels(40, -1440, [0.95, 0.95, 0.95]).loads("public", &[(40, loads(2.0))]),
            vec![Firing(40, "CacheHitRatioOverallLow")],
        ),
        scenario(
            "900 lookups in a quarter of an hour are too few",
            level(asked(), "l1", 60, (1.0, 0.1)).loads("public", &[(60, 1.0)]),
            vec![Firing(60, "")],
        ),
        scenario(
            "900 lookups of each level are too few",
            ["l1", "l2", "l3"]
                .into_iter()
                .fold(asked(), |world, name| level(world, name, 60, (1.0, 0.1))),
            vec![Firing(60, "")],
        ),
        scenario(
            "1125 lookups of each level are enough",
            ["l1", "l2", "l3"]
                .into_iter()
                .fold(asked(), |world, name| level(world, name, 60, (1.25, 0.1))),
            vec![Firing(
                60,
                "CacheHitRatioLow/warning x2 CacheHitRatioLow/info",
            )],
        ),
        scenario(
            "1125 lookups in a quarter of an hour are enough",
            level(asked(), "l1", 60, (1.25, 0.1)).loads("public", &[(60, 1.0)]),
            vec![Firing(
                60,
                "CacheHitRatioLow/warning CacheHitRatioOverallLow",
            )],
        ),
        scenario(
            "an L1 that never hit has a ratio of 0",
            asked().lookups("l1", "public", "miss", &[(60, LOOKUPS)]),
            vec![
                ratio("l1", Some(0.0)),
                Check::Value(
                    30,
                    "job_level_class:cache_hits:ratio_rate15m".to_owned(),
                    vec![(
                        "job_level_class:cache_hits:ratio_rate15m{job=\"streamgate\",cache_level=\"l1\",cache_class=\"public\"}",
                        0.0,
                    )],
                ),
                Firing(60, "CacheHitRatioLow/warning"),
            ],
        ),
    ]
}

fn ratio(level: &str, expected: Option<f64>) -> Check {
    let series = format!("job_level:cache_hits:ratio_rate15m{{cache_level=\"{level}\"}} * 1");
    let labels = match level {
        "l1" => "{job=\"streamgate\",cache_level=\"l1\"}",
        _ => "{job=\"streamgate\",cache_level=\"l2\"}",
    };
    Value(
        30,
        series,
        expected.map(|ratio| (labels, ratio)).into_iter().collect(),
    )
}

fn not_judged() -> Vec<Scenario> {
    let only = |flow: f64| [(60, flow)];
    vec![
        scenario(
            "no L2: it has no ratio, and nothing fires",
            level(asked(), "l1", 60, (LOOKUPS, 0.95)),
            vec![ratio("l2", None), Firing(60, "")],
        ),
        scenario(
            "an edge takes all: L1 is asked by it alone, and never hits",
            level(asked(), "l3", 60, (LOOKUPS, 0.95))
                .lookups("l1", "fill", "miss", &only(LOOKUPS))
                .loads("fill", &only(0.5)),
            vec![ratio("l1", None), Firing(60, "")],
        ),
        scenario(
            "ids that do not exist lower nothing",
            level(asked(), "l1", 60, (LOOKUPS, 0.95))
                .lookups("l1", "absent", "miss", &only(5.0 * LOOKUPS))
                .loads("public", &only(0.5))
                .loads("absent", &only(5.0 * LOOKUPS)),
            vec![Firing(60, "")],
        ),
        scenario(
            "hits on what is absent or fetched by an edge lift nothing",
            level(asked(), "l1", 60, (LOOKUPS, 0.5))
                .lookups("l1", "absent", "hit", &only(9.0 * LOOKUPS))
                .lookups("l1", "fill", "hit", &only(9.0 * LOOKUPS))
                .loads("public", &only(0.5 * LOOKUPS)),
            vec![Firing(
                60,
                "CacheHitRatioLow/warning CacheHitRatioOverallLow",
            )],
        ),
        scenario(
            "stale is a hit, an error a miss, a bypass nothing",
            asked()
                .lookups("l1", "public", "stale", &only(0.93 * LOOKUPS))
                .lookups("l1", "public", "error", &only(0.07 * LOOKUPS))
                .lookups("l1", "public", "bypass", &only(LOOKUPS))
                .lookups("l2", "gated", "hit", &only(0.78 * LOOKUPS))
                .lookups("l2", "gated", "error", &only(0.22 * LOOKUPS)),
            vec![Firing(60, "CacheHitRatioLow/warning")],
        ),
        scenario(
            "L2 is no demand of its own",
            level(
                level(asked(), "l1", 60, (LOOKUPS, 0.95)),
                "l2",
                60,
                (9.0 * LOOKUPS, 0.95),
            )
            .loads("public", &only(0.3 * LOOKUPS)),
            vec![Firing(60, "CacheHitRatioOverallLow")],
        ),
    ]
}
