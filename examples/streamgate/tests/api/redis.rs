//! The shared cache with a real Redis: what it holds, what it costs when it fails, and who hears of writes.

use std::io::Write as _;
use std::time::Duration;

use http::{Method, StatusCode};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::TestRunner;
use redis::aio::MultiplexedConnection;
use rustix::process::Signal;
use streamgate::servers::child::signal;
use streamgate::servers::redis::{Installation, Redis};
use streamgate::settings::{Place, Settings};
use uuid::Uuid;

use crate::support::{
    Answer, Service, content, eventually, http2_get, service_with, settings, sum_on,
};

/// A server, or `None` with a line that a full check takes as a failure.
async fn redis() -> Option<Redis> {
    let Some(installation) = Installation::find() else {
        // Not by `println!`, which a passing test keeps for itself.
        let said = std::io::stderr().write_all(b"skipped: redis-server is not installed\n");
        said.unwrap();
        return None;
    };
    Some(Redis::start(&installation).await.expect("Redis starts"))
}

/// What a service starts with whose Redis has time: what is counted here must not depend on how busy the
/// machine is.
fn patient(redis: &Redis) -> Settings {
    Settings {
        redis: Some(redis.url()),
        redis_deadline: Duration::from_secs(20),
        // Longer than one of Redis: a writer waits until it has heard.
        query_deadline: Duration::from_secs(60),
        request_deadline: Duration::from_secs(60),
        ..settings()
    }
}

/// One whose Redis is going to fail.
async fn with(redis: &Redis) -> Service {
    service_with(Settings {
        redis: Some(redis.url()),
        ..settings()
    })
    .await
}

async fn raw(redis: &Redis) -> MultiplexedConnection {
    let client = redis::Client::open(redis.url()).unwrap();
    client.get_multiplexed_async_connection().await.unwrap()
}

async fn keys(redis: &Redis, pattern: &str) -> Vec<String> {
    let mut keys = redis::cmd("KEYS");
    keys.arg(pattern);
    keys.query_async(&mut raw(redis).await).await.unwrap()
}

/// The keys of contents, without locks and epochs.
async fn values(redis: &Redis) -> Vec<String> {
    let mut values = keys(redis, "streamgate:1:*:content:*:row").await;
    values.retain(|key| !key.contains(":lock:"));
    values
}

async fn set(redis: &Redis, name: &str, value: &str) {
    let mut set = redis::cmd("CONFIG");
    set.arg("SET").arg(name).arg(value);
    set.query_async::<()>(&mut raw(redis).await).await.unwrap();
}

/// Lookups of contents on a level, by result.
async fn lookups(service: &Service, level: &str, result: &str) -> f64 {
    let labels = [
        "cache_name=\"content\"",
        &format!("cache_level=\"{level}\""),
        &format!("cache_result=\"{result}\""),
    ];
    service.metric("cache_requests_total", &labels).await
}

fn detail(index: u64) -> String {
    format!("/v1/content/{}", content(index))
}

async fn stores(service: &Service) -> f64 {
    let stored = ["outcome=\"stored\""];
    service.metric("streamgate_l2_stores_total", &stored).await
}

async fn stored(service: &Service, times: f64) {
    eventually("the value is stored in Redis", async || {
        stores(service).await > times - 0.5
    })
    .await;
}

/// What no level can hold: the contents of a user who is nobody.
fn anew() -> String {
    format!("/v1/content?user_id={}", Uuid::now_v7())
}

async fn ask_anew(service: &Service) {
    let answer = service.get(&anew()).await;
    assert_eq!(answer.status, StatusCode::OK, "{answer:?}");
}

/// Redis takes a value. One alone may miss the deadline of 50 ms on a busy machine, so others follow.
async fn stores_again(service: &Service) {
    let before = stores(service).await;
    eventually("a value is stored in Redis", async || {
        ask_anew(service).await;
        stores(service).await > before + 0.5
    })
    .await;
}

async fn retitle(service: &Service, index: u64, title: &str) -> Answer {
    let tag = service.get(&detail(index)).await.header("etag").to_owned();
    let headers = [("content-type", "application/json"), ("if-match", &*tag)];
    let body = format!("{{\"title\":\"{title}\"}}");
    service
        .send(Method::PATCH, &detail(index), &headers, body)
        .await
}

async fn title(service: &Service, index: u64) -> String {
    let answer = service.get(&detail(index)).await;
    assert_eq!(answer.status, StatusCode::OK, "{answer:?}");
    answer.json()["title"].as_str().unwrap().to_owned()
}

/// Two instances on one database that sign cursors alike.
async fn pair(redis: &Redis) -> (Service, Service, tempfile::TempDir) {
    pair_with(patient(redis)).await
}

async fn pair_with(settings: Settings) -> (Service, Service, tempfile::TempDir) {
    let dir = tempfile::tempdir().unwrap();
    let settings = Settings {
        database: Some(Place::File(dir.path().join("streamgate.db"))),
        cursor_keys: vec![[7; 32]],
        ..settings
    };
    let a = service_with(settings.clone()).await;
    let b = service_with(settings).await;
    (a, b, dir)
}

#[tokio::test]
async fn each_level_is_asked_for_what_the_one_before_missed() {
    let Some(redis) = redis().await else { return };
    let (a, b, _dir) = pair(&redis).await;
    for n in 0..20 {
        assert_eq!(a.get(&detail(n)).await.status, StatusCode::OK);
        a.get(&detail(n)).await;
    }
    stored(&a, 20.0).await;
    for n in 0..30 {
        b.get(&detail(n)).await;
    }
    for (service, l1_hits, l2_hits, loads) in [(&a, 20.0, 0.0, 20.0), (&b, 0.0, 20.0, 10.0)] {
        let of = async |level: &str, result: &str| lookups(service, level, result).await;
        let loaded = service
            .metric("cache_loads_total", &["cache_name=\"content\""])
            .await;
        let l2_misses = of("l2", "miss").await + of("l2", "error").await;
        let l1_misses = of("l1", "miss").await + of("l1", "error").await;
        let l2_lookups = l2_misses + of("l2", "hit").await;
        assert!((of("l1", "hit").await - l1_hits).abs() < 0.5);
        assert!((of("l2", "hit").await - l2_hits).abs() < 0.5);
        assert!((loaded - loads).abs() < 0.5, "{loaded}");
        assert!((l2_lookups - l1_misses).abs() < 0.5);
        assert!((loaded - l2_misses).abs() < 0.5);
    }
}

/// What clients do.
#[derive(Clone, Debug)]
enum Deed {
    /// So many readers of one content at once.
    Read {
        second: bool,
        index: u64,
        readers: usize,
    },
    Write {
        second: bool,
        index: u64,
    },
}

fn deeds() -> impl Strategy<Value = Vec<Deed>> {
    let read =
        (any::<bool>(), 0..12_u64, 1..8_usize).prop_map(|(second, index, readers)| Deed::Read {
            second,
            index,
            readers,
        });
    let write =
        (any::<bool>(), 0..12_u64).prop_map(|(second, index)| Deed::Write { second, index });
    vec(prop_oneof![5 => read, 1 => write], 1..12)
}

/// The laws hold over all that happened so far, so one pair of instances serves all cases.
#[test]
fn lookups_and_loads_are_conserved_whatever_clients_do() {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .unwrap();
    let Some(redis) = runtime.block_on(redis()) else {
        return;
    };
    let (a, b, _dir) = runtime.block_on(pair(&redis));
    let mut runner = TestRunner::new(ProptestConfig {
        cases: 24,
        failure_persistence: None,
        // Once broken they stay so, whatever comes after.
        max_shrink_iters: 0,
        ..ProptestConfig::default()
    });
    let outcome = runner.run(&deeds(), |deeds| {
        runtime.block_on(async {
            for deed in &deeds {
                match *deed {
                    Deed::Read {
                        second,
                        index,
                        readers,
                    } => {
                        let service = if second { &b } else { &a };
                        let path = detail(index);
                        let paths = vec![path.as_str(); readers];
                        let answers = http2_get(service.running.public, &paths).await;
                        prop_assert!(answers.iter().all(|answer| answer.status == 200));
                    }
                    Deed::Write { second, index } => {
                        let service = if second { &b } else { &a };
                        // One whose tag is from before the other's write is refused: 412.
                        let status = retitle(service, index, "another").await.status;
                        prop_assert!(matches!(status.as_u16(), 200 | 412), "{status}");
                    }
                }
            }
            for service in [&a, &b] {
                let page = service.metrics().await;
                let of = |family: &str, labels: &[&str]| {
                    let labels = [&["cache_name=\"content\""], labels].concat();
                    sum_on(&page, family, &labels)
                };
                let missed = |level: &str| {
                    let results = ["cache_result=\"miss\"", "cache_result=\"error\""];
                    let seen = results.map(|result| of("cache_requests_total", &[level, result]));
                    seen.iter().sum::<f64>()
                };
                let (l1, l2) = (missed("cache_level=\"l1\""), missed("cache_level=\"l2\""));
                let hit = ["cache_level=\"l2\"", "cache_result=\"hit\""];
                let hits = of("cache_requests_total", &hit);
                let coalesced = of("cache_coalesced_requests_total", &[]);
                let loads = of("cache_loads_total", &[]);
                let balance = (l2 + hits) - (l1 - coalesced);
                prop_assert!(balance.abs() < 0.5, "{l2} + {hits} = {l1} - {coalesced}");
                prop_assert!((loads - l2).abs() < 0.5, "{loads} = {l2}");
            }
            Ok(())
        })
    });
    if let Err(broken) = outcome {
        panic!("{broken}");
    }
    let hits = runtime.block_on(lookups(&b, "l2", "hit"));
    assert!(hits > 0.5, "the cases reach L2");
}

#[tokio::test]
async fn a_service_without_redis_has_no_second_level() {
    let service = service_with(settings()).await;
    service.get(&detail(0)).await;
    assert!(!service.metrics().await.contains("cache_level=\"l2\""));
}

#[tokio::test]
async fn a_write_on_one_instance_is_seen_on_the_other() {
    let Some(redis) = redis().await else { return };
    let (a, b, _dir) = pair(&redis).await;
    for service in [&a, &b] {
        title(service, 3).await;
    }
    for turn in 0..5 {
        let new = format!("title {turn}");
        assert_eq!(retitle(&a, 3, &new).await.status, StatusCode::OK);
        assert_eq!(title(&a, 3).await, new, "the writer reads his own write");
        eventually("the other instance shows it", async || {
            title(&b, 3).await == new
        })
        .await;
    }
    let heard = b
        .metric(
            "cache_invalidation_lag_seconds_count",
            &["cache_name=\"content\""],
        )
        .await;
    assert!(heard > 4.5, "{heard}");
    let own = a.metric("cache_invalidation_lag_seconds_count", &[]).await;
    assert!(own < 0.5, "nobody hears himself");
}

#[tokio::test]
async fn a_lost_message_flushes_the_cache() {
    let Some(redis) = redis().await else { return };
    let (a, b, _dir) = pair(&redis).await;
    title(&b, 3).await;
    let hits = lookups(&b, "l1", "hit").await;
    title(&b, 3).await;
    assert!(lookups(&b, "l1", "hit").await - hits > 0.5);
    // The number of a message that nobody gets.
    let mut lost = redis::cmd("INCR");
    lost.arg("streamgate:1:bus:n");
    lost.query_async::<()>(&mut raw(&redis).await)
        .await
        .unwrap();
    assert_eq!(retitle(&a, 9, "other").await.status, StatusCode::OK);
    eventually("the gap is noticed", async || {
        let reason = ["reason=\"gap\"", "cache_name=\"content\""];
        b.metric("cache_flushes_total", &reason).await > 0.5
    })
    .await;
    let hits = lookups(&b, "l1", "hit").await;
    title(&b, 3).await;
    assert!((lookups(&b, "l1", "hit").await - hits).abs() < 0.5);
}

/// Reads go on with 200, and are counted as errors of the level.
async fn answers_without_l2(service: &Service, from: u64) {
    let errors = lookups(service, "l2", "error").await;
    for n in from..from + 12 {
        assert_eq!(service.get(&detail(n)).await.status, StatusCode::OK);
    }
    assert!((lookups(service, "l2", "error").await - errors - 12.0).abs() < 0.5);
}

#[tokio::test]
async fn a_stopped_redis_costs_nobody_an_answer() {
    let Some(redis) = redis().await else { return };
    let service = with(&redis).await;
    stores_again(&service).await;
    signal(redis.id().unwrap(), Signal::STOP).unwrap();
    answers_without_l2(&service, 1).await;
    eventually("the breaker is open", async || {
        // Until it is open they fail at once, and so within a second. More than the database has connections:
        // on a busy machine some are refused there, after Redis was asked.
        let paths: Vec<String> = (0..20).map(|_| anew()).collect();
        futures_util::future::join_all(paths.iter().map(|path| service.get(path))).await;
        service.metric("streamgate_l2_breaker_open", &[]).await > 0.5
    })
    .await;
    answers_without_l2(&service, 13).await;
    signal(redis.id().unwrap(), Signal::CONT).unwrap();
    stores_again(&service).await;
}

#[tokio::test]
async fn a_killed_redis_is_used_again_when_it_is_back() {
    let Some(mut redis) = redis().await else {
        return;
    };
    let service = with(&redis).await;
    stores_again(&service).await;
    redis.kill();
    answers_without_l2(&service, 1).await;
    redis.restart().await.unwrap();
    stores_again(&service).await;
}

#[tokio::test]
async fn a_full_redis_still_answers_reads() {
    let Some(redis) = redis().await else { return };
    let service = service_with(patient(&redis)).await;
    set(&redis, "maxmemory-policy", "noeviction").await;
    set(&redis, "maxmemory", "1").await;
    for n in 0..10 {
        assert_eq!(service.get(&detail(n)).await.status, StatusCode::OK);
    }
    assert!((lookups(&service, "l2", "miss").await - 10.0).abs() < 0.5);
    assert!(values(&redis).await.is_empty());
    eventually("the refusals are counted", async || {
        let refused = ["outcome=\"refused\""];
        service.metric("streamgate_l2_stores_total", &refused).await > 9.5
    })
    .await;
    assert!(service.metric("streamgate_l2_breaker_open", &[]).await < 0.5);
    // A write cannot be told, so what carries its tags is not asked for.
    assert_eq!(retitle(&service, 3, "new").await.status, StatusCode::OK);
    assert_eq!(title(&service, 3).await, "new");
    assert!(lookups(&service, "l2", "error").await > 0.5);
}

#[tokio::test]
async fn a_redis_that_only_reads_costs_nobody_an_answer() {
    let Some(redis) = redis().await else { return };
    let service = with(&redis).await;
    // Of nobody who is there: a replica without a master.
    let mut replica = redis::cmd("REPLICAOF");
    replica.arg("127.0.0.1").arg(1);
    replica
        .query_async::<()>(&mut raw(&redis).await)
        .await
        .unwrap();
    answers_without_l2(&service, 0).await;
    assert_eq!(retitle(&service, 3, "new").await.status, StatusCode::OK);
    assert_eq!(title(&service, 3).await, "new");
    let mut master = redis::cmd("REPLICAOF");
    master.arg("NO").arg("ONE");
    master
        .query_async::<()>(&mut raw(&redis).await)
        .await
        .unwrap();
    stores_again(&service).await;
}

#[tokio::test]
async fn a_damaged_value_is_an_error_and_taken_out() {
    let Some(redis) = redis().await else { return };
    let (a, b, _dir) = pair(&redis).await;
    let expected = title(&a, 3).await;
    stored(&a, 1.0).await;
    let found = values(&redis).await;
    let mut damage = redis::cmd("SETRANGE");
    damage.arg(&found[0]).arg(40).arg("damage");
    damage
        .query_async::<()>(&mut raw(&redis).await)
        .await
        .unwrap();
    assert_eq!(title(&b, 3).await, expected);
    assert!((lookups(&b, "l2", "error").await - 1.0).abs() < 0.5);
    assert!(keys(&redis, &found[0]).await.is_empty());
}

#[tokio::test]
async fn a_write_while_redis_is_away_is_not_undone_when_it_is_back() {
    let Some(redis) = redis().await else { return };
    let (a, b, _dir) = pair_with(Settings {
        redis_deadline: Duration::from_secs(2),
        ..patient(&redis)
    })
    .await;
    title(&a, 3).await;
    stored(&a, 1.0).await;
    signal(redis.id().unwrap(), Signal::STOP).unwrap();
    assert_eq!(retitle(&a, 3, "new").await.status, StatusCode::OK);
    assert_eq!(title(&a, 3).await, "new");
    signal(redis.id().unwrap(), Signal::CONT).unwrap();
    // The old value lies in Redis still, and its epoch is the old one until the write is told.
    assert_eq!(title(&a, 3).await, "new");
    eventually("the other instance shows it", async || {
        title(&b, 3).await == "new"
    })
    .await;
    assert_eq!(title(&a, 3).await, "new");
}

#[tokio::test]
async fn one_instance_loads_while_another_waits() {
    let Some(redis) = redis().await else { return };
    let (a, _b, dir) = pair(&redis).await;
    // Another instance has the lock and never stores: this one waits once and loads anyway.
    title(&a, 3).await;
    stored(&a, 1.0).await;
    let value = values(&redis).await.remove(0);
    let lock = value.replacen(":content:", ":lock:content:", 1);
    assert!(
        keys(&redis, &lock).await.is_empty(),
        "given back after the store"
    );
    let mut take = redis::pipe();
    take.cmd("DEL").arg(&value).ignore();
    take.cmd("SET")
        .arg(&lock)
        .arg("another")
        .arg("PX")
        .arg(60_000)
        .ignore();
    take.query_async::<()>(&mut raw(&redis).await)
        .await
        .unwrap();
    let fresh = service_with(Settings {
        database: Some(Place::File(dir.path().join("streamgate.db"))),
        cursor_keys: vec![[7; 32]],
        ..patient(&redis)
    })
    .await;
    let started = std::time::Instant::now();
    title(&fresh, 3).await;
    assert!(started.elapsed() >= Duration::from_millis(50));
    assert!((lookups(&fresh, "l2", "miss").await - 1.0).abs() < 0.5);
}
