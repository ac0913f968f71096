//! Return addresses from copied stack bytes: framehop over the modules as they are loaded now.
//!
//! Nothing of the host's memory is read here: registers and stack come from a sample's slot, unwind
//! sections from `sys::sampling::modules`. Works without frame pointers; framehop falls back to them where a
//! function has no unwind information.
//!
//! # Cost
//! Three things in turn make a frame cheap: the same frame in the thread's last stack (`last`), the
//! rule in a cache, and only then the search through the unwind section.

mod last;

use std::borrow::Cow;
use std::fmt;
use std::ops::{Deref, Range};

use framehop::{
    CacheNative, ExplicitModuleSectionInfo, FrameAddress, MayAllocateDuringUnwind, Module,
    UnwindRegsNative, Unwinder as _, UnwinderNative,
};

use self::last::{Lasts, Read};
use crate::collect::sys::sampling::arena::Head;
use crate::collect::sys::sampling::modules::{self, Changes, LoadedModule, Section};
use crate::config::sampling::STACK_DEPTH;

/// framehop tags its cached rules with 16 bits of module generation: after 65,536 changes stale rules
/// would come back to life. Half of that leaves room for the changes of one rebuild.
const REBUILDS_PER_CACHE: u32 = 30_000;

/// framehop's cache holds 509 rules, by address modulo 509; a service's stacks go through thousands of
/// addresses. So many caches share them. An unused one has no memory but its 8 KiB of rules.
const CACHES: usize = 32;

/// Whether a stack was followed to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    Whole,
    /// The slice of stack was too short, the stack too deep, or a frame could not be understood.
    Truncated,
}

/// A caller in a stack: with the stack's bytes this is all that the frame beyond it follows from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Frame {
    return_address: u64,
    sp: u64,
    fp: u64,
}

/// What lies beyond a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Beyond {
    Frame(Frame),
    End(End),
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
    caches: Vec<CacheNative<MayAllocateDuringUnwind>>,
    lasts: Lasts,
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
            caches: caches(),
            lasts: Lasts::default(),
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
        self.lasts.forget();
        self.rebuilds += 1;
        if self.rebuilds >= REBUILDS_PER_CACHE {
            self.rebuilds = 0;
            self.inner = UnwinderNative::new();
            self.caches = caches();
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
        let Self {
            inner,
            caches,
            lasts,
            code,
            ..
        } = self;
        let word = |address: u64| {
            let offset = usize::try_from(address.checked_sub(head.sp)?).ok()?;
            let word = stack.get(offset..)?.first_chunk::<8>()?;
            Some(u64::from_le_bytes(*word))
        };
        let mut step = |address, mut registers, reads: &mut Vec<Read>| {
            let mut read = |address| {
                let value = word(address);
                reads.push(Read { address, value });
                value.ok_or(())
            };
            let Some(cache) = caches.get_mut(cache_of(address)) else {
                return Beyond::End(End::Truncated);
            };
            match inner.unwind_frame(address, &mut registers, cache, &mut read) {
                // Without unwind information framehop guesses by frame pointer, and a guess may lead
                // anywhere: an address that is no code is no frame.
                Ok(Some(return_address)) if within(code, return_address.wrapping_sub(1)) => {
                    Beyond::Frame(frame(return_address, &registers))
                }
                Ok(None) => Beyond::End(End::Whole),
                Ok(Some(_)) | Err(_) => Beyond::End(End::Truncated),
            }
        };
        frames.clear();
        frames.push(head.pc);
        let mut walk = lasts.walk(head.tid);
        let leaf = FrameAddress::from_instruction_pointer(head.pc);
        let mut beyond = step(leaf, registers(head), &mut Vec::new());
        loop {
            let frame = match beyond {
                Beyond::End(end) => return walk.end(end),
                Beyond::Frame(_) if frames.len() >= STACK_DEPTH => return End::Truncated,
                Beyond::Frame(frame) => frame,
            };
            frames.push(frame.return_address.wrapping_sub(1));
            beyond = walk.beyond(
                frame,
                word,
                |reads| match FrameAddress::from_return_address(frame.return_address) {
                    Some(address) => step(address, registers_of(frame), reads),
                    None => Beyond::End(End::Truncated),
                },
            );
        }
    }
}

fn caches() -> Vec<CacheNative<MayAllocateDuringUnwind>> {
    std::iter::repeat_with(CacheNative::new)
        .take(CACHES)
        .collect()
}

/// The cache that holds an address's rule: by its upper bits, since within a cache framehop goes by
/// the lower ones.
fn cache_of(address: FrameAddress) -> usize {
    let mixed = address
        .address_for_lookup()
        .wrapping_mul(0x9e37_79b9_7f4a_7c15);
    usize::try_from(mixed >> 32).unwrap_or(0) % CACHES
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

/// In a caller the register of the return address holds nothing else.
fn registers_of(frame: Frame) -> UnwindRegsNative {
    UnwindRegsNative::new(frame.return_address, frame.sp, frame.fp)
}

fn frame(return_address: u64, registers: &UnwindRegsNative) -> Frame {
    #[cfg(target_arch = "x86_64")]
    let fp = registers.bp();
    #[cfg(target_arch = "aarch64")]
    let fp = registers.fp();
    Frame {
        return_address,
        sp: registers.sp(),
        fp,
    }
}
