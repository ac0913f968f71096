//! Starts the threads that push profiles.

use std::sync::Arc;

use opentelemetry_proto::tonic::resource::v1::Resource;

use super::{Shared, threads};
use crate::error::Error;
use crate::export::delivery::Delivery;
use crate::export::push::profiles::ProfilesPush;
use crate::export::push::{otlp_profiles, pyroscope};

/// Starts the one that pushes to a collector, if profiles are to go there.
///
/// # Errors
/// The thread's error when the operating system gives none.
pub(super) fn start(
    shared: &Shared,
    delivery: &Arc<Delivery>,
    resource: &Resource,
) -> Result<(), Error> {
    let push = otlp_profiles::push(&shared.store, delivery, resource.clone());
    run(shared, "sg-otlp-prof", "otlp_profiles", push)
}

/// Starts the one that pushes to Pyroscope, if there is one.
///
/// # Errors
/// The thread's error when the operating system gives none.
pub(super) fn start_pyroscope(shared: &Shared) -> Result<(), Error> {
    let config = &shared.config;
    let push = config.pyroscope.as_ref();
    let push = push.map(|target| pyroscope::push(&shared.store, target, &config.service));
    run(shared, "sg-pyroscope", "pyroscope", push)
}

fn run(
    shared: &Shared,
    name: &'static str,
    component: &'static str,
    push: Option<ProfilesPush>,
) -> Result<(), Error> {
    let Some(mut push) = push.filter(|_| shared.config.profiling) else {
        return Ok(());
    };
    let inside = shared.clone();
    threads::start(name, component, shared, move || {
        while !inside.stop.is_asked() {
            let wait = push.turn();
            inside.stop.pause(wait);
        }
        push.last(inside.stop.left());
    })
}
