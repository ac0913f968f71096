//! The listener: binds, accepts within its caps, backs off when it cannot, stops in time.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::future::{Future, poll_fn};
use std::net::{IpAddr, SocketAddr, TcpListener};
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex};
use std::task::Poll;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use super::wire::Limits;
use super::{Stop, connection, endpoints};
use crate::error::Error;
use crate::export::guard::Reason;
use crate::export::respond::Plane;
use crate::store::sync::lock;

/// Binds the listener, before anything else of the agent starts.
///
/// # Errors
/// Address in use, or whatever else the system says against it.
pub(crate) fn bind(address: SocketAddr) -> Result<TcpListener, Error> {
    let listener = TcpListener::bind(address).map_err(|source| Error::bind(address, source))?;
    listener
        .set_nonblocking(true)
        .map_err(|source| Error::bind(address, source))?;
    Ok(listener)
}

/// Serves the listener until asked to stop, then gives open answers the time that comes with it.
/// Without a listener it only keeps the runtime turning for answers asked for elsewhere.
pub(crate) async fn run(listener: Option<&TcpListener>, plane: Arc<Plane>, stop: Stop) {
    match listener {
        Some(listener) => serve(listener, plane, Limits::default(), stop).await,
        None => {
            stopped(stop).await;
        }
    }
}

pub(super) async fn serve(listener: &TcpListener, plane: Arc<Plane>, limits: Limits, stop: Stop) {
    let service = ::warp::service(endpoints(&plane).filter());
    let seats = Arc::new(Seats::new(limits));
    let mut connections = JoinSet::new();
    let mut asked = pin!(stopped(stop.clone()));
    let mut backoff = Backoff::default();
    let mut accepting = None;
    let drain = loop {
        while connections.try_join_next().is_some() {}
        let Some(listener) = &accepting else {
            // The clone shares the socket; it needs a descriptor, as a connection does.
            accepting = listener
                .try_clone()
                .and_then(tokio::net::TcpListener::from_std)
                .ok();
            match &accepting {
                Some(_) => continue,
                None => match first(asked.as_mut(), sleep(backoff.next())).await {
                    First::Left(drain) => break drain,
                    First::Right(()) => continue,
                },
            }
        };
        match first(asked.as_mut(), listener.accept()).await {
            First::Left(drain) => break drain,
            First::Right(Ok((stream, peer))) => {
                backoff = Backoff::default();
                match seats.take(peer.ip()) {
                    Ok(seat) => {
                        let service = service.clone();
                        let plane = Arc::clone(&plane);
                        let stop = stop.clone();
                        connections.spawn(async move {
                            connection::serve(stream, peer, service, plane, limits, stop).await;
                            drop(seat);
                        });
                    }
                    // Dropping the stream closes it.
                    Err(reason) => plane.denied.count(reason),
                }
            }
            // Mostly no descriptor left, and then the next try fails at once, again and again.
            First::Right(Err(_)) => {
                if let First::Left(drain) = first(asked.as_mut(), sleep(backoff.next())).await {
                    break drain;
                }
            }
        }
    };
    drop(accepting);
    let rest = async { while connections.join_next().await.is_some() {} };
    // Elapsed: dropping the set cuts what is still open.
    timeout(drain, rest).await.unwrap_or_default();
}

/// Waits for the request to stop; a sender that is gone asks for it at once.
async fn stopped(mut stop: Stop) -> Duration {
    let asked = stop.wait_for(Option::is_some).await;
    asked.ok().and_then(|drain| *drain).unwrap_or_default()
}

enum First<A, B> {
    Left(A),
    Right(B),
}

/// Whichever future is done first, the left one if both are.
async fn first<A, B>(
    mut left: Pin<&mut impl Future<Output = A>>,
    right: impl Future<Output = B>,
) -> First<A, B> {
    let mut right = pin!(right);
    poll_fn(|context| {
        if let Poll::Ready(done) = left.as_mut().poll(context) {
            return Poll::Ready(First::Left(done));
        }
        right.as_mut().poll(context).map(First::Right)
    })
    .await
}

/// Waits between failed accepts: 100 ms, doubled up to 1 s.
#[derive(Debug, Default)]
struct Backoff(Option<Duration>);

impl Backoff {
    fn next(&mut self) -> Duration {
        let wait = self
            .0
            .map_or(Duration::from_millis(100), |last| last * 2)
            .min(Duration::from_secs(1));
        self.0 = Some(wait);
        wait
    }
}

/// Connections that may be open, in all and per peer.
#[derive(Debug)]
struct Seats {
    limits: Limits,
    taken: Mutex<HashMap<IpAddr, usize>>,
}

/// A connection's place.
#[derive(Debug)]
struct Seat {
    seats: Arc<Seats>,
    peer: IpAddr,
}

impl Seats {
    fn new(limits: Limits) -> Self {
        Self {
            limits,
            taken: Mutex::default(),
        }
    }

    fn take(self: &Arc<Self>, peer: IpAddr) -> Result<Seat, Reason> {
        let peer = peer.to_canonical();
        let mut taken = lock(&self.taken);
        if taken.values().sum::<usize>() >= self.limits.connections {
            return Err(Reason::Connections);
        }
        let mine = taken.entry(peer).or_default();
        if *mine >= self.limits.per_peer {
            return Err(Reason::PeerConnections);
        }
        *mine += 1;
        drop(taken);
        Ok(Seat {
            seats: Arc::clone(self),
            peer,
        })
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        if let Entry::Occupied(mut mine) = lock(&self.seats.taken).entry(self.peer) {
            *mine.get_mut() -= 1;
            if *mine.get() == 0 {
                mine.remove();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seat_is_free_again_when_its_connection_is_and_no_peer_takes_them_all() {
        let limits = Limits {
            connections: 3,
            per_peer: 2,
            ..Limits::default()
        };
        let seats = Arc::new(Seats::new(limits));
        let peer = |last: u8| IpAddr::from([127, 0, 0, last]);
        let first = seats.take(peer(1)).unwrap();
        let _second = seats.take(peer(1)).unwrap();
        assert_eq!(seats.take(peer(1)).unwrap_err(), Reason::PeerConnections);
        let mapped = IpAddr::from([0, 0, 0, 0, 0, 0xffff, 0x7f00, 1]);
        assert_eq!(seats.take(mapped).unwrap_err(), Reason::PeerConnections);
        let _third = seats.take(peer(2)).unwrap();
        assert_eq!(seats.take(peer(3)).unwrap_err(), Reason::Connections);
        drop(first);
        assert!(seats.take(peer(1)).is_ok());
        assert_eq!(lock(&seats.taken).len(), 2);
    }

    #[test]
    fn failed_accepts_wait_longer_each_time_up_to_a_second() {
        let mut backoff = Backoff::default();
        let waits: Vec<u128> = (0..6).map(|_| backoff.next().as_millis()).collect();
        assert_eq!(waits, [100, 200, 400, 800, 1000, 1000]);
    }
}
