//! A collector for tests: does with each request what its turn says, and hands over what it was sent.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, channel};
use std::thread;

use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::metrics::v1::Metric;
use prost::Message as _;

/// What becomes of one request.
pub(crate) enum Turn {
    Answers(Vec<u8>),
    /// Takes it and says nothing until the client goes.
    KeepsSilent,
    /// Goes in the middle of the body: for bytes that nobody read the kernel sends a reset.
    Resets,
    /// Takes it and goes without a word.
    Closes,
}

/// An answer after which the connection ends.
pub(crate) fn answers(status: &str, headers: &str, body: &[u8]) -> Turn {
    let head = format!(
        "HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n{headers}\r\n",
        body.len()
    );
    Turn::Answers([head.as_bytes(), body].concat())
}

/// One request as it came.
#[derive(Debug)]
pub(crate) struct Sent {
    /// In small letters.
    pub(crate) head: String,
    pub(crate) body: Vec<u8>,
}

impl Sent {
    pub(crate) fn message(&self) -> ExportMetricsServiceRequest {
        let mut message = Vec::new();
        let mut unpacked = flate2::read::GzDecoder::new(&*self.body);
        unpacked.read_to_end(&mut message).unwrap();
        ExportMetricsServiceRequest::decode(&*message).unwrap()
    }

    pub(crate) fn metric(&self, name: &str) -> Option<Metric> {
        let mut message = self.message();
        let scope = message.resource_metrics.remove(0).scope_metrics.remove(0);
        scope.metrics.into_iter().find(|metric| metric.name == name)
    }
}

/// Its address, and what it was sent by those requests that it read to their end. After its last turn
/// it is gone.
pub(crate) fn receiver(
    turns: impl IntoIterator<Item = Turn, IntoIter: Send + 'static>,
) -> (String, Receiver<Sent>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    let (seen, requests) = channel();
    let turns = turns.into_iter();
    thread::spawn(move || {
        for turn in turns {
            let (mut stream, _) = listener.accept().unwrap();
            if matches!(turn, Turn::Resets) {
                drop(stream.read_exact(&mut [0; 64]));
                continue;
            }
            // Whoever stops may go while it is read.
            let Some(sent) = read(&mut stream) else {
                continue;
            };
            if seen.send(sent).is_err() {
                return;
            }
            match turn {
                Turn::Answers(answer) => {
                    drop(stream.write_all(&answer));
                    drop(stream.shutdown(Shutdown::Write));
                }
                Turn::KeepsSilent => drop(stream.read(&mut [0])),
                Turn::Resets | Turn::Closes => {}
            }
        }
    });
    (address, requests)
}

fn read(stream: &mut TcpStream) -> Option<Sent> {
    let mut bytes = Vec::new();
    let mut piece = [0; 4096];
    loop {
        let length = stream.read(&mut piece).ok().filter(|length| *length > 0)?;
        bytes.extend_from_slice(&piece[..length]);
        let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") else {
            continue;
        };
        let head = String::from_utf8(bytes[..end].to_vec()).unwrap();
        let head = head.to_lowercase();
        let (_, rest) = head.split_once("content-length: ").unwrap();
        let wanted: usize = rest.lines().next().unwrap().parse().unwrap();
        if bytes.len() >= end + 4 + wanted {
            let body = bytes[end + 4..].to_vec();
            return Some(Sent { head, body });
        }
    }
}
