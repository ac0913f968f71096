//! A CPU profile and a flame graph of the load, taken over HTTP as any user takes them.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;

use super::fetch;
use super::samples;

/// Longest profile: enough samples, and a demo of an hour does not wait for it.
const LONGEST_SECONDS: u64 = 30;
/// Longest wait for a warm service.
const WARM_UP: Duration = Duration::from_secs(5);
/// Time for symbols and encoding after the profiled window.
const ENCODING: Duration = Duration::from_secs(30);

/// When to take what from where.
#[derive(Debug)]
pub(super) struct Capture {
    wait: Duration,
    seconds: u64,
    agent: SocketAddr,
    out: PathBuf,
}

/// What was taken. A missing part has its reason among the problems.
#[derive(Debug)]
pub(super) struct Pictures {
    /// Flame graph, SVG.
    pub(super) flamegraph: Option<PathBuf>,
    /// Profile in the form that `go tool pprof` reads.
    pub(super) profile: Option<PathBuf>,
    /// Samples in the profiled window.
    pub(super) samples: Option<u64>,
    /// Why something is missing.
    pub(super) problems: Vec<String>,
}

impl Capture {
    /// Takes the middle half of a load of this length.
    pub(super) fn of(load: Duration, agent: SocketAddr, out: &Path) -> Self {
        Self {
            wait: (load / 4).min(WARM_UP),
            seconds: (load.as_secs() / 2).clamp(1, LONGEST_SECONDS),
            agent,
            out: out.to_owned(),
        }
    }

    /// Waits for its time, takes everything from one window and saves it.
    pub(super) async fn take(self) -> Pictures {
        tokio::time::sleep(self.wait).await;
        let limit = Duration::from_secs(self.seconds) + ENCODING;
        let seconds = self.seconds;
        let profile = format!("/debug/pprof/profile?seconds={seconds}");
        let svg = format!("/debug/flamegraph?seconds={seconds}");
        // At once, so that both show the same window.
        let (profile, svg) = tokio::join!(
            fetch::get(self.agent, &profile, limit),
            fetch::get(self.agent, &svg, limit),
        );
        let mut problems = Vec::new();
        let samples = match &profile {
            Ok(profile) => samples::count(profile).await,
            Err(_) => None,
        };
        Pictures {
            profile: self.save(profile, "profile.pb.gz", &mut problems).await,
            flamegraph: self.save(svg, "flamegraph.svg", &mut problems).await,
            samples,
            problems,
        }
    }

    async fn save(
        &self,
        body: Result<Bytes, String>,
        name: &str,
        problems: &mut Vec<String>,
    ) -> Option<PathBuf> {
        let path = self.out.join(name);
        let saved = match body {
            Ok(body) => tokio::fs::write(&path, &body)
                .await
                .map_err(|error| format!("{}: {error}", path.display())),
            Err(problem) => Err(problem),
        };
        match saved {
            Ok(()) => Some(path),
            Err(problem) => {
                problems.push(problem);
                None
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn window_lies_within_the_load() {
        let agent = SocketAddr::from(([127, 0, 0, 1], 1));
        for seconds in [2, 3, 20, 120, 3600] {
            let load = Duration::from_secs(seconds);
            let capture = Capture::of(load, agent, Path::new("."));
            assert!(
                capture.wait + Duration::from_secs(capture.seconds) <= load,
                "{capture:?}"
            );
            assert!((1..=60).contains(&capture.seconds));
        }
    }
}
