//! Places that hold more and more memory, as a table for a person.

use std::fmt::Write as _;

use super::respond::leaks::{Frame, Page, Site};
use super::runtime_frames::{Shown, shown};

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

/// Who allocated; where that is a library, then also the first of the service's own functions.
fn name(site: &Site) -> String {
    let Some(function) = site.function.as_deref() else {
        return "a stack that is no longer held".to_owned();
    };
    let function = function.escape_debug();
    let mut frames = site.stack.iter().enumerate();
    match frames.find(|(_, frame)| is_own(frame)) {
        Some((place, own)) if place > 0 => {
            format!("{function}, for {}", own.function.escape_debug())
        }
        _ => function.to_string(),
    }
}

/// Whether a frame's file is neither of a crate from the registry or a git checkout nor of Rust itself.
fn is_own(frame: &Frame) -> bool {
    !frame.file.is_empty() && shortened(&frame.file) == frame.file
}

/// A file of a registry or of Rust from the name of its crate on.
fn shortened(file: &str) -> &str {
    let behind = |place: &str| {
        let (_, rest) = file.split_once(place)?;
        rest.split_once('/').map(|(_, path)| path)
    };
    behind("/registry/src/")
        .or_else(|| behind("/git/checkouts/"))
        .or_else(|| behind("/rustc/"))
        .unwrap_or(file)
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
    let parts = shown(&site.stack, |frame| &*frame.function);
    for part in parts.iter().take(CALLERS) {
        let frame = match part {
            Shown::Frame(frame) => frame,
            Shown::Run(frames) => {
                let _run = writeln!(out, "      ({frames} frames of the runtime)");
                continue;
            }
        };
        let function = frame.function.escape_debug();
        let file = shortened(&frame.file).escape_debug();
        let _frame = match (&*frame.file, frame.line) {
            ("", _) => writeln!(out, "      {function}"),
            (_, 0) => writeln!(out, "      {function}  {file}"),
            (_, line) => writeln!(out, "      {function}  {file}:{line}"),
        };
    }
    let more = parts.iter().skip(CALLERS).map(|part| match part {
        Shown::Frame(_) => 1,
        Shown::Run(frames) => *frames,
    });
    let more: usize = more.sum();
    if more > 0 {
        let _more = writeln!(out, "      and {more} callers");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_of_crates_and_of_rust_are_short_and_not_the_services_own() {
        let registry = "/root/.cargo/registry/src/index.crates.io-1949/tokio-1.54.1/src/task.rs";
        let rustc = "/rustc/59807616e1fa/library/core/src/panic.rs";
        let git = "/root/.cargo/git/checkouts/fork-1a2b/9f/src/lib.rs";
        let shorts = [registry, rustc, git].map(shortened);
        let wanted = [
            "tokio-1.54.1/src/task.rs",
            "library/core/src/panic.rs",
            "9f/src/lib.rs",
        ];
        assert_eq!(shorts, wanted);
        let own = |file: &str| {
            is_own(&Frame {
                function: "f".to_owned(),
                file: file.to_owned(),
                line: 1,
            })
        };
        assert!(own("/srv/shop/src/cache.rs") && own("src/main.rs"));
        assert!(![registry, rustc, git, ""].map(own).contains(&true));
    }
}
