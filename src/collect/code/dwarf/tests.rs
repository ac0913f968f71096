//! Against `addr2line`, on this test's own binary and on small files made for the purpose.

use std::collections::BTreeSet;
use std::fs;

use addr2line::Loader;
use object::{Object, ObjectSymbol, SymbolKind};

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

#[test]
fn functions_and_lines_are_those_that_addr2line_tells() {
    let places = places(BINARY, 500);
    let (frames, whole) = frames(Path::new(BINARY), &places, || false).unwrap();
    assert!(whole && places.len() > 1500);
    let loader = Loader::new(BINARY).unwrap();
    let mut inlined = 0;
    let mut other = Vec::new();
    for place in &places {
        let ours = frames.get(place).map_or(&[][..], |frames| frames);
        let theirs = told_by_addr2line(&loader, *place);
        inlined += ours.len().saturating_sub(1);
        if ours != theirs {
            other.push((place, ours, theirs));
        }
    }
    let some: Vec<_> = other.iter().take(5).collect();
    assert!(
        other.is_empty(),
        "{} of {}: {some:#x?}",
        other.len(),
        places.len()
    );
    assert!(inlined > 100, "{inlined}");
}
