//! Places that hold more and more memory, as a table for a person.

use std::fmt::Write as _;

use super::respond::leaks::{Page, Site};

const MIB: f64 = (1_u64 << 20) as f64;
/// Callers of one place that are shown; the flame graph has them all.
const CALLERS: usize = 12;

/// A line for each site, then what each stands on.
pub(crate) fn write(page: &Page) -> String {
    let mut out = String::new();
    let minutes = page.observed_seconds / 60.0;
    // Writing to a String does not fail.
    let _head = writeln!(
        out,
        "{} of {} places that hold memory, observed for {minutes:.1} minutes; {} leaking",
        page.sites.len(),
        page.followed,
        page.leaking
    );
    if page.sites.is_empty() {
        out.push_str("\nNothing was sampled yet; small heaps need a while.\n");
        return out;
    }
    let _columns = writeln!(
        out,
        "\n{:>3}  {:<8}  {:>10}  {:>12}  {:>7}  allocated by",
        "", "verdict", "MiB in use", "MiB per hour", "samples"
    );
    for (place, site) in page.sites.iter().enumerate() {
        let slope = site.bytes_per_hour.map(|slope| slope / MIB);
        let slope = slope.map_or_else(|| "-".to_owned(), |slope| format!("{slope:+.1}"));
        let _row = writeln!(
            out,
            "{:>3}  {:<8}  {:>10.1}  {slope:>12}  {:>7}  {}",
            place + 1,
            site.verdict,
            site.live_bytes / MIB,
            site.live_samples,
            name(site)
        );
    }
    for (place, site) in page.sites.iter().enumerate() {
        grounds(&mut out, place + 1, site);
    }
    out
}

fn name(site: &Site) -> String {
    let name = site
        .function
        .as_deref()
        .unwrap_or("a stack that is no longer held");
    name.escape_debug().to_string()
}

fn grounds(out: &mut String, place: usize, site: &Site) {
    let grows = if site.grows && site.verdict == "unknown" {
        "; it grows"
    } else {
        ""
    };
    let _name = writeln!(out, "\n{place}. {}: {}{grows}", site.verdict, site.evidence);
    let _bytes = writeln!(
        out,
        "   in use: {:.1} MiB, standard error {:.1} MiB",
        site.live_bytes / MIB,
        site.live_bytes_standard_error / MIB
    );
    let ages = &site.age_ratios;
    let _ages = writeln!(
        out,
        "   age: {:.0} % below 1 minute, {:.0} % below 10, {:.0} % below 60, {:.0} % older",
        ages.below_1_minute * 100.0,
        ages.below_10_minutes * 100.0,
        ages.below_60_minutes * 100.0,
        ages.older * 100.0
    );
    let routes = site.routes.iter().map(|route| {
        let name = route.http_route.as_deref().unwrap_or("no route");
        format!("{} {:.0} %", name.escape_debug(), route.ratio * 100.0)
    });
    let routes: Vec<String> = routes.collect();
    let _routes = writeln!(out, "   routes: {}", routes.join(", "));
    if let Some(cache) = &site.cache {
        let name = cache.name.escape_debug();
        let _cache = writeln!(out, "   cache: {name}, {:.1} MiB", cache.bytes / MIB);
    }
    let _graph = writeln!(out, "   flame graph: {}", site.flamegraph);
    for frame in site.stack.iter().take(CALLERS) {
        let (function, file) = (frame.function.escape_debug(), frame.file.escape_debug());
        let _frame = match (&*frame.file, frame.line) {
            ("", _) => writeln!(out, "      {function}"),
            (_, 0) => writeln!(out, "      {function}  {file}"),
            (_, line) => writeln!(out, "      {function}  {file}:{line}"),
        };
    }
    if site.stack.len() > CALLERS {
        let _more = writeln!(out, "      and {} callers", site.stack.len() - CALLERS);
    }
}
