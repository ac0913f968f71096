//! Memory and threads that requests share: buffers, compressors, workers, and what workers run.
//!
//! Owns: how many of each there are and what happens when there are no more. May use: the handles of the
//! agent, the fault switches. Absent: HTTP, SQL.
//!
//! Guide 4.2 (object pooling), 6.2 (bounded workers), 6.3 (algorithms).

use std::io;

use crate::observe::Observe;

pub(crate) mod buffers;
pub(crate) mod duplicates;
pub(crate) mod gzip;
pub(crate) mod workers;

/// One of each.
#[derive(Debug)]
pub(crate) struct Work {
    pub(crate) buffers: buffers::Buffers,
    pub(crate) gzip: gzip::Gzip,
    pub(crate) workers: workers::Workers,
}

impl Work {
    /// Empty pools, and workers with a queue for so many jobs.
    ///
    /// # Errors
    /// The system gives no threads.
    pub(crate) fn new(observe: &Observe, job_queue: usize) -> io::Result<Self> {
        let buffers = buffers::Buffers::new(&observe.agent, &observe.faults);
        Ok(Self {
            gzip: gzip::Gzip::new(&observe.agent, &observe.faults, &buffers),
            workers: workers::Workers::new(&observe.agent, job_queue)?,
            buffers,
        })
    }
}
