//! Alerts on what can be seen at all: instances, the series that other alerts read, the way to a pager.

use super::names::{DURATION, Select};
use super::rule::{Alert, Evidence};
use super::target_file::TargetFile;

fn alert(
    name: &'static str,
    expr: String,
    hold: &str,
    severity: &'static str,
    summary: &str,
    description: String,
) -> Alert {
    Alert {
        name,
        expr,
        hold: Some(hold.to_owned()),
        severity,
        slo: None,
        labels: Vec::new(),
        summary: summary.to_owned(),
        description,
        evidence: Evidence::None,
    }
}

pub(crate) fn alerts(file: &TargetFile) -> Vec<Alert> {
    let select = Select { file };
    let up = select.of("up", "");
    let count = select.of(&format!("{DURATION}_count"), "");
    vec![
        alert(
            "InstanceDown",
            format!("{up} == 0"),
            "2m",
            "warning",
            "Prometheus cannot ask an instance.",
            "{{ $labels.instance }} of {{ $labels.job }} does not answer its scrape. See whether the \
             process runs and its agent listens where Prometheus asks."
                .to_owned(),
        ),
        Alert {
            // absent() takes labels from a bare selector alone, and here it has none.
            labels: vec![("job", file.job.clone())],
            ..alert(
                "Down",
                format!("absent({up} == 1)"),
                "2m",
                "critical",
                "No instance of the service can be seen.",
                format!(
                    "No instance of {} answers its scrape, or none is configured. See whether the \
                     service runs; if it does, see what Prometheus lists as its targets.",
                    file.job
                ),
            )
        },
        alert(
            "SLIMissing",
            format!("{up} == 1\nunless on (job, instance) {count}"),
            "10m",
            "warning",
            "An instance shows no requests at all, so nothing can be judged.",
            "{{ $labels.instance }} is up and has no series of requests. See whether the request layer \
             is installed, and whether anything was ever asked."
                .to_owned(),
        ),
        alert(
            "SLOBucketMissing",
            format!(
                "count by (job) ({count})\nunless on (job) count by (job) ({})",
                select.fast()
            ),
            "10m",
            "warning",
            "The histogram of requests has no bucket at the latency target.",
            format!(
                "{{{{ $labels.job }}}} has requests and no bucket at {} s, so no latency alert can \
                 fire. See whether its version knows the target, or a relabelling drops the bucket.",
                file.target.latency_p95.must
            ),
        ),
        drift(select),
        Alert {
            hold: None,
            ..alert(
                "Watchdog",
                "vector(1)".to_owned(),
                "",
                "none",
                "Always fires, so that its absence tells that no alert can arrive.",
                "Nothing is wrong: this one keeps the dead man's switch open.".to_owned(),
            )
        },
    ]
}

/// The service was built with other targets than these rules were.
fn drift(select: Select<'_>) -> Alert {
    let terms = select.file.target.rows().map(|(id, row)| {
        let selected = select.of("agent_target_threshold", &format!("target=\"{id}\""));
        format!("{selected} != {}", row.must)
    });
    Alert {
        slo: Some("agent"),
        ..alert(
            "TargetDrift",
            terms.join("\nor "),
            "15m",
            "info",
            "An instance judges by another target than these rules.",
            "{{ $labels.instance }} has {{ $value }} for {{ $labels.target }}. Generate the rules from \
             the targets.toml of the version that runs."
                .to_owned(),
        )
    }
}
