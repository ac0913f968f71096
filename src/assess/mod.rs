//! What the numbers mean: pure functions of what is known.
//!
//! May use the store, the catalogue, the limits and the error. Absent on purpose: I/O and clocks;
//! time is an argument, so that every verdict is tested by table.

pub(crate) mod leaks;
pub(crate) mod memory_pressure;
pub(crate) mod target_file;
pub(crate) mod targets;
mod thresholds;
mod trend;
pub(crate) mod window;

#[cfg(test)]
mod leak_tests;
#[cfg(test)]
mod tests;
