//! One profile over one window: stacks with values, what they stand for, and what was missed.
#[derive(Debug)]
pub(crate) struct Profile {}
