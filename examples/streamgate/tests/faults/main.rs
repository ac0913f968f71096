//! Faults on command: that the agent's numbers show each of them. Alone in its process, of which one agent
//! at a time samples the CPU time.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a panic is how a test says that the contract is broken"
)]

#[expect(dead_code, reason = "the names of pools are for the tests of the API")]
#[path = "../api/database.rs"]
mod database;
mod matrix;
#[expect(dead_code, reason = "what the tests of the API need is more")]
#[path = "../api/support.rs"]
mod support;

use streamgate_agent::ProfiledAllocator;
use tikv_jemallocator::Jemalloc;

/// As in the program, so that a leak has a name.
#[global_allocator]
static ALLOCATOR: ProfiledAllocator<Jemalloc> = ProfiledAllocator::new(Jemalloc);
