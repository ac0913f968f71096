//! Trends in a few noisy numbers over time: how steep, and how surely more than chance.
//!
//! Both estimates go by order and not by size, so that a few wild points change little: Theil and
//! Sen's slope is wrong only when more than 29 % of the points are, and Mann and Kendall's test asks
//! only which of two points is the higher one (Gilbert 1987, chapters 16 and 17).

use std::cmp::Ordering;

/// A value at a time in seconds.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Point {
    pub(super) seconds: f64,
    pub(super) value: f64,
}

/// Values closer than this share of the larger one are equal: what is left of sums of floats is
/// no trend.
const EQUAL: f64 = 1e-9;

/// The median of the slopes of all pairs, per second; `None` below two different times.
///
/// # Cost
/// Quadratic: 7,140 slopes for 120 points.
pub(super) fn theil_sen(points: &[Point], slopes: &mut Vec<f64>) -> Option<f64> {
    slopes.clear();
    for (at, later) in points.iter().enumerate() {
        for earlier in points.iter().take(at) {
            let elapsed = later.seconds - earlier.seconds;
            if elapsed > 0.0 {
                slopes.push((later.value - earlier.value) / elapsed);
            }
        }
    }
    if slopes.is_empty() {
        return None;
    }
    let even = slopes.len().is_multiple_of(2);
    let middle = slopes.len() / 2;
    let (below, median, _) = slopes.select_nth_unstable_by(middle, f64::total_cmp);
    let lower = below.iter().copied().max_by(f64::total_cmp);
    let median = match lower {
        Some(lower) if even => f64::midpoint(lower, *median),
        _ => *median,
    };
    median.is_finite().then_some(median)
}

/// The chance that values without a trend rise so steadily, after Mann and Kendall; `None` below
/// four values, where every order is likely.
///
/// The normal approximation with ties and continuity; one-sided, so that 0.01 means one rise in a
/// hundred.
pub(super) fn rising(values: impl Iterator<Item = f64> + Clone) -> Option<f64> {
    let mut count = 0_u32;
    let mut score = 0.0_f64;
    let mut ties = 0.0;
    let mut later = values.clone();
    while let Some(first) = later.next() {
        count += 1;
        let mut equal = 0.0;
        for second in later.clone() {
            match order(first, second) {
                Ordering::Less => score += 1.0,
                Ordering::Greater => score -= 1.0,
                Ordering::Equal => equal += 1.0,
            }
        }
        // Adds up, over the members of a group of t equal values, to t (t - 1) (2 t + 5).
        ties += equal * (6.0 * equal + 12.0);
    }
    if count < 4 {
        return None;
    }
    let n = f64::from(count);
    let variance = (n * (n - 1.0) * (2.0 * n + 5.0) - ties).max(0.0) / 18.0;
    if variance <= 0.0 {
        return Some(1.0);
    }
    // The score goes in steps of two or one; half a step towards the middle, and never past it.
    let z = f64::copysign((score.abs() - 1.0).max(0.0), score) / variance.sqrt();
    Some(above(z))
}

fn order(first: f64, second: f64) -> Ordering {
    if (first - second).abs() <= EQUAL * first.abs().max(second.abs()) {
        return Ordering::Equal;
    }
    first.total_cmp(&second)
}

/// The share of a normal distribution above `z`, by the continued fraction of its tail or, near the
/// middle, by its power series.
fn above(z: f64) -> f64 {
    let density = (-z * z / 2.0).exp() / (2.0 * std::f64::consts::PI).sqrt();
    if z.abs() < 3.0 {
        let mut term = z;
        let mut sum = z;
        let mut odd = 1.0;
        while term.abs() > 1e-12 {
            odd += 2.0;
            term *= z * z / odd;
            sum += term;
        }
        return (0.5 - density * sum).clamp(0.0, 1.0);
    }
    let mut fraction = z.abs();
    for step in (1..=40_u32).rev() {
        fraction = z.abs() + f64::from(step) / fraction;
    }
    let tail = density / fraction;
    if z > 0.0 { tail } else { 1.0 - tail }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn points(values: &[f64]) -> Vec<Point> {
        let seconds = (0..).map(f64::from);
        let pairs = seconds.zip(values);
        let point = |(seconds, value): (f64, &f64)| Point {
            seconds,
            value: *value,
        };
        pairs.map(point).collect()
    }

    #[test]
    fn a_slope_is_the_median_of_all_pairs_whatever_one_point_says() {
        let mut slopes = Vec::new();
        let mut slope = |values: &[f64]| theil_sen(&points(values), &mut slopes);
        assert_eq!(slope(&[]), None);
        assert_eq!(slope(&[5.0]), None);
        assert_eq!(slope(&[1.0, 4.0]), Some(3.0));
        assert_eq!(slope(&[0.0, 2.0, 4.0, 6.0, 1e12]), Some(2.0));
        // 1, 2, 3 between neighbours and next ones: 1, 2, 3, 1.5, 2.5, 2.
        assert_eq!(slope(&[0.0, 1.0, 3.0, 6.0]), Some(2.0));
        let still = [Point {
            seconds: 1.0,
            value: 2.0,
        }; 3];
        assert_eq!(theil_sen(&still, &mut slopes), None, "no time has passed");
    }

    #[test]
    fn the_normal_tail_is_the_one_in_the_tables() {
        // Abramowitz and Stegun, table 26.1.
        let rows = [
            (0.0, 0.5),
            (1.0, 0.158_655_253_931),
            (2.326_347_874_041, 0.01),
            (2.9, 0.001_865_813_300),
            (3.0, 0.001_349_898_032),
            (5.0, 2.866_515_719e-7),
            (-1.0, 0.841_344_746_069),
            (-4.0, 0.999_968_328_758),
        ];
        for (z, wanted) in rows {
            let seen = above(z);
            assert!(
                (seen - wanted).abs() < 1e-8 * wanted.max(1e-3),
                "{z}: {seen}"
            );
        }
        assert!(above(400.0) >= 0.0 && above(400.0) < 1e-300);
    }

    #[test]
    fn a_rise_is_as_sure_as_its_order_is_unlikely() {
        let chance = |values: &[f64]| rising(values.iter().copied());
        assert_eq!(chance(&[1.0, 2.0, 3.0]), None);
        // Gilbert 1987: S = 15, variance 28.33, so z = 14 / 5.323.
        let six = chance(&[1.0, 2.0, 3.0, 4.0, 5.0, 6.0]).unwrap();
        assert!((six - above(14.0 / 28.333_333_f64.sqrt())).abs() < 1e-9);
        assert!(chance(&[6.0, 5.0, 4.0, 3.0, 2.0, 1.0]).unwrap() > 0.99);
        assert_eq!(chance(&[7.0; 9]), Some(1.0), "nothing but ties");
        // Two groups of three: variance 28.33 less 2 x 66 / 18.
        let ties = chance(&[1.0, 1.0, 1.0, 2.0, 2.0, 2.0]).unwrap();
        assert!((ties - above(8.0 / 21.0_f64.sqrt())).abs() < 1e-9, "{ties}");
        assert_eq!(
            chance(&[3.0, 1.0, 3.0, 1.0, 3.0, 3.0]).map(|p| p > 0.2),
            Some(true)
        );
    }
}
