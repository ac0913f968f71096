//! The recorded series: what alerts and panels read, computed once.

use std::collections::BTreeSet;
use std::time::Duration;

use super::names::{DURATION, ERRORS, REQUESTS, SERVED, SHED, SLOW, Select};
use super::rule::{Group, Rule};
use super::target_file::{Span, TargetFile};

fn record(name: impl Into<String>, expr: impl Into<String>) -> Rule {
    let (name, expr) = (name.into(), expr.into());
    Rule::Record { name, expr }
}

/// The windows of all burn rates, shortest first.
fn windows(file: &TargetFile) -> BTreeSet<Span> {
    let rows = file.target.rows();
    let burns = rows.iter().flat_map(|(_, row)| &row.burn);
    burns.flat_map(|burn| [burn.short, burn.long]).collect()
}

pub(crate) fn groups(file: &TargetFile) -> Vec<Group> {
    let select = Select { file };
    let hour = Span(Duration::from_secs(3600));
    let (short, long): (Vec<Span>, Vec<Span>) = windows(file)
        .into_iter()
        .partition(|window| *window <= hour);
    let of = |windows: Vec<Span>| {
        windows
            .into_iter()
            .flat_map(|window| requests(select, window))
    };
    let mut short: Vec<Rule> = of(short).collect();
    short.extend(served(select));
    vec![
        group("streamgate.sli.short", "30s", short),
        group("streamgate.sli.long", "2m", of(long).collect()),
        group("streamgate.cache", "30s", caches(select)),
        group("streamgate.resources", "30s", resources(select)),
    ]
}

fn group(name: &'static str, interval: &'static str, rules: Vec<Rule>) -> Group {
    Group {
        name,
        interval,
        rules,
    }
}

/// Requests, failed and slow ones over one window. Without failures their rate is 0 and not absent;
/// without requests their share is absent and not NaN.
fn requests(select: Select<'_>, window: Span) -> Vec<Rule> {
    let window = window.to_string();
    let count = format!("{DURATION}_count");
    let rate = |matchers: &str| select.rate(&count, matchers, "job", &window);
    let all = format!("{REQUESTS}:rate{window}");
    let errors = format!("{ERRORS}:rate{window}");
    let fast = select.fast();
    vec![
        record(&all, rate("")),
        record(
            &errors,
            format!(
                "{}\nor {all} * 0",
                rate("http_response_status_code=~\"5..\"")
            ),
        ),
        record(
            format!("{ERRORS}:ratio_rate{window}"),
            format!("{errors} / ({all} > 0)"),
        ),
        record(
            format!("{SLOW}:ratio_rate{window}"),
            format!("1 - sum by (job) (rate({fast}[{window}])) / ({all} > 0)"),
        ),
    ]
}

/// What was done for clients, and how fast. Answers that turn clients away are in the histogram too,
/// and would hide that too little is served; a client's own rate limit is no lack of capacity.
fn served(select: Select<'_>) -> Vec<Rule> {
    let count = format!("{DURATION}_count");
    let answered = "http_response_status_code=~\"[1-4]..\",http_response_status_code!=\"429\"";
    let shed = select.rate(
        "http_server_requests_shed_total",
        "reason=~\"queue|pool\"",
        "job",
        "5m",
    );
    let mut rules = vec![
        record(SERVED, select.rate(&count, answered, "job", "5m")),
        record(SHED, shed),
    ];
    for (name, quantile) in [("p50", 0.5), ("p95", 0.95), ("p99", 0.99)] {
        let name = format!("job:{DURATION}:{name}_rate5m");
        rules.push(record(name, select.quantile(quantile, "job", DURATION)));
    }
    rules
}

/// A level's ratio counts classes that it is judged on: what a trusted cache in front fetches, and
/// what does not exist, are drawn and not judged.
fn caches(select: Select<'_>) -> Vec<Rule> {
    const CLASS: &str = "job_level_class";
    let by_class = "job, cache_level, cache_class";
    let rate = |matchers: &str| select.rate("cache_requests_total", matchers, by_class, "15m");
    let judged = "{cache_class!~\"fill|absent\"}";
    let loads = select.rate("cache_loads_total", "cache_class!=\"absent\"", "job", "15m");
    let summed = |series: &str| format!("sum by (job, cache_level) ({CLASS}:{series}{judged})");
    vec![
        record(
            format!("{CLASS}:cache_lookups:rate15m"),
            rate("cache_result!=\"bypass\""),
        ),
        record(
            format!("{CLASS}:cache_hits:rate15m"),
            format!(
                "{}\nor {CLASS}:cache_lookups:rate15m * 0",
                rate("cache_result=~\"hit|stale\"")
            ),
        ),
        record(
            format!("{CLASS}:cache_hits:ratio_rate15m"),
            format!("{CLASS}:cache_hits:rate15m / ({CLASS}:cache_lookups:rate15m > 0)"),
        ),
        record(
            "job_level:cache_lookups:rate15m",
            summed("cache_lookups:rate15m"),
        ),
        record(
            "job_level:cache_hits:ratio_rate15m",
            format!(
                "{} / (job_level:cache_lookups:rate15m > 0)",
                summed("cache_hits:rate15m")
            ),
        ),
        record(
            "job:cache_demands:rate15m",
            "sum by (job) (job_level:cache_lookups:rate15m{cache_level=~\"l1|l3\"})",
        ),
        record(
            "job:cache_hits:ratio_rate15m",
            format!("1 - {loads} / (job:cache_demands:rate15m > 0)"),
        ),
    ]
}

fn resources(select: Select<'_>) -> Vec<Rule> {
    let cpu = select.of("process_cpu_seconds_total", "");
    let memory = select.of("process_resident_memory_bytes", "");
    let disk = "system_disk_io_time_seconds_total";
    vec![
        record(
            "instance:process_cpu:ratio_rate5m",
            format!("rate({cpu}[5m]) / on (job, instance) process_cpu_limit_cores"),
        ),
        record(
            "instance:process_memory:ratio",
            format!("{memory} / on (job, instance) process_memory_limit_bytes"),
        ),
        record(
            "instance_device:system_disk_io:ratio_rate5m",
            select.rate(disk, "", "job, instance, system_device", "5m"),
        ),
    ]
}
