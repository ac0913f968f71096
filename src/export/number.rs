//! How numbers are written on the pages.
//!
//! Values take the shortest digits that read back as the same number. Bucket bounds are text that
//! becomes part of a series' identity, so they have one form in every format: the one that
//! Prometheus gives to protobuf bounds (`1.0`, `10000.0`, `1.048576e+06`, `1e-06`). With `1` in one
//! format and `1.0` in another, a change of format would split each bucket into two series.

use std::sync::OnceLock;

use crate::catalog::Unit;
use crate::catalog::bounds::Bounds;
use crate::store::metrics::scale;

/// 2^53: up to here every whole `f64` is exact, so it can be written as an integer.
const WHOLE: f64 = 9_007_199_254_740_992.0;

pub(crate) fn push_u64(out: &mut Vec<u8>, value: u64) {
    out.extend_from_slice(itoa::Buffer::new().format(value).as_bytes());
}

pub(crate) fn push_i64(out: &mut Vec<u8>, value: i64) {
    out.extend_from_slice(itoa::Buffer::new().format(value).as_bytes());
}

/// Writes a value with the fewest digits that read back as the same `f64`.
pub(crate) fn push_f64(out: &mut Vec<u8>, value: f64) {
    if let Some(word) = not_finite(value) {
        out.extend_from_slice(word.as_bytes());
    } else if value.abs() < WHOLE && value.trunc().to_bits() == value.to_bits() {
        push_i64(out, whole(value));
    } else {
        out.extend_from_slice(zmij::Buffer::new().format_finite(value).as_bytes());
    }
}

/// Writes the text of an `le` or `quantile` label.
pub(crate) fn push_bound(out: &mut Vec<u8>, value: f64) {
    if let Some(word) = not_finite(value) {
        out.extend_from_slice(word.as_bytes());
        return;
    }
    let scientific = format!("{value:e}");
    let (mantissa, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    if (-4..6).contains(&exponent) {
        let plain = format!("{value}");
        out.extend_from_slice(plain.as_bytes());
        if !plain.contains('.') {
            out.extend_from_slice(b".0");
        }
    } else {
        let sign = if exponent < 0 { '-' } else { '+' };
        let exponent = exponent.abs();
        out.extend_from_slice(format!("{mantissa}e{sign}{exponent:02}").as_bytes());
    }
}

/// For each finite classic bound of a set the end of its bucket lines: `le="0.2"} `.
///
/// Built once per process for each set and scale.
pub(crate) fn bucket_ends(bounds: Bounds, unit: Unit) -> &'static [Box<[u8]>] {
    type Ends = OnceLock<Box<[Box<[u8]>]>>;
    static PLAIN: [Ends; 7] = [const { OnceLock::new() }; 7];
    static BILLIONTHS: [Ends; 7] = [const { OnceLock::new() }; 7];
    let table = match unit {
        Unit::Seconds | Unit::Number => &BILLIONTHS,
        Unit::Bytes | Unit::Ratio | Unit::Count => &PLAIN,
    };
    let place = match bounds {
        Bounds::Request => &table[0],
        Bounds::Db => &table[1],
        Bounds::Cache => &table[2],
        Bounds::Wait => &table[3],
        Bounds::Size => &table[4],
        Bounds::Rows => &table[5],
        Bounds::Number => &table[6],
    };
    place.get_or_init(|| {
        let end = |bound: &u64| {
            let mut text = b"le=\"".to_vec();
            push_bound(&mut text, bound_value(*bound, unit));
            text.extend_from_slice(b"\"} ");
            text.into_boxed_slice()
        };
        bounds.classic().iter().map(end).collect()
    })
}

/// A bound in the unit shown.
///
/// Both operands are exact and division rounds correctly, so 200,000,000 ns is the `f64` nearest
/// to 0.2 and prints as that.
pub(crate) fn bound_value(bound: u64, unit: Unit) -> f64 {
    bound as f64 / scale(unit)
}

fn not_finite(value: f64) -> Option<&'static str> {
    if value.is_nan() {
        Some("NaN")
    } else if value.is_infinite() {
        Some(if value > 0.0 { "+Inf" } else { "-Inf" })
    } else {
        None
    }
}

#[expect(
    clippy::cast_possible_truncation,
    reason = "the caller checked that the value is whole and below 2^53"
)]
fn whole(value: f64) -> i64 {
    value as i64
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn text(push: impl Fn(&mut Vec<u8>)) -> String {
        let mut out = Vec::new();
        push(&mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn bounds_have_the_form_that_prometheus_gives_them() {
        for (value, expected) in [
            (0.0, "0.0"),
            (0.2, "0.2"),
            (1.0, "1.0"),
            (-1.0, "-1.0"),
            (2.5, "2.5"),
            (256.0, "256.0"),
            (10_000.0, "10000.0"),
            (262_144.0, "262144.0"),
            (999_999.0, "999999.0"),
            (1e6, "1e+06"),
            (1_048_576.0, "1.048576e+06"),
            (67_108_864.0, "6.7108864e+07"),
            (1e-4, "0.0001"),
            (2.5e-5, "2.5e-05"),
            (1e-6, "1e-06"),
            (1e23, "1e+23"),
            (1.1e-123, "1.1e-123"),
            (f64::INFINITY, "+Inf"),
            (f64::NEG_INFINITY, "-Inf"),
            (f64::NAN, "NaN"),
        ] {
            assert_eq!(text(|out| push_bound(out, value)), expected);
        }
    }

    #[test]
    fn every_bound_of_time_is_its_exact_decimal() {
        for bounds in [Bounds::Request, Bounds::Db, Bounds::Cache, Bounds::Wait] {
            for (bound, end) in bounds
                .classic()
                .iter()
                .zip(bucket_ends(bounds, Unit::Seconds))
            {
                let end = std::str::from_utf8(end).unwrap();
                let shown = end
                    .strip_prefix("le=\"")
                    .and_then(|rest| rest.strip_suffix("\"} "))
                    .unwrap();
                let (digits, exponent) = shown.split_once('e').unwrap_or((shown, "0"));
                let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
                let power = 9 + exponent.parse::<i32>().unwrap()
                    - i32::try_from(fraction.trim_end_matches('0').len()).unwrap();
                let digits: u64 = format!("{whole}{}", fraction.trim_end_matches('0'))
                    .parse()
                    .unwrap();
                let nanos = digits * 10_u64.pow(u32::try_from(power).unwrap());
                assert_eq!(nanos, *bound, "{shown}");
            }
        }
    }

    #[test]
    fn values_are_short() {
        for (value, expected) in [
            (0.0, "0"),
            (-3.0, "-3"),
            (0.1, "0.1"),
            (7.08730304690417e-309, "7.08730304690417e-309"),
            (123_456_789.0, "123456789"),
            (f64::NAN, "NaN"),
            (f64::INFINITY, "+Inf"),
            (f64::NEG_INFINITY, "-Inf"),
        ] {
            assert_eq!(text(|out| push_f64(out, value)), expected);
        }
        assert_eq!(text(|out| push_u64(out, u64::MAX)), u64::MAX.to_string());
        assert_eq!(text(|out| push_i64(out, i64::MIN)), i64::MIN.to_string());
    }

    proptest! {
        #[test]
        fn every_number_reads_back_as_itself(bits: u64) {
            let value = f64::from_bits(bits);
            prop_assume!(!value.is_nan());
            for shown in [text(|out| push_f64(out, value)), text(|out| push_bound(out, value))] {
                let read: f64 = shown.replace("Inf", "inf").parse().unwrap();
                prop_assert!(read.to_bits() == bits || (value == 0.0 && read == 0.0));
            }
        }
    }
}
