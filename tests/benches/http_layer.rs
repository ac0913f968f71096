//! What the request layer adds to a request: the same warp routes bare and observed.
//!
//! Run with `cargo bench -p streamgate-agent --bench http_layer`. No sockets: each request is a call
//! of the service and its body read to the end, on one thread.
#![expect(
    clippy::print_stdout,
    clippy::unwrap_used,
    clippy::indexing_slicing,
    unreachable_pub,
    reason = "a bench prints, and stops where its set-up fails"
)]

#[path = "measure.rs"]
mod measure;

use futures_executor::block_on;
use http_body_util::BodyExt;
use measure::{Row, cost};
use streamgate_agent::Agent;
use tower::{Layer, Service};
use warp::Filter;

const ROUNDS: usize = 15;
const REQUESTS: usize = 20_000;

type Body = http_body_util::Empty<&'static [u8]>;

fn drive<S, R>(service: &mut S)
where
    S: Service<http::Request<Body>, Response = http::Response<R>>,
    R: http_body::Body,
{
    for _ in 0..REQUESTS {
        let request = http::Request::get("/content/123")
            .body(Body::new())
            .unwrap();
        block_on(async {
            let response = service.call(request).await.ok().unwrap();
            std::hint::black_box(response.into_body().collect().await.ok().unwrap());
        });
    }
}

fn main() {
    let agent = Agent::builder("bench")
        .no_listener()
        .profiling(false)
        .start()
        .unwrap();
    let path = warp::path!("content" / u64);
    let plain = path.map(|id: u64| format!("content {id}"));
    let named = path
        .and(agent.route("/content/{id}"))
        .map(|id: u64| format!("content {id}"));
    let mut bare = warp::service(plain);
    let mut observed = agent.http_layer().layer(warp::service(named));
    let mut costs = [Vec::new(), Vec::new()];
    for _ in 0..ROUNDS {
        costs[0].push(cost(|| drive(&mut bare)));
        costs[1].push(cost(|| drive(&mut observed)));
    }
    let rows = [
        Row::new("warp, bare", &costs[0], REQUESTS as f64),
        Row::new("warp, observed", &costs[1], REQUESTS as f64),
    ];
    measure::print(
        &format!("One request, {ROUNDS} rounds"),
        &rows,
        "warp, bare",
        1.0,
        "ns",
    );
    println!(
        "\nThe layer adds {:.0} ns.",
        rows[1].cpu_median - rows[0].cpu_median
    );
}
