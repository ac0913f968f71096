//! The listener over real sockets: caps, clocks, limits, leaving clients, stop; and mounted forms.

use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, Shutdown, SocketAddr, TcpStream};
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use tokio::runtime::Builder;
use tokio::sync::watch;

use super::accept::{bind, serve};
use super::wire::Limits;
use super::{AgentService, Connected, endpoints};
use crate::config;
use crate::export::guard::Reason;
use crate::export::respond::Plane;
use crate::export::respond::tests::{profile, served, served_by, silent};
use crate::store::metrics::Value;

const LONG: Duration = Duration::from_secs(60);
/// Long enough for a busy machine to get a request through.
const SHORT: Duration = Duration::from_millis(700);

/// Clocks too long to be seen; a test shortens the one it is about.
fn patient() -> Limits {
    Limits {
        head: LONG,
        idle: LONG,
        write_progress: LONG,
        linger: LONG,
        ..Limits::default()
    }
}

struct Listening {
    address: SocketAddr,
    plane: Arc<Plane>,
    stop: watch::Sender<Option<Duration>>,
    thread: Option<JoinHandle<()>>,
}

impl Listening {
    fn start(plane: &Arc<Plane>, limits: Limits) -> Self {
        let listener = bind(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
        let address = listener.local_addr().unwrap();
        let (stop, asked) = watch::channel(None);
        let inside = Arc::clone(plane);
        let thread = thread::spawn(move || {
            let runtime = Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(serve(&listener, inside, limits, asked));
        });
        Self {
            address,
            plane: Arc::clone(plane),
            stop,
            thread: Some(thread),
        }
    }

    fn connect(&self) -> Client {
        Client::new(TcpStream::connect(self.address).unwrap())
    }

    /// One request over a connection of its own.
    fn get(&self, target: &str) -> Answer {
        let mut client = self.connect();
        client.send(&format!("GET {target} HTTP/1.1\r\nHost: localhost\r\n\r\n"));
        client.answer()
    }

    /// Sends bytes and takes all that comes until the end.
    fn exchange(&self, bytes: &str) -> String {
        let mut client = self.connect();
        client.send(bytes);
        client.rest()
    }

    fn denied(&self, reason: Reason) -> u64 {
        let snapshot = self.plane.store.metrics.snapshot();
        let metric = &crate::catalog::families::AGENT_HTTP_DENIED;
        let family = snapshot.family(metric).unwrap();
        let mut counted = snapshot.values(family);
        let named = counted.find(|(series, _)| *series.values[0] == *reason.word());
        match named {
            Some((_, Value::Total(total))) => total,
            _ => 0,
        }
    }
}

impl Drop for Listening {
    fn drop(&mut self) {
        self.stop.send_replace(Some(Duration::ZERO));
        let ended = self.thread.take().unwrap().join();
        assert!(ended.is_ok() || thread::panicking());
    }
}

struct Client(TcpStream);

#[derive(Debug)]
struct Answer {
    status: u16,
    head: String,
    body: Vec<u8>,
}

impl Client {
    fn new(stream: TcpStream) -> Self {
        stream
            .set_read_timeout(Some(Duration::from_secs(20)))
            .unwrap();
        Self(stream)
    }

    fn send(&mut self, bytes: &str) {
        self.0.write_all(bytes.as_bytes()).unwrap();
    }

    fn get(&mut self, target: &str) -> Answer {
        self.send(&format!("GET {target} HTTP/1.1\r\nHost: localhost\r\n\r\n"));
        self.answer()
    }

    fn head(&mut self) -> String {
        let mut head = Vec::new();
        let mut byte = [0];
        while !head.ends_with(b"\r\n\r\n") {
            let count = self.0.read(&mut byte).unwrap();
            assert_eq!(
                count,
                1,
                "ended in the head: {:?}",
                String::from_utf8_lossy(&head)
            );
            head.push(byte[0]);
        }
        String::from_utf8(head).unwrap()
    }

    fn answer(&mut self) -> Answer {
        let head = self.head();
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        let length = value(&head, "content-length").map_or(0, |length| length.parse().unwrap());
        let mut body = vec![0; length];
        self.0.read_exact(&mut body).unwrap();
        Answer { status, head, body }
    }

    /// All that comes until the connection ends, in whatever way.
    fn rest(&mut self) -> String {
        let mut bytes = Vec::new();
        match self.0.read_to_end(&mut bytes) {
            Ok(_) => {}
            Err(error) => assert_eq!(error.kind(), ErrorKind::ConnectionReset),
        }
        String::from_utf8_lossy(&bytes).into_owned()
    }
}

fn value<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    let mut lines = head.lines().filter_map(|line| line.split_once(": "));
    lines
        .find(|line| line.0.eq_ignore_ascii_case(name))
        .map(|line| line.1)
}

fn eventually(what: &str, holds: impl Fn() -> bool) {
    let begun = Instant::now();
    while !holds() {
        assert!(
            begun.elapsed() < Duration::from_secs(10),
            "not in 10 s: {what}"
        );
        thread::yield_now();
    }
}

const WAIT: &str = "GET /debug/pprof/profile?seconds=60 HTTP/1.1\r\nHost: localhost\r\n\r\n";

#[test]
fn a_taken_port_is_an_error_value() {
    let first = bind(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
    let error = bind(first.local_addr().unwrap()).unwrap_err();
    assert!(error.is_address_in_use(), "{error}");
}

#[test]
fn the_listener_answers_over_one_kept_connection_without_a_server_header() {
    let served = served();
    let listening = Listening::start(&served.plane, patient());
    let mut client = listening.connect();
    for path in [
        "/healthz",
        "/metrics",
        "/",
        "/debug/pprof/profile?seconds=1",
    ] {
        let answer = client.get(path);
        assert_eq!(answer.status, 200, "{path}");
        assert_eq!(value(&answer.head, "server"), None);
        assert!(!answer.body.is_empty());
    }
    client.send("HEAD /targets HTTP/1.1\r\nHost: localhost\r\n\r\n");
    let head = client.head();
    assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{head}");
    let length: usize = value(&head, "content-length").unwrap().parse().unwrap();
    // Had HEAD sent a body, the next head would begin with it.
    assert_eq!(client.get("/targets").body.len(), length);
    client.send("HEAD /debug/pprof/profile HTTP/1.1\r\nHost: localhost\r\n\r\n");
    let head = client.head();
    assert_eq!(value(&head, "content-length"), None, "{head}");
    assert_eq!(client.get("/healthz").status, 200);
}

#[test]
fn a_head_that_does_not_come_ends_without_an_answer_and_delays_nobody() {
    let limits = Limits {
        head: SHORT,
        ..patient()
    };
    let listening = Listening::start(&silent(), limits);
    let mut idle = listening.connect();
    assert_eq!(idle.get("/healthz").status, 200);
    let mut silent = listening.connect();
    let mut half = listening.connect();
    half.send("GET /healthz HTTP/1.1\r\nHos");
    let mut again = listening.connect();
    assert_eq!(again.get("/healthz").status, 200);
    again.send("G");
    assert_eq!(listening.get("/healthz").status, 200);
    for client in [&mut silent, &mut half, &mut again] {
        assert_eq!(client.rest(), "");
    }
    eventually("three are counted", || {
        listening.denied(Reason::HeadTimeout) == 3
    });
    assert_eq!(idle.get("/healthz").status, 200, "idle is not late");
}

#[test]
fn a_byte_now_and_then_does_not_stretch_the_head() {
    let limits = Limits {
        head: SHORT,
        ..patient()
    };
    let listening = Listening::start(&silent(), limits);
    let begun = Instant::now();
    let mut slow = listening.connect();
    let mut sent = 0;
    while slow.0.write_all(b"x").is_ok() {
        sent += 1;
        assert!(
            begun.elapsed() < Duration::from_secs(10),
            "still open after {sent} bytes"
        );
        // The server's close is what ends this wait.
        slow.0
            .set_read_timeout(Some(Duration::from_millis(5)))
            .unwrap();
        if !matches!(slow.0.read(&mut [0]), Err(error) if error.kind() == ErrorKind::WouldBlock) {
            break;
        }
    }
    eventually("it is counted", || {
        listening.denied(Reason::HeadTimeout) == 1
    });
}

#[test]
fn a_body_that_does_not_come_ends_as_a_head_does() {
    let limits = Limits {
        head: SHORT,
        ..patient()
    };
    let listening = Listening::start(&silent(), limits);
    let post =
        "POST /debug/pprof/symbol HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\n0x";
    assert_eq!(listening.exchange(post), "");
    eventually("it is counted", || {
        listening.denied(Reason::HeadTimeout) == 1
    });
}

#[test]
fn an_idle_connection_ends_quietly() {
    let limits = Limits {
        idle: SHORT,
        ..patient()
    };
    let listening = Listening::start(&silent(), limits);
    let mut client = listening.connect();
    assert_eq!(client.get("/healthz").status, 200);
    assert_eq!(client.rest(), "");
    for reason in Reason::ALL {
        assert_eq!(listening.denied(reason), 0, "{reason:?}");
    }
}

#[test]
fn the_65th_connection_and_the_17th_of_a_peer_are_closed_and_counted() {
    let listening = Listening::start(&silent(), patient());
    let runtime = Builder::new_current_thread().enable_all().build().unwrap();
    let connect = |last: u8| {
        let stream = runtime.block_on(async {
            let socket = tokio::net::TcpSocket::new_v4().unwrap();
            socket
                .bind((IpAddr::from([127, 0, 0, last]), 0).into())
                .unwrap();
            socket.connect(listening.address).await.unwrap()
        });
        let stream = stream.into_std().unwrap();
        stream.set_nonblocking(false).unwrap();
        Client::new(stream)
    };
    let mut open: Vec<Client> = (0..16).map(|_| connect(2)).collect();
    assert_eq!(connect(2).rest(), "");
    assert_eq!(listening.denied(Reason::PeerConnections), 1);
    open.extend((16..64).map(|number| connect(2 + number / 16)));
    assert_eq!(connect(9).rest(), "");
    assert_eq!(listening.denied(Reason::Connections), 1);
    assert_eq!(open[63].get("/healthz").status, 200);
    drop(open.pop());
    eventually("a place is free", || {
        let mut client = connect(9);
        let request = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n";
        client.0.write_all(request).is_ok() && client.rest_begins_with_ok()
    });
}

impl Client {
    fn rest_begins_with_ok(&mut self) -> bool {
        let mut start = [0; 15];
        self.0.read_exact(&mut start).is_ok() && start == *b"HTTP/1.1 200 OK"
    }
}

#[test]
fn a_client_that_leaves_mid_profile_frees_its_place_however_it_leaves() {
    type Leave = fn(Client);
    let leave: [(&str, Leave); 5] = [
        ("close", |client| drop(client)),
        ("half-close", |client| {
            client.0.shutdown(Shutdown::Write).unwrap()
        }),
        ("reset", reset),
        ("half-close after a next request", |mut client| {
            client.send("GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\nGET");
            client.0.shutdown(Shutdown::Write).unwrap();
        }),
        ("reset after a next request", |mut client| {
            client.send("GET /heal");
            reset(client);
        }),
    ];
    let listening = Listening::start(&silent(), patient());
    let waiting = || listening.plane.store.cpu.waiting();
    for (how, leave) in leave {
        let mut client = listening.connect();
        client.send(WAIT);
        eventually("the wish is there", || waiting() == 1);
        leave(client);
        eventually(how, || waiting() == 0);
        assert_eq!(listening.get("/healthz").status, 200, "{how}");
    }
}

fn reset(client: Client) {
    let runtime = Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        client.0.set_nonblocking(true).unwrap();
        let stream = tokio::net::TcpStream::from_std(client.0).unwrap();
        stream.set_zero_linger().unwrap();
    });
}

#[test]
fn a_request_sent_before_the_last_answer_is_answered_after_it() {
    let plane = silent();
    let listening = Listening::start(&plane, patient());
    let mut client = listening.connect();
    client.send(WAIT);
    eventually("the wish is there", || plane.store.cpu.waiting() == 1);
    client.send("GET /healthz HTTP/1.1\r\nHost: local");
    client.send("host\r\n\r\nGET /readyz HTTP/1.1\r\nHost: localhost\r\n\r\n");
    // A second connection's answer shows that the listener has seen the bytes before.
    assert_eq!(listening.get("/healthz").status, 200);
    for (id, _) in plane.store.cpu.open() {
        plane
            .store
            .cpu
            .answer(id, Ok(Arc::new(profile("shop::work"))));
    }
    assert_eq!(client.answer().status, 200);
    assert_eq!(client.answer().body, b"ok\n");
    assert_eq!(client.answer().status, 200);
}

#[test]
fn a_client_that_floods_behind_its_request_is_cut() {
    let listening = Listening::start(&silent(), patient());
    let mut client = listening.connect();
    client.send(WAIT);
    let waiting = || listening.plane.store.cpu.waiting();
    eventually("the wish is there", || waiting() == 1);
    while client.0.write_all(&[b'x'; 4096]).is_ok() {}
    eventually("the wish is gone", || waiting() == 0);
    assert_eq!(listening.denied(Reason::Malformed), 1);
}

#[test]
fn two_profiles_at_once_both_succeed_and_the_ninth_reader_is_told_the_limit() {
    let plane = silent();
    let listening = Listening::start(&plane, patient());
    let mut readers: Vec<Client> = (0..config::PROFILE_READERS)
        .map(|_| {
            let mut client = listening.connect();
            client.send(WAIT);
            client
        })
        .collect();
    eventually("eight wait", || plane.store.cpu.waiting() == 8);
    let ninth = listening.get("/debug/pprof/profile?seconds=1");
    assert_eq!(ninth.status, 429);
    assert_eq!(ninth.body, b"profile readers at limit 8\n");
    assert_eq!(value(&ninth.head, "retry-after"), Some("1"));
    assert_eq!(value(&ninth.head, "x-go-pprof"), Some("1"));
    for (id, _) in plane.store.cpu.open() {
        plane
            .store
            .cpu
            .answer(id, Ok(Arc::new(profile("shop::work"))));
    }
    for reader in &mut readers {
        assert_eq!(reader.answer().status, 200);
    }
}

#[test]
fn heads_targets_and_bodies_over_their_limits_are_refused_and_the_connection_ends() {
    let listening = Listening::start(&silent(), patient());
    let get = |target: &str, lines: &str| {
        listening.exchange(&format!(
            "GET {target} HTTP/1.1\r\nHost: localhost\r\n{lines}\r\n"
        ))
    };
    let post = |lines: &str, body: &str| {
        let head = "POST /debug/pprof/symbol HTTP/1.1\r\nHost: localhost\r\n";
        listening.exchange(&format!("{head}{lines}\r\n{body}"))
    };
    let many: String = (0..config::HEADERS)
        .map(|n| format!("X-{n}: 1\r\n"))
        .collect();
    let wide = format!("X: {}\r\n", "a".repeat(config::HEAD_BYTES));
    let chunk = format!("ffff\r\n{}\r\n", "a".repeat(0xffff));
    let rows = [
        (
            "431 Request Header Fields Too Large",
            get("/healthz", &wide),
            Reason::HeadSize,
            1,
        ),
        (
            "431 Request Header Fields Too Large",
            get("/healthz", &many),
            Reason::HeadSize,
            2,
        ),
        (
            "414 URI Too Long",
            get(&format!("/{}", "a".repeat(config::URI_BYTES)), ""),
            Reason::UriSize,
            1,
        ),
        (
            "413 Payload Too Large",
            post("Content-Length: 65537\r\n", ""),
            Reason::BodySize,
            1,
        ),
        (
            "413 Payload Too Large",
            post("Transfer-Encoding: chunked\r\n", &chunk.repeat(4)),
            Reason::BodySize,
            2,
        ),
    ];
    for (status, seen, reason, count) in rows {
        assert!(
            seen.starts_with(&format!("HTTP/1.1 {status}\r\n")),
            "{status}: {seen}"
        );
        let head = seen.to_ascii_lowercase();
        assert!(head.contains("\r\nconnection: close\r\n"), "{seen}");
        eventually(status, || listening.denied(reason) >= count);
    }
    assert_eq!(listening.denied(Reason::HeadSize), 2);
    let fits: String = (1..config::HEADERS)
        .map(|n| format!("X-{n}: 1\r\n"))
        .collect();
    let fits = get(
        "/healthz",
        &format!("{fits}\r\n")
            .replace("X-63: 1\r\n", "Connection: close\r\n")
            .replace("\r\n\r\n", "\r\n"),
    );
    assert!(fits.starts_with("HTTP/1.1 200 OK"), "{fits}");
}

#[test]
fn a_client_that_goes_on_sending_after_its_413_is_not_reset() {
    let listening = Listening::start(&silent(), patient());
    let mut client = listening.connect();
    client.send("POST /debug/pprof/symbol HTTP/1.1\r\nHost: localhost\r\n");
    client.send("Content-Length: 200000\r\n\r\n");
    assert_eq!(client.answer().status, 413);
    assert_eq!(client.rest(), "", "no further answer will come");
    for sent in 0..100 {
        let more = client.0.write_all(&[b'a'; 1000]);
        assert!(more.is_ok(), "{more:?} after {sent} KB");
        thread::yield_now();
    }
}

#[test]
fn what_is_not_http_1_ends_without_harm() {
    let listening = Listening::start(&silent(), patient());
    let preface = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    assert_eq!(listening.exchange(preface), "");
    let version = listening.exchange("GET /healthz HTTP/2.0\r\nHost: localhost\r\n\r\n");
    assert!(
        version.starts_with("HTTP/1.1 400 Bad Request\r\n"),
        "{version}"
    );
    let garbage = listening.exchange("\u{16}\u{3}\u{1} hello\r\n\r\n");
    assert!(
        garbage.starts_with("HTTP/1.1 400 Bad Request\r\n"),
        "{garbage}"
    );
    let smuggled = "POST /debug/pprof/symbol HTTP/1.1\r\nHost: localhost\r\n\
                    Content-Length: 1\r\nContent-Length: 2\r\n\r\n";
    let smuggled = listening.exchange(smuggled);
    assert!(
        smuggled.starts_with("HTTP/1.1 400 Bad Request\r\n"),
        "{smuggled}"
    );
    eventually("all are counted", || {
        listening.denied(Reason::Malformed) == 4
    });
    for line in [
        "OPTIONS *",
        "CONNECT localhost:1",
        "GET http://localhost/healthz",
    ] {
        let request = format!("{line} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
        let answer = listening.exchange(&request);
        assert!(answer.starts_with("HTTP/1.1 "), "{line}: {answer}");
        let status = if line.starts_with("GET") {
            "200 OK"
        } else {
            "40"
        };
        assert!(
            answer.starts_with(&format!("HTTP/1.1 {status}")),
            "{line}: {answer}"
        );
    }
    assert_eq!(listening.get("/healthz").status, 200);
}

#[test]
fn heads_of_strangers_and_foreign_pages_are_refused() {
    let listening = Listening::start(&silent(), patient());
    let ask = |line: &str, headers: &str| {
        let mut client = listening.connect();
        client.send(&format!("{line} HTTP/1.1\r\n{headers}\r\n"));
        let answer = client.answer();
        let body = String::from_utf8(answer.body).unwrap();
        let problem: serde_json::Value = serde_json::from_str(&body).unwrap();
        (
            answer.status,
            problem["detail"].as_str().unwrap().to_owned(),
        )
    };
    let rows = [
        (
            "GET /targets",
            "Host: evil.example\r\n",
            403,
            "host not allowed",
        ),
        (
            "GET /targets",
            "Host: 127.0.0.2\r\n",
            403,
            "host not allowed",
        ),
        ("GET /targets", "", 400, "one Host header required"),
        (
            "GET /targets",
            "Host: localhost\r\nHost: localhost\r\n",
            400,
            "one Host header required",
        ),
        (
            "GET /targets",
            "Host: localhost\r\nOrigin: http://evil.example\r\n",
            403,
            "cross-site request refused",
        ),
        (
            "POST /targets",
            "Host: localhost\r\n",
            405,
            "method GET required",
        ),
        (
            "GET /nope",
            "Host: localhost\r\n",
            404,
            "no such endpoint; / lists them",
        ),
    ];
    for (line, headers, status, text) in rows {
        assert_eq!(
            ask(line, headers),
            (status, text.to_owned()),
            "{line} {headers}"
        );
    }
    let own = format!("Host: {}\r\n", listening.address);
    let mut client = listening.connect();
    client.send(&format!("GET /targets HTTP/1.1\r\n{own}\r\n"));
    assert_eq!(client.answer().status, 200, "our own address");
}

#[test]
fn the_rate_limit_holds_over_a_kept_connection_and_spares_probes() {
    let listening = Listening::start(&silent(), patient());
    let mut client = listening.connect();
    let refused = (0..200)
        .map(|_| client.get("/targets"))
        .find(|answer| answer.status != 200)
        .unwrap();
    assert_eq!(refused.status, 429);
    assert_eq!(value(&refused.head, "retry-after"), Some("1"));
    assert!(String::from_utf8_lossy(&refused.body).contains("rate limit 20/s"));
    assert_eq!(client.get("/healthz").status, 200);
}

#[test]
fn a_panic_is_500_and_the_same_connection_goes_on() {
    let listening = Listening::start(&silent(), patient());
    let mut client = listening.connect();
    let answer = client.get("/targets?panic");
    assert_eq!(answer.status, 500);
    assert!(String::from_utf8_lossy(&answer.body).contains("internal error"));
    assert_eq!(client.get("/targets").status, 200);
}

/// Far more than the kernel buffers for a connection.
const BIG: usize = 12 << 20;

#[test]
fn a_client_that_does_not_take_its_answer_is_cut_and_the_buffer_freed() {
    let name = "a".repeat(BIG);
    let served = served_by(silent(), move |_| Ok(Arc::new(profile(&name))));
    let limits = Limits {
        write_progress: SHORT,
        ..patient()
    };
    let listening = Listening::start(&served.plane, limits);
    let target = "/debug/pprof/profile?seconds=1&format=folded";
    let stuck: Vec<Client> = (0..config::LARGE_BODIES)
        .map(|_| {
            let mut client = listening.connect();
            client.send(&format!("GET {target} HTTP/1.1\r\nHost: localhost\r\n\r\n"));
            assert!(client.head().starts_with("HTTP/1.1 200 OK"));
            client
        })
        .collect();
    eventually("both are cut", || listening.denied(Reason::SlowReader) == 2);
    let whole = listening.get(target);
    assert_eq!(whole.status, 200);
    assert!(whole.body.len() > BIG, "a reader that reads gets all");
    for mut client in stuck {
        assert!(client.rest().len() < BIG);
    }
}

#[test]
fn a_scrape_is_not_late_when_nobody_collects() {
    let listening = Listening::start(&silent(), patient());
    let page = listening.get("/metrics");
    assert_eq!(page.status, 200);
    assert_eq!(listening.plane.store.refresh.waiting(), 0);
}

#[test]
fn a_stop_ends_idle_connections_and_lets_an_answer_under_way_finish() {
    let plane = silent();
    let mut listening = Listening::start(&plane, patient());
    let mut idle = listening.connect();
    assert_eq!(idle.get("/healthz").status, 200);
    let mut silent = listening.connect();
    let mut reader = listening.connect();
    reader.send(WAIT);
    eventually("the wish is there", || plane.store.cpu.waiting() == 1);
    listening.stop.send_replace(Some(LONG));
    assert_eq!(idle.rest(), "");
    assert_eq!(silent.rest(), "");
    for (id, _) in plane.store.cpu.open() {
        plane
            .store
            .cpu
            .answer(id, Ok(Arc::new(profile("shop::work"))));
    }
    assert_eq!(reader.answer().status, 200);
    listening.thread.take().unwrap().join().unwrap();
    listening.thread = Some(thread::spawn(|| {}));
}

#[test]
fn a_stop_cuts_what_is_open_when_its_time_is_up() {
    let plane = silent();
    let mut listening = Listening::start(&plane, patient());
    let mut reader = listening.connect();
    reader.send(WAIT);
    eventually("the wish is there", || plane.store.cpu.waiting() == 1);
    listening.stop.send_replace(Some(SHORT));
    assert_eq!(reader.rest(), "");
    listening.thread.take().unwrap().join().unwrap();
    assert_eq!(plane.store.cpu.waiting(), 0);
    listening.thread = Some(thread::spawn(|| {}));
}

async fn through<S, B>(service: S, uri: &str, host: Option<&str>) -> (u16, String)
where
    S: tower::Service<
            http::Request<http_body_util::Full<bytes::Bytes>>,
            Response = http::Response<B>,
        >,
    S::Error: std::fmt::Debug,
    B: http_body::Body,
    B::Error: std::fmt::Debug,
{
    let mut request = http::Request::builder().uri(uri);
    if let Some(host) = host {
        request = request.header("host", host);
    }
    let request = request.body(http_body_util::Full::default()).unwrap();
    let response = tower::ServiceExt::oneshot(service, request).await.unwrap();
    let status = response.status().as_u16();
    let body = http_body_util::BodyExt::collect(response.into_body())
        .await
        .unwrap();
    (
        status,
        String::from_utf8_lossy(&body.to_bytes()).into_owned(),
    )
}

#[tokio::test]
async fn mounted_in_axum_and_warp_the_same_checks_run_below_the_prefix() {
    let plane = silent();
    let service: AgentService = endpoints(&plane);
    let axum: axum::Router = axum::Router::new()
        .nest_service("/agent", service.clone())
        .fallback_service(service.clone());
    let below = warp::Filter::and(warp::path("agent"), service.filter());
    let below = warp::service(below);
    let host = Some("localhost");
    for target in ["/agent/healthz", "/healthz"] {
        assert_eq!(
            through(axum.clone(), target, host).await,
            (200, "ok\n".to_owned())
        );
    }
    assert_eq!(
        through(below.clone(), "/agent/healthz", host).await,
        (200, "ok\n".to_owned())
    );
    assert_eq!(
        through(below.clone(), "/agent/debug/pprof/nope?x=1", host)
            .await
            .0,
        404
    );
    for stranger in [Some("evil.example"), None] {
        let (refused, _) = through(axum.clone(), "/agent/targets", stranger).await;
        assert_eq!(refused, if stranger.is_some() { 403 } else { 400 });
        assert_eq!(
            through(below.clone(), "/agent/targets", stranger).await.0,
            refused
        );
    }
    // HTTP/2 has no Host; its authority stands for it.
    assert_eq!(
        through(service.clone(), "http://localhost/targets", None)
            .await
            .0,
        200
    );
    assert_eq!(
        through(service, "http://evil.example/targets", None)
            .await
            .0,
        403
    );
}

#[tokio::test]
async fn a_host_that_says_who_is_connected_is_answered_at_that_address_only() {
    let service = endpoints(&silent());
    let connected = Connected {
        peer: "10.0.0.9:4000".parse().unwrap(),
        local: "10.0.0.7:80".parse().ok(),
    };
    for (host, status) in [("10.0.0.7", 200), ("10.0.0.8", 403)] {
        let request = http::Request::builder()
            .uri("/targets")
            .header("host", host)
            .extension(connected)
            .body(http_body_util::Empty::<bytes::Bytes>::new())
            .unwrap();
        let response = tower::ServiceExt::oneshot(service.clone(), request)
            .await
            .unwrap();
        assert_eq!(response.status().as_u16(), status, "{host}");
    }
}
