//! The load generator as a child process.

use std::net::SocketAddr;
use std::process::Stdio;
use std::time::Duration;

use tokio::process::Command;

use super::Args;
use crate::bench::report::Report;
use crate::error::Fatal;

/// Time that the child may take beyond the load itself: its last requests are given up after 10 s.
const GRACE: Duration = Duration::from_secs(20);

/// A load to be driven.
#[derive(Debug)]
pub(super) struct Load {
    arguments: Vec<String>,
    limit: Duration,
}

impl Load {
    /// The load of a demo against the service at this address.
    pub(super) fn of(args: &Args, service: SocketAddr) -> Self {
        let options = [
            ("--url", format!("http://{service}")),
            ("--duration", format!("{}ms", args.duration.as_millis())),
            ("--rate", args.rate.to_string()),
            ("--seed", args.seed.to_string()),
            ("--users", args.users.to_string()),
            ("--contents", args.contents.to_string()),
            // Killed when we end; this is for an end that leaves us no time to kill.
            ("--parent", std::process::id().to_string()),
        ];
        let options = options
            .into_iter()
            .flat_map(|(name, value)| [name.to_owned(), value]);
        let arguments = ["bench", "--json"]
            .map(str::to_owned)
            .into_iter()
            .chain(options)
            .collect();
        Self {
            arguments,
            limit: args.duration + GRACE,
        }
    }

    /// Starts this program again as the load generator and waits for its report. Dropping the future kills it.
    pub(super) async fn drive(self) -> Result<Report, Fatal> {
        let program = std::env::current_exe().map_err(|source| Fatal::System {
            what: "cannot find this program's file for the load",
            source,
        })?;
        let child = Command::new(program)
            .args(&self.arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .map_err(|source| Fatal::System {
                what: "cannot start the load generator",
                source,
            })?;
        let output = tokio::time::timeout(self.limit, child.wait_with_output())
            .await
            .map_err(|_| {
                Fatal::Failed(format!(
                    "the load generator did not end within {} s",
                    self.limit.as_secs()
                ))
            })?
            .map_err(|source| Fatal::System {
                what: "cannot read from the load generator",
                source,
            })?;
        // It ends with an error when requests failed, and prints its report all the same.
        let printed = String::from_utf8_lossy(&output.stdout);
        let report = printed
            .lines()
            .last()
            .and_then(|line| serde_json::from_str(line).ok());
        report.ok_or_else(|| {
            let said = String::from_utf8_lossy(&output.stderr);
            Fatal::Failed(format!(
                "the load generator gave no report ({}): {}",
                output.status,
                said.lines().last().unwrap_or("it said nothing")
            ))
        })
    }
}
