//! CPU samples of the last minutes.

use std::sync::Mutex;

use super::stacks::Limits;
use super::windows::{WindowLimits, Windows};
use crate::config::sampling;

/// What the profiling thread gathers.
#[derive(Debug)]
pub(crate) struct Samples {
    pub(crate) windows: Mutex<Windows>,
}

impl Default for Samples {
    fn default() -> Self {
        let limits = WindowLimits {
            age: sampling::RECORDER,
            bytes: sampling::RECORDER_BYTES,
            stacks: Limits {
                count: sampling::STACKS,
                bytes: sampling::STACK_BYTES,
            },
            threads: Limits {
                count: sampling::THREAD_NAMES,
                bytes: sampling::THREAD_NAME_BYTES,
            },
            traces: Limits {
                count: sampling::TRACES,
                bytes: sampling::TRACE_BYTES,
            },
        };
        Self {
            windows: Mutex::new(Windows::new(limits)),
        }
    }
}
