//! Locations and functions of a profile, each once, from the names of its addresses.

use std::collections::HashMap;

use super::symbols::Symbolised;
use crate::store::profile::{Function, Line, Location};
use crate::store::symbols::Symbol;

/// Locations by address, and their functions.
#[derive(Default)]
pub(in crate::collect) struct Tables {
    pub(in crate::collect) locations: Vec<Location>,
    pub(in crate::collect) places: HashMap<u64, u32>,
    pub(in crate::collect) functions: Vec<Function>,
    function_places: HashMap<Function, u32>,
}

impl Tables {
    /// The tables of all addresses that were looked up.
    pub(in crate::collect) fn of(symbolised: &Symbolised) -> Self {
        let mut tables = Self::default();
        let mut addresses: Vec<u64> = symbolised.places.keys().copied().collect();
        addresses.sort_unstable();
        for address in addresses {
            if let Some(place) = symbolised.places.get(&address) {
                tables.locate(address, address, place.mapping, &place.symbols);
            }
        }
        tables
    }

    /// Gives a name to what stands in stacks without being an address.
    pub(in crate::collect) fn mark(&mut self, mark: u64, name: &str) {
        let symbol = Symbol {
            function: Function::named(name),
            line: 0,
        };
        self.locate(mark, 0, None, &[symbol]);
    }

    pub(in crate::collect) fn locate(
        &mut self,
        key: u64,
        address: u64,
        mapping: Option<u32>,
        symbols: &[Symbol],
    ) {
        let lines = symbols.iter().map(|symbol| Line {
            function: self.function(&symbol.function),
            line: symbol.line,
        });
        let lines = lines.collect();
        self.places.insert(key, next(self.locations.len()));
        self.locations.push(Location {
            address,
            mapping,
            lines,
        });
    }

    fn function(&mut self, function: &Function) -> u32 {
        if let Some(place) = self.function_places.get(function) {
            return *place;
        }
        let place = next(self.functions.len());
        self.functions.push(function.clone());
        self.function_places.insert(function.clone(), place);
        place
    }
}

fn next(len: usize) -> u32 {
    u32::try_from(len).unwrap_or(u32::MAX)
}
