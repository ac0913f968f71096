//! The CPU engine of platforms other than Linux: the `pprof` crate if it is built in.

pub(super) use super::cpu_pprof::{Engine, host_cpu, signals};
