//! The metrics page: fresh readings, one gather and one body for scrapes that overlap.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::Plane;
use super::message::{Body, Reply, Request};
use crate::catalog::families::{AGENT_SCRAPE_BYTES, AGENT_SCRAPE_DURATION};
use crate::config;
use crate::export::guard::{Reason, Refusal};
use crate::export::negotiate::{self, Format, Negotiated};
use crate::export::{openmetrics, text};

pub(super) async fn metrics(plane: &Plane, request: &Request) -> Result<Reply, Refusal> {
    let asked = Instant::now();
    let accept = request.list("accept");
    let encoding = request.list("accept-encoding");
    let face = negotiate::negotiate(accept.as_deref(), encoding.as_deref());
    // The demand is this scrape's place: it is held until the page is made.
    let mut demand = plane
        .store
        .refresh
        .ask((), asked + config::REFRESH_WAIT)
        .map_err(|full| {
            let text = format!("scrapes at limit {}", full.limit);
            Refusal::new(503, Reason::Scrapes, text).retry_after(Duration::from_secs(1))
        })?;
    // Answered or not: a page with the last readings beats none.
    (&mut demand).await;
    let body = match plane.pages.since(asked, &face) {
        Some(body) => body,
        None => page(plane, face)?,
    };
    let seconds = plane
        .store
        .metrics
        .histogram(&AGENT_SCRAPE_DURATION, &[face.format.word()]);
    if let Ok(seconds) = seconds {
        seconds.record(asked.elapsed());
    }
    let reply = Reply::shared(200, face.format.content_type(), body)
        .with("Vary", "Accept, Accept-Encoding");
    Ok(if face.gzip {
        reply.with("Content-Encoding", "gzip")
    } else {
        reply
    })
}

/// Makes a page and offers it to the scrapes that wait.
fn page(plane: &Plane, face: Negotiated) -> Result<Arc<Body>, Refusal> {
    let begun = Instant::now();
    let snapshot = plane.store.metrics.snapshot();
    let foreign = plane.store.foreign.get();
    let mut bytes = Vec::new();
    match face.format {
        Format::Text => text::encode(&snapshot, &foreign, &mut bytes),
        Format::OpenMetrics | Format::OpenMetrics001 => {
            openmetrics::encode(&snapshot, &foreign, &mut bytes)
        }
    }
    let gauge = plane
        .store
        .metrics
        .gauge(&AGENT_SCRAPE_BYTES, &[face.format.word()]);
    if let Ok(gauge) = gauge {
        gauge.set(bytes.len() as f64);
    }
    if bytes.len() > config::METRICS_BODY_BYTES {
        let text = format!("metrics page over {} bytes", config::METRICS_BODY_BYTES);
        return Err(Refusal::new(500, Reason::Unavailable, text));
    }
    if face.gzip {
        bytes = negotiate::gzip(&bytes);
    }
    let body = Arc::new(Body::new(bytes, None));
    plane.pages.offer(face, begun, &body);
    Ok(body)
}
