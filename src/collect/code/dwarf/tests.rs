//! Against `addr2line`, on this test's own binary and on small ones made by the C compiler.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;
use std::process::Command;

use addr2line::Loader;
use object::{Object, ObjectSection, ObjectSymbol, SymbolKind};

use super::*;

const BINARY: &str = "/proc/self/exe";

/// Some places in each of many functions of a file.
fn places(path: &str, functions: usize) -> Vec<u64> {
    let bytes = fs::read(path).unwrap();
    let file = object::File::parse(&*bytes).unwrap();
    let symbols = file.symbols().chain(file.dynamic_symbols());
    let code = symbols.filter(|symbol| symbol.kind() == SymbolKind::Text && symbol.size() > 0);
    let spans: BTreeSet<(u64, u64)> = code
        .map(|symbol| (symbol.address(), symbol.size()))
        .collect();
    let step = (spans.len() / functions).max(1);
    let places = spans
        .iter()
        .step_by(step)
        .flat_map(|(start, size)| [*start, start + size / 3, start + size / 2, start + size - 1]);
    places.collect::<BTreeSet<u64>>().into_iter().collect()
}

fn told_by_addr2line(loader: &Loader, address: u64) -> Vec<Frame> {
    let mut told = Vec::new();
    let mut frames = loader.find_frames(address).unwrap();
    while let Some(frame) = frames.next().unwrap() {
        let name = frame.function.as_ref().map(|name| name.raw_name().unwrap());
        let place = frame.location.as_ref();
        told.push(Frame {
            raw_name: name.unwrap_or_default().into_owned(),
            file: place
                .and_then(|place| place.file)
                .unwrap_or_default()
                .to_owned(),
            line: place.and_then(|place| place.line).unwrap_or(0),
        });
    }
    told
}

/// How often a function was inlined at these places; addr2line must tell the same of all.
fn compare(path: &str, places: &[u64]) -> usize {
    let (frames, whole) = frames(Path::new(path), places, || false).unwrap();
    assert!(whole);
    let loader = Loader::new(path).unwrap();
    let mut inlined = 0;
    for place in places {
        let ours = frames.get(place).map_or(&[][..], |frames| frames);
        inlined += ours.len().saturating_sub(1);
        assert_eq!(ours, told_by_addr2line(&loader, *place), "at {place:#x}");
    }
    inlined
}

#[test]
fn functions_and_lines_are_those_that_addr2line_tells() {
    let places = places(BINARY, 500);
    assert!(places.len() > 1500, "{}", places.len());
    let inlined = compare(BINARY, &places);
    assert!(inlined > 100, "{inlined}");
}

/// Compiles two files of C into one shared object, each a unit of its own, and removes all at the end.
struct Built(PathBuf);

const FIRST: &str = "\
static inline __attribute__((always_inline)) int twice(int n) { return n * n + 1; }
int first(int n) {
    return twice(n) + 3;
}
";
const SECOND: &str = "\
extern int first(int n);
int second(int n) {
    int sum = 0;
    for (int i = 0; i < n; i++)
        sum += first(i);
    return sum;
}
";

impl Built {
    fn new(name: &str, options: &[&str]) -> Self {
        let folder = std::env::temp_dir().join(format!("sg-dwarf-{name}-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let built = Self(folder);
        built.cc(&["-c", "first.c", "-o", "first.o"], FIRST, options);
        // So much that packing is worth while.
        let more = (0..200).map(|n| format!("int function_{n}(int n) {{ return n + {n}; }}\n"));
        let second: String = [SECOND.to_owned()].into_iter().chain(more).collect();
        built.cc(&["-c", "second.c", "-o", "second.o"], &second, options);
        built.cc(
            &["-shared", "first.o", "second.o", "-o", "built.so"],
            "",
            options,
        );
        built
    }

    fn cc(&self, command: &[&str], source: &str, options: &[&str]) {
        if let ["-c", file, ..] = command {
            fs::write(self.0.join(file), source).unwrap();
        }
        let mut cc = Command::new("cc");
        cc.args(["-O1", "-fPIC"]).args(options).args(command);
        let done = cc.current_dir(&self.0).output().unwrap();
        let words = String::from_utf8_lossy(&done.stderr);
        assert!(done.status.success(), "{words}");
    }

    fn path(&self) -> String {
        self.0.join("built.so").to_str().unwrap().to_owned()
    }

    /// Both functions have their lines, and what was inlined is seen.
    fn check(&self) {
        let path = self.path();
        let places = places(&path, 1000);
        assert!(compare(&path, &places) > 0, "nothing inlined");
        let (frames, _) = frames(Path::new(&path), &places, || false).unwrap();
        for (name, file, lines) in [
            ("twice", "first.c", 1..=1),
            ("first", "first.c", 2..=4),
            ("second", "second.c", 2..=7),
        ] {
            let mut all = frames.values().flatten();
            let found = all.find(|frame| frame.raw_name == name);
            let found = found.unwrap_or_else(|| panic!("no {name}: {frames:#?}"));
            assert!(found.file.ends_with(file), "{found:?}");
            assert!(lines.contains(&found.line), "{found:?}");
        }
    }
}

impl Drop for Built {
    fn drop(&mut self) {
        drop(fs::remove_dir_all(&self.0));
    }
}

#[test]
fn each_of_several_units_is_found_with_and_without_a_table_of_addresses() {
    for version in ["-gdwarf-4", "-gdwarf-5"] {
        let built = Built::new(&format!("units{version}"), &["-g", version]);
        built.check();
        let path = built.path();
        let mut strip = Command::new("objcopy");
        strip.args(["--remove-section", ".debug_aranges", &path]);
        assert!(strip.status().unwrap().success());
        built.check();
    }
}

#[test]
fn packed_sections_are_read_too() {
    for packing in ["-gz=zlib", "-gz=zlib-gnu"] {
        let built = Built::new(packing, &["-g", packing]);
        let bytes = fs::read(built.path()).unwrap();
        let file = object::File::parse(&*bytes).unwrap();
        let section = file.section_by_name(".debug_str").unwrap();
        let packed = section.compressed_file_range().unwrap();
        assert_ne!(packed.format, object::CompressionFormat::None, "{packing}");
        built.check();
    }
}

#[test]
fn what_was_split_off_is_found_in_its_files_and_in_a_package() {
    for version in ["-gdwarf-4", "-gdwarf-5"] {
        let built = Built::new(
            &format!("split{version}"),
            &["-g", version, "-gsplit-dwarf"],
        );
        built.check();
    }
    // The linker of C makes packages of version 4 only.
    let built = Built::new("package", &["-g", "-gdwarf-4", "-gsplit-dwarf"]);
    let mut pack = Command::new("dwp");
    pack.args(["first.dwo", "second.dwo", "-o", "built.so.dwp"]);
    if !pack.current_dir(&built.0).status().unwrap().success() {
        panic!("dwp failed");
    }
    for file in ["first.dwo", "second.dwo"] {
        fs::remove_file(built.0.join(file)).unwrap();
    }
    built.check();
}

#[test]
fn addresses_without_debug_information_have_no_frames() {
    let built = Built::new("none", &["-g0"]);
    let places = places(&built.path(), 1000);
    assert!(places.len() > 4);
    let (frames, whole) = frames(Path::new(&built.path()), &places, || false).unwrap();
    assert!(whole && frames.is_empty(), "{frames:?}");
}

#[test]
fn a_file_that_ends_early_is_an_error_and_no_panic() {
    let built = Built::new("short", &["-g"]);
    let places = places(&built.path(), 1000);
    let bytes = fs::read(built.path()).unwrap();
    for len in (0..bytes.len()).step_by(997) {
        let mut damaged = bytes.clone();
        damaged[len..].fill(0xff);
        fs::write(built.path(), &damaged).unwrap();
        drop(frames(Path::new(&built.path()), &places, || false));
        fs::write(built.path(), &bytes[..len]).unwrap();
        let read = frames(Path::new(&built.path()), &places, || false);
        // The table of sections is at the end.
        assert!(read.is_err(), "{len} of {} bytes", bytes.len());
    }
}

#[test]
fn whoever_says_stop_gets_what_there_is() {
    let places = places(BINARY, 50);
    let (frames, whole) = frames(Path::new(BINARY), &places, || true).unwrap();
    assert!(!whole && frames.is_empty());
}
