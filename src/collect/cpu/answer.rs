//! Answers the readers of windows that are over, and those who want to know names.

use std::sync::Arc;
use std::time::Instant;

use super::profile::{self, Taken};
use crate::collect::code::desk::{Answering, Desk};
use crate::store::Store;
use crate::store::windows::Window;

/// Answers under way.
#[derive(Debug)]
pub(super) struct Answers {
    answering: Answering,
    /// Readers whose addresses are being named.
    naming: Vec<u64>,
}

/// A window that is over, and who asked for it.
#[derive(Debug)]
pub(super) struct Due {
    pub(super) reader: u64,
    pub(super) window: Window,
    pub(super) taken: Taken,
}

impl Answers {
    pub(super) fn new(store: Arc<Store>) -> Self {
        Self {
            answering: Answering::new(store),
            naming: Vec::new(),
        }
    }

    /// Begins to answer.
    pub(super) fn begin(&mut self, due: Due) {
        self.answering.spawn(move |desk| answer(desk, &due));
    }

    /// Begins to name addresses for whoever wishes for it.
    pub(super) fn name(&mut self, now: Instant) {
        let names = Arc::clone(&self.answering.store().names);
        names.expire(now);
        let open = names.open();
        self.naming
            .retain(|id| open.iter().any(|(open, _)| open == id));
        for (id, addresses) in open {
            if !self.naming.contains(&id) {
                self.naming.push(id);
                let names = Arc::clone(&names);
                self.answering.spawn(move |desk| {
                    let named = desk.names(&addresses, &|| names.is_open(id));
                    names.answer(id, named.into());
                });
            }
        }
    }

    /// Waits for the answers under way.
    pub(super) fn finish(&mut self) {
        self.answering.finish();
    }
}

fn answer(desk: &Desk, due: &Due) {
    let cpu = &desk.store.cpu;
    let open = cpu.open();
    let Some((_, wish)) = open.iter().find(|(id, _)| *id == due.reader) else {
        return;
    };
    let addresses = profile::addresses(&due.window);
    let wanted = || cpu.is_open(due.reader);
    let symbolised = desk.symbolise(&addresses, wish.names, due.taken.asked, &wanted);
    let profile = profile::profile(&due.window, symbolised, due.taken);
    cpu.answer(due.reader, Ok(Arc::new(profile)));
}
