//! The agent in ten lines: metrics, targets and CPU profiles of this process on port 6060.
//!
//! `cargo run --release --example minimal`, then
//! `go tool pprof -top http://127.0.0.1:6060/debug/pprof/profile?seconds=5`.
#![expect(clippy::print_stdout, reason = "an example tells where to look")]

use streamgate_agent::{Agent, DEFAULT_ADDRESS};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let address = std::env::args()
        .nth(1)
        .map_or(Ok(DEFAULT_ADDRESS), |text| text.parse())?;
    let agent = Agent::builder("minimal").listen(address).start()?;
    println!("http://{}/", agent.address().unwrap_or(address));
    for number in 1_u64.. {
        busy(number);
    }
    Ok(())
}

#[inline(never)]
fn busy(number: u64) -> u64 {
    std::hint::black_box((0..10_000).fold(number, |sum, n| sum.rotate_left(5) ^ n))
}
