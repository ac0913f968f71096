//! The only sockets of the crate.
