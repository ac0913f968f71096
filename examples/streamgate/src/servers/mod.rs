//! Real servers beside the service: Debian's programs on free loopback ports, with throw-away data.
//!
//! Owns: how such a program is found, started, waited for and ended. May use: the operating system.
//! Absent: what the service does with them; it gets a URL as from any other server.
//!
//! A server ends with the value that stands for it, and also when this process is killed: nothing is
//! left running and nothing is left on the disk.

pub mod child;
pub mod postgres;
