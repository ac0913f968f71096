//! How often readers may have the sampling rate raised.
//!
//! Each raise sets every thread's timer anew, twice. A reader who wishes for no more than what others
//! already have, or what the flight recorder takes, raises nothing and is never refused.

use std::time::{Duration, Instant};

use super::{Plane, whole_seconds};
use crate::config::{Config, SampleRate};
use crate::export::guard::{Reason, Refusal};
use crate::export::rate::Rate;

/// The raises of the last time.
#[derive(Debug)]
pub(super) struct Raises(Rate);

impl Raises {
    pub(super) fn new(config: &Config) -> Self {
        let step = Duration::from_secs(60) / config.profile_raises.max(1);
        Self(Rate::new(step, config.profile_raises_burst()))
    }

    /// Whether a rate may be wished for now.
    ///
    /// # Errors
    /// 429 when it would raise the rate once too often.
    pub(super) fn check(&self, plane: &Plane, rate: SampleRate) -> Result<(), Refusal> {
        let wishes = plane.store.cpu.open().into_iter();
        let wished = wishes.filter_map(|(_, wish)| wish.span.hz()).max();
        let runs = wished.unwrap_or(0).max(plane.config.recorder);
        if rate.hz() <= runs {
            return Ok(());
        }
        self.0.take(Instant::now()).map_err(|wait| {
            let burst = plane.config.profile_raises_burst();
            let mut text = format!(
                "profiles that raise the sampling rate at limit {} a minute, \
                 burst {burst}: wait {} s",
                plane.config.profile_raises,
                whole_seconds(wait)
            );
            if runs > 0 {
                text.push_str(&format!(", or ask for hz={runs} or less"));
            }
            if plane.config.recorder > 0 {
                text.push_str(", or for the past by ago=30&seconds=30");
            }
            Refusal::new(429, Reason::Raises, text).retry_after(wait)
        })
    }
}
