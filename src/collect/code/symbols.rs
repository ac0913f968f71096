//! Names and lines for addresses of this process, from the files that its code came from.
//!
//! One module at a time, so that its pages and names are let go before the next. Never while a lock is
//! held: a cold module takes half a second. What cannot be named keeps its place as `[module+0x1234]`.

use std::collections::{BTreeMap, HashMap};
use std::panic::resume_unwind;
use std::sync::Arc;
use std::thread;
use std::time::Instant;

use super::dwarf::{self, Frame, Frames};
use super::elf::{self, Elf};
use super::htlhash;
use super::modules::{Module, modules};
use crate::collect::cpu::on_own_thread;
use crate::config::sampling;
use crate::store::profile::{Function, Mapping};
use crate::store::symbols::{Symbol, Symbols};
use crate::store::sync::lock;

/// What a set of addresses means.
#[derive(Debug, Default)]
pub(in crate::collect) struct Symbolised {
    /// Those that hold one of the addresses; the running binary first, always.
    pub(in crate::collect) mappings: Vec<Mapping>,
    pub(in crate::collect) places: HashMap<u64, Place>,
    /// What could not be had, for the reader.
    pub(in crate::collect) comments: Vec<String>,
}

/// One address of the code.
#[derive(Debug)]
pub(in crate::collect) struct Place {
    /// Index into [`Symbolised::mappings`].
    pub(in crate::collect) mapping: Option<u32>,
    pub(in crate::collect) symbols: Arc<[Symbol]>,
}

/// Names addresses; remembers which modules the store's table speaks of.
#[derive(Debug, Default)]
pub(in crate::collect) struct Symboliser {
    known: Vec<Module>,
}

/// When to stop naming and leave the rest raw.
pub(in crate::collect) struct Patience<'a> {
    pub(in crate::collect) deadline: Instant,
    /// Somebody still waits for the answer.
    pub(in crate::collect) wanted: &'a (dyn Fn() -> bool + Sync),
}

impl Patience<'_> {
    fn over(&self) -> bool {
        Instant::now() >= self.deadline || !(self.wanted)()
    }
}

impl Symboliser {
    /// Names addresses, which are sorted and distinct; one caller of a table at a time.
    pub(in crate::collect) fn symbolise(
        &mut self,
        addresses: &[u64],
        table: &Symbols,
        patience: &Patience<'_>,
    ) -> Symbolised {
        // CPU and wall profiles name at the same time; the debug information of two modules would
        // double the memory.
        let _one = lock(&table.naming);
        let mut out = Symbolised::default();
        out.comments.extend(self.refresh(table));
        for (place, module) in self.known.iter().enumerate() {
            let held = within(module, addresses);
            if !held.is_empty() || place == 0 {
                out.add(module, &held, table, patience);
            }
        }
        out.add_unknown(addresses);
        out
    }

    /// Says which modules addresses lie in, and nothing more: another tool will name them.
    pub(in crate::collect) fn locate(&mut self, addresses: &[u64], table: &Symbols) -> Symbolised {
        let mut out = Symbolised::default();
        out.comments.extend(self.refresh(table));
        for (place, module) in self.known.iter().enumerate() {
            let held: Vec<u64> = within(module, addresses);
            if held.is_empty() && place != 0 {
                continue;
            }
            let mapping = u32::try_from(out.mappings.len()).ok();
            let elf = module.path().and_then(|path| elf::read(path, &[]).ok());
            let build_id = elf.map_or_else(String::new, |elf| elf.build_id);
            out.mappings.push(mapping_of(module, build_id, false));
            let symbols: Arc<[Symbol]> = Arc::new([]);
            for address in held {
                let symbols = Arc::clone(&symbols);
                out.places.insert(address, Place { mapping, symbols });
            }
        }
        out.add_unknown(addresses);
        out
    }

    /// The function that holds each address, by the symbol tables alone: no lines, and no more
    /// memory than a module's names. `None` where there is no code of a file.
    pub(in crate::collect) fn names(
        &mut self,
        addresses: &[u64],
        table: &Symbols,
        patience: &Patience<'_>,
    ) -> Vec<Option<Arc<str>>> {
        self.refresh(table);
        let mut names: HashMap<u64, Arc<str>> = HashMap::new();
        for module in &self.known {
            let mut held = within(module, addresses);
            held.sort_unstable();
            held.dedup();
            if held.is_empty() || patience.over() {
                continue;
            }
            let offset = |address: u64| address - module.start + module.offset;
            let offsets: Vec<u64> = held.iter().map(|address| offset(*address)).collect();
            let elf = module
                .path()
                .and_then(|path| elf::read(path, &offsets).ok());
            let found = elf.map_or_else(Vec::new, |elf| elf.names);
            let found = found.into_iter().chain(std::iter::repeat(None));
            for (address, name) in held.into_iter().zip(found) {
                let name = name.map_or_else(
                    || raw_name(module.short(), offset(address)).into(),
                    |name| function(&name, "").name,
                );
                names.insert(address, name);
            }
        }
        let addresses = addresses.iter();
        addresses
            .map(|address| names.get(address).cloned())
            .collect()
    }

    /// Looks at the modules again; why not, if that fails.
    fn refresh(&mut self, table: &Symbols) -> Option<String> {
        match modules() {
            Ok(modules) if modules != self.known => {
                table.clear();
                self.known = modules;
                None
            }
            Ok(_) => None,
            Err(error) => {
                self.known = Vec::new();
                Some(format!("no names: cannot read /proc/self/maps: {error}"))
            }
        }
    }
}

fn within(module: &Module, addresses: &[u64]) -> Vec<u64> {
    let addresses = addresses.iter().copied();
    addresses
        .filter(|address| module.contains(*address))
        .collect()
}

fn mapping_of(module: &Module, build_id: String, complete: bool) -> Mapping {
    Mapping {
        start: module.start,
        limit: module.limit,
        offset: module.offset,
        file: if module.file.is_empty() {
            "[unknown]".to_owned()
        } else {
            module.file.clone()
        },
        build_id,
        htlhash: module.path().and_then(htlhash::of).unwrap_or_default(),
        complete,
    }
}

impl Symbolised {
    fn add_unknown(&mut self, addresses: &[u64]) {
        for address in addresses {
            self.places.entry(*address).or_insert_with(|| Place {
                mapping: None,
                symbols: raw("unknown", *address),
            });
        }
    }

    /// Addresses without any names, for when naming itself failed.
    pub(in crate::collect) fn raw(addresses: &[u64], why: &str) -> Self {
        let place = |address: &u64| {
            let symbols = raw("unknown", *address);
            let mapping = None;
            (*address, Place { mapping, symbols })
        };
        Self {
            mappings: Vec::new(),
            places: addresses.iter().map(place).collect(),
            comments: vec![why.to_owned()],
        }
    }

    fn add(&mut self, module: &Module, held: &[u64], table: &Symbols, patience: &Patience<'_>) {
        let mapping = u32::try_from(self.mappings.len()).ok();
        let offset = |address: u64| address - module.start + module.offset;
        let mut named = Named {
            symbols: BTreeMap::new(),
            complete: true,
        };
        let unknown: Vec<u64> = held
            .iter()
            .copied()
            .filter(|address| match table.get(*address) {
                Some(symbols) => {
                    named.symbols.insert(*address, symbols);
                    false
                }
                None => true,
            })
            .collect();
        let offsets: Vec<u64> = unknown.iter().map(|address| offset(*address)).collect();
        let elf = module.path().map(|path| elf::read(path, &offsets));
        let build_id = match &elf {
            Some(Ok(elf)) => {
                named.read(module, elf, &unknown, patience, &mut self.comments);
                for address in unknown.iter().filter(|_| named.complete) {
                    if let Some(symbols) = named.symbols.get(address) {
                        table.put(*address, symbols);
                    }
                }
                elf.build_id.clone()
            }
            Some(Err(error)) => {
                named.complete = false;
                let words = format!("{}: no names: {error}", module.file);
                self.comments.push(words);
                String::new()
            }
            None => {
                named.complete = false;
                String::new()
            }
        };
        for address in held {
            let symbols = named.symbols.remove(address);
            let symbols = symbols.unwrap_or_else(|| raw(module.short(), offset(*address)));
            self.places.insert(*address, Place { mapping, symbols });
        }
        let mapping = mapping_of(module, build_id, named.complete);
        self.mappings.push(mapping);
    }
}

/// The symbols of one module so far.
struct Named {
    symbols: BTreeMap<u64, Arc<[Symbol]>>,
    /// Nothing that the file holds was left aside.
    complete: bool,
}

impl Named {
    fn read(
        &mut self,
        module: &Module,
        elf: &Elf,
        unknown: &[u64],
        patience: &Patience<'_>,
        comments: &mut Vec<String>,
    ) {
        if unknown.is_empty() {
            return;
        }
        let (frames, why) = lines(module, elf, patience);
        let names = unknown.iter().zip(&elf.addresses).zip(&elf.names);
        for ((address, in_file), name) in names {
            let frames = frames.get(in_file).map_or(&[][..], |frames| frames);
            let symbols = symbols_at(frames, name.as_deref());
            let symbols = symbols.unwrap_or_else(|| raw(module.short(), *in_file));
            self.symbols.insert(*address, symbols);
        }
        if let Some(why) = why {
            self.complete = false;
            comments.push(format!("{}: names without lines: {why}", module.file));
        }
    }
}

/// What the debug information of a module says, and why something is missing.
fn lines(module: &Module, elf: &Elf, patience: &Patience<'_>) -> (Frames, Option<String>) {
    let none = |why: String| (Frames::new(), Some(why));
    let Some(path) = module.path().filter(|_| elf.debug_bytes > 0) else {
        return (Frames::new(), None);
    };
    if elf.debug_bytes > sampling::DEBUG_BYTES {
        let (seen, limit) = (elf.debug_bytes >> 20, sampling::DEBUG_BYTES >> 20);
        return none(format!("{seen} MiB of debug sections exceed {limit} MiB"));
    }
    if patience.over() {
        return none("no time left".to_owned());
    }
    // On a thread of its own, so that all that it allocates is let go while what is kept of it is made
    // by the caller: in one heap the few names that stay would hold the memory around them.
    let read = || dwarf::frames(path, &elf.addresses, || patience.over());
    let frames = thread::scope(|scope| {
        let inside = thread::Builder::new().name("sg-symbols".to_owned());
        match inside.spawn_scoped(scope, || on_own_thread(read)) {
            Ok(inside) => inside.join().unwrap_or_else(|panic| resume_unwind(panic)),
            Err(_) => read(),
        }
    });
    match frames {
        Ok((frames, true)) => (frames, None),
        Ok((frames, false)) => (frames, Some("time ran out".to_owned())),
        Err(error) => none(error.to_string()),
    }
}

/// Functions at an address, innermost first; the outermost is named by the symbol table, which has
/// it in full where debug information may be cut down.
fn symbols_at(frames: &[Frame], name: Option<&str>) -> Option<Arc<[Symbol]>> {
    let symbols = frames.iter().map(|frame| Symbol {
        function: function(&frame.raw_name, &frame.file),
        line: frame.line,
    });
    let mut symbols: Vec<Symbol> = symbols.collect();
    match (symbols.last_mut(), name) {
        (Some(outermost), Some(name)) => {
            let filename = Arc::clone(&outermost.function.filename);
            outermost.function = Function {
                filename,
                ..function(name, "")
            };
        }
        (None, Some(name)) => symbols.push(Symbol {
            function: function(name, ""),
            line: 0,
        }),
        (_, None) => {}
    }
    // A line without any name would be a function called nothing.
    symbols.retain(|symbol| !symbol.function.name.is_empty());
    (!symbols.is_empty()).then(|| symbols.into())
}

fn function(raw_name: &str, file: &str) -> Function {
    // The alternate form leaves out hashes, which would tell builds of one function apart.
    let name = format!("{:#}", rustc_demangle::demangle(raw_name));
    let system_name = if name == raw_name { "" } else { raw_name };
    Function {
        system_name: system_name.into(),
        name: name.into(),
        filename: file.into(),
    }
}

fn raw(module: &str, offset: u64) -> Arc<[Symbol]> {
    Arc::new([Symbol {
        function: Function::named(&raw_name(module, offset)),
        line: 0,
    }])
}

fn raw_name(module: &str, offset: u64) -> String {
    format!("[{module}+{offset:#x}]")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    const FOREVER: Duration = Duration::from_secs(600);

    fn symbolise(addresses: &[u64], table: &Symbols, time: Duration) -> Symbolised {
        let patience = Patience {
            deadline: Instant::now() + time,
            wanted: &|| true,
        };
        Symboliser::default().symbolise(addresses, table, &patience)
    }

    #[inline(never)]
    fn a_function_with_lines() -> u64 {
        std::hint::black_box(7)
    }

    fn here() -> u64 {
        a_function_with_lines as *const () as usize as u64
    }

    #[test]
    fn a_function_of_this_binary_has_its_name_file_and_line() {
        let table = Symbols::new(1 << 20);
        let named = symbolise(&[here()], &table, FOREVER);
        let place = &named.places[&here()];
        let symbol = place.symbols.last().unwrap();
        let name = &*symbol.function.name;
        assert!(name.ends_with("tests::a_function_with_lines"), "{name}");
        let system_name = &*symbol.function.system_name;
        assert!(system_name.starts_with("_ZN") || system_name.starts_with("_R"));
        let file = &*symbol.function.filename;
        assert!(file.ends_with("src/collect/code/symbols.rs"), "{file}");
        assert!(symbol.line > 1);
        assert_eq!(place.mapping, Some(0));
        let mapping = &named.mappings[0];
        assert!(mapping.complete && mapping.file.starts_with('/'));
        assert!(
            mapping
                .build_id
                .bytes()
                .all(|byte| byte.is_ascii_hexdigit())
        );
        assert!(named.comments.is_empty(), "{:?}", named.comments);
        assert_eq!(table.get(here()).unwrap(), place.symbols);
    }

    #[test]
    fn an_address_outside_all_code_stays_as_a_number() {
        let named = symbolise(&[0x10], &Symbols::new(1 << 20), FOREVER);
        let place = &named.places[&0x10];
        assert_eq!(&*place.symbols[0].function.name, "[unknown+0x10]");
        assert_eq!(place.mapping, None);
    }

    #[test]
    fn located_addresses_have_their_module_and_no_name() {
        let table = Symbols::new(1 << 20);
        let located = Symboliser::default().locate(&[0x10, here()], &table);
        let place = &located.places[&here()];
        assert_eq!((place.mapping, place.symbols.len()), (Some(0), 0));
        assert!(!located.mappings[0].complete, "another tool shall name it");
        assert_eq!(located.places[&0x10].mapping, None);
        let named = symbolise(&[here()], &table, FOREVER);
        assert_eq!(located.mappings[0].build_id, named.mappings[0].build_id);
    }

    #[test]
    fn names_need_no_profile_that_saw_the_address() {
        let table = Symbols::new(1 << 20);
        let mut symboliser = Symboliser::default();
        let mut names = |time| {
            let patience = Patience {
                deadline: Instant::now() + time,
                wanted: &|| true,
            };
            symboliser.names(&[here(), 0x10, here() + 1], &table, &patience)
        };
        let found = names(FOREVER);
        let name = found[0].as_deref().unwrap();
        assert!(name.ends_with("tests::a_function_with_lines"), "{name}");
        assert_eq!((&found[1], &found[2]), (&None, &found[0]));
        assert_eq!(names(Duration::ZERO), [None, None, None]);
    }

    #[test]
    fn without_time_names_remain_and_the_reader_is_told() {
        let table = Symbols::new(1 << 20);
        let named = symbolise(&[here()], &table, Duration::ZERO);
        let symbol = &named.places[&here()].symbols[0];
        assert!(symbol.function.name.ends_with("a_function_with_lines"));
        assert_eq!(symbol.line, 0);
        assert!(!named.mappings[0].complete);
        assert!(named.comments[0].contains("names without lines: no time left"));
        assert!(table.get(here()).is_none(), "half an answer is not kept");
    }

    #[test]
    fn names_carry_no_hashes_and_c_names_stand_as_they_are() {
        let named = function("_ZN5alloc5boxed3foo17h0123456789abcdefE", "");
        assert_eq!(&*named.name, "alloc::boxed::foo");
        assert!(named.system_name.starts_with("_ZN"));
        let named = function("_RNvC6_123foo3bar", "");
        assert_eq!(&*named.name, "123foo::bar");
        let named = function("malloc", "/src/malloc.c");
        assert_eq!((&*named.name, &*named.system_name), ("malloc", ""));
    }
}
