//! Limits, overload and the end of the process.

use std::io::Write as _;
use std::time::Duration;

use flate2::Compression;
use flate2::write::GzEncoder;
use http::Method;
use streamgate::settings::{Place, Settings};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::support::{Service, eventually, http2_connect, service, service_with, settings, user};

/// A POST whose head and half its body are sent.
struct HalfSent {
    stream: TcpStream,
    rest: Vec<u8>,
}

impl HalfSent {
    async fn to(service: &Service) -> Self {
        let body = format!(r#"{{"user_id":"{}","title":"slow"}}"#, user(0)).into_bytes();
        let head = format!(
            "POST /v1/content HTTP/1.1\r\nhost: a\r\ncontent-type: application/json\r\n\
             content-length: {}\r\n\r\n",
            body.len()
        );
        let mut stream = TcpStream::connect(service.running.public).await.unwrap();
        let (first, rest) = body.split_at(body.len() / 2);
        stream.write_all(head.as_bytes()).await.unwrap();
        stream.write_all(first).await.unwrap();
        eventually("the request is under way", || async {
            service
                .metric("http_server_active_requests", &["POST"])
                .await
                > 0.5
        })
        .await;
        Self {
            stream,
            rest: rest.to_vec(),
        }
    }

    async fn finish(mut self) -> String {
        self.stream.write_all(&self.rest).await.unwrap();
        let mut answer = Vec::new();
        let mut chunk = [0; 4_096];
        // To the end of the connection, or of the one answer.
        loop {
            let read = self.stream.read(&mut chunk).await.unwrap();
            answer.extend_from_slice(&chunk[..read]);
            let text = String::from_utf8_lossy(&answer);
            if read == 0 || text.contains("\r\n\r\n{") && text.ends_with('}') {
                return text.into_owned();
            }
        }
    }
}

#[tokio::test]
async fn an_oversized_body_is_413() {
    let service = service().await;
    let large = format!(
        r#"{{"user_id":"{}","title":"t","body":"{}"}}"#,
        user(0),
        "x".repeat(64 << 10)
    );
    let answer = service.post("/v1/content", &large).await;
    assert_eq!(answer.problem(), (413, "body-too-large".to_owned()));
    let headers = [
        ("content-type", "application/json"),
        ("transfer-encoding", "chunked"),
    ];
    let answer = service
        .send(Method::POST, "/v1/content", &headers, large)
        .await;
    assert_eq!(
        answer.problem(),
        (413, "body-too-large".to_owned()),
        "unannounced"
    );
}

#[tokio::test]
async fn a_gzip_bomb_is_413_and_honest_gzip_is_read() {
    let service = service().await;
    let gzip = |text: &str| {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
        encoder.write_all(text.as_bytes()).unwrap();
        encoder.finish().unwrap()
    };
    let headers = [
        ("content-type", "application/json"),
        ("content-encoding", "gzip"),
    ];
    let body = |filler: usize| {
        format!(
            r#"{{"user_id":"{}","title":"t","body":"{}"}}"#,
            user(0),
            "x".repeat(filler)
        )
    };
    let bomb = gzip(&body(8 << 20));
    assert!(bomb.len() < 64 << 10, "{}", bomb.len());
    let answer = service
        .send(Method::POST, "/v1/content", &headers, bomb)
        .await;
    assert_eq!(answer.problem().0, 413);
    let answer = service
        .send(Method::POST, "/v1/content", &headers, gzip(&body(1_000)))
        .await;
    assert_eq!(answer.status, 201);
    let answer = service
        .send(Method::POST, "/v1/content", &headers, body(10))
        .await;
    assert_eq!(answer.problem().0, 400, "announced as gzip and plain");
    let headers = [
        ("content-type", "application/json"),
        ("content-encoding", "br"),
    ];
    assert_eq!(
        service
            .send(Method::POST, "/v1/content", &headers, body(10))
            .await
            .problem()
            .0,
        415
    );
}

#[tokio::test]
async fn a_request_over_the_limit_is_shed() {
    let service = service_with(Settings {
        in_flight: 1,
        ..settings()
    })
    .await;
    let slow = HalfSent::to(&service).await;
    let shed = service.get("/v1/content").await;
    assert_eq!(shed.problem(), (503, "overloaded".to_owned()));
    assert_eq!(shed.header("retry-after"), "1");
    let count = service
        .metric("http_server_requests_shed_total", &["reason=\"queue\""])
        .await;
    assert!((count - 1.0).abs() < f64::EPSILON);
    assert!(slow.finish().await.starts_with("HTTP/1.1 201"));
    assert_eq!(
        service.get("/v1/content").await.status,
        200,
        "the place is free again"
    );
}

#[tokio::test]
async fn a_request_over_its_deadline_is_503() {
    let short = Settings {
        request_deadline: Duration::from_millis(200),
        ..settings()
    };
    let service = service_with(short).await;
    let slow = HalfSent::to(&service).await;
    let mut answer = String::new();
    let mut stream = slow.stream;
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(
        answer.starts_with("HTTP/1.1 503") && answer.contains("retry-after: 1"),
        "{answer}"
    );
}

#[tokio::test]
async fn a_busy_writer_answers_503_and_no_connection_is_lost() {
    let dir = tempfile::tempdir().unwrap();
    let database = dir.path().join("busy.db");
    let short = Duration::from_millis(1_500);
    let settings = Settings {
        database: Some(Place::File(database.clone())),
        query_deadline: short,
        ..settings()
    };
    let service = service_with(settings).await;
    let mut other = <sqlx::SqliteConnection as sqlx::Connection>::connect_with(
        &sqlx::sqlite::SqliteConnectOptions::new().filename(&database),
    )
    .await
    .unwrap();
    sqlx::query("BEGIN IMMEDIATE")
        .execute(&mut other)
        .await
        .unwrap();
    let body = format!(r#"{{"user_id":"{}","title":"t"}}"#, user(0));
    let (first, second) = tokio::join!(
        service.post("/v1/content", &body),
        service.post("/v1/content", &body)
    );
    let mut slugs = [first.problem(), second.problem()];
    slugs.sort();
    assert_eq!(
        slugs,
        [
            (503, "overloaded".to_owned()),
            (503, "pool-timeout".to_owned())
        ]
    );
    assert_eq!(
        service.get("/v1/content").await.status,
        200,
        "readers do not wait for the writer"
    );
    let shed = service
        .metric("http_server_requests_shed_total", &["reason=\"pool\""])
        .await;
    assert!((shed - 1.0).abs() < f64::EPSILON);
    sqlx::query("ROLLBACK").execute(&mut other).await.unwrap();
    eventually("writes succeed again", || async {
        service.post("/v1/content", &body).await.status == 201
    })
    .await;
}

#[tokio::test]
async fn a_connection_over_the_cap_is_closed() {
    let service = service_with(Settings {
        connections: 2,
        ..settings()
    })
    .await;
    let held = [
        TcpStream::connect(service.running.public).await.unwrap(),
        TcpStream::connect(service.running.public).await.unwrap(),
    ];
    let mut third = TcpStream::connect(service.running.public).await.unwrap();
    // Written or not: the answer is the end of the connection.
    drop(third.write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n").await);
    let mut answer = Vec::new();
    let read = third.read_to_end(&mut answer).await;
    assert!(read.is_err() || answer.is_empty(), "{answer:?}");
    let refused = service
        .metric("streamgate_connections_refused_total", &[])
        .await;
    assert!((refused - 1.0).abs() < f64::EPSILON);
    drop(held);
    eventually("a place is free again", || async {
        let mut stream = TcpStream::connect(service.running.public).await.unwrap();
        drop(stream.write_all(b"GET /v1/nft HTTP/1.0\r\n\r\n").await);
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await.is_ok() && answer.starts_with(b"HTTP/1.0 400")
    })
    .await;
}

#[tokio::test]
async fn a_stop_finishes_the_request_under_way() {
    let service = service().await;
    let public = service.running.public;
    let mut slow = HalfSent::to(&service).await;
    let mut idle = TcpStream::connect(public).await.unwrap();
    idle.write_all(b"GET /v1/nft HTTP/1.1\r\nhost: a\r\n\r\n")
        .await
        .unwrap();
    let mut first = [0; 12];
    idle.read_exact(&mut first).await.unwrap();
    let stop = tokio::spawn(service.running.stop(Duration::from_secs(20)));
    eventually("no connection is accepted", || async {
        TcpStream::connect(public).await.is_err()
    })
    .await;
    assert!(!stop.is_finished(), "the stop waits for the request");
    slow.stream.flush().await.unwrap();
    let answer = slow.finish().await;
    assert!(answer.starts_with("HTTP/1.1 201"), "{answer}");
    let stopped = stop.await.unwrap();
    assert_eq!(
        stopped.cut, 0,
        "an idle kept-alive connection ends by itself"
    );
}

#[tokio::test]
async fn a_stop_cuts_what_does_not_end() {
    let service = service().await;
    let slow = HalfSent::to(&service).await;
    let stopped = service.running.stop(Duration::from_millis(600)).await;
    assert_eq!(stopped.cut, 1);
    drop(slow);
}

#[tokio::test]
async fn a_taken_port_is_an_error() {
    let service = service().await;
    let taken = Settings {
        public: service.running.public,
        ..settings()
    };
    let error = streamgate::serve::start(taken).await.unwrap_err();
    assert!(
        error.chain().contains("cannot listen on"),
        "{}",
        error.chain()
    );
    let taken = Settings {
        agent: service.running.agent.address().unwrap(),
        ..settings()
    };
    assert!(streamgate::serve::start(taken).await.is_err());
}

/// The first line of what a request line is answered with, over a connection of its own.
async fn status_line(service: &Service, request_line: &str) -> String {
    let mut stream = TcpStream::connect(service.running.public).await.unwrap();
    let head = format!("{request_line} HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n");
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.unwrap();
    let answer = String::from_utf8_lossy(&answer);
    answer.lines().next().unwrap_or_default().to_owned()
}

#[tokio::test]
async fn a_target_of_every_form_gets_an_answer() {
    let service = service().await;
    let mut wrong = Vec::new();
    for (request_line, status) in [
        ("CONNECT host:1", "404"),
        ("CONNECT [::1]:443", "404"),
        ("OPTIONS *", "404"),
        ("OPTIONS http://a", "404"),
        ("GET http://a", "404"),
        ("GET http://a/v1/content?limit=1", "200"),
        ("GET http://a?limit=1", "404"),
        ("GET //", "404"),
        ("GET /v1", "404"),
        ("GET /v1/", "404"),
        ("GET /v1/content/", "200"),
        ("GET /v1/content/%00", "400"),
        ("GET /v1/content/%ff%fe", "400"),
        ("GET /?", "404"),
        ("CONNECT /v1/content", "405"),
        ("GET v1/content", "400"),
    ] {
        let line = status_line(&service, request_line).await;
        if !line.starts_with(&format!("HTTP/1.1 {status}")) {
            wrong.push(format!("{request_line}: {line:?} instead of {status}"));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    let answers = http2_connect(service.running.public, "host:1").await;
    assert_eq!(answers.problem(), (404, "not-found".to_owned()));
}
