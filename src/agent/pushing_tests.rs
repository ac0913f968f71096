//! Requests beside a sending thread that is busy with its queue.

use std::sync::mpsc::channel;
use std::thread;
use std::time::Instant;

use super::*;
use crate::agent::shared_tests::shared;
use crate::config::Config;
use crate::config::otlp::Otlp;
use crate::instrument::method::Method;
use crate::instrument::request::{End, Head, Requests};
use crate::instrument::routes::Routes;
use crate::store::traces::tests::dropped;
use crate::store::traces::{LogRecord, Severity};

/// More than the rings before the queue hold.
const REQUESTS: u64 = 20_000;

#[test]
fn requests_and_log_records_wait_for_no_lock_of_the_queue() {
    let mut config = Config::new("shop");
    // Nobody listens there, and nothing is pushed but by these requests.
    config.otlp = Some(Otlp {
        metrics: None,
        ..Otlp::to("http://127.0.0.1:9").unwrap()
    });
    config.profiling = false;
    let shared = Shared {
        config: Arc::new(config),
        ..shared()
    };
    let pushing = start(&shared).unwrap();
    let delivery = pushing.delivery.as_ref().unwrap();
    let held = delivery.hold();
    let (served, serving) = channel();
    let store = Arc::clone(&shared.store);
    thread::spawn(move || {
        let routes = Arc::new(Routes::new(Arc::clone(&store)));
        let requests = Arc::new(Requests::new(Arc::clone(&store), routes));
        let logs = store.traces.logs().unwrap();
        let head = Head {
            method: Method::of("GET"),
            https: false,
            content_length: None,
        };
        for _ in 0..REQUESTS {
            let mut request = requests.begin(head, "/content/7", |_| None);
            request.responded(200);
            request.end(End::Complete);
            logs.keep(LogRecord {
                at: Instant::now(),
                severity: Severity::Warn,
                target: "shop",
                body: String::new(),
                fields: Vec::new(),
                context: None,
            });
        }
        served.send(()).unwrap();
    });
    // It comes while everything that the sending thread ever locks is taken.
    serving.recv_timeout(Duration::from_secs(60)).unwrap();
    drop(held);
    shared.stop.ask(Duration::ZERO);
    pushing.stop(Duration::ZERO);
    assert_eq!(shared.stop.wait(Duration::from_secs(60)), [""; 0]);
    let flushed = pushing.flushed();
    let spans = flushed.iter().find(|one| one.signal == "spans").unwrap();
    let full = dropped(&shared.store.metrics, "ring_full");
    assert_eq!((spans.delivered, spans.lost + full), (0, REQUESTS));
    assert!(full > 0, "nobody took them meanwhile");
}
