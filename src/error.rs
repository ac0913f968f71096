//! The one error of the crate: a public struct around a private kind, asked by questions.

use std::fmt;
use std::net::SocketAddr;

/// Why the agent could not do what its host asked.
///
/// The kind is private so that a new cause is no breaking change; hosts ask
/// [`is_address_in_use`](Error::is_address_in_use) and its siblings.
#[derive(Debug)]
pub struct Error {
    kind: Kind,
}

#[derive(Debug)]
enum Kind {
    AddressInUse {
        address: SocketAddr,
        source: std::io::Error,
    },
    Bind {
        address: SocketAddr,
        source: std::io::Error,
    },
    Thread {
        name: &'static str,
        source: std::io::Error,
    },
    Runtime {
        source: std::io::Error,
    },
    OutOfRange {
        parameter: &'static str,
        range: String,
        seen: String,
    },
    Refused {
        what: &'static str,
        why: String,
    },
}

impl Error {
    #[cfg_attr(
        not(feature = "http"),
        expect(dead_code, reason = "only the listener binds")
    )]
    pub(crate) fn bind(address: SocketAddr, source: std::io::Error) -> Self {
        let kind = if source.kind() == std::io::ErrorKind::AddrInUse {
            Kind::AddressInUse { address, source }
        } else {
            Kind::Bind { address, source }
        };
        Self { kind }
    }

    pub(crate) fn thread(name: &'static str, source: std::io::Error) -> Self {
        Self {
            kind: Kind::Thread { name, source },
        }
    }

    pub(crate) fn runtime(source: std::io::Error) -> Self {
        Self {
            kind: Kind::Runtime { source },
        }
    }

    pub(crate) fn out_of_range(
        parameter: &'static str,
        range: impl fmt::Display,
        seen: impl fmt::Display,
    ) -> Self {
        Self {
            kind: Kind::OutOfRange {
                parameter,
                range: range.to_string(),
                seen: seen.to_string(),
            },
        }
    }

    pub(crate) fn refused(what: &'static str, why: impl fmt::Display) -> Self {
        Self {
            kind: Kind::Refused {
                what,
                why: why.to_string(),
            },
        }
    }

    /// Says whether another process already listens on the agent's address.
    pub fn is_address_in_use(&self) -> bool {
        matches!(self.kind, Kind::AddressInUse { .. })
    }

    /// Says whether a value lies outside its allowed range; the text names parameter, range and value.
    pub fn is_out_of_range(&self) -> bool {
        matches!(self.kind, Kind::OutOfRange { .. })
    }

    /// Says whether the request was understood and refused, for safety or because a part is absent.
    pub fn is_refused(&self) -> bool {
        matches!(self.kind, Kind::Refused { .. })
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.kind {
            Kind::AddressInUse { address, .. } => {
                write!(
                    f,
                    "the agent cannot listen on {address}: the address is in use"
                )
            }
            Kind::Bind { address, source } => {
                write!(f, "the agent cannot listen on {address}: {source}")
            }
            Kind::Thread { name, source } => {
                write!(f, "the agent cannot start its thread {name}: {source}")
            }
            Kind::Runtime { source } => write!(f, "the agent cannot build its runtime: {source}"),
            Kind::OutOfRange {
                parameter,
                range,
                seen,
            } => {
                write!(f, "{parameter} must be {range} (got {seen:?})")
            }
            Kind::Refused { what, why } => write!(f, "{what}: {why}"),
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match &self.kind {
            Kind::AddressInUse { source, .. }
            | Kind::Bind { source, .. }
            | Kind::Thread { source, .. }
            | Kind::Runtime { source } => Some(source),
            Kind::OutOfRange { .. } | Kind::Refused { .. } => None,
        }
    }
}
