//! Shows everything in OpenTelemetry's protocol, version 1: protobuf messages for a collector.
//!
//! Only what stands in the messages; how they get there is `push`'s.

pub(crate) mod batch;
pub(crate) mod exponential;
pub(crate) mod exporter;
pub(crate) mod logs;
pub(crate) mod metrics;
mod parts;
#[cfg(feature = "otlp-profiles")]
pub(crate) mod profiles;
mod redact;
pub(crate) mod traces;
#[cfg(test)]
mod traces_tests;

use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, InstrumentationScope, KeyValue};

use crate::store::traces::cut;

/// Bytes of a value of an attribute of a span or a log record.
const VALUE_BYTES: usize = 1 << 10;

/// An attribute with a text for a value.
pub(crate) fn attribute(key: &str, value: &str) -> KeyValue {
    valued(key, Value::StringValue(value.to_owned()))
}

/// An attribute of the SDK's with no more than 1 KiB of a text.
fn text(key: &'static str, value: &str) -> opentelemetry::KeyValue {
    opentelemetry::KeyValue::new(key, short(value).to_owned())
}

/// One with a whole number for a value; beyond 2^63 it is the largest.
fn number(key: &'static str, value: u64) -> opentelemetry::KeyValue {
    opentelemetry::KeyValue::new(key, i64::try_from(value).unwrap_or(i64::MAX))
}

/// No more than 1 KiB of a text.
fn short(value: &str) -> &str {
    cut(value, VALUE_BYTES)
}

fn valued(key: &str, value: Value) -> KeyValue {
    KeyValue {
        key: key.to_owned(),
        value: Some(AnyValue { value: Some(value) }),
        ..KeyValue::default()
    }
}

/// Who measured.
fn scope() -> InstrumentationScope {
    InstrumentationScope {
        name: env!("CARGO_PKG_NAME").to_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        ..InstrumentationScope::default()
    }
}
