//! Alerts on the targets themselves: requests, caches, throughput, resources.

use super::budgets::{percent, word};
use super::names::{ERRORS, REQUESTS, Select};
use super::rule::{Alert, Evidence};
use super::target_file::{Counted, Guard, TargetFile, Threshold};

/// The alert that a row of `targets.toml` describes; what it adds to the row stands in `with`.
fn of_row(name: &'static str, slo: &'static str, row: &Threshold, with: With) -> Alert {
    let missed = match row.op.sign() {
        "<" => ">",
        _ => "<",
    };
    let mut expr = format!("{}{} {missed} {}", row.value, with.matchers, row.must);
    if let Some(guard) = row.guard {
        expr.push_str(&format!("\nand on (job) {}", seen(guard)));
    }
    expr.push_str(&with.also);
    Alert {
        name,
        expr,
        hold: Some(row.hold.to_string()),
        severity: word(row.severity),
        slo: Some(slo),
        labels: with.labels,
        summary: with.summary.to_owned(),
        description: with.description,
        evidence: with.evidence,
    }
}

#[derive(Debug)]
struct With {
    matchers: String,
    also: String,
    labels: Vec<(&'static str, String)>,
    summary: &'static str,
    description: String,
    evidence: Evidence,
}

impl With {
    fn text(summary: &'static str, description: String) -> Self {
        Self {
            matchers: String::new(),
            also: String::new(),
            labels: Vec::new(),
            summary,
            description,
            evidence: Evidence::None,
        }
    }
}

fn seen(guard: Guard) -> String {
    let above = guard.above;
    match guard.counted {
        Counted::Requests => format!("{REQUESTS}:rate5m > {above}"),
        Counted::Errors => format!("{ERRORS}:rate5m * 300 > {above}"),
        Counted::Shed => format!("{} > {above}", super::names::SHED),
    }
}

pub(crate) fn alerts(file: &TargetFile) -> Vec<Alert> {
    let mut all = requests(file);
    all.extend(caches(file));
    all.extend(throughput(file));
    all.extend(resources(file));
    all
}

fn requests(file: &TargetFile) -> Vec<Alert> {
    let (latency, errors) = (&file.target.latency_p95, &file.target.error_ratio);
    vec![
        of_row(
            "LatencyP95AboveTarget",
            "latency",
            latency,
            With::text(
                "One request in twenty takes longer than the target allows.",
                format!(
                    "{{{{ $labels.job }}}}: the P95 is {{{{ $value | humanizeDuration }}}}, the \
                     target {} ms. Look at latency by route, then at the flame graph of that time.",
                    latency.must * 1000.0
                ),
            ),
        ),
        of_row(
            "ErrorRateAboveTarget",
            "errors",
            errors,
            With::text(
                "More requests fail than the target allows.",
                format!(
                    "{{{{ $labels.job }}}}: {{{{ $value | humanizePercentage }}}} of requests fail, \
                     the target is {}. Look at failures by route and status.",
                    percent(errors.must)
                ),
            ),
        ),
    ]
}

/// Not before the window holds warm lookups only, and not while there are too few to tell.
fn warm(row: &Threshold, on: &str, lookups: &str) -> String {
    let enough = row.min_lookups.unwrap();
    let uptime = row.alert_after.unwrap().0.as_secs();
    format!(
        "\nand on ({on}) {lookups} * 900 > {enough}\
         \nand on (job) time() - max by (job) (process_start_time_seconds) > {uptime}"
    )
}

fn caches(file: &TargetFile) -> Vec<Alert> {
    let targets = &file.target;
    let levels = [
        ("l1", &targets.cache_hit_l1),
        ("l2", &targets.cache_hit_l2),
        ("l3", &targets.cache_hit_l3),
    ];
    let level = |(level, row): (&'static str, &Threshold)| {
        let mut with = With::text(
            "A cache level answers fewer lookups than its target.",
            format!(
                "{{{{ $labels.job }}}}: level {level} answers {{{{ $value | humanizePercentage }}}} \
                 of lookups, the target is {}. Look at results by class: misses, errors of the \
                 level, or a change of what is asked for.",
                percent(row.must)
            ),
        );
        with.matchers = format!("{{cache_level=\"{level}\"}}");
        with.also = warm(row, "job, cache_level", "job_level:cache_lookups:rate15m");
        with.labels = vec![("cache_level", level.to_owned())];
        of_row("CacheHitRatioLow", "cache", row, with)
    };
    let mut all: Vec<Alert> = levels.into_iter().map(level).collect();
    let row = &targets.cache_hit;
    let mut with = With::text(
        "The caches together answer fewer demands than the target.",
        format!(
            "{{{{ $labels.job }}}}: {{{{ $value | humanizePercentage }}}} of demands cost no load, \
             the target is {}. Look at loads per key and at the ratio of each level.",
            percent(row.must)
        ),
    );
    with.also = warm(row, "job", "job:cache_demands:rate15m");
    all.push(of_row("CacheHitRatioOverallLow", "cache", row, with));
    all
}

/// Throughput is demand: only with requests turned away, or with traffic that should be there, is it
/// an alert.
fn throughput(file: &TargetFile) -> Vec<Alert> {
    let select = Select { file };
    let row = &file.target.throughput;
    let drop = &file.limit["traffic_drop"].below.unwrap();
    let alert =
        |name, expr: String, hold: &str, severity, summary: &str, description: &str| Alert {
            name,
            expr,
            hold: Some(hold.to_owned()),
            severity,
            slo: Some("throughput"),
            labels: Vec::new(),
            summary: summary.to_owned(),
            description: description.to_owned(),
            evidence: Evidence::None,
        };
    vec![
        of_row(
            "ThroughputShortfall",
            "throughput",
            row,
            With::text(
                "Requests are turned away while fewer are served than the target.",
                format!(
                    "{{{{ $labels.job }}}}: {{{{ $value | humanize }}}} requests/s are served, the \
                     target is {}, and more are turned away by a full queue or pool. Look at what is \
                     full: requests shed by reason, pool wait, CPU of its limit.",
                    row.must
                ),
            ),
        ),
        alert(
            "TrafficDrop",
            format!(
                "{REQUESTS}:rate30m\n< {drop} * ({REQUESTS}:rate30m offset 1w {})",
                select.limit("traffic_known")
            ),
            "15m",
            "warning",
            "Far fewer requests arrive than at this time last week.",
            &format!(
                "{{{{ $labels.job }}}}: {{{{ $value | humanize }}}} requests/s arrive, less than {} \
                 of those a week ago. Look at what stands in front: clients, names, balancers, edge.",
                percent(*drop)
            ),
        ),
        alert(
            "NoTraffic",
            format!(
                "{REQUESTS}:rate5m == 0\nand on (job) {REQUESTS}:rate1h offset 1h {}\
                 \nand on (job) sum by (job) (up) > 0",
                select.limit("traffic_before")
            ),
            "10m",
            "critical",
            "No request arrives at a service that is up and had traffic.",
            "{{ $labels.job }}: no request for ten minutes, where an hour ago there were some. The \
             service answers Prometheus: look at what stands in front of it.",
        ),
    ]
}

fn resources(file: &TargetFile) -> Vec<Alert> {
    let select = Select { file };
    let targets = &file.target;
    let share = |of: &str, row: &Threshold, next: &str| {
        format!(
            "{{{{ $labels.instance }}}}: {of} at {{{{ $value | humanizePercentage }}}} of its limit, \
             the target is {}. {next}",
            percent(row.must)
        )
    };
    let with = |summary, description, evidence| With {
        evidence,
        ..With::text(summary, description)
    };
    let memory = "instance:process_memory:ratio";
    vec![
        of_row(
            "CPUHigh",
            "cpu",
            &targets.cpu,
            with(
                "An instance uses more of its CPU limit than the target.",
                share("CPU", &targets.cpu, "Open the flame graph."),
                Evidence::Cpu,
            ),
        ),
        of_row(
            "MemoryHigh",
            "memory",
            &targets.memory,
            with(
                "An instance holds more of its memory limit than the target.",
                share("memory", &targets.memory, "Open the heap profile."),
                Evidence::Heap,
            ),
        ),
        Alert {
            name: "MemoryExhaustionPredicted",
            expr: format!(
                "predict_linear({memory}[1h], 4 * 3600) {}\nand {memory} {}",
                select.limit("memory_predicted"),
                select.limit("memory_grown")
            ),
            hold: Some("30m".to_owned()),
            severity: "warning",
            slo: Some("memory"),
            labels: Vec::new(),
            summary: "The memory of an instance will reach its limit within four hours.".to_owned(),
            description: "{{ $labels.instance }}: growing as in the last hour, memory is at \
                          {{ $value | humanizePercentage }} of its limit in four hours. Compare two \
                          heap profiles and look at the sites that only grow."
                .to_owned(),
            evidence: Evidence::Heap,
        },
        of_row(
            "DiskIOHigh",
            "disk",
            &targets.disk_busy,
            With {
                evidence: Evidence::Cpu,
                ..With::text(
                    "A disk is busy for a larger share of the time than the target.",
                    format!(
                        "{{{{ $labels.instance }}}}: {{{{ $labels.system_device }}}} is busy \
                         {{{{ $value | humanizePercentage }}}} of the time, the target is {}. Look at \
                         the IO pressure beside it: a busy NVMe disk need not hold anything up.",
                        percent(targets.disk_busy.must)
                    ),
                )
            },
        ),
    ]
}
