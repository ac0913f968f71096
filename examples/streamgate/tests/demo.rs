//! `streamgate demo` as a process: what scripts and people get from it.
#![expect(
    clippy::unwrap_used,
    reason = "a failing support function fails its test"
)]

use std::fs::Permissions;
use std::io::Write as _;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Output;
use std::time::{Duration, Instant};

use serde_json::Value;
use streamgate::servers::postgres::Installation;
use streamgate::servers::redis;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::Command;

fn demo(out: &Path, options: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_streamgate"));
    command
        .args(["demo", "--public", "127.0.0.1:0", "--agent", "127.0.0.1:0"])
        .args(["--users", "50", "--contents", "500", "--out"])
        .arg(out)
        .args(options)
        .kill_on_drop(true);
    command
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn last_line_is_the_summary_with_every_field() {
    let out = tempfile::tempdir().unwrap();
    let options = ["--duration", "4s", "--rate", "100", "--json"];
    let output = demo(out.path(), &options).output().await.unwrap();
    let stdout = String::from_utf8(output.stdout.clone()).unwrap();
    let summary: Value = serde_json::from_str(stdout.lines().last().unwrap()).unwrap();
    let mut fields: Vec<&str> = summary
        .as_object()
        .unwrap()
        .keys()
        .map(String::as_str)
        .collect();
    fields.sort_unstable();
    let expected = [
        "cache_hit_ratio",
        "client_p95_ms",
        "cpu_ratio",
        "errors",
        "flamegraph",
        "memory_ratio",
        "p50_ms",
        "p95_ms",
        "p99_ms",
        "profile_samples",
        "requests",
        "rps",
        "targets",
    ];
    assert_eq!(fields, expected);
    assert_eq!(summary["requests"], 400, "{}", stderr(&output));
    // The target: a busy machine may cost a request its wait for the database.
    assert!(summary["errors"].as_u64() < Some(4), "{}", stderr(&output));
    for field in ["p50_ms", "p95_ms", "p99_ms", "client_p95_ms"] {
        assert!(summary[field].as_f64().unwrap() > 0.0, "{summary}");
    }
    let targets = summary["targets"].as_array().unwrap();
    assert_eq!(targets.len(), 7, "{summary}");
    for row in targets {
        let judged = row["status"] == "ok" || row["status"] == "breach";
        assert!(!judged || row["current"].is_number(), "{row}");
    }
    let svg = std::fs::read_to_string(summary["flamegraph"].as_str().unwrap()).unwrap();
    assert!(svg.contains("<svg"));
    let profile = std::fs::read(out.path().join("profile.pb.gz")).unwrap();
    assert_eq!(profile[..2], [0x1f, 0x8b], "gzip");
    assert!(
        summary["profile_samples"].as_u64().unwrap() > 0,
        "{summary}"
    );
    // A machine too busy for the generator voids the load, and only that may fail here.
    assert!(
        output.status.success() || stderr(&output).contains("does not count"),
        "{}",
        stderr(&output)
    );
    // Not a terminal: no colour, no rewritten line.
    assert!(!output.stderr.contains(&0x1b) && !output.stdout.contains(&0x1b));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_taken_port_names_the_option_that_moves_it() {
    let out = tempfile::tempdir().unwrap();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    for option in ["--public", "--agent"] {
        let other = if option == "--public" {
            "--agent"
        } else {
            "--public"
        };
        let output = Command::new(env!("CARGO_BIN_EXE_streamgate"))
            .args(["demo", option, &address, other, "127.0.0.1:0"])
            .args(["--users", "5", "--contents", "5", "--out"])
            .arg(out.path())
            .kill_on_drop(true)
            .output()
            .await
            .unwrap();
        assert!(!output.status.success());
        let message = stderr(&output);
        assert!(
            message.contains(&address) && message.contains(option),
            "{message}"
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn log_lines_are_json_on_standard_output_where_that_is_asked_for() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let serve = async |log: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_streamgate"));
        command
            .args(["serve", "--public", &address, "--agent", "127.0.0.1:0"])
            .args(["--users", "1", "--contents", "0"])
            .args(log)
            .env_remove("RUST_LOG");
        command.output().await.unwrap()
    };
    let output = serve(&["--log", "json"]).await;
    let stdout = String::from_utf8(output.stdout).unwrap();
    let last: Value = serde_json::from_str(stdout.lines().next_back().unwrap()).unwrap();
    assert_eq!(last["level"], "ERROR");
    let message = last["message"].as_str().unwrap();
    assert!(message.contains(&address), "{message}");
    let output = serve(&[]).await;
    assert!(output.stdout.is_empty());
    assert!(
        stderr(&output).contains(" ERROR streamgate: "),
        "{}",
        stderr(&output)
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_demo_ends_its_load_and_the_next_one_removes_its_database() {
    let out = tempfile::tempdir().unwrap();
    let temporary = tempfile::tempdir().unwrap();
    let left = || {
        let entries = std::fs::read_dir(temporary.path()).unwrap();
        entries
            .map(|entry| entry.unwrap().file_name())
            .collect::<Vec<_>>()
    };
    let mut running = demo(out.path(), &["--duration", "1h", "--rate", "20"])
        .env("TMPDIR", temporary.path())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let demo_id = running.id().unwrap();
    // The first progress line says that the load runs; the pipe must stay open.
    let mut lines = BufReader::new(running.stderr.take().unwrap()).lines();
    while let Some(line) = lines.next_line().await.unwrap() {
        if line.contains("req/s") {
            break;
        }
    }
    let child = children(demo_id);
    assert_eq!(child.len(), 1, "one load generator");
    assert_eq!(left().len(), 1, "the running demo's database");
    running.kill().await.unwrap();
    let deadline = Instant::now() + Duration::from_secs(20);
    while is_running(child[0]) {
        assert!(
            Instant::now() < deadline,
            "the load generator goes on alone"
        );
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(left().len(), 1, "nobody could remove it");
    let next = demo(out.path(), &["--duration", "2s", "--rate", "20"])
        .env("TMPDIR", temporary.path())
        .output()
        .await
        .unwrap();
    assert!(left().is_empty(), "{:?}: {}", left(), stderr(&next));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn postgres_and_redis_come_and_go_with_the_demo() {
    if Installation::find().is_none() {
        // Not by `println!`, which a passing test keeps for itself.
        return writeln!(std::io::stderr(), "skipped: PostgreSQL is not installed").unwrap();
    }
    if redis::Installation::find().is_none() {
        return writeln!(std::io::stderr(), "skipped: redis-server is not installed").unwrap();
    }
    let out = tempfile::tempdir().unwrap();
    let temporary = tempfile::tempdir().unwrap();
    // The server runs as another user, who has to get there.
    std::fs::set_permissions(temporary.path(), Permissions::from_mode(0o755)).unwrap();
    let options = [
        "--with",
        "postgres,redis",
        "--duration",
        "4s",
        "--rate",
        "20",
        "--json",
    ];
    let output = demo(out.path(), &options)
        .env("TMPDIR", temporary.path())
        .output()
        .await
        .unwrap();
    let stdout = String::from_utf8(output.stdout.clone()).unwrap();
    let last = stdout.lines().last().unwrap_or_default();
    assert!(last.starts_with('{'), "{}", stderr(&output));
    let summary: Value = serde_json::from_str(last).unwrap();
    assert_eq!(summary["requests"], 80, "{}", stderr(&output));
    // On a busy machine a new connection takes longer than its 500 ms, which costs its request.
    assert!(summary["errors"].as_u64() < Some(80), "{}", stderr(&output));
    assert_eq!(summary["targets"].as_array().unwrap().len(), 7);
    let left = std::fs::read_dir(temporary.path()).unwrap().count();
    assert_eq!(left, 0, "its data is gone");
}

/// Processes whose parent this is.
fn children(parent: u32) -> Vec<u32> {
    std::fs::read_dir("/proc")
        .unwrap()
        .filter_map(|entry| entry.unwrap().file_name().to_str()?.parse().ok())
        .filter(|id| state_and_parent(*id).is_some_and(|(_, of)| of == parent))
        .collect()
}

/// Whether the process still runs; an ended one that nobody asked about is a zombie.
fn is_running(process: u32) -> bool {
    state_and_parent(process).is_some_and(|(state, _)| state != "Z")
}

fn state_and_parent(process: u32) -> Option<(String, u32)> {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace();
    Some((fields.next()?.to_owned(), fields.next()?.parse().ok()?))
}
