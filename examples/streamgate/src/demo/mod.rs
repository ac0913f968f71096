//! The whole thing on one command: service, data, load, profile, target table.
//!
//! Owns the order of the steps and what people and scripts get to see. Uses `serve` to run the service
//! in this process, the load generator as a child process so that its processor time and memory stay
//! off the service's account, and the agent's HTTP endpoints as any user would. Absent: measurements of
//! its own; every number comes from the agent or from the load generator.

mod beside;
mod capture;
mod fetch;
mod load;
mod samples;
mod screen;
mod summary;

use std::io::{self, Write as _};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use tokio::signal::unix::{SignalKind, signal};

use self::beside::{Beside, With};
use self::capture::{Capture, Pictures};
use self::load::Load;
use self::screen::Screen;
use self::summary::Summary;
use crate::bench::duration;
use crate::bench::report::Report;
use crate::error::Fatal;
use crate::serve::{self, Running};
use crate::settings::{Settings, loopback};

/// Shortest load: the profile takes its middle, in whole seconds.
const SHORTEST: Duration = Duration::from_secs(2);
/// Time for requests that still run when the demo ends.
const STOP: Duration = Duration::from_secs(5);

/// The options of `streamgate demo`.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// How long to drive load: 20s, 2m; at least 2s.
    #[arg(long, default_value = "20s", value_parser = load_duration)]
    duration: Duration,
    /// Requests per second; the default is above the target of 1,000 served.
    #[arg(long, default_value_t = 1200, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    rate: u32,
    /// Print one JSON object as the last line.
    #[arg(long)]
    json: bool,
    /// Keep serving after the load, until Ctrl-C.
    #[arg(long)]
    serve: bool,
    /// Leak memory at this rate, such as 1MiB/s, to see how the agent finds it.
    #[arg(long, value_parser = crate::faults::leak::parse)]
    leak: Option<u64>,
    /// Address of the service on this machine, as the demo hands out profiles without a password; port 0 takes a free one.
    #[arg(long, default_value = "127.0.0.1:8080", value_parser = loopback)]
    public: SocketAddr,
    /// Address of the agent's endpoints on this machine; port 0 takes a free one.
    #[arg(long, default_value = "127.0.0.1:6060", value_parser = loopback)]
    agent: SocketAddr,
    /// Real servers to start beside the service, with throw-away data.
    #[arg(long, value_delimiter = ',', value_name = "SERVER")]
    with: Vec<With>,
    /// Directory for the flame graph and the profile.
    #[arg(long, default_value = "streamgate-demo")]
    out: PathBuf,
    /// Users of the demo data.
    #[arg(long, default_value_t = 5_000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    users: u32,
    /// Rows each of content, NFT and transaction.
    #[arg(long, default_value_t = 100_000, value_parser = clap::value_parser!(u32).range(1..=10_000_000))]
    contents: u32,
    /// Seed of the data and of the load; the same seed gives the same.
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

fn load_duration(text: &str) -> Result<Duration, String> {
    match duration::parse(text)? {
        shorter if shorter < SHORTEST => Err(format!("at least 2s (got {text:?})")),
        long_enough => Ok(long_enough),
    }
}

/// Runs the demo.
///
/// # Errors
/// An address is taken, the service or the load cannot start, requests failed, the load does not count,
/// or Ctrl-C came before the end. What was measured is printed first.
pub async fn run(args: Args) -> Result<(), Fatal> {
    let mut screen = Screen::new();
    prepare(&args.out)?;
    // Dropped last, so that the service says goodbye to its servers.
    let beside;
    let running = tokio::select! {
        started = start(&args, &mut screen) => {
            let (running, started_too) = started?;
            beside = started_too;
            running
        }
        stop = interrupted() => return Err(stop),
    };
    let leaking = args
        .leak
        .map(|rate| tokio::spawn(crate::faults::leak::leak(rate)));
    let outcome = tokio::select! {
        outcome = show(&args, &running, &mut screen) => outcome,
        stop = interrupted() => Err(stop),
    };
    if args.serve && outcome.is_ok() {
        screen.line("Serving until Ctrl-C.");
        // Ctrl-C is the wanted end here.
        drop(interrupted().await);
    }
    if let Some(leaking) = leaking {
        leaking.abort();
    }
    running.stop(STOP).await;
    drop(beside);
    match outcome?.complaint() {
        Some(complaint) => Err(Fatal::Failed(complaint)),
        None => Ok(()),
    }
}

/// Completes on Ctrl-C or SIGTERM, with the error that it is before the end.
async fn interrupted() -> Fatal {
    let waiting = |source| Fatal::System {
        what: "cannot wait for signals",
        source,
    };
    let mut terminate = match signal(SignalKind::terminate()) {
        Ok(terminate) => terminate,
        Err(source) => return waiting(source),
    };
    tokio::select! {
        interrupt = tokio::signal::ctrl_c() => match interrupt {
            Ok(()) => Fatal::Failed("interrupted".to_owned()),
            Err(source) => waiting(source),
        },
        _ = terminate.recv() => Fatal::Failed("terminated".to_owned()),
    }
}

fn prepare(out: &Path) -> Result<(), Fatal> {
    std::fs::create_dir_all(out).map_err(|source| Fatal::File {
        path: out.to_owned(),
        source,
    })
}

async fn start(args: &Args, screen: &mut Screen) -> Result<(Running, Beside), Fatal> {
    let beside = Beside::start(&args.with, screen).await?;
    screen.line(&format!(
        "Seeding {} users, {} contents, NFTs and transactions ...",
        args.users, args.contents
    ));
    let begin = Instant::now();
    let settings = Settings {
        public: args.public,
        agent: args.agent,
        users: args.users,
        contents: args.contents,
        seed: args.seed,
        database: beside.database()?,
        archive_dir: beside.archive_dir(),
        archive_every: Some(Duration::from_secs(3_600)),
        redis: beside.redis(),
        ..Settings::default()
    };
    let running = serve::start(settings)
        .await
        .map_err(|fatal| name_the_option(fatal, args))?;
    screen.line(&format!("Ready in {:.1} s.", begin.elapsed().as_secs_f64()));
    Ok((running, beside))
}

/// Says which option moves an address that somebody else has.
fn name_the_option(fatal: Fatal, args: &Args) -> Fatal {
    let taken = |address, option| {
        Fatal::Failed(format!(
            "{address} is taken: choose another address with {option}, 127.0.0.1:0 for a free one"
        ))
    };
    match fatal {
        Fatal::Bind { address, source } if source.kind() == io::ErrorKind::AddrInUse => {
            taken(address, "--public")
        }
        Fatal::Agent(error) if error.is_address_in_use() => taken(args.agent, "--agent"),
        other => other,
    }
}

/// Drives the load, takes the pictures meanwhile, prints what came of it.
async fn show(args: &Args, running: &Running, screen: &mut Screen) -> Result<Report, Fatal> {
    let endpoints = running
        .agent
        .address()
        .ok_or_else(|| Fatal::Failed("the agent does not listen".to_owned()))?;
    screen.line(&summary::live(running.public, endpoints));
    screen.line(&format!(
        "Load: {} requests/s for {} s.",
        args.rate,
        args.duration.as_secs_f64()
    ));

    let mut load = std::pin::pin!(Load::of(args, running.public).drive());
    let mut capture = std::pin::pin!(Capture::of(args.duration, endpoints, &args.out).take());
    let mut ticks = tokio::time::interval(Duration::from_secs(1));
    let begin = Instant::now();
    let mut loaded = None;
    let mut pictures = None;
    let ((report, table), pictures): (_, Pictures) = loop {
        (loaded, pictures) = match (loaded, pictures) {
            (Some(loaded), Some(pictures)) => break (loaded, pictures),
            unfinished => unfinished,
        };
        tokio::select! {
            report = &mut load, if loaded.is_none() => {
                // At once: the windows of the table move on.
                loaded = Some((report?, running.agent.targets()));
            }
            taken = &mut capture, if pictures.is_none() => pictures = Some(taken),
            _ = ticks.tick(), if loaded.is_none() => {
                screen.progress(begin.elapsed(), args.duration, &running.agent.targets());
            }
        }
    };
    screen.end_of_progress();
    for problem in &pictures.problems {
        screen.line(problem);
    }
    let summary = Summary::new(&report, table, &pictures);
    print(
        args,
        &report,
        &summary,
        &pictures,
        running.public,
        endpoints,
    )?;
    Ok(report)
}

fn print(
    args: &Args,
    report: &Report,
    summary: &Summary,
    pictures: &Pictures,
    public: SocketAddr,
    endpoints: SocketAddr,
) -> Result<(), Fatal> {
    let mut text = format!(
        "\n{}\n{}\n{}",
        report.table(),
        summary.target_table(),
        summary::where_to_look(pictures)
    );
    if args.serve {
        text.push_str(&summary::live(public, endpoints));
    } else {
        text.push_str("Add --serve to keep the service and its endpoints up after the load.\n");
    }
    if args.json {
        let json = serde_json::to_string(summary)
            .map_err(|error| Fatal::Failed(format!("no JSON: {error}")))?;
        text.push_str(&json);
        text.push('\n');
    }
    io::stdout()
        .lock()
        .write_all(text.as_bytes())
        .map_err(|source| Fatal::System {
            what: "cannot print the summary",
            source,
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_other_machines_are_refused() {
        assert!(loopback("127.0.0.1:0").is_ok());
        assert!(loopback("[::1]:8080").is_ok());
        for text in [
            "0.0.0.0:8080",
            "[::]:8080",
            "192.0.2.1:80",
            "localhost",
            "8080",
        ] {
            assert!(loopback(text).unwrap_err().contains(text));
        }
    }

    #[test]
    fn loads_too_short_for_a_profile_are_refused() {
        assert_eq!(load_duration("2s"), Ok(SHORTEST));
        assert!(load_duration("1999ms").unwrap_err().contains("1999ms"));
    }
}
