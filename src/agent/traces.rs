//! Starts the thread that makes messages of kept requests and of what the host said.

use std::sync::Arc;
use std::time::Duration;

use opentelemetry_proto::tonic::resource::v1::Resource;

use super::{Shared, threads};
use crate::config::otlp::Otlp;
use crate::config::traces::Sampling;
use crate::error::Error;
use crate::export::otlp::batch::Message;
use crate::export::otlp::logs::LogEncoder;
use crate::export::otlp::traces::SpanEncoder;
use crate::store::Store;

/// How long a kept request waits for others, and the stop for the thread.
const PERIOD: Duration = Duration::from_millis(250);

/// Takes messages on their way, each in turn and without waiting.
pub(super) trait Outbox: Send + 'static {
    fn spans(&mut self, message: Message);
    fn logs(&mut self, message: Message);
}

/// Begins to trace requests, and starts the thread, if spans are wanted.
///
/// # Errors
/// The thread's error when the operating system gives none.
pub(super) fn start(
    shared: &Shared,
    otlp: &Otlp,
    resource: Resource,
    mut outbox: impl Outbox,
) -> Result<(), Error> {
    let Some(sampling) = otlp.sampling else {
        return Ok(());
    };
    let target = shared.judge.latency_target();
    let sampling = Sampling {
        slow: sampling.slow.or(target),
        ..sampling
    };
    shared.store.traces.start(sampling, &shared.store.metrics);
    let inside = shared.clone();
    threads::start("sg-traces", "traces", shared, move || {
        while !inside.stop.is_asked() {
            inside.store.traces.wait(PERIOD);
            hand_over(&inside.store, &resource, &mut outbox);
        }
        hand_over(&inside.store, &resource, &mut outbox);
    })
}

/// Hands over all that is kept.
fn hand_over(store: &Arc<Store>, resource: &Resource, outbox: &mut impl Outbox) {
    let mut spans = SpanEncoder::new(resource, &store.traces.sites);
    let mut logs = LogEncoder::new(resource);
    store.traces.drain(|trace, kept| {
        spans
            .add(trace, kept)
            .into_iter()
            .for_each(|message| outbox.spans(message));
        let said = kept.logs.iter().filter_map(|record| logs.add(record));
        said.for_each(|message| outbox.logs(message));
    });
    let alone = store
        .traces
        .logs()
        .map(|logs| logs.drain())
        .unwrap_or_default();
    let said = alone.iter().filter_map(|record| logs.add(record));
    said.for_each(|message| outbox.logs(message));
    spans
        .message()
        .into_iter()
        .for_each(|message| outbox.spans(message));
    logs.message()
        .into_iter()
        .for_each(|message| outbox.logs(message));
}
