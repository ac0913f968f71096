//! Demo data that is the same for the same seed.
//!
//! Owns: the identities every row has ([`ids`]), the rows themselves, and writing them fast. May
//! use: the database. Absent: randomness and the clock, so that a load generator in another process
//! computes the same ids without asking the service.

pub mod ids;

pub(crate) mod insert;
mod rows;
