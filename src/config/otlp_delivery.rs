//! How long, and in how much room, spans, logs and profiles wait for a collector that is away.

use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use super::{Otlp, within};
use crate::error::Error;

/// What one signal may hold: at 1,000 spans of 500 bytes a second, a minute of outage.
const QUEUE_BYTES: usize = 32 << 20;
/// See [`QUEUE_BYTES`]; a queue smaller than the least could not hold one message.
const QUEUE_BYTES_RANGE: RangeInclusive<usize> = 1 << 20..=1 << 30;
/// Older news are worth less than the network and the collector's time that they take after an outage.
const QUEUE_AGE: Duration = Duration::from_secs(3600);
const QUEUE_AGE_MILLIS: RangeInclusive<u64> = 1_000..=24 * 3_600_000;
/// A quarter of an hour at the rate of [`QUEUE_BYTES`].
const SPOOL_BYTES: u64 = 512 << 20;
const SPOOL_BYTES_RANGE: RangeInclusive<u64> = 1 << 20..=16 << 30;

/// The least pause after a first failure, doubled with each further one up to [`BACKOFF_LAST`].
pub(crate) const BACKOFF_FIRST: Duration = Duration::from_secs(5);
/// See [`BACKOFF_FIRST`]; also the longest that a collector may have us wait.
pub(crate) const BACKOFF_LAST: Duration = Duration::from_secs(30);
/// How long a disk that failed is left alone.
pub(crate) const SPOOL_RETRY: Duration = Duration::from_secs(60);

/// The bounds of delivery.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Limits {
    /// Memory that one signal may take.
    pub(crate) queue_bytes: usize,
    /// After which an item is given up.
    pub(crate) queue_age: Duration,
    /// Where items outlive the process; `None`: nowhere.
    pub(crate) spool: Option<PathBuf>,
    /// What all signals together may take there.
    pub(crate) spool_bytes: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            queue_bytes: QUEUE_BYTES,
            queue_age: QUEUE_AGE,
            spool: None,
            spool_bytes: SPOOL_BYTES,
        }
    }
}

/// Delivery: what becomes of spans, logs and profiles while the collector is away.
impl Otlp {
    /// Gives each of spans, logs and profiles so much memory to wait for the collector in, 1 MiB to 1 GiB;
    /// 32 MiB without it. Beyond it the oldest go, and are counted in `agent_dropped_total`. A message on its
    /// way takes room of its own: packed, or read back from disk.
    ///
    /// # Errors
    /// If it is out of range.
    pub fn queue_bytes(mut self, bytes: usize) -> Result<Self, Error> {
        if !QUEUE_BYTES_RANGE.contains(&bytes) {
            return Err(Error::out_of_range("queue bytes", "1 MiB to 1 GiB", bytes));
        }
        self.delivery.queue_bytes = bytes;
        Ok(self)
    }

    /// Gives up what could not be delivered for so long, 1 s to 24 h; 1 h without it.
    ///
    /// # Errors
    /// If it is out of range.
    pub fn queue_age(mut self, age: Duration) -> Result<Self, Error> {
        self.delivery.queue_age = within("queue age", QUEUE_AGE_MILLIS, age)?;
        Ok(self)
    }

    /// Writes what waits into this directory, so that it outlives the process; it is made if need be, and
    /// belongs to one process at a time.
    ///
    /// What waits is on disk before the next attempt to send it begins. A kill, also by `kill -9`, loses
    /// none of that, and has at most one message delivered twice. A disk that is full or gone is tried again
    /// after a minute, and until then memory serves. Files are not synced: a power cut may lose the last
    /// seconds.
    ///
    /// # Errors
    /// If the path is empty.
    pub fn spool(mut self, directory: impl Into<PathBuf>) -> Result<Self, Error> {
        let directory = directory.into();
        if directory.as_os_str().is_empty() {
            return Err(Error::out_of_range("spool", "the path of a directory", ""));
        }
        self.delivery.spool = Some(directory);
        Ok(self)
    }

    /// Lets the [spool](Self::spool) take so much of its disk, 1 MiB to 16 GiB; 512 MiB without it. Beyond
    /// it the oldest go.
    ///
    /// # Errors
    /// If it is out of range.
    pub fn spool_bytes(mut self, bytes: u64) -> Result<Self, Error> {
        if !SPOOL_BYTES_RANGE.contains(&bytes) {
            return Err(Error::out_of_range("spool bytes", "1 MiB to 16 GiB", bytes));
        }
        self.delivery.spool_bytes = bytes;
        Ok(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_a_word_a_queue_has_32_mib_and_an_hour_and_no_disk() {
        let otlp = Otlp::to("http://c").unwrap();
        let expected = Limits {
            queue_bytes: 32 << 20,
            queue_age: Duration::from_secs(3600),
            spool: None,
            spool_bytes: 512 << 20,
        };
        assert_eq!(otlp.delivery, expected);
    }

    #[test]
    fn each_limit_is_taken_in_its_range_and_named_beyond_it() {
        let seconds = Duration::from_secs;
        let to = || Otlp::to("http://c").unwrap();
        assert_eq!(
            to().queue_bytes(1 << 20).unwrap().delivery.queue_bytes,
            1 << 20
        );
        assert_eq!(
            to().queue_age(seconds(86_400)).unwrap().delivery.queue_age,
            seconds(86_400)
        );
        assert_eq!(
            to().spool_bytes(16 << 30).unwrap().delivery.spool_bytes,
            16 << 30
        );
        let rows = [
            (
                to().queue_bytes(1 << 19),
                "queue bytes must be 1 MiB to 1 GiB (got \"524288\")",
            ),
            (
                to().queue_bytes((1 << 30) + 1),
                "queue bytes must be 1 MiB to 1 GiB (got \"1073741825\")",
            ),
            (
                to().queue_age(Duration::ZERO),
                "queue age must be 1000..=86400000 milliseconds (got \"0\")",
            ),
            (
                to().queue_age(seconds(86_401)),
                "queue age must be 1000..=86400000 milliseconds (got \"86401000\")",
            ),
            (
                to().spool(""),
                "spool must be the path of a directory (got \"\")",
            ),
            (
                to().spool_bytes(0),
                "spool bytes must be 1 MiB to 16 GiB (got \"0\")",
            ),
        ];
        for (refused, text) in rows {
            assert_eq!(refused.unwrap_err().to_string(), text);
        }
    }
}
