//! Frames of the standard library and of tokio's scheduler, which lie between the calls that a reader
//! looks for: an async stack has some sixty of them before the first frame of the service.

use std::collections::HashMap;

use crate::store::profile::{Profile, to_usize};

/// What stands for a run of them.
pub(crate) const MARK: &str = "[runtime]";

/// Crates that are left out, where not all of one, then the modules that are.
const CRATES: [(&str, &[&str]); 4] = [
    ("std", &[]),
    ("core", &[]),
    ("alloc", &[]),
    ("tokio", &["runtime", "task", "loom"]),
];
/// What the C library calls a thread's start by.
const STARTS: [&str; 5] = [
    "_start",
    "__libc_start_main",
    "main",
    "start_thread",
    "clone",
];

/// What is shown of a stack.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Shown<T> {
    Frame(T),
    /// So many frames that follow each other.
    Run(usize),
}

/// A stack, innermost first, in which a run of at least two such frames is one. The innermost frames
/// are always shown: if the time is the runtime's own, it must be seen where.
pub(crate) fn shown<'a, T>(
    frames: impl IntoIterator<Item = T>,
    name: impl Fn(&T) -> &'a str,
) -> Vec<Shown<T>> {
    let mut parts = Vec::new();
    let mut run = Vec::new();
    let mut inner = true;
    for frame in frames {
        if is_runtime(name(&frame)) {
            run.push(frame);
        } else {
            end(&mut run, inner, &mut parts);
            inner = false;
            parts.push(Shown::Frame(frame));
        }
    }
    end(&mut run, inner, &mut parts);
    parts
}

fn end<T>(run: &mut Vec<T>, inner: bool, parts: &mut Vec<Shown<T>>) {
    if inner || run.len() < 2 {
        parts.extend(run.drain(..).map(Shown::Frame));
    } else {
        parts.push(Shown::Run(run.len()));
        run.clear();
    }
}

/// Whether a function is of the standard library or of the scheduler, or the C library's way into them.
fn is_runtime(name: &str) -> bool {
    let mut path = name.trim_start_matches(['<', '&']).split("::");
    let (of, module) = (path.next(), path.next());
    CRATES.iter().any(|(name, modules)| {
        let is_whole = modules.is_empty();
        of == Some(name) && module.is_some_and(|it| is_whole || modules.contains(&it))
    }) || STARTS.contains(&name)
        || name.starts_with("__rust_")
        || name.starts_with("[libc.so")
}

/// A profile with these stacks, for pictures: its locations are functions, without addresses and lines.
pub(crate) fn without(profile: &Profile) -> Profile {
    let mut out = profile.clone();
    out.locations.clear();
    let mut places: HashMap<Option<Option<u32>>, u32> = HashMap::new();
    let mut samples = std::mem::take(&mut out.samples);
    for sample in &mut samples {
        let locations = sample.stack.iter();
        let locations = locations.filter_map(|place| profile.locations.get(to_usize(*place)));
        let functions = locations.flat_map(|location| {
            let nameless = location.lines.is_empty().then_some(None);
            let lines = location.lines.iter();
            lines.map(|line| Some(line.function)).chain(nameless)
        });
        let name = |function: &Option<u32>| {
            let function = function.and_then(|place| profile.functions.get(to_usize(place)));
            function.map_or("", |function| &*function.name)
        };
        let parts = shown(functions, name).into_iter().map(|part| {
            let key = match part {
                Shown::Run(_) => None,
                Shown::Frame(function) => Some(function),
            };
            *places.entry(key).or_insert_with(|| match key {
                None => out.add_mark(MARK),
                Some(function) => out.add_location(function),
            })
        });
        sample.stack = parts.collect();
    }
    out.samples = samples;
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(stack: &[&'static str]) -> Vec<String> {
        let parts = shown(stack.iter().copied(), |name| name).into_iter();
        let parts = parts.map(|part| match part {
            Shown::Frame(name) => name.to_owned(),
            Shown::Run(frames) => format!("{frames}"),
        });
        parts.collect()
    }

    #[test]
    fn a_run_between_frames_of_the_service_is_one_and_a_single_frame_stays() {
        let stack = [
            "memcpy",
            "<alloc::vec::Vec<u8> as Clone>::clone",
            "shop::copy",
            "<core::panic::unwind_safe::AssertUnwindSafe<F> as FnOnce>::call_once",
            "std::panic::catch_unwind",
            "tokio::runtime::task::raw::poll",
            "hyper::serve",
            "std::sys::thread::start",
            "[libc.so.6+0x891f4]",
        ];
        let wanted = [
            "memcpy",
            "<alloc::vec::Vec<u8> as Clone>::clone",
            "shop::copy",
            "3",
            "hyper::serve",
            "2",
        ];
        assert_eq!(names(&stack), wanted);
    }

    #[test]
    fn the_innermost_frames_are_shown_whosever_they_are() {
        let parked = ["std::park", "tokio::runtime::park", "core::ops::call"];
        assert_eq!(names(&parked), parked);
        let sorted = ["core::cmp::lt", "core::slice::sort", "shop::rank", "main"];
        assert_eq!(names(&sorted), sorted);
    }

    #[test]
    fn names_that_only_begin_alike_are_the_services_own() {
        let stack = [
            "leaf",
            "stdx::f",
            "tokio::sync::f",
            "main_loop",
            "corelib::f",
        ];
        assert_eq!(names(&stack), stack);
    }
}
