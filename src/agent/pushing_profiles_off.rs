//! Pushes no profiles: the feature `otlp-profiles` is not built.

use std::sync::Arc;

use opentelemetry_proto::tonic::resource::v1::Resource;

use super::Shared;
use crate::error::Error;
use crate::export::delivery::Delivery;

/// Does nothing.
///
/// # Errors
/// None.
pub(super) fn start(
    _shared: &Shared,
    _delivery: &Arc<Delivery>,
    _resource: &Resource,
) -> Result<(), Error> {
    Ok(())
}

/// Does nothing.
///
/// # Errors
/// None.
pub(super) fn start_pyroscope(shared: &Shared) -> Result<(), Error> {
    match &shared.config.pyroscope {
        None => Ok(()),
        Some(never) => match *never {},
    }
}
