//! Alerts on parts of the service: database, runtime, caches, archive. Causes: none of them pages.

use super::names::{POOL, Select};
use super::rule::{Alert, Evidence};
use super::target_file::TargetFile;

pub(crate) fn alerts(file: &TargetFile) -> Vec<Alert> {
    let select = Select { file };
    vec![
        Alert {
            name: "SlowQueries",
            expr: format!(
                "{} {}",
                select.rate(
                    "db_client_slow_queries_total",
                    "",
                    "job, db_query_summary",
                    "5m"
                ),
                select.limit("slow_queries")
            ),
            hold: Some("10m".to_owned()),
            severity: "warning",
            slo: Some("database"),
            labels: Vec::new(),
            summary: "A statement is slow again and again.".to_owned(),
            description: "{{ $labels.job }}: {{ $labels.db_query_summary }} is slower than a second \
                          {{ $value | humanize }} times per second. See its plan in the database; \
                          an index may be missing, or a lock be held."
                .to_owned(),
            evidence: Evidence::None,
        },
        pool_wait(select),
        Alert {
            name: "RuntimeStall",
            expr: format!(
                "{} {}",
                select.quantile(
                    0.99,
                    "job, instance, runtime",
                    "tokio_schedule_delay_seconds"
                ),
                select.limit("runtime_stall")
            ),
            hold: Some("5m".to_owned()),
            severity: "warning",
            slo: Some("runtime"),
            labels: Vec::new(),
            summary: "Tasks wait for a worker of the async runtime.".to_owned(),
            description: "{{ $labels.instance }}: one task in a hundred of runtime \
                          {{ $labels.runtime }} waits {{ $value | humanizeDuration }} from its wake-up \
                          to its poll. Look in the flame graph for what blocks below a poll."
                .to_owned(),
            evidence: Evidence::Cpu,
        },
        Alert {
            name: "StaleReads",
            expr: format!(
                "{} {}\nor {} {}",
                select.quantile(0.99, "job, cache_name", "cache_invalidation_lag_seconds"),
                select.limit("stale_reads"),
                select.increase(
                    "cache_flushes_total",
                    "reason=\"gap\"",
                    "job, cache_name",
                    "15m"
                ),
                select.limit("gap_flushes")
            ),
            hold: Some("5m".to_owned()),
            severity: "warning",
            slo: Some("cache"),
            labels: Vec::new(),
            summary: "Readers get what was changed a while ago.".to_owned(),
            description: "{{ $labels.job }}: changes reach cache {{ $labels.cache_name }} late, or it \
                          was flushed because changes were missed ({{ $value | humanize }}). Look at \
                          the bus that carries invalidations, and at the outbox behind it."
                .to_owned(),
            evidence: Evidence::None,
        },
        Alert {
            name: "ArchiveOverdue",
            expr: format!(
                "{} {}",
                select.of("streamgate_archive_oldest_age_seconds", ""),
                select.limit("archive_age")
            ),
            hold: Some("1h".to_owned()),
            severity: "warning",
            slo: Some("storage"),
            labels: Vec::new(),
            summary: "Contents that should be in cold storage are still in the database.".to_owned(),
            description: "{{ $labels.instance }}: the oldest content that is not archived is \
                          {{ $value | humanizeDuration }} old. Look at the archiver's last run and at \
                          the rows it skipped."
                .to_owned(),
            evidence: Evidence::Cpu,
        },
    ]
}

/// Waits alone may be a burst, a full pool alone may be enough: both together are too few connections,
/// or ones that are held too long.
fn pool_wait(select: Select<'_>) -> Alert {
    let by = format!("job, instance, {POOL}");
    let used = select.of(
        "db_client_connections",
        "db_client_connection_state=\"used\"",
    );
    Alert {
        name: "PoolWait",
        expr: format!(
            "{} {}\nand on ({by})\n  avg_over_time({used}[5m])\n  / on ({by}) db_client_connection_max {}",
            select.quantile(0.95, &by, "db_client_connection_wait_time_seconds"),
            select.limit("pool_wait"),
            select.limit("pool_used")
        ),
        hold: Some("5m".to_owned()),
        severity: "warning",
        slo: Some("database"),
        labels: Vec::new(),
        summary: "Callers wait for a connection of a pool that is nearly all in use.".to_owned(),
        description: format!(
            "{{{{ $labels.instance }}}}: one caller in twenty waits {{{{ $value | humanizeDuration }}}} \
             for pool {{{{ $labels.{POOL} }}}}. Look at how long connections are held before making \
             the pool larger."
        ),
        evidence: Evidence::Cpu,
    }
}
