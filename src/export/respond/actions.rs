//! The last profile requests: who asked for what, how it ended.

use std::collections::VecDeque;
use std::sync::Mutex;
use std::time::Instant;

use serde::Serialize;

use super::message::Request;
use crate::config;
use crate::store::metrics::unix_nanos_now;
use crate::store::sync::lock;

/// A profile request that has ended.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Action {
    pub(crate) unix_milliseconds: u64,
    pub(crate) peer: Option<String>,
    pub(crate) path: String,
    pub(crate) seconds: u64,
    /// `None`: of the past, which has the rate at which it was sampled.
    pub(crate) hz: Option<u32>,
    pub(crate) format: &'static str,
    /// `None`: the reader left before there was an answer.
    pub(crate) status: Option<u16>,
    pub(crate) bytes: usize,
    pub(crate) waited_seconds: f64,
    /// What the request changed in the program; `None`: nothing.
    pub(crate) change: Option<String>,
}

/// A ring of the last [`config::ACTIONS`].
#[derive(Debug, Default)]
pub(crate) struct Actions(Mutex<VecDeque<Action>>);

impl Actions {
    /// Notes that a request begins; dropping the guard notes how it ended.
    pub(crate) fn begin(
        &self,
        request: &Request,
        seconds: u64,
        hz: Option<u32>,
        format: &'static str,
    ) -> Running<'_> {
        let action = Action {
            unix_milliseconds: unix_nanos_now() / 1_000_000,
            peer: request.peer.map(|peer| peer.to_string()),
            path: request.path.clone(),
            seconds,
            hz,
            format,
            status: None,
            bytes: 0,
            waited_seconds: 0.0,
            change: None,
        };
        Running {
            actions: self,
            action: Some(action),
            begun: Instant::now(),
        }
    }

    /// Oldest first.
    pub(crate) fn all(&self) -> Vec<Action> {
        lock(&self.0).iter().cloned().collect()
    }
}

/// A profile request under way.
#[derive(Debug)]
pub(crate) struct Running<'a> {
    actions: &'a Actions,
    action: Option<Action>,
    begun: Instant,
}

impl Running<'_> {
    /// Notes that the request changes the program.
    pub(crate) fn changing(mut self, change: String) -> Self {
        if let Some(action) = &mut self.action {
            action.change = Some(change);
        }
        self
    }

    pub(crate) fn ended(mut self, status: u16, bytes: usize) {
        if let Some(action) = &mut self.action {
            action.status = Some(status);
            action.bytes = bytes;
        }
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        let Some(mut action) = self.action.take() else {
            return;
        };
        action.waited_seconds = self.begun.elapsed().as_secs_f64();
        let mut ring = lock(&self.actions.0);
        if ring.len() >= config::ACTIONS {
            ring.pop_front();
        }
        ring.push_back(action);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ring_keeps_the_last_and_tells_readers_that_left_from_answers() {
        let actions = Actions::default();
        let request = Request::new("GET", "/debug/pprof/profile");
        for seconds in 0..300 {
            let running = actions.begin(&request, seconds, None, "pprof");
            if seconds % 2 == 0 {
                running.ended(200, 7);
            }
        }
        let all = actions.all();
        assert_eq!(all.len(), config::ACTIONS);
        assert_eq!(all.first().map(|action| action.seconds), Some(44));
        assert_eq!(all[254].status, Some(200));
        assert_eq!(all[255].status, None);
    }
}
