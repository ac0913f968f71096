//! `GET /v1/content`, `GET /v1/content/{id}` and the methods of both paths.

use std::sync::{Arc, OnceLock};

use bytes::{Buf, Bytes};
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
use super::kept::Kept;
use super::list::{List, list};
use super::media::Media;
use super::page::by_id;
use super::state::{App, ContentView};
use super::{answer, reply, wire};
use crate::cache::{CacheKey, Found, Resource, Tag, Variant};
use crate::db::content::{Content, ContentFilter, ContentSummary, Storage};
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
        Method::GET => list::<ContentFilter>(&app, ask.query, Media::of(&ask.headers)).await,
        // In a box: the future of a write is large, and each read would carry its room.
        Method::POST => Box::pin(content_write::create(app, ask)).await,
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
        Method::GET => detail(&app, parsed?, ask.query, Media::of(&ask.headers)).await,
        Method::PATCH => Box::pin(content_write::change(app, parsed?, ask)).await,
        Method::DELETE => Box::pin(content_write::remove(app, parsed?, ask)).await,
        _ => Err(Problem::MethodNotAllowed("GET, HEAD, PATCH, DELETE")),
    }
}

impl List for ContentFilter {
    type Row = ContentSummary;
    type Page = wire::ContentPage;

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

async fn detail(
    app: &Arc<App>,
    id: Uuid,
    mut query: Query,
    media: Media,
) -> Result<Response, Problem> {
    let fields = FieldSet::parse::<Content>(query.take("fields")?.as_deref())?;
    let with_nfts = match query.take("expand")?.as_deref() {
        None => false,
        Some("nfts") => true,
        Some(other) => return Err(Problem::parameter("expand", "nfts", other)),
    };
    query.finish("fields, expand")?;

    let view = view(app, id, with_nfts).await?;
    let nfts = view.nfts.as_deref();
    let answer = |shown: &Represented| {
        let answer = shown.answer(StatusCode::OK, view.content.is_gated(), media);
        reply::dated(answer, view.age(), &[Tag::Content(id)])
    };
    if fields != FieldSet::ALL || media != Media::Json {
        let buffers = Some(&app.work.buffers);
        let shown = Represented::of(buffers, &view.content, nfts, fields, media)?;
        return Ok(answer(&shown));
    }
    let shown = match view.whole.get() {
        Some(whole) => whole,
        None => {
            // In memory of its own: the cache would keep a buffer of the pool for as long.
            let whole = Represented::of(None, &view.content, nfts, fields, media)?;
            view.whole.get_or_init(|| whole)
        }
    };
    Ok(reply::kept(answer(shown), &shown.kept))
}

/// A content from the cache, or through it from where it lies.
///
/// # Errors
/// [`Problem::NotFound`] when there is none.
pub(super) async fn view(
    app: &Arc<App>,
    id: Uuid,
    with_nfts: bool,
) -> Result<Found<ContentView>, Problem> {
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
            async move { load_view(&app, id, with_nfts).await }
        }
    };
    let found = app.contents.get(key, &[Tag::Content(id)], load).await;
    found
        .map_err(|error| app.refused(error))?
        .ok_or(Problem::NotFound)
}

/// A content out of the database, and out of cold storage where its payload lies there.
async fn load_view(app: &App, id: Uuid, with_nfts: bool) -> Result<Option<ContentView>, DbError> {
    loop {
        let view = if with_nfts {
            let found = app.db.content_with_nfts(id).await?;
            found.map(|(content, nfts)| ContentView {
                content,
                nfts: Some(nfts),
                whole: OnceLock::new(),
            })
        } else {
            let found = app.db.content(id).await?;
            found.map(|content| ContentView {
                content,
                nfts: None,
                whole: OnceLock::new(),
            })
        };
        let Some(mut view) = view else {
            return Ok(None);
        };
        // Not filled: restored between the two looks, so it is hot at the next, and then rests.
        if view.content.storage == Storage::Hot
            || app.archive.fill(&app.db, &mut view.content).await?
        {
            return Ok(Some(view));
        }
    }
}

/// A content with its tag, as its writer sees it: all of it as JSON.
pub(super) fn represent(
    buffers: &Buffers,
    status: StatusCode,
    content: &Content,
) -> Result<Response, Problem> {
    let media = Media::Json;
    let shown = Represented::of(Some(buffers), content, None, FieldSet::ALL, media)?;
    Ok(shown.answer(status, content.is_gated(), media))
}

/// A content as it is sent.
#[derive(Debug)]
pub(super) struct Represented {
    body: Bytes,
    tag: BaseTag,
    kept: Arc<Kept>,
}

impl Represented {
    fn of(
        buffers: Option<&Buffers>,
        content: &Content,
        nfts: Option<&[Nft]>,
        fields: FieldSet,
        media: Media,
    ) -> Result<Self, Problem> {
        let shown = Expanded {
            content,
            nfts,
            fields,
        };
        let internal = |error| Problem::Internal(Arc::new(error));
        let json = match buffers {
            Some(buffers) => reply::written(buffers, content.heap_bytes() + AROUND, &shown)?,
            // Kept, so as long as it is.
            None => {
                let json = serde_json::to_vec(&shown).map_err(internal)?;
                json.into_boxed_slice().into()
            }
        };
        let body = media.encode::<wire::Content>(json).map_err(internal)?;
        let tag = match nfts {
            Some(_) => BaseTag::of_body(content.version, fields, media, &body),
            None => BaseTag::of_row(content.version, fields, media, shows_cold(content, fields)),
        };
        Ok(Self {
            body,
            tag,
            kept: Arc::default(),
        })
    }

    fn answer(&self, status: StatusCode, gated: bool, media: Media) -> Response {
        reply::tagged(status, media, self.body.clone(), gated, &self.tag)
    }
}

/// A strong tag promises equal bytes, and `storage` is the one field that changes without the version.
fn shows_cold(content: &Content, fields: FieldSet) -> bool {
    let shown = fields.places(Content::FIELDS);
    let place = Content::FIELDS.iter().position(|field| *field == "storage");
    content.storage == Storage::Cold
        && place.is_some_and(|place| shown.into_iter().any(|at| at == place))
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
