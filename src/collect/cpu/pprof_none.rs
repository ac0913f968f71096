//! Stands where the CPU engine would be on a platform that has none.
#![cfg_attr(
    target_os = "linux",
    expect(dead_code, reason = "compiled to stay whole; Linux has timers")
)]

use std::time::Duration;

use super::{Clocks, CpuEngine, Sink};
use crate::config::{SampleRate, sampling};
use crate::store::Unavailable;

/// Cannot be started.
#[derive(Debug, Default)]
pub(super) struct Engine;

impl CpuEngine for Engine {
    fn start(&mut self, _rate: SampleRate) -> Result<(), Unavailable> {
        Err(Unavailable(
            "CPU profiles need Linux on x86-64 or aarch64; on other Unixes the feature `pprof` of \
             streamgate-agent brings them"
                .to_owned(),
        ))
    }

    fn drain(&mut self, _sink: &mut Sink<'_>) {}

    fn stop(&mut self) {}

    fn name(&self) -> &'static str {
        "none"
    }

    fn leaves_out(&self) -> Option<&'static str> {
        None
    }

    fn interval(&self) -> Duration {
        sampling::BUCKET
    }
}

/// Not known where nothing is sampled.
pub(super) fn clocks() -> Clocks {
    Clocks::default()
}

/// Not counted by this engine.
pub(super) fn signals() -> Option<[u64; 3]> {
    None
}

/// Nothing is sampled.
pub(super) fn thread_started() {}

/// Threads are not told apart here.
pub(super) fn own_thread_ends() {}
