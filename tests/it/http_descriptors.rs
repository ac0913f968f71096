//! A process without a free descriptor: the listener waits instead of spinning, and comes back.

use std::io::{BufRead, BufReader};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use tokio::net::TcpSocket;

use crate::client::get;

const DESCRIPTORS: usize = 48;

struct Cramped(Child);

impl Drop for Cramped {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

impl Cramped {
    /// The idle example under a limit that only a shell can set for it.
    fn start() -> (Self, SocketAddr) {
        let binary = std::env::current_exe().unwrap();
        let example = binary.ancestors().nth(2).unwrap().join("examples/warp");
        let limited = format!("ulimit -n {DESCRIPTORS}; exec \"$0\" 127.0.0.1:0 127.0.0.1:0");
        let mut child = Command::new("sh")
            .args(["-c", &limited])
            .arg(&example)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let agent = lines.nth(1).unwrap().unwrap();
        let agent = agent.trim_start_matches("http://").trim_end_matches('/');
        (Self(child), agent.parse().unwrap())
    }

    fn open(&self) -> usize {
        let folder = format!("/proc/{}/fd", self.0.id());
        std::fs::read_dir(folder).unwrap().count()
    }

    fn cpu_ticks(&self) -> u64 {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.0.id())).unwrap();
        let (_, fields) = stat.rsplit_once(") ").unwrap();
        let fields: Vec<u64> = fields
            .split(' ')
            .filter_map(|field| field.parse().ok())
            .collect();
        // The state, a letter, is not among them: user and system time follow ten numbers.
        fields[10] + fields[11]
    }
}

/// An idle connection that comes from another address of this machine.
fn connect(runtime: &tokio::runtime::Runtime, agent: SocketAddr, last: u8) -> TcpStream {
    let stream = runtime.block_on(async {
        let socket = TcpSocket::new_v4().unwrap();
        let own = SocketAddr::from((IpAddr::from([127, 0, 0, last]), 0));
        socket.bind(own).unwrap();
        socket.connect(agent).await.unwrap()
    });
    stream.into_std().unwrap()
}

#[test]
fn without_descriptors_the_listener_neither_spins_nor_dies() {
    let (process, agent) = Cramped::start();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let crowd: Vec<TcpStream> = (0..60)
        .map(|n| connect(&runtime, agent, 2 + n / 15))
        .collect();
    let begun = Instant::now();
    while process.open() < DESCRIPTORS {
        assert!(
            begun.elapsed() < Duration::from_secs(3),
            "{} are open",
            process.open()
        );
        thread::yield_now();
    }
    // A loop that accepts and fails again and again uses all of a CPU: 100 ticks in a second.
    let (begun, before) = (Instant::now(), process.cpu_ticks());
    while begun.elapsed() < Duration::from_secs(1) {
        thread::park_timeout(Duration::from_millis(100));
    }
    let used = process.cpu_ticks() - before;
    assert!(used < 30, "{used} ticks while nothing could be accepted");
    drop(crowd);
    assert_eq!(get(&agent.to_string(), "/healthz").status, 200);
}
