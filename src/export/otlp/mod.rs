//! Shows everything in OpenTelemetry's protocol, version 1: protobuf messages for a collector.
//!
//! Only what stands in the messages; how they get there is `push`'s.

pub(crate) mod exponential;
pub(crate) mod metrics;
#[cfg(feature = "otlp-profiles")]
pub(crate) mod profiles;

use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, InstrumentationScope, KeyValue};

/// Who says it.
fn scope() -> InstrumentationScope {
    InstrumentationScope {
        name: env!("CARGO_PKG_NAME").to_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        ..InstrumentationScope::default()
    }
}

/// An attribute with a text for a value.
pub(crate) fn attribute(key: &str, value: &str) -> KeyValue {
    KeyValue {
        key: key.to_owned(),
        value: Some(AnyValue {
            value: Some(Value::StringValue(value.to_owned())),
        }),
        ..KeyValue::default()
    }
}
