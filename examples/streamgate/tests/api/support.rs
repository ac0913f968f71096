//! A service on free ports, and a client that speaks HTTP/1.1 and HTTP/2 to it.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{HeaderMap, Method, Request, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::Value;
use streamgate::seed::ids;
use streamgate::serve::{Running, start};
use streamgate::settings::Settings;
use streamgate_agent::AgentHandle;
use tokio::net::TcpStream;

pub(crate) const USERS: u32 = 20;
pub(crate) const CONTENTS: u32 = 300;
pub(crate) const SEED: u64 = 7;

pub(crate) struct Service {
    pub(crate) running: Running,
}

#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

/// Free ports and little data.
pub(crate) fn settings() -> Settings {
    Settings {
        public: SocketAddr::from(([127, 0, 0, 1], 0)),
        agent: SocketAddr::from(([127, 0, 0, 1], 0)),
        users: USERS,
        contents: CONTENTS,
        seed: SEED,
        cache_bytes: Some(64 << 20),
        archive_dir: Some(concat!(env!("CARGO_TARGET_TMPDIR"), "/archive").into()),
        // An agent that was not shut down keeps what it looks at, so all services of a test run share a server.
        pool_max: 4,
        ..Settings::default()
    }
}

pub(crate) async fn service() -> Service {
    service_with(settings()).await
}

/// A service on a database of its own, unless the settings name one.
pub(crate) async fn service_with(mut settings: Settings) -> Service {
    if settings.database.is_none() {
        settings.database = crate::database::fresh().await;
    }
    Service {
        running: start(settings).await.expect("the service starts"),
    }
}

/// The same with an admin plane.
pub(crate) fn with_admin() -> Settings {
    Settings {
        admin: Some(SocketAddr::from(([127, 0, 0, 1], 0))),
        ..settings()
    }
}

/// Asks the admin plane; a body makes it a POST.
pub(crate) async fn admin(service: &Service, token: Option<&str>, body: Option<&str>) -> Answer {
    let (address, access) = service.running.admin.as_ref().unwrap();
    let token = format!("Bearer {}", token.unwrap_or_else(|| access.token()));
    let headers = [
        ("host", "localhost"),
        ("content-type", "application/json"),
        ("authorization", token.as_str()),
    ];
    let method = if body.is_some() {
        Method::POST
    } else {
        Method::GET
    };
    let body = body.unwrap_or("").to_owned();
    exchange(*address, method, "/admin/faults", &headers, body.into()).await
}

pub(crate) fn content(index: u64) -> String {
    ids::content_id(SEED, index).to_string()
}

pub(crate) fn user(index: u64) -> String {
    ids::user_id(SEED, index).to_string()
}

impl Service {
    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.send(Method::GET, path, &[], "").await
    }

    pub(crate) async fn get_with(&self, path: &str, headers: &[(&str, &str)]) -> Answer {
        self.send(Method::GET, path, headers, "").await
    }

    /// Sends JSON.
    pub(crate) async fn post(&self, path: &str, body: &str) -> Answer {
        self.send(
            Method::POST,
            path,
            &[("content-type", "application/json")],
            body.to_owned(),
        )
        .await
    }

    pub(crate) async fn send(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: impl Into<Bytes>,
    ) -> Answer {
        exchange(self.running.public, method, path, headers, body.into()).await
    }

    /// The sum of a family's series on the agent's page whose labels contain all of `labels`.
    pub(crate) async fn metric(&self, name: &str, labels: &[&str]) -> f64 {
        series_sum(&self.running.agent, name, labels).await
    }

    pub(crate) async fn metrics(&self) -> String {
        metrics(&self.running.agent).await
    }
}

/// The sum of a family's series on an agent's page whose labels contain all of `labels`.
pub(crate) async fn series_sum(agent: &AgentHandle, name: &str, labels: &[&str]) -> f64 {
    sum_on(&metrics(agent).await, name, labels)
}

/// The same on a page.
pub(crate) fn sum_on(page: &str, name: &str, labels: &[&str]) -> f64 {
    let lines = page.lines().filter(|line| {
        let rest = line.strip_prefix(name);
        rest.is_some_and(|rest| rest.starts_with(['{', ' ']))
            && labels.iter().all(|label| line.contains(label))
    });
    lines
        .map(|line| line.rsplit(' ').next().unwrap().parse::<f64>().unwrap())
        .sum()
}

/// The agent answers 20 pages a second; more wait.
async fn metrics(agent: &AgentHandle) -> String {
    let agent = agent.address().unwrap();
    let host = agent.to_string();
    let headers = [("host", &*host)];
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        let page = exchange(agent, Method::GET, "/metrics", &headers, Bytes::new()).await;
        if page.status == 200 {
            return page.text().to_owned();
        }
        assert_eq!(page.status, 429, "{}", page.text());
        assert!(Instant::now() < deadline, "never: a page");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

impl Answer {
    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers
            .get(name)
            .map_or("", |value| value.to_str().unwrap())
    }

    /// Status and problem slug, after checking what every problem has.
    pub(crate) fn problem(&self) -> (u16, String) {
        assert_eq!(
            self.header("content-type"),
            "application/problem+json",
            "{self:?}"
        );
        assert_eq!(self.header("cache-control"), "no-store");
        let body = self.json();
        assert_eq!(body["status"], self.status.as_u16());
        assert_eq!(body["trace_id"].as_str().unwrap().len(), 32);
        assert!(!body["title"].as_str().unwrap().is_empty());
        let slug = body["type"]
            .as_str()
            .unwrap()
            .strip_prefix("/problems/")
            .unwrap();
        (self.status.as_u16(), slug.to_owned())
    }
}

pub(crate) async fn exchange(
    to: SocketAddr,
    method: Method,
    path: &str,
    headers: &[(&str, &str)],
    body: Bytes,
) -> Answer {
    let io = TokioIo::new(TcpStream::connect(to).await.unwrap());
    let (mut client, connection) = http1::handshake(io).await.unwrap();
    let connection = tokio::spawn(connection);
    let answer = answer(
        client
            .send_request(request(method, path, headers, body))
            .await,
    )
    .await;
    connection.abort();
    answer
}

/// Several requests at once over one HTTP/2 connection.
pub(crate) async fn http2_get(to: SocketAddr, paths: &[&str]) -> Vec<Answer> {
    let io = TokioIo::new(TcpStream::connect(to).await.unwrap());
    let (client, connection) = http2::handshake(TokioExecutor::new(), io).await.unwrap();
    let connection = tokio::spawn(connection);
    let sent = paths.iter().map(|path| {
        let mut client = client.clone();
        let uri = format!("http://{to}{path}");
        async move {
            answer(
                client
                    .send_request(request(Method::GET, &uri, &[], Bytes::new()))
                    .await,
            )
            .await
        }
    });
    let answers = futures_util::future::join_all(sent).await;
    connection.abort();
    answers
}

/// A CONNECT over HTTP/2, whose target is a host and nothing else.
pub(crate) async fn http2_connect(to: SocketAddr, target: &str) -> Answer {
    let io = TokioIo::new(TcpStream::connect(to).await.unwrap());
    let (mut client, connection) = http2::handshake(TokioExecutor::new(), io).await.unwrap();
    let connection = tokio::spawn(connection);
    let request = request(Method::CONNECT, target, &[], Bytes::new());
    let answer = answer(client.send_request(request).await).await;
    connection.abort();
    answer
}

fn request(
    method: Method,
    path: &str,
    headers: &[(&str, &str)],
    body: Bytes,
) -> Request<Full<Bytes>> {
    let mut request = Request::builder().method(method).uri(path);
    if !headers.iter().any(|(name, _)| *name == "host") && path.starts_with('/') {
        request = request.header("host", "localhost");
    }
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    request.body(Full::new(body)).unwrap()
}

async fn answer(response: hyper::Result<http::Response<hyper::body::Incoming>>) -> Answer {
    let (parts, body) = response.unwrap().into_parts();
    let body = body.collect().await.unwrap().to_bytes();
    Answer {
        status: parts.status,
        headers: parts.headers,
        body,
    }
}

/// Polls until a condition holds; fails after a minute.
pub(crate) async fn eventually<F: Future<Output = bool>>(what: &str, holds: impl Fn() -> F) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while !holds().await {
        assert!(Instant::now() < deadline, "never: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
