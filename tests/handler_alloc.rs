//! The sampling handler allocates nothing on the threads that it interrupts.
#![cfg(all(
    target_os = "linux",
    any(target_arch = "x86_64", target_arch = "aarch64")
))]
#![allow(
    unsafe_code,
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stderr,
    reason = "tests"
)]

mod counting;
mod sampling;

use std::time::Duration;

use counting::ALLOCATIONS;
use sampling::{agent, burn, during};

#[test]
fn a_thread_that_only_spins_allocates_nothing_while_it_is_sampled() {
    let spin = || {
        let before = ALLOCATIONS.get();
        burn(Duration::from_secs(1));
        ALLOCATIONS.get() - before
    };
    // One thread with a timer of its own, one that the process's timer meets first.
    let prepare = || {
        let (go, wait) = std::sync::mpsc::channel::<()>();
        let older = std::thread::Builder::new().name("older".to_owned());
        let older = older.spawn(move || {
            wait.recv().unwrap();
            spin()
        });
        (go, older.unwrap())
    };
    let (profile, made) = during(&agent(), 999, prepare, |(go, older)| {
        go.send(()).unwrap();
        let newer = std::thread::Builder::new().name("newer".to_owned());
        let newer = newer.spawn(spin).unwrap();
        [older.join().unwrap(), newer.join().unwrap()]
    });
    let samples = ["older", "newer"].map(|name| profile.of(name));
    eprintln!("allocations {made:?} over {samples:?} samples");
    assert_eq!(made, [0, 0]);
    assert!(
        samples.iter().all(|samples| *samples > 500.0),
        "{samples:?}"
    );
    let live = ALLOCATIONS.get();
    drop(std::hint::black_box(vec![1]));
    assert_eq!(ALLOCATIONS.get() - live, 2, "the count works");
}
