//! Shows a profile as folded text: one line per stack, `root;caller;leaf value`.
//!
//! Values are those of the profile's default column, for CPU profiles nanoseconds, since counts of
//! samples taken at different rates must not be added.

use std::borrow::Cow;
use std::collections::BTreeMap;

use crate::config;
use crate::store::profile::{OVERFLOW_NAME, Profile, Sample, UNNAMED};

/// The lines in alphabetical order, at most [`config::PROFILE_BODY_BYTES`]; stacks that do not fit
/// are one line `[overflow]`, so totals stay true.
pub(crate) fn encode(profile: &Profile) -> Vec<u8> {
    let mut out = String::new();
    for (stack, value) in lines(profile, config::PROFILE_BODY_BYTES) {
        out.push_str(&stack);
        out.push(' ');
        out.push_str(&value.to_string());
        out.push('\n');
    }
    out.into_bytes()
}

/// Two profiles as the lines from which flame graph tools draw a difference: the value in the
/// earlier, then in the later. Bounded like [`encode`].
pub(crate) fn encode_pairs(earlier: &Profile, later: &Profile) -> Vec<u8> {
    let mut out = String::new();
    for (stack, [before, after]) in pairs(earlier, later, config::PROFILE_BODY_BYTES) {
        out.push_str(&format!("{stack} {before} {after}\n"));
    }
    out.into_bytes()
}

/// Bytes of a value, the space before it and the line's end.
const VALUE_BYTES: usize = 22;

/// Distinct stacks of names, root first, with their sums.
pub(super) fn lines(profile: &Profile, limit: usize) -> BTreeMap<String, i64> {
    let sums = sums([profile], limit).into_iter();
    sums.map(|(stack, [sum])| (stack, sum)).collect()
}

/// Distinct stacks of names, root first, with their sums in the earlier and in the later profile.
pub(super) fn pairs(
    earlier: &Profile,
    later: &Profile,
    limit: usize,
) -> BTreeMap<String, [i64; 2]> {
    sums([earlier, later], limit)
}

fn sums<const N: usize>(profiles: [&Profile; N], limit: usize) -> BTreeMap<String, [i64; N]> {
    let mut lines: BTreeMap<String, [i64; N]> = BTreeMap::new();
    let values = VALUE_BYTES * N;
    let mut bytes = OVERFLOW_NAME.len() + values;
    let samples = profiles.iter().zip(0..).flat_map(|(profile, place)| {
        let samples = profile.samples.iter();
        samples.map(move |sample| (place, *profile, sample))
    });
    for (place, profile, sample) in samples {
        let value = sample.values.get(profile.default_column());
        let mut line = line(profile, sample);
        if !lines.contains_key(&line) {
            let more = bytes.saturating_add(line.len() + values);
            if more > limit {
                line = OVERFLOW_NAME.to_owned();
            } else {
                bytes = more;
            }
        }
        let sums = lines.entry(line).or_insert([0; N]);
        if let Some(sum) = sums.get_mut::<usize>(place) {
            *sum = sum.saturating_add(value.copied().unwrap_or(0));
        }
    }
    // A stack may have something to say in another column alone.
    lines.retain(|_, sums| sums.iter().any(|sum| *sum != 0));
    lines
}

fn line(profile: &Profile, sample: &Sample) -> String {
    let names: Vec<&str> = profile.names(sample).collect();
    let mut line = String::new();
    for name in names.iter().rev() {
        if !line.is_empty() {
            line.push(';');
        }
        line.push_str(&frame(name));
    }
    line
}

/// A name that cannot be mistaken for the format's own marks, nor break the XML made of it.
pub(super) fn frame(name: &str) -> Cow<'_, str> {
    let trimmed = name.trim();
    if trimmed.is_empty() {
        return Cow::Borrowed(UNNAMED);
    }
    // Readers take a last word like `12` or `1.x` for a first value and `# ` for a comment.
    let last = trimmed.rsplit(' ').next().unwrap_or_default();
    let digits = last.split('.').next().unwrap_or_default();
    let value = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    let joined = value || trimmed.starts_with('#');
    if !joined && !trimmed.contains(|letter| replaced(letter).is_some()) {
        return Cow::Borrowed(trimmed);
    }
    let letters = trimmed.chars().map(|letter| match letter {
        ' ' if joined => '_',
        letter => replaced(letter).unwrap_or(letter),
    });
    Cow::Owned(letters.collect())
}

fn replaced(letter: char) -> Option<char> {
    match letter {
        ';' => Some(':'),
        '\u{fffe}' | '\u{ffff}' => Some('\u{fffd}'),
        letter if letter.is_control() => Some('\u{fffd}'),
        _ => None,
    }
}
