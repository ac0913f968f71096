//! A reader of both text formats that shares nothing with the writers, and is strict where a
//! Prometheus server is.

use std::collections::{BTreeMap, BTreeSet};

pub(super) type Labels = BTreeMap<String, String>;

#[derive(Debug, Default)]
pub(super) struct Page {
    pub(super) families: BTreeMap<String, Family>,
    pub(super) samples: BTreeMap<(String, Labels), f64>,
    pub(super) exemplars: Vec<Exemplar>,
}

#[derive(Debug, Default, Clone, PartialEq)]
pub(super) struct Family {
    pub(super) help: Option<String>,
    pub(super) kind: String,
    pub(super) unit: Option<String>,
}

#[derive(Debug)]
pub(super) struct Exemplar {
    pub(super) sample: String,
    pub(super) le: f64,
    pub(super) labels: Labels,
    pub(super) value: f64,
    pub(super) unix_seconds: f64,
}

/// Reads a page; panics with the line on anything that a server could refuse.
pub(super) fn parse(page: &[u8], openmetrics: bool) -> Page {
    let page = std::str::from_utf8(page).unwrap();
    let body = if openmetrics {
        page.strip_suffix("# EOF\n").expect("# EOF is last")
    } else {
        page
    };
    assert!(body.is_empty() || body.ends_with('\n'));
    let mut parsed = Page::default();
    let mut current = String::new();
    let mut sampled = false;
    for line in body.lines() {
        if let Some(metadata) = line.strip_prefix("# ") {
            let mut parts = metadata.splitn(3, ' ');
            let (keyword, name) = (parts.next().unwrap(), parts.next().unwrap());
            let text = parts.next().unwrap();
            if name != current || sampled {
                let fresh = parsed.families.insert(name.to_owned(), Family::default());
                assert!(fresh.is_none(), "second block of {name}: {line}");
                name.clone_into(&mut current);
                sampled = false;
            }
            let family = parsed.families.get_mut(name).unwrap();
            let twice = match keyword {
                "HELP" => family.help.replace(unescape(text, openmetrics)).is_some(),
                "TYPE" => !std::mem::replace(&mut family.kind, text.to_owned()).is_empty(),
                "UNIT" if openmetrics => family.unit.replace(text.to_owned()).is_some(),
                _ => panic!("{line}"),
            };
            assert!(!twice, "{line}");
            continue;
        }
        sampled = true;
        sample(&mut parsed, &current, line, openmetrics);
    }
    check(&parsed, openmetrics);
    parsed
}

fn sample(parsed: &mut Page, family: &str, line: &str, openmetrics: bool) {
    let end = line.find(['{', ' ']).unwrap();
    let (name, mut rest) = line.split_at(end);
    let mut labels = Labels::new();
    if rest.starts_with('{') {
        (labels, rest) = label_set(rest, line);
    }
    let kind = parsed.families[family].kind.as_str();
    let suffixes: &[&str] = match (kind, openmetrics) {
        ("counter", true) => &["_total"],
        ("info", true) => &["_info"],
        ("histogram", _) => &["_bucket", "_sum", "_count"],
        ("summary", _) => &["", "_sum", "_count"],
        ("counter" | "untyped", false) | ("unknown", true) | ("gauge", _) => &[""],
        other => panic!("{other:?}: {line}"),
    };
    let suffix = name.strip_prefix(family);
    assert!(
        suffix.is_some_and(|suffix| suffixes.contains(&suffix)),
        "not of {family}: {line}"
    );
    let rest = rest.strip_prefix(' ').unwrap();
    let (value, exemplar) = rest
        .split_once(" # ")
        .map_or((rest, None), |(value, exemplar)| (value, Some(exemplar)));
    if let Some(exemplar) = exemplar {
        assert!(openmetrics && name.ends_with("_bucket"), "{line}");
        let (exemplar_labels, rest) = label_set(exemplar, line);
        let length =
            |(name, value): (&String, &String)| name.chars().count() + value.chars().count();
        assert!(
            exemplar_labels.iter().map(length).sum::<usize>() <= 128,
            "{line}"
        );
        let (value, time) = rest.strip_prefix(' ').unwrap().split_once(' ').unwrap();
        parsed.exemplars.push(Exemplar {
            sample: name.to_owned(),
            le: number(&labels["le"]),
            labels: exemplar_labels,
            value: number(value),
            unix_seconds: number(time),
        });
    }
    let twice = parsed
        .samples
        .insert((name.to_owned(), labels), number(value));
    assert!(twice.is_none(), "twice: {line}");
}

/// Reads `{a="b",c="d"}` and returns what follows.
fn label_set<'a>(text: &'a str, line: &str) -> (Labels, &'a str) {
    let mut labels = Labels::new();
    let mut rest = text.strip_prefix('{').unwrap();
    while !rest.starts_with('}') {
        let (name, after) = rest.split_once("=\"").unwrap_or_else(|| panic!("{line}"));
        let mut end = 0;
        let mut escaped = false;
        for (place, character) in after.char_indices() {
            if character == '"' && !escaped {
                end = place;
                break;
            }
            escaped = character == '\\' && !escaped;
        }
        let (value, after) = after.split_at(end);
        let value = unescape(value, true);
        let twice = labels.insert(name.to_owned(), value);
        assert!(twice.is_none(), "{line}");
        rest = after.strip_prefix('"').unwrap();
        rest = rest.strip_prefix(',').unwrap_or(rest);
    }
    (labels, rest.strip_prefix('}').unwrap())
}

fn unescape(text: &str, quotes: bool) -> String {
    let mut out = String::new();
    let mut characters = text.chars();
    while let Some(character) = characters.next() {
        if character != '\\' {
            out.push(character);
            continue;
        }
        match characters.next() {
            Some('n') => out.push('\n'),
            Some('\\') => out.push('\\'),
            Some('"') if quotes => out.push('"'),
            other => panic!("escape {other:?} in {text}"),
        }
    }
    out
}

fn number(text: &str) -> f64 {
    let plain = text.strip_prefix('+').unwrap_or(text).replace("Inf", "inf");
    plain.parse().unwrap_or_else(|_| panic!("number {text}"))
}

/// What holds between samples: buckets rise, end in `+Inf`, and that is the count.
fn check(parsed: &Page, openmetrics: bool) {
    for (name, family) in &parsed.families {
        assert!(!family.kind.is_empty(), "{name} has no type");
        if let Some(unit) = &family.unit {
            assert!(name.ends_with(&format!("_{unit}")), "{name} in {unit}");
            assert!(family.kind != "info");
        }
        if family.kind == "histogram" {
            check_buckets(parsed, name);
        }
    }
    // A reader of OpenMetrics reserves all of these for a family.
    let reserved = |(name, family): (&String, &Family)| {
        let suffixes: &[&str] = match family.kind.as_str() {
            "counter" => &["", "_total", "_created"],
            "info" => &["", "_info"],
            "histogram" => &["", "_bucket", "_sum", "_count", "_created"],
            "summary" => &["", "_sum", "_count", "_created"],
            _ => &[""],
        };
        suffixes
            .iter()
            .map(|suffix| format!("{name}{suffix}"))
            .collect::<Vec<_>>()
    };
    if openmetrics {
        let mut seen = BTreeSet::new();
        for name in parsed.families.iter().flat_map(reserved) {
            assert!(seen.insert(name.clone()), "{name} clashes");
        }
    }
}

fn check_buckets(parsed: &Page, family: &str) {
    let mut rows: BTreeMap<Labels, Vec<(f64, f64)>> = BTreeMap::new();
    for ((name, labels), total) in &parsed.samples {
        if *name == format!("{family}_bucket") {
            let mut labels = labels.clone();
            let le = number(&labels.remove("le").unwrap());
            rows.entry(labels).or_default().push((le, *total));
        }
    }
    for (labels, mut buckets) in rows {
        buckets.sort_by(|one, other| one.0.total_cmp(&other.0));
        assert!(
            buckets.is_sorted_by(|one, other| one.1 <= other.1),
            "{family} {labels:?}"
        );
        let (le, total) = buckets.pop().unwrap();
        assert!(le.is_infinite(), "{family} {labels:?}");
        let count = parsed.samples[&(format!("{family}_count"), labels)];
        assert!((total - count).abs() < f64::EPSILON, "{family}");
    }
}
