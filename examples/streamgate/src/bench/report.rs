//! The result of a load: numbers, the verdict whether they count, and how people read them.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::mix::Journey;
use super::record::{Fault, Record, Tally};

/// Lateness above which the generator, not the service, shapes the latencies.
const SEND_LAG_LIMIT_MS: f64 = 10.0;
/// Share of a core above which the generator may be what is slow.
const CPU_LIMIT: f64 = 0.7;

/// The error target: one request of so many may be refused by a busy service.
const REFUSED_ONE_IN: u64 = 100;

/// One load, as `--json` prints it. A value without data is absent (`null`), never 0.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Report {
    /// Arrivals of the plan that came due.
    pub(crate) requests: u64,
    /// Those that failed or were answered with a status they must not have.
    pub(crate) errors: u64,
    /// Errors by kind: `client_saturated`, `connect`, `timeout`, `transport`, `status_503`.
    pub(crate) errors_by_kind: BTreeMap<String, u64>,
    /// Answers by status, wanted or not.
    pub(crate) statuses: BTreeMap<u16, u64>,
    /// Conditional requests answered "not modified" (304); no errors.
    pub(crate) not_modified: u64,
    /// Changes refused because somebody else was first (412); no errors.
    pub(crate) precondition_failed: u64,
    /// Mean arrivals per second asked for.
    pub(crate) rate: u32,
    /// From the first intended start to the last answer.
    pub(crate) duration_seconds: f64,
    /// Answers per second over that time.
    pub(crate) rps: f64,
    /// Median latency from the intended start.
    pub(crate) p50_ms: Option<f64>,
    /// 95th percentile.
    pub(crate) p95_ms: Option<f64>,
    /// 99th percentile.
    pub(crate) p99_ms: Option<f64>,
    /// Largest.
    pub(crate) max_ms: Option<f64>,
    /// The same per journey.
    pub(crate) journeys: BTreeMap<String, JourneyReport>,
    /// Time from the intended start until the generator acted, median.
    pub(crate) send_lag_p50_ms: Option<f64>,
    /// 99th percentile of it.
    pub(crate) send_lag_p99_ms: Option<f64>,
    /// Time without a free connection, which is part of the latency, 99th percentile.
    pub(crate) connection_wait_p99_ms: Option<f64>,
    /// Connections opened in all.
    pub(crate) connections: u64,
    /// Body bytes received.
    pub(crate) body_bytes: u64,
    /// Processor time of the generator.
    pub(crate) cpu_seconds: Option<f64>,
    /// The same as a share of one core.
    pub(crate) cpu_ratio: Option<f64>,
    /// Whether the generator disturbed its own measurement.
    pub(crate) void: bool,
    /// How it did.
    pub(crate) void_reason: Option<String>,
}

/// One journey.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct JourneyReport {
    /// Arrivals.
    pub(crate) requests: u64,
    /// Errors among them.
    pub(crate) errors: u64,
    /// Median latency from the intended start.
    pub(crate) p50_ms: Option<f64>,
    /// 95th percentile.
    pub(crate) p95_ms: Option<f64>,
    /// 99th percentile.
    pub(crate) p99_ms: Option<f64>,
    /// Largest.
    pub(crate) max_ms: Option<f64>,
}

impl JourneyReport {
    fn new(tally: &Tally) -> Self {
        Self {
            requests: tally.requests,
            errors: tally.errors,
            p50_ms: tally.latencies.quantile_ms(0.5),
            p95_ms: tally.latencies.quantile_ms(0.95),
            p99_ms: tally.latencies.quantile_ms(0.99),
            max_ms: tally.latencies.max_ms(),
        }
    }
}

impl Report {
    /// Sums up what was seen in `elapsed`, at the cost of `cpu` processor time.
    pub(crate) fn new(
        record: &Record,
        rate: u32,
        elapsed: Duration,
        cpu: Option<Duration>,
    ) -> Self {
        let seconds = elapsed.as_secs_f64();
        let per_second = |amount: f64| if seconds > 0.0 { amount / seconds } else { 0.0 };
        let answered: u64 = record.statuses.values().sum();
        let status = |status| record.statuses.get(&status).copied().unwrap_or(0);
        let overall = JourneyReport::new(&record.overall);
        let cpu_ratio = cpu.map(|cpu| per_second(cpu.as_secs_f64()));
        let void_reason = void_reason(record.send_lag.quantile_ms(0.99), cpu_ratio);
        Self {
            requests: overall.requests,
            errors: overall.errors,
            errors_by_kind: record
                .faults
                .iter()
                .map(|(fault, count)| (Fault::name(*fault), *count))
                .collect(),
            statuses: record.statuses.clone(),
            not_modified: status(304),
            precondition_failed: status(412),
            rate,
            duration_seconds: seconds,
            rps: per_second(answered as f64),
            p50_ms: overall.p50_ms,
            p95_ms: overall.p95_ms,
            p99_ms: overall.p99_ms,
            max_ms: overall.max_ms,
            journeys: record
                .journeys
                .iter()
                .map(|(journey, tally)| (journey.name().to_owned(), JourneyReport::new(tally)))
                .collect(),
            send_lag_p50_ms: record.send_lag.quantile_ms(0.5),
            send_lag_p99_ms: record.send_lag.quantile_ms(0.99),
            connection_wait_p99_ms: record.connection_wait.quantile_ms(0.99),
            connections: record.connections,
            body_bytes: record.body_bytes,
            cpu_seconds: cpu.map(|cpu| cpu.as_secs_f64()),
            cpu_ratio,
            void: void_reason.is_some(),
            void_reason,
        }
    }

    /// What keeps this load from being clean: errors by kind, or why it is void.
    ///
    /// A service that says 503 for a moment, because its disk or its processors are busy with something
    /// else, keeps its target as long as that is under a hundredth of the requests. Any other error is one
    /// too many.
    pub(crate) fn complaint(&self) -> Option<String> {
        let busy = Fault::Status(503).name();
        let refused = self.errors_by_kind.get(&busy).copied().unwrap_or(0);
        if self.errors > refused || refused.saturating_mul(REFUSED_ONE_IN) >= self.requests.max(1) {
            let kinds: Vec<String> = self
                .errors_by_kind
                .iter()
                .map(|(kind, count)| format!("{kind} {count}"))
                .collect();
            return Some(format!(
                "{} of {} requests failed ({})",
                self.errors,
                self.requests,
                kinds.join(", ")
            ));
        }
        self.void_reason
            .as_ref()
            .map(|reason| format!("the load does not count: {reason}"))
    }

    /// The report as lines for people.
    pub(crate) fn table(&self) -> String {
        let mut text = String::new();
        let mut line = |fields: std::fmt::Arguments<'_>| text.push_str(&format!("{fields}\n"));
        line(format_args!(
            "{:<14}{:>10}{:>8}{:>11}{:>11}{:>11}{:>11}",
            "journey", "requests", "errors", "p50 ms", "p95 ms", "p99 ms", "max ms"
        ));
        let all = JourneyReport {
            requests: self.requests,
            errors: self.errors,
            p50_ms: self.p50_ms,
            p95_ms: self.p95_ms,
            p99_ms: self.p99_ms,
            max_ms: self.max_ms,
        };
        let in_order = Journey::ALL.into_iter().filter_map(|journey| {
            self.journeys
                .get(journey.name())
                .map(|report| (journey.name(), report))
        });
        for (name, journey) in in_order
            .chain([("all", &all)])
            .filter(|(_, journey)| journey.requests > 0)
        {
            line(format_args!(
                "{name:<14}{:>10}{:>8}{:>11}{:>11}{:>11}{:>11}",
                journey.requests,
                journey.errors,
                decimal(journey.p50_ms, 2),
                decimal(journey.p95_ms, 2),
                decimal(journey.p99_ms, 2),
                decimal(journey.max_ms, 2),
            ));
        }
        line(format_args!(
            "rate           {:.1} answers/s of {} arrivals/s over {:.1} s",
            self.rps, self.rate, self.duration_seconds
        ));
        line(format_args!(
            "answers        {}; {} not modified, {} precondition failed",
            self.statuses
                .iter()
                .map(|(status, count)| format!("{status}: {count}"))
                .collect::<Vec<_>>()
                .join(", "),
            self.not_modified,
            self.precondition_failed
        ));
        for (kind, count) in &self.errors_by_kind {
            line(format_args!("error          {kind}: {count}"));
        }
        line(format_args!(
            "generator      send lag p50 {} ms, p99 {} ms; connection wait p99 {} ms; {} connections; {} % of a core",
            decimal(self.send_lag_p50_ms, 2),
            decimal(self.send_lag_p99_ms, 2),
            decimal(self.connection_wait_p99_ms, 2),
            self.connections,
            decimal(self.cpu_ratio.map(|ratio| ratio * 100.0), 1),
        ));
        if let Some(reason) = &self.void_reason {
            line(format_args!("VOID           {reason}"));
        }
        text
    }
}

/// Why the generator, and not the service, may have made the numbers.
fn void_reason(send_lag_p99_ms: Option<f64>, cpu_ratio: Option<f64>) -> Option<String> {
    let mut reasons = Vec::new();
    if let Some(lag) = send_lag_p99_ms.filter(|lag| *lag > SEND_LAG_LIMIT_MS) {
        reasons.push(format!(
            "send lag p99 {lag:.1} ms is over {SEND_LAG_LIMIT_MS} ms"
        ));
    }
    if let Some(cpu) = cpu_ratio.filter(|cpu| *cpu > CPU_LIMIT) {
        reasons.push(format!(
            "the generator used {:.0} % of a core, over {:.0} %",
            cpu * 100.0,
            CPU_LIMIT * 100.0
        ));
    }
    (!reasons.is_empty()).then(|| reasons.join("; "))
}

/// A number with this many digits after the point; a dash where there is none.
pub(crate) fn decimal(value: Option<f64>, digits: usize) -> String {
    value.map_or_else(|| "-".to_owned(), |value| format!("{value:.digits$}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::record::Observation;

    fn seen(lag_ms: u64, fault: Option<Fault>) -> Observation {
        Observation {
            journey: Journey::Detail,
            latency: Duration::from_millis(3),
            send_lag: Duration::from_millis(lag_ms),
            connection_wait: Duration::ZERO,
            status: fault.is_none().then_some(200),
            body_bytes: 1,
            fault,
        }
    }

    fn report(lag_ms: u64, cpu_ms: Option<u64>) -> Report {
        let mut record = Record::new().unwrap();
        for _ in 0..100 {
            record.add(seen(lag_ms, None));
        }
        Report::new(
            &record,
            100,
            Duration::from_secs(1),
            cpu_ms.map(Duration::from_millis),
        )
    }

    #[test]
    fn a_late_or_busy_generator_voids_its_run() {
        assert!(!report(9, Some(690)).void);
        let late = report(11, Some(100));
        assert!(late.void);
        assert!(
            late.complaint()
                .unwrap()
                .contains("send lag p99 11.0 ms is over 10 ms"),
            "{late:?}"
        );
        let busy = report(0, Some(710));
        assert!(
            busy.complaint()
                .unwrap()
                .contains("71 % of a core, over 70 %"),
            "{busy:?}"
        );
    }

    #[test]
    fn unknown_processor_time_is_null_and_no_verdict() {
        let report = report(0, None);
        assert!(!report.void);
        assert!(serde_json::to_value(&report).unwrap()["cpu_ratio"].is_null());
    }

    #[test]
    fn nothing_answered_gives_null_and_dashes_instead_of_zero() {
        let mut record = Record::new().unwrap();
        record.add(seen(0, Some(Fault::Connect)));
        let report = Report::new(&record, 1, Duration::from_secs(1), None);
        let json = serde_json::to_value(&report).unwrap();
        for field in ["p50_ms", "p95_ms", "p99_ms", "max_ms"] {
            assert!(json[field].is_null(), "{json}");
        }
        assert_eq!(
            report.complaint().unwrap(),
            "1 of 1 requests failed (connect 1)"
        );
        assert!(
            report
                .table()
                .contains("detail                 1       1          -"),
            "{}",
            report.table()
        );
    }

    #[test]
    fn less_than_a_hundredth_of_503_is_within_the_target_and_other_errors_never() {
        let complaint = |faults: &[Fault]| {
            let mut record = Record::new().unwrap();
            faults
                .iter()
                .for_each(|fault| record.add(seen(1, Some(*fault))));
            (faults.len()..200).for_each(|_| record.add(seen(1, None)));
            Report::new(&record, 1, Duration::from_secs(1), None).complaint()
        };
        let busy = Fault::Status(503);
        assert_eq!(complaint(&[busy]), None);
        assert_eq!(
            complaint(&[busy, busy]).unwrap(),
            "2 of 200 requests failed (status_503 2)"
        );
        assert_eq!(
            complaint(&[Fault::Status(500)]).unwrap(),
            "1 of 200 requests failed (status_500 1)"
        );
    }

    #[test]
    fn json_is_read_back_as_written() {
        let written = serde_json::to_string(&report(1, Some(100))).unwrap();
        let read: Report = serde_json::from_str(&written).unwrap();
        assert_eq!(serde_json::to_string(&read).unwrap(), written);
    }
}
