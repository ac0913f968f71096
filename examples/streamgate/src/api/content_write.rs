//! `POST /v1/content`, `PATCH` and `DELETE /v1/content/{id}`.
//!
//! Guide 2.3. Breaking tests: `the_writer_reads_his_own_write_in_every_view`,
//! `a_change_needs_if_match_and_the_current_version`.
//!
//! A write and its invalidation run in a task of their own: a client that leaves between commit and
//! invalidation must not leave a stale cache behind.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Buf;
use futures_util::Stream;
use http::header::{CACHE_CONTROL, LOCATION};
use http::{HeaderValue, StatusCode};
use serde_json::value::RawValue;
use uuid::Uuid;
use warp::reply::Response;

use super::ask::Ask;
use super::body;
use super::content::represent;
use super::etag::Expected;
use super::input::{ContentInput, Invalid, PatchInput};
use super::state::App;
use crate::db::content::{Content, Storage};
use crate::db::content_write::{Guarded, Inserted, NewContent};
use crate::problem::Problem;

/// Largest body of one content.
const BODY_LIMIT: usize = 64 << 10;

/// Writes one content.
pub(super) async fn create<S, B>(app: Arc<App>, ask: Ask<S>) -> Result<Response, Problem>
where
    S: Stream<Item = Result<B, warp::Error>> + Send,
    B: Buf,
{
    ask.query.finish("none")?;
    let bytes = body::json(&ask.headers, ask.body, BODY_LIMIT).await?;
    let input: ContentInput = serde_json::from_slice(&bytes).map_err(malformed)?;
    let row = input.into_row(now_micros()).map_err(refuse)?;
    let content = as_stored(&row)?;
    let deadline = app.db.write_deadline();
    let buffers = app.work.buffers.clone();
    let inserted = finish(deadline, async move {
        let inserted = app
            .db
            .insert_contents(std::slice::from_ref(&row), None)
            .await;
        app.contents_changed(&[row.id], &[row.user_id]).await;
        inserted.map_err(|error| app.refused(error))
    });
    match inserted.await? {
        Inserted::Done | Inserted::Known(_) => {}
        Inserted::Refused(faults) => {
            let taken = faults.iter().any(|fault| fault.field == "id");
            return Err(if taken {
                Problem::Exists
            } else {
                Problem::parameter("user_id", "the id of a user", &content.user_id)
            });
        }
    }
    let mut response = represent(&buffers, StatusCode::CREATED, &content)?;
    let location = HeaderValue::try_from(format!("/v1/content/{}", content.id));
    if let Ok(location) = location {
        response.headers_mut().insert(LOCATION, location);
    }
    Ok(not_stored(response))
}

/// Changes some fields of one content.
pub(super) async fn change<S, B>(app: Arc<App>, id: Uuid, ask: Ask<S>) -> Result<Response, Problem>
where
    S: Stream<Item = Result<B, warp::Error>> + Send,
    B: Buf,
{
    ask.query.finish("none")?;
    let expected = Expected::of(&ask.headers)?;
    let bytes = body::json(&ask.headers, ask.body, BODY_LIMIT).await?;
    let input: PatchInput = serde_json::from_slice(&bytes).map_err(malformed)?;
    let patch = input.into_patch().map_err(refuse)?;
    let deadline = app.db.write_deadline();
    let buffers = app.work.buffers.clone();
    let changed = finish(deadline, async move {
        let accepts = |version| expected.accepts(version);
        let mut changed = app
            .db
            .update_content(id, &patch, now_micros(), accepts)
            .await;
        // Restored, it rests: the archiver cannot take it again in between.
        if matches!(changed, Ok(Guarded::Cold)) {
            app.restore(id).await.map_err(|error| app.refused(error))?;
            changed = app
                .db
                .update_content(id, &patch, now_micros(), accepts)
                .await;
        }
        settle(&app, id, &changed).await;
        changed.map_err(|error| app.refused(error))
    });
    match changed.await? {
        Guarded::Done { value, .. } => represent(&buffers, StatusCode::OK, &value).map(not_stored),
        Guarded::Missing => Err(Problem::NotFound),
        Guarded::Stale => Err(Problem::PreconditionFailed),
        Guarded::Cold => Err(Problem::Overloaded),
    }
}

/// Removes one content.
pub(super) async fn remove<S>(app: Arc<App>, id: Uuid, ask: Ask<S>) -> Result<Response, Problem> {
    ask.query.finish("none")?;
    let expected = Expected::of(&ask.headers)?;
    let deadline = app.db.write_deadline();
    let removed = finish(deadline, async move {
        let removed = app
            .db
            .delete_content(id, |version| expected.accepts(version))
            .await;
        settle(&app, id, &removed).await;
        removed.map_err(|error| app.refused(error))
    });
    match removed.await? {
        Guarded::Done { .. } => {
            let mut response = Response::default();
            *response.status_mut() = StatusCode::NO_CONTENT;
            Ok(response)
        }
        Guarded::Missing => Err(Problem::NotFound),
        // A removal asks for no payload.
        Guarded::Stale | Guarded::Cold => Err(Problem::PreconditionFailed),
    }
}

/// Invalidates after a write. A failed one counts too: its commit may have succeeded unheard.
async fn settle<T>(app: &App, id: Uuid, outcome: &Result<Guarded<T>, crate::db::DbError>) {
    match outcome {
        Ok(Guarded::Missing | Guarded::Stale | Guarded::Cold) => {}
        Ok(Guarded::Done { user_id, .. }) => {
            let user = Uuid::try_parse(user_id).ok();
            app.contents_changed(&[id], user.as_slice()).await;
        }
        Err(_) => app.contents_changed(&[id], &[]).await,
    }
}

/// Runs to the end whether or not the client stays; whoever waits is answered within `deadline`.
pub(super) async fn finish<T: Send + 'static>(
    deadline: Duration,
    write: impl Future<Output = Result<T, Problem>> + Send + 'static,
) -> Result<T, Problem> {
    let written = tokio::spawn(streamgate_agent::in_request(write));
    match tokio::time::timeout(deadline, written).await {
        Ok(Ok(outcome)) => outcome,
        Ok(Err(panicked)) => Err(Problem::Internal(Arc::new(panicked))),
        // A commit under way may still succeed, so the task goes on, and invalidates at its end.
        Err(_) => Err(Problem::Overloaded),
    }
}

pub(super) fn malformed(error: serde_json::Error) -> Problem {
    // The text of the parser names fields and places of the client's own JSON.
    Problem::BadParameter(format!(
        "the body must be a JSON object of the resource ({error})"
    ))
}

pub(super) fn now_micros() -> i64 {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    i64::try_from(since.as_micros()).unwrap_or(i64::MAX)
}

fn refuse(invalid: Invalid) -> Problem {
    Problem::BadParameter(format!("{} {}", invalid.field, invalid.reason))
}

/// The answer to a write is for the writer alone.
fn not_stored(mut response: Response) -> Response {
    response
        .headers_mut()
        .insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// The row as a reader would find it.
fn as_stored(row: &NewContent) -> Result<Content, Problem> {
    let metadata = RawValue::from_string(row.metadata.clone()).map_err(malformed)?;
    Ok(Content {
        id: row.id.to_string(),
        user_id: row.user_id.to_string(),
        title: row.title.clone(),
        description: row.description.clone(),
        status: row.status.to_owned(),
        kind: row.kind.clone(),
        visibility: row.visibility.to_owned(),
        body: row.body.clone(),
        body_bytes: i64::try_from(row.body.len()).unwrap_or(i64::MAX),
        version: 1,
        metadata,
        created_at: row.created_at,
        updated_at: row.created_at,
        storage: Storage::Hot,
    })
}
