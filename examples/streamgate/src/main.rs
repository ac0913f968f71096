//! The command line of StreamGate.

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use streamgate::error::Fatal;
use streamgate_agent::{LogLine, ProfiledAllocator};
use tikv_jemallocator::Jemalloc;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::writer::BoxMakeWriter;

/// What heap profiles come from.
#[global_allocator]
static ALLOCATOR: ProfiledAllocator<Jemalloc> = ProfiledAllocator::new(Jemalloc);

#[derive(Debug, Parser)]
#[command(name = "streamgate", version, about)]
struct Cli {
    /// Write log lines to standard output in this form, instead of text to standard error.
    #[arg(long, global = true)]
    log: Option<Log>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum Log {
    Text,
    Json,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serves the API until SIGINT or SIGTERM.
    Serve(Box<streamgate::settings::Args>),
    /// Caches what a running service answers, until SIGINT or SIGTERM.
    Edge(streamgate::edge::Args),
    /// Moves contents older than a year to cold storage, once.
    Archive(streamgate::archive::command::Args),
    /// Drives a running service with an open-loop load and reports what it measured.
    Bench(streamgate::bench::Args),
    /// Starts the service, seeds it, drives load and prints the target table.
    Demo(streamgate::demo::Args),
}

fn main() -> ExitCode {
    let Cli { log, command } = Cli::parse();
    start_log(log);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .on_thread_start(streamgate_agent::thread_started)
        .build();
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(refused) => {
            tracing::error!("the system gives no threads: {refused}");
            return ExitCode::FAILURE;
        }
    };
    match runtime.block_on(run(command)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(fatal) => {
            tracing::error!("{}", fatal.chain());
            ExitCode::FAILURE
        }
    }
}

async fn run(command: Command) -> Result<(), Fatal> {
    match command {
        Command::Serve(args) => streamgate::serve::run(*args).await,
        Command::Edge(args) => streamgate::edge::run(args).await,
        Command::Archive(args) => streamgate::archive::command::run(args).await,
        Command::Bench(args) => streamgate::bench::run(args).await,
        Command::Demo(args) => streamgate::demo::run(args).await,
    }
}

/// Installs the subscriber of the process: warnings and worse, unless `RUST_LOG` says otherwise.
fn start_log(log: Option<Log>) {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("warn"));
    let line = match log {
        Some(Log::Json) => LogLine::json(),
        Some(Log::Text) | None => LogLine::text(),
    };
    let writer = if log.is_some() {
        BoxMakeWriter::new(std::io::stdout)
    } else {
        BoxMakeWriter::new(std::io::stderr)
    };
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(writer)
        .event_format(line)
        .init();
}
