//! `POST /v1/jobs/transcode` and `GET /v1/jobs/{id}`: work that a request does not wait for.
//!
//! Guide 6.2 and 6.3. Metrics: `worker_pool_*{pool="jobs"}`. Breaking tests:
//! `a_job_is_accepted_and_ends`, `a_job_beyond_the_queue_is_503_and_a_later_one_is_taken`.
//!
//! The transcoding is a simulation: each segment is hashed some times for each rendition, and segments of
//! the same picture are found, as those need no second encoding.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Buf;
use futures_util::Stream;
use http::header::{CACHE_CONTROL, LOCATION};
use http::{HeaderValue, Method, StatusCode};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use uuid::Uuid;
use warp::filters::BoxedFilter;
use warp::reply::Response;
use warp::{Filter, path};

use super::ask::{Ask, ask, with};
use super::content::uuid;
use super::content_write::malformed;
use super::state::App;
use super::{answer, body, reply};
use crate::faults::Fault;
use crate::problem::Problem;
use crate::work::buffers::Buffers;
use crate::work::duplicates::{duplicates, duplicates_by_pairs};
use crate::work::workers::QueueFull;

const BODY_LIMIT: usize = 4 << 10;

/// Jobs that are remembered; the oldest gives way.
const REMEMBERED: usize = 4_096;

/// Segments of a job at most: four hours of six seconds each.
const MOST_SEGMENTS: u32 = 2_400;

/// Hashes that stand for the encoding of one segment: about 0.1 ms of a core.
const ROUNDS: usize = 64;

/// Bytes that stand for a segment.
const SEGMENT: usize = 4 << 10;

/// Every so many segments show the same picture: titles, black, the end.
const SAME_PICTURE: u32 = 10;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Transcode {
    content_id: Uuid,
    #[serde(default = "Transcode::usual_segments")]
    segments: u32,
}

/// One job as clients see it.
#[derive(Clone, Debug, Serialize)]
struct Job {
    id: Uuid,
    content_id: Uuid,
    state: State,
    segments: u32,
    /// Segments that needed no encoding; absent until the job has ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    repeated: Option<usize>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum State {
    Queued,
    Running,
    Done,
    Failed,
}

/// The jobs of late.
#[derive(Clone, Debug, Default)]
pub(super) struct Jobs(Arc<Mutex<Remembered>>);

#[derive(Debug, Default)]
struct Remembered {
    jobs: HashMap<Uuid, Job>,
    order: VecDeque<Uuid>,
}

impl Transcode {
    /// Ten minutes of six seconds each.
    fn usual_segments() -> u32 {
        100
    }
}

pub(super) fn route(app: &Arc<App>) -> BoxedFilter<(Response,)> {
    let start = path!("v1" / "jobs" / "transcode")
        .and(app.observe.agent.route("/v1/jobs/transcode"))
        .and(with(Arc::clone(app)))
        .and(ask())
        .then(async |app, ask| answer(transcode(app, ask).await));
    let job = path!("v1" / "jobs" / String)
        .and(app.observe.agent.route("/v1/jobs/{id}"))
        .and(with(Arc::clone(app)))
        .and(ask())
        .then(async |id: String, app: Arc<App>, ask| answer(job(&id, &app, ask)));
    start.or(job).unify().boxed()
}

async fn transcode<S, B>(app: Arc<App>, ask: Ask<S>) -> Result<Response, Problem>
where
    S: Stream<Item = Result<B, warp::Error>> + Send,
    B: Buf,
{
    if ask.method != Method::POST {
        return Err(Problem::MethodNotAllowed("POST"));
    }
    ask.query.finish("none")?;
    let bytes = body::json(&ask.headers, ask.body, BODY_LIMIT).await?;
    let wanted: Transcode = serde_json::from_slice(&bytes).map_err(malformed)?;
    if !(1..=MOST_SEGMENTS).contains(&wanted.segments) {
        let range = format!("1..={MOST_SEGMENTS}");
        return Err(Problem::parameter(
            "segments",
            &range,
            &wanted.segments.to_string(),
        ));
    }
    let job = Job {
        id: Uuid::now_v7(),
        content_id: wanted.content_id,
        state: State::Queued,
        segments: wanted.segments,
        repeated: None,
    };
    app.jobs.remember(job.clone());
    let running = Running {
        id: job.id,
        jobs: app.jobs.clone(),
    };
    let faults = app.observe.faults.clone();
    let submitted = app.work.workers.submit(move || {
        running.is(State::Running, None);
        let quadratic = faults.is_on(Fault::QuadraticDuplicates);
        let repeated = encode(wanted.content_id, wanted.segments, quadratic);
        running.is(State::Done, Some(repeated));
        true
    });
    if let Err(QueueFull) = submitted {
        app.jobs.forget(job.id);
        return Err(Problem::QueueFull);
    }
    let mut response = shown(&app.work.buffers, StatusCode::ACCEPTED, &job)?;
    if let Ok(location) = HeaderValue::try_from(format!("/v1/jobs/{}", job.id)) {
        response.headers_mut().insert(LOCATION, location);
    }
    Ok(response)
}

fn job<S>(id: &str, app: &App, ask: Ask<S>) -> Result<Response, Problem> {
    if ask.method != Method::GET {
        return Err(Problem::MethodNotAllowed("GET, HEAD"));
    }
    ask.query.finish("none")?;
    let job = app.jobs.get(uuid("id", id)?).ok_or(Problem::NotFound)?;
    shown(&app.work.buffers, StatusCode::OK, &job)
}

fn shown(buffers: &Buffers, status: StatusCode, job: &Job) -> Result<Response, Problem> {
    let json = reply::written(buffers, size_of::<Job>() * 4, job)?;
    let mut response = reply::json(status, json, true);
    response
        .headers_mut()
        .insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    Ok(response)
}

/// Encodes as if, and gives the number of segments that repeat another.
fn encode(content: Uuid, segments: u32, quadratic: bool) -> usize {
    let pictures = (0..segments).map(|segment| match segment % SAME_PICTURE {
        0 => 0,
        _ => segment,
    });
    let fingerprints = pictures.map(|picture| {
        let mut bytes = vec![0; SEGMENT];
        let name = Sha256::new()
            .chain_update(content)
            .chain_update(picture.to_be_bytes())
            .finalize();
        for (byte, name) in bytes.iter_mut().zip(name.iter().cycle()) {
            *byte = *name;
        }
        Sha256::digest(&bytes).to_vec()
    });
    let fingerprints: Vec<Vec<u8>> = fingerprints.collect();
    let repeated = match quadratic {
        false => duplicates(&fingerprints).len(),
        true => {
            let mut pairs = duplicates_by_pairs(&fingerprints);
            pairs.sort_unstable();
            pairs.dedup();
            // Of each group of equal ones, all but the first repeat it.
            let again = |pair: &&Vec<u8>| fingerprints.iter().filter(|f| f == pair).count() - 1;
            pairs.iter().map(again).sum()
        }
    };
    for fingerprint in &fingerprints {
        let mut hash = fingerprint.clone();
        for _ in 0..ROUNDS {
            hash = Sha256::digest(&hash).to_vec();
        }
        std::hint::black_box(hash);
    }
    repeated
}

/// A job that a worker has or will have; dropped before its end, it has failed.
struct Running {
    id: Uuid,
    jobs: Jobs,
}

impl Running {
    fn is(&self, state: State, repeated: Option<usize>) {
        if let Some(job) = self.jobs.lock().jobs.get_mut(&self.id) {
            job.state = state;
            job.repeated = repeated;
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(job) = self.jobs.lock().jobs.get_mut(&self.id)
            && job.state != State::Done
        {
            job.state = State::Failed;
        }
    }
}

impl Jobs {
    fn remember(&self, job: Job) {
        let mut remembered = self.lock();
        remembered.order.push_back(job.id);
        remembered.jobs.insert(job.id, job);
        if remembered.order.len() > REMEMBERED
            && let Some(oldest) = remembered.order.pop_front()
        {
            remembered.jobs.remove(&oldest);
        }
    }

    fn forget(&self, id: Uuid) {
        let mut remembered = self.lock();
        remembered.jobs.remove(&id);
        remembered.order.retain(|known| *known != id);
    }

    fn get(&self, id: Uuid) -> Option<Job> {
        self.lock().jobs.get(&id).cloned()
    }

    fn lock(&self) -> MutexGuard<'_, Remembered> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_ways_to_find_repeated_segments_agree() {
        for segments in [1, 10, 11, 95] {
            let repeated = encode(Uuid::nil(), segments, false);
            assert_eq!(encode(Uuid::nil(), segments, true), repeated);
            let pictures = usize::try_from(segments.div_ceil(SAME_PICTURE)).unwrap();
            assert_eq!(repeated, pictures - 1, "{segments}");
        }
    }

    #[test]
    fn jobs_are_remembered_up_to_a_number() {
        let jobs = Jobs::default();
        let job = |n| Job {
            id: Uuid::from_u128(n),
            content_id: Uuid::nil(),
            state: State::Queued,
            segments: 1,
            repeated: None,
        };
        for n in 0..REMEMBERED as u128 + 2 {
            jobs.remember(job(n));
        }
        assert!(jobs.get(Uuid::from_u128(1)).is_none());
        assert!(jobs.get(Uuid::from_u128(2)).is_some());
        assert_eq!(jobs.lock().order.len(), REMEMBERED);
    }
}
