//! `GET /v1/content`, `GET /v1/content/{id}` and the methods of both paths.

use std::sync::Arc;

use bytes::Buf;
use futures_util::Stream;
use http::{Method, StatusCode};
use serde::ser::{Serialize, SerializeMap as _, Serializer};
use uuid::Uuid;
use warp::filters::BoxedFilter;
use warp::reply::Response;
use warp::{Filter, path};

use super::ask::{Ask, Query, ask, with};
use super::content_write;
use super::cursor::ListId;
use super::etag::BaseTag;
use super::fields::{FieldSet, Selectable as _, Selected};
use super::input::{STATUSES, one_of};
use super::list::{List, list};
use super::page::by_id;
use super::state::{App, ContentView};
use super::{answer, reply};
use crate::cache::{CacheKey, Resource, Tag, Variant};
use crate::db::content::{Content, ContentFilter, ContentSummary};
use crate::db::nft::Nft;
use crate::db::{Database, DbError, Position};
use crate::problem::Problem;
use crate::work::buffers::Buffers;

/// Names of the fields, numbers and punctuation: what the JSON of a content has beside its texts. More
/// only costs a larger buffer.
const AROUND: usize = 512;

/// The collection and its items.
pub(super) fn routes(app: &Arc<App>) -> BoxedFilter<(Response,)> {
    let agent = &app.observe.agent;
    let collection = path!("v1" / "content")
        .and(agent.route("/v1/content"))
        .and(with(Arc::clone(app)))
        .and(ask())
        .then(async |app, ask| answer(collection(app, ask).await));
    let item = path!("v1" / "content" / String)
        .and(agent.route("/v1/content/{id}"))
        .and(with(Arc::clone(app)))
        .and(ask())
        .then(async |id: String, app, ask| answer(item(&id, app, ask).await));
    collection.or(item).unify().boxed()
}

async fn collection<S, B>(app: Arc<App>, ask: Ask<S>) -> Result<Response, Problem>
where
    S: Stream<Item = Result<B, warp::Error>> + Send,
    B: Buf,
{
    match ask.method {
        Method::GET => list::<ContentFilter>(&app, ask.query).await,
        Method::POST => content_write::create(app, ask).await,
        _ => Err(Problem::MethodNotAllowed("GET, HEAD, POST")),
    }
}

async fn item<S, B>(id: &str, app: Arc<App>, ask: Ask<S>) -> Result<Response, Problem>
where
    S: Stream<Item = Result<B, warp::Error>> + Send,
    B: Buf,
{
    let parsed = uuid("id", id);
    match ask.method {
        Method::GET => detail(&app, parsed?, ask.query).await,
        Method::PATCH => content_write::change(app, parsed?, ask).await,
        Method::DELETE => content_write::remove(app, parsed?, ask).await,
        _ => Err(Problem::MethodNotAllowed("GET, HEAD, PATCH, DELETE")),
    }
}

impl List for ContentFilter {
    type Row = ContentSummary;

    const RESOURCE: Resource = Resource::Content;
    const PARAMETERS: &'static str = "user_id, status";

    fn take(query: &mut Query) -> Result<Self, Problem> {
        let user_id = query
            .take("user_id")?
            .map(|text| uuid("user_id", &text))
            .transpose()?;
        let status = query.take("status")?;
        let status = status.map(|text| {
            one_of("status", &text, STATUSES).map_err(|_| {
                Problem::parameter("status", &format!("one of {}", STATUSES.join(", ")), &text)
            })
        });
        Ok(Self {
            user_id,
            status: status.transpose()?,
        })
    }

    fn id(&self) -> ListId {
        ListId(format!(
            "content|{}|{}",
            self.user_id.map(|id| id.to_string()).unwrap_or_default(),
            self.status.unwrap_or_default()
        ))
    }

    fn tag(&self) -> Tag {
        self.user_id.map_or(Tag::AllContents, Tag::User)
    }

    async fn rows(
        &self,
        db: &Database,
        after: Position,
        limit: u32,
    ) -> Result<Vec<ContentSummary>, DbError> {
        let rows = db.content_page(self, after, limit).await?;
        db.read_again_one_by_one(&rows).await?;
        Ok(rows)
    }

    fn position(row: &ContentSummary) -> Option<Position> {
        by_id(&row.id)
    }

    fn is_gated(row: &ContentSummary) -> bool {
        row.visibility != "public"
    }
}

async fn detail(app: &Arc<App>, id: Uuid, mut query: Query) -> Result<Response, Problem> {
    let fields = FieldSet::parse::<Content>(query.take("fields")?.as_deref())?;
    let with_nfts = match query.take("expand")?.as_deref() {
        None => false,
        Some("nfts") => true,
        Some(other) => return Err(Problem::parameter("expand", "nfts", other)),
    };
    query.finish("fields, expand")?;

    let variant = if with_nfts {
        Variant::WithNfts
    } else {
        Variant::Row
    };
    let key = CacheKey::row(Resource::Content, id, variant);
    let load = {
        let app = Arc::clone(app);
        move || {
            let app = Arc::clone(&app);
            async move {
                if with_nfts {
                    let found = app.db.content_with_nfts(id).await?;
                    Ok(found.map(|(content, nfts)| ContentView {
                        content,
                        nfts: Some(nfts),
                    }))
                } else {
                    let found = app.db.content(id).await?;
                    Ok(found.map(|content| ContentView {
                        content,
                        nfts: None,
                    }))
                }
            }
        }
    };
    let found = app.contents.get(key, &[Tag::Content(id)], load).await;
    let view = found
        .map_err(|error| app.refused(error))?
        .ok_or(Problem::NotFound)?;
    let buffers = &app.work.buffers;
    let nfts = view.nfts.as_deref();
    represent(buffers, StatusCode::OK, &view.content, nfts, fields)
}

/// A content as JSON with its tag.
pub(super) fn represent(
    buffers: &Buffers,
    status: StatusCode,
    content: &Content,
    nfts: Option<&[Nft]>,
    fields: FieldSet,
) -> Result<Response, Problem> {
    let shown = Expanded {
        content,
        nfts,
        fields,
    };
    let json = reply::written(buffers, content.heap_bytes() + AROUND, &shown)?;
    let tag = match nfts {
        Some(_) => BaseTag::of_body(content.version, fields, &json),
        None => BaseTag::of_row(content.version, fields),
    };
    Ok(reply::tagged(status, json, content.is_gated(), &tag))
}

/// Parses an id before anything is looked up.
pub(super) fn uuid(name: &str, text: &str) -> Result<Uuid, Problem> {
    Uuid::try_parse(text).map_err(|_| Problem::parameter(name, "a UUID", text))
}

/// The chosen fields of a content, and its NFTs where asked for.
struct Expanded<'a> {
    content: &'a Content,
    nfts: Option<&'a [Nft]>,
    fields: FieldSet,
}

impl Serialize for Expanded<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        for place in self.fields.places(Content::FIELDS) {
            self.content.write(place, &mut map)?;
        }
        if let Some(nfts) = self.nfts {
            let all = |row| Selected {
                row,
                fields: FieldSet::ALL,
            };
            map.serialize_entry("nfts", &nfts.iter().map(all).collect::<Vec<_>>())?;
        }
        map.end()
    }
}
