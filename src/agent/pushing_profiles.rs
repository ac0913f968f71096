//! Starts the thread that pushes profiles.

use opentelemetry_proto::tonic::resource::v1::Resource;

use super::Shared;
use super::threads;
use crate::error::Error;
use crate::export::push::profiles::ProfilesPush;

/// Starts it if there is anywhere to push to and anything to push.
///
/// # Errors
/// The thread's error when the operating system gives none.
pub(super) fn start(shared: &Shared, resource: &Resource) -> Result<(), Error> {
    let config = &shared.config;
    let otlp = config.otlp.as_ref().filter(|_| config.profiling);
    let push = otlp.and_then(|otlp| ProfilesPush::new(&shared.store, otlp, resource.clone()));
    let Some(mut push) = push else {
        return Ok(());
    };
    let inside = shared.clone();
    threads::start("sg-otlp-prof", "otlp_profiles", shared, move || {
        while !inside.stop.is_asked() {
            let wait = push.turn();
            inside.stop.pause(wait);
        }
    })
}
