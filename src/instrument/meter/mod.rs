//! What libraries record through OpenTelemetry's API, in our own core.
//!
//! Source: opentelemetry 0.33, and the translation that Prometheus makes of its names and units. The API asks
//! for a series at every event, by attributes; handles are kept by them, up to a number.

mod instrument;
mod observed;
mod unit;

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use opentelemetry::InstrumentationScope;
use opentelemetry::metrics::{
    self as api, AsyncInstrumentBuilder, HistogramBuilder, InstrumentBuilder, InstrumentProvider,
    ObservableCounter, ObservableGauge, ObservableUpDownCounter,
};

use self::instrument::{Added, Instrument, Named, Recording};
use super::known::Room;
use super::undeclared::{Distribution, Families, Lost};
use crate::store::Store;
use crate::store::metrics::{Counter, Gauge, ObservedCounter, UpDown};

/// The help of a family that nobody has described.
const UNDESCRIBED: &str = "Recorded through OpenTelemetry.";

/// Puts what is recorded through OpenTelemetry's metrics API into the agent's core.
///
/// So it stands on `/metrics`, is pushed with everything else, and obeys the same limits: 2,000 attribute sets
/// in a family, 10 attributes, 128 bytes of a value; events beyond go to one series
/// `otel_metric_overflow="true"`, and totals stay exact. Make one, and give it to
/// `opentelemetry::global::set_meter_provider`.
///
/// - A name and its unit are shown as Prometheus translates them: `http.client.duration` in `s` is
///   `http_client_duration_seconds`, in `ms` `http_client_duration_milliseconds`, a counter ends in `_total`,
///   a gauge in unit `1` in `_ratio`. Attributes are labels, and may differ from event to event.
/// - Histograms have our bounds, not those of the instrument: in `s` from 0.1 ms to 10 s, in `By` from 256 B
///   to 64 MiB, in any other unit from 0.0001 to 1,000,000 in steps of 1, 2.5 and 5. Values below zero and NaN
///   are left out and counted in `agent_dropped_total`, as are those of counters.
/// - Up-down counters of fractions, and observable ones, are shown and pushed as gauges.
/// - Callbacks run about once a second on the agent's thread. Attributes that a callback no longer observes
///   become absent. One that panics loses what it had not observed yet, is counted in `agent_panics_total`,
///   and is asked again next time. A callback is asked while the provider, or a meter of it, is there; there
///   are at most 4,096 in an agent.
/// - A name that is taken, by the agent, the host, or another kind, records nothing and is counted in
///   `agent_scrape_conflicts_total{source="meter"}`; so are a family's eleventh attribute and the names past
///   a thousand. Scopes are not told apart.
///
/// # Cost
/// A look-up by attributes for each event, which no lock of another event delays.
///
/// ```
/// use opentelemetry::KeyValue;
/// use opentelemetry::metrics::MeterProvider as _;
/// use streamgate_agent::Agent;
///
/// let agent = Agent::builder("shop").no_listener().start()?;
/// let meter = agent.meter_provider().meter("parcels");
/// let weight = meter.f64_histogram("parcel.weight").with_unit("kg").build();
/// weight.record(2.5, &[KeyValue::new("country", "PT")]);
/// let waiting = meter.u64_observable_gauge("parcels.waiting");
/// waiting.with_callback(|waiting| waiting.observe(7, &[])).build();
/// # Ok::<(), streamgate_agent::Error>(())
/// ```
#[derive(Clone)]
pub struct MeterProvider {
    meter: Arc<Meter>,
}

impl fmt::Debug for MeterProvider {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MeterProvider").finish_non_exhaustive()
    }
}

impl MeterProvider {
    pub(crate) fn new(store: &Arc<Store>) -> Self {
        let meter = Meter {
            families: Families::new(store, "meter", UNDESCRIBED),
            lost: Lost::new(&store.metrics),
            room: Room::default(),
            store: Arc::clone(store),
        };
        Self {
            meter: Arc::new(meter),
        }
    }
}

impl api::MeterProvider for MeterProvider {
    fn meter_with_scope(&self, _: InstrumentationScope) -> api::Meter {
        api::Meter::new(Arc::new(Instruments(Arc::clone(&self.meter))))
    }
}

/// What all instruments share.
#[derive(Debug)]
struct Meter {
    store: Arc<Store>,
    families: Families,
    lost: Lost,
    room: Room,
}

/// The meter as the API wants to have it.
struct Instruments(Arc<Meter>);

impl Instruments {
    fn named(
        &self,
        name: &str,
        unit: Option<Cow<'static, str>>,
        description: Option<Cow<'static, str>>,
    ) -> Named {
        Named {
            meter: Arc::clone(&self.0),
            name: name.to_owned(),
            unit: unit.unwrap_or_default().into_owned(),
            description: description.unwrap_or_default().into_owned(),
        }
    }

    fn instrument<T, H: Recording>(&self, builder: InstrumentBuilder<'_, T>) -> Arc<Instrument<H>> {
        let named = self.named(&builder.name, builder.unit, builder.description);
        Arc::new(Instrument::new(named))
    }

    fn histogram<T>(&self, builder: HistogramBuilder<'_, T>) -> Arc<Instrument<Distribution>> {
        let named = self.named(&builder.name, builder.unit, builder.description);
        Arc::new(Instrument::new(named))
    }

    fn observe<I, H: observed::Observed, M: observed::Number>(
        &self,
        builder: AsyncInstrumentBuilder<'_, I, M>,
    ) {
        let named = self.named(&builder.name, builder.unit, builder.description);
        observed::start::<H, M>(named, builder.callbacks);
    }
}

impl InstrumentProvider for Instruments {
    fn u64_counter(&self, builder: InstrumentBuilder<'_, api::Counter<u64>>) -> api::Counter<u64> {
        api::Counter::new(self.instrument::<_, Counter>(builder))
    }

    fn f64_counter(&self, builder: InstrumentBuilder<'_, api::Counter<f64>>) -> api::Counter<f64> {
        api::Counter::new(self.instrument::<_, ObservedCounter>(builder))
    }

    fn i64_up_down_counter(
        &self,
        builder: InstrumentBuilder<'_, api::UpDownCounter<i64>>,
    ) -> api::UpDownCounter<i64> {
        api::UpDownCounter::new(self.instrument::<_, UpDown>(builder))
    }

    fn f64_up_down_counter(
        &self,
        builder: InstrumentBuilder<'_, api::UpDownCounter<f64>>,
    ) -> api::UpDownCounter<f64> {
        api::UpDownCounter::new(self.instrument::<_, Added>(builder))
    }

    fn u64_gauge(&self, builder: InstrumentBuilder<'_, api::Gauge<u64>>) -> api::Gauge<u64> {
        api::Gauge::new(self.instrument::<_, Gauge>(builder))
    }

    fn f64_gauge(&self, builder: InstrumentBuilder<'_, api::Gauge<f64>>) -> api::Gauge<f64> {
        api::Gauge::new(self.instrument::<_, Gauge>(builder))
    }

    fn i64_gauge(&self, builder: InstrumentBuilder<'_, api::Gauge<i64>>) -> api::Gauge<i64> {
        api::Gauge::new(self.instrument::<_, Gauge>(builder))
    }

    fn f64_histogram(
        &self,
        builder: HistogramBuilder<'_, api::Histogram<f64>>,
    ) -> api::Histogram<f64> {
        api::Histogram::new(self.histogram(builder))
    }

    fn u64_histogram(
        &self,
        builder: HistogramBuilder<'_, api::Histogram<u64>>,
    ) -> api::Histogram<u64> {
        api::Histogram::new(self.histogram(builder))
    }

    fn u64_observable_counter(
        &self,
        builder: AsyncInstrumentBuilder<'_, ObservableCounter<u64>, u64>,
    ) -> ObservableCounter<u64> {
        self.observe::<_, ObservedCounter, _>(builder);
        ObservableCounter::new()
    }

    fn f64_observable_counter(
        &self,
        builder: AsyncInstrumentBuilder<'_, ObservableCounter<f64>, f64>,
    ) -> ObservableCounter<f64> {
        self.observe::<_, ObservedCounter, _>(builder);
        ObservableCounter::new()
    }

    fn i64_observable_up_down_counter(
        &self,
        builder: AsyncInstrumentBuilder<'_, ObservableUpDownCounter<i64>, i64>,
    ) -> ObservableUpDownCounter<i64> {
        self.observe::<_, Gauge, _>(builder);
        ObservableUpDownCounter::new()
    }

    fn f64_observable_up_down_counter(
        &self,
        builder: AsyncInstrumentBuilder<'_, ObservableUpDownCounter<f64>, f64>,
    ) -> ObservableUpDownCounter<f64> {
        self.observe::<_, Gauge, _>(builder);
        ObservableUpDownCounter::new()
    }

    fn u64_observable_gauge(
        &self,
        builder: AsyncInstrumentBuilder<'_, ObservableGauge<u64>, u64>,
    ) -> ObservableGauge<u64> {
        self.observe::<_, Gauge, _>(builder);
        ObservableGauge::new()
    }

    fn i64_observable_gauge(
        &self,
        builder: AsyncInstrumentBuilder<'_, ObservableGauge<i64>, i64>,
    ) -> ObservableGauge<i64> {
        self.observe::<_, Gauge, _>(builder);
        ObservableGauge::new()
    }

    fn f64_observable_gauge(
        &self,
        builder: AsyncInstrumentBuilder<'_, ObservableGauge<f64>, f64>,
    ) -> ObservableGauge<f64> {
        self.observe::<_, Gauge, _>(builder);
        ObservableGauge::new()
    }
}

#[cfg(test)]
mod tests;
