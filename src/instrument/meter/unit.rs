//! What an instrument is called on a page: the translation that Prometheus makes of a name and its unit.
//!
//! Source: the compatibility part of OpenTelemetry's specification, and UCUM for the units.

use crate::instrument::undeclared::Use;

/// An instrument's name with its unit at the end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Translated {
    pub(super) name: String,
    /// Its own name, where a collector makes the same of it as stands on the page.
    pub(super) otel_name: Option<String>,
}

pub(super) fn translated(used: Use, name: &str, unit: &str) -> Translated {
    let word = word(used, unit);
    let stem = name.trim_end_matches("_total");
    let is_said = word.is_empty() || stem.ends_with(&word);
    // Of the other units a message of ours says nothing.
    let is_ours = ["", "seconds", "bytes", "ratio"].contains(&&*word);
    Translated {
        otel_name: is_ours.then(|| name.to_owned()),
        name: if is_said {
            name.to_owned()
        } else {
            format!("{stem}_{word}")
        },
    }
}

/// The words of a unit; empty for what only says what is counted.
fn word(used: Use, unit: &str) -> String {
    if unit == "1" {
        let is_ratio = used == Use::Gauge;
        return if is_ratio { "ratio" } else { "" }.to_owned();
    }
    let plain = without_annotations(unit);
    match plain.split_once('/') {
        Some((what, time)) => {
            let per = format!("per_{}", of_time(time));
            let what = plural(what);
            if what.is_empty() {
                per
            } else {
                format!("{what}_{per}")
            }
        }
        None => plural(&plain),
    }
}

/// `{request}/s` without what stands in braces.
fn without_annotations(unit: &str) -> String {
    let mut depth = 0_u32;
    let kept = unit.chars().filter(|letter| {
        match letter {
            '{' => depth += 1,
            '}' => depth = depth.saturating_sub(1),
            _ => return depth == 0,
        }
        false
    });
    kept.collect()
}

fn plural(unit: &str) -> String {
    let word = match unit.trim() {
        "d" => "days",
        "h" => "hours",
        "min" => "minutes",
        "s" => "seconds",
        "ms" => "milliseconds",
        "us" => "microseconds",
        "ns" => "nanoseconds",
        "By" => "bytes",
        "KiBy" => "kibibytes",
        "MiBy" => "mebibytes",
        "GiBy" => "gibibytes",
        "TiBy" => "tibibytes",
        "KBy" => "kilobytes",
        "MBy" => "megabytes",
        "GBy" => "gigabytes",
        "TBy" => "terabytes",
        "m" => "meters",
        "V" => "volts",
        "A" => "amperes",
        "J" => "joules",
        "W" => "watts",
        "g" => "grams",
        "Cel" => "celsius",
        "Hz" => "hertz",
        "%" => "percent",
        other => other,
    };
    letters(word)
}

fn of_time(unit: &str) -> String {
    let word = match unit.trim() {
        "s" => "second",
        "m" => "minute",
        "h" => "hour",
        "d" => "day",
        "w" => "week",
        "mo" => "month",
        "y" => "year",
        other => other,
    };
    letters(word)
}

/// What is left of a unit that nobody has a word for.
fn letters(unit: &str) -> String {
    let words = unit.split(|letter: char| !letter.is_ascii_alphanumeric());
    let words: Vec<&str> = words.filter(|word| !word.is_empty()).collect();
    words.join("_")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_units_are_translated_as_prometheus_does() {
        let rows = [
            (
                Use::Histogram,
                "http.client.duration",
                "s",
                "http.client.duration_seconds",
                true,
            ),
            (
                Use::Histogram,
                "rpc.duration",
                "ms",
                "rpc.duration_milliseconds",
                false,
            ),
            (Use::Counter, "disk.io", "By", "disk.io_bytes", true),
            (Use::Counter, "bytes_total", "By", "bytes_total", true),
            (Use::Counter, "requests", "{request}", "requests", true),
            (Use::Counter, "hits", "1", "hits", true),
            (
                Use::Gauge,
                "cpu.utilization",
                "1",
                "cpu.utilization_ratio",
                true,
            ),
            (
                Use::Gauge,
                "fan.speed",
                "{turn}/m",
                "fan.speed_per_minute",
                false,
            ),
            (
                Use::Gauge,
                "net.rate",
                "By/s",
                "net.rate_bytes_per_second",
                false,
            ),
            (Use::Gauge, "load", "%", "load_percent", false),
            (Use::Gauge, "wait_seconds", "s", "wait_seconds", true),
            (Use::Gauge, "weight", "kg", "weight_kg", false),
            (Use::Gauge, "odd", "a{b}c/[d]", "odd_ac_per_d", false),
            (Use::Gauge, "plain", "", "plain", true),
        ];
        for (used, name, unit, shown, keeps_its_own) in rows {
            let translated = translated(used, name, unit);
            assert_eq!(translated.name, shown, "{name} in {unit:?}");
            let own = keeps_its_own.then(|| name.to_owned());
            assert_eq!(translated.otel_name, own, "{name} in {unit:?}");
        }
    }
}
