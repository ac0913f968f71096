//! StreamGate under load, and what naming its own profile costs it: asked from outside, since the agent
//! names addresses of its own process only.

#[path = "../sampling/proto.rs"]
mod proto;

use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use prost::Message as _;

const BUILD: &str = "cargo build --release -p streamgate";
/// How long it is profiled.
const SECONDS: u64 = 30;

/// A process that ends with the bench.
struct Service(Child);

impl Drop for Service {
    fn drop(&mut self) {
        let ended = self.0.kill().and_then(|()| self.0.wait());
        ended.unwrap();
    }
}

/// Measures it and prints a table.
pub(crate) fn measure() {
    println!(
        "\n### StreamGate's own CPU profile of {SECONDS} s under load, named when the load is over\n"
    );
    let binary = binary();
    if !binary.exists() {
        println!("{} is not there: {BUILD}", binary.display());
        return;
    }
    let (public, agent) = (free_address(), free_address());
    let mut service = Command::new(&binary);
    service.args(["serve", "--public", &public, "--agent", &agent]);
    let service = Service(service.stdout(Stdio::null()).spawn().unwrap());
    wait_for(&agent);
    let seconds = format!("{}s", SECONDS + 5);
    let mut load = Command::new(&binary);
    load.args([
        "bench",
        "--url",
        &format!("http://{public}"),
        "--duration",
        &seconds,
    ]);
    load.args(["--rate", "500"]).stdout(Stdio::null());
    let mut load = Service(load.spawn().unwrap());
    let begin = unix_millis();
    let target = format!("/debug/pprof/profile?seconds={SECONDS}&symbolize=none");
    get(&agent, &target);
    let end = unix_millis();
    load.0.wait().unwrap();

    let pid = service.0.id();
    let size = fs::metadata(&binary).unwrap().len() >> 20;
    println!("A binary of {size} MiB.\n");
    println!(
        "| asked for | addresses | with names | with lines | time, s | peak above start, MiB | after, MiB |"
    );
    println!("|---|---|---|---|---|---|---|");
    for (what, more) in [
        ("no names, to warm up", "&symbolize=none"),
        ("no names", "&symbolize=none"),
        ("names, cold", ""),
        ("names, warm", ""),
        ("no names, at last", "&symbolize=none"),
    ] {
        fs::write(format!("/proc/{pid}/clear_refs"), "5").unwrap();
        let before = status(pid, "VmRSS:");
        let begun = Instant::now();
        let body = get(
            &agent,
            &format!("/debug/pprof/profile?from={begin}&to={end}{more}"),
        );
        let took = begun.elapsed().as_secs_f64();
        let (peak, after) = (status(pid, "VmHWM:"), status(pid, "VmRSS:"));
        let (all, named, lined) = counts(&body);
        println!(
            "| {what} | {all} | {named} | {lined} | {took:.3} | {:.1} | {:.1} |",
            peak - before,
            after - before,
        );
    }
}

/// Beside the benches' folder.
fn binary() -> PathBuf {
    let bench = std::env::current_exe().unwrap();
    bench.ancestors().nth(2).unwrap().join("streamgate")
}

fn free_address() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().to_string()
}

/// Until the service has seeded its data and answers.
fn wait_for(address: &str) {
    let patience = Instant::now() + Duration::from_secs(60);
    while TcpStream::connect(address).is_err() {
        assert!(Instant::now() < patience, "{address} does not answer");
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn unix_millis() -> u128 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap()
        .as_millis()
}

/// The body of an answer that must be 200.
fn get(authority: &str, target: &str) -> Vec<u8> {
    let mut stream = TcpStream::connect(authority).unwrap();
    let head = format!("GET {target} HTTP/1.1\r\nhost: {authority}\r\nconnection: close\r\n\r\n");
    stream.write_all(head.as_bytes()).unwrap();
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).unwrap();
    let end = bytes
        .windows(4)
        .position(|four| four == b"\r\n\r\n")
        .unwrap();
    let head = String::from_utf8_lossy(&bytes[..end]).to_ascii_lowercase();
    assert!(
        head.contains(" 200 ") && head.contains("content-length"),
        "{head}"
    );
    bytes.split_off(end + 4)
}

/// A line of the process's status in MiB.
fn status(pid: u32, key: &str) -> f64 {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = text.lines().find(|line| line.starts_with(key)).unwrap();
    let kib: f64 = line.split_whitespace().nth(1).unwrap().parse().unwrap();
    kib / 1024.0
}

/// Locations of a profile: all, those with a name, those with a line.
fn counts(body: &[u8]) -> (usize, usize, usize) {
    let mut raw = Vec::new();
    flate2::read::GzDecoder::new(body)
        .read_to_end(&mut raw)
        .unwrap();
    let profile = proto::Profile::decode(&*raw).unwrap();
    for comment in &profile.comment {
        let text = &profile.string_table[usize::try_from(*comment).unwrap()];
        if text.contains("names") {
            println!("{text}");
        }
    }
    let locations = profile.location.iter();
    let lined = locations
        .clone()
        .filter(|place| place.line.iter().any(|line| line.line > 0));
    let named = locations.filter(|place| !place.line.is_empty());
    (profile.location.len(), named.count(), lined.count())
}
