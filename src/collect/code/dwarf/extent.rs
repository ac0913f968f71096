//! Which addresses an entry of the debug information stands for.

use gimli::{AttributeValue, Range, RangeListsOffset, UnitRef};

use super::sections::Cursor;

/// The attributes that say it, as they come.
#[derive(Debug, Default)]
pub(super) struct Extent {
    low: Option<u64>,
    high: Option<u64>,
    size: Option<u64>,
    list: Option<RangeListsOffset>,
}

impl Extent {
    /// Takes note of an attribute, if it is one of these.
    pub(super) fn note<'a>(
        &mut self,
        name: gimli::DwAt,
        value: AttributeValue<Cursor<'a>>,
        unit: UnitRef<'_, Cursor<'a>>,
    ) -> gimli::Result<()> {
        match (name, value) {
            (gimli::DW_AT_ranges, value) => self.list = unit.attr_ranges_offset(value)?,
            (gimli::DW_AT_high_pc, AttributeValue::Udata(size)) => self.size = Some(size),
            (gimli::DW_AT_high_pc, value) => self.high = unit.attr_address(value)?,
            (gimli::DW_AT_low_pc, value) => self.low = unit.attr_address(value)?,
            _ => {}
        }
        Ok(())
    }

    /// Its parts that are not empty.
    pub(super) fn ranges(&self, unit: UnitRef<'_, Cursor<'_>>) -> gimli::Result<Vec<Range>> {
        let mut ranges = Vec::new();
        if let Some(list) = self.list {
            let mut list = unit.ranges(list)?;
            while let Some(range) = list.next()? {
                ranges.push(range);
            }
        } else if let Some(begin) = self.low {
            // Code that the linker dropped begins at the last address, so that its end wraps.
            let end = self.size.map(|size| begin.wrapping_add(size));
            ranges.extend(self.high.or(end).map(|end| Range { begin, end }));
        }
        ranges.retain(|range| range.begin < range.end);
        Ok(ranges)
    }
}

/// Those of the addresses, which are sorted, that lie in a range.
pub(super) fn within(addresses: &[u64], range: Range) -> &[u64] {
    let first = addresses.partition_point(|address| *address < range.begin);
    let from = addresses.get(first..).unwrap_or_default();
    let len = from.partition_point(|address| *address < range.end);
    from.get(..len).unwrap_or_default()
}
