//! A collector that takes everything and keeps nothing.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::thread;

/// Answers all who come, each on a thread.
pub fn serve(listener: &TcpListener) {
    for stream in listener.incoming() {
        thread::spawn(move || take(stream.unwrap()));
    }
}

fn take(mut stream: TcpStream) {
    let mut bytes = Vec::new();
    let mut piece = vec![0; 64 << 10];
    while let Ok(length @ 1..) = stream.read(&mut piece) {
        bytes.extend_from_slice(&piece[..length]);
        let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") else {
            continue;
        };
        let head = String::from_utf8_lossy(&bytes[..end]).to_lowercase();
        let length = head.split_once("content-length: ").unwrap().1;
        let length: usize = length.lines().next().unwrap().parse().unwrap();
        if bytes.len() >= end + 4 + length {
            bytes.drain(..end + 4 + length);
            let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";
            stream.write_all(answer).unwrap();
        }
    }
}
