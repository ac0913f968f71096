//! The fault catalogue against the agent's numbers: nothing at first, each fault its own signal, and
//! nothing again when it is off.
//!
//! A busy machine is slow by itself for a while, which some of the signals show as well. So what must hold is
//! that a round comes which shows just what it should: the first one as a rule.

use std::collections::BTreeSet;
use std::ops::Range;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use streamgate::settings::Settings;
use streamgate_agent as agent;
use tokio::net::TcpStream;

use crate::support::{
    Service, admin, content, eventually, http2_get, service_with, user, with_admin,
};

/// Contents, of which each round asks for [`OWN`] that no earlier one has: 400 rounds.
const CONTENTS: u32 = 2_000;
const OWN: u64 = 5;

/// Longest time until a round shows what it should.
const SHOWN: Duration = Duration::from_secs(60);

/// What a person would see move.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Signal {
    QueriesPerRequest,
    PoolTimeouts,
    PoolUse,
    RowsPerStatement,
    HitRatio,
    LoadsPerKey,
    RawAgainstSent,
    RequestsPerConnection,
    ScheduleDelay,
    Errors,
    Latency,
}

use Signal::*;

/// Settings, the signal each must move, and what may follow from it.
const MATRIX: &[(&[&str], &[Signal], &[Signal])] = &[
    (&["nplus1"], &[QueriesPerRequest], &[]),
    // Whoever waits for a connection is answered late.
    (&["hold_conn=300ms"], &[PoolUse], &[Latency]),
    // Who waits for one of the places gives up after 500 ms and is answered 503.
    (
        &["pool_max=1", "hold_conn=600ms"],
        &[PoolUse, PoolTimeouts],
        &[Latency, Errors],
    ),
    (&["single_writes"], &[RowsPerStatement], &[]),
    // What readers void while others load it is loaded again.
    (&["l1_off"], &[HitRatio], &[LoadsPerKey]),
    // A load that takes a while is made again by all who ask meanwhile, as far as there are connections.
    (
        &["singleflight_off", "hold_conn=100ms"],
        &[LoadsPerKey],
        &[PoolTimeouts, Latency, Errors],
    ),
    (&["gzip_off"], &[RawAgainstSent], &[]),
    (&["conn_close"], &[RequestsPerConnection], &[]),
    // Whoever is not polled answers late.
    (
        &["block_worker=200ms"],
        &[ScheduleDelay],
        &[Latency, PoolUse, PoolTimeouts, Errors],
    ),
    (&["error_rate=100%"], &[Errors], &[]),
    (&["latency=+400ms"], &[Latency], &[]),
];

/// The numbers of one scrape.
struct Page(String);

impl Page {
    fn sum(&self, name: &str, labels: &[&str]) -> f64 {
        let lines = self.0.lines().filter(|line| {
            let rest = line.strip_prefix(name);
            rest.is_some_and(|rest| rest.starts_with(['{', ' ']))
                && labels.iter().all(|label| line.contains(label))
        });
        lines
            .map(|line| line.rsplit(' ').next().unwrap().parse::<f64>().unwrap())
            .sum()
    }
}

/// Asks for the same thing three times over one connection, or as many as it takes.
async fn three_times_over_one_connection(service: &Service, path: &str) {
    let mut client = None;
    for _ in 0..3 {
        let mut sender = match client.take() {
            Some(sender) => sender,
            None => {
                let stream = TcpStream::connect(service.running.public).await.unwrap();
                let (sender, connection) = http1::handshake(TokioIo::new(stream)).await.unwrap();
                tokio::spawn(connection);
                sender
            }
        };
        let request = Request::builder().uri(path).header("host", "localhost");
        let request = request.body(Full::new(Bytes::new())).unwrap();
        let answer = sender.send_request(request).await.unwrap();
        let close = answer.headers().contains_key("connection");
        answer.into_body().collect().await.unwrap();
        client = (!close && sender.ready().await.is_ok()).then_some(sender);
    }
}

/// A little of everything, for keys that no earlier round has touched.
async fn work(service: &Service, round: u64) {
    let own = |n: u64| format!("/v1/content/{}", content(round * OWN + n));
    // Many at once for one key that nobody has asked for, then again when it is there.
    let first = own(0);
    http2_get(service.running.public, &vec![first.as_str(); 50]).await;
    three_times_over_one_connection(service, &first).await;
    // Three at once for different keys: fewer than there are connections.
    let different = [own(1), own(2), own(3)];
    let different: Vec<&str> = different.iter().map(String::as_str).collect();
    http2_get(service.running.public, &different).await;
    // Each round's batch voids it.
    let page = format!("/v1/content?limit={}", 50 + round % 50);
    let gzip = [("accept-encoding", "gzip")];
    service.get_with(&page, &gzip).await;
    let item = format!(r#"{{"user_id":"{}","title":"x"}}"#, user(0));
    let batch = format!(r#"{{"items":[{}]}}"#, vec![item; 5].join(","));
    service.post("/v1/content:batch", &batch).await;
}

/// Works once and says which signals lie beyond what a healthy service shows.
async fn signals(service: &Service, round: u64) -> BTreeSet<Signal> {
    let before = Page(service.metrics().await);
    work(service, round).await;
    // A connection is counted when it has ended.
    eventually("all connections have ended", || async {
        service.metric("http_server_open_connections", &[]).await < 0.5
    })
    .await;
    let after = Page(service.metrics().await);
    let moved = |name: &str, labels: &[&str]| after.sum(name, labels) - before.sum(name, labels);
    let mean = |name: &str, labels: &[&str]| {
        let count = moved(&format!("{name}_count"), labels);
        (count > 0.5).then(|| moved(&format!("{name}_sum"), labels) / count)
    };
    let detail = ["http_route=\"/v1/content/{id}\""];
    let readers = ["pool_name=\"readers\""];
    let contents = ["cache_name=\"content\""];
    let result = |word| moved("cache_requests_total", &[contents[0], word]);
    let raw = moved("streamgate_response_bytes_total", &["raw"]);
    let sent = moved("streamgate_response_bytes_total", &["sent"]);
    let page = ["http_route=\"/v1/content\"", "status_code=\"200\""];
    let pages = moved("http_server_request_duration_seconds_count", &page);
    let delay = "tokio_schedule_delay_seconds";
    let late =
        moved(&format!("{delay}_count"), &[]) - moved(&format!("{delay}_bucket"), &["le=\"0.1\""]);
    // Three cold readers may miss, and all who ask for the first key before it is there.
    let asked_later = 3.0;
    let loads = moved("cache_loads_total", &contents);
    let seen = [
        (
            QueriesPerRequest,
            mean("db_queries_per_request", &["http_route=\"/v1/content\""])
                .is_some_and(|mean| mean > 2.0),
        ),
        (
            PoolTimeouts,
            moved("db_client_connection_timeouts_total", &readers) > 0.5,
        ),
        (
            PoolUse,
            mean("db_client_connection_use_time_seconds", &readers).is_some_and(|mean| mean > 0.29),
        ),
        (
            RowsPerStatement,
            mean(
                "db_client_response_returned_rows",
                &["db_query_summary=\"INSERT content batch\""],
            )
            .is_some_and(|mean| mean < 4.5),
        ),
        (
            HitRatio,
            result("\"hit\"") < asked_later - 0.5 && result("\"miss\"") > 0.5,
        ),
        // One for each of four keys, and one each time for who asks again where nothing is kept.
        (LoadsPerKey, loads > 8.5),
        (RawAgainstSent, pages > 0.5 && raw - sent < 5_000.0),
        (
            RequestsPerConnection,
            mean("http_server_requests_per_connection", &["version=\"1.1\""])
                .is_some_and(|mean| mean < 1.1),
        ),
        (ScheduleDelay, late > 0.5),
        (
            Errors,
            moved(
                "http_server_request_duration_seconds_count",
                &["status_code=\"5"],
            ) > 0.5,
        ),
        (
            Latency,
            mean("http_server_request_duration_seconds", &detail).is_some_and(|mean| mean > 0.39),
        ),
    ];
    let seen = seen.into_iter().filter(|(_, moved)| *moved);
    seen.map(|(signal, _)| signal).collect()
}

async fn switch(service: &Service, what: &str, settings: &[&str]) {
    let names: Vec<&str> = settings
        .iter()
        .map(|setting| match what {
            "off" => setting.split('=').next().unwrap(),
            _ => setting,
        })
        .collect();
    let body = serde_json::json!({ what: names }).to_string();
    let answer = admin(service, None, Some(&body)).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
}

/// Works until a round shows all that it must and nothing that it may not.
async fn shown(
    service: &Service,
    rounds: &mut Range<u64>,
    when: &str,
    must: &[Signal],
    may: &[Signal],
) {
    let wanted: BTreeSet<Signal> = must.iter().copied().collect();
    let deadline = Instant::now() + SHOWN;
    loop {
        let mut seen = signals(service, rounds.next().unwrap()).await;
        seen.retain(|signal| must.contains(signal) || !may.contains(signal));
        if seen == wanted {
            return;
        }
        assert!(
            Instant::now() < deadline,
            "{when}: {seen:?}, not {wanted:?}"
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_fault_moves_its_signal_and_recovery_closes_it() {
    let service = service_with(Settings {
        contents: CONTENTS,
        ..with_admin()
    })
    .await;
    let mut rounds = 0..u64::from(CONTENTS) / OWN;
    shown(&service, &mut rounds, "no fault", &[], &[]).await;
    for (settings, must, may) in MATRIX {
        switch(&service, "on", settings).await;
        shown(&service, &mut rounds, &format!("{settings:?}"), must, may).await;
        switch(&service, "off", settings).await;
        let after = format!("after {settings:?}");
        shown(&service, &mut rounds, &after, &[], &[]).await;
    }
    profiles_name_it(&service).await;
}

/// Asks again and again until a profile holds a function's name, or no longer does.
async fn until_profile(service: &Service, path: &str, function: &str, holds: bool) {
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        let request = agent::Request::new("GET", path).header("host", "localhost");
        let reply = service.running.agent.respond(request).await;
        let text = String::from_utf8_lossy(reply.body()).into_owned();
        // 503: a busy machine has not made it within the time that the agent gives it.
        assert!([200, 503].contains(&reply.status()), "{text}");
        if reply.status() == 200 && text.contains(function) == holds {
            return;
        }
        assert!(
            Instant::now() < deadline,
            "{function} in {path}: never {holds}"
        );
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// The profiles name what burns and what leaks.
async fn profiles_name_it(service: &Service) {
    for (setting, path, function) in [
        (
            "cpu_burn",
            "/debug/pprof/profile?ago=1&seconds=1&format=folded",
            "burn_cpu",
        ),
        (
            // A quarter of a GiB at most, however long it takes until it is seen.
            "leak=4MiB/s",
            "/debug/pprof/heap?format=folded",
            "leak_a_block",
        ),
    ] {
        until_profile(service, path, function, false).await;
        switch(service, "on", &[setting]).await;
        until_profile(service, path, function, true).await;
        switch(service, "off", &[setting]).await;
        until_profile(service, path, function, false).await;
    }
}
