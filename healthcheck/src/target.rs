//! A server to probe, as the scheduler and the prober need it.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use hyper::Uri;
use hyper::header::HeaderValue;

use crate::expect::Expect;
use crate::state::Limits;

/// A server and how it is probed. Two equal targets are the same work: its state goes on over a new reading of the board.
#[derive(Clone, Debug, PartialEq)]
pub struct Target {
    /// Row of the result.
    pub id: u32,
    /// Tag of the id's present use.
    pub tag: u32,
    /// For the log.
    pub service: Arc<str>,
    /// Where probes go.
    pub address: SocketAddr,
    /// What a probe does.
    pub check: Check,
    /// Start to start of two probes, at most.
    pub interval: Duration,
    /// The same while the state is in doubt; never more than `interval`.
    pub fast: Duration,
    /// A probe without result by then has failed.
    pub timeout: Duration,
    /// Results in a row that change the state.
    pub limits: Limits,
}

/// What a probe does.
#[derive(Clone, Debug, PartialEq)]
pub enum Check {
    /// Nothing: the server's state is "unknown".
    None,
    /// Connects.
    Tcp,
    /// Asks and judges the answer.
    Http(Arc<Http>),
}

/// A request and what its answer must be.
#[derive(Debug, PartialEq)]
pub struct Http {
    /// Path, with the query if there is one.
    pub path: Uri,
    /// The `Host` header; `None`: address and port of the server.
    pub host: Option<HeaderValue>,
    /// What the answer must be.
    pub expect: Expect,
}

/// Why a check cannot be made.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum CheckError {
    /// The path is none.
    #[error("health path {0:?} is no HTTP path; hint: it begins with / and has no spaces")]
    Path(String),
    /// The host cannot be a header.
    #[error("health host {0:?} cannot stand in a Host header")]
    Host(String),
}

impl Http {
    /// A check from the texts of a profile; empty ones are defaults (`/`, the server's address, 200–399).
    ///
    /// # Errors
    /// A text that no request can carry.
    pub fn new(path: &str, host: &str, expect: &str) -> Result<Self, CheckError> {
        let uri: Option<Uri> = if path.is_empty() { "/" } else { path }.parse().ok();
        let uri = uri.filter(|uri| uri.authority().is_none() && uri.path().starts_with('/'));
        let host = match host {
            "" => None,
            host => Some(HeaderValue::from_str(host).map_err(|_| CheckError::Host(host.into()))?),
        };
        Ok(Self { path: uri.ok_or_else(|| CheckError::Path(path.into()))?, host, expect: Expect::parse(expect) })
    }

    /// The `Host` header for a server: as configured, or its address (RFC 9112 §3.2: the port only if it is not 80).
    pub fn host_for(&self, server: SocketAddr) -> HeaderValue {
        if let Some(host) = &self.host {
            return host.clone();
        }
        let text = match (server.ip(), server.port()) {
            (IpAddr::V6(ip), 80) => format!("[{ip}]"),
            (ip, 80) => ip.to_string(),
            _ => server.to_string(),
        };
        HeaderValue::from_str(&text).expect("an address is plain ASCII")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_and_refusals() {
        let plain = Http::new("", "", "").unwrap();
        assert_eq!((plain.path.path(), plain.host.is_none()), ("/", true));
        assert_eq!(plain.host_for("10.0.0.1:80".parse().unwrap()), "10.0.0.1");
        assert_eq!(plain.host_for("10.0.0.1:8080".parse().unwrap()), "10.0.0.1:8080");
        assert_eq!(plain.host_for("[fd00::1]:80".parse().unwrap()), "[fd00::1]");
        assert_eq!(plain.host_for("[fd00::1]:81".parse().unwrap()), "[fd00::1]:81");
        let full = Http::new("/health?deep=1", "www.example.com", "ok").unwrap();
        assert_eq!(full.host_for("10.0.0.1:80".parse().unwrap()), "www.example.com");
        assert_eq!(full.path.path_and_query().unwrap().as_str(), "/health?deep=1");
        for path in ["health", "/a b", "http://other/"] {
            assert_eq!(Http::new(path, "", "").unwrap_err(), CheckError::Path(path.into()));
        }
        assert_eq!(Http::new("/", "a\nb", "").unwrap_err(), CheckError::Host("a\nb".into()));
    }
}
