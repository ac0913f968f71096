//! Durations as people type them: `500ms`, `20s`, `2m`, `1h`.

use std::time::Duration;

/// Longest run that can be asked for; beyond it the plan's clock arithmetic is not exercised by any test.
const LONGEST: Duration = Duration::from_secs(24 * 3600);

/// Reads a whole number with a unit (`ms`, `s`, `m`, `h`) as a duration of 1 ms to 24 h.
///
/// # Errors
/// A sentence for the command line, naming the form and the value seen.
pub(crate) fn parse(text: &str) -> Result<Duration, String> {
    let refused = || format!("a whole number with ms, s, m or h, from 1ms to 24h (got {text:?})");
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at_checked(digits).ok_or_else(refused)?;
    let number: u64 = number.parse().map_err(|_| refused())?;
    let millis = match unit {
        "ms" => Some(number),
        "s" => number.checked_mul(1_000),
        "m" => number.checked_mul(60_000),
        "h" => number.checked_mul(3_600_000),
        _ => None,
    };
    let duration = Duration::from_millis(millis.ok_or_else(refused)?);
    if duration.is_zero() || duration > LONGEST {
        return Err(refused());
    }
    Ok(duration)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_unit_is_read() {
        assert_eq!(parse("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(parse("20s"), Ok(Duration::from_secs(20)));
        assert_eq!(parse("2m"), Ok(Duration::from_secs(120)));
        assert_eq!(parse("1h"), Ok(Duration::from_secs(3600)));
    }

    #[test]
    fn other_text_is_refused_with_the_value_seen() {
        for text in [
            "",
            "20",
            "s",
            "-1s",
            "1.5s",
            "0s",
            "25h",
            "99999999999999999999s",
            "18446744073709551615h",
            "2 s",
            "2µs",
        ] {
            let message = parse(text).unwrap_err();
            assert!(message.contains(&format!("{text:?}")), "{message}");
        }
    }
}
