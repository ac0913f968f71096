//! What the agent's page shows of the service.

use std::time::{Duration, Instant};

use streamgate::settings::Settings;
use streamgate_agent::Request;

use crate::database::{READERS, WRITER};
use crate::support::{content, eventually, service, service_with, settings};

#[tokio::test]
async fn ten_thousand_random_paths_add_one_series() {
    let service = service().await;
    let mut paths: Vec<String> = (0..10_000)
        .map(|n| format!("/x{n}/{:x}", n * 7_919))
        .collect();
    let first = paths.pop().unwrap();
    service.get(&first).await;
    let requests = |page: &str| {
        let lines = page
            .lines()
            .filter(|line| line.starts_with("http_server_request_duration_seconds_count{"));
        lines.count()
    };
    let before = requests(&service.metrics().await);
    // Over one HTTP/2 connection, a few hundred at a time.
    for chunk in paths.chunks(500) {
        let chunk: Vec<&str> = chunk.iter().map(String::as_str).collect();
        let answers = crate::support::http2_get(service.running.public, &chunk).await;
        assert!(answers.iter().all(|answer| answer.status == 404));
    }
    let page = service.metrics().await;
    assert_eq!(requests(&page), before);
    assert!(!page.contains("/x1/"));
    let unmatched = [
        "http_route=\"<unmatched>\"",
        "http_response_status_code=\"404\"",
    ];
    let count = service
        .metric("http_server_request_duration_seconds_count", &unmatched)
        .await;
    assert!((count - 10_000.0).abs() < 0.5, "{count}");
}

#[tokio::test]
async fn a_cold_then_a_warm_read_moves_one_miss_and_one_hit() {
    let service = service().await;
    let path = format!("/v1/content/{}", content(0));
    let requests = async |result: &str| {
        let result = format!("cache_result=\"{result}\"");
        service
            .metric("cache_requests_total", &["cache_name=\"content\"", &result])
            .await
    };
    assert!(requests("hit").await + requests("miss").await < 0.5);
    service.get(&path).await;
    assert_eq!(
        (
            requests("miss").await.round(),
            requests("hit").await.round()
        ),
        (1.0, 0.0)
    );
    service.get(&path).await;
    assert_eq!(
        (
            requests("miss").await.round(),
            requests("hit").await.round()
        ),
        (1.0, 1.0)
    );
}

// The load is not to queue behind the readers that wait for it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn misses_are_loads_and_coalesced_waits() {
    let path = format!("/v1/content/{}", content(1));
    let paths = vec![path.as_str(); 1_000];
    let deadline = Instant::now() + Duration::from_secs(60);
    let service = loop {
        let service = service().await;
        let answers = crate::support::http2_get(service.running.public, &paths).await;
        let failed = answers.iter().find(|answer| answer.status != 200);
        let Some(failed) = failed else { break service };
        // A busy machine makes some wait too long for the load: then again, where nothing is counted yet.
        assert_eq!(failed.status, 503, "{}", failed.text());
        assert!(Instant::now() < deadline, "{}", failed.text());
    };
    let of = async |family: &str, label: &str| {
        service
            .metric(family, &["cache_name=\"content\"", label])
            .await
    };
    let loads = of("cache_loads_total", "").await;
    let hits = of("cache_requests_total", "cache_result=\"hit\"").await;
    let misses = of("cache_requests_total", "cache_result=\"miss\"").await;
    let coalesced = of("cache_coalesced_requests_total", "").await;
    assert!(
        (loads - 1.0).abs() < 0.5,
        "a thousand cold readers, {loads} loads"
    );
    assert!((hits + misses - 1_000.0).abs() < 0.5);
    assert!(
        (misses - loads - coalesced).abs() < 0.5,
        "{misses} = {loads} + {coalesced}"
    );
}

#[tokio::test]
async fn each_route_is_named_by_its_template() {
    let service = service().await;
    for path in [
        "/v1/content",
        "/v1/content/x",
        "/v1/users/x",
        "/v1/nft",
        "/v1/transactions",
    ] {
        service.get(path).await;
    }
    service.get("/v1/content:batch").await;
    let page = service.metrics().await;
    for route in [
        "/v1/content",
        "/v1/content/{id}",
        "/v1/content:batch",
        "/v1/users/{id}",
        "/v1/nft",
        "/v1/transactions",
    ] {
        assert!(page.contains(&format!("http_route=\"{route}\"")), "{route}");
    }
}

#[tokio::test]
async fn pools_caches_and_the_backlog_are_on_the_page() {
    let service = service().await;
    service.get("/v1/content").await;
    for (family, label) in [
        ("db_client_connection_max", READERS),
        ("db_client_connections", WRITER),
        ("db_client_connection_wait_time_seconds_count", READERS),
        ("cache_capacity_bytes", "pages"),
        ("cache_capacity_bytes", "users"),
        ("streamgate_content_oldest_age_seconds", ""),
        ("streamgate_response_bytes_total", "raw"),
        ("streamgate_response_bytes_total", "sent"),
        ("http_server_requests_per_connection_count", "1.1"),
    ] {
        eventually(&format!("{family} {label}"), || async {
            service.metric(family, &[label]).await > 0.0
        })
        .await;
    }
    let pending = service.metric("streamgate_transactions_pending", &[]).await;
    let listed = service
        .get("/v1/transactions?status=pending&limit=100")
        .await
        .json();
    let listed = listed["items"].as_array().unwrap().len();
    assert!((pending - listed as f64).abs() < f64::EPSILON);
}

#[tokio::test]
async fn requests_change_the_process_only_where_settings_allow_it() {
    let control = |control| async move {
        let settings = Settings {
            control,
            ..settings()
        };
        let service = service_with(settings).await;
        let purge = Request::new("POST", "/debug/heap/tuning")
            .header("host", "localhost")
            .header("content-type", "application/json")
            .body("{\"purge\":true}");
        let reply = service.running.agent.respond(purge).await;
        let text = String::from_utf8_lossy(reply.body()).into_owned();
        (reply.status(), text)
    };
    let (status, text) = control(false).await;
    assert_eq!(status, 404);
    assert!(text.contains("control plane is off"), "{text}");
    // As far as the allocator, which is jemalloc in the program and not in this test.
    let (status, text) = control(true).await;
    assert_eq!(status, 503);
    assert!(text.contains("jemalloc is linked but not"), "{text}");
}
