//! The debug sections of a file, read a page at a time as they are asked for.
//!
//! Not mapped: a mapped file that shrinks kills the process, and the pages of a mapping count as
//! resident until somebody lets them go. What is held here has a limit, whatever the file's size.

use std::borrow::Cow;
use std::cell::RefCell;
use std::collections::HashMap;
use std::error::Error;
use std::fmt::{self, Debug, Formatter};
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::rc::Rc;

use gimli::{NativeEndian, Reader, ReaderOffsetId, SectionId};
use object::read::ReadCache;
use object::{CompressionFormat, Object, ObjectSection};

/// Bytes read at once. Names lie all over a string section, so that more would mostly be thrown away.
const PAGE: usize = 4096;
/// Pages of one section that are held; past it all are let go.
const PAGES: usize = 512;

/// The sections of one file.
pub(super) struct Sections {
    by_name: HashMap<String, Section>,
    absent: Section,
}

/// One section.
pub(super) struct Section {
    source: Source,
    len: usize,
    pages: RefCell<HashMap<usize, Page>>,
}

enum Source {
    /// At this place of the file.
    File(Rc<File>, u64),
    /// Packed in the file, and cannot be unpacked in part.
    Unpacked(Page),
}

type Page = Rc<Vec<u8>>;

impl Sections {
    /// Looks where the debug sections of a file are; unpacks those that are packed.
    pub(super) fn open(path: &Path) -> Result<Self, Box<dyn Error + Send + Sync>> {
        let file = Rc::new(File::open(path)?);
        let cache = ReadCache::new(&*file);
        let object = object::File::parse(&cache)?;
        if object.is_little_endian() != cfg!(target_endian = "little") {
            return Err("its bytes are in another order than this machine's".into());
        }
        let mut by_name = HashMap::new();
        for section in object.sections() {
            // Older files mark packed sections by their name.
            let name = section
                .name()
                .unwrap_or_default()
                .replace(".zdebug", ".debug");
            if needed(&name) {
                by_name.insert(name, Section::find(&file, &section)?);
            }
        }
        Ok(Self {
            by_name,
            absent: Section::new(Source::Unpacked(Page::default()), 0),
        })
    }

    /// The section of this name, without bytes if the file has none.
    pub(super) fn get(&self, id: SectionId) -> Cursor<'_> {
        self.named(Some(id.name()))
    }

    /// The same in a file that holds what was split off another.
    pub(super) fn get_split(&self, id: SectionId) -> Cursor<'_> {
        self.named(id.dwo_name())
    }

    /// A section without bytes.
    pub(super) fn absent(&self) -> Cursor<'_> {
        self.named(None)
    }

    fn named(&self, name: Option<&str>) -> Cursor<'_> {
        let section = name.and_then(|name| self.by_name.get(name));
        Cursor::new(section.unwrap_or(&self.absent))
    }
}

/// Where variables are and what macros were is never asked for.
fn needed(name: &str) -> bool {
    const NEVER: [&str; 5] = [
        ".debug_loc",
        ".debug_mac",
        ".debug_pub",
        ".debug_types",
        ".debug_frame",
    ];
    // The index of a package also says where those parts are, and must not point beyond the end.
    let packaged = name.ends_with(".dwo");
    let never = NEVER.iter().any(|never| name.starts_with(never));
    name.starts_with(".debug") && (packaged || !never)
}

impl Section {
    fn new(source: Source, len: usize) -> Self {
        Self {
            source,
            len,
            pages: RefCell::default(),
        }
    }

    fn find<'data>(
        file: &Rc<File>,
        section: &impl ObjectSection<'data>,
    ) -> Result<Self, Box<dyn Error + Send + Sync>> {
        let range = section.compressed_file_range()?;
        if range.format == CompressionFormat::None {
            let len = range.uncompressed_size.try_into()?;
            return Ok(Self::new(Source::File(Rc::clone(file), range.offset), len));
        }
        let bytes = section.uncompressed_data()?.into_owned();
        let len = bytes.len();
        Ok(Self::new(Source::Unpacked(Rc::new(bytes)), len))
    }

    /// The page that holds the byte at this place, and where it begins.
    fn page(&self, at: usize) -> gimli::Result<(usize, Page)> {
        let (file, offset) = match &self.source {
            Source::File(file, offset) => (file, *offset),
            Source::Unpacked(bytes) => return Ok((0, Rc::clone(bytes))),
        };
        let start = at - at % PAGE;
        let mut pages = self.pages.borrow_mut();
        if let Some(page) = pages.get(&start) {
            return Ok((start, Rc::clone(page)));
        }
        if pages.len() >= PAGES {
            pages.clear();
        }
        let mut bytes = vec![0; PAGE.min(self.len.saturating_sub(start))];
        let at = u64::try_from(start)
            .ok()
            .and_then(|start| offset.checked_add(start));
        file.read_exact_at(&mut bytes, at.ok_or(gimli::Error::Io)?)
            .map_err(|_| gimli::Error::Io)?;
        let page = Rc::new(bytes);
        pages.insert(start, Rc::clone(&page));
        Ok((start, page))
    }
}

/// A stretch of a section that is being read; cheap to copy.
#[derive(Clone)]
pub(super) struct Cursor<'a> {
    section: &'a Section,
    at: usize,
    end: usize,
    /// The page read last, and where it begins.
    page: Page,
    page_start: usize,
}

impl Debug for Cursor<'_> {
    fn fmt(&self, out: &mut Formatter<'_>) -> fmt::Result {
        write!(out, "{:#x}..{:#x}", self.at, self.end)
    }
}

impl<'a> Cursor<'a> {
    fn new(section: &'a Section) -> Self {
        Self {
            section,
            at: 0,
            end: section.len,
            page: Page::default(),
            page_start: 0,
        }
    }

    /// What the page at hand has of the stretch from here.
    fn held(&self) -> &[u8] {
        let left = self.end - self.at;
        let page = self.at.checked_sub(self.page_start);
        let page = page.and_then(|within| self.page.get(within..));
        let page = page.unwrap_or_default();
        page.get(..left).unwrap_or(page)
    }

    fn turn(&mut self) -> gimli::Result<()> {
        (self.page_start, self.page) = self.section.page(self.at)?;
        Ok(())
    }

    fn too_short(&self) -> gimli::Error {
        gimli::Error::UnexpectedEof(self.offset_id())
    }

    fn check(&self, len: usize) -> gimli::Result<()> {
        if len > self.end - self.at {
            return Err(self.too_short());
        }
        Ok(())
    }
}

impl Reader for Cursor<'_> {
    type Endian = NativeEndian;
    type Offset = usize;

    fn endian(&self) -> NativeEndian {
        NativeEndian::default()
    }

    fn len(&self) -> usize {
        self.end - self.at
    }

    fn empty(&mut self) {
        self.end = self.at;
    }

    fn truncate(&mut self, len: usize) -> gimli::Result<()> {
        self.check(len)?;
        self.end = self.at + len;
        Ok(())
    }

    fn offset_from(&self, base: &Self) -> usize {
        self.at.saturating_sub(base.at)
    }

    fn offset_id(&self) -> ReaderOffsetId {
        ReaderOffsetId(self.at.try_into().unwrap_or(u64::MAX))
    }

    fn lookup_offset_id(&self, id: ReaderOffsetId) -> Option<usize> {
        let at = usize::try_from(id.0).ok()?.checked_sub(self.at)?;
        (at <= self.len()).then_some(at)
    }

    fn find(&self, byte: u8) -> gimli::Result<usize> {
        let mut ahead = self.clone();
        while !ahead.is_empty() {
            if ahead.held().is_empty() {
                ahead.turn()?;
            }
            let held = ahead.held();
            if let Some(place) = held.iter().position(|seen| *seen == byte) {
                return Ok(ahead.at + place - self.at);
            }
            ahead.at += held.len();
        }
        Err(self.too_short())
    }

    fn skip(&mut self, len: usize) -> gimli::Result<()> {
        self.check(len)?;
        self.at += len;
        Ok(())
    }

    fn split(&mut self, len: usize) -> gimli::Result<Self> {
        let mut first = self.clone();
        first.truncate(len)?;
        self.at += len;
        Ok(first)
    }

    fn to_slice(&self) -> gimli::Result<Cow<'_, [u8]>> {
        let held = self.held();
        if held.len() == self.len() {
            return Ok(held.into());
        }
        let mut bytes = vec![0; self.len()];
        self.clone().read_slice(&mut bytes)?;
        Ok(bytes.into())
    }

    fn to_string(&self) -> gimli::Result<Cow<'_, str>> {
        let bytes = self.to_slice()?.into_owned();
        let text = String::from_utf8(bytes).map_err(|_| gimli::Error::BadUtf8)?;
        Ok(text.into())
    }

    fn to_string_lossy(&self) -> gimli::Result<Cow<'_, str>> {
        let bytes = self.to_slice()?;
        Ok(String::from_utf8_lossy(&bytes).into_owned().into())
    }

    fn read_slice(&mut self, mut out: &mut [u8]) -> gimli::Result<()> {
        self.check(out.len())?;
        while !out.is_empty() {
            if self.held().is_empty() {
                self.turn()?;
            }
            let held = self.held();
            let len = held.len().min(out.len());
            let (Some((now, later)), Some(held)) = (out.split_at_mut_checked(len), held.get(..len))
            else {
                return Err(self.too_short());
            };
            now.copy_from_slice(held);
            out = later;
            self.at += len;
        }
        Ok(())
    }

    // Most that is read are single bytes, and this one needs no loop.
    fn read_u8(&mut self) -> gimli::Result<u8> {
        if self.held().is_empty() {
            self.check(1)?;
            self.turn()?;
        }
        let byte = self.held().first().copied();
        self.at += 1;
        byte.ok_or(gimli::Error::Io)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_section_holds_a_few_of_its_pages_and_reads_the_same_bytes() {
        let path = Path::new("/proc/self/exe");
        let sections = Sections::open(path).unwrap();
        let whole = std::fs::read(path).unwrap();
        let object = object::File::parse(&*whole).unwrap();
        let expected = object
            .section_by_name(".debug_str")
            .unwrap()
            .data()
            .unwrap();
        assert!(expected.len() > 2 * PAGES * PAGE, "{}", expected.len());

        let mut cursor = sections.get(SectionId::DebugStr);
        let mut bytes = vec![0; 1000];
        let mut at = 0;
        while cursor.len() >= bytes.len() {
            assert_eq!(cursor.offset_from(&sections.get(SectionId::DebugStr)), at);
            cursor.read_slice(&mut bytes).unwrap();
            assert!(bytes == expected[at..at + bytes.len()], "at {at}");
            at += bytes.len();
            assert!(cursor.section.pages.borrow().len() <= PAGES);
        }
        let rest = cursor.to_slice().unwrap().into_owned();
        assert!(rest == expected[at..]);
        assert!(cursor.skip(rest.len() + 1).is_err());
        cursor.skip(rest.len()).unwrap();
        assert!(cursor.is_empty() && cursor.read_u8().is_err());
    }

    #[test]
    fn names_end_where_they_do_across_pages() {
        let sections = Sections::open(Path::new("/proc/self/exe")).unwrap();
        let mut cursor = sections.get(SectionId::DebugStr);
        cursor.skip(PAGE - 10).unwrap();
        let found = cursor.find(0).unwrap();
        let name = cursor.to_slice().unwrap()[..=found].to_vec();
        assert_eq!(name.iter().position(|byte| *byte == 0), Some(found));
        cursor.skip(1).unwrap();
        assert!(cursor.find(0).unwrap() < name.len() || found == 0);
        cursor.truncate(0).unwrap();
        assert!(cursor.find(0).is_err() && cursor.truncate(1).is_err());
    }
}
