//! Alerts on the agent itself: what it lost, what it costs, what is wrong around it.

use super::names::Select;
use super::rule::{Alert, Evidence};
use super::target_file::TargetFile;

fn alert(
    name: &'static str,
    expr: String,
    hold: &str,
    severity: &'static str,
    summary: &str,
    description: &str,
) -> Alert {
    Alert {
        name,
        expr,
        hold: (!hold.is_empty()).then(|| hold.to_owned()),
        severity,
        slo: Some("agent"),
        labels: Vec::new(),
        summary: summary.to_owned(),
        description: format!("{{{{ $labels.instance }}}}: {description}"),
        evidence: Evidence::Cpu,
    }
}

pub(crate) fn alerts(file: &TargetFile) -> Vec<Alert> {
    let select = Select { file };
    let mut all = broken(select);
    all.extend(lost(select));
    all.extend(around(select));
    all
}

fn broken(select: Select<'_>) -> Vec<Alert> {
    let success = select.of("agent_last_success_timestamp_seconds", "");
    vec![
        alert(
            "AgentComponentDown",
            format!("{} == 0", select.of("agent_up", "")),
            "5m",
            "warning",
            "A part of the agent does not run.",
            "{{ $labels.component }} is being restarted and does not come back. Read the agent's log \
             lines; the host runs on without this part.",
        ),
        alert(
            "AgentPanicked",
            format!(
                "{} > 0",
                select.increase("agent_panics_total", "", "job, instance, component", "15m")
            ),
            "",
            "warning",
            "A panic was caught in the agent or in a callback given to it.",
            "{{ $labels.component }} panicked {{ $value | humanize }} times in 15 min. Read the log \
             line with the place of the panic and report it.",
        ),
        alert(
            "AgentExportStalled",
            format!("time() - {success} {}", select.limit("export_age")),
            "5m",
            "warning",
            "No collector has taken anything for minutes.",
            "the last push of {{ $labels.signal }} that a collector took was \
             {{ $value | humanizeDuration }} ago. See whether the collector is up and what it answers.",
        ),
    ]
}

fn lost(select: Select<'_>) -> Vec<Alert> {
    let samples = |matchers: &str| {
        select.rate(
            "agent_profile_samples_total",
            matchers,
            "job, instance, kind",
            "10m",
        )
    };
    vec![
        alert(
            "AgentDataLost",
            format!(
                "{} > 0",
                select.increase(
                    "agent_dropped_total",
                    "",
                    "job, instance, signal, reason",
                    "10m"
                )
            ),
            "10m",
            "info",
            "The agent could not keep what it was given.",
            "{{ $value | humanize }} items of {{ $labels.signal }} were dropped in 10 min: \
             {{ $labels.reason }}.",
        ),
        alert(
            "AgentSamplesLost",
            format!(
                "{}\n/ ({} > 0) {}",
                samples("result=\"lost\""),
                samples(""),
                select.limit("samples_lost")
            ),
            "15m",
            "info",
            "Profiles miss more samples than their readers should accept.",
            "{{ $value | humanizePercentage }} of {{ $labels.kind }} samples are lost. Its counter \
             by reason says why.",
        ),
        alert(
            "AgentQueueFull",
            format!(
                "sum by (job, instance, signal) ({}) {}",
                select.of("agent_queue_bytes", ""),
                select.limit("queue_bytes")
            ),
            "5m",
            "warning",
            "What waits for a collector is about to be dropped.",
            "{{ $value | humanize1024 }}B of {{ $labels.signal }} wait to be delivered, of 32 MiB. See \
             whether the collector is up.",
        ),
        alert(
            "AgentSeriesOverflow",
            format!(
                "{} > 0",
                select.increase(
                    "agent_series_overflow_total",
                    "",
                    "job, instance, family",
                    "15m"
                )
            ),
            "",
            "warning",
            "A family has more label sets than it may hold.",
            "events of {{ $labels.family }} go to its overflow series. Find the label that takes any \
             value, such as a raw path.",
        ),
    ]
}

fn around(select: Select<'_>) -> Vec<Alert> {
    let series = |name: &str| select.of(name, "");
    vec![
        alert(
            "AgentSignalHijacked",
            format!("{} > 0", series("agent_signal_hijacked")),
            "",
            "warning",
            "Another part of the program took the signal of the CPU samples.",
            "CPU profiles are empty since another profiler in this process uses the same signal. Leave \
             one of the two out.",
        ),
        alert(
            "AgentInsecure",
            format!("{} > 0", series("agent_insecure")),
            "5m",
            "warning",
            "The agent listens beyond loopback without protection.",
            "anyone who reaches the address can read profiles. Bind to loopback, or set a token.",
        ),
        alert(
            "AgentRequestsDenied",
            format!(
                "{} {}",
                select.rate("agent_http_denied_total", "", "job, instance, reason", "5m"),
                select.limit("requests_denied")
            ),
            "10m",
            "info",
            "The agent's endpoints refuse requests all the time.",
            "{{ $value | humanize }} requests/s are refused: {{ $labels.reason }}. See who asks.",
        ),
        alert(
            "AgentCostHigh",
            format!(
                "{} {}",
                select.rate("agent_cpu_seconds_total", "", "job, instance", "5m"),
                select.limit("agent_cpu")
            ),
            "15m",
            "info",
            "The agent takes more CPU than it promises.",
            "the agent's threads take {{ $value | humanizePercentage }} of a core. Lower the sampling \
             rate; see which component it is.",
        ),
    ]
}
