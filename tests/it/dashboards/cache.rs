//! The three cache levels.

use super::board::{Board, row};
use super::panel::{Panel, against, lines};
use crate::alerts::{TargetFile, Threshold};

fn ratio(level: &str, threshold: &Threshold) -> Panel {
    let title = format!(
        "{} hit ratio by class, {}",
        level.to_uppercase(),
        against(threshold)
    );
    lines(title, "percentunit")
        .says(
            "Lookups that the level answered, fresh or stale, of those that asked it; no line where there is no such level",
            "public and gated above the line once warm",
            "see what is evicted and invalidated",
        )
        .asks(
            &format!("job_level_class:cache_hits:ratio_rate15m{{$J,cache_level=\"{level}\"}}"),
            "{{cache_class}}",
        )
        .target(threshold)
        .runbook("StreamGateCacheHitRatioLow")
        .leads("database")
}

pub(super) fn board(file: &TargetFile) -> Board {
    let target = &file.target;
    let ratios = vec![
        ratio("l1", &target.cache_hit_l1),
        ratio("l2", &target.cache_hit_l2),
        ratio("l3", &target.cache_hit_l3),
    ];
    let lookups = vec![
        lines("Lookups by level and result", "ops")
            .says("Lookups a second", "mostly hits", "error: a level that cannot answer")
            .asks("sum by (cache_level, cache_result) (rate(cache_requests_total{$S}[$W]))", "{{cache_level}} {{cache_result}}")
            .wide(12),
        lines("Time of a lookup, P99 by level", "s")
            .says("Time of an operation on a level", "L1 under 1 ms, L2 under 10 ms", "see the processor of the level")
            .asks("histogram_quantile(0.99, sum by (cache_level, le) (rate(cache_operation_duration_seconds_bucket{$S}[$W])))", "{{cache_level}}")
            .leads("runtime")
            .wide(12),
    ];
    let loads = vec![
        lines("Loads behind all levels", "ops")
            .says(
                "Values fetched from the database, by class",
                "few beside the lookups",
                "see misses and invalidations",
            )
            .asks(
                "sum by (cache_name, cache_class) (rate(cache_loads_total{$S}[$W]))",
                "{{cache_name}} {{cache_class}}",
            )
            .leads("database"),
        lines("Waited for another's load", "ops")
            .says(
                "Lookups that shared a load, by outcome",
                "bursts on cold keys only",
                "errors: see the database",
            )
            .asks(
                "sum by (cache_name, outcome) (rate(cache_coalesced_requests_total{$S}[$W]))",
                "{{cache_name}} {{outcome}}",
            ),
        lines("Loads under way", "short")
            .says(
                "Loads at this moment",
                "near zero",
                "a slow database: see its waits",
            )
            .asks(
                "sum by (cache_name) (cache_load_inflight{$S})",
                "{{cache_name}}",
            )
            .leads("database"),
    ];
    let size = vec![
        lines("Filled", "percentunit")
            .says("Weighed bytes of the capacity", "level", "full with evictions by size: a larger cache would hit more")
            .asks("sum by (cache_name, cache_level) (cache_size_bytes{$S}) / (sum by (cache_name, cache_level) (cache_capacity_bytes{$S}) > 0)", "{{cache_name}} {{cache_level}}")
            .leads("runtime")
            .wide(12),
        lines("Evictions by cause", "ops")
            .says("Entries that left a level", "expired and explicit", "size or pressure: too small")
            .asks("sum by (cache_level, cause) (rate(cache_evictions_total{$S}[$W]))", "{{cache_level}} {{cause}}")
            .leads("runtime")
            .wide(12),
    ];
    let voided = vec![
        lines("Invalidations", "ops")
            .says("Values voided, by kind", "as many as writes explain", "see which route writes")
            .asks("sum by (cache_name, kind) (rate(cache_invalidations_total{$S}[$W]))", "{{cache_name}} {{kind}}")
            .leads("api"),
        lines("Lag of an invalidation, P99", "s")
            .says("Time from a write to the last instance that heard of it", "under 50 ms", "messages are lost or late: readers get old values")
            .asks("histogram_quantile(0.99, sum by (cache_name, le) (rate(cache_invalidation_lag_seconds_bucket{$S}[$W])))", "{{cache_name}}")
            .limit(file.limit["stale_reads"].above.unwrap())
            .runbook("StreamGateStaleReads"),
        lines("Flushes", "short")
            .says("Times a whole level was emptied, by reason", "none", "gap: messages were lost")
            .asks("sum by (cache_level, reason) (increase(cache_flushes_total{$S}[$W]))", "{{cache_level}} {{reason}}")
            .runbook("StreamGateStaleReads"),
    ];
    Board {
        name: "cache",
        title: "Cache",
        about: "Which level hits, what it costs, what voids it.",
        rows: vec![
            row("Hit ratio", ratios),
            row("Lookups", lookups),
            row("Loads", loads),
            row("Size", size),
            row("Invalidation", voided),
        ],
        profiles: false,
    }
}
