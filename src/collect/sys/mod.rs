//! The only unsafe code of the crate.

#[cfg_attr(
    not(all(
        feature = "profiling",
        target_os = "linux",
        any(target_arch = "x86_64", target_arch = "aarch64")
    )),
    path = "heap_off.rs"
)]
pub(crate) mod heap;
#[cfg(all(
    feature = "profiling",
    target_os = "linux",
    any(target_arch = "x86_64", target_arch = "aarch64")
))]
pub(crate) mod sampling;
#[cfg(feature = "host")]
pub(crate) mod space;
pub(crate) mod usage;
