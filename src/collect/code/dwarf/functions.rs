//! The function that holds an address, and what was inlined into it there.

use std::collections::BTreeMap;

use gimli::{Abbreviation, AttributeValue, EntriesRaw, Reader, UnitOffset, UnitRef};

use super::extent::{Extent, within};
use super::sections::Cursor;
use super::units::Units;

/// A function, or a copy of one inlined into another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Function {
    /// As the linker knows it; empty if the debug information does not say.
    pub(super) raw_name: String,
    /// Where the copy was inlined; not for the outermost.
    pub(super) call_file: Option<u64>,
    pub(super) call_line: u32,
}

/// Functions at addresses, the outermost first.
pub(super) type Stacks = BTreeMap<u64, Vec<Function>>;

/// References that are followed from an entry to one with a name; damaged files may have rings.
const STEPS: usize = 16;

/// The entries of one unit.
pub(super) struct Entries<'a> {
    pub(super) unit: UnitRef<'a, Cursor<'a>>,
    /// For names in other units; what was split off has none.
    pub(super) units: Option<&'a Units>,
}

/// What one entry says of itself.
#[derive(Default)]
struct Entry<'a> {
    extent: Extent,
    linkage_name: Option<AttributeValue<Cursor<'a>>>,
    name: Option<AttributeValue<Cursor<'a>>>,
    /// The entry that this one is a copy of.
    origin: Option<AttributeValue<Cursor<'a>>>,
    call_file: Option<u64>,
    call_line: u32,
}

impl<'a> Entries<'a> {
    /// The functions at each of these addresses, which are sorted.
    pub(super) fn functions(&self, addresses: &[u64]) -> gimli::Result<Stacks> {
        let mut stacks = Stacks::new();
        let mut entries = self.unit.entries_raw(None)?;
        while !entries.is_empty() {
            let offset = entries.next_offset();
            let Some(abbreviation) = entries.read_abbreviation()? else {
                continue;
            };
            if abbreviation.tag() != gimli::DW_TAG_subprogram {
                entries.skip_attributes(abbreviation.attributes())?;
                continue;
            }
            let entry = read(&mut entries, abbreviation, self.unit)?;
            let mut held = self.held(&entry, addresses)?;
            // Functions that are alike may have been folded into one.
            held.retain(|address| !stacks.contains_key(address));
            if !held.is_empty() {
                let function = self.function(&entry);
                let held: Stacks = held
                    .into_iter()
                    .map(|address| (address, vec![function.clone()]))
                    .collect();
                stacks.extend(self.inlined(offset, held)?);
            }
        }
        Ok(stacks)
    }

    /// Adds to each address of a function what was inlined there; the function is at this place.
    fn inlined(&self, offset: UnitOffset, mut stacks: Stacks) -> gimli::Result<Stacks> {
        let addresses: Vec<u64> = stacks.keys().copied().collect();
        let mut entries = self.unit.entries_raw(Some(offset))?;
        let outermost = entries.next_depth();
        skip(&mut entries)?;
        // The depths of the inlined copies that the entry at hand lies in.
        let mut around: Vec<isize> = Vec::new();
        while entries.next_depth() > outermost {
            let depth = entries.next_depth();
            let Some(abbreviation) = entries.read_abbreviation()? else {
                continue;
            };
            around.retain(|copy| *copy < depth);
            if abbreviation.tag() == gimli::DW_TAG_inlined_subroutine {
                let entry = read(&mut entries, abbreviation, self.unit)?;
                around.push(depth);
                let mut held = self.held(&entry, &addresses)?;
                held.retain(|address| {
                    let stack = stacks.get(address);
                    stack.is_some_and(|stack| stack.len() == around.len())
                });
                if held.is_empty() {
                    continue;
                }
                let function = self.function(&entry);
                for address in held {
                    stacks.entry(address).or_default().push(function.clone());
                }
            } else {
                entries.skip_attributes(abbreviation.attributes())?;
                // What is declared in a function without being inlined is no part of its code.
                while abbreviation.tag() == gimli::DW_TAG_subprogram && entries.next_depth() > depth
                {
                    skip(&mut entries)?;
                }
            }
        }
        Ok(stacks)
    }

    /// Those of the addresses that an entry stands for.
    fn held(&self, entry: &Entry<'_>, addresses: &[u64]) -> gimli::Result<Vec<u64>> {
        let ranges = entry.extent.ranges(self.unit)?.into_iter();
        let held = ranges.flat_map(|range| within(addresses, range));
        Ok(held.copied().collect())
    }

    fn function(&self, entry: &Entry<'a>) -> Function {
        // A name that cannot be read is one that is not there: the symbol table may have it.
        let raw_name = self.name(entry, self.unit, STEPS).ok().flatten();
        Function {
            raw_name: raw_name.unwrap_or_default(),
            call_file: entry.call_file,
            call_line: entry.call_line,
        }
    }

    fn name(
        &self,
        entry: &Entry<'a>,
        unit: UnitRef<'_, Cursor<'a>>,
        steps: usize,
    ) -> gimli::Result<Option<String>> {
        for value in [&entry.linkage_name, &entry.name].into_iter().flatten() {
            if let Ok(name) = unit.attr_string(value.clone()) {
                return Ok(Some(name.to_string_lossy()?.into_owned()));
            }
        }
        let Some(steps) = steps.checked_sub(1) else {
            return Ok(None);
        };
        match entry.origin {
            Some(AttributeValue::UnitRef(offset)) => {
                let entry = entry_at(unit, offset)?;
                self.name(&entry, unit, steps)
            }
            Some(AttributeValue::DebugInfoRef(place)) => {
                let other = self.units.and_then(|units| units.containing(place.0));
                let Some(other) = other else {
                    return Ok(None);
                };
                let header = unit.dwarf.debug_info.header_from_offset(other)?;
                let Some(offset) = place.to_unit_offset(&header) else {
                    return Ok(None);
                };
                let other = unit.dwarf.unit(header)?;
                let other = other.unit_ref(unit.dwarf);
                let entry = entry_at(other, offset)?;
                self.name(&entry, other, steps)
            }
            _ => Ok(None),
        }
    }
}

fn entry_at<'a>(unit: UnitRef<'_, Cursor<'a>>, offset: UnitOffset) -> gimli::Result<Entry<'a>> {
    let mut entries = unit.entries_raw(Some(offset))?;
    match entries.read_abbreviation()? {
        Some(abbreviation) => read(&mut entries, abbreviation, unit),
        None => Ok(Entry::default()),
    }
}

fn skip(entries: &mut EntriesRaw<'_, Cursor<'_>>) -> gimli::Result<()> {
    match entries.read_abbreviation()? {
        Some(abbreviation) => entries.skip_attributes(abbreviation.attributes()),
        None => Ok(()),
    }
}

fn read<'a>(
    entries: &mut EntriesRaw<'_, Cursor<'a>>,
    abbreviation: &Abbreviation,
    unit: UnitRef<'_, Cursor<'a>>,
) -> gimli::Result<Entry<'a>> {
    let mut entry = Entry::default();
    for spec in abbreviation.attributes() {
        let attribute = entries.read_attribute(*spec)?;
        let value = attribute.value();
        match (attribute.name(), value) {
            (gimli::DW_AT_linkage_name | gimli::DW_AT_MIPS_linkage_name, value) => {
                entry.linkage_name = Some(value);
            }
            (gimli::DW_AT_name, value) => entry.name = Some(value),
            (gimli::DW_AT_abstract_origin | gimli::DW_AT_specification, value) => {
                entry.origin = Some(value);
            }
            // Before version 5 there was no file of number 0.
            (gimli::DW_AT_call_file, AttributeValue::FileIndex(file)) => {
                let known = file > 0 || unit.header.version() >= 5;
                entry.call_file = known.then_some(file);
            }
            (gimli::DW_AT_call_line, _) => {
                let line = attribute.udata_value().unwrap_or(0);
                entry.call_line = u32::try_from(line).unwrap_or(0);
            }
            (name, value) => entry.extent.note(name, value, unit)?,
        }
    }
    Ok(entry)
}
