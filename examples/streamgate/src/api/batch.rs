//! `POST /v1/content:batch`: up to a thousand contents, all or none, once per idempotency key.
//!
//! Guide 1.3. Metric: `streamgate_batch_rows`. Breaking tests:
//! `a_batch_with_one_bad_row_writes_nothing_and_all_reasons_are_listed`, `a_repeated_key_replays_the_first_answer`.

use std::collections::HashSet;
use std::sync::Arc;

use bytes::{Buf, Bytes};
use futures_util::Stream;
use http::header::CACHE_CONTROL;
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use sha2::{Digest as _, Sha256};
use uuid::Uuid;
use warp::filters::BoxedFilter;
use warp::reply::Response;
use warp::{Filter, path};

use super::ask::{Ask, ask, with};
use super::content_write::{finish, malformed, now_micros};
use super::input::ContentInput;
use super::state::App;
use super::{answer, body, reply};
use crate::db::content_write::{Inserted, NewContent, RowFault};
use crate::db::idempotency::{Keep, KeyState};
use crate::problem::Problem;

const BODY_LIMIT: usize = 4 << 20;
const MOST_ITEMS: usize = 1_000;
const LONGEST_KEY: usize = 128;

/// Items stay raw at first, so that one malformed item does not hide the faults of the others.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Batch<'a> {
    #[serde(borrow)]
    items: Vec<&'a RawValue>,
}

#[derive(Serialize)]
struct Written {
    items: Vec<WrittenItem>,
}

#[derive(Serialize)]
struct WrittenItem {
    id: Uuid,
    version: i64,
}

pub(super) fn route(app: &Arc<App>) -> BoxedFilter<(Response,)> {
    path!("v1" / "content:batch")
        .and(app.observe.agent.route("/v1/content:batch"))
        .and(with(Arc::clone(app)))
        .and(ask())
        .then(async |app, ask| answer(batch(app, ask).await))
        .boxed()
}

async fn batch<S, B>(app: Arc<App>, ask: Ask<S>) -> Result<Response, Problem>
where
    S: Stream<Item = Result<B, warp::Error>> + Send,
    B: Buf,
{
    if ask.method != Method::POST {
        return Err(Problem::MethodNotAllowed("POST"));
    }
    ask.query.finish("none")?;
    let key = idempotency_key(&ask.headers)?;
    let bytes = body::json(&ask.headers, ask.body, BODY_LIMIT).await?;
    let rows = rows(&bytes)?;
    let written = Written {
        items: rows
            .iter()
            .map(|row| WrittenItem {
                id: row.id,
                version: 1,
            })
            .collect(),
    };
    let json = serde_json::to_string(&written).map_err(malformed)?;
    let in_use = match &key {
        Some(key) => Some(app.keys_in_use.take(key).ok_or(Problem::InProgress)?),
        None => None,
    };
    let keep = key.map(|key| Keep {
        key,
        request_hash: hex(&Sha256::digest(&bytes)),
        status: StatusCode::CREATED.as_u16(),
        body: json.clone(),
        now_micros: now_micros(),
    });
    let deadline = app.db.write_deadline();
    let inserted = finish(deadline, async move {
        let inserted = app.db.insert_contents(&rows, keep.as_ref()).await;
        if !matches!(inserted, Ok(Inserted::Refused(_) | Inserted::Known(_))) {
            let ids: Vec<Uuid> = rows.iter().map(|row| row.id).collect();
            let users: HashSet<Uuid> = rows.iter().map(|row| row.user_id).collect();
            app.contents_changed(&ids, &Vec::from_iter(users)).await;
        }
        if matches!(inserted, Ok(Inserted::Done)) {
            app.observe
                .batch_rows
                .record_value(u64::try_from(rows.len()).unwrap_or(u64::MAX));
        }
        // Held until here: whoever is let in next finds the stored answer.
        drop(in_use);
        inserted.map_err(|error| app.refused(error))
    });
    let (status, json) = match inserted.await? {
        Inserted::Done => (StatusCode::CREATED, json),
        Inserted::Refused(faults) => return Err(Problem::BatchInvalid(faults.into())),
        Inserted::Known(KeyState::OtherRequest) => return Err(Problem::KeyMismatch),
        Inserted::Known(KeyState::Answered { status, body }) => (
            StatusCode::from_u16(status).unwrap_or(StatusCode::CREATED),
            body,
        ),
    };
    let mut response = reply::json(status, Bytes::from(json), true);
    response
        .headers_mut()
        .insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    Ok(response)
}

/// All rows, or all reasons why not.
fn rows(bytes: &[u8]) -> Result<Vec<NewContent>, Problem> {
    let batch: Batch<'_> = serde_json::from_slice(bytes).map_err(malformed)?;
    if batch.items.is_empty() || batch.items.len() > MOST_ITEMS {
        return Err(Problem::BatchInvalid(Arc::new([RowFault {
            index: 0,
            field: "items",
            reason: format!("must be 1..={MOST_ITEMS} items (got {})", batch.items.len()),
        }])));
    }
    let now = now_micros();
    let (mut rows, mut faults) = (Vec::with_capacity(batch.items.len()), Vec::new());
    let mut ids = HashSet::new();
    for (index, item) in batch.items.iter().enumerate() {
        let row = serde_json::from_str::<ContentInput>(item.get())
            .map_err(|error| RowFault {
                index,
                field: "item",
                reason: error.to_string(),
            })
            .and_then(|input| {
                input.into_row(now).map_err(|invalid| RowFault {
                    index,
                    field: invalid.field,
                    reason: invalid.reason,
                })
            });
        match row {
            Ok(row) if !ids.insert(row.id) => faults.push(RowFault {
                index,
                field: "id",
                reason: "stands in the batch before".to_owned(),
            }),
            Ok(row) => rows.push(row),
            Err(fault) => faults.push(fault),
        }
    }
    if faults.is_empty() {
        Ok(rows)
    } else {
        Err(Problem::BatchInvalid(faults.into()))
    }
}

fn idempotency_key(headers: &HeaderMap) -> Result<Option<String>, Problem> {
    let Some(value) = headers.get("idempotency-key") else {
        return Ok(None);
    };
    let text = value.to_str().unwrap_or("");
    if text.is_empty() || text.len() > LONGEST_KEY {
        return Err(Problem::parameter(
            "Idempotency-Key",
            "1..=128 visible characters",
            text,
        ));
    }
    Ok(Some(text.to_owned()))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
