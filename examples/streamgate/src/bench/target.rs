//! Where the load goes: an `http` address on this machine and nowhere else.

use std::fmt;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::str::FromStr;

use http::{HeaderValue, Uri};

/// A service on loopback: addresses to connect to and the `Host` to name.
#[derive(Debug, Clone)]
pub(crate) struct Target {
    addresses: Vec<SocketAddr>,
    host: HeaderValue,
    authority: String,
}

impl Target {
    /// Addresses to try in order; all of them are loopback.
    pub(crate) fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// Value of the `Host` header.
    pub(crate) fn host(&self) -> &HeaderValue {
        &self.host
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "http://{}", self.authority)
    }
}

impl FromStr for Target {
    type Err = String;

    /// Only addresses of this machine are taken: an open-loop generator pointed elsewhere by a typing
    /// mistake is an attack on somebody.
    fn from_str(text: &str) -> Result<Self, String> {
        let uri: Uri = text
            .parse()
            .map_err(|_| format!("an address such as http://127.0.0.1:8080 (got {text:?})"))?;
        if uri.scheme_str() != Some("http") {
            return Err(format!("the scheme must be http (got {text:?})"));
        }
        if !matches!(uri.path(), "" | "/") || uri.query().is_some() {
            return Err(format!(
                "the address must end after the port (got {text:?})"
            ));
        }
        let authority = uri.authority().map_or("", http::uri::Authority::as_str);
        let host = uri.host().unwrap_or_default();
        let port = uri.port_u16().unwrap_or(80);
        if authority.contains('@') || port == 0 {
            return Err(format!(
                "the address must be host:port with a port of 1..=65535 (got {text:?})"
            ));
        }
        let host_name = host.trim_start_matches('[').trim_end_matches(']');
        let addresses = addresses(host_name, port).ok_or_else(|| {
            format!("the host must be this machine: 127.0.0.1, [::1] or localhost; load on other machines is refused (got {text:?})")
        })?;
        let authority = format!("{host}:{port}");
        let host = HeaderValue::from_str(&authority)
            .map_err(|_| format!("not a host name (got {text:?})"))?;
        Ok(Self {
            addresses,
            host,
            authority,
        })
    }
}

/// Loopback addresses of a literal or of `localhost`; nothing for any other host.
fn addresses(host: &str, port: u16) -> Option<Vec<SocketAddr>> {
    if let Ok(ip) = host.parse::<IpAddr>() {
        return ip.is_loopback().then(|| vec![SocketAddr::new(ip, port)]);
    }
    if !host.eq_ignore_ascii_case("localhost") {
        return None;
    }
    // A hosts file can point the name elsewhere, so what it resolves to is judged as well.
    let resolved: Vec<SocketAddr> = (host, port)
        .to_socket_addrs()
        .ok()?
        .filter(|address| address.ip().is_loopback())
        .collect();
    (!resolved.is_empty()).then_some(resolved)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_literals_and_localhost_are_taken() {
        for text in [
            "http://127.0.0.1:8080",
            "http://127.8.9.1:1/",
            "http://[::1]:8080",
            "http://localhost:8080",
        ] {
            let target: Target = text.parse().unwrap();
            assert!(!target.addresses().is_empty());
            assert!(
                target
                    .addresses()
                    .iter()
                    .all(|address| address.ip().is_loopback()),
                "{text}"
            );
        }
    }

    #[test]
    fn every_other_host_is_refused_by_name() {
        for text in [
            "http://10.0.0.1:8080",
            "http://0.0.0.0:8080",
            "http://[::]:8080",
            "http://[::ffff:10.0.0.1]:80",
            "http://example.com",
            "http://localhost.example.com:8080",
            "http://2130706433:8080",
        ] {
            let message = text.parse::<Target>().unwrap_err();
            assert!(
                message.contains("this machine") && message.contains(text),
                "{message}"
            );
        }
    }

    #[test]
    fn other_schemes_paths_and_user_parts_are_refused() {
        for text in [
            "https://127.0.0.1:8080",
            "127.0.0.1:8080",
            "http://127.0.0.1:8080/v1",
            "http://127.0.0.1:8080?x=1",
            "http://127.0.0.1@10.0.0.1:80",
            "http://user@127.0.0.1:80",
            "http://127.0.0.1:0",
            "",
        ] {
            assert!(text.parse::<Target>().is_err(), "{text}");
        }
    }
}
