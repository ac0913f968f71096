//! Shows a heap profile as the text that Go answers `debug=1` with, and that its tool reads too.

use std::fmt::Write as _;

use crate::store::profile::{Profile, to_usize};

/// The stacks, most in use first.
///
/// Go writes raw counts and twice the rate, from which its tool estimates; these values are estimates
/// already, so the rate here is that of recording everything, at which the tool leaves them alone.
pub(crate) fn write(profile: &Profile) -> String {
    let mut out = String::new();
    let totals = [0, 1, 2, 3].map(|column| profile.total(column));
    line(&mut out, "heap profile: ", totals, " @ heap/2\n");
    for sample in &profile.samples {
        let value = |column: usize| sample.values.get(column).copied().unwrap_or(0);
        line(&mut out, "", [0, 1, 2, 3].map(value), " @");
        let locations = sample.stack.iter();
        let locations = locations.filter_map(|place| profile.locations.get(to_usize(*place)));
        let mut frames = String::new();
        for location in locations {
            // Writing to a String does not fail.
            let _address = write!(out, " {:#x}", location.address);
            for line in &location.lines {
                let function = profile.functions.get(to_usize(line.function));
                let (name, file) = function.map_or(("", ""), |one| (&*one.name, &*one.filename));
                let _frame = write!(
                    frames,
                    "#\t{:#x}\t{}",
                    location.address,
                    name.escape_debug()
                );
                let _place = match (file, line.line) {
                    ("", _) => writeln!(frames),
                    (file, 0) => writeln!(frames, "\t{}", file.escape_debug()),
                    (file, line) => writeln!(frames, "\t{}:{line}", file.escape_debug()),
                };
            }
        }
        out.push('\n');
        for label in &sample.labels {
            let _label = writeln!(out, "#\t{}={}", label.key, label.value.escape_debug());
        }
        out.push_str(&frames);
        out.push('\n');
    }
    for comment in &profile.comments {
        let _comment = writeln!(out, "# {comment}");
    }
    out
}

fn line(out: &mut String, before: &str, values: [i64; 4], after: &str) {
    let [allocated, allocated_bytes, in_use, in_use_bytes] = values;
    let _line = write!(
        out,
        "{before}{in_use}: {in_use_bytes} [{allocated}: {allocated_bytes}]{after}"
    );
}
