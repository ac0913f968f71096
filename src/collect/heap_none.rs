//! Stands where the allocator's samples would be read: other systems than Linux, and builds without
//! profiling.

use std::sync::Arc;

use crate::config::Config;
use crate::error::Error;
use crate::store::Store;
use crate::store::heap::Recording;

/// There are no samples here.
pub(crate) fn begin(store: &Store, _config: &Config) -> Recording {
    let why = "heap profiles need Linux on x86-64 or aarch64; nothing is recorded here";
    *store.heap.recording.get_or_init(|| Recording::Off(why))
}

/// The calling thread's allocations are not sampled, nor are any others.
pub(crate) fn leave_out_this_thread() {}

/// Never made, since nothing is recorded.
#[derive(Debug)]
pub(crate) struct HeapCollector;

impl HeapCollector {
    pub(crate) fn new(_store: Arc<Store>, _config: &Config) -> Result<Self, Error> {
        Ok(Self)
    }

    pub(crate) fn turn(&mut self) {}

    pub(crate) fn stop(&mut self) {}
}
