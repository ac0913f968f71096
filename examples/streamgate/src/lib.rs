//! StreamGate: the reference service that shows streamgate-agent at work.
//!
//! The service is a library so that its own tests, its load generator and its demo start it in
//! their process; the binary only parses the command line. `README.md` maps each technique of the
//! optimisation guide to the one file that shows it.

pub mod archive;
pub mod bench;
pub mod demo;
pub mod edge;
pub mod error;
pub mod gate;
pub mod seed;
pub mod serve;
pub mod servers;
pub mod settings;

mod api;
mod cache;
mod db;
mod faults;
mod observe;
mod problem;
mod work;
