//! The archiver against a database and a store in this process.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use sqlx::Executor as _;
use streamgate_agent::Agent;
use uuid::Uuid;

use super::{Archive, ColdStore};
use crate::db::content_write::ContentPatch;
use crate::db::lease::on;
use crate::db::{Database, Direct, Place, PoolSize};
use crate::observe::Observe;

/// Of these, one in 64 is older than a year.
const CONTENTS: u64 = 640;
const OLD: usize = 10;

/// Between the imported contents and the others, whenever the test runs: 2025-07-01.
const BETWEEN_MICROS: i64 = 1_751_328_000_000_000;

/// The age that a content of that time has now.
fn age() -> Duration {
    let then = Duration::from_micros(u64::try_from(BETWEEN_MICROS).unwrap());
    SystemTime::now().duration_since(UNIX_EPOCH + then).unwrap()
}

struct Bench {
    db: Database,
    archive: Archive,
    place: Place,
    _dir: Option<tempfile::TempDir>,
}

async fn bench() -> Bench {
    let dir = tempfile::tempdir().unwrap();
    let place = Place::File(dir.path().join("test.db"));
    bench_on(place, Some(dir)).await
}

async fn bench_on(place: Place, dir: Option<tempfile::TempDir>) -> Bench {
    let agent = Agent::builder("test").no_listener().start().unwrap();
    let observe = Observe::new(agent).unwrap();
    let mut direct = Direct::open(&place).await.unwrap();
    direct.migrate().await.unwrap();
    crate::seed::insert::seed(&mut direct, 1, 20, CONTENTS)
        .await
        .unwrap();
    let size = PoolSize {
        max: 4,
        instances: 1,
    };
    let db = Database::open(&place, size, Duration::from_secs(20), &observe)
        .await
        .unwrap();
    let archive = Archive::new(ColdStore::in_memory(), observe, age(), None);
    Bench {
        db,
        archive,
        place,
        _dir: dir,
    }
}

/// Id, body and metadata of the contents older than a year, from the table itself.
async fn old_rows(bench: &Bench) -> Vec<(Uuid, String, String)> {
    let sql = "SELECT id, body, metadata FROM content WHERE created_at < $1 ORDER BY id";
    let mut direct = Direct::open(&bench.place).await.unwrap();
    let rows: Vec<(String, String, String)> = on!(direct.to(), |on| {
        let rows = sqlx::query_as(sql).bind(BETWEEN_MICROS).fetch_all(on);
        rows.await.unwrap()
    });
    let rows = rows
        .into_iter()
        .map(|(id, body, metadata)| (Uuid::try_parse(&id).unwrap(), body, metadata));
    rows.collect()
}

async fn count(bench: &Bench, sql: &'static str) -> i64 {
    let mut direct = Direct::open(&bench.place).await.unwrap();
    on!(direct.to(), |on| sqlx::query_scalar(sql)
        .fetch_one(on)
        .await
        .unwrap())
}

async fn execute(bench: &Bench, sql: &'static str) {
    let mut direct = Direct::open(&bench.place).await.unwrap();
    on!(direct.to(), |on| drop(on.execute(sql).await.unwrap()));
}

async fn run(bench: &Bench) -> (u64, u64) {
    let run = bench.archive.run_all(&bench.db, |_| std::future::ready(()));
    run.await.unwrap()
}

/// Whether every row reads as it was, wherever it lies.
async fn assert_readable(bench: &Bench, rows: &[(Uuid, String, String)]) {
    for (id, body, metadata) in rows {
        let mut content = bench.db.content(*id).await.unwrap().unwrap();
        if content.storage == crate::db::content::Storage::Cold {
            assert!(content.body.is_empty(), "{id} has two copies that count");
            assert!(bench.archive.fill(&bench.db, &mut content).await.unwrap());
        }
        assert_eq!(&content.body, body);
        assert_eq!(content.metadata.get(), metadata);
    }
}

#[tokio::test]
async fn what_is_older_than_a_year_is_archived_and_reads_as_before() {
    let bench = bench().await;
    let rows = old_rows(&bench).await;
    assert_eq!(rows.len(), OLD);
    assert_eq!(run(&bench).await, (OLD as u64, 0));
    assert_eq!(run(&bench).await, (0, 0), "a second run finds nothing");
    let cold = count(
        &bench,
        "SELECT COUNT(*) FROM content WHERE archive_state = 'archived'",
    );
    assert_eq!(cold.await, OLD as i64);
    let manifests = count(&bench, "SELECT COUNT(*) FROM content_archive");
    assert_eq!(manifests.await, OLD as i64);
    assert_readable(&bench, &rows).await;
}

#[tokio::test]
async fn a_restored_row_is_whole_and_stays() {
    let bench = bench().await;
    let rows = old_rows(&bench).await;
    run(&bench).await;
    let id = rows[0].0.to_string();
    assert!(bench.archive.restore(&bench.db, &id).await.unwrap());
    assert!(
        !bench.archive.restore(&bench.db, &id).await.unwrap(),
        "it is back already"
    );
    assert_eq!(old_rows(&bench).await[0], rows[0]);
    assert_eq!(run(&bench).await, (0, 0), "the archiver leaves it alone");
    let manifests = count(&bench, "SELECT COUNT(*) FROM content_archive");
    assert_eq!(manifests.await, OLD as i64 - 1);
    assert_readable(&bench, &rows).await;
}

#[tokio::test]
async fn a_content_changed_under_the_lease_keeps_its_payload() {
    let bench = bench().await;
    let rows = old_rows(&bench).await;
    let owner = Uuid::now_v7();
    let leased = bench
        .db
        .archive_claim(owner, bench.archive.terms, 500)
        .await
        .unwrap();
    let packed = super::frame::Packed::of(&leased).unwrap();
    let patch = ContentPatch {
        body: Some("changed".to_owned()),
        ..ContentPatch::default()
    };
    let changed = bench.db.update_content(rows[3].0, &patch, 1, |_| true);
    changed.await.unwrap();
    let key = bench.archive.store.put(packed.bytes.into()).await.unwrap();
    let moved = bench.db.archive_commit(owner, &key, &packed.frames).await;
    assert_eq!(moved.unwrap().unwrap().len(), OLD - 1);
    let content = bench.db.content(rows[3].0).await.unwrap().unwrap();
    assert_eq!(content.body, "changed");
    assert_eq!(bench.db.archive_release(owner).await.unwrap(), 1);
    let others = rows
        .into_iter()
        .filter(|(id, _, _)| content.id != id.to_string());
    assert_readable(&bench, &others.collect::<Vec<_>>()).await;
}

#[tokio::test]
async fn a_lease_keeps_others_away_until_it_is_over_and_then_commits_nothing() {
    let bench = bench().await;
    let terms = bench.archive.terms;
    let (first, second) = (Uuid::now_v7(), Uuid::now_v7());
    let leased = bench.db.archive_claim(first, terms, 500).await.unwrap();
    assert_eq!(leased.len(), OLD);
    let none = bench.db.archive_claim(second, terms, 500).await.unwrap();
    assert!(none.is_empty());
    execute(
        &bench,
        "UPDATE content SET lease_until = 1 WHERE lease_owner IS NOT NULL",
    )
    .await;
    let taken = bench.db.archive_claim(second, terms, 500).await.unwrap();
    assert_eq!(taken.len(), OLD);
    let packed = super::frame::Packed::of(&leased).unwrap();
    let key = bench.archive.store.put(packed.bytes.into()).await.unwrap();
    let late = bench.db.archive_commit(first, &key, &packed.frames).await;
    assert_eq!(late.unwrap(), Some(Vec::new()), "the lease was lost");
    let moved = bench.db.archive_commit(second, &key, &packed.frames).await;
    assert_eq!(moved.unwrap().unwrap().len(), OLD);
}

#[tokio::test]
async fn two_archivers_at_once_move_each_row_once() {
    let bench = bench().await;
    let rows = old_rows(&bench).await;
    let (one, other) = tokio::join!(run(&bench), run(&bench));
    assert_eq!(one.0 + other.0, OLD as u64);
    assert_readable(&bench, &rows).await;
}

#[tokio::test]
async fn an_orphan_goes_after_a_day_and_a_used_object_stays() {
    let bench = bench().await;
    let rows = old_rows(&bench).await;
    run(&bench).await;
    let orphan = bench.archive.store.put(Bytes::from_static(b"left behind"));
    let orphan = orphan.await.unwrap();
    assert_eq!(
        bench.archive.sweep(&bench.db).await.unwrap(),
        0,
        "too young"
    );
    let tomorrow = bench.db.archive_clock().await.unwrap() + 86_400_000_000;
    let removed = bench.archive.sweep_before(&bench.db, tomorrow);
    assert_eq!(removed.await.unwrap(), 1);
    assert!(bench.archive.store.get(&orphan).await.is_err());
    assert_readable(&bench, &rows).await;
    // The last reference gone, the object is an orphan as well.
    for (id, _, _) in &rows {
        let removed = bench.db.delete_content(*id, |_| true);
        removed.await.unwrap();
    }
    let removed = bench.archive.sweep_before(&bench.db, tomorrow);
    assert_eq!(removed.await.unwrap(), 1);
    assert_eq!(
        count(&bench, "SELECT COUNT(*) FROM archive_object").await,
        0
    );
}

#[tokio::test]
async fn an_object_about_to_be_removed_takes_no_manifest() {
    let bench = bench().await;
    let rows = old_rows(&bench).await;
    let owner = Uuid::now_v7();
    let leased = bench
        .db
        .archive_claim(owner, bench.archive.terms, 500)
        .await
        .unwrap();
    let packed = super::frame::Packed::of(&leased).unwrap();
    let key = bench.archive.store.put(packed.bytes.into()).await.unwrap();
    assert!(bench.db.archive_doom(&key).await.unwrap());
    let refused = bench.db.archive_commit(owner, &key, &packed.frames).await;
    assert_eq!(refused.unwrap(), None);
    bench.db.archive_release(owner).await.unwrap();
    // The sweep that was cut off between mark and removal is finished by the next.
    let tomorrow = bench.db.archive_clock().await.unwrap() + 86_400_000_000;
    let removed = bench.archive.sweep_before(&bench.db, tomorrow);
    assert_eq!(removed.await.unwrap(), 1);
    assert_eq!(run(&bench).await.0, OLD as u64);
    assert!(!bench.db.archive_doom(&key).await.unwrap(), "it is in use");
    assert_readable(&bench, &rows).await;
}

#[tokio::test]
async fn a_damaged_object_is_written_over_before_it_counts() {
    let bench = bench().await;
    let rows = old_rows(&bench).await;
    let owner = Uuid::now_v7();
    let leased = bench
        .db
        .archive_claim(owner, bench.archive.terms, 500)
        .await
        .unwrap();
    bench.db.archive_release(owner).await.unwrap();
    let packed = super::frame::Packed::of(&leased).unwrap();
    let key = bench.archive.store.put(packed.bytes.into()).await.unwrap();
    let damage = bench
        .archive
        .store
        .put_over(&key, Bytes::from_static(b"torn"));
    damage.await.unwrap();
    assert_eq!(run(&bench).await.0, OLD as u64);
    assert_readable(&bench, &rows).await;
    let damage = bench
        .archive
        .store
        .put_over(&key, Bytes::from(vec![0; 1 << 20]));
    damage.await.unwrap();
    let mut content = bench.db.content(rows[0].0).await.unwrap().unwrap();
    let read = bench.archive.fill(&bench.db, &mut content).await;
    assert!(read.is_err(), "damage is an error and never an answer");
}

/// The same on the other database.
#[tokio::test]
async fn on_postgresql_contents_go_to_the_archive_and_come_back() {
    let Some(server) = crate::servers::postgres::for_tests().await else {
        return;
    };
    let bench = bench_on(server.url().parse().unwrap(), None).await;
    let rows = old_rows(&bench).await;
    assert_eq!(rows.len(), OLD);
    let (archived, _) = run(&bench).await;
    assert_eq!(archived, OLD as u64);
    assert_readable(&bench, &rows).await;
    assert_eq!(
        count(&bench, "SELECT COUNT(*) FROM content_archive").await,
        10
    );
    assert_eq!(run(&bench).await.0, 0, "once is enough");
    let (id, body, metadata) = &rows[0];
    let id = id.to_string();
    let restored = bench
        .db
        .archive_restore(&id, body, metadata, Duration::from_secs(60));
    assert!(restored.await.unwrap());
    assert_readable(&bench, &rows).await;
    assert_eq!(run(&bench).await.0, 0, "a restored content rests");
}
