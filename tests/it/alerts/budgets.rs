//! Alerts on error budgets: two windows each, the long one to be sure, the short one to end in time.

use super::names::{ERRORS, REQUESTS, SLOW, Select};
use super::rule::{Alert, Evidence};
use super::target_file::{Burn, Severity, TargetFile, Threshold};

pub(crate) fn word(severity: Severity) -> &'static str {
    match severity {
        Severity::Critical => "critical",
        Severity::Warning => "warning",
        Severity::Info => "info",
    }
}

/// A share as people say it.
pub(crate) fn percent(share: f64) -> String {
    let tenths = (share * 1000.0).round() / 10.0;
    format!("{tenths}%")
}

pub(crate) fn alerts(file: &TargetFile) -> Vec<Alert> {
    let select = Select { file };
    let (errors, latency) = (&file.target.error_ratio, &file.target.latency_p95);
    let failed = errors.burn.iter().map(|burn| failed(select, errors, burn));
    let slow = latency.burn.iter().map(|burn| slow(select, latency, burn));
    failed.chain(slow).collect()
}

/// The guard counts bad requests, not traffic: one failure an hour never pages, a quiet service that
/// fails all it is asked still does.
fn failed(select: Select<'_>, row: &Threshold, burn: &Burn) -> Alert {
    let bad = format!("{ERRORS}:rate{} * {}", burn.long, burn.long.0.as_secs());
    let enough = select.limit("bad_events");
    alert(
        "ErrorBudgetBurn",
        "errors",
        row,
        burn,
        format!(
            "{}\nand on (job) {bad} {enough}",
            burning(ERRORS, row, burn)
        ),
        "requests fail",
        "Start with the panel of failures by route and status.",
    )
}

fn slow(select: Select<'_>, row: &Threshold, burn: &Burn) -> Alert {
    let Burn { long, .. } = burn;
    let bad = format!(
        "{SLOW}:ratio_rate{long} * {REQUESTS}:rate{long} * {}",
        long.0.as_secs()
    );
    let enough = select.limit("bad_events");
    let what = format!("requests take longer than {} ms", row.must * 1000.0);
    alert(
        "LatencyBudgetBurn",
        "latency",
        row,
        burn,
        format!("{}\nand on (job) {bad} {enough}", burning(SLOW, row, burn)),
        &what,
        "Start with the panel of latency by route and the flame graph of that time.",
    )
}

fn burning(series: &str, row: &Threshold, burn: &Burn) -> String {
    let least = format!("> {} * {}", burn.factor, row.budget.unwrap());
    format!(
        "{series}:ratio_rate{} {least}\nand on (job) {series}:ratio_rate{} {least}",
        burn.long, burn.short
    )
}

fn alert(
    name: &'static str,
    slo: &'static str,
    row: &Threshold,
    burn: &Burn,
    expr: String,
    what: &str,
    next: &str,
) -> Alert {
    let budget = percent(row.budget.unwrap());
    let days = (3000.0 / burn.factor).round() / 100.0;
    Alert {
        name,
        expr,
        hold: Some(burn.hold.to_string()),
        severity: word(burn.severity),
        slo: Some(slo),
        labels: vec![
            ("long", burn.long.to_string()),
            ("short", burn.short.to_string()),
        ],
        summary: format!("So many {what} that the budget of 30 days will not last."),
        description: format!(
            "{{{{ $labels.job }}}}: {{{{ $value | humanizePercentage }}}} of requests miss the \
             objective over {} (budget {budget}); at {} times the budget, which is the threshold, \
             30 days of it last {days} days. {next}",
            burn.long, burn.factor
        ),
        evidence: Evidence::None,
    }
}
