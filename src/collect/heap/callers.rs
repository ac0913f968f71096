//! Who allocated: the frames below, between the caller and the allocator, are left out.
//!
//! As Go leaves out its runtime's: without this the top of every heap profile is `alloc::alloc::alloc`.

use crate::collect::code::symbols::Symbolised;
use crate::store::profile::Function;

/// How much of a stack's inner end is machinery.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Machinery {
    /// Whole addresses.
    pub(super) addresses: usize,
    /// Functions that the compiler put into the next address.
    pub(super) inlined: usize,
}

/// Finds the innermost function that is neither Rust's own libraries' nor the allocator's; a stack
/// without any is shown whole.
pub(super) fn machinery(stack: &[u64], symbolised: &Symbolised) -> Machinery {
    // All that lies below the entry to the allocator is the allocator's.
    let enters = |address: &u64| {
        let place = symbolised.places.get(address);
        let mut symbols = place.iter().flat_map(|place| place.symbols.iter());
        symbols.any(|symbol| is_entry(&symbol.function.name))
    };
    let entry = stack.iter().take(ALLOCATOR_DEPTH).position(enters);
    for (addresses, address) in stack.iter().enumerate().skip(entry.unwrap_or(0)) {
        let Some(place) = symbolised.places.get(address) else {
            // A mark, such as that of a truncated stack: there is nobody else to name.
            break;
        };
        let own =
            |function: &Function| !(is_machinery(&function.name) || is_library(&function.filename));
        let mut symbols = place.symbols.iter();
        if place.symbols.is_empty() {
            return Machinery {
                addresses,
                inlined: 0,
            };
        }
        if let Some(inlined) = symbols.position(|symbol| own(&symbol.function)) {
            return Machinery { addresses, inlined };
        }
    }
    Machinery::default()
}

/// Crates whose functions allocate only on behalf of others.
const LIBRARIES: [&str; 5] = ["alloc::", "core::", "std::", "hashbrown::", "__rustc::"];

/// Frames of an allocator at most; ours has seven in a debug build.
const ALLOCATOR_DEPTH: usize = 24;

/// Whether a function is what the compiler calls to allocate.
fn is_entry(name: &str) -> bool {
    let name = name.strip_prefix("__rustc::").unwrap_or(name);
    let name = name.strip_prefix("__rust_").unwrap_or_default();
    ["alloc", "alloc_zeroed", "realloc"].contains(&name)
}

/// Inlined functions may have no path in their name, but their file says whose they are.
fn is_library(file: &str) -> bool {
    let libraries = [
        "/library/alloc/src/",
        "/library/core/src/",
        "/library/std/src/",
    ];
    libraries.iter().any(|library| file.contains(library)) || file.contains("/rust/deps/")
}

/// Where the recording allocator's own functions lie, and those of sampling that it calls.
const RECORDER: &str = "streamgate_agent::collect::sys::";

fn is_machinery(name: &str) -> bool {
    let library = |path: &str| {
        let path = path.trim_start_matches(['&', '*', '[', '(']);
        LIBRARIES.iter().any(|start| path.starts_with(start)) || path.starts_with(RECORDER)
    };
    if is_entry(name) || library(name) {
        return true;
    }
    let Some(inside) = name.strip_prefix('<') else {
        return false;
    };
    // `<Type as Trait>::method`, where the trait is a library's and the type is nobody's own: a
    // library's, a primitive or a parameter.
    match inside.split_once(" as ") {
        Some((own, of)) => library(of) && (library(own) || !own.contains("::")),
        None => library(inside),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;
    use std::sync::Arc;

    use super::*;
    use crate::collect::code::symbols::Place;
    use crate::store::symbols::Symbol;

    #[test]
    fn library_code_is_machinery_and_a_hosts_implementation_of_its_traits_is_not() {
        let machinery = [
            "alloc::alloc::alloc",
            "__rustc::__rust_alloc",
            "__rust_realloc",
            "<alloc::vec::Vec<T> as alloc::vec::spec_from_iter::SpecFromIter<T,I>>::from_iter",
            "<T as alloc::slice::hack::ConvertVec>::to_vec",
            "<u8 as alloc::vec::spec_from_elem::SpecFromElem>::from_elem::<alloc::alloc::Global>",
            "<&str as core::convert::Into<alloc::string::String>>::into",
            "<[T] as alloc::borrow::ToOwned>::to_owned",
            "hashbrown::raw::RawTable<T,A>::reserve_rehash",
            "<streamgate_agent::collect::sys::heap::allocator::ProfiledAllocator<A> as \
             core::alloc::global::GlobalAlloc>::alloc",
            "streamgate_agent::collect::sys::heap::gaps::cold",
            "streamgate_agent::collect::sys::sampling::registers::here",
        ];
        for name in machinery {
            assert!(is_machinery(name), "{name}");
        }
        let own = [
            "shop::handler",
            "<shop::Item as core::clone::Clone>::clone",
            "<alloc::vec::Vec<T> as shop::Extend>::extend",
            "<shop::Item as shop::Build>::build",
            "streamgate_agent::instrument::routes::Routes::get",
            "main",
            "malloc",
            "__rust_begin_short_backtrace",
            "bytes::bytes_mut::BytesMut::with_capacity",
        ];
        for name in own {
            assert!(!is_machinery(name), "{name}");
        }
    }

    fn symbolised(stack: &[&[&str]]) -> (Vec<u64>, Symbolised) {
        let place = |names: &&[&str]| Place {
            mapping: None,
            symbols: names
                .iter()
                .map(|name| Symbol {
                    function: Function::named(name),
                    line: 1,
                })
                .collect::<Arc<[Symbol]>>(),
        };
        let addresses: Vec<u64> = (1..=stack.len() as u64).collect();
        let places: HashMap<u64, Place> = addresses
            .iter()
            .copied()
            .zip(stack.iter().map(place))
            .collect();
        let symbolised = Symbolised {
            places,
            ..Symbolised::default()
        };
        (addresses, symbolised)
    }

    #[test]
    fn the_caller_may_be_an_address_of_its_own_or_hold_the_machinery_inlined() {
        let found = |stack: &[&[&str]]| {
            let (addresses, symbolised) = symbolised(stack);
            machinery(&addresses, &symbolised)
        };
        let entry: &[&str] = &["__rustc::__rust_alloc"];
        let at = |addresses, inlined| Machinery { addresses, inlined };
        assert_eq!(found(&[entry, &["alloc::a"], &["shop::f"]]), at(2, 0));
        let inlined: &[&str] = &["alloc::b", "alloc::a", "shop::f"];
        assert_eq!(found(&[entry, inlined, &["shop::g"]]), at(1, 2));
        let below: &[&str] = &["here", "other_allocator::alloc"];
        assert_eq!(found(&[below, entry, &["shop::f"]]), at(2, 0));
        assert_eq!(found(&[entry, &["std::rt::init"]]), at(0, 0), "shown whole");
        assert_eq!(found(&[entry, &[], &["shop::g"]]), at(1, 0), "not named");
    }
}
