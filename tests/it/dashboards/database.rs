//! Statements, pools, indexes, cold storage.

use super::board::{Board, row};
use super::panel::{Kind, lines, panel};
use crate::alerts::TargetFile;

pub(super) fn board(file: &TargetFile) -> Board {
    let limit = |name: &str| file.limit[name].above.unwrap();
    let statements = vec![
        lines("Time by statement", "short")
            .says("Seconds a second that a statement runs", "spread over many", "one statement on top: look at its plan")
            .asks("topk(10, sum by (db_query_summary) (rate(db_client_operation_duration_seconds_sum{$S}[$W])))", "{{db_query_summary}}")
            .runbook("StreamGateSlowQueries")
            .leads("profiles"),
        lines("P95 by statement", "s")
            .says("Time below which 95 % of its runs end", "milliseconds", "look at its plan in the slow log")
            .quantiles("db_client_operation_duration_seconds", Some("db_query_summary"))
            .leads("profiles"),
        lines("Slow runs", "ops")
            .says("Runs over a second", "none", "see the plan in the slow log")
            .asks("topk(10, sum by (db_query_summary) (rate(db_client_slow_queries_total{$S}[$W])))", "{{db_query_summary}}")
            .limit(limit("slow_queries"))
            .runbook("StreamGateSlowQueries"),
    ];
    let requests = vec![
        lines("Statements per request, by route", "short")
            .says("Mean number of statements that a request ran", "a handful, level", "grows with the rows: one statement per row")
            .asks("sum by (http_route) (rate(db_queries_per_request_sum{$S}[$W])) / (sum by (http_route) (rate(db_queries_per_request_count{$S}[$W])) > 0)", "{{http_route}}")
            .leads("api")
            .wide(12),
        lines("Rows per statement, P95", "short")
            .says("Rows that a statement gave", "a page", "many: a list without a limit; one, often: a loop")
            .quantiles("db_client_response_returned_rows", Some("db_query_summary"))
            .wide(12),
    ];
    let pool = vec![
        lines("Connections in use of those there may be", "percentunit")
            .says("Used connections of the most", "under 90 %", "see how long they are held")
            .asks("sum by (db_client_connection_pool_name) (db_client_connections{$S,db_client_connection_state=\"used\"}) / (sum by (db_client_connection_pool_name) (db_client_connection_max{$S}) > 0)", "{{db_client_connection_pool_name}}")
            .limit(limit("pool_used"))
            .runbook("StreamGatePoolWait"),
        lines("Wait for a connection, P95", "s")
            .says("Time until a connection was free", "under 10 ms", "too few connections, or held too long")
            .quantiles("db_client_connection_wait_time_seconds", Some("db_client_connection_pool_name"))
            .limit(limit("pool_wait"))
            .runbook("StreamGatePoolWait"),
        lines("Time a connection is held, P95", "s")
            .says("Time from getting a connection to giving it back", "about a statement's", "work between statements: move it out")
            .quantiles("db_client_connection_use_time_seconds", Some("db_client_connection_pool_name")),
        lines("Nobody got a connection", "ops")
            .says("Waits that ended without one", "none", "these requests were answered 503")
            .asks("sum by (db_client_connection_pool_name) (rate(db_client_connection_timeouts_total{$S}[$W]))", "{{db_client_connection_pool_name}}")
            .runbook("StreamGatePoolWait")
            .leads("api")
            .wide(12),
        lines("Waiting now", "short")
            .says("Requests that wait for a connection", "none", "see how many are in use")
            .asks("sum by (db_client_connection_pool_name) (db_client_connection_pending_requests{$S})", "{{db_client_connection_pool_name}}")
            .leads("api")
            .wide(12),
    ];
    let storage = vec![
        lines("Scans by index", "ops")
            .says(
                "Index scans a second; PostgreSQL only",
                "each index is used",
                "an index that nothing scans costs every write",
            )
            .asks(
                "sum by (index) (rate(streamgate_index_scans_total{$S}[$W]))",
                "{{index}}",
            ),
        lines("Rows on the way to cold storage", "ops")
            .says(
                "Contents by step",
                "archived keeps up with leased",
                "skipped: they changed meanwhile",
            )
            .asks(
                "sum by (step) (rate(streamgate_archive_rows_total{$S}[$W]))",
                "{{step}}",
            )
            .runbook("StreamGateArchiveOverdue"),
        panel(Kind::Stat, "Oldest content that is not archived", "s")
            .says(
                "Its age",
                "under a year and a week",
                "see the archiver's log",
            )
            .asks(
                "max by (job) (streamgate_archive_oldest_age_seconds{$S})",
                "age",
            )
            .limit(limit("archive_age"))
            .runbook("StreamGateArchiveOverdue"),
    ];
    Board {
        name: "database",
        title: "Database",
        about: "Which statement costs, whether connections are short, what is archived.",
        rows: vec![
            row("Statements", statements),
            row("Per request", requests),
            row("Connections", pool),
            row("Indexes and cold storage", storage),
        ],
        profiles: false,
    }
}
