//! Whether the process holds more memory than its soft limit.
//!
//! Go's garbage collector works harder near `GOMEMLIMIT`; Rust has none, and what can give memory
//! back is the host's caches. So they are told early enough, and as soon as there is room again.

use crate::config;

/// How much of its soft limit the process holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum PressureLevel {
    /// Below it.
    #[default]
    Normal,
    /// Above it, or above 15/16 of it and not lower since it was above.
    High,
}

/// Memory of the process against its soft limit, at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(
    clippy::exhaustive_structs,
    reason = "hosts write it as a literal to test what they do under pressure"
)]
pub struct MemoryPressure {
    /// What it means.
    pub level: PressureLevel,
    /// Resident memory of the process.
    pub used_bytes: u64,
    /// The share of the memory limit that [`Builder::memory_soft_limit`] chose.
    ///
    /// [`Builder::memory_soft_limit`]: crate::Builder::memory_soft_limit
    pub soft_limit_bytes: u64,
}

impl MemoryPressure {
    /// Bytes above the soft limit; 0 below it.
    ///
    /// ```
    /// use streamgate_agent::{MemoryPressure, PressureLevel};
    ///
    /// let pressure = MemoryPressure {
    ///     level: PressureLevel::High,
    ///     used_bytes: 900 << 20,
    ///     soft_limit_bytes: 800 << 20,
    /// };
    /// assert_eq!(pressure.over_bytes(), 100 << 20);
    /// ```
    pub const fn over_bytes(self) -> u64 {
        self.used_bytes.saturating_sub(self.soft_limit_bytes)
    }
}

/// What a reading says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Judged {
    pub(crate) pressure: MemoryPressure,
    /// The level is another than at the last reading; at the first one, than normal.
    pub(crate) changed: bool,
}

/// Judges reading after reading, so that memory at the limit is one change and not many.
#[derive(Debug)]
pub(crate) struct PressureWatch {
    share: f64,
    level: PressureLevel,
}

impl PressureWatch {
    /// `share` of the memory limit is the soft limit.
    pub(crate) fn new(share: f64) -> Self {
        Self {
            share,
            level: PressureLevel::default(),
        }
    }

    /// Judges resident memory against a limit, in bytes; `None` where either is not known, which
    /// changes nothing.
    pub(crate) fn judge(&mut self, used: Option<f64>, limit: Option<f64>) -> Option<Judged> {
        let (used, soft) = (used?, limit? * self.share);
        let bound = match self.level {
            PressureLevel::Normal => soft,
            PressureLevel::High => soft * config::MEMORY_RELIEF,
        };
        let level = if used > bound {
            PressureLevel::High
        } else {
            PressureLevel::Normal
        };
        let changed = level != self.level;
        self.level = level;
        Some(Judged {
            pressure: MemoryPressure {
                level,
                used_bytes: whole(used),
                soft_limit_bytes: whole(soft),
            },
            changed,
        })
    }
}

#[expect(
    clippy::cast_possible_truncation,
    reason = "parts of bytes are of no use, and the cast saturates"
)]
const fn whole(bytes: f64) -> u64 {
    bytes as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: f64 = 1000.0;

    fn judged(level: PressureLevel, used_bytes: u64, changed: bool) -> Option<Judged> {
        let pressure = MemoryPressure {
            level,
            used_bytes,
            soft_limit_bytes: 800,
        };
        Some(Judged { pressure, changed })
    }

    #[test]
    fn pressure_begins_above_the_soft_limit_and_ends_five_points_below() {
        use PressureLevel::{High, Normal};
        let mut watch = PressureWatch::new(0.8);
        let rows = [
            (10, Normal, false),
            (760, Normal, false),
            (800, Normal, false),
            (801, High, true),
            (950, High, false),
            (799, High, false),
            (751, High, false),
            (750, Normal, true),
            (799, Normal, false),
            (801, High, true),
            (0, Normal, true),
        ];
        for (used, level, changed) in rows {
            let seen = watch.judge(Some(used as f64), Some(LIMIT));
            assert_eq!(seen, judged(level, used, changed), "{used}");
        }
    }

    #[test]
    fn a_missing_reading_says_nothing_and_changes_nothing() {
        let mut watch = PressureWatch::new(0.8);
        for (used, limit) in [(None, Some(LIMIT)), (Some(900.0), None), (None, None)] {
            assert_eq!(watch.judge(used, limit), None);
        }
        watch.judge(Some(900.0), Some(LIMIT));
        assert_eq!(watch.judge(None, Some(LIMIT)), None);
        let seen = watch.judge(Some(760.0), Some(LIMIT));
        assert_eq!(seen, judged(PressureLevel::High, 760, false));
    }

    #[test]
    fn a_limit_that_is_raised_ends_the_pressure() {
        let mut watch = PressureWatch::new(0.8);
        watch.judge(Some(900.0), Some(LIMIT));
        let seen = watch.judge(Some(900.0), Some(2.0 * LIMIT)).unwrap();
        assert_eq!(seen.pressure.level, PressureLevel::Normal);
        assert!(seen.changed);
        assert_eq!(seen.pressure.soft_limit_bytes, 1600);
    }

    #[test]
    fn bytes_over_are_none_below_the_soft_limit() {
        let mut watch = PressureWatch::new(0.5);
        let mut over = |used| watch.judge(Some(used), Some(LIMIT)).unwrap().pressure;
        assert_eq!(over(499.0).over_bytes(), 0);
        assert_eq!(over(700.0).over_bytes(), 200);
    }
}
