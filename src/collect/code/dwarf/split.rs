//! Debug information that was split off its binary, into a package beside it or a file per unit.

use std::cell::OnceCell;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use gimli::{Dwarf, DwarfPackage, DwoId, Reader, Unit};

use super::sections::{Cursor, Sections};

/// Where the split parts of one binary are.
#[derive(Default)]
pub(super) struct Split {
    package: OnceCell<Option<Sections>>,
}

/// The part of one unit.
pub(super) struct Part<'a> {
    pub(super) dwarf: Dwarf<Cursor<'a>>,
    pub(super) unit: Unit<Cursor<'a>>,
}

impl Split {
    /// The part of a unit in the package of the binary at this path.
    pub(super) fn packed<'a>(
        &'a self,
        path: &Path,
        id: DwoId,
        dwarf: &Dwarf<Cursor<'a>>,
        unit: &Unit<Cursor<'a>>,
    ) -> Option<Part<'a>> {
        let package = self
            .package
            .get_or_init(|| Sections::open(&package(path)).ok());
        let package = package.as_ref()?;
        let load = |id| Ok::<_, gimli::Error>(package.get_split(id));
        let package = DwarfPackage::load(load, package.absent()).ok()?;
        part(package.find_cu(id, dwarf).ok()??, unit)
    }
}

/// The file that the compiler put a unit's part into, if it is still there.
pub(super) fn file(dwarf: &Dwarf<Cursor<'_>>, unit: &Unit<Cursor<'_>>) -> Option<Sections> {
    let name = dwarf.attr_string(unit, unit.dwo_name().ok()??).ok()?;
    let mut path = PathBuf::new();
    for part in unit.comp_dir.iter().chain([&name]) {
        path.push(OsStr::from_bytes(&part.to_slice().ok()?));
    }
    Sections::open(&path).ok()
}

/// The part in a file of its own, if the file is the one that the binary was linked from.
pub(super) fn alone<'a>(
    file: &'a Sections,
    id: DwoId,
    dwarf: &Dwarf<Cursor<'a>>,
    unit: &Unit<Cursor<'a>>,
) -> Option<Part<'a>> {
    let load = |id| Ok::<_, gimli::Error>(file.get_split(id));
    let mut split = Dwarf::load(load).ok()?;
    split.make_dwo(dwarf);
    let part = part(split, unit)?;
    (part.unit.dwo_id == Some(id)).then_some(part)
}

fn part<'a>(dwarf: Dwarf<Cursor<'a>>, whole: &Unit<Cursor<'a>>) -> Option<Part<'a>> {
    let header = dwarf.units().next().ok()??;
    let mut unit = dwarf.unit(header).ok()?;
    unit.copy_relocated_attributes(whole);
    Some(Part { dwarf, unit })
}

/// `/usr/bin/name.dwp` for `/usr/bin/name`. The running binary is opened by a link.
fn package(path: &Path) -> PathBuf {
    let path = fs::read_link(path).unwrap_or_else(|_| path.to_owned());
    let mut name = OsString::from(path);
    name.push(".dwp");
    name.into()
}
