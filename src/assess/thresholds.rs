//! What the targets ask for, read from `targets.toml` and checked.
//!
//! The file is part of the program, so that rules, panels and verdicts can be generated from the
//! same numbers. It is checked all the same: a threshold between two histogram bounds, a stretch that
//! is easier than its target, or an alert that no share of failures could fire, would be numbers that
//! nobody meant.

use std::fmt;
use std::time::Duration;

use super::target_file::{Burn, Limit, Op, Severity, Span, TargetFile, Threshold, Thresholds};
use crate::catalog::bounds::Bounds;
use crate::catalog::{Kind, families};
use crate::error::Error;

/// The file as it was when the program was built.
const BUILT_IN: &str = include_str!("../../targets.toml");

impl Threshold {
    /// Uptime before which a cache is not judged: one lifetime of its entries.
    pub(crate) fn warmup(&self) -> Duration {
        self.warmup.map_or(Duration::ZERO, |span| span.0)
    }

    /// Lookups before which a cache is not judged.
    pub(crate) fn min_lookups(&self) -> u64 {
        self.min_lookups.unwrap_or(0)
    }
}

impl Thresholds {
    /// The thresholds that the program was built with.
    ///
    /// # Errors
    /// Refused, naming key, range and value, if the file was changed for the worse.
    pub(crate) fn built_in() -> Result<Self, Error> {
        Self::parse(BUILT_IN)
    }

    /// # Errors
    /// Refused, naming key, range and value.
    fn parse(text: &str) -> Result<Self, Error> {
        match toml::from_str::<TargetFile>(text) {
            Ok(file) => {
                check(&file)?;
                Ok(file.target)
            }
            Err(error) => Err(refused(in_line(text, &error))),
        }
    }
}

fn check(file: &TargetFile) -> Result<(), Error> {
    let label = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
    if file.job.is_empty() || !file.job.chars().all(label) {
        return Err(wrong("job", "letters, digits, - and _", &file.job));
    }
    if !file.runbooks.starts_with("https://") {
        return Err(wrong("runbooks", "a URL with https", &file.runbooks));
    }
    let [scrape, retention] = [file.scrape, file.retention];
    if scrape >= retention {
        return Err(wrong("scrape", format!("shorter than {retention}"), scrape));
    }
    for (id, row) in file.target.rows() {
        let (op, unit) = match id {
            "latency_p95" => (Op::Below, "s"),
            "throughput" => (Op::Above, "1/s"),
            _ if is_cache(id) => (Op::Above, "ratio"),
            _ => (Op::Below, "ratio"),
        };
        check_row(id, row, op, unit)?;
        check_alert(id, row, retention)?;
    }
    for (id, limit) in &file.limit {
        check_limit(id, limit)?;
    }
    Ok(())
}

fn is_cache(id: &str) -> bool {
    id.starts_with("cache_hit")
}

fn check_row(id: &str, row: &Threshold, op: Op, unit: &str) -> Result<(), Error> {
    let key = |key: &str| format!("target.{id}.{key}");
    if row.title.is_empty() {
        return Err(wrong(&key("title"), "a few words", &row.title));
    }
    if row.op != op {
        return Err(wrong(&key("op"), op.sign(), row.op.sign()));
    }
    if row.unit != unit {
        return Err(wrong(&key("unit"), unit, &row.unit));
    }
    let top = if unit == "ratio" { 1.0 } else { f64::MAX };
    for (name, value) in [("must", row.must), ("stretch", row.stretch)] {
        if !(value > 0.0 && value <= top) {
            let range = if unit == "ratio" {
                "above 0 and at most 1"
            } else {
                "above 0 and finite"
            };
            return Err(wrong(&key(name), range, value));
        }
        if id == "latency_p95" {
            check_bound(&key(name), value, Bounds::Request)?;
        }
    }
    if op.holds(row.must, row.stretch) {
        let side = match op {
            Op::Below => "at most",
            Op::Above => "at least",
        };
        let range = format!("{side} {}, the value of must", row.must);
        return Err(wrong(&key("stretch"), range, row.stretch));
    }
    for (name, present) in [
        ("warmup", row.warmup.is_some()),
        ("min_lookups", row.min_lookups.is_some()),
        ("alert_after", row.alert_after.is_some()),
    ] {
        if present != is_cache(id) {
            let (range, seen) = if is_cache(id) {
                ("present", "nothing")
            } else {
                ("absent: only caches warm up", "a value")
            };
            return Err(wrong(&key(name), range, seen));
        }
    }
    if let (Some(warmup), Some(after)) = (row.warmup, row.alert_after)
        && after < warmup
    {
        let range = format!("at least {warmup}, the value of warmup");
        return Err(wrong(&key("alert_after"), range, after));
    }
    Ok(())
}

/// Of the keys that only alerts are made from.
fn check_alert(id: &str, row: &Threshold, retention: Span) -> Result<(), Error> {
    let key = |key: &str| format!("target.{id}.{key}");
    let mut words = families::ALL.iter().map(|family| family.signal.word());
    if !words.any(|word| word == row.signal) {
        return Err(wrong(&key("signal"), "a signal's word", &row.signal));
    }
    if row.value.split(':').count() < 2 {
        let range = "a recorded series, level:metric:operations";
        return Err(wrong(&key("value"), range, &row.value));
    }
    if row.gate.as_ref().is_some_and(|gate| gate != "load test") {
        let seen = row.gate.as_deref().unwrap_or_default();
        return Err(wrong(&key("gate"), "load test", seen));
    }
    // A target that is missed pages nobody by itself: symptoms do, and they burn a budget.
    if row.severity == Severity::Critical {
        return Err(wrong(&key("severity"), "warning or info", "critical"));
    }
    if row.guard.is_some_and(|guard| guard.above < 0.0) {
        return Err(wrong(&key("guard"), "at least 0", "less"));
    }
    let budget = row.budget.unwrap_or(0.0);
    if row.budget.is_some() && !(budget > 0.0 && budget < 1.0) {
        return Err(wrong(&key("budget"), "above 0 and below 1", budget));
    }
    if row.budget.is_some() == row.burn.is_empty() {
        let range = "present with budget, and only with it";
        return Err(wrong(&key("burn"), range, row.burn.len()));
    }
    for burn in &row.burn {
        check_burn(&key("burn"), burn, budget, retention)?;
    }
    let hold = row.hold;
    if hold > retention {
        return Err(wrong(&key("for"), format!("at most {retention}"), hold));
    }
    Ok(())
}

fn check_burn(key: &str, burn: &Burn, budget: f64, retention: Span) -> Result<(), Error> {
    let Burn {
        long, short, hold, ..
    } = *burn;
    if short >= long {
        return Err(wrong(
            key,
            format!("shorter than {long} in its short window"),
            short,
        ));
    }
    if long > retention {
        let range = format!("at most {retention}, the value of retention");
        return Err(wrong(key, range, long));
    }
    if hold >= long {
        return Err(wrong(key, format!("shorter than {long} in its for"), hold));
    }
    // Nothing fails more often than always: such an alert could never fire.
    let least = burn.factor * budget;
    if !(least > 0.0 && least < 1.0) {
        let range = format!("a factor above 0 that leaves {budget} times it below 1");
        return Err(wrong(key, range, burn.factor));
    }
    if burn.severity == Severity::Info {
        return Err(wrong(key, "critical or warning", "info"));
    }
    Ok(())
}

fn check_limit(id: &str, limit: &Limit) -> Result<(), Error> {
    let key = |key: &str| format!("limit.{id}.{key}");
    let value = match (limit.above, limit.below) {
        (Some(value), None) | (None, Some(value)) => value,
        (above, _) => {
            let seen = if above.is_some() { "both" } else { "neither" };
            return Err(wrong(&format!("limit.{id}"), "above or below", seen));
        }
    };
    if !(value > 0.0 && value.is_finite()) {
        return Err(wrong(&format!("limit.{id}"), "above 0 and finite", value));
    }
    if !["1", "1/s", "bytes", "ratio", "s"].contains(&limit.unit.as_str()) {
        return Err(wrong(
            &key("unit"),
            "1, 1/s, bytes, ratio or s",
            &limit.unit,
        ));
    }
    let Some(of) = &limit.of else {
        return Ok(());
    };
    let family = families::ALL.iter().find(|family| family.name == of);
    match family.map(|family| family.kind) {
        Some(Kind::Histogram(bounds)) => check_bound(&format!("limit.{id}"), value, bounds),
        _ => Err(wrong(&key("of"), "a histogram of the catalogue", of)),
    }
}

/// With a bound at the threshold, the share on its good side is exact; beyond the last bound a
/// quantile never comes.
fn check_bound(key: &str, seconds: f64, bounds: Bounds) -> Result<(), Error> {
    let nanos = Duration::try_from_secs_f64(seconds).map_or(0, |duration| duration.as_nanos());
    let mut all = bounds.classic().iter();
    if all.any(|bound| u128::from(*bound) == nanos) {
        return Ok(());
    }
    let shown: Vec<String> = bounds
        .classic()
        .iter()
        .map(|nanos| Duration::from_nanos(*nanos).as_secs_f64().to_string())
        .collect();
    let range = format!("one of the bounds {}", shown.join(" "));
    Err(wrong(key, range, seconds))
}

fn refused(why: impl fmt::Display) -> Error {
    Error::refused("targets.toml", why)
}

fn wrong(key: &str, range: impl fmt::Display, seen: impl fmt::Display) -> Error {
    refused(format!("{key} must be {range} (got \"{seen}\")"))
}

fn in_line(text: &str, error: &toml::de::Error) -> String {
    let before = error.span().and_then(|span| text.get(..span.start));
    match before {
        Some(before) => {
            let line = before.matches('\n').count() + 1;
            format!("line {line}: {}", error.message())
        }
        None => error.message().to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(from: &str, to: &str) -> String {
        assert!(BUILT_IN.contains(from), "{from}");
        let text = BUILT_IN.replacen(from, to, 1);
        Thresholds::parse(&text).unwrap_err().to_string()
    }

    #[test]
    fn the_built_in_file_holds_the_numbers_of_the_guide() {
        let targets = Thresholds::built_in().unwrap();
        let pair = |row: &Threshold| (row.op.sign(), row.must, row.stretch);
        assert_eq!(pair(&targets.latency_p95), ("<", 0.2, 0.1));
        assert_eq!(pair(&targets.cache_hit), (">", 0.8, 0.95));
        assert_eq!(pair(&targets.error_ratio), ("<", 0.01, 0.005));
        assert_eq!(pair(&targets.throughput), (">", 1000.0, 5000.0));
        assert_eq!(pair(&targets.cpu), ("<", 0.7, 0.5));
        assert_eq!(pair(&targets.memory), ("<", 0.8, 0.6));
        assert_eq!(pair(&targets.disk_busy), ("<", 0.7, 0.4));
        let must = [
            targets.cache_hit_l1.must,
            targets.cache_hit_l2.must,
            targets.cache_hit_l3.must,
        ];
        let shown = must.map(|share| share.to_string());
        assert_eq!(shown, ["0.9", "0.8", "0.7"]);
        assert_eq!(targets.cache_hit.warmup(), Duration::from_secs(300));
        assert_eq!(targets.cache_hit.min_lookups(), 1000);
    }

    #[test]
    fn a_bad_value_is_refused_by_key_range_and_value() {
        let cases = [
            (
                "must = 0.2\n",
                "must = 0.21\n",
                "target.latency_p95.must must be one of the bounds 0.005 0.01",
            ),
            (
                "stretch = 0.1\n",
                "stretch = 11.0\n",
                "target.latency_p95.stretch must be one of the bounds",
            ),
            (
                "stretch = 0.1\n",
                "stretch = 0.25\n",
                "target.latency_p95.stretch must be at most 0.2, the value of must (got \"0.25\")",
            ),
            (
                "stretch = 5000\n",
                "stretch = 900\n",
                "target.throughput.stretch must be at least 1000, the value of must (got \"900\")",
            ),
            (
                "must = 0.7\nstretch = 0.5",
                "must = 1.7\nstretch = 0.5",
                "target.cpu.must must be above 0 and at most 1 (got \"1.7\")",
            ),
            (
                "must = 1000\n",
                "must = inf\n",
                "target.throughput.must must be above 0 and finite (got \"inf\")",
            ),
            (
                "must = 0.01\n",
                "must = nan\n",
                "target.error_ratio.must must be above 0 and at most 1 (got \"NaN\")",
            ),
            (
                "op = \"<\"",
                "op = \">\"",
                "target.latency_p95.op must be < (got \">\")",
            ),
            (
                "unit = \"s\"",
                "unit = \"ms\"",
                "target.latency_p95.unit must be s (got \"ms\")",
            ),
            (
                "min_lookups = 1000\n",
                "",
                "target.cache_hit.min_lookups must be present (got \"nothing\")",
            ),
            (
                "unit = \"1/s\"",
                "unit = \"1/s\"\nwarmup = \"1m\"",
                "target.throughput.warmup must be absent: only caches warm up (got \"a value\")",
            ),
            (
                "alert_after = \"30m\"",
                "alert_after = \"4m\"",
                "target.cache_hit.alert_after must be at least 5m, the value of warmup (got \"4m\")",
            ),
        ];
        for (from, to, expected) in cases {
            let error = with(from, to);
            assert!(error.contains(expected), "{to}: {error}");
        }
    }

    #[test]
    fn an_alert_that_could_never_fire_or_be_computed_is_refused() {
        let cases = [
            (
                "\"5m\", 14.4]",
                "\"5m\", 100]",
                "target.error_ratio.burn must be a factor above 0 that leaves 0.01 times it below 1 (got \"100\")",
            ),
            (
                "\"1h\", \"5m\", 10]",
                "\"5m\", \"1h\", 10]",
                "target.latency_p95.burn must be shorter than 5m in its short window (got \"1h\")",
            ),
            (
                "retention = \"35d\"",
                "retention = \"2d\"",
                "target.latency_p95.burn must be at most 2d, the value of retention (got \"3d\")",
            ),
            (
                "[\"critical\", \"2m\", \"1h\"",
                "[\"critical\", \"1h\", \"1h\"",
                "target.latency_p95.burn must be shorter than 1h in its for (got \"1h\")",
            ),
            (
                "[\"critical\", \"2m\"",
                "[\"info\", \"2m\"",
                "target.latency_p95.burn must be critical or warning (got \"info\")",
            ),
            (
                "budget = 0.05",
                "budget = 1",
                "target.latency_p95.budget must be above 0 and below 1 (got \"1\")",
            ),
            (
                "budget = 0.05",
                "",
                "target.latency_p95.burn must be present with budget, and only with it (got \"4\")",
            ),
            (
                "severity = \"warning\"",
                "severity = \"critical\"",
                "target.latency_p95.severity must be warning or info (got \"critical\")",
            ),
            (
                "signal = \"cpu\"",
                "signal = \"processor\"",
                "target.cpu.signal must be a signal's word (got \"processor\")",
            ),
            (
                "value = \"instance:process_memory:ratio\"",
                "value = \"process_memory\"",
                "target.memory.value must be a recorded series",
            ),
            (
                "above = 0.01",
                "above = 0.011",
                "limit.pool_wait must be one of the bounds 0.0001",
            ),
            (
                "above = 0.01",
                "above = 11",
                "limit.pool_wait must be one of the bounds 0.0001",
            ),
            (
                "of = \"tokio_schedule_delay_seconds\"",
                "of = \"tokio_alive_tasks\"",
                "limit.runtime_stall.of must be a histogram of the catalogue",
            ),
            (
                "below = 0.3",
                "below = 0.3\nabove = 0.2",
                "limit.traffic_drop must be above or below (got \"both\")",
            ),
            (
                "scrape = \"15s\"",
                "scrape = \"36d\"",
                "scrape must be shorter than 35d (got \"36d\")",
            ),
            (
                "runbooks = \"https:",
                "runbooks = \"http:",
                "runbooks must be a URL with https",
            ),
            (
                "job = \"streamgate\"",
                "job = \"a\\\"}\"",
                "job must be letters, digits, - and _",
            ),
            (
                "\"rps > 1\"",
                "\"qps > 1\"",
                "a guard must be rps, errors or shed",
            ),
            (
                "\"1h\", \"5m\", 10]",
                "\"1h\", \"5m\"]",
                "line 28: invalid length 4",
            ),
        ];
        for (from, to, expected) in cases {
            let error = with(from, to);
            assert!(error.contains(expected), "{to}: {error}");
        }
    }

    #[test]
    fn a_duration_is_shown_as_promql_reads_it() {
        for text in ["45s", "90m", "1h", "35d"] {
            let file = format!("x = \"{text}\"");
            let read: std::collections::BTreeMap<String, Span> = toml::from_str(&file).unwrap();
            assert_eq!(read["x"].to_string(), text);
        }
    }

    #[test]
    fn an_unknown_or_missing_key_is_refused_with_its_line() {
        assert!(
            with("op = \"<\"", "opp = \"<\"")
                .starts_with("targets.toml: line 18: unknown field `opp`")
        );
        assert!(with("[target.cpu]", "[target.cpus]").contains("unknown field `cpus`"));
        assert!(with("must = 0.2\n", "").contains("missing field `must`"));
        assert!(with("op = \"<\"", "op = \"<=\"").contains("unknown variant `<=`"));
        for bad in ["5", "m", "0m", "-5m", "5w", "", "5é"] {
            let error = with("\"10m\"", &format!("{bad:?}"));
            assert!(error.contains(&format!("above 0 (got {bad:?})")), "{error}");
        }
    }

    #[test]
    fn exactly_at_the_threshold_does_not_meet_it() {
        assert!(!Op::Below.holds(0.2, 0.2) && Op::Below.holds(0.199, 0.2));
        assert!(!Op::Above.holds(0.8, 0.8) && Op::Above.holds(0.801, 0.8));
    }
}
