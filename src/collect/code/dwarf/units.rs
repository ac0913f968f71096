//! Which units of a file's debug information hold an address.
//!
//! By `.debug_aranges` where a unit is in it, which is a fiftieth of all: only other units are opened.

use std::collections::{BTreeMap, BTreeSet};

use gimli::{DebugInfoOffset, Dwarf, Range, UnitRef, UnitType};

use super::extent::{Extent, within};
use super::rows;
use super::sections::Cursor;

/// The units of a file, by where they begin in `.debug_info`.
#[derive(Debug, Default)]
pub(super) struct Units {
    offsets: Vec<usize>,
    /// Addresses asked for, sorted, by the unit that may hold them.
    pub(super) holding: BTreeMap<usize, BTreeSet<u64>>,
}

impl Units {
    /// Looks for units around addresses, which are sorted.
    pub(super) fn around(addresses: &[u64], dwarf: &Dwarf<Cursor<'_>>) -> gimli::Result<Self> {
        let mut units = Self::default();
        let listed = units.read_aranges(addresses, dwarf)?;
        let mut headers = dwarf.units();
        while let Some(header) = headers.next()? {
            let Some(offset) = header.debug_info_offset() else {
                continue;
            };
            units.offsets.push(offset.0);
            let code = matches!(
                header.type_(),
                UnitType::Compilation | UnitType::Skeleton(_)
            );
            if !code || listed.contains(&offset.0) {
                continue;
            }
            // A unit that cannot be read must not hide the others.
            let Ok(unit) = dwarf.unit(header) else {
                continue;
            };
            for range in ranges(unit.unit_ref(dwarf))? {
                units.add(offset.0, within(addresses, range));
            }
        }
        Ok(units)
    }

    /// The units that the table lists.
    fn read_aranges(
        &mut self,
        addresses: &[u64],
        dwarf: &Dwarf<Cursor<'_>>,
    ) -> gimli::Result<BTreeSet<usize>> {
        let mut listed = BTreeSet::new();
        let mut sets = dwarf.debug_aranges.headers();
        while let Some(set) = sets.next()? {
            let unit = set.debug_info_offset().0;
            let mut entries = set.entries();
            // An entry may be beyond the address space, which ends nothing.
            while let Some(entry) = entries.next().transpose() {
                let Some(entry) = entry.ok().filter(|entry| entry.length() != 0) else {
                    continue;
                };
                listed.insert(unit);
                self.add(unit, within(addresses, entry.range()));
            }
        }
        Ok(listed)
    }

    fn add(&mut self, unit: usize, held: &[u64]) {
        if !held.is_empty() {
            self.holding.entry(unit).or_default().extend(held);
        }
    }

    /// The unit whose entries this place lies among.
    pub(super) fn containing(&self, place: usize) -> Option<DebugInfoOffset> {
        let after = self.offsets.partition_point(|offset| *offset <= place);
        let unit = after.checked_sub(1)?;
        self.offsets.get(unit).copied().map(DebugInfoOffset)
    }
}

/// What the unit says of itself, else what its lines are about.
fn ranges(unit: UnitRef<'_, Cursor<'_>>) -> gimli::Result<Vec<Range>> {
    let mut entries = unit.entries_raw(None)?;
    let Some(root) = entries.read_abbreviation()? else {
        return Ok(Vec::new());
    };
    let mut extent = Extent::default();
    for spec in root.attributes() {
        let attribute = entries.read_attribute(*spec)?;
        extent.note(attribute.name(), attribute.value(), unit)?;
    }
    let ranges = extent.ranges(unit)?;
    match &unit.line_program {
        Some(lines) if ranges.is_empty() => Ok(rows::ranges(lines).unwrap_or_default()),
        _ => Ok(ranges),
    }
}
