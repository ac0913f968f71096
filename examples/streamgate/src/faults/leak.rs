//! A leak on request, so that one can see how it is found. Guide 4.1.
//!
//! Off unless `demo --leak` or the fault `leak` asks for it. What leaks is reachable and never used
//! again, as real leaks in Rust are; it goes when the fault ends.

use std::time::Duration;

use tokio::time::MissedTickBehavior;

/// Blocks of a size as requests make them: small enough that sampling sees them one by one.
const BLOCK_BYTES: u64 = 4 << 10;

/// How often blocks are added: often enough that growth looks even.
const TICK: Duration = Duration::from_millis(100);

/// Reads `1MiB/s` or `64KiB/s` as bytes per second, up to 64 MiB/s.
///
/// # Errors
/// A sentence for the command line, naming the form and the value seen.
pub(crate) fn parse(text: &str) -> Result<u64, String> {
    let refused =
        || format!("a whole number with KiB/s or MiB/s, 64KiB/s..=64MiB/s (got {text:?})");
    let units = [("KiB/s", 1_u64 << 10), ("MiB/s", 1 << 20)];
    let rate = units.iter().find_map(|(unit, bytes)| {
        let number = text.strip_suffix(unit)?;
        number.parse::<u64>().ok()?.checked_mul(*bytes)
    });
    rate.filter(|rate| (64 << 10..=64 << 20).contains(rate))
        .ok_or_else(refused)
}

/// Leaks at this rate until it is dropped.
pub(crate) async fn leak(bytes_per_second: u64) {
    let mut forgotten = Vec::new();
    let mut ticks = tokio::time::interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
    let mut due = 0;
    loop {
        ticks.tick().await;
        due += bytes_per_second * u64::try_from(TICK.as_millis()).unwrap_or(0) / 1_000;
        while due >= BLOCK_BYTES {
            due -= BLOCK_BYTES;
            forgotten.push(leak_a_block());
        }
    }
}

/// The function that a heap profile names. Never inlined, or its caller would stand in its place.
#[inline(never)]
fn leak_a_block() -> Box<[u8]> {
    let bytes = usize::try_from(BLOCK_BYTES).unwrap_or(0);
    // Written, so that it is in memory and not only promised.
    vec![1; bytes].into_boxed_slice()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_read_with_their_unit_and_refused_with_range_and_value() {
        assert_eq!(parse("1MiB/s"), Ok(1 << 20));
        assert_eq!(parse("64KiB/s"), Ok(64 << 10));
        assert_eq!(parse("64MiB/s"), Ok(64 << 20));
        for text in [
            "1",
            "1MB/s",
            "0MiB/s",
            "63KiB/s",
            "65MiB/s",
            "-1MiB/s",
            "99999999999999999MiB/s",
        ] {
            assert!(
                parse(text)
                    .unwrap_err()
                    .ends_with(&format!("(got {text:?})"))
            );
        }
    }
}
