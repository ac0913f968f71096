//! Return addresses from copied stack bytes: framehop over the modules as they are loaded now.
//!
//! Nothing of the host's memory is read here: registers and stack come from a sample's slot, unwind
//! sections from `sys::sampling::modules`. Works without frame pointers; framehop falls back to them where a
//! function has no unwind information.

use std::borrow::Cow;
use std::fmt;
use std::ops::{Deref, Range};

use framehop::{
    CacheNative, ExplicitModuleSectionInfo, FrameAddress, MayAllocateDuringUnwind, Module,
    UnwindRegsNative, Unwinder as _, UnwinderNative,
};

use super::sys::sampling::arena::Head;
use super::sys::sampling::modules::{self, Changes, LoadedModule, Section};
use crate::config::sampling::STACK_DEPTH;

/// framehop tags its cached rules with 16 bits of module generation: after 65,536 changes stale rules
/// would come back to life. Half of that leaves room for the changes of one rebuild.
const REBUILDS_PER_CACHE: u32 = 30_000;

/// Whether a stack was followed to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    Whole,
    /// The slice of stack was too short, the stack too deep, or a frame could not be understood.
    Truncated,
}

#[derive(Debug, Clone, Default)]
struct Bytes(Cow<'static, [u8]>);

impl Deref for Bytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}

pub(crate) struct Unwinder {
    inner: UnwinderNative<Bytes, MayAllocateDuringUnwind>,
    cache: CacheNative<MayAllocateDuringUnwind>,
    changes: Option<Changes>,
    rebuilds: u32,
    /// Executable memory, sorted: a return address elsewhere is none.
    code: Vec<Range<u64>>,
    starts: Vec<u64>,
}

impl fmt::Debug for Unwinder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Unwinder")
            .field("code", &self.code.len())
            .finish_non_exhaustive()
    }
}

impl Default for Unwinder {
    fn default() -> Self {
        Self {
            inner: UnwinderNative::new(),
            cache: CacheNative::new(),
            changes: None,
            rebuilds: 0,
            code: Vec::new(),
            starts: Vec::new(),
        }
    }
}

impl Unwinder {
    /// Follows loads and unloads of modules since the last time.
    pub(crate) fn refresh(&mut self) {
        if self.changes == Some(modules::changes()) {
            return;
        }
        let (changes, loaded) = modules::all();
        self.changes = Some(changes);
        for start in self.starts.drain(..) {
            self.inner.remove_module(start);
        }
        self.code.clear();
        self.rebuilds += 1;
        if self.rebuilds >= REBUILDS_PER_CACHE {
            self.rebuilds = 0;
            self.inner = UnwinderNative::new();
            self.cache = CacheNative::new();
        }
        for module in loaded {
            self.add(module);
        }
        self.code.sort_unstable_by_key(|range| range.start);
    }

    fn add(&mut self, module: LoadedModule) {
        let Some(start) = module.code.iter().map(|code| code.start).min() else {
            return;
        };
        let end = module
            .code
            .iter()
            .map(|code| code.end)
            .max()
            .unwrap_or(start);
        let base = module.base;
        let svma = |section: &Section| {
            let start = section.address.wrapping_sub(base);
            (!section.bytes.is_empty()).then(|| start..start + section.bytes.len() as u64)
        };
        let sections = ExplicitModuleSectionInfo {
            base_svma: 0,
            text_svma: Some(start.wrapping_sub(base)..end.wrapping_sub(base)),
            eh_frame_svma: svma(&module.eh_frame),
            eh_frame_hdr_svma: svma(&module.eh_frame_hdr),
            eh_frame: Some(Bytes(module.eh_frame.bytes)),
            eh_frame_hdr: Some(Bytes(module.eh_frame_hdr.bytes)),
            ..ExplicitModuleSectionInfo::default()
        };
        self.code.extend(module.code);
        self.starts.push(start);
        self.inner
            .add_module(Module::new(module.name, start..end, base, sections));
    }

    /// Writes a sample's addresses into `frames`: leaf first, the leaf's exact, each caller's one byte
    /// before its return address, so that all lie inside their call.
    pub(crate) fn unwind(&mut self, head: &Head, stack: &[u8], frames: &mut Vec<u64>) -> End {
        frames.clear();
        let mut read = |address: u64| {
            let offset = address.checked_sub(head.sp).ok_or(())?;
            let offset = usize::try_from(offset).map_err(|_| ())?;
            let word = stack
                .get(offset..)
                .and_then(<[u8]>::first_chunk::<8>)
                .ok_or(())?;
            Ok(u64::from_le_bytes(*word))
        };
        let mut walk = self
            .inner
            .iter_frames(head.pc, registers(head), &mut self.cache, &mut read);
        loop {
            match walk.next() {
                Ok(Some(FrameAddress::InstructionPointer(address))) => frames.push(address),
                Ok(Some(FrameAddress::ReturnAddress(address))) => {
                    // Without unwind information framehop guesses by frame pointer, and a guess may
                    // lead anywhere: an address that is no code is no frame.
                    let before = address.get() - 1;
                    if !within(&self.code, before) {
                        return End::Truncated;
                    }
                    if frames.len() >= STACK_DEPTH {
                        return End::Truncated;
                    }
                    frames.push(before);
                }
                Ok(None) => return End::Whole,
                Err(_) => return End::Truncated,
            }
        }
    }
}

fn within(code: &[Range<u64>], address: u64) -> bool {
    let place = code.partition_point(|range| range.start <= address);
    place
        .checked_sub(1)
        .and_then(|place| code.get(place))
        .is_some_and(|range| range.contains(&address))
}

#[cfg(target_arch = "x86_64")]
fn registers(head: &Head) -> UnwindRegsNative {
    UnwindRegsNative::new(head.pc, head.sp, head.fp)
}

#[cfg(target_arch = "aarch64")]
fn registers(head: &Head) -> UnwindRegsNative {
    UnwindRegsNative::new(head.lr, head.sp, head.fp)
}
