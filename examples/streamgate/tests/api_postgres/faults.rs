//! What becomes of requests while the server is stopped, killed, read-only or busy.
//!
//! Each test has a server of its own. Promise: 503 with `Retry-After` and never another 5xx, and the service
//! recovers by itself.

use std::time::{Duration, Instant};

use http::Method;
use sqlx::postgres::PgConnection;
use sqlx::{Connection as _, Executor as _};
use streamgate::servers::postgres::Postgres;
use streamgate::settings::Settings;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;

use crate::support::{
    Answer, CONTENTS, Service, content, eventually, service_with, settings, user,
};

/// Ten times what a lost server may cost: 500 ms for a connection and 2.25 s for a statement.
const ANSWERED: Duration = Duration::from_secs(25);

async fn with_server(settings: Settings) -> Option<(Postgres, Service)> {
    let server = crate::database::start().await?;
    let database = Some(server.url().parse().unwrap());
    let settings = Settings {
        database,
        ..settings
    };
    Some((server, service_with(settings).await))
}

async fn write(service: &Service) -> Answer {
    let body = format!(r#"{{"user_id":"{}","title":"t"}}"#, user(0));
    service.post("/v1/content", &body).await
}

/// A list that no cache knows, because its size is another each time.
async fn read(service: &Service, limit: u64) -> Answer {
    service.get(&format!("/v1/content?limit={limit}")).await
}

fn assert_away(answer: &Answer) {
    assert_eq!(answer.status, 503, "{answer:?}");
    let (_, slug) = answer.problem();
    assert!(
        ["pool-timeout", "unavailable", "overloaded"].contains(&slug.as_str()),
        "{slug}"
    );
    assert_eq!(answer.header("retry-after"), "1");
}

async fn assert_recovers(service: &Service) {
    eventually("reads and writes succeed again", || async {
        read(service, 99).await.status == 200 && write(service).await.status == 201
    })
    .await;
}

#[tokio::test]
async fn a_stopped_server_is_503_until_it_goes_on() {
    let Some((server, service)) = with_server(settings()).await else {
        return;
    };
    let cached = format!("/v1/content/{}", content(0));
    assert_eq!(service.get(&cached).await.status, 200);
    server.pause();
    for limit in 1..4 {
        let begun = Instant::now();
        let (read, written) = tokio::join!(read(&service, limit), write(&service));
        assert_away(&read);
        assert_away(&written);
        assert!(begun.elapsed() < ANSWERED, "{:?}", begun.elapsed());
    }
    assert_eq!(service.get(&cached).await.status, 200, "the cache has it");
    server.resume();
    assert_recovers(&service).await;
}

#[tokio::test]
async fn a_killed_server_is_503_and_the_restarted_one_is_found() {
    let Some((mut server, service)) = with_server(settings()).await else {
        return;
    };
    assert_eq!(read(&service, 1).await.status, 200);
    server.kill();
    assert_away(&read(&service, 2).await);
    assert_away(&write(&service).await);
    server.restart().await.unwrap();
    assert_recovers(&service).await;
}

#[tokio::test]
async fn terminated_backends_are_replaced_and_cost_503_at_most() {
    let Some((server, service)) = with_server(settings()).await else {
        return;
    };
    let mut admin = PgConnection::connect_with(&server.superuser())
        .await
        .unwrap();
    let mut statuses = Vec::new();
    for round in 0..5 {
        let requests = (0..20).map(|n| read(&service, 1 + round * 20 + n));
        let terminate = admin.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'streamgate'",
        );
        let (answers, ended) = tokio::join!(futures_util::future::join_all(requests), terminate);
        ended.unwrap();
        statuses.extend(answers.iter().map(|answer| answer.status.as_u16()));
    }
    assert!(
        statuses.iter().all(|status| [200, 503].contains(status)),
        "{statuses:?}"
    );
    assert_recovers(&service).await;
}

#[tokio::test]
async fn a_read_only_server_refuses_writes_by_503_and_answers_reads() {
    let Some((server, service)) = with_server(settings()).await else {
        return;
    };
    let mut admin = PgConnection::connect_with(&server.superuser())
        .await
        .unwrap();
    let sessions_end =
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'streamgate'";
    admin
        .execute("ALTER ROLE streamgate SET default_transaction_read_only = on")
        .await
        .unwrap();
    admin.execute(sessions_end).await.unwrap();
    eventually("reads go on", || async {
        read(&service, 7).await.status == 200
    })
    .await;
    let answer = write(&service).await;
    assert_away(&answer);
    assert_eq!(answer.problem().1, "unavailable");
    admin
        .execute("ALTER ROLE streamgate RESET default_transaction_read_only")
        .await
        .unwrap();
    // The sessions that only read are left one by one, as writes meet them.
    assert_recovers(&service).await;
}

#[tokio::test]
async fn a_pool_in_use_answers_503_and_recovers() {
    let small = Settings {
        pool_max: 2,
        ..settings()
    };
    let Some((server, service)) = with_server(small).await else {
        return;
    };
    let mut admin = PgConnection::connect(&server.url()).await.unwrap();
    admin
        .execute("BEGIN; LOCK TABLE content IN ACCESS EXCLUSIVE MODE")
        .await
        .unwrap();
    let requests = (1..9).map(|limit| read(&service, limit));
    let answers = futures_util::future::join_all(requests).await;
    answers.iter().for_each(assert_away);
    let shed = answers
        .iter()
        .filter(|answer| answer.problem().1 == "pool-timeout")
        .count();
    assert!(shed >= 1, "{answers:?}");
    let counted = service
        .metric("db_client_connection_timeouts_total", &["postgresql"])
        .await;
    assert!(counted >= 1.0, "{counted}");
    admin.execute("ROLLBACK").await.unwrap();
    assert_recovers(&service).await;
}

#[tokio::test]
async fn a_thousand_aborted_requests_leak_no_connection() {
    let small = Settings {
        pool_max: 4,
        ..settings()
    };
    let Some((server, service)) = with_server(small).await else {
        return;
    };
    let mut admin = PgConnection::connect(&server.url()).await.unwrap();
    let body = format!(r#"{{"user_id":"{}","title":"aborted"}}"#, user(0));
    for round in 0..10_u64 {
        // Half of the rounds leave while their statements wait for this lock.
        if round % 2 == 0 {
            admin
                .execute("BEGIN; LOCK TABLE content IN ACCESS EXCLUSIVE MODE")
                .await
                .unwrap();
        }
        for n in 0..100 {
            let index = (round * 100 + n) % u64::from(CONTENTS);
            let head = if n % 2 == 0 {
                format!(
                    "GET /v1/content/{} HTTP/1.1\r\nhost: a\r\n\r\n",
                    content(index)
                )
            } else {
                format!(
                    "POST /v1/content HTTP/1.1\r\nhost: a\r\ncontent-type: application/json\r\n\
                     content-length: {}\r\n\r\n{body}",
                    body.len()
                )
            };
            let mut stream = TcpStream::connect(service.running.public).await.unwrap();
            stream.write_all(head.as_bytes()).await.unwrap();
        }
        if round % 2 == 0 {
            admin.execute("ROLLBACK").await.unwrap();
        }
    }
    let connections = async |state: &str| {
        let state = format!("db_client_connection_state=\"{state}\"");
        service
            .metric("db_client_connections", &["postgresql", &state])
            .await
    };
    eventually("all connections are back", || async {
        let pending = service
            .metric("db_client_connection_pending_requests", &["postgresql"])
            .await;
        pending < 0.5 && connections("used").await < 0.5 && connections("idle").await > 3.5
    })
    .await;
    let answer = service
        .send(Method::GET, "/v1/content?limit=3", &[], "")
        .await;
    assert_eq!(answer.status, 200);
}
