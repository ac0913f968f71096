//! One connection's socket with the clocks that its peer must keep.
//!
//! hyper has one clock for heads, and it also runs while a kept-alive connection idles; it never
//! watches how fast an answer is taken, nor for a peer that leaves while bytes of a next request
//! wait unread. So every byte passes here, and [`Wire::watch`] says when the peer's time is up.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Instant, Sleep, sleep_until};

use crate::config;
use crate::store::sync::lock;

/// What a peer may do, and how long it may take.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    pub(crate) connections: usize,
    pub(crate) per_peer: usize,
    pub(crate) head: Duration,
    pub(crate) idle: Duration,
    pub(crate) write_progress: Duration,
    pub(crate) linger: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: config::CONNECTIONS,
            per_peer: config::CONNECTIONS_PER_PEER,
            head: config::HEAD_TIMEOUT,
            idle: config::IDLE_TIMEOUT,
            write_progress: config::WRITE_PROGRESS,
            linger: config::LINGER,
        }
    }
}

/// Whose turn it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Turn {
    /// The peer's: a head is under way, or the first byte of the first one is awaited.
    Head,
    /// The peer's, who may leave it: the next request of a kept-alive connection.
    Idle,
    /// The peer's: a body is under way.
    Body,
    /// Ours: an answer is being made.
    Work,
}

/// Why a connection is cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Cut {
    /// No whole request in time.
    Late,
    /// No further request; the ordinary end of a kept-alive connection.
    Idle,
    /// The answer was not taken in time.
    Slow,
    /// The peer left while its answer was being made.
    Left,
    /// The peer sent more than a head while its answer was being made.
    Ahead,
}

/// The socket and its clocks.
#[derive(Debug)]
pub(super) struct Wire {
    stream: TcpStream,
    limits: Limits,
    turn: Turn,
    /// When the peer's turn ends.
    due: Option<Instant>,
    /// A body was not read to its end: its rest may still be on its way.
    pub(super) unread: bool,
    /// Bytes came during our turn: the next head has begun.
    early: bool,
    /// Read during our turn and not yet handed on.
    ahead: Vec<u8>,
    /// While an answer waits to be taken: when to look, and the bytes taken until then.
    sending: Option<(Instant, u64)>,
    /// Bytes dropped after our side was closed.
    drained: usize,
    clock: Pin<Box<Sleep>>,
}

impl Wire {
    pub(super) fn new(stream: TcpStream, limits: Limits) -> Self {
        let due = Instant::now() + limits.head;
        Self {
            stream,
            limits,
            turn: Turn::Head,
            due: Some(due),
            unread: false,
            early: false,
            ahead: Vec::new(),
            sending: None,
            drained: 0,
            clock: Box::pin(sleep_until(due)),
        }
    }

    /// A head has come; a body follows or not.
    pub(super) fn head_done(&mut self, body: bool) {
        self.early = false;
        if body {
            self.turn = Turn::Body;
            self.due = Some(Instant::now() + self.limits.head);
        } else {
            self.body_done(true);
        }
    }

    /// The body has come, or nobody wants the rest of it.
    pub(super) fn body_done(&mut self, whole: bool) {
        self.turn = Turn::Work;
        self.due = None;
        self.unread |= !whole;
    }

    /// The answer is on its way out.
    pub(super) fn answered(&mut self) {
        let (turn, time) = if self.early {
            (Turn::Head, self.limits.head)
        } else {
            (Turn::Idle, self.limits.idle)
        };
        self.turn = turn;
        self.due = Some(Instant::now() + time);
    }

    /// Ready when the connection must end. To be polled after everything else of the connection.
    pub(super) fn watch(&mut self, context: &mut Context<'_>) -> Poll<Cut> {
        if self.turn == Turn::Work
            && let Poll::Ready(cut) = self.read_ahead(context)
        {
            return Poll::Ready(cut);
        }
        loop {
            let look = self.sending.map(|(look, _)| look);
            let Some(next) = self.due.into_iter().chain(look).min() else {
                return Poll::Pending;
            };
            if self.clock.deadline() != next {
                self.clock.as_mut().reset(next);
            }
            ready!(self.clock.as_mut().poll(context));
            let now = Instant::now();
            if self.due.is_some_and(|due| due <= now) {
                return Poll::Ready(match self.turn {
                    Turn::Idle => Cut::Idle,
                    Turn::Head | Turn::Body | Turn::Work => Cut::Late,
                });
            }
            if let Some((look, taken)) = self.sending
                && look <= now
            {
                if taken < config::WRITE_PROGRESS_BYTES {
                    return Poll::Ready(Cut::Slow);
                }
                self.sending = Some((now + self.limits.write_progress, 0));
            }
        }
    }

    /// Reads during our turn, only to see the peer leave: hyper stops reading once it holds bytes
    /// of a next request. What comes is kept for it.
    fn read_ahead(&mut self, context: &mut Context<'_>) -> Poll<Cut> {
        loop {
            if self.ahead.len() >= config::HEAD_BYTES {
                return Poll::Ready(Cut::Ahead);
            }
            let mut space = [0; 1024];
            let mut buffer = ReadBuf::new(&mut space);
            match ready!(Pin::new(&mut self.stream).poll_read(context, &mut buffer)) {
                Ok(()) if !buffer.filled().is_empty() => {
                    self.early = true;
                    self.ahead.extend_from_slice(buffer.filled());
                }
                Ok(()) | Err(_) => return Poll::Ready(Cut::Left),
            }
        }
    }

    fn poll_read(
        &mut self,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if !self.ahead.is_empty() {
            let count = self.ahead.len().min(buffer.remaining());
            buffer.put_slice(self.ahead.get(..count).unwrap_or_default());
            self.ahead.drain(..count);
            return Poll::Ready(Ok(()));
        }
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(context, buffer))?;
        if buffer.filled().len() > before {
            match self.turn {
                Turn::Idle => {
                    self.turn = Turn::Head;
                    self.due = Some(Instant::now() + self.limits.head);
                }
                Turn::Work => self.early = true,
                // The clock runs on from the first byte: one byte a second is no progress.
                Turn::Head | Turn::Body => {}
            }
        }
        Poll::Ready(Ok(()))
    }

    fn wrote(&mut self, result: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        match (&result, &mut self.sending) {
            (Poll::Pending, None) => {
                self.sending = Some((Instant::now() + self.limits.write_progress, 0));
            }
            (Poll::Ready(Ok(count)), Some((_, taken))) => *taken += *count as u64,
            _ => {}
        }
        result
    }

    /// Closes our side, then takes and drops what the peer still sends.
    pub(super) fn poll_drain(&mut self, context: &mut Context<'_>) -> Poll<()> {
        if ready!(Pin::new(&mut self.stream).poll_shutdown(context)).is_err() {
            return Poll::Ready(());
        }
        let mut space = [0; 1024];
        while self.drained < config::LINGER_BYTES {
            let mut buffer = ReadBuf::new(&mut space);
            match ready!(Pin::new(&mut self.stream).poll_read(context, &mut buffer)) {
                Ok(()) if !buffer.filled().is_empty() => self.drained += buffer.filled().len(),
                Ok(()) | Err(_) => break,
            }
        }
        Poll::Ready(())
    }

    /// Makes the close a reset, so that the kernel frees what the peer did not take.
    pub(super) fn reset(&self) {
        // If it cannot be set, the kernel keeps the bytes for as long as it retries.
        self.stream.set_zero_linger().unwrap_or_default();
    }
}

/// The wire as hyper holds it.
#[derive(Debug, Clone)]
pub(super) struct Io(pub(super) Arc<Mutex<Wire>>);

impl AsyncRead for Io {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        lock(&self.0).poll_read(context, buffer)
    }
}

impl AsyncWrite for Io {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let mut wire = lock(&self.0);
        let result = Pin::new(&mut wire.stream).poll_write(context, bytes);
        wire.wrote(result)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let mut wire = lock(&self.0);
        let result = Pin::new(&mut wire.stream).poll_write_vectored(context, slices);
        wire.wrote(result)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut wire = lock(&self.0);
        // hyper flushes when it has handed over every byte.
        wire.sending = None;
        Pin::new(&mut wire.stream).poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut lock(&self.0).stream).poll_shutdown(context)
    }
}
