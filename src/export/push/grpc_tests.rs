//! Calls of a server that is made of the same HTTP/2, and says what a row tells it to. A server of gRPC's own is in
//! `tests/live/otlp.py`.

use std::collections::BTreeMap;
use std::io::Read as _;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;

use flate2::read::GzDecoder;
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTracePartialSuccess, ExportTraceServiceResponse,
};
use tokio::net::TcpListener;

use super::*;

const METHOD: &str = "/opentelemetry.proto.collector.trace.v1.TraceService/Export";
const PATIENCE: Duration = Duration::from_secs(60);

/// What a server does with a call.
#[derive(Clone)]
enum Turn {
    /// Answers with this message, and ends with these trailers.
    Answers(Vec<u8>, Vec<(&'static str, String)>),
    /// Ends in the headers.
    EndsAtOnce(u16, Vec<(&'static str, String)>),
    /// Ends the connection after it has answered the call before.
    Leaves,
    KeepsSilent,
}

struct Seen {
    connection: usize,
    head: http::request::Parts,
    body: Vec<u8>,
}

fn collector(turns: Vec<Turn>) -> (Grpc, Receiver<Seen>) {
    let (listening, address) = channel();
    let (seen, calls) = channel();
    thread::spawn(move || {
        let runtime = runtime().unwrap();
        runtime.block_on(async {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            listening.send(listener.local_addr().unwrap()).unwrap();
            serve(&listener, turns, &seen).await;
        });
    });
    let address = address.recv().unwrap();
    (to(&format!("http://{address}"), PATIENCE), calls)
}

async fn serve(listener: &TcpListener, turns: Vec<Turn>, seen: &Sender<Seen>) {
    let mut turns = turns.into_iter().peekable();
    for connection in 0.. {
        if turns.peek().is_none() {
            return;
        }
        let (stream, _) = listener.accept().await.unwrap();
        let mut calls = h2::server::handshake(stream).await.unwrap();
        while let Some(turn) = turns.next_if(|turn| !matches!(turn, Turn::Leaves)) {
            let Some(Ok((request, mut respond))) = calls.accept().await else {
                return;
            };
            let (head, mut stream) = request.into_parts();
            let seen = seen.clone();
            // The connection has to be driven while a call is read.
            tokio::spawn(async move {
                let body = read(&mut stream).await.unwrap();
                seen.send(Seen {
                    connection,
                    head,
                    body,
                })
                .ok();
                match turn {
                    Turn::Answers(message, trailers) => {
                        let mut stream = respond.send_response(answer(200, &[]), false).unwrap();
                        stream.send_data(framed(&message), false).unwrap();
                        let trailers = answer(200, &trailers).headers().clone();
                        stream.send_trailers(trailers).unwrap();
                    }
                    Turn::EndsAtOnce(status, headers) => {
                        respond
                            .send_response(answer(status, &headers), true)
                            .unwrap();
                    }
                    Turn::KeepsSilent => std::future::pending().await,
                    Turn::Leaves => {}
                }
            });
        }
        if turns.next().is_some() {
            calls.graceful_shutdown();
        }
        while calls.accept().await.is_some() {}
    }
}

fn answer(status: u16, headers: &[(&'static str, String)]) -> http::Response<()> {
    let mut answer = http::Response::builder().status(status);
    for (name, value) in headers {
        answer = answer.header(*name, value);
    }
    answer.body(()).unwrap()
}

fn framed(message: &[u8]) -> Bytes {
    let mut framed = vec![0, 0, 0, 0, u8::try_from(message.len()).unwrap()];
    framed.extend_from_slice(message);
    framed.into()
}

fn to(url: &str, timeout: Duration) -> Grpc {
    let target = Target {
        url: url.to_owned(),
        headers: BTreeMap::from([("X-Tenant".to_owned(), "shop".to_owned())]),
        timeout,
        gzip: true,
        grpc_method: Some(METHOD),
    };
    Grpc::new(&target).unwrap()
}

fn status(code: u32) -> Vec<(&'static str, String)> {
    vec![("grpc-status", code.to_string())]
}

fn refused(why: &'static str) -> Outcome {
    Outcome::Refused { why: why.into() }
}

#[test]
fn messages_arrive_framed_and_packed_over_one_connection_and_rejected_items_are_told() {
    let partial = ExportTraceServiceResponse {
        partial_success: Some(ExportTracePartialSuccess {
            rejected_spans: 3,
            ..ExportTracePartialSuccess::default()
        }),
    };
    let all = Turn::Answers(Vec::new(), status(0));
    let some = Turn::Answers(partial.encode_to_vec(), status(0));
    let (grpc, calls) = collector(vec![all, some]);
    let message = b"spans ".repeat(100_000);
    let accepted = |rejected| Outcome::Accepted { rejected };
    assert_eq!(grpc.send(&message, Duration::MAX), accepted(0));
    assert_eq!(grpc.send(b"", Duration::MAX), accepted(3));
    let first = calls.recv().unwrap();
    assert_eq!(calls.recv().unwrap().connection, first.connection);
    assert_eq!(first.head.uri.path(), METHOD);
    for (name, value) in [
        ("te", "trailers"),
        ("content-type", "application/grpc"),
        ("grpc-encoding", "gzip"),
        ("grpc-timeout", "60000m"),
        ("x-tenant", "shop"),
    ] {
        assert_eq!(first.head.headers[name], value);
    }
    let (frame, packed) = first.body.split_at(FRAME_BYTES);
    let length = u32::try_from(packed.len()).unwrap().to_be_bytes();
    assert_eq!(frame, [&[1][..], &length].concat());
    let mut opened = Vec::new();
    GzDecoder::new(packed).read_to_end(&mut opened).unwrap();
    assert_eq!(opened, message);
}

#[test]
fn each_status_is_tried_again_or_refused_as_the_specification_says() {
    let info = RetryInfo {
        delay: Some(Delay {
            seconds: 7,
            nanos: 500_000_000,
        }),
    };
    let details = Details {
        details: vec![Detail {
            type_url: "type.googleapis.com/google.rpc.RetryInfo".to_owned(),
            value: info.encode_to_vec(),
        }],
    };
    let details = STANDARD_NO_PAD.encode(details.encode_to_vec());
    let delayed = |code| {
        let mut trailers = status(code);
        trailers.push(("grpc-status-details-bin", details.clone()));
        Turn::EndsAtOnce(200, trailers)
    };
    let after = Some(Duration::from_millis(7_500));
    let ends = |code| Turn::EndsAtOnce(200, status(code));
    let http = |status| Turn::EndsAtOnce(status, Vec::new());
    let rows = [
        (ends(14), later("UNAVAILABLE", None)),
        (delayed(14), later("UNAVAILABLE", after)),
        (ends(8), refused("RESOURCE_EXHAUSTED")),
        (delayed(8), later("RESOURCE_EXHAUSTED", after)),
        (ends(1), later("CANCELLED", None)),
        (ends(4), later("DEADLINE_EXCEEDED", None)),
        (ends(10), later("ABORTED", None)),
        (ends(11), later("OUT_OF_RANGE", None)),
        (ends(15), later("DATA_LOSS", None)),
        (ends(3), refused("INVALID_ARGUMENT")),
        (ends(12), refused("UNIMPLEMENTED")),
        (ends(16), refused("UNAUTHENTICATED")),
        (ends(99), refused("UNKNOWN")),
        (http(503), later("503", None)),
        (http(404), refused("404")),
        (
            Turn::Answers(Vec::new(), Vec::new()),
            later("protocol", None),
        ),
        (
            Turn::Answers(vec![255; 9], status(0)),
            Outcome::Accepted { rejected: 0 },
        ),
    ];
    let (turns, outcomes): (Vec<_>, Vec<_>) = rows.into_iter().unzip();
    let (grpc, _calls) = collector(turns);
    for (row, outcome) in outcomes.into_iter().enumerate() {
        assert_eq!(grpc.send(b"message", Duration::MAX), outcome, "row {row}");
    }
}

#[test]
fn a_connection_that_the_collector_ended_is_made_anew() {
    let all = Turn::Answers(Vec::new(), status(0));
    let (grpc, calls) = collector(vec![all.clone(), Turn::Leaves, all]);
    for connection in 0..2 {
        let sent = grpc.send(b"message", Duration::MAX);
        assert_eq!(sent, Outcome::Accepted { rejected: 0 });
        assert_eq!(calls.recv().unwrap().connection, connection);
    }
}

#[test]
fn who_is_silent_gone_or_unknown_is_tried_again_later() {
    let (grpc, calls) = collector(vec![Turn::KeepsSilent]);
    let silent = grpc.send(b"message", Duration::from_millis(200));
    assert_eq!(silent, later("timeout", None));
    assert_eq!(calls.recv().unwrap().head.headers["grpc-timeout"], "200m");
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}", free.local_addr().unwrap());
    drop(free);
    let gone = to(&address, PATIENCE).send(b"message", Duration::MAX);
    assert_eq!(gone, later("connection", None));
    let unknown = to("http://nowhere.invalid:1", PATIENCE).send(b"message", Duration::MAX);
    assert_eq!(unknown, later("name_resolution", None));
}
