//! The metrics pages as a scraper gets them.

use std::io::Read;

use streamgate_agent::{Agent, AgentHandle, Metric, Reply, Request};

static PAIRS: Metric = Metric::counter("shop_pairs_total", "Pairs.").labels(&["a", "b"]);

fn quiet() -> AgentHandle {
    let pages = Agent::builder("pages").no_listener().recorder(0);
    pages.start().unwrap()
}

fn scrape(agent: &AgentHandle, headers: &[(&str, &str)]) -> Reply {
    let mut request = Request::new("GET", "/metrics").header("host", "localhost");
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    futures_executor::block_on(agent.respond(request))
}

fn header<'a>(reply: &'a Reply, wanted: &str) -> Option<&'a str> {
    let mut headers = reply.headers();
    headers.find_map(|(name, value)| name.eq_ignore_ascii_case(wanted).then_some(value))
}

#[test]
fn label_pairs_that_join_alike_are_two_lines() {
    let agent = quiet();
    agent.counter(&PAIRS, &["1", "12"]).unwrap().add(1);
    agent.counter(&PAIRS, &["11", "2"]).unwrap().add(10);
    let reply = scrape(&agent, &[]);
    let page = String::from_utf8(reply.body().to_vec()).unwrap();
    for line in [
        "shop_pairs_total{a=\"1\",b=\"12\"} 1",
        "shop_pairs_total{a=\"11\",b=\"2\"} 10",
    ] {
        assert!(page.lines().any(|shown| shown == line), "{line} in {page}");
    }
}

#[test]
fn a_prometheus_server_gets_openmetrics_packed_and_named_exactly() {
    let agent = quiet();
    agent.counter(&PAIRS, &["x", ""]).unwrap().inc();
    let accept = "application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5";
    let reply = scrape(&agent, &[("accept", accept), ("accept-encoding", "gzip")]);
    assert_eq!(reply.status(), 200);
    assert_eq!(
        header(&reply, "content-type"),
        Some("application/openmetrics-text; version=1.0.0; charset=utf-8")
    );
    assert_eq!(header(&reply, "content-encoding"), Some("gzip"));
    assert_eq!(header(&reply, "vary"), Some("Accept, Accept-Encoding"));
    let mut page = String::new();
    let mut unpacked = flate2::read::GzDecoder::new(reply.body());
    unpacked.read_to_string(&mut page).unwrap();
    assert!(page.ends_with("# EOF\n"));
    assert!(
        page.contains("# TYPE shop_pairs counter\nshop_pairs_total{a=\"x\"} 1\n"),
        "{page}"
    );
}

#[test]
fn the_hosts_registry_is_on_our_page_and_our_core_is_in_a_registry() {
    let agent = quiet();
    agent.counter(&PAIRS, &["x", ""]).unwrap().inc();
    let registry = prometheus::Registry::new();
    let theirs = prometheus::IntCounter::new("legacy_total", "Theirs.").unwrap();
    theirs.inc_by(4);
    registry.register(Box::new(theirs)).unwrap();
    registry.register(Box::new(agent.collector())).unwrap();
    agent.registry(registry.clone());
    let ours = String::from_utf8(scrape(&agent, &[]).body().to_vec()).unwrap();
    let gathered = prometheus::TextEncoder::new()
        .encode_to_string(&registry.gather())
        .unwrap();
    for page in [ours, gathered] {
        for line in ["legacy_total 4", "shop_pairs_total{a=\"x\"} 1"] {
            let times = page.lines().filter(|shown| *shown == line).count();
            assert_eq!(times, 1, "{line} in {page}");
        }
    }
}
