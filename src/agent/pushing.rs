//! Starts the threads that push to a collector, and stops the one that delivers what waits.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use super::traces::{self, Outbox};
use super::{Shared, pushing_profiles, threads};
use crate::collect::resource::detected;
use crate::error::Error;
use crate::export::delivery::{Delivery, PushSignal};
use crate::export::flushed::Flushed;
use crate::export::push::{MetricsPush, resource};
use crate::store::Store;

/// What is on its way to a collector.
#[derive(Default)]
pub(super) struct Pushing {
    /// `None` where nothing is pushed.
    delivery: Option<Arc<Delivery>>,
    store: Option<Arc<Store>>,
}

impl Pushing {
    /// Asks for what waits to be delivered within so long.
    pub(super) fn stop(&self, within: Duration) {
        if let Some(store) = &self.store {
            store.traces.wake();
        }
        if let Some(delivery) = &self.delivery {
            delivery.close(within);
        }
    }

    /// What became of it; what has not been delivered by now never is.
    pub(super) fn flushed(&self) -> Vec<Flushed> {
        let delivery = self.delivery.as_ref();
        delivery
            .map(|delivery| delivery.flushed())
            .unwrap_or_default()
    }
}

/// Starts them if there is anything to push.
///
/// # Errors
/// The thread's error when the operating system gives none.
pub(super) fn start(shared: &Shared) -> Result<Pushing, Error> {
    pushing_profiles::start_pyroscope(shared)?;
    let Some(otlp) = &shared.config.otlp else {
        return Ok(Pushing::default());
    };
    let delivery = Delivery::new(&shared.store, otlp);
    let sending = Arc::clone(&delivery);
    threads::start("sg-deliver", "deliver", shared, move || sending.run())?;
    let pushing = Pushing {
        delivery: Some(Arc::clone(&delivery)),
        store: Some(Arc::clone(&shared.store)),
    };
    let detected = detected(Path::new("/"));
    let detected = detected.iter().map(|(key, value)| (*key, &**value));
    let instance = instance_id();
    let own = [
        ("service.name", &*shared.config.service),
        ("service.instance.id", &instance),
        ("service.version", &shared.config.version),
        ("telemetry.sdk.language", "rust"),
        ("telemetry.sdk.name", env!("CARGO_PKG_NAME")),
        ("telemetry.sdk.version", env!("CARGO_PKG_VERSION")),
    ];
    let resource = resource(own.into_iter().chain(detected), otlp);
    // The one that runs already would wait for ever.
    let stop = |_: &Error| pushing.stop(Duration::ZERO);
    pushing_profiles::start(shared, &delivery, &resource).inspect_err(stop)?;
    let outbox = Outbox {
        spans: delivery.producer(PushSignal::Spans),
        logs: delivery.producer(PushSignal::Logs),
    };
    traces::start(shared, otlp, &resource, outbox).inspect_err(stop)?;
    let Some(mut metrics) = MetricsPush::new(&shared.store, otlp, resource) else {
        return Ok(pushing);
    };
    let inside = shared.clone();
    threads::start("sg-otlp", "otlp", shared, move || {
        while !inside.stop.is_asked() {
            let wait = metrics.turn();
            inside.stop.pause(wait);
        }
        // What was counted since the last push.
        metrics.push(match inside.stop.left() {
            // Nobody waits for it.
            Duration::ZERO => Duration::MAX,
            left => left,
        });
    })
    .inspect_err(stop)?;
    Ok(pushing)
}

/// A random UUID of version 4, without which two processes of a service would write the same series. The
/// standard library's hash keys bring the operating system's random numbers.
fn instance_id() -> String {
    let random = || RandomState::new().build_hasher().finish();
    let (high, low) = (random(), random());
    format!(
        "{:08x}-{:04x}-4{:03x}-{:04x}-{:012x}",
        high >> 32,
        high >> 16 & 0xffff,
        high & 0xfff,
        low >> 48 & 0x3fff | 0x8000,
        low & 0xffff_ffff_ffff,
    )
}

#[cfg(test)]
#[path = "pushing_tests.rs"]
mod tests;
