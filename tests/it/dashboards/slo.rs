//! What is left of the objectives' budgets, and how fast it goes.

use super::board::{Board, row};
use super::panel::{Kind, Panel, against, lines, panel};
use crate::alerts::{TargetFile, Threshold};

/// Weighted by traffic: an average of ratios would count a quiet night like a busy day. `bad` and `all` are
/// ranges of 30 days.
fn budget_left(name: &str, threshold: &Threshold, bad: &str, all: &str) -> Panel {
    let budget = threshold.budget.unwrap();
    let spent = format!("avg_over_time({bad}) / (avg_over_time({all}) > 0)");
    panel(
        Kind::Stat,
        format!("{name}: budget left over 30 days"),
        "percentunit",
    )
    .says(
        "Share of the bad requests allowed in 30 days that were not used",
        "above zero",
        "slow down with changes until it has grown again",
    )
    .asks(&format!("1 - ({spent}) / {budget}"), "{{job}}")
    .wide(12)
}

fn burn(name: &str, threshold: &Threshold, series: &str, alert: &'static str) -> Panel {
    let budget = threshold.budget.unwrap();
    let fastest = threshold
        .burn
        .iter()
        .map(|row| row.factor)
        .fold(0.0, f64::max);
    let mut burns = lines(
        format!("{name}: burn, a page above {fastest} over 1h"),
        "short",
    )
    .says(
        "How many times faster than allowed the budget is used, by window",
        "under 1",
        "open the runbook: which window says how urgent it is",
    )
    .limit(fastest)
    .runbook(alert)
    .leads("api")
    .wide(12);
    for window in ["5m", "1h", "6h", "1d", "3d"] {
        burns = burns.asks(
            &format!("{series}:ratio_rate{window}{{$J}} / {budget}"),
            window,
        );
    }
    burns
}

pub(super) fn board(file: &TargetFile) -> Board {
    let (errors, slow) = (&file.target.error_ratio, &file.target.latency_p95);
    let failed = "job:http_server_requests_errors:rate5m{$J}";
    let late =
        "job:http_server_requests_slow:ratio_rate5m{$J} * job:http_server_requests:rate5m{$J}";
    let all = "job:http_server_requests:rate5m{$J}";
    let left = vec![
        budget_left(
            "Errors",
            errors,
            &format!("{failed}[30d]"),
            &format!("{all}[30d]"),
        ),
        budget_left(
            "Latency",
            slow,
            &format!("({late})[30d:1m]"),
            &format!("{all}[30d:1m]"),
        ),
    ];
    let burns = vec![
        burn(
            "Errors",
            errors,
            "job:http_server_requests_errors",
            "StreamGateErrorBudgetBurn",
        ),
        burn(
            "Latency",
            slow,
            "job:http_server_requests_slow",
            "StreamGateLatencyBudgetBurn",
        ),
    ];
    let shares = vec![
        lines(format!("Failed share, {}", against(errors)), "percentunit")
            .says(
                "Share of requests answered 5xx",
                "under the line",
                "see the routes that fail",
            )
            .asks("job:http_server_requests_errors:ratio_rate5m{$J}", "5m")
            .target(errors)
            .runbook("StreamGateErrorRateAboveTarget")
            .leads("api"),
        lines("Slow share", "percentunit")
            .says(
                "Share of requests that took longer than the target of P95",
                "under 5 %",
                "see the routes that are slow",
            )
            .asks("job:http_server_requests_slow:ratio_rate5m{$J}", "5m")
            .limit(slow.budget.unwrap())
            .runbook("StreamGateLatencyP95AboveTarget")
            .leads("api"),
        lines("Bad requests", "reqps")
            .says(
                "Failed and slow requests a second",
                "few",
                "a few bad ones of little traffic fire nothing, by design",
            )
            .asks(failed, "failed")
            .asks(late, "slow")
            .leads("api"),
    ];
    let firing = vec![
        panel(Kind::Table, "Firing alerts", "short")
            .says("What fires now", "nothing but the watchdog", "open the runbook of its name")
            .asks("sum by (alertname, severity, slo, long) (ALERTS{alertstate=\"firing\",job=~\"$job\"})", "{{alertname}}")
            .wide(24),
    ];
    Board {
        name: "slo",
        title: "Objectives",
        about: "What is left of the error and latency budgets, and how fast it goes.",
        rows: vec![
            row("Left", left),
            row("Burn", burns),
            row("Shares", shares),
            row("Alerts", firing),
        ],
        profiles: false,
    }
}
