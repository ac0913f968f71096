//! The command line of StreamGate.

use std::io::IsTerminal as _;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use streamgate::error::Fatal;
use streamgate_agent::ProfiledAllocator;
use tikv_jemallocator::Jemalloc;
use tracing_subscriber::EnvFilter;

/// What heap profiles come from.
#[global_allocator]
static ALLOCATOR: ProfiledAllocator<Jemalloc> = ProfiledAllocator::new(Jemalloc);

#[derive(Debug, Parser)]
#[command(name = "streamgate", version, about)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serves the API until SIGINT or SIGTERM.
    Serve(streamgate::settings::Args),
    /// Moves contents older than a year to cold storage, once.
    Archive(streamgate::archive::command::Args),
    /// Drives a running service with an open-loop load and reports what it measured.
    Bench(streamgate::bench::Args),
    /// Starts the service, seeds it, drives load and prints the target table.
    Demo(streamgate::demo::Args),
}

fn main() -> ExitCode {
    log_to_stderr();
    let command = Cli::parse().command;
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
        Command::Serve(args) => streamgate::serve::run(args).await,
        Command::Archive(args) => streamgate::archive::command::run(args).await,
        Command::Bench(args) => streamgate::bench::run(args).await,
        Command::Demo(args) => streamgate::demo::run(args).await,
    }
}

/// Installs the subscriber of the process: warnings and worse, unless `RUST_LOG` says otherwise.
fn log_to_stderr() {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("warn"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .init();
}
