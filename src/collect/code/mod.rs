//! What addresses of code mean: which module they lie in, how a stack goes on above them, and what
//! function and line they are. Shared by every profile that has stacks.

#[cfg(target_os = "linux")]
pub(in crate::collect) mod unwind;

pub(in crate::collect) mod desk;
mod dwarf;
mod elf;
#[cfg_attr(not(feature = "otlp-profiles"), path = "htlhash_off.rs")]
mod htlhash;
pub(in crate::collect) mod modules;
pub(in crate::collect) mod symbols;
pub(in crate::collect) mod tables;
