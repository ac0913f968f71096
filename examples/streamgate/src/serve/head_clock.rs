//! Clocks for clients that are slow to say what they want.
//!
//! Breaking tests: `a_silent_connection_is_closed`, `a_slow_head_is_closed_and_an_idle_connection_is_not`.
//!
//! hyper's `auto` reads the protocol version with no timeout (hyperium/hyper#3756), and its head
//! timer also runs while a kept-alive connection idles. So the version is read here, against a clock
//! that starts with the connection; and for HTTP/1 a second clock starts with the first byte of each
//! head, which leaves hyper's own timer to measure idleness.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep};

/// Longest time from connecting to a known version, and from a head's first byte to its last.
const HEAD: Duration = Duration::from_secs(5);

/// What an HTTP/2 client that knows the server speaks it sends first, RFC 9113 section 3.4.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// The protocol of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Version {
    Http1,
    Http2,
}

impl Version {
    /// As the metrics name it.
    pub(super) fn label(self) -> &'static str {
        match self {
            Self::Http1 => "1.1",
            Self::Http2 => "2",
        }
    }
}

/// Whether the bytes that come next are a head; set by the service, read by the stream.
#[derive(Clone, Debug)]
pub(super) struct AwaitsHead(Arc<AtomicBool>);

/// A request whose head is complete and whose answer is not.
#[derive(Debug)]
pub(super) struct Answering(AwaitsHead);

impl AwaitsHead {
    /// The head is complete: no clock until the guard is dropped.
    pub(super) fn answering(&self) -> Answering {
        // Relaxed: one task polls both the stream and the service.
        self.0.store(false, Ordering::Relaxed);
        Answering(self.clone())
    }
}

impl Drop for Answering {
    fn drop(&mut self) {
        self.0.0.store(true, Ordering::Relaxed);
    }
}

/// A stream that gives back the bytes read to learn the version, and fails when a head takes too
/// long.
#[derive(Debug)]
pub(super) struct Clocked<T> {
    stream: T,
    /// Bytes read to learn the version, not yet given back.
    first: Bytes,
    /// `None` for HTTP/2, whose frames have no heads to wait for.
    awaits_head: Option<AwaitsHead>,
    /// Runs from the first byte of a head.
    clock: Option<Pin<Box<Sleep>>>,
}

/// Reads until the version is clear; `None` when it is not within the time, or the client leaves.
pub(super) async fn open<T: AsyncRead + Unpin>(mut stream: T) -> Option<(Clocked<T>, Version)> {
    let started = Instant::now();
    let mut first = BytesMut::with_capacity(PREFACE.len());
    let version = tokio::time::timeout_at(started + HEAD, async {
        loop {
            if stream.read_buf(&mut first).await.ok()? == 0 {
                return None;
            }
            if first.starts_with(PREFACE) {
                return Some(Version::Http2);
            }
            if !PREFACE.starts_with(&first) {
                return Some(Version::Http1);
            }
        }
    });
    let version = version.await.ok()??;
    let http1 = version == Version::Http1;
    let clocked = Clocked {
        stream,
        first: first.freeze(),
        awaits_head: http1.then(|| AwaitsHead(Arc::new(AtomicBool::new(true)))),
        // The first head is already under way.
        clock: http1.then(|| Box::pin(tokio::time::sleep_until(started + HEAD))),
    };
    Some((clocked, version))
}

impl<T> Clocked<T> {
    /// The switch of the HTTP/1 clock.
    pub(super) fn awaits_head(&self) -> Option<AwaitsHead> {
        self.awaits_head.clone()
    }

    fn is_in_head(&self) -> bool {
        self.awaits_head
            .as_ref()
            .is_some_and(|awaits| awaits.0.load(Ordering::Relaxed))
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Clocked<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if !self.first.is_empty() {
            let give = self.first.len().min(buffer.remaining());
            buffer.put_slice(&self.first.split_to(give));
            return Poll::Ready(Ok(()));
        }
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(context, buffer);
        if !self.is_in_head() {
            self.clock = None;
            return read;
        }
        if read.is_ready() && buffer.filled().len() > before && self.clock.is_none() {
            self.clock = Some(Box::pin(tokio::time::sleep(HEAD)));
        }
        let expired = self
            .clock
            .as_mut()
            .is_some_and(|clock| clock.as_mut().poll(context).is_ready());
        if expired {
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        read
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Clocked<T> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncWriteExt as _;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_silent_connection_is_closed() {
        let (_client, server) = tokio::io::duplex(64);
        let started = Instant::now();
        assert!(open(server).await.is_none());
        assert_eq!(started.elapsed(), HEAD);
    }

    #[tokio::test(start_paused = true)]
    async fn half_a_preface_is_closed_too() {
        let (mut client, server) = tokio::io::duplex(64);
        client.write_all(&PREFACE[..10]).await.unwrap();
        assert!(open(server).await.is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn a_slow_head_is_closed_and_an_idle_connection_is_not() {
        let (mut client, server) = tokio::io::duplex(64);
        client.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
        let (mut io, version) = open(server).await.unwrap();
        assert_eq!(version, Version::Http1);
        let mut head = [0; 18];
        io.read_exact(&mut head).await.unwrap();
        // Answered; then silence longer than a head may take.
        drop(io.awaits_head().unwrap().answering());
        io.clock = None;
        let idle = tokio::time::timeout(HEAD * 3, io.read_u8()).await;
        assert!(idle.is_err(), "idling is not this clock's business");
        // One byte of the next head, and no more.
        client.write_all(b"G").await.unwrap();
        assert_eq!(io.read_u8().await.unwrap(), b'G');
        let started = Instant::now();
        let error = io.read_u8().await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        assert_eq!(started.elapsed(), HEAD);
    }

    #[tokio::test]
    async fn the_bytes_of_the_version_are_given_back() {
        let (mut client, server) = tokio::io::duplex(64);
        client.write_all(PREFACE).await.unwrap();
        client.write_all(b"more").await.unwrap();
        drop(client);
        let (mut io, version) = open(server).await.unwrap();
        assert_eq!(version, Version::Http2);
        let mut all = Vec::new();
        io.read_to_end(&mut all).await.unwrap();
        assert_eq!(all, [PREFACE, b"more"].concat());
    }
}
