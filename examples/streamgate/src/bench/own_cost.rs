//! Processor time that this process has used.

use std::time::Duration;

/// Clock ticks per second in `/proc/*/stat`. The kernel scales to 100 on every platform that Rust's
/// standard library supports with this file, whatever its own tick is (man 5 proc, `USER_HZ`).
const TICKS_PER_SECOND: u64 = 100;

/// User plus system time of all threads, in steps of 10 ms; nothing where `/proc` does not tell.
pub(crate) fn cpu_time() -> Option<Duration> {
    parse(&std::fs::read_to_string("/proc/self/stat").ok()?)
}

fn parse(stat: &str) -> Option<Duration> {
    // The program's name may hold spaces and brackets: fields count from the last bracket on.
    let (_, fields) = stat.rsplit_once(')')?;
    let mut fields = fields.split_ascii_whitespace().skip(11);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    Some(Duration::from_millis(
        (user + system) * 1000 / TICKS_PER_SECOND,
    ))
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    #[test]
    fn brackets_and_spaces_in_the_name_do_not_shift_the_fields() {
        let stat = "42 (a) R 9) S 1 42 42 0 -1 4194304 100 0 0 0 250 50 7 7 20 0 3 0 1000 1 1 1";
        assert_eq!(parse(stat), Some(Duration::from_secs(3)));
    }

    #[test]
    fn text_without_the_fields_gives_nothing() {
        assert_eq!(parse(""), None);
        assert_eq!(parse("42 (a) S 1 2"), None);
    }

    #[test]
    fn burnt_time_is_seen() {
        let Some(before) = cpu_time() else {
            eprintln!("skipped: no /proc");
            return;
        };
        let deadline = Instant::now() + Duration::from_secs(20);
        // Other tests share the process, so only the lower bound is a fact.
        while cpu_time().unwrap() < before + Duration::from_millis(50) {
            assert!(Instant::now() < deadline, "50 ms of processor time in 20 s");
        }
    }
}
