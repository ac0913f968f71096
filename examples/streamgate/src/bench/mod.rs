//! The load generator: an open loop with a constant arrival rate.
//!
//! Arrivals are fixed before the first request and latency counts from the intended start, so a service
//! that stalls for a second shows a second. A generator that waits for an answer before it asks again
//! would send less while the service is slow and report the pause once (coordinated omission).
//!
//! Owns the plan, the connections, the statistics and the verdict whether they count. Uses the ids of
//! `seed` to know what to ask for, and nothing else of the service: what it measures it sees over HTTP.
//! Absent: retries of failed requests, think time, TLS, other machines as targets.

mod connection;
pub(crate) mod duration;
mod load;
mod memory;
mod mix;
mod own_cost;
mod pacer;
mod plan;
mod popularity;
mod queue;
mod record;
pub(crate) mod report;
mod request;
mod target;
mod worker;

use std::io::{self, Write as _};
use std::thread;
use std::time::Duration;

use tokio::sync::oneshot;

use self::connection::Protocol;
use self::load::Settings;
use self::mix::Mix;
use self::plan::{Arrivals, Shape};
use self::popularity::Popularity;
use self::report::Report;
use self::target::Target;
use crate::error::Fatal;

/// The options of `streamgate bench`.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// Service to load; only addresses of this machine are taken.
    #[arg(long, default_value = "http://127.0.0.1:8080")]
    url: Target,
    /// Time in which requests start: 500ms, 20s, 2m.
    #[arg(long, default_value = "20s", value_parser = duration::parse)]
    duration: Duration,
    /// Requests per second.
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    rate: u32,
    /// Spacing of the requests.
    #[arg(long, value_enum, default_value_t = Arrivals::Constant)]
    arrivals: Arrivals,
    /// Shares of the journeys.
    #[arg(long, value_enum, default_value_t = Mix::Full)]
    mix: Mix,
    /// Connections at most [default: 64, with --http2 2].
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..=1024))]
    connections: Option<u16>,
    /// HTTP/2 without TLS, 64 requests at a time on each connection.
    #[arg(long)]
    http2: bool,
    /// Requests that wait or run at most; those beyond are errors.
    #[arg(long, default_value_t = 4096, value_parser = clap::value_parser!(u32).range(1..=65_536))]
    in_flight: u32,
    /// Time after which a request is given up, from its intended start.
    #[arg(long, default_value = "10s", value_parser = duration::parse)]
    timeout: Duration,
    /// Seed of the plan and of the service's demo data.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Users of the demo data.
    #[arg(long, default_value_t = 5_000, value_parser = clap::value_parser!(u32).range(1..))]
    users: u32,
    /// Contents of the demo data.
    #[arg(long, default_value_t = 100_000, value_parser = clap::value_parser!(u32).range(1..))]
    contents: u32,
    /// Popularity of the n-th key is 1/n to this power.
    #[arg(long, default_value_t = 1.0, value_parser = skew)]
    skew: f64,
    /// Print one JSON object instead of the table.
    #[arg(long)]
    json: bool,
    /// Write a line per second to the error stream.
    #[arg(long)]
    progress: bool,
    /// End when the process with this id is no longer the parent.
    #[arg(long, hide = true)]
    parent: Option<u32>,
}

fn skew(text: &str) -> Result<f64, String> {
    let refused = || format!("a number of 0..=4 (got {text:?})");
    let skew: f64 = text.parse().map_err(|_| refused())?;
    if (0.0..=4.0).contains(&skew) {
        Ok(skew)
    } else {
        Err(refused())
    }
}

impl Args {
    fn settings(&self) -> Result<Settings, Fatal> {
        let popularity = |parameter, count: u32| {
            Popularity::new(count.into(), self.skew).ok_or_else(|| Fatal::OutOfRange {
                parameter,
                range: "at least 1".to_owned(),
                seen: count.to_string(),
            })
        };
        let (protocol, connections) = if self.http2 {
            (Protocol::Http2, 2)
        } else {
            (Protocol::Http1, 64)
        };
        Ok(Settings {
            target: self.url.clone(),
            shape: Shape {
                rate: self.rate,
                duration: self.duration,
                arrivals: self.arrivals,
                mix: self.mix,
                contents: popularity("--contents", self.contents)?,
                users: popularity("--users", self.users)?,
                seed: self.seed,
            },
            protocol,
            connections: self.connections.unwrap_or(connections),
            in_flight: usize::try_from(self.in_flight).unwrap_or(usize::MAX),
            content_seed: self.seed,
            patience: self.timeout,
            progress: self.progress,
            parent: self.parent,
        })
    }
}

/// Drives the load and prints the report.
///
/// # Errors
/// Requests failed or the load does not count, after the report is printed; or the load could not start.
pub async fn run(args: Args) -> Result<(), Fatal> {
    let report = measure(args.settings()?).await?;
    let text = if args.json {
        let json = serde_json::to_string(&report)
            .map_err(|error| Fatal::Failed(format!("no JSON: {error}")))?;
        format!("{json}\n")
    } else {
        report.table()
    };
    io::stdout()
        .lock()
        .write_all(text.as_bytes())
        .map_err(|source| Fatal::System {
            what: "cannot print the report",
            source,
        })?;
    match report.complaint() {
        Some(complaint) => Err(Fatal::Failed(complaint)),
        None => Ok(()),
    }
}

/// Runs the load on one thread of its own: no lock, no work moved between cores, and its processor time
/// can be judged against one core.
async fn measure(settings: Settings) -> Result<Report, Fatal> {
    let (sender, receiver) = oneshot::channel();
    let load = move || {
        let report = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build_local(tokio::runtime::LocalOptions::default())
            .map_err(|source| Fatal::System {
                what: "no runtime for the load",
                source,
            })
            .and_then(|runtime| runtime.block_on(load::drive(settings)));
        // The receiver is gone only if the command was given up.
        drop(sender.send(report));
    };
    thread::Builder::new()
        .name("bench-load".to_owned())
        .spawn(load)
        .map_err(|source| Fatal::System {
            what: "no thread for the load",
            source,
        })?;
    receiver
        .await
        .map_err(|_| Fatal::Failed("the load ended without a report".to_owned()))?
}
