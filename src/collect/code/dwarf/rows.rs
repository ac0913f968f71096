//! The line that an address comes from, by a unit's line table.
//!
//! A table is run through once and none of it is kept: the tables of a large binary would be three
//! times its size.

use std::collections::BTreeMap;

use gimli::{IncompleteLineProgram, Range, Reader, UnitRef};

use super::extent::within;
use super::sections::Cursor;

type Lines<'a> = IncompleteLineProgram<Cursor<'a>>;

/// Where code comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Row {
    /// Index into the table's files.
    pub(super) file: u64,
    /// 0 if no single line is to blame.
    pub(super) line: u32,
}

/// The row for each of these addresses, which are sorted, that has one.
pub(super) fn rows(lines: &Lines<'_>, addresses: &[u64]) -> gimli::Result<BTreeMap<u64, Row>> {
    let mut found = BTreeMap::new();
    each(lines, |range, row| {
        for address in within(addresses, range) {
            found.entry(*address).or_insert(row);
        }
    })?;
    Ok(found)
}

/// The code that the table is about.
pub(super) fn ranges(lines: &Lines<'_>) -> gimli::Result<Vec<Range>> {
    let mut ranges: Vec<Range> = Vec::new();
    each(lines, |range, _| match ranges.last_mut() {
        Some(last) if last.end == range.begin => last.end = range.end,
        _ => ranges.push(range),
    })?;
    Ok(ranges)
}

/// Each row with the addresses that it is for.
fn each(lines: &Lines<'_>, mut see: impl FnMut(Range, Row)) -> gimli::Result<()> {
    let mut rows = lines.clone().rows();
    let mut open: Option<(u64, Row)> = None;
    while let Some((_, next)) = rows.next_row()? {
        let end = next.address();
        if let Some((begin, row)) = open.filter(|(begin, _)| *begin < end) {
            see(Range { begin, end }, row);
        }
        let line = next.line().map_or(0, std::num::NonZeroU64::get);
        let row = Row {
            file: next.file_index(),
            line: u32::try_from(line).unwrap_or(0),
        };
        open = (!next.end_sequence()).then_some((end, row));
    }
    Ok(())
}

/// The path of one of the table's files; relative ones begin at the directory of the compilation.
pub(super) fn path(unit: UnitRef<'_, Cursor<'_>>, file: u64) -> gimli::Result<Option<String>> {
    let header = unit
        .line_program
        .as_ref()
        .map(IncompleteLineProgram::header);
    let Some((header, file)) = header.and_then(|header| Some((header, header.file(file)?))) else {
        return Ok(None);
    };
    let mut path = match &unit.comp_dir {
        Some(directory) => directory.to_string_lossy()?.into_owned(),
        None => String::new(),
    };
    // The directory of number 0 is that of the compilation.
    let directory = file
        .directory(header)
        .filter(|_| file.directory_index() != 0);
    for part in directory.into_iter().chain([file.path_name()]) {
        let part = unit.attr_string(part)?;
        join(&mut path, &part.to_string_lossy()?);
    }
    Ok(Some(path))
}

fn join(path: &mut String, part: &str) {
    if part.starts_with('/') {
        path.clear();
    } else if !path.is_empty() && !path.ends_with('/') {
        path.push('/');
    }
    path.push_str(part);
}
