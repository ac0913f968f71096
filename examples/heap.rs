//! A program whose memory can be looked at:
//! `go tool pprof -top http://localhost:6060/debug/pprof/heap`.
#![allow(clippy::print_stdout, reason = "an example speaks to a person")]

use std::alloc::System;
use std::time::Duration;

use streamgate_agent::{Agent, ProfiledAllocator};

#[global_allocator]
static ALLOCATOR: ProfiledAllocator<System> = ProfiledAllocator::new(System);

/// A megabyte in pages that stay in use.
#[inline(never)]
fn remember(pages: &mut Vec<Vec<u8>>) {
    for _ in 0..256 {
        pages.push(vec![1; 4096]);
    }
}

/// A text that is let go at once.
#[inline(never)]
fn describe(pages: &[Vec<u8>]) -> usize {
    let sizes: Vec<String> = pages.iter().map(|page| page.len().to_string()).collect();
    sizes.join(" ").len()
}

fn main() -> Result<(), streamgate_agent::Error> {
    let agent = Agent::builder("heap").start()?;
    if let Some(address) = agent.address() {
        println!("go tool pprof -top http://{address}/debug/pprof/heap");
    }
    let mut pages = Vec::new();
    for _ in 0..64 {
        remember(&mut pages);
        describe(&pages);
    }
    println!("64 MiB in use");
    loop {
        std::thread::sleep(Duration::from_secs(60));
        describe(&pages);
    }
}
