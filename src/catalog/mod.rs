//! What exists: every metric family, its unit, kind, labels, help and signal word.
//!
//! One row is one family. Instrument, collect, the encoders, the dashboards and the rules name
//! families only through these rows, so a name cannot be spelled in two ways.
//! Absent on purpose: values, handles, I/O. The rows stand in [`families`], the endpoints in
//! [`endpoints`].

#[cfg(feature = "otlp")]
pub(crate) mod attributes;
pub(crate) mod bounds;
pub(crate) mod endpoints;
pub(crate) mod families;

/// The part of the system that a family, endpoint, panel or alert speaks of: one word in every room.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Signal {
    /// Requests that the host serves.
    Request,
    /// Caches of the host.
    Cache,
    /// Queries to a database.
    Query,
    /// Pools of connections, workers and buffers.
    Pool,
    /// CPU time and its profile.
    Cpu,
    /// Memory from the allocator.
    Heap,
    /// The host process as the operating system sees it.
    Process,
    /// The machine or container around the process.
    Host,
    /// The async runtime.
    Runtime,
    /// Spans and logs.
    Span,
    /// The agent's own cost and losses.
    Agent,
    /// A family that the host declared itself.
    Custom,
}

impl Signal {
    /// The word that stands in file names, paths, panels and alerts.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Request => "request",
            Self::Cache => "cache",
            Self::Query => "query",
            Self::Pool => "pool",
            Self::Cpu => "cpu",
            Self::Heap => "heap",
            Self::Process => "process",
            Self::Host => "host",
            Self::Runtime => "runtime",
            Self::Span => "span",
            Self::Agent => "agent",
            Self::Custom => "custom",
        }
    }
}

/// What the numbers of a family count.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Unit {
    /// Seconds; recorded as integer nanoseconds.
    Seconds,
    /// Bytes.
    Bytes,
    /// A share between 0 and 1 (utilisation may exceed 1 where the limit is soft).
    Ratio,
    /// Things: requests, entries, threads.
    Count,
    /// None; recorded to nine digits after the point.
    Number,
}

/// How a family behaves over time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Grows only; the events are counted by this process.
    Counter,
    /// Grows only; the total is read from somewhere else, such as the kernel.
    ObservedCounter,
    /// Goes up and down by differences; the sum over threads is the value.
    UpDown,
    /// The last value set.
    Gauge,
    /// A distribution over [`Bounds`](bounds::Bounds).
    Histogram(bounds::Bounds),
    /// Labels are the message; the value is always 1.
    Info,
}

/// One metric family: a row of the catalogue, or one that the host declares.
///
/// ```
/// use streamgate_agent::Metric;
///
/// static ROWS: Metric = Metric::counter("app_import_rows_total", "Rows imported.")
///     .labels(&["result"]);
/// ```
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Metric {
    pub(crate) name: &'static str,
    pub(crate) otel_name: &'static str,
    pub(crate) help: &'static str,
    pub(crate) unit: Unit,
    pub(crate) kind: Kind,
    pub(crate) labels: &'static [&'static str],
    pub(crate) signal: Signal,
    pub(crate) exemplars: bool,
    pub(crate) series_limit: usize,
}

/// Label sets that one family holds before its overflow series takes the events.
///
/// 2,000 follows the OpenTelemetry SDK's default; half would cut a service of 400 routes × 5 status
/// codes, double only costs memory: at 2,000 full request rows of 2 KiB one shard holds 4 MiB.
pub(crate) const SERIES_LIMIT: usize = 2_000;

impl Metric {
    const fn new(name: &'static str, help: &'static str, unit: Unit, kind: Kind) -> Self {
        Self {
            name,
            otel_name: name,
            help,
            unit,
            kind,
            labels: &[],
            signal: Signal::Custom,
            exemplars: false,
            series_limit: SERIES_LIMIT,
        }
    }

    /// A counter of events; the name ends in `_total`.
    pub const fn counter(name: &'static str, help: &'static str) -> Self {
        Self::new(name, help, Unit::Count, Kind::Counter)
    }

    /// A counter whose total is read elsewhere and set.
    pub const fn observed_counter(name: &'static str, help: &'static str) -> Self {
        Self::new(name, help, Unit::Count, Kind::ObservedCounter)
    }

    /// A number that goes up and down by differences.
    pub const fn up_down(name: &'static str, help: &'static str) -> Self {
        Self::new(name, help, Unit::Count, Kind::UpDown)
    }

    /// A value that is set.
    pub const fn gauge(name: &'static str, help: &'static str) -> Self {
        Self::new(name, help, Unit::Count, Kind::Gauge)
    }

    /// A distribution of durations over the bounds of a request: 5 ms to 10 s, with 0.1 and 0.2.
    pub const fn request_histogram(name: &'static str, help: &'static str) -> Self {
        Self::new(
            name,
            help,
            Unit::Seconds,
            Kind::Histogram(bounds::Bounds::Request),
        )
    }

    /// A distribution of waits: 0.1 ms to 10 s.
    pub const fn wait_histogram(name: &'static str, help: &'static str) -> Self {
        Self::new(
            name,
            help,
            Unit::Seconds,
            Kind::Histogram(bounds::Bounds::Wait),
        )
    }

    /// A distribution of sizes: 256 B to 64 MiB.
    pub const fn size_histogram(name: &'static str, help: &'static str) -> Self {
        Self::new(
            name,
            help,
            Unit::Bytes,
            Kind::Histogram(bounds::Bounds::Size),
        )
    }

    /// A distribution of small counts: 1 to 10,000.
    pub const fn rows_histogram(name: &'static str, help: &'static str) -> Self {
        Self::new(
            name,
            help,
            Unit::Count,
            Kind::Histogram(bounds::Bounds::Rows),
        )
    }

    /// A distribution of numbers that are neither seconds nor bytes nor whole: 0.0001 to 1,000,000, in steps
    /// of 1, 2.5 and 5.
    pub const fn number_histogram(name: &'static str, help: &'static str) -> Self {
        Self::new(
            name,
            help,
            Unit::Number,
            Kind::Histogram(bounds::Bounds::Number),
        )
    }

    /// Names the labels; values are given in the same order, at most 10.
    #[must_use]
    pub const fn labels(mut self, labels: &'static [&'static str]) -> Self {
        self.labels = labels;
        self
    }

    /// Says what the numbers count; the name should end in the unit.
    #[must_use]
    pub const fn unit(mut self, unit: Unit) -> Self {
        self.unit = unit;
        self
    }

    /// Bounds the label sets; events of further sets go to one overflow series.
    #[must_use]
    pub const fn series_limit(mut self, limit: usize) -> Self {
        self.series_limit = limit;
        self
    }

    pub(crate) const fn histogram(
        name: &'static str,
        help: &'static str,
        unit: Unit,
        bounds: bounds::Bounds,
    ) -> Self {
        Self::new(name, help, unit, Kind::Histogram(bounds))
    }

    pub(crate) const fn info(name: &'static str, help: &'static str) -> Self {
        Self::new(name, help, Unit::Count, Kind::Info)
    }

    pub(crate) const fn signal(mut self, signal: Signal) -> Self {
        self.signal = signal;
        self
    }

    pub(crate) const fn otel(mut self, otel_name: &'static str) -> Self {
        self.otel_name = otel_name;
        self
    }

    pub(crate) const fn exemplars(mut self) -> Self {
        self.exemplars = true;
        self
    }

    /// The family's name on every output.
    pub const fn name(&self) -> &'static str {
        self.name
    }

    /// The sentence that explains the family.
    pub const fn help(&self) -> &'static str {
        self.help
    }

    /// The names of the labels, in the order of their values.
    pub const fn label_names(&self) -> &'static [&'static str] {
        self.labels
    }
}

#[cfg(test)]
mod tests;
