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
