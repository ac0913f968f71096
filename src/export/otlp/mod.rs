//! Shows everything in OpenTelemetry's protocol, version 1: protobuf messages for a collector.
//!
//! Only what stands in the messages; how they get there is `serve`'s.

pub(crate) mod exponential;
pub(crate) mod metrics;
mod redact;
pub(crate) mod traces;
#[cfg(test)]
mod traces_tests;

use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, InstrumentationScope, KeyValue};

/// An attribute with a text for a value.
pub(crate) fn attribute(key: &str, value: &str) -> KeyValue {
    valued(key, Value::StringValue(value.to_owned()))
}

/// An attribute with a whole number for a value; beyond 2^63 it is the largest.
fn number(key: &str, value: u64) -> KeyValue {
    valued(
        key,
        Value::IntValue(i64::try_from(value).unwrap_or(i64::MAX)),
    )
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
