//! Shows everything in OpenTelemetry's protocol, version 1: protobuf messages for a collector.
//!
//! Only what stands in the messages; how they get there is `push`'s.

pub(crate) mod exponential;
pub(crate) mod metrics;

use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue};

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
