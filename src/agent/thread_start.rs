//! The door for hosts that tell when a thread of theirs starts.

/// Tells the agent that the running thread has just started, so that its CPU time is sampled from its
/// first scheduler tick on; for the thread hooks of runtimes and pools.
///
/// Threads that are not told of are sampled, too: by a timer of the whole process until they have one
/// of their own, which takes up to 100 ms
/// while somebody asks for a profile and up to 300 ms otherwise. The call makes short threads cheaper and their samples finer.
///
/// Harmless in any thread at any time: it does nothing where the thread has its timer already, where
/// nothing is sampled now (all threads get theirs when sampling begins), where the thread blocks the
/// agent's signal, in builds without CPU profiles and on other platforms. It never blocks or fails; while
/// sampling it makes at most five system calls: the thread's id, the signals that it blocks, its name,
/// `timer_create` and `timer_settime`.
///
/// ```
/// let runtime = tokio::runtime::Builder::new_multi_thread()
///     .on_thread_start(streamgate_agent::thread_started)
///     .build()?;
/// # Ok::<(), std::io::Error>(())
/// ```
pub fn thread_started() {
    crate::collect::cpu::thread_started();
}
