//! The loaded modules: where they lie, and their unwind sections.
//!
//! Read inside the callback of `dl_iterate_phdr`, which holds the loader's lock: a `dlclose` cannot
//! unmap what is being copied. The program itself is never unmapped, so its sections are borrowed.
#![expect(unsafe_code, reason = "dl_iterate_phdr and reading mapped sections")]

use std::borrow::Cow;
use std::ffi::CStr;
use std::ops::Range;

/// One loaded module.
#[derive(Debug, Clone)]
pub(crate) struct LoadedModule {
    /// As the loader knows it; empty for the program itself.
    pub(crate) name: String,
    /// What is added to a module's own addresses.
    pub(crate) base: u64,
    /// Its executable segments.
    pub(crate) code: Vec<Range<u64>>,
    /// Address and bytes of the table that indexes the unwind section.
    pub(crate) eh_frame_hdr: Section,
    /// Address and bytes of the unwind section.
    pub(crate) eh_frame: Section,
}

/// Bytes of a module and where they lie; empty if the module has none.
#[derive(Debug, Clone, Default)]
pub(crate) struct Section {
    pub(crate) address: u64,
    pub(crate) bytes: Cow<'static, [u8]>,
}

/// How often modules were loaded and unloaded: unchanged means that nothing moved.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Changes {
    pub(crate) loaded: u64,
    pub(crate) unloaded: u64,
}

struct Walk {
    changes: Changes,
    /// `None`: only the counters are wanted.
    modules: Option<Vec<LoadedModule>>,
}

/// The counters of loads and unloads. Takes the loader's lock for a moment.
pub(crate) fn changes() -> Changes {
    let mut walk = Walk {
        changes: Changes::default(),
        modules: None,
    };
    iterate(&mut walk);
    walk.changes
}

/// All loaded modules, and the counters as they were then.
pub(crate) fn all() -> (Changes, Vec<LoadedModule>) {
    let mut walk = Walk {
        changes: Changes::default(),
        modules: Some(Vec::new()),
    };
    iterate(&mut walk);
    (walk.changes, walk.modules.unwrap_or_default())
}

/// Whether an address is code of the program itself and not of a library.
pub(crate) fn is_in_main_program(address: usize) -> bool {
    let (_, modules) = all();
    let program = modules.iter().filter(|module| module.name.is_empty());
    let mut code = program.flat_map(|module| &module.code);
    code.any(|range| range.contains(&(address as u64)))
}

fn iterate(walk: &mut Walk) {
    // SAFETY: `visit` has the signature that the call wants and gets `walk` back, which outlives it.
    unsafe { libc::dl_iterate_phdr(Some(visit), std::ptr::from_mut(walk).cast()) };
}

extern "C" fn visit(
    info: *mut libc::dl_phdr_info,
    _size: libc::size_t,
    walk: *mut libc::c_void,
) -> libc::c_int {
    // SAFETY: the loader passes a live description.
    let info = unsafe { &*info };
    // SAFETY: the pointer that `iterate` gave; nothing else uses it during the call.
    let walk = unsafe { &mut *walk.cast::<Walk>() };
    walk.changes = Changes {
        loaded: info.dlpi_adds,
        unloaded: info.dlpi_subs,
    };
    match &mut walk.modules {
        // The counters are the same in every call: one is enough.
        None => 1,
        Some(modules) => {
            modules.push(read(info));
            0
        }
    }
}

fn read(info: &libc::dl_phdr_info) -> LoadedModule {
    let name = if info.dlpi_name.is_null() {
        String::new()
    } else {
        // SAFETY: the loader's name is a C string that lives as long as the module.
        unsafe { CStr::from_ptr(info.dlpi_name) }
            .to_string_lossy()
            .into_owned()
    };
    let headers = if info.dlpi_phdr.is_null() {
        &[][..]
    } else {
        // SAFETY: the loader says how many program headers there are.
        unsafe { std::slice::from_raw_parts(info.dlpi_phdr, usize::from(info.dlpi_phnum)) }
    };
    let base = info.dlpi_addr;
    let span = |header: &libc::Elf64_Phdr| {
        let start = base.wrapping_add(header.p_vaddr);
        start..start.wrapping_add(header.p_memsz)
    };
    let loads = || {
        headers
            .iter()
            .filter(|header| header.p_type == libc::PT_LOAD)
    };
    let code = loads()
        .filter(|header| header.p_flags & libc::PF_X != 0)
        .map(span)
        .collect();
    let program = name.is_empty();
    let indexed = headers
        .iter()
        .find(|header| header.p_type == libc::PT_GNU_EH_FRAME)
        .map(span);
    let eh_frame_hdr = indexed
        .filter(|index| index.start != 0)
        .map(|index| section(index, program))
        .unwrap_or_default();
    let eh_frame = frame_start(&eh_frame_hdr)
        .and_then(|start| {
            let readable = |header: &&libc::Elf64_Phdr| header.p_flags & libc::PF_R != 0;
            let segment = loads()
                .filter(readable)
                .map(span)
                .find(|span| span.contains(&start))?;
            Some(section(start..segment.end, program))
        })
        .unwrap_or_default();
    LoadedModule {
        name,
        base,
        code,
        eh_frame_hdr,
        eh_frame,
    }
}

/// Unwind sections beyond this are left out: the largest seen, of a browser, has 11 MiB.
const SECTION_BYTES: u64 = 64 << 20;

fn section(range: Range<u64>, program: bool) -> Section {
    let len = range.end.saturating_sub(range.start).min(SECTION_BYTES);
    let len = usize::try_from(len).unwrap_or(0);
    // SAFETY: the range lies in a mapped, readable segment of a module that the loader's lock keeps
    // loaded; the program's own segments are never unmapped, so borrowing those for good is sound.
    let bytes: &'static [u8] = unsafe { std::slice::from_raw_parts(range.start as *const u8, len) };
    let bytes = if program {
        Cow::Borrowed(bytes)
    } else {
        Cow::Owned(bytes.to_vec())
    };
    Section {
        address: range.start,
        bytes,
    }
}

/// Where the unwind section starts, from the head of its index: version 1, then three encodings, then
/// the pointer. Every linker in use writes it as a 32-bit distance (encoding 0x1b).
///
/// Source: Linux Standard Base, "Exception Frames", section .eh_frame_hdr.
fn frame_start(index: &Section) -> Option<u64> {
    let (&[version, encoding, _, _], rest) = index.bytes.split_first_chunk::<4>()?;
    if version != 1 || encoding != 0x1b {
        return None;
    }
    let distance = i32::from_le_bytes(*rest.first_chunk::<4>()?);
    index
        .address
        .checked_add(4)?
        .checked_add_signed(i64::from(distance))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_program_and_the_c_library_have_code_and_unwind_sections() {
        let (changes, modules) = all();
        assert_eq!(changes, super::changes());
        let here = frame_start as *const () as u64;
        let program = modules
            .iter()
            .find(|m| m.code.iter().any(|code| code.contains(&here)))
            .unwrap();
        assert!(program.name.is_empty() && program.eh_frame.bytes.len() > 10_000);
        let libc = modules.iter().find(|m| m.name.contains("libc.so")).unwrap();
        assert!(libc.eh_frame_hdr.bytes.len() > 1000 && libc.eh_frame.bytes.len() > 10_000);
    }
}
