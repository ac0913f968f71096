//! One line at work: takes a job, asks, reads the answer, records how it ended.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::{Duration, Instant};

use http::header::ETAG;
use http::{HeaderMap, Response};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use serde::Deserialize;
use tokio::time::timeout_at;

use super::connection::Line;
use super::memory::{Memory, Page};
use super::queue::{Job, Queue};
use super::record::{Fault, Observation, Record};
use super::request::{Ask, Asker, Keep};

/// Body bytes that are kept to find a cursor in; a page of five contents has a few kilobytes.
const KEPT_BODY: usize = 256 * 1024;

/// What all workers share.
#[derive(Debug)]
pub(crate) struct Site {
    /// Jobs to do.
    pub(crate) queue: Queue,
    /// Makes the requests.
    pub(crate) asker: Asker,
    /// What visitors remember.
    pub(crate) memory: RefCell<Memory>,
    /// Where results go.
    pub(crate) record: Rc<RefCell<Record>>,
    /// Longest time from the intended start to the end of the answer.
    pub(crate) patience: Duration,
}

/// An answer read to its end.
struct Answer {
    status: u16,
    headers: HeaderMap,
    body: Vec<u8>,
    body_bytes: u64,
}

/// Does jobs until the queue ends.
pub(crate) async fn work(site: Rc<Site>, line: Line) {
    while let Some(job) = site.queue.take().await {
        let seen = serve(&site, &line, &job).await;
        site.record.borrow_mut().add(seen);
        site.queue.done();
    }
}

async fn serve(site: &Site, line: &Line, job: &Job) -> Observation {
    let begin = Instant::now();
    let intended = job.due.intended;
    // Time spent waiting for a connection is the service's; only the rest says that we were late.
    let acted = if job.line_free { begin } else { job.taken };
    let deadline = intended + site.patience;
    let outcome = if begin < deadline {
        timeout_at(deadline.into(), exchange(site, line, job))
            .await
            .unwrap_or(Err(Fault::Timeout))
    } else {
        Err(Fault::Timeout)
    };
    let latency = intended.elapsed();
    let (answer, fault) = match outcome {
        Ok((answer, fault)) => (Some(answer), fault),
        Err(fault) => {
            // Also after a timeout in the queue, where nothing was sent: rare, and costs one connect.
            line.abandon().await;
            (None, Some(fault))
        }
    };
    Observation {
        journey: job.due.arrival.journey,
        latency,
        send_lag: acted.saturating_duration_since(intended),
        connection_wait: begin.saturating_duration_since(acted),
        status: answer.as_ref().map(|answer| answer.status),
        body_bytes: answer.as_ref().map_or(0, |answer| answer.body_bytes),
        fault,
    }
}

/// Asks and reads; the fault beside an answer is its unexpected status.
async fn exchange(site: &Site, line: &Line, job: &Job) -> Result<(Answer, Option<Fault>), Fault> {
    let arrival = &job.due.arrival;
    let Ask {
        request,
        expected,
        keep,
    } = {
        let mut memory = site.memory.borrow_mut();
        site.asker.ask(arrival, &mut memory).map_err(|error| {
            tracing::warn!(%error, "no valid request");
            Fault::Transport
        })?
    };
    let answer = read(line.send(request).await?, &keep).await?;
    let fault = (!expected.contains(&answer.status)).then_some(Fault::Status(answer.status));
    if fault.is_none() {
        remember(&mut site.memory.borrow_mut(), keep, &answer);
    }
    Ok((answer, fault))
}

async fn read(response: Response<Incoming>, keep: &Keep) -> Result<Answer, Fault> {
    let (head, mut incoming) = response.into_parts();
    let kept_bytes = if matches!(keep, Keep::Cursor { .. }) {
        KEPT_BODY
    } else {
        0
    };
    let mut body = Vec::new();
    let mut body_bytes = 0;
    while let Some(frame) = incoming.frame().await {
        let Ok(chunk) = frame.map_err(|_| Fault::Transport)?.into_data() else {
            continue;
        };
        body_bytes += chunk.len() as u64;
        if body.len() + chunk.len() <= kept_bytes {
            body.extend_from_slice(&chunk);
        }
    }
    Ok(Answer {
        status: head.status.as_u16(),
        headers: head.headers,
        body,
        body_bytes,
    })
}

fn remember(memory: &mut Memory, keep: Keep, answer: &Answer) {
    match keep {
        Keep::Nothing => {}
        Keep::Tag(content) => {
            if let Some(tag) = answer.headers.get(ETAG) {
                memory.saw_tag(content, tag.clone());
            }
        }
        Keep::Cursor { list, number } => {
            if let Ok(ListEnd { next: Some(cursor) }) = serde_json::from_slice(&answer.body) {
                memory.saw_page(Page {
                    list,
                    cursor,
                    number: number.saturating_add(1),
                });
            }
        }
    }
}

/// The one field of a list that the next request needs.
#[derive(Debug, Deserialize)]
struct ListEnd {
    next: Option<String>,
}
