//! What the host said as OTLP log records, with the ids of the request's trace.
//!
//! Source: OpenTelemetry's logs data model.

use opentelemetry::logs::{AnyValue, LogRecord as _, Severity};
use opentelemetry_sdk::logs::SdkLogRecord;

use super::batch::{Batch, Clock};
use super::exporter::{Exporter, LogRecords, Message};
use super::{redact, short};
use crate::store::metrics::TraceContext;
use crate::store::traces::{LogRecord as Held, Severity as Told};

/// Bytes of a record beside its texts: ids, times, numbers, and the lengths before all of them.
const RECORD_BYTES: usize = 128;
/// Bytes of an attribute beside its texts.
const ATTRIBUTE_BYTES: usize = 24;

/// Log records on their way into messages.
#[derive(Debug)]
pub(crate) struct LogEncoder<'a> {
    exporter: &'a Exporter<LogRecords>,
    clock: Clock,
    batch: Batch<SdkLogRecord>,
}

impl<'a> LogEncoder<'a> {
    pub(crate) fn new(exporter: &'a Exporter<LogRecords>) -> Self {
        Self {
            exporter,
            clock: Clock::now(),
            batch: Batch::default(),
        }
    }

    /// Adds a record; returns a message when there is enough for one.
    pub(crate) fn add(&mut self, held: &Held) -> Option<Message> {
        let at = self.clock.system_time(held.at);
        let mut record = self.exporter.record();
        record.set_timestamp(at);
        record.set_observed_timestamp(at);
        record.set_severity_number(severity(held.severity));
        record.set_severity_text(held.severity.word());
        record.set_body(AnyValue::from(held.body.clone()));
        record.add_attribute("code.namespace", held.target);
        let mut bytes = RECORD_BYTES + held.body.len() + ATTRIBUTE_BYTES + held.target.len();
        for (key, value) in redact::fields(&held.fields) {
            let value = short(value);
            bytes += ATTRIBUTE_BYTES + key.len() + value.len();
            record.add_attribute(key, value.to_owned());
        }
        if let Some(TraceContext { trace_id, span_id }) = held.context {
            record.set_trace_context(trace_id.into(), span_id.into(), None);
        }
        self.batch.push(record, bytes);
        self.batch.is_full().then(|| self.message()).flatten()
    }

    /// What has not been returned yet as a message.
    pub(crate) fn message(&mut self) -> Option<Message> {
        self.exporter.message(&self.batch.take())
    }
}

fn severity(told: Told) -> Severity {
    match told {
        Told::Trace => Severity::Trace,
        Told::Debug => Severity::Debug,
        Told::Info => Severity::Info,
        Told::Warn => Severity::Warn,
        Told::Error => Severity::Error,
    }
}
