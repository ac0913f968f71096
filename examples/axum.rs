//! An axum service: one layer counts, times and labels every request by its matched path.
//!
//! `cargo run --release --example axum`, then `curl 127.0.0.1:8080/hello/you` and
//! `curl 127.0.0.1:6060/metrics`. The agent's endpoints are mounted in the service itself too, as
//! an internal admin server would: `curl 127.0.0.1:8080/targets`.
#![expect(clippy::print_stdout, reason = "an example tells where to look")]

use std::time::Duration;

use axum::Router;
use axum::extract::{MatchedPath, Path};
use axum::routing::get;
use streamgate_agent::{Agent, DEFAULT_ADDRESS, Tier};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = std::env::args().skip(1);
    let public = args.next().unwrap_or_else(|| "127.0.0.1:8080".to_owned());
    let agent = args
        .next()
        .map_or(Ok(DEFAULT_ADDRESS), |text| text.parse())?;

    let agent = Agent::builder("hello")
        .version(env!("CARGO_PKG_VERSION"))
        .listen(agent)
        .start()?;
    let greetings = agent.cache("greetings", Tier::L1);
    let hello = move |Path(name): Path<String>| {
        let lookup = greetings.get();
        async move {
            lookup.miss(streamgate_agent::CacheClass::Public);
            format!("hello {name}\n")
        }
    };
    let layer = agent
        .http_layer()
        .matched_path(|extensions| extensions.get::<MatchedPath>().map(MatchedPath::as_str));
    let app = Router::new()
        .route("/hello/{name}", get(hello))
        .layer(layer)
        .fallback_service(agent.service());

    let listener = tokio::net::TcpListener::bind(&public).await?;
    println!("http://{}/", listener.local_addr()?);
    if let Some(address) = agent.address() {
        println!("http://{address}/");
    }
    axum::serve(listener, app).await?;
    agent.shutdown(Duration::from_secs(5)).await?;
    Ok(())
}
