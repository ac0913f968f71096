//! Whatever a client sends, a mistake of his is 4xx with a problem and never 5xx.
//!
//! Guide 9. Requests are drawn at random out of parts that are nearly right: a route, an id, a query, headers
//! and a body, each of them broken in one of its ways.

use std::net::SocketAddr;

use http::StatusCode;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestCaseError, TestRunner};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::support::{content, service, user};

/// Requests of one run: 4 000 take 5 s of a debug build.
const CASES: u32 = 2_000;

/// A request as bytes, so that it may hold what a client library would refuse to send.
#[derive(Clone, Debug)]
struct Raw {
    method: &'static str,
    target: String,
    headers: Vec<String>,
    body: Vec<u8>,
}

impl Raw {
    fn bytes(&self) -> Vec<u8> {
        let mut head = format!("{} {} HTTP/1.1\r\nhost: a\r\n", self.method, self.target);
        for header in &self.headers {
            head.push_str(header);
            head.push_str("\r\n");
        }
        head.push_str(&format!("content-length: {}\r\n", self.body.len()));
        head.push_str("connection: close\r\n\r\n");
        [head.as_bytes(), &self.body].concat()
    }
}

fn id() -> impl Strategy<Value = String> {
    prop_oneof![
        3 => (0_u64..8).prop_map(content),
        1 => (0_u64..8).prop_map(user),
        1 => Just("00000000-0000-7000-8000-000000000000".to_owned()),
        1 => prop::sample::select(vec![
            "..", ".", "%2e%2e", "%2e%2e%2fetc%2fpasswd", "..%5c..", "%00", "%ff%fe", "%", "%zz", "*",
            "'%20OR%201=1--", "1", "-1", "null", "{id}", "content:batch", "%F0%9F%92%A9", ";", "a%0d%0ab",
        ])
        .prop_map(str::to_owned),
        1 => "[!-~]{1,40}".prop_map(|text| text.replace(['#', ' ', '?'], "_")),
    ]
}

fn target() -> impl Strategy<Value = String> {
    let path = prop_oneof![
        id().prop_map(|id| format!("/v1/content/{id}")),
        id().prop_map(|id| format!("/v1/users/{id}")),
        id().prop_map(|id| format!("/v1/streams/{id}/manifest.m3u8")),
        (id(), value()).prop_map(|(id, n)| format!("/v1/streams/{id}/segments/{n}")),
        (id(), id()).prop_map(|(a, b)| format!("/v1/content/{a}/{b}")),
        prop::sample::select(vec![
            "/",
            "//",
            "/v1",
            "/v1/content",
            "/v1/content/",
            "/v1//content",
            "/v1/content:batch",
            "/v1/nft",
            "/v1/nft/verify",
            "/v1/transactions",
            "/v1/../v1/content",
            "/v1/%63ontent",
            "/V1/content",
            "/.git/config",
            "/v1/content/../../etc/passwd",
            "*",
        ])
        .prop_map(str::to_owned),
    ];
    (path, prop::option::of(query())).prop_map(|(path, query)| match query {
        Some(query) => format!("{path}?{query}"),
        None => path,
    })
}

fn value() -> impl Strategy<Value = String> {
    prop_oneof![
        prop::sample::select(vec![
            "0",
            "-1",
            "1",
            "20",
            "100",
            "101",
            "1000000000",
            "99999999999999999999",
            "-9223372036854775808",
            "9223372036854775807",
            "1e9",
            "0x10",
            "1.5",
            "NaN",
            "",
            "%20",
            "+5",
            "%00",
            "%ff",
            "null",
            "true",
            "[]",
            "ready",
            "draft",
            "gone",
            "id",
            "id,title",
            "id,,title",
            "lease_owner",
            "archive_state",
            "nfts",
            "body",
            "storage",
            "AAAA",
            "AQ==",
            "%E2%80%AE",
            "..",
        ])
        .prop_map(str::to_owned),
        (0_u64..4).prop_map(user),
        // As long as a cursor and signed by nobody.
        "[A-Za-z0-9_-]{66}",
        "[a-z0-9]{200,300}",
    ]
}

fn query() -> impl Strategy<Value = String> {
    let name = prop::sample::select(vec![
        "limit", "cursor", "fields", "expand", "user_id", "status", "owner", "contract",
        "token_id", "from", "to", "token", "limits", "", "Limit", "%6cimit",
    ]);
    let pair = (name, value()).prop_map(|(name, value)| format!("{name}={value}"));
    let odd = prop::sample::select(vec!["&&&", "=", "limit", "a=b=c", "%", "limit=1;limit=2"]);
    prop_oneof![
        8 => prop::collection::vec(pair, 0..4).prop_map(|pairs| pairs.join("&")),
        1 => odd.prop_map(str::to_owned),
    ]
}

fn headers() -> impl Strategy<Value = Vec<String>> {
    let header = prop::sample::select(vec![
        "content-type: application/json",
        "content-type: application/json",
        "content-type: application/json; charset=latin1",
        "content-type: text/plain",
        "content-type: ;;;",
        "content-encoding: gzip",
        "content-encoding: br",
        "content-encoding: identity",
        "content-encoding: gzip, gzip",
        "accept: application/x-protobuf",
        "accept: application/x-protobuf;q=abc",
        "accept: */*;q=-1",
        "accept: ,,,;;q",
        "accept-encoding: *;q=0",
        "accept-encoding: gzip;q=2",
        "if-match: *",
        "if-match: \"1-x\"",
        "if-match: W/\"1-x\"",
        "if-match: \"",
        "if-none-match: \"\"",
        "if-none-match: \\",
        "range: bytes=0-0",
        "range: bytes=999999999-",
        "range: bytes=-0",
        "range: bytes=9-1,",
        "range: =",
        "if-range: x",
        "idempotency-key: a",
        "idempotency-key: ",
        "authorization: Bearer x",
        "authorization: \u{e9}",
        "traceparent: 00-0-0-0",
        "expect: 100-continue",
    ]);
    prop::collection::vec(header.prop_map(str::to_owned), 0..5)
}

/// JSON that is nearly a content, a batch or a question to the gate.
fn body() -> impl Strategy<Value = Vec<u8>> {
    let scalar = prop_oneof![
        Just("null".to_owned()),
        Just("true".to_owned()),
        Just("-1".to_owned()),
        Just("1e400".to_owned()),
        Just("\"\"".to_owned()),
        Just("\"\\u0000\"".to_owned()),
        Just("\"\\ud800\"".to_owned()),
        Just("[]".to_owned()),
        Just("{}".to_owned()),
        Just("\"ready\"".to_owned()),
        (0_u64..4).prop_map(|n| format!("\"{}\"", user(n))),
        (0_u64..4).prop_map(|n| format!("\"{}\"", content(n))),
        (1_usize..70_000).prop_map(|n| format!("\"{}\"", "x".repeat(n))),
        (1_usize..200).prop_map(|n| format!("{}{}", "[".repeat(n), "]".repeat(n))),
    ];
    let name = prop::sample::select(vec![
        "id",
        "user_id",
        "title",
        "description",
        "status",
        "kind",
        "visibility",
        "body",
        "metadata",
        "items",
        "content_id",
        "wallet_address",
        "lease_owner",
        "version",
        "",
    ]);
    let object = prop::collection::vec((name, scalar), 0..5).prop_map(|fields| {
        let fields = fields
            .iter()
            .map(|(name, value)| format!("\"{name}\":{value}"));
        format!("{{{}}}", fields.collect::<Vec<_>>().join(","))
    });
    prop_oneof![
        4 => object.clone().prop_map(String::into_bytes),
        2 => prop::collection::vec(object, 0..3)
            .prop_map(|items| format!("{{\"items\":[{}]}}", items.join(",")).into_bytes()),
        1 => prop::collection::vec(any::<u8>(), 0..64),
        1 => Just(vec![b' '; 70_000]),
        1 => Just(vec![0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 0xff]),
        1 => Just(Vec::new()),
    ]
}

fn raw() -> impl Strategy<Value = Raw> {
    let method = prop::sample::select(vec![
        "GET", "GET", "GET", "HEAD", "POST", "POST", "PATCH", "DELETE", "PUT", "OPTIONS", "TRACE",
        "BREW",
    ]);
    (method, target(), headers(), body()).prop_map(|(method, target, headers, body)| Raw {
        method,
        target,
        headers,
        body,
    })
}

/// Status, head and body of the one answer.
async fn ask(to: SocketAddr, raw: &Raw) -> (StatusCode, String, String) {
    let mut stream = TcpStream::connect(to).await.unwrap();
    let (mut reading, mut writing) = stream.split();
    let bytes = raw.bytes();
    let mut answer = Vec::new();
    // At the same time: a server that refuses early answers before it has read all. What it did not read it
    // may reset, which takes nothing from what it has said.
    let write = async { drop(writing.write_all(&bytes).await) };
    let read = async { drop(reading.read_to_end(&mut answer).await) };
    tokio::join!(write, read);
    let answer = String::from_utf8_lossy(&answer).into_owned();
    // An answer to `expect` may come before the one that counts.
    let answer = answer
        .strip_prefix("HTTP/1.1 100 Continue\r\n\r\n")
        .unwrap_or(&answer);
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((answer, ""));
    let status = head.split(' ').nth(1).and_then(|code| code.parse().ok());
    (
        status.unwrap_or_else(|| panic!("no answer to {raw:?}: {answer:?}")),
        head.to_owned(),
        body.to_owned(),
    )
}

fn judge(raw: &Raw, status: StatusCode, head: &str, body: &str) -> Result<(), TestCaseError> {
    prop_assert!(!status.is_server_error(), "{}: {:?}\n{}", status, raw, body);
    if !status.is_client_error() || raw.method == "HEAD" {
        return Ok(());
    }
    // What is no HTTP at all is refused below the service, in HTTP's own way.
    let by_hyper = body.is_empty() && [400, 414, 431].contains(&status.as_u16());
    if by_hyper {
        return Ok(());
    }
    let problem = head
        .to_ascii_lowercase()
        .contains("application/problem+json");
    prop_assert!(problem, "{}: {:?}\n{}", status, raw, head);
    let start = body.find('{').unwrap_or(0);
    let end = body.rfind('}').map_or(0, |at| at + 1);
    let document: serde_json::Value = serde_json::from_str(body.get(start..end).unwrap_or(""))
        .map_err(|error| TestCaseError::fail(format!("{error}: {raw:?}\n{body}")))?;
    prop_assert_eq!(
        document["status"].as_u64(),
        Some(u64::from(status.as_u16()))
    );
    for name in ["type", "title", "detail", "trace_id"] {
        prop_assert!(document[name].is_string(), "{}: {:?}", name, document);
    }
    for leak in ["SELECT", "sqlite", "panicked", "/src/"] {
        prop_assert!(!body.contains(leak), "{}: {:?}\n{}", leak, raw, body);
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_request_of_a_client_is_answered_5xx() {
    let service = service().await;
    let to = service.running.public;
    let runtime = tokio::runtime::Handle::current();
    let drawn = tokio::task::spawn_blocking(move || {
        let config = Config {
            cases: CASES,
            failure_persistence: None,
            max_shrink_iters: 200,
            ..Config::default()
        };
        TestRunner::new(config).run(&raw(), |raw| {
            let (status, head, body) = runtime.block_on(ask(to, &raw));
            judge(&raw, status, &head, &body)
        })
    });
    drawn
        .await
        .unwrap()
        .unwrap_or_else(|failed| panic!("{failed}"));
    assert_eq!(service.get("/v1/content?limit=1").await.status, 200);
    let failed = service.metric("http_server_request_duration_seconds_count", &["=\"5"]);
    assert!(failed.await < 0.5, "the agent counted an answer of 5xx");
}
