//! What the user sees while the demo runs, on the error stream.

use std::io::{self, IsTerminal as _, Write as _};
use std::time::Duration;

use streamgate_agent::TargetTable;

use crate::bench::report::decimal;

/// Seconds between progress lines where they cannot be overwritten.
const SPARSE: u64 = 5;

/// The error stream as a terminal, where progress is one line that changes, or as a file.
#[derive(Debug)]
pub(super) struct Screen {
    terminal: bool,
    next_second: u64,
    open_line: bool,
}

impl Screen {
    pub(super) fn new() -> Self {
        Self {
            terminal: io::stderr().is_terminal(),
            next_second: SPARSE,
            open_line: false,
        }
    }

    /// Writes a line of its own.
    pub(super) fn line(&mut self, text: &str) {
        self.end_of_progress();
        write(&format!("{}\n", text.trim_end()));
    }

    /// Shows how far the load is.
    pub(super) fn progress(&mut self, elapsed: Duration, of: Duration, table: &TargetTable) {
        let text = progress_text(elapsed, of, table);
        if self.terminal {
            // Back to the line's start, and away with what a longer line left.
            write(&format!("\r{text}\x1b[K"));
            self.open_line = true;
        } else if elapsed.as_secs() >= self.next_second {
            self.next_second = elapsed.as_secs() + SPARSE;
            write(&format!("{text}\n"));
        }
    }

    /// Leaves the changing line behind.
    pub(super) fn end_of_progress(&mut self) {
        if std::mem::take(&mut self.open_line) {
            write("\n");
        }
    }
}

fn progress_text(elapsed: Duration, of: Duration, table: &TargetTable) -> String {
    let row = |name| {
        table
            .rows
            .iter()
            .find(|row| row.name == name)
            .and_then(|row| row.current)
    };
    format!(
        "{:>3} s of {} s   {} req/s   p95 {} ms   errors {}   cpu {} %",
        elapsed.as_secs(),
        of.as_secs(),
        decimal(row("throughput"), 0),
        decimal(table.latency.p95_seconds.map(|seconds| seconds * 1000.0), 2),
        table.errors,
        decimal(row("cpu").map(|ratio| ratio * 100.0), 0),
    )
}

/// A closed error stream must not end the demo.
fn write(text: &str) {
    drop(io::stderr().write_all(text.as_bytes()));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn progress_shows_a_dash_where_nothing_was_measured() {
        let text = progress_text(
            Duration::from_secs(3),
            Duration::from_secs(20),
            &TargetTable::default(),
        );
        assert_eq!(
            text,
            "  3 s of 20 s   - req/s   p95 - ms   errors 0   cpu - %"
        );
    }
}
