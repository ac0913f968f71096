//! The stretches of this process's memory that hold code, and the files they came from.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// Code of one file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::collect) struct Module {
    pub(in crate::collect) start: u64,
    pub(in crate::collect) limit: u64,
    /// Where `start` lies in the file.
    pub(in crate::collect) offset: u64,
    /// Absolute path, or a name such as `[vdso]`; empty for code without a file.
    pub(in crate::collect) file: String,
    pub(in crate::collect) origin: Origin,
}

/// Where the bytes of a module can be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::collect) enum Origin {
    /// The running binary: by its link in `/proc`, since its path may hold a newer one.
    Binary,
    File,
    /// No longer under its path, or never in a file.
    Gone,
}

/// The link to the running binary.
const BINARY: &str = "/proc/self/exe";
/// What the kernel appends to the path of a file that was removed or replaced.
const DELETED: &str = " (deleted)";

impl Module {
    pub(in crate::collect) fn contains(&self, address: u64) -> bool {
        (self.start..self.limit).contains(&address)
    }

    /// The file to open, if it is still the one that is mapped.
    pub(in crate::collect) fn path(&self) -> Option<&Path> {
        match self.origin {
            Origin::Binary => Some(Path::new(BINARY)),
            Origin::File => Some(Path::new(&self.file)),
            Origin::Gone => None,
        }
    }

    /// The file's name without its directory and brackets.
    pub(in crate::collect) fn short(&self) -> &str {
        let name = self.file.rsplit('/').next().unwrap_or_default();
        match name.trim_matches(['[', ']']) {
            "" => "unknown",
            name => name,
        }
    }
}

/// The modules, the running binary first.
///
/// # Errors
/// If the kernel does not show the process its own maps.
pub(in crate::collect) fn modules() -> io::Result<Vec<Module>> {
    let maps = fs::read("/proc/self/maps")?;
    let binary = fs::read_link(BINARY).unwrap_or_else(|_| PathBuf::new());
    Ok(parse(&String::from_utf8_lossy(&maps), &binary))
}

fn parse(maps: &str, binary: &Path) -> Vec<Module> {
    let mut modules: Vec<Module> = maps
        .lines()
        .filter_map(|line| module(line, binary))
        .collect();
    modules.sort_by_key(|module| (module.origin != Origin::Binary, module.start));
    modules
}

/// `55d0-55d9 r-xp 00003000 fe:00 10085440    /usr/bin/name`
fn module(line: &str, binary: &Path) -> Option<Module> {
    let mut words = line.splitn(6, ' ');
    let (start, limit) = words.next()?.split_once('-')?;
    if !words.next()?.contains('x') {
        return None;
    }
    let offset = words.next()?;
    let file = words.nth(2).unwrap_or_default().trim_start();
    let origin = if !file.is_empty() && Path::new(file) == binary {
        Origin::Binary
    } else if file.starts_with('/') && !file.ends_with(DELETED) {
        Origin::File
    } else {
        Origin::Gone
    };
    let hex = |text| u64::from_str_radix(text, 16).ok();
    Some(Module {
        start: hex(start)?,
        limit: hex(limit)?,
        offset: hex(offset)?,
        file: file.trim_end_matches(DELETED).to_owned(),
        origin,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAPS: &str = "\
7fcb62053000-7fcb621a9000 r-xp 00026000 fe:00 326279                     /usr/lib/libc.so.6
7fcb62240000-7fcb62242000 r-xp 00000000 00:00 0                          [vdso]
564a01b15000-564a01b9e000 r-xp 00030000 fe:00 10085440                   /srv/my app (deleted)
564a01b9e000-564a01ba0000 rw-p 00030000 fe:00 10085440                   /srv/my app (deleted)
7fcb62250000-7fcb62251000 r-xp 00000000 fe:00 9                          /tmp/plug.so (deleted)
7fcb62260000-7fcb62261000 rwxp 00000000 00:00 0 
";

    #[test]
    fn only_code_is_listed_and_the_binary_comes_first() {
        let modules = parse(MAPS, Path::new("/srv/my app (deleted)"));
        let seen: Vec<(&str, &str, Origin)> = modules
            .iter()
            .map(|module| (&*module.file, module.short(), module.origin))
            .collect();
        assert_eq!(
            seen,
            [
                ("/srv/my app", "my app", Origin::Binary),
                ("/usr/lib/libc.so.6", "libc.so.6", Origin::File),
                ("[vdso]", "vdso", Origin::Gone),
                ("/tmp/plug.so", "plug.so", Origin::Gone),
                ("", "unknown", Origin::Gone),
            ]
        );
        let binary = &modules[0];
        assert_eq!(
            (binary.start, binary.limit, binary.offset),
            (0x564a_01b1_5000, 0x564a_01b9_e000, 0x30000)
        );
        assert_eq!(binary.path(), Some(Path::new(BINARY)));
    }

    #[test]
    fn the_code_of_this_test_lies_in_the_running_binary() {
        let here = only_code_is_listed_and_the_binary_comes_first as *const () as usize as u64;
        let modules = modules().unwrap();
        let module = modules.iter().find(|module| module.contains(here)).unwrap();
        assert_eq!(module.origin, Origin::Binary);
    }
}
