//! Scenarios of days: traffic beside that of a week ago, and budgets that burn slowly.

use super::scenario::{Firing, Scenario, scenario};
use super::world::{Mix, World};

const HOUR: u32 = 60;
const DAY: u32 = 24 * HOUR;
const WEEK: u32 = 7 * DAY;

/// A steady week and two hours, then two hours of this share of its traffic.
fn beside_last_week(per_second: f64, share: f64) -> World {
    let before = WEEK + 2 * HOUR;
    World::one(before + 2 * HOUR).requests(&[
        (before, Mix::fast(per_second)),
        (2 * HOUR, Mix::fast(per_second * share)),
    ])
}

/// A hundred requests a second: healthy first, then like this.
fn turned(healthy: u32, minutes: u32, failed: f64, slow: f64) -> World {
    World::one(healthy + minutes).requests(&[
        (healthy, Mix::fast(100.0)),
        (minutes, Mix::bad(100.0, failed, slow)),
    ])
}

pub(crate) fn all() -> Vec<Scenario> {
    let last = WEEK + 4 * HOUR;
    let day_and_night = [(DAY / 2, Mix::fast(100.0)), (DAY / 2, Mix::fast(2.0))];
    vec![
        scenario(
            "27 % of last week's traffic",
            beside_last_week(100.0, 0.27),
            vec![
                Firing(WEEK + 2 * HOUR, ""),
                Firing(WEEK + 3 * HOUR, "TrafficDrop"),
                Firing(last, "TrafficDrop"),
            ],
        ),
        scenario(
            "33 % of last week's traffic",
            beside_last_week(100.0, 0.33),
            vec![Firing(WEEK + 3 * HOUR, ""), Firing(last, "")],
        ),
        scenario(
            "a fifth of an hour that was quiet last week too",
            beside_last_week(47.0, 0.2),
            vec![Firing(last, "")],
        ),
        scenario(
            "a fifth of an hour that was just not quiet last week",
            beside_last_week(53.0, 0.2),
            vec![Firing(last, "TrafficDrop")],
        ),
        scenario(
            "nights as quiet as they always are",
            World::one(8 * DAY).requests(&day_and_night.repeat(8)),
            vec![
                Firing(WEEK + DAY / 2, ""),
                Firing(WEEK + DAY / 2 + HOUR, ""),
                Firing(8 * DAY, ""),
            ],
        ),
        scenario(
            "7 % fail for eight hours",
            turned(4 * DAY, 8 * HOUR, 0.07, 0.0),
            vec![
                Firing(4 * DAY + 5 * HOUR, "ErrorRateAboveTarget"),
                Firing(
                    4 * DAY + 8 * HOUR,
                    "ErrorBudgetBurn/critical ErrorRateAboveTarget",
                ),
            ],
        ),
        scenario(
            "4 % fail for a day",
            turned(4 * DAY, DAY, 0.04, 0.0),
            vec![
                Firing(4 * DAY + 17 * HOUR, "ErrorRateAboveTarget"),
                Firing(
                    4 * DAY + 20 * HOUR,
                    "ErrorBudgetBurn/warning ErrorRateAboveTarget",
                ),
                Firing(5 * DAY, "ErrorBudgetBurn/warning x2 ErrorRateAboveTarget"),
            ],
        ),
        scenario(
            "1.5 % fail for three days",
            turned(DAY, 3 * DAY, 0.015, 0.0),
            vec![
                Firing(2 * DAY + 20 * HOUR, "ErrorRateAboveTarget"),
                Firing(4 * DAY, "ErrorBudgetBurn/warning ErrorRateAboveTarget"),
            ],
        ),
        scenario(
            "30 % are slow for a day",
            turned(4 * DAY, DAY, 0.0, 0.3),
            vec![
                Firing(4 * DAY + 4 * HOUR, "LatencyP95AboveTarget"),
                Firing(
                    4 * DAY + 7 * HOUR,
                    "LatencyBudgetBurn/critical LatencyP95AboveTarget",
                ),
                Firing(
                    5 * DAY,
                    "LatencyBudgetBurn/critical LatencyBudgetBurn/warning x2 LatencyP95AboveTarget",
                ),
            ],
        ),
    ]
}
