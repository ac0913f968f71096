//! `GET /v1/users/{id}`.

use std::sync::Arc;

use http::{Method, StatusCode};
use warp::filters::BoxedFilter;
use warp::reply::Response;
use warp::{Filter, path};

use super::ask::{Ask, ask, with};
use super::content::uuid;
use super::fields::{FieldSet, Selected};
use super::media::Media;
use super::state::App;
use super::{answer, reply, wire};
use crate::cache::{CacheKey, Resource, Tag, Variant};
use crate::db::users::User;
use crate::problem::Problem;

pub(super) fn route(app: &Arc<App>) -> BoxedFilter<(Response,)> {
    path!("v1" / "users" / String)
        .and(app.observe.agent.route("/v1/users/{id}"))
        .and(with(Arc::clone(app)))
        .and(ask())
        .then(async |id: String, app, ask| answer(user(&id, app, ask).await))
        .boxed()
}

async fn user<S>(id: &str, app: Arc<App>, mut ask: Ask<S>) -> Result<Response, Problem> {
    if ask.method != Method::GET {
        return Err(Problem::MethodNotAllowed("GET, HEAD"));
    }
    let id = uuid("id", id)?;
    let fields = FieldSet::parse::<User>(ask.query.take("fields")?.as_deref())?;
    ask.query.finish("fields")?;

    let key = CacheKey::row(Resource::User, id, Variant::Row);
    let load = {
        let app = Arc::clone(&app);
        move || {
            let app = Arc::clone(&app);
            async move { app.db.user(id).await }
        }
    };
    let found = app.users.get(key, &[Tag::User(id)], load).await;
    let user = found
        .map_err(|error| app.refused(error))?
        .ok_or(Problem::NotFound)?;
    let shown = Selected {
        row: &*user,
        fields,
    };
    let media = Media::of(&ask.headers);
    let json = reply::written(&app.work.buffers, user.bytes() * 2, &shown)?;
    let body = media.encode::<wire::User>(json);
    let body = body.map_err(|error| Problem::Internal(Arc::new(error)))?;
    let answer = reply::bytes(StatusCode::OK, media.content_type(), body, false);
    Ok(reply::dated(answer, user.age(), &[Tag::User(id)]))
}
