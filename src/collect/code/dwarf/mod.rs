//! Functions and lines at addresses of a file, from its debug information.
//!
//! Like `addr2line`, which is the oracle of the tests, but for few addresses of large files: it makes
//! tables of all units and keeps whole those that it opens. Here only units around an address are
//! opened, one at a time, and run through once for all addresses in them.

mod extent;
mod functions;
mod rows;
mod sections;
mod split;
mod units;

use std::collections::BTreeMap;
use std::error::Error;
use std::path::Path;

use gimli::{DebugInfoOffset, Dwarf};

use functions::{Entries, Function};
use rows::Row;
use sections::{Cursor, Sections};
use split::{Part, Split};
use units::Units;

/// A function at an address, as the debug information has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Frame {
    /// Empty if it does not say.
    pub(super) raw_name: String,
    /// The path of the source, empty if it does not say.
    pub(super) file: String,
    /// 0 if it does not say.
    pub(super) line: u32,
}

/// Functions at addresses, the innermost first; for addresses that it knows.
pub(super) type Frames = BTreeMap<u64, Vec<Frame>>;

/// The debug information of one file.
struct Program<'a> {
    path: &'a Path,
    dwarf: Dwarf<Cursor<'a>>,
    units: &'a Units,
    split: &'a Split,
}

/// Reads what a file says of addresses in it; whether it was not told to stop before the end.
///
/// # Errors
/// If the file cannot be read or its debug information makes no sense.
pub(super) fn frames(
    path: &Path,
    addresses: &[u64],
    stop: impl Fn() -> bool,
) -> Result<(Frames, bool), Box<dyn Error + Send + Sync>> {
    let mut addresses = addresses.to_vec();
    addresses.sort_unstable();
    let sections = Sections::open(path)?;
    let dwarf = Dwarf::load(|id| Ok::<_, gimli::Error>(sections.get(id)))?;
    let units = Units::around(&addresses, &dwarf)?;
    let split = Split::default();
    let program = Program {
        path,
        dwarf,
        units: &units,
        split: &split,
    };
    let mut frames = Frames::new();
    for (unit, held) in &units.holding {
        if stop() {
            return Ok((frames, false));
        }
        let left = held.iter().filter(|address| !frames.contains_key(address));
        let left: Vec<u64> = left.copied().collect();
        // One unit that makes no sense must not hide the others.
        let found = program.frames(DebugInfoOffset(*unit), &left);
        frames.extend(found.unwrap_or_default());
    }
    Ok((frames, true))
}

impl Program<'_> {
    /// What one unit says of addresses, which are sorted.
    fn frames(&self, unit: DebugInfoOffset, addresses: &[u64]) -> gimli::Result<Frames> {
        let header = self.dwarf.debug_info.header_from_offset(unit)?;
        let unit = self.dwarf.unit(header)?;
        let mut rows = match &unit.line_program {
            Some(lines) => rows::rows(lines, addresses)?,
            None => BTreeMap::new(),
        };
        let file;
        let part = match unit.dwo_id {
            Some(id) => match self.split.packed(self.path, id, &self.dwarf, &unit) {
                None => {
                    file = split::file(&self.dwarf, &unit);
                    let file = file.as_ref();
                    file.and_then(|file| split::alone(file, id, &self.dwarf, &unit))
                }
                packed => packed,
            },
            None => None,
        };
        let whole = unit.unit_ref(&self.dwarf);
        let entries = match &part {
            Some(Part { dwarf, unit }) => Entries {
                unit: unit.unit_ref(dwarf),
                units: None,
            },
            None => Entries {
                unit: whole,
                units: Some(self.units),
            },
        };
        let mut stacks = entries.functions(addresses)?;
        let mut paths: BTreeMap<u64, String> = BTreeMap::new();
        let mut path = |file: Option<u64>| -> String {
            let Some(file) = file else {
                return String::new();
            };
            let read = || rows::path(whole, file).ok().flatten().unwrap_or_default();
            paths.entry(file).or_insert_with(read).clone()
        };
        let mut frames = Frames::new();
        for address in addresses {
            let (row, stack) = (rows.remove(address), stacks.remove(address));
            if row.is_none() && stack.is_none() {
                continue;
            }
            let mut place = row.map_or((None, 0), |Row { file, line }| (Some(file), line));
            let frames = frames.entry(*address).or_default();
            for function in stack.unwrap_or_else(nameless).into_iter().rev() {
                let (file, line) = place;
                frames.push(Frame {
                    raw_name: function.raw_name,
                    file: path(file),
                    line,
                });
                place = (function.call_file, function.call_line);
            }
        }
        Ok(frames)
    }
}

/// A line whose function is not described.
fn nameless() -> Vec<Function> {
    vec![Function {
        raw_name: String::new(),
        call_file: None,
        call_line: 0,
    }]
}

#[cfg(test)]
mod tests;
