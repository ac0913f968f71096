//! What the host said as OTLP log records, with the ids of the request's trace.
//!
//! Source: opentelemetry-proto 1 and the logs data model.

use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::common::v1::AnyValue;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::logs::v1::{LogRecord, ResourceLogs, ScopeLogs};
use opentelemetry_proto::tonic::resource::v1::Resource;

use super::batch::{Batch, Clock, Message};
use super::{attribute, redact, scope, text};
use crate::store::metrics::TraceContext;
use crate::store::traces::LogRecord as Held;

/// Log records on their way into messages.
#[derive(Debug)]
pub(crate) struct LogEncoder<'a> {
    resource: &'a Resource,
    clock: Clock,
    batch: Batch<LogRecord>,
}

impl<'a> LogEncoder<'a> {
    pub(crate) fn new(resource: &'a Resource) -> Self {
        Self {
            resource,
            clock: Clock::now(),
            batch: Batch::default(),
        }
    }

    /// Adds a record; returns a message when there is enough for one.
    pub(crate) fn add(&mut self, record: &Held) -> Option<Message> {
        let unix_nanos = self.clock.unix_nanos(record.at);
        let context = record.context.map(|context| {
            let TraceContext { trace_id, span_id } = context;
            (
                trace_id.to_be_bytes().to_vec(),
                span_id.to_be_bytes().to_vec(),
            )
        });
        let (trace_id, span_id) = context.unwrap_or_default();
        let target = [attribute("code.namespace", record.target)];
        let fields = redact::fields(&record.fields).map(|(key, value)| text(key, value));
        self.batch.push(LogRecord {
            time_unix_nano: unix_nanos,
            observed_time_unix_nano: unix_nanos,
            severity_number: record.severity as i32,
            severity_text: record.severity.word().to_owned(),
            body: Some(AnyValue {
                value: Some(Value::StringValue(record.body.clone())),
            }),
            attributes: target.into_iter().chain(fields).collect(),
            trace_id,
            span_id,
            ..LogRecord::default()
        });
        self.batch.is_full().then(|| self.message()).flatten()
    }

    /// What has not been returned yet as a message.
    pub(crate) fn message(&mut self) -> Option<Message> {
        let resource = self.resource;
        self.batch.message(|log_records| ExportLogsServiceRequest {
            resource_logs: vec![ResourceLogs {
                resource: Some(resource.clone()),
                scope_logs: vec![ScopeLogs {
                    scope: Some(scope()),
                    log_records,
                    ..ScopeLogs::default()
                }],
                ..ResourceLogs::default()
            }],
        })
    }
}
