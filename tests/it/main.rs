//! The main test binary: endpoints, formats, layering, catalogue, budget. One binary, one link.

mod budget;
mod layering;
