//! A warp service: `agent.route(..)` behind each path names the route, one layer records it.
//!
//! `cargo run --release --example warp`, then `curl 127.0.0.1:8080/hello/you` and
//! `curl 127.0.0.1:6060/metrics`.
#![expect(clippy::print_stdout, reason = "an example tells where to look")]

use std::time::Duration;

use hyper_util::rt::TokioIo;
use hyper_util::service::TowerToHyperService;
use streamgate_agent::{Agent, DEFAULT_ADDRESS};
use tower_layer::Layer;
use warp::Filter;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = std::env::args().skip(1);
    let public = args.next().unwrap_or_else(|| "127.0.0.1:8080".to_owned());
    let address = args
        .next()
        .map_or(Ok(DEFAULT_ADDRESS), |text| text.parse())?;

    let agent = Agent::builder("hello")
        .version(env!("CARGO_PKG_VERSION"))
        .listen(address)
        .start()?;
    let hello = warp::path!("hello" / String)
        .and(agent.route("/hello/{name}"))
        .map(|name: String| format!("hello {name}\n"));
    let slow = warp::path!("slow")
        .and(agent.route("/slow"))
        .then(|| async {
            tokio::time::sleep(Duration::from_millis(50)).await;
            "done\n"
        });
    // Boxed, since a spawned connection needs a service of a nameable type.
    let routes = hello.or(slow).map(warp::Reply::into_response).boxed();
    let service = agent.http_layer().layer(warp::service(routes));

    let listener = tokio::net::TcpListener::bind(&public).await?;
    println!("http://{}/", listener.local_addr()?);
    println!("http://{}/", agent.address().unwrap_or(address));
    loop {
        let (stream, _) = listener.accept().await?;
        let connection = agent.connection("1.1");
        let service = TowerToHyperService::new(service.clone());
        tokio::spawn(async move {
            let _open = connection;
            // A client that breaks off is no news.
            drop(
                hyper::server::conn::http1::Builder::new()
                    .serve_connection(TokioIo::new(stream), service)
                    .await,
            );
        });
    }
}
