//! Instruments that are told each event: a series for each set of attributes.

use std::borrow::Cow;
use std::sync::Arc;

use opentelemetry::KeyValue;
use opentelemetry::metrics::SyncInstrument;

use super::Meter;
use super::unit::{self, Translated};
use crate::catalog::Metric;
use crate::error::Error;
use crate::instrument::known::Known;
use crate::instrument::undeclared::{Distribution, Lost, Told, Use};
use crate::store::metrics::{Counter, Gauge, Metrics, ObservedCounter, UpDown};

/// An instrument as it was asked for.
pub(super) struct Named {
    pub(super) meter: Arc<Meter>,
    pub(super) name: String,
    pub(super) unit: String,
    pub(super) description: String,
}

impl Named {
    /// The name as it is shown, described if it was.
    pub(super) fn translated(&self, used: Use) -> Translated {
        let translated = unit::translated(used, &self.name, &self.unit);
        if !self.description.is_empty() {
            let families = &self.meter.families;
            families.describe(used, &translated.name, None, &self.description);
        }
        translated
    }
}

/// A handle on a series, found when its attributes are seen for the first time.
pub(super) trait Recording: Clone + Send + Sync + 'static {
    const USE: Use;

    fn find(core: &Metrics, metric: &Metric, values: &[&str]) -> Result<Self, Error>;
}

impl Meter {
    /// Finds the series of an instrument with these attributes.
    pub(super) fn series<H: Recording>(
        &self,
        translated: &Translated,
        attributes: &[KeyValue],
    ) -> Option<H> {
        let values: Vec<Cow<'_, str>> = attributes.iter().map(|one| one.value.as_str()).collect();
        let labels = attributes.iter().zip(&values);
        let labels = labels.map(|(one, value)| (one.key.as_str(), &**value));
        let labels: Vec<_> = labels.collect();
        let told = Told {
            name: &translated.name,
            otel_name: translated.otel_name.as_deref(),
            labels: &labels,
        };
        self.families.series(H::USE, told, H::find)
    }
}

pub(super) struct Instrument<H> {
    meter: Arc<Meter>,
    translated: Translated,
    known: Known<Vec<KeyValue>, H>,
}

impl<H: Recording> Instrument<H> {
    pub(super) fn new(named: Named) -> Self {
        Self {
            translated: named.translated(H::USE),
            known: Known::new(&named.meter.room),
            meter: named.meter,
        }
    }

    fn with(&self, attributes: &[KeyValue], record: impl FnOnce(&H)) {
        let bytes = || {
            let texts = attributes.iter();
            texts
                .map(|one| one.key.as_str().len() + one.value.as_str().len())
                .sum()
        };
        let make = |_| self.meter.series(&self.translated, attributes);
        if let Some(handle) = self.known.get(attributes, bytes, make) {
            record(&handle);
        }
    }

    fn lost(&self) -> &Lost {
        &self.meter.lost
    }
}

/// A gauge that is raised and lowered.
#[derive(Clone)]
pub(super) struct Added(Gauge);

macro_rules! recording {
    ($handle:ty, $use:expr, $find:expr) => {
        impl Recording for $handle {
            const USE: Use = $use;

            fn find(core: &Metrics, metric: &Metric, values: &[&str]) -> Result<Self, Error> {
                $find(core, metric, values)
            }
        }
    };
}

recording!(Counter, Use::Counter, Metrics::counter);
recording!(ObservedCounter, Use::Total, Metrics::observed_counter);
recording!(UpDown, Use::UpDown, Metrics::up_down);
recording!(Gauge, Use::Gauge, Metrics::gauge);
recording!(Distribution, Use::Histogram, Distribution::find);
recording!(Added, Use::Gauge, |core: &Metrics, metric, values| core
    .gauge(metric, values)
    .map(Added));

macro_rules! measured {
    ($handle:ty, $number:ty, $record:expr) => {
        impl SyncInstrument<$number> for Instrument<$handle> {
            fn measure(&self, measurement: $number, attributes: &[KeyValue]) {
                $record(self, measurement, attributes);
            }
        }
    };
}

type Of<H> = Instrument<H>;

measured!(Counter, u64, |of: &Of<_>, events, attributes| {
    of.with(attributes, |counter: &Counter| counter.add(events));
});
measured!(
    ObservedCounter,
    f64,
    |of: &Of<_>, more: f64, attributes| if of.lost().fits(more) {
        of.with(attributes, |total: &ObservedCounter| total.add(more));
    }
);
measured!(UpDown, i64, |of: &Of<_>, difference, attributes| {
    of.with(attributes, |number: &UpDown| number.add(difference));
});
measured!(Added, f64, |of: &Of<_>, difference: f64, attributes| {
    if !difference.is_nan() || of.lost().fits(difference) {
        of.with(attributes, |number: &Added| number.0.add(difference));
    }
});
measured!(Gauge, f64, |of: &Of<_>, value, attributes| {
    of.with(attributes, |gauge: &Gauge| gauge.set(value));
});
measured!(Gauge, u64, |of: &Of<_>, value: u64, attributes| {
    of.with(attributes, |gauge: &Gauge| gauge.set(value as f64));
});
measured!(Gauge, i64, |of: &Of<_>, value: i64, attributes| {
    of.with(attributes, |gauge: &Gauge| gauge.set(value as f64));
});
measured!(
    Distribution,
    f64,
    |of: &Of<_>, value: f64, attributes| if of.lost().fits(value) {
        of.with(attributes, |values: &Distribution| values.record(value));
    }
);
measured!(Distribution, u64, |of: &Of<_>, value: u64, attributes| {
    of.with(attributes, |values: &Distribution| {
        values.record(value as f64);
    });
});
