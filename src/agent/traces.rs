//! Starts the thread that makes messages of kept requests and of what the host said.

use std::time::Duration;

use opentelemetry_otlp::SpanExporter;
use opentelemetry_proto::tonic::resource::v1::Resource;

use super::{Shared, threads};
use crate::config::otlp::Otlp;
use crate::config::traces::Sampling;
use crate::error::Error;
use crate::export::delivery::Producer;
use crate::export::otlp::exporter::{Exporter, LogRecords, Message};
use crate::export::otlp::logs::LogEncoder;
use crate::export::otlp::traces::SpanEncoder;
use crate::store::Store;
use crate::store::traces::Logs;

/// How long a kept request waits for others to go with it.
const PERIOD: Duration = Duration::from_millis(250);

/// Where messages go; `None`: nobody wants them.
pub(super) struct Outbox {
    pub(super) spans: Option<Producer>,
    pub(super) logs: Option<Producer>,
}

/// Begins to trace requests, and starts the thread, if spans are wanted.
///
/// # Errors
/// The thread's error when the operating system gives none, or an exporter's.
pub(super) fn start(
    shared: &Shared,
    otlp: &Otlp,
    resource: &Resource,
    outbox: Outbox,
) -> Result<(), Error> {
    let Some(sampling) = otlp.sampling.filter(|_| outbox.spans.is_some()) else {
        return Ok(());
    };
    let sampling = Sampling {
        slow: sampling.slow.or(shared.judge.latency_target()),
        ..sampling
    };
    let (store, has_logs) = (&shared.store, outbox.logs.is_some());
    store.traces.start(sampling, has_logs, &store.metrics);
    let inside = shared.clone();
    let spans = Exporter::of_spans(store, resource)?;
    let logs = Exporter::of_logs(store, resource)?;
    threads::start("sg-traces", "traces", shared, move || {
        while !inside.stop.is_asked() {
            inside.store.traces.wait(PERIOD);
            outbox.take(&inside.store, &spans, &logs);
        }
        outbox.take(&inside.store, &spans, &logs);
    })
}

impl Outbox {
    /// Takes over all that is kept.
    fn take(&self, store: &Store, spans: &Exporter<SpanExporter>, logs: &Exporter<LogRecords>) {
        let send = |to: &Option<Producer>, message: Option<Message>| {
            if let (Some(producer), Some(message)) = (to, message) {
                producer.enqueue(message.body, message.items);
            }
        };
        let mut spans = SpanEncoder::new(spans, &store.traces.sites);
        let mut logs = LogEncoder::new(logs);
        store.traces.drain(|trace, kept| {
            send(&self.spans, spans.add(trace, kept));
            for record in &kept.logs {
                send(&self.logs, logs.add(record));
            }
        });
        let alone = store.traces.logs().map(Logs::drain);
        for record in alone.iter().flatten() {
            send(&self.logs, logs.add(record));
        }
        send(&self.spans, spans.message());
        send(&self.logs, logs.message());
    }
}
