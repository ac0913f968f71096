//! The only unsafe code of the crate.

#[cfg(feature = "host")]
pub(crate) mod space;
pub(crate) mod usage;
