//! StreamGate: the reference service that shows streamgate-agent at work.

fn main() {}
