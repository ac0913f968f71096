//! The edge before a scripted origin, and before the service.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use http::Method;
use streamgate::edge;
use streamgate::settings::Settings;
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};

use crate::scripted_origin::{Origin, text, with};
use crate::support::{
    Answer, content, eventually, exchange, http2_get, series_sum, service_with, settings,
};

const TOKEN: &str = "a secret of the test";

struct Edge {
    running: edge::Running,
}

impl Edge {
    async fn before(origin: SocketAddr) -> Self {
        Self::with(origin, Duration::from_secs(60)).await
    }

    async fn with(origin: SocketAddr, origin_deadline: Duration) -> Self {
        let free = SocketAddr::from(([127, 0, 0, 1], 0));
        let settings = edge::Settings {
            origin: format!("http://{origin}"),
            listen: free,
            purge: free,
            agent: free,
            cache_bytes: 64 << 20,
            token: Some(TOKEN.to_owned()),
            origin_deadline,
            ..edge::Settings::default()
        };
        let running = edge::start(settings).await.expect("the edge starts");
        Self { running }
    }

    async fn get(&self, path: &str) -> Answer {
        self.get_with(path, &[]).await
    }

    async fn get_with(&self, path: &str, headers: &[(&str, &str)]) -> Answer {
        self.send(Method::GET, path, headers).await
    }

    async fn send(&self, method: Method, path: &str, headers: &[(&str, &str)]) -> Answer {
        exchange(self.running.address, method, path, headers, Bytes::new()).await
    }

    async fn purge(&self, token: &str, keys: &str) -> u16 {
        let token = format!("Bearer {token}");
        let headers = [("authorization", &*token), ("surrogate-key", keys)];
        let purge = self.running.purge.unwrap();
        let answer = exchange(purge, Method::POST, "/purge", &headers, Bytes::new()).await;
        answer.status.as_u16()
    }

    /// Lookups by result and class.
    async fn lookups(&self, result: &str, class: &str) -> f64 {
        let labels = [
            "cache_level=\"l3\"",
            &format!("cache_result=\"{result}\""),
            &format!("cache_class=\"{class}\""),
        ];
        self.metric("cache_requests_total", &labels).await
    }

    async fn metric(&self, name: &str, labels: &[&str]) -> f64 {
        series_sum(&self.running.agent, name, labels).await
    }
}

fn all(_: &crate::scripted_origin::Asked) -> crate::scripted_origin::Reply {
    text("a", "public, s-maxage=3600")
}

#[tokio::test]
async fn hit_miss_stale_and_bypass_are_told_apart() {
    let origin = Origin::new(|asked| match asked.target.as_str() {
        "/fresh" => text("a", "public, s-maxage=3600"),
        "/stale" => text("a", "public, s-maxage=0, stale-while-revalidate=3600"),
        _ => text("a", "private, no-store"),
    })
    .await;
    let edge = Edge::before(origin.address).await;
    let cold = edge.get("/fresh").await;
    assert_eq!(
        cold.header("cache-status"),
        "streamgate-edge; fwd=uri-miss; stored; ttl=3600"
    );
    let warm = edge.get("/fresh").await;
    assert!(
        warm.header("cache-status")
            .starts_with("streamgate-edge; hit; ttl=")
    );
    assert_eq!((warm.text(), warm.header("age")), ("a", "0"));
    edge.get("/stale").await;
    assert_eq!(edge.get("/stale").await.text(), "a");
    edge.get("/private").await;
    edge.get_with("/fresh", &[("authorization", "Bearer x")])
        .await;
    edge.get_with("/fresh", &[("cache-control", "no-store")])
        .await;
    for (result, class, times) in [
        ("hit", "public", 1.0),
        ("miss", "public", 2.0),
        ("stale", "public", 1.0),
        ("bypass", "gated", 1.0),
        ("bypass", "public", 2.0),
        ("hit", "gated", 0.0),
        ("error", "public", 0.0),
    ] {
        let seen = edge.lookups(result, class).await;
        assert!((seen - times).abs() < 0.5, "{result} {class}: {seen}");
    }
    eventually("the stale answer was fetched anew", async || {
        let asked = origin.asked();
        asked
            .iter()
            .filter(|asked| asked.target == "/stale")
            .count()
            == 2
    })
    .await;
}

#[tokio::test]
async fn a_request_is_labelled_with_the_one_route_and_not_with_its_path() {
    let origin = Origin::new(all).await;
    let edge = Edge::before(origin.address).await;
    for n in 0..3 {
        edge.get(&format!("/v1/{n}")).await;
    }
    let of = async |route: &str| {
        let route = format!("http_route=\"{route}\"");
        let family = "http_server_request_duration_seconds_count";
        edge.metric(family, &[&route]).await
    };
    eventually("three requests are counted", async || {
        of("/{path}").await > 2.5
    })
    .await;
    assert!(of("<unmatched>").await < 0.5);
}

#[tokio::test]
async fn gated_content_is_never_kept() {
    let origin = Origin::new(|_| text("secret", "private, no-store")).await;
    let edge = Edge::before(origin.address).await;
    for n in 1..=3 {
        let answer = edge.get("/v1/content/x").await;
        assert_eq!(answer.text(), "secret");
        assert_eq!(origin.asked().len(), n, "each one is asked for");
    }
    assert!((edge.lookups("bypass", "gated").await - 3.0).abs() < 0.5);
}

#[tokio::test]
async fn an_answer_to_credentials_is_not_kept_for_others() {
    let origin = Origin::new(all).await;
    let edge = Edge::before(origin.address).await;
    edge.get_with("/a", &[("authorization", "Bearer x")]).await;
    edge.get("/a").await;
    assert_eq!(origin.asked().len(), 2);
}

#[tokio::test]
async fn a_thousand_cold_readers_cause_one_request_to_the_origin() {
    let origin = Origin::gated(0, all).await;
    let edge = Edge::before(origin.address).await;
    let paths = vec!["/cold"; 1_000];
    let address = edge.running.address;
    let readers = tokio::spawn(async move { http2_get(address, &paths).await });
    eventually("the origin is asked", async || !origin.asked().is_empty()).await;
    origin.let_through(1_000);
    let answers = readers.await.unwrap();
    assert!(answers.iter().all(|answer| answer.text() == "a"));
    assert_eq!(origin.asked().len(), 1);
    let (misses, hits) = (
        edge.lookups("miss", "public").await,
        edge.lookups("hit", "public").await,
    );
    let waited = edge.metric("cache_coalesced_requests_total", &[]).await;
    assert!((misses + hits - 1_000.0).abs() < 0.5);
    assert!((misses - waited - 1.0).abs() < 0.5, "{misses} {waited}");
}

#[tokio::test]
async fn readers_of_gated_content_each_get_their_own() {
    let origin = Origin::gated(0, |_| text("own", "private")).await;
    let edge = Edge::before(origin.address).await;
    let address = edge.running.address;
    let readers = tokio::spawn(async move { http2_get(address, &["/x"; 20]).await });
    eventually("the origin is asked", async || !origin.asked().is_empty()).await;
    origin.let_through(1_000);
    let answers = readers.await.unwrap();
    assert!(answers.iter().all(|answer| answer.text() == "own"));
    assert_eq!(origin.asked().len(), 20);
}

#[tokio::test]
async fn a_head_is_answered_from_the_kept_get() {
    let origin = Origin::new(all).await;
    let edge = Edge::before(origin.address).await;
    for _ in 0..2 {
        let head = edge.send(Method::HEAD, "/a", &[]).await;
        assert_eq!(
            (head.status.as_u16(), head.header("content-length")),
            (200, "1")
        );
        assert!(head.body.is_empty());
    }
    assert_eq!(edge.get("/a").await.text(), "a");
    let asked = origin.asked();
    assert_eq!((asked.len(), &asked[0].method), (1, &Method::GET));
}

#[tokio::test]
async fn one_range_is_cut_from_the_kept_answer() {
    let origin =
        Origin::new(|_| with(text("0123456789", "public, s-maxage=60"), "etag", "\"v1\"")).await;
    let edge = Edge::before(origin.address).await;
    let part = edge.get_with("/a", &[("range", "bytes=2-4")]).await;
    assert_eq!((part.status.as_u16(), part.text()), (206, "234"));
    assert_eq!(part.header("content-range"), "bytes 2-4/10");
    let other = [("range", "bytes=2-4"), ("if-range", "\"v0\"")];
    assert_eq!(edge.get_with("/a", &other).await.text(), "0123456789");
    let beyond = edge.get_with("/a", &[("range", "bytes=10-")]).await;
    assert_eq!(beyond.status.as_u16(), 416);
    assert_eq!(beyond.header("content-range"), "bytes */10");
    assert_eq!(origin.asked().len(), 1);
    assert!(origin.asked()[0].headers.get("range").is_none());
}

#[tokio::test]
async fn a_known_tag_is_answered_304_by_the_edge() {
    let origin = Origin::new(|_| with(text("a", "public, s-maxage=60"), "etag", "\"v1\"")).await;
    let edge = Edge::before(origin.address).await;
    edge.get("/a").await;
    let known = edge.get_with("/a", &[("if-none-match", "\"v1\"")]).await;
    assert_eq!(
        (known.status.as_u16(), known.header("etag")),
        (304, "\"v1\"")
    );
    assert!(known.body.is_empty());
    assert_eq!(origin.asked().len(), 1);
}

#[tokio::test]
async fn a_stale_answer_is_validated_and_not_sent_again() {
    let origin = Origin::new(|asked| {
        let known = asked.headers.get("if-none-match");
        if known.is_some_and(|tag| tag == "\"v1\"") {
            let mut fresh = text("", "public, s-maxage=60");
            *fresh.status_mut() = http::StatusCode::NOT_MODIFIED;
            return fresh;
        }
        // The window keeps what is stale at once in the cache.
        let first = text("a", "public, s-maxage=0, stale-if-error=600");
        with(with(first, "etag", "\"v1\""), "surrogate-key", "k")
    })
    .await;
    let edge = Edge::before(origin.address).await;
    edge.get("/a").await;
    let validated = edge.get("/a").await;
    assert_eq!((validated.status.as_u16(), validated.text()), (200, "a"));
    assert!(
        edge.get("/a")
            .await
            .header("cache-status")
            .contains("; hit")
    );
    assert_eq!(origin.asked().len(), 2);
    // The validation did not repeat the key, and it counts nevertheless.
    assert_eq!(edge.purge(TOKEN, "k").await, 204);
    assert_eq!(edge.get("/a").await.text(), "a");
    assert_eq!(origin.asked().len(), 3);
}

#[tokio::test]
async fn encodings_are_kept_apart() {
    let origin = Origin::new(|asked| {
        let encoding = asked.headers["accept-encoding"].to_str().unwrap();
        let reply = text(encoding, "public, s-maxage=60");
        with(
            with(reply, "vary", "Accept-Encoding"),
            "content-encoding",
            encoding,
        )
    })
    .await;
    let edge = Edge::before(origin.address).await;
    for (wish, got) in [
        ("gzip, deflate", "gzip"),
        ("deflate, gzip;q=1.0", "gzip"),
        ("br", "br"),
        ("gzip;q=0", "identity"),
    ] {
        let answer = edge.get_with("/a", &[("accept-encoding", wish)]).await;
        assert_eq!(
            (answer.text(), answer.header("content-encoding")),
            (got, got)
        );
    }
    assert_eq!(origin.asked().len(), 3, "two spellings of gzip are one");
}

#[tokio::test]
async fn a_purged_answer_is_fetched_anew() {
    let origin = Origin::new(|asked| {
        let key = asked.target.trim_start_matches('/').to_owned();
        with(
            text("old", "public, s-maxage=60"),
            "surrogate-key",
            &format!("all {key}"),
        )
    })
    .await;
    let edge = Edge::before(origin.address).await;
    assert_eq!(edge.get("/a").await.header("surrogate-key"), "");
    edge.get("/b").await;
    origin.answers(|_| text("new", "public, s-maxage=60"));
    assert_eq!(edge.purge(TOKEN, "a").await, 204);
    assert_eq!(edge.get("/a").await.text(), "new");
    assert_eq!(edge.get("/b").await.text(), "old");
    assert_eq!(edge.purge(TOKEN, "x all y").await, 204);
    assert_eq!(edge.get("/b").await.text(), "new");
    let counted = edge
        .metric("cache_invalidations_total", &["kind=\"event\""])
        .await;
    assert!((counted - 4.0).abs() < 0.5, "{counted}");
}

#[tokio::test]
async fn a_purge_without_the_token_is_refused() {
    let origin = Origin::new(all).await;
    let edge = Edge::before(origin.address).await;
    assert_eq!(edge.purge("another", "a").await, 401);
    assert_eq!(edge.purge(TOKEN, "").await, 400);
    let purge = edge.running.purge.unwrap();
    let got = exchange(purge, Method::GET, "/purge", &[], Bytes::new()).await;
    assert_eq!(got.status.as_u16(), 405);
    let settings = edge::Settings {
        purge: SocketAddr::from(([0, 0, 0, 0], 0)),
        ..edge::Settings::default()
    };
    let refused = edge::start(settings).await.unwrap_err().to_string();
    assert!(
        refused.starts_with("--purge must be an address on loopback"),
        "{refused}"
    );
}

#[tokio::test]
async fn a_purge_reaches_a_fetch_under_way() {
    let origin = Origin::gated(0, |_| {
        with(text("old", "public, s-maxage=60"), "surrogate-key", "k")
    })
    .await;
    let edge = Edge::before(origin.address).await;
    let address = edge.running.address;
    let early = tokio::spawn(async move { http2_get(address, &["/a"]).await });
    eventually("the origin is asked", async || !origin.asked().is_empty()).await;
    assert_eq!(edge.purge(TOKEN, "k").await, 204);
    origin.let_through(1_000);
    assert_eq!(
        early.await.unwrap()[0].text(),
        "old",
        "who asked before may see either"
    );
    origin.answers(|_| text("new", "public, s-maxage=60"));
    assert_eq!(edge.get("/a").await.text(), "new");
}

#[tokio::test]
async fn a_write_through_the_edge_voids_its_target() {
    let origin = Origin::new(all).await;
    let edge = Edge::before(origin.address).await;
    edge.get("/a").await;
    origin.answers(|_| text("new", "public, s-maxage=60"));
    assert_eq!(
        edge.send(Method::PATCH, "/a", &[]).await.status.as_u16(),
        200
    );
    assert_eq!(edge.get("/a").await.text(), "new");
}

#[tokio::test]
async fn while_the_origin_fails_a_stale_answer_is_served() {
    let origin = Origin::new(|_| text("a", "public, s-maxage=0, stale-if-error=600")).await;
    let edge = Edge::before(origin.address).await;
    edge.get("/a").await;
    origin.answers(|_| {
        let mut broken = text("broken", "no-store");
        *broken.status_mut() = http::StatusCode::SERVICE_UNAVAILABLE;
        broken
    });
    let answer = edge.get("/a").await;
    assert_eq!((answer.status.as_u16(), answer.text()), (200, "a"));
    assert!((edge.lookups("stale", "public").await - 1.0).abs() < 0.5);
    drop(origin);
    assert_eq!(edge.get("/a").await.text(), "a", "nor when it is gone");
}

#[tokio::test]
async fn an_origin_that_is_gone_is_502_and_one_that_hangs_504() {
    let gone = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = gone.local_addr().unwrap();
    drop(gone);
    let edge = Edge::before(address).await;
    assert_eq!(
        edge.get("/a").await.problem(),
        (502, "bad-gateway".to_owned())
    );

    let hanging = Origin::gated(0, all).await;
    let edge = Edge::with(hanging.address, Duration::from_millis(50)).await;
    assert_eq!(
        edge.get("/a").await.problem(),
        (504, "gateway-timeout".to_owned())
    );
    let only = [("cache-control", "only-if-cached")];
    assert_eq!(edge.get_with("/b", &only).await.status.as_u16(), 504);
    assert!(hanging.asked().iter().all(|asked| asked.target == "/a"));
}

#[tokio::test]
async fn the_edge_keeps_its_connections_to_the_origin() {
    let origin = Origin::new(|_| text("a", "no-store")).await;
    let edge = Edge::before(origin.address).await;
    for n in 0..50 {
        edge.get(&format!("/{n}")).await;
    }
    assert_eq!((origin.asked().len(), origin.connections()), (50, 1));
    let counted = edge
        .metric("streamgate_client_connections_total", &[])
        .await;
    assert!((counted - 1.0).abs() < 0.5);
}

#[tokio::test]
async fn what_belongs_to_one_connection_stays_there() {
    let origin =
        Origin::new(|_| with(text("a", "public, s-maxage=60"), "keep-alive", "timeout=5")).await;
    let edge = Edge::before(origin.address).await;
    let own = [
        ("connection", "x-mine"),
        ("x-mine", "1"),
        ("te", "trailers"),
        ("x-streamgate-edge", "forged"),
    ];
    let answer = edge.get_with("/a", &own).await;
    assert_eq!(answer.header("keep-alive"), "");
    let asked = &origin.asked()[0].headers;
    assert!(!asked.contains_key("x-mine") && !asked.contains_key("te"));
    assert_eq!(asked["x-streamgate-edge"], TOKEN);
    assert_eq!(asked["via"], "1.1 streamgate-edge");
}

#[tokio::test]
async fn a_write_is_seen_through_the_edge() {
    // Each has to know the other's address, and both take free ones: a relay that is there before either.
    let relay = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let edge = Edge::before(relay.local_addr().unwrap()).await;
    let service = service_with(Settings {
        edge_token: Some(TOKEN.to_owned()),
        edge_purge: edge.running.purge,
        ..settings()
    })
    .await;
    let origin = service.running.public;
    tokio::spawn(async move {
        while let Ok((mut asking, _)) = relay.accept().await {
            let mut answering = TcpStream::connect(origin).await.unwrap();
            tokio::spawn(async move { copy_bidirectional(&mut asking, &mut answering).await });
        }
    });
    let mut public = None;
    for n in 0..20 {
        let path = format!("/v1/content/{}", content(n));
        let answer = edge.get(&path).await;
        if answer.header("cache-control").starts_with("public") {
            public = Some((path, answer));
            break;
        }
    }
    let (path, before) = public.expect("most contents are public");
    let lists = "/v1/content?limit=2";
    edge.get(lists).await;
    for warm in [&*path, lists] {
        let status = edge.get(warm).await.header("cache-status").to_owned();
        assert!(
            warm == lists || status.contains("; hit"),
            "{warm}: {status}"
        );
    }
    let headers = [
        ("content-type", "application/json"),
        ("if-match", before.header("etag")),
    ];
    let body = "{\"title\":\"new\"}";
    let written = service.send(Method::PATCH, &path, &headers, body).await;
    assert_eq!(written.status.as_u16(), 200);
    // The writer has waited for the purge, unless it took over 100 ms.
    eventually("the edge shows the write", async || {
        edge.get(&path).await.json()["title"] == "new"
    })
    .await;
    let taken = service
        .metric("streamgate_edge_purges_total", &["outcome=\"taken\""])
        .await;
    assert!((taken - 1.0).abs() < 0.5, "{taken}");
}

#[tokio::test]
async fn what_the_edge_fetches_is_fill_and_not_judged() {
    let service = service_with(Settings {
        edge_token: Some(TOKEN.to_owned()),
        ..settings()
    })
    .await;
    let edge = Edge::before(service.running.public).await;
    let path = format!("/v1/content/{}", content(0));
    let lists = "/v1/content?limit=2";
    for _ in 0..3 {
        edge.get(&path).await;
        edge.get(lists).await;
    }
    let of = async |class: &str| {
        let class = format!("cache_class=\"{class}\"");
        let labels = ["cache_level=\"l1\"", &*class];
        service.metric("cache_requests_total", &labels).await
    };
    let (fill, public, gated) = (of("fill").await, of("public").await, of("gated").await);
    let l3 = edge.lookups("miss", "public").await;
    assert!((fill - l3).abs() < 0.5, "L1 fill = L3 misses: {fill} {l3}");
    assert!(public < 0.5, "{public}");
    assert!((edge.lookups("bypass", "gated").await - gated).abs() < 0.5);
    // The same secret, but not from an edge that knows it.
    service
        .get_with(&path, &[("x-streamgate-edge", "guessed")])
        .await;
    assert!((of("fill").await - fill).abs() < 0.5);
}
