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

/// Begins to trace requests if spans are wanted and to keep log records if those are, and starts the thread.
///
/// # Errors
/// The thread's error when the operating system gives none, or an exporter's.
pub(super) fn start(
    shared: &Shared,
    otlp: &Otlp,
    resource: &Resource,
    outbox: Outbox,
) -> Result<(), Error> {
    let (store, has_logs) = (&shared.store, outbox.logs.is_some());
    match otlp.sampling.filter(|_| outbox.spans.is_some()) {
        Some(sampling) => {
            let sampling = Sampling {
                slow: sampling.slow.or(shared.judge.latency_target()),
                ..sampling
            };
            store.traces.start(sampling, has_logs, &store.metrics);
        }
        None if has_logs => store.traces.keep_logs(&store.metrics),
        None => return Ok(()),
    }
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

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;
    use crate::agent::shared_tests::shared;
    use crate::export::delivery::{Delivery, PushSignal};
    use crate::export::flushed::Flushed;
    use crate::store::traces::{LogRecord, Severity};

    #[test]
    fn log_records_are_pushed_where_spans_are_not_wanted() {
        let shared = shared();
        let otlp = Otlp {
            spans: None,
            sampling: None,
            ..Otlp::to("http://127.0.0.1:9").unwrap()
        };
        let delivery = Delivery::new(&shared.store, &otlp);
        let outbox = Outbox {
            spans: delivery.producer(PushSignal::Spans),
            logs: delivery.producer(PushSignal::Logs),
        };
        start(&shared, &otlp, &Resource::default(), outbox).unwrap();
        assert!(!shared.store.traces.is_on());
        let logs = shared.store.traces.logs().expect("they are wanted");
        logs.keep(LogRecord {
            at: Instant::now(),
            severity: Severity::Info,
            target: "shop",
            body: "order placed".to_owned(),
            fields: Vec::new(),
            context: None,
        });
        shared.stop.ask(Duration::ZERO);
        assert_eq!(shared.stop.wait(Duration::from_secs(60)), [""; 0]);
        // Nobody sends here: what was handed over is lost, and counted.
        delivery.close(Duration::ZERO);
        let handed_over = Flushed {
            signal: "logs",
            delivered: 0,
            kept: 0,
            lost: 1,
        };
        assert_eq!(delivery.flushed(), [handed_over]);
    }
}
