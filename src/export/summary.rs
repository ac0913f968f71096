//! A profile in one line: how long, how often, how much of the truth.

use crate::store::profile::{CPU, Profile};

pub(super) fn summary(profile: &Profile) -> String {
    let accounting = &profile.accounting;
    // Only CPU time can be compared with what the kernel counted.
    let coverage = match accounting.coverage {
        Some(share) => format!(", coverage {share:.2}"),
        None if profile.period_type == CPU => ", coverage not known".to_owned(),
        None => String::new(),
    };
    let rate = if profile.period_type.unit == "nanoseconds" && profile.period > 0 {
        // Rounded: the period of 99 Hz is not a whole number of nanoseconds.
        let hertz = (1_000_000_000 + profile.period / 2) / profile.period;
        format!("{hertz} Hz, ")
    } else {
        String::new()
    };
    let span = if profile.duration.is_zero() {
        "at one moment".to_owned()
    } else {
        format!("{:.1} s", profile.duration.as_secs_f64())
    };
    let counted = match profile.period_type.name {
        "contentions" => "waits",
        "goroutine" => "open requests",
        "threadcreate" => "threads",
        _ => "samples",
    };
    format!("{span}, {rate}{} {counted}{coverage}", accounting.recorded)
}
