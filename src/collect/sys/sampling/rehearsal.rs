//! The handler as a timer's signal would start it, without the signal: what benches time.
#![expect(unsafe_code, reason = "a context as the kernel hands it over")]

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::handler::sample;
use super::records::Record;
use super::registers::{here, thread_pointer, write};
use super::sampler::Sampler;
use super::timer::{self, Cookie};

/// The handler's own state and one record, which belongs to the thread that made it.
#[derive(Debug)]
pub(crate) struct Rehearsal {
    sampler: Sampler,
    own: Cookie,
}

impl Rehearsal {
    /// # Errors
    /// The kernel's if it gives no memory.
    pub(crate) fn new() -> std::io::Result<Self> {
        let sampler = Sampler::new(64, libc::SIGRTMAX())?;
        sampler.set_period(Duration::from_millis(1));
        let claimed = sampler.records.claim(timer::current_tid());
        let own = claimed.map(|(number, record)| {
            own_stack(record);
            record.arm(-1);
            Cookie {
                number,
                generation: record.generation(),
            }
        });
        let own = own.ok_or(std::io::ErrorKind::OutOfMemory)?;
        Ok(Self { sampler, own })
    }

    /// Runs the handler once on this thread and says how long it took; its sample is thrown away.
    pub(crate) fn run(&self) -> Duration {
        let mut info = [0_u64; 16];
        let [_, code, _, value, ..] = &mut info;
        *code = u64::from(libc::SI_TIMER.cast_unsigned());
        *value = u64::from(self.own.number) | u64::from(self.own.generation) << 32;
        // SAFETY: all-zero bytes are a valid context.
        let mut context: libc::ucontext_t = unsafe { std::mem::zeroed() };
        write(&mut context, here());
        let start = Instant::now();
        sample(
            &self.sampler,
            info.as_mut_ptr().cast(),
            (&raw mut context).cast(),
        );
        let took = start.elapsed();
        self.sampler.arena.drain(|_, _| {});
        took
    }
}

/// From here up to the thread's own block.
fn own_stack(record: &Record) {
    /// What this thread may still push.
    const BELOW: u64 = 64 << 10;
    let low = here().sp.saturating_sub(BELOW);
    record.high.store(thread_pointer(), Ordering::Relaxed);
    record
        .low
        .store(usize::try_from(low).unwrap_or(0), Ordering::Relaxed);
}
