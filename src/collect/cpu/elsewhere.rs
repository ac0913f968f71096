//! The CPU engine of platforms other than Linux: the `pprof` crate if it is built in.

pub(super) use super::pprof_engine::{Engine, clocks, own_thread_ends, signals, thread_started};
