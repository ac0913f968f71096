//! What an ELF file says about itself: build id, segments, names of its functions.
//!
//! Read piece by piece and not mapped: the file may shrink while it is read.

use std::fs::File;
use std::path::Path;

use object::read::{ReadCache, ReadRef};
use object::{Object, ObjectSection, ObjectSegment, ObjectSymbol, ObjectSymbolTable, SymbolKind};

/// The parts of one file that naming its code needs.
#[derive(Debug)]
pub(in crate::collect) struct Elf {
    /// Lower-case hexadecimal; empty if the file has none.
    pub(in crate::collect) build_id: String,
    /// Unpacked bytes of the debug sections.
    pub(in crate::collect) debug_bytes: u64,
    /// Names for the addresses asked for, in their order.
    pub(in crate::collect) names: Vec<Option<String>>,
    /// The addresses asked for as the file counts them.
    pub(in crate::collect) addresses: Vec<u64>,
}

/// Reads a file for code at these offsets in it, sorted.
///
/// # Errors
/// If the file cannot be read or is no ELF file.
pub(in crate::collect) fn read(
    path: &Path,
    offsets: &[u64],
) -> Result<Elf, Box<dyn std::error::Error>> {
    let cache = ReadCache::new(File::open(path)?);
    let file = object::File::parse(&cache)?;
    let build_id = file.build_id().ok().flatten().unwrap_or_default();
    let debug_bytes = file.sections().filter_map(|section| debug_bytes(&section));
    let addresses: Vec<u64> = offsets
        .iter()
        .map(|offset| address_of(&file, *offset))
        .collect();
    Ok(Elf {
        build_id: build_id.iter().map(|byte| format!("{byte:02x}")).collect(),
        debug_bytes: debug_bytes.sum(),
        names: names(&file, &addresses),
        addresses,
    })
}

fn debug_bytes<'data>(section: &impl ObjectSection<'data>) -> Option<u64> {
    let name = section.name().ok()?;
    let debug = name.starts_with(".debug") || name.starts_with(".zdebug");
    let range = section.compressed_file_range().ok().filter(|_| debug)?;
    Some(range.uncompressed_size)
}

fn address_of<'data, R: ReadRef<'data>>(file: &object::File<'data, R>, offset: u64) -> u64 {
    let segment = file.segments().find_map(|segment| {
        let (start, size) = segment.file_range();
        let within = offset.checked_sub(start).filter(|within| *within < size)?;
        segment.address().checked_add(within)
    });
    segment.unwrap_or(offset)
}

/// The function around each address. Only by the size in the symbol: the nearest symbol before an
/// address is often another function, whose name would be a lie.
fn names<'data, R: ReadRef<'data>>(
    file: &object::File<'data, R>,
    addresses: &[u64],
) -> Vec<Option<String>> {
    if addresses.is_empty() {
        return Vec::new();
    }
    let mut order: Vec<(u64, usize)> = addresses.iter().copied().zip(0..).collect();
    order.sort_unstable();
    let mut found: Vec<Option<(u64, String)>> = vec![None; addresses.len()];
    let full = file.symbol_table().map(|table| table.symbols());
    let dynamic = file.dynamic_symbol_table().map(|table| table.symbols());
    for symbol in full.into_iter().chain(dynamic).flatten() {
        let (start, size) = (symbol.address(), symbol.size());
        if size == 0 || symbol.kind() != SymbolKind::Text || symbol.is_undefined() {
            continue;
        }
        let first = order.partition_point(|(address, _)| *address < start);
        let inside = order.iter().skip(first);
        for (_, place) in inside.take_while(|(address, _)| address - start < size) {
            let (Some(held), Ok(name)) = (found.get_mut(*place), symbol.name()) else {
                continue;
            };
            // One function may have several names; the choice must not depend on their order.
            let better = held
                .as_ref()
                .is_none_or(|(held_size, held)| rank(size, name) < rank(*held_size, held));
            if better && !name.is_empty() {
                *held = Some((size, name.to_owned()));
            }
        }
    }
    let names = found.into_iter();
    names.map(|held| held.map(|(_, name)| name)).collect()
}

/// The tightest symbol, of these the one that is least internal.
fn rank(size: u64, name: &str) -> (u64, usize, &str) {
    let underscores = name.bytes().take_while(|byte| *byte == b'_').count();
    (size, underscores, name)
}
