//! The signal handler that takes samples, and all that it shares with the threads around it.

pub(crate) mod arena;
pub(crate) mod ask;
mod bits;
mod even;
pub(crate) mod handler;
pub(crate) mod modules;
pub(crate) mod records;
mod registers;
pub(crate) mod rehearsal;
pub(crate) mod sampler;
pub(crate) mod signal;
pub(crate) mod timer;
