//! The agent about itself: what it costs, what it lost.

use super::board::{Board, row};
use super::panel::{Kind, lines, panel};
use crate::alerts::TargetFile;

pub(super) fn board(file: &TargetFile) -> Board {
    let limit = |name: &str| file.limit[name].above.unwrap();
    let health = vec![
        lines("Parts that run", "short")
            .says(
                "1 for each part of the agent that works",
                "all 1",
                "see the log for why it ended",
            )
            .asks("min by (component) (agent_up{$S})", "{{component}}")
            .runbook("StreamGateAgentComponentDown")
            .wide(6),
        lines("Processor time of the agent", "percentunit")
            .says(
                "Cores that the agent keeps busy, by part",
                "under 2 % in all",
                "sample at a lower rate",
            )
            .asks(
                "sum by (component) (rate(agent_cpu_seconds_total{$S}[$W]))",
                "{{component}}",
            )
            .limit(limit("agent_cpu"))
            .runbook("StreamGateAgentCostHigh")
            .leads("runtime")
            .wide(6),
        lines("Memory of the agent", "bytes")
            .says(
                "Bytes that its parts hold",
                "level",
                "see the series and queues below",
            )
            .asks(
                "sum by (component) (agent_memory_bytes{$S})",
                "{{component}}",
            )
            .leads("runtime")
            .wide(6),
        panel(Kind::Stat, "Panics caught", "short")
            .says(
                "Panics inside the agent in the last hour; the service went on",
                "none",
                "report it with the log",
            )
            .asks(
                "sum by (job) (increase(agent_panics_total{$S}[1h]))",
                "panics",
            )
            .runbook("StreamGateAgentPanicked")
            .wide(6),
    ];
    let profiler = vec![
        lines("Samples lost", "percentunit")
            .says("Share of the profiler's samples that were lost, by kind", "none", "its reasons stand beside it")
            .asks("sum by (kind) (rate(agent_profile_samples_total{$S,result=\"lost\"}[$W])) / (sum by (kind) (rate(agent_profile_samples_total{$S}[$W])) > 0)", "{{kind}}")
            .limit(limit("samples_lost"))
            .runbook("StreamGateAgentSamplesLost")
            .leads("profiles"),
        lines("Coverage", "percentunit")
            .says("Processor time that the samples stand for, of what the process used", "0.97 and more", "threads that block the signal, or a stranger in the process")
            .asks("min by (instance) (agent_profile_coverage_ratio{$S})", "{{instance}}")
            .leads("profiles"),
        lines("Why samples were lost", "ops")
            .says("Lost samples by reason", "none", "open the profile: its comments say what is missing")
            .asks("sum by (kind, reason) (rate(agent_profile_lost_samples_total{$S}[$W]))", "{{kind}} {{reason}}")
            .runbook("StreamGateAgentSamplesLost")
            .leads("profiles"),
    ];
    let pages = vec![
        lines("Time of a scrape, P95", "s")
            .says(
                "Time to write the page, by format",
                "milliseconds",
                "see the number of series",
            )
            .quantiles("agent_scrape_duration_seconds", Some("format")),
        lines("Series by family", "short")
            .says(
                "The ten families with most series",
                "level",
                "a label with too many values",
            )
            .asks("topk(10, sum by (family) (agent_series{$S}))", "{{family}}")
            .runbook("StreamGateAgentSeriesOverflow"),
        lines("Refused requests", "reqps")
            .says(
                "Requests to the agent's own address that it refused, by reason",
                "none",
                "see who asks",
            )
            .asks(
                "sum by (reason) (rate(agent_http_denied_total{$S}[$W]))",
                "{{reason}}",
            )
            .runbook("StreamGateAgentRequestsDenied"),
    ];
    let pushes = vec![
        lines("Waiting to be pushed", "bytes")
            .says(
                "Bytes in the queue of each signal; no line without pushes",
                "near zero",
                "the collector is away or slow",
            )
            .asks(
                "sum by (instance, signal) (agent_queue_bytes{$S})",
                "{{instance}} {{signal}}",
            )
            .limit(limit("queue_bytes"))
            .runbook("StreamGateAgentQueueFull"),
        lines("Dropped", "ops")
            .says(
                "Items that were given up, by signal and reason",
                "none",
                "the queue was full or the collector refused",
            )
            .asks(
                "sum by (signal, reason) (rate(agent_dropped_total{$S}[$W]))",
                "{{signal}} {{reason}}",
            )
            .runbook("StreamGateAgentDataLost"),
        lines("Since the last successful push", "s")
            .says(
                "Age of the last push that the collector took",
                "under a minute",
                "see the log for its answer",
            )
            .asks(
                "time() - max by (instance, signal) (agent_last_success_timestamp_seconds{$S})",
                "{{instance}} {{signal}}",
            )
            .limit(limit("export_age"))
            .runbook("StreamGateAgentExportStalled"),
    ];
    let targets = vec![
        panel(Kind::Table, "Targets as the agent judges them", "short")
            .says(
                "Thresholds that the agent was started with",
                "those of the rules",
                "another targets.toml: alerts and page disagree",
            )
            .asks("max by (target) (agent_target_threshold{$S})", "{{target}}")
            .runbook("StreamGateTargetDrift")
            .wide(12),
        panel(Kind::Table, "Their values", "short")
            .says(
                "What the agent itself measures",
                "within the thresholds",
                "open the overview",
            )
            .asks(
                "max by (instance, target) (agent_target_value{$S})",
                "{{target}}",
            )
            .wide(12),
    ];
    Board {
        name: "agent",
        title: "Agent",
        about: "What the agent costs, what it lost, and whether its thresholds are those of the rules.",
        rows: vec![
            row("Health", health),
            row("Profiler", profiler),
            row("Pages", pages),
            row("Pushes", pushes),
            row("Targets", targets),
        ],
        profiles: false,
    }
}
