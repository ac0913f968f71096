//! What addresses mean: filled from the files of the code, read by every output.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use super::profile::Function;
use super::sync::lock;

/// A function and the line in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Symbol {
    pub(crate) function: Function,
    /// 0: not known.
    pub(crate) line: u32,
}

/// Symbols by address, innermost inlined function first.
#[derive(Debug)]
pub(crate) struct Symbols {
    table: Mutex<Table>,
    limit: usize,
    /// Held by whoever reads the files of the code.
    pub(crate) naming: Mutex<()>,
}

#[derive(Debug, Default)]
struct Table {
    by_address: HashMap<u64, Arc<[Symbol]>>,
    bytes: usize,
}

/// Bytes of an address's entry beside its symbols.
const ENTRY_BYTES: usize = 64;

#[cfg_attr(
    not(any(test, feature = "profiling")),
    expect(dead_code, reason = "nothing fills the table in this build")
)]
impl Symbols {
    pub(crate) fn new(limit: usize) -> Self {
        Self {
            table: Mutex::default(),
            limit,
            naming: Mutex::default(),
        }
    }

    pub(crate) fn get(&self, address: u64) -> Option<Arc<[Symbol]>> {
        lock(&self.table).by_address.get(&address).map(Arc::clone)
    }

    /// Remembers an address. A full table starts over: it only saves reading files again.
    pub(crate) fn put(&self, address: u64, symbols: &Arc<[Symbol]>) {
        let bytes = bytes_of(symbols);
        let mut table = lock(&self.table);
        if table.bytes + bytes > self.limit {
            *table = Table::default();
        }
        if bytes <= self.limit {
            table.bytes += bytes;
            let before = table.by_address.insert(address, Arc::clone(symbols));
            table.bytes -= before.map_or(0, |before| bytes_of(&before));
        }
    }

    /// Forgets all, since other code may stand at these addresses now.
    pub(crate) fn clear(&self) {
        *lock(&self.table) = Table::default();
    }

    pub(crate) fn bytes(&self) -> usize {
        lock(&self.table).bytes
    }
}

fn bytes_of(symbols: &[Symbol]) -> usize {
    let texts = |symbol: &Symbol| {
        let function = &symbol.function;
        function.name.len() + function.system_name.len() + function.filename.len()
    };
    let symbols = symbols
        .iter()
        .map(|symbol| size_of::<Symbol>() + texts(symbol));
    ENTRY_BYTES + symbols.sum::<usize>()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn symbols(name: &str) -> Arc<[Symbol]> {
        Arc::new([Symbol {
            function: Function::named(name),
            line: 1,
        }])
    }

    #[test]
    fn the_table_stays_within_its_bytes_and_keeps_the_newest() {
        let table = Symbols::new(1000);
        for address in 0..100 {
            table.put(address, &symbols("a_function_of_some_length"));
            assert!(table.bytes() <= 1000);
            assert!(table.get(address).is_some());
        }
        table.put(1000, &symbols(&"x".repeat(2000)));
        assert!(table.get(1000).is_none());
        assert!(table.bytes() <= 1000);
    }

    #[test]
    fn an_address_put_twice_counts_once() {
        let table = Symbols::new(10_000);
        table.put(1, &symbols("name"));
        let once = table.bytes();
        table.put(1, &symbols("name"));
        assert_eq!(table.bytes(), once);
        table.clear();
        assert_eq!(table.bytes(), 0);
    }
}
