//! What the load has seen so far: counts, statuses and latency distributions.

use std::collections::BTreeMap;
use std::time::Duration;

use hdrhistogram::{CreationError, Histogram};

use super::mix::Journey;

/// Latencies above this are counted as this; a request is given up long before.
const LONGEST_MICROS: u64 = 120_000_000;

/// Durations in microseconds with three significant digits.
#[derive(Debug)]
pub(crate) struct Durations(Histogram<u64>);

impl Durations {
    fn new() -> Result<Self, CreationError> {
        Histogram::new_with_bounds(1, LONGEST_MICROS, 3).map(Self)
    }

    fn record(&mut self, duration: Duration) {
        self.0
            .saturating_record(u64::try_from(duration.as_micros()).unwrap_or(u64::MAX));
    }

    /// Milliseconds below which this share of the durations lies; nothing when there are none.
    pub(crate) fn quantile_ms(&self, quantile: f64) -> Option<f64> {
        // The top of the histogram's cell can lie above the largest value seen.
        (!self.0.is_empty())
            .then(|| self.0.value_at_quantile(quantile).min(self.0.max()) as f64 / 1000.0)
    }

    /// Largest duration in milliseconds, to three digits; nothing when there are none.
    pub(crate) fn max_ms(&self) -> Option<f64> {
        (!self.0.is_empty()).then(|| self.0.max() as f64 / 1000.0)
    }
}

/// Why a request is an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Fault {
    /// Too many requests in flight here; it was never sent.
    ClientSaturated,
    /// No connection could be made.
    Connect,
    /// No complete answer within the time limit, counted from the intended start.
    Timeout,
    /// The connection broke before the answer was complete.
    Transport,
    /// An answer whose status this request must not have.
    Status(u16),
}

impl Fault {
    /// Name in the report: `timeout`, `status_503`.
    pub(crate) fn name(self) -> String {
        match self {
            Self::ClientSaturated => "client_saturated".to_owned(),
            Self::Connect => "connect".to_owned(),
            Self::Timeout => "timeout".to_owned(),
            Self::Transport => "transport".to_owned(),
            Self::Status(status) => format!("status_{status}"),
        }
    }

    /// Whether the time until the fault says how long a visitor waited. A refused connection fails at
    /// once, and counting it as a fast answer would flatter the percentiles.
    const fn is_a_wait(self) -> bool {
        matches!(self, Self::Timeout | Self::Status(_))
    }
}

/// How one arrival ended.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Observation {
    /// Kind of request.
    pub(crate) journey: Journey,
    /// From the intended start to the last byte, or to the fault.
    pub(crate) latency: Duration,
    /// From the intended start until this process acted on it.
    pub(crate) send_lag: Duration,
    /// From then until a connection was free.
    pub(crate) connection_wait: Duration,
    /// Status of the answer, if one came.
    pub(crate) status: Option<u16>,
    /// Bytes of the answer's body as sent.
    pub(crate) body_bytes: u64,
    /// Set when the request is an error.
    pub(crate) fault: Option<Fault>,
}

/// Counts and latencies of a set of requests.
#[derive(Debug)]
pub(crate) struct Tally {
    /// Arrivals that ended, in whatever way.
    pub(crate) requests: u64,
    /// Those among them that are errors.
    pub(crate) errors: u64,
    /// Latencies of all that waited for an answer.
    pub(crate) latencies: Durations,
}

impl Tally {
    fn new() -> Result<Self, CreationError> {
        Ok(Self {
            requests: 0,
            errors: 0,
            latencies: Durations::new()?,
        })
    }

    fn add(&mut self, latency: Option<Duration>, is_error: bool) {
        self.requests += 1;
        self.errors += u64::from(is_error);
        if let Some(latency) = latency {
            self.latencies.record(latency);
        }
    }
}

/// Everything seen.
#[derive(Debug)]
pub(crate) struct Record {
    /// All journeys.
    pub(crate) overall: Tally,
    /// Since the last progress line.
    pub(crate) interval: Tally,
    /// Per journey, in the order of [`Journey::ALL`].
    pub(crate) journeys: Vec<(Journey, Tally)>,
    /// Errors by kind.
    pub(crate) faults: BTreeMap<Fault, u64>,
    /// Answers by status, errors or not.
    pub(crate) statuses: BTreeMap<u16, u64>,
    /// Lateness of the generator.
    pub(crate) send_lag: Durations,
    /// Time without a free connection.
    pub(crate) connection_wait: Durations,
    /// Body bytes received.
    pub(crate) body_bytes: u64,
    /// Connections opened.
    pub(crate) connections: u64,
}

impl Record {
    /// Starts with nothing seen.
    ///
    /// # Errors
    /// The histogram library refuses the bounds; they are constants, so never in a build that passed its tests.
    pub(crate) fn new() -> Result<Self, CreationError> {
        let journeys = Journey::ALL
            .into_iter()
            .map(|journey| Ok((journey, Tally::new()?)))
            .collect::<Result<_, CreationError>>()?;
        Ok(Self {
            overall: Tally::new()?,
            interval: Tally::new()?,
            journeys,
            faults: BTreeMap::new(),
            statuses: BTreeMap::new(),
            send_lag: Durations::new()?,
            connection_wait: Durations::new()?,
            body_bytes: 0,
            connections: 0,
        })
    }

    /// Adds an arrival that was sent, or given up while it waited for a connection.
    pub(crate) fn add(&mut self, seen: Observation) {
        let latency = seen
            .fault
            .is_none_or(Fault::is_a_wait)
            .then_some(seen.latency);
        self.count(seen.journey, latency, seen.fault);
        self.send_lag.record(seen.send_lag);
        self.connection_wait.record(seen.connection_wait);
        self.body_bytes += seen.body_bytes;
        if let Some(status) = seen.status {
            *self.statuses.entry(status).or_default() += 1;
        }
    }

    /// Adds an arrival that was not sent because too many others were in flight.
    pub(crate) fn add_saturated(&mut self, journey: Journey, send_lag: Duration) {
        self.count(journey, None, Some(Fault::ClientSaturated));
        self.send_lag.record(send_lag);
    }

    /// Starts the next interval.
    pub(crate) fn next_interval(&mut self) {
        self.interval.requests = 0;
        self.interval.errors = 0;
        self.interval.latencies.0.reset();
    }

    fn count(&mut self, journey: Journey, latency: Option<Duration>, fault: Option<Fault>) {
        self.overall.add(latency, fault.is_some());
        self.interval.add(latency, fault.is_some());
        if let Some((_, tally)) = self
            .journeys
            .iter_mut()
            .find(|(other, _)| *other == journey)
        {
            tally.add(latency, fault.is_some());
        }
        if let Some(fault) = fault {
            *self.faults.entry(fault).or_default() += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(millis: u64, fault: Option<Fault>) -> Observation {
        Observation {
            journey: Journey::List,
            latency: Duration::from_millis(millis),
            send_lag: Duration::ZERO,
            connection_wait: Duration::ZERO,
            status: None,
            body_bytes: 10,
            fault,
        }
    }

    #[test]
    fn quantiles_lie_within_a_thousandth() {
        let mut durations = Durations::new().unwrap();
        assert_eq!(durations.quantile_ms(0.5), None);
        for millis in 1..=1000 {
            durations.record(Duration::from_millis(millis));
        }
        for (quantile, expected) in [(0.5, 500.0), (0.95, 950.0), (0.99, 990.0)] {
            let seen = durations.quantile_ms(quantile).unwrap();
            assert!((seen / expected - 1.0).abs() < 0.001, "{seen}");
        }
        assert!((durations.max_ms().unwrap() / 1000.0 - 1.0).abs() < 0.001);
    }

    #[test]
    fn refused_connections_are_errors_without_a_latency() {
        let mut record = Record::new().unwrap();
        record.add(seen(5, None));
        record.add(seen(0, Some(Fault::Connect)));
        record.add(seen(10_000, Some(Fault::Timeout)));
        record.add_saturated(Journey::List, Duration::ZERO);
        assert_eq!((record.overall.requests, record.overall.errors), (4, 3));
        assert_eq!(record.overall.latencies.0.len(), 2);
        assert_eq!(record.faults[&Fault::ClientSaturated], 1);
        let (_, list) = record
            .journeys
            .iter()
            .find(|(journey, _)| *journey == Journey::List)
            .unwrap();
        assert_eq!((list.requests, list.errors), (4, 3));
    }

    #[test]
    fn interval_starts_anew_and_the_whole_goes_on() {
        let mut record = Record::new().unwrap();
        record.add(seen(5, None));
        record.next_interval();
        assert_eq!((record.interval.requests, record.overall.requests), (0, 1));
        assert_eq!(record.interval.latencies.quantile_ms(0.5), None);
    }
}
