//! Pushes no profiles: the feature `otlp-profiles` is not built.

use opentelemetry_proto::tonic::resource::v1::Resource;

use super::Shared;
use crate::error::Error;

/// Does nothing.
///
/// # Errors
/// None.
pub(super) fn start(_shared: &Shared, _resource: &Resource) -> Result<(), Error> {
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
