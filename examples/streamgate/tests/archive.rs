//! Cold storage over real processes: what a killed archiver leaves behind, and what clients see.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a panic is how a test says that the contract is broken"
)]

#[path = "api/database.rs"]
#[expect(dead_code, reason = "nobody here looks at a pool")]
mod database;
#[path = "api/support.rs"]
#[expect(dead_code, reason = "another test binary uses the rest")]
mod support;

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Read as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use http::Method;
use sha2::{Digest as _, Sha256};
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{ConnectOptions as _, SqliteConnection};
use streamgate::settings::{Place, Settings};

use support::{Service, content, service_with, settings};

/// Of the contents with these indexes, one in 64 is older than a year.
const CONTENTS: u32 = 640;
const OLD: usize = 10;

/// Between the imported contents and the others, whenever the test runs: 2025-07-01.
const BETWEEN_MICROS: i64 = 1_751_328_000_000_000;

/// Whole days since then.
fn days() -> u64 {
    let then = Duration::from_micros(u64::try_from(BETWEEN_MICROS).unwrap());
    let age = SystemTime::now().duration_since(UNIX_EPOCH + then).unwrap();
    age.as_secs() / 86_400
}

struct Files {
    database: PathBuf,
    archive: PathBuf,
    _dir: tempfile::TempDir,
}

impl Files {
    /// A seeded database and an empty archive.
    async fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let files = Self {
            database: dir.path().join("streamgate.db"),
            archive: dir.path().join("archive"),
            _dir: dir,
        };
        files
            .serve()
            .await
            .running
            .stop(Duration::from_secs(60))
            .await;
        files
    }

    fn settings(&self) -> Settings {
        Settings {
            database: Some(Place::File(self.database.clone())),
            archive_dir: Some(self.archive.clone()),
            contents: CONTENTS,
            archive_after: Duration::from_secs(days() * 86_400),
            ..settings()
        }
    }

    async fn serve(&self) -> Service {
        service_with(self.settings()).await
    }

    async fn connect(&self) -> SqliteConnection {
        let options = SqliteConnectOptions::new()
            .filename(&self.database)
            .busy_timeout(Duration::from_secs(60));
        options.connect().await.unwrap()
    }

    fn archiver(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_streamgate"));
        command
            .args(["archive", "--database"])
            .arg(&self.database)
            .arg("--archive-dir")
            .arg(&self.archive)
            .arg(format!("--archive-after-days={}", days()))
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }

    /// Lets an archiver come to a step and kills it there.
    fn kill_at(&self, step: &str) {
        let mut child = self
            .archiver()
            .args(["--archive-crash-at", step])
            .spawn()
            .unwrap();
        let mut line = String::new();
        let out = child.stdout.take().unwrap();
        BufReader::new(out).read_line(&mut line).unwrap();
        kill(&mut child);
        let mut said = String::new();
        let mut err = child.stderr.take().unwrap();
        err.read_to_string(&mut said).unwrap();
        assert_eq!(line.trim_end(), format!("halted at {step}"), "{said}");
    }

    /// An archiver that nobody disturbs; what it says at the end.
    fn archive(&self) -> String {
        let output = self.archiver().output().unwrap();
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success(), "{output:?}");
        said
    }
}

/// SIGKILL, on this system.
fn kill(child: &mut Child) {
    child.kill().unwrap();
    child.wait().unwrap();
}

/// What each old content must read as: the hash over body and metadata.
type Hashes = BTreeMap<String, String>;

fn hash(body: &str, metadata: &str) -> String {
    let digest: [u8; 32] = Sha256::digest(format!("{body}\0{metadata}")).into();
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Reads every old content from where its state says that it lies, by the documented format and none of the
/// service's code; fails where two copies count, or none.
async fn read_all(files: &Files, conn: &mut SqliteConnection) -> Hashes {
    type Row = (
        String,
        String,
        String,
        String,
        Option<String>,
        Option<i64>,
        Option<i64>,
    );
    let rows: Vec<Row> = sqlx::query_as(
        "SELECT c.id, c.archive_state, c.body, c.metadata, a.object_key, a.\"offset\", a.length \
         FROM content c LEFT JOIN content_archive a ON a.content_id = c.id \
         WHERE c.created_at < $1",
    )
    .bind(BETWEEN_MICROS)
    .fetch_all(conn)
    .await
    .unwrap();
    let mut hashes = Hashes::new();
    for (id, state, body, metadata, key, offset, length) in rows {
        let read = if state == "archived" {
            assert_eq!(
                (body.as_str(), metadata.as_str()),
                ("", "{}"),
                "{id}: two copies"
            );
            let frame = frame(
                &files.archive,
                &key.unwrap(),
                offset.unwrap(),
                length.unwrap(),
            );
            let payload = zstd::bulk::decompress(&frame, 1 << 20).unwrap();
            let payload: BTreeMap<String, Box<serde_json::value::RawValue>> =
                serde_json::from_slice(&payload).unwrap();
            let body: String = serde_json::from_str(payload["body"].get()).unwrap();
            hash(&body, payload["metadata"].get())
        } else {
            assert!(key.is_none(), "{id}: a manifest for a row in state {state}");
            hash(&body, &metadata)
        };
        hashes.insert(id, read);
    }
    assert_eq!(hashes.len(), OLD);
    hashes
}

fn frame(archive: &Path, key: &str, offset: i64, length: i64) -> Vec<u8> {
    let path = archive
        .join("content")
        .join(key.get(..2).unwrap())
        .join(key);
    let object = std::fs::read(path).unwrap();
    let start = usize::try_from(offset).unwrap();
    object[start..start + usize::try_from(length).unwrap()].to_vec()
}

/// Lets every lease be over, as after five minutes.
async fn let_leases_end(conn: &mut SqliteConnection) {
    sqlx::query("UPDATE content SET lease_until = 1 WHERE lease_owner IS NOT NULL")
        .execute(conn)
        .await
        .unwrap();
}

/// Puts one content back as if it had been restored and its rest were over, so that the next archiver has
/// work: the test's own way back, so that a fault of the service's is not hidden by its twin.
async fn put_back(files: &Files, conn: &mut SqliteConnection) {
    let (id, key, offset, length): (String, String, i64, i64) = sqlx::query_as(
        "SELECT content_id, object_key, \"offset\", length FROM content_archive LIMIT 1",
    )
    .fetch_one(&mut *conn)
    .await
    .unwrap();
    let payload = zstd::bulk::decompress(&frame(&files.archive, &key, offset, length), 1 << 20);
    let payload: BTreeMap<String, Box<serde_json::value::RawValue>> =
        serde_json::from_slice(&payload.unwrap()).unwrap();
    let body: String = serde_json::from_str(payload["body"].get()).unwrap();
    sqlx::query(
        "UPDATE content SET archive_state = 'active', body = $2, metadata = $3 WHERE id = $1",
    )
    .bind(&id)
    .bind(&body)
    .bind(payload["metadata"].get())
    .execute(&mut *conn)
    .await
    .unwrap();
    sqlx::query("DELETE FROM content_archive WHERE content_id = $1")
        .bind(&id)
        .execute(&mut *conn)
        .await
        .unwrap();
}

/// 100 times, or `STREAMGATE_ARCHIVE_KILLS`: 25 at each step.
#[tokio::test]
async fn killed_at_every_step_each_id_is_readable_with_its_hash() {
    let kills: usize =
        std::env::var("STREAMGATE_ARCHIVE_KILLS").map_or(100, |text| text.parse().unwrap());
    let files = Files::new().await;
    let mut conn = files.connect().await;
    let before = read_all(&files, &mut conn).await;
    for (n, step) in (0..kills).zip(["leased", "stored", "verified", "archived"].iter().cycle()) {
        files.kill_at(step);
        assert_eq!(
            read_all(&files, &mut conn).await,
            before,
            "kill {n} at {step}"
        );
        let_leases_end(&mut conn).await;
        if *step == "archived" {
            put_back(&files, &mut conn).await;
        }
    }
    assert!(files.archive().starts_with("archived "));
    assert_eq!(files.archive(), "archived 0 contents, removed 0 orphans\n");
    assert_eq!(read_all(&files, &mut conn).await, before);
    drop(conn);
    let service = files.serve().await;
    for (id, hashed) in before {
        let body = service.get(&format!("/v1/content/{id}")).await.json();
        assert_eq!(body["storage"], "cold");
        let metadata = body["metadata"].to_string();
        assert_eq!(hash(body["body"].as_str().unwrap(), &metadata), hashed);
    }
}

#[tokio::test]
async fn two_archivers_at_once_leave_one_copy_of_each() {
    let files = Files::new().await;
    let mut conn = files.connect().await;
    let before = read_all(&files, &mut conn).await;
    let children: Vec<Child> = (0..2).map(|_| files.archiver().spawn().unwrap()).collect();
    let mut archived = 0;
    for child in children {
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success(), "{output:?}");
        let said = String::from_utf8(output.stdout).unwrap();
        archived += said.split(' ').nth(1).unwrap().parse::<usize>().unwrap();
    }
    assert_eq!(archived, OLD);
    assert_eq!(read_all(&files, &mut conn).await, before);
}

#[tokio::test]
async fn a_cold_content_is_read_changed_and_removed_like_any_other() {
    let files = Files::new().await;
    let service = files.serve().await;
    let path = format!("/v1/content/{}", content(63));
    let hot = service.get(&path).await;
    assert_eq!(hot.json()["storage"], "hot");
    let narrow = service.get(&format!("{path}?fields=id,body")).await;
    service.running.stop(Duration::from_secs(60)).await;

    assert_eq!(
        files.archive(),
        format!("archived {OLD} contents, removed 0 orphans\n")
    );
    let service = files.serve().await;
    let cold = service.get(&path).await;
    let mut expected = hot.json();
    expected["storage"] = "cold".into();
    assert_eq!(cold.json(), expected);
    assert_ne!(cold.header("etag"), hot.header("etag"), "other bytes");
    let again = service.get(&format!("{path}?fields=id,body")).await;
    assert_eq!(again.body, narrow.body);
    assert_eq!(
        again.header("etag"),
        narrow.header("etag"),
        "the same bytes"
    );
    let known = [("if-none-match", cold.header("etag"))];
    assert_eq!(service.get_with(&path, &known).await.status, 304);

    let headers = [
        ("content-type", "application/json"),
        ("if-match", hot.header("etag")),
    ];
    let changed = service
        .send(Method::PATCH, &path, &headers, r#"{"title":"new"}"#)
        .await;
    assert_eq!(changed.status, 200, "{changed:?}");
    assert_eq!(changed.json()["body"], expected["body"]);
    let read = service.get(&path).await.json();
    assert_eq!(
        (&read["title"], &read["storage"]),
        (&"new".into(), &"hot".into())
    );
    assert_eq!(read["body"], expected["body"]);
    assert_eq!(read["body_bytes"], expected["body_bytes"]);
    let restored = service.metric("streamgate_archive_rows_total", &["restored"]);
    assert!((restored.await - 1.0).abs() < 0.5);

    let other = format!("/v1/content/{}", content(127));
    let removed = service
        .send(Method::DELETE, &other, &[("if-match", "*")], "")
        .await;
    assert_eq!(removed.status, 204);
    assert_eq!(service.get(&other).await.status, 404);
}

#[tokio::test]
async fn the_service_archives_by_itself_and_counts_each_step() {
    let files = Files::new().await;
    let service = service_with(Settings {
        archive_every: Some(Duration::from_secs(3_600)),
        ..files.settings()
    })
    .await;
    support::eventually("all old contents are archived", || async {
        let archived = service.metric("streamgate_archive_rows_total", &["\"archived\""]);
        archived.await > 9.5
    })
    .await;
    for step in ["\"leased\"", "\"stored\"", "\"verified\""] {
        let labels = [step];
        let counted = service.metric("streamgate_archive_rows_total", &labels);
        assert!((counted.await - 10.0).abs() < 0.5, "{step}");
    }
    support::eventually(
        "the oldest left is younger than what is archived",
        || async {
            let age = service
                .metric("streamgate_archive_oldest_age_seconds", &[])
                .await;
            age > 0.0 && age < days() as f64 * 86_400.0
        },
    )
    .await;
    let page = service.get(&format!("/v1/content/{}", content(63))).await;
    assert_eq!(page.json()["storage"], "cold");
}
