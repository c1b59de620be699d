//! One probe: ordinary sockets, bound to the configured source, routed by the kernel.
//!
//! Connections end by reset (SO_LINGER 0), as HAProxy's checks do: thousands of probes a second leave no TIME_WAIT.

use std::error::Error;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::pin;

use http_body_util::{BodyExt, Empty};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1;
use hyper::header::{ACCEPT, CONNECTION, HOST, HeaderValue, USER_AGENT};
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use nix::errno::Errno;
use shm_layout::board::failure;
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::Instant;

use crate::awake::Awake;
use crate::expect::{BODY_BYTES, Expect, Search};
use crate::schedule::{Reason, Verdict};
use crate::target::{Check, Http, Target};

/// Probes `target` from `source`; ends at the target's timeout at the latest (of waking time).
pub async fn probe(target: &Target, source: Option<IpAddr>, awake: &Awake) -> Verdict {
    let before = awake.turn(Instant::now());
    let mut connected = false;
    let work = async {
        let stream = connect(target.address, source).await?;
        connected = true;
        match &target.check {
            Check::Http(http) => ask(stream, target.address, http).await,
            Check::Tcp | Check::None => Ok(()),
        }
    };
    match awake.within(target.timeout, work).await {
        Some(Ok(())) => Verdict::Good,
        // What a server answers to a client that stood still (a reset, a close, 408) may be due to our silence.
        Some(Err(reason)) if connected && awake.turn(Instant::now()) > before => Verdict::Void(reason),
        Some(Err(reason)) if ours(reason) => Verdict::Void(reason),
        Some(Err(reason)) => Verdict::Bad(reason),
        None => Verdict::Bad(Reason { kind: failure::TIMEOUT, detail: 0 }),
    }
}

/// Faults of this machine: they say nothing about the server, and must not take every server down at once.
fn ours(reason: Reason) -> bool {
    let errno = Errno::from_raw(i32::try_from(reason.detail).unwrap_or(0));
    reason.kind == failure::SOCKET
        && matches!(
            errno,
            Errno::EMFILE
                | Errno::ENFILE
                | Errno::ENOBUFS
                | Errno::ENOMEM
                | Errno::EADDRNOTAVAIL
                | Errno::EADDRINUSE
                | Errno::EAGAIN
                | Errno::EAFNOSUPPORT
                | Errno::EPERM
                | Errno::EACCES
        )
}

fn socket(errno: Errno) -> Reason {
    Reason { kind: failure::SOCKET, detail: u32::try_from(errno as i32).unwrap_or(0) }
}

fn io_reason(error: &io::Error) -> Reason {
    match error.raw_os_error() {
        Some(raw) => socket(Errno::from_raw(raw)),
        None => socket(Errno::EIO),
    }
}

async fn connect(server: SocketAddr, source: Option<IpAddr>) -> Result<TcpStream, Reason> {
    let open = async {
        let socket = if server.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
        socket.set_zero_linger()?;
        if let Some(source) = source.filter(|s| s.is_ipv4() == server.is_ipv4()) {
            socket.bind(SocketAddr::new(source, 0))?;
        }
        let stream = socket.connect(server).await?;
        // A probe of a port of this machine nobody listens on can meet itself (RFC 9293 §3.5, simultaneous open).
        if stream.local_addr()? == server {
            return Err(Errno::ECONNREFUSED.into());
        }
        Ok(stream)
    };
    open.await.map_err(|error: io::Error| io_reason(&error))
}

/// One GET (RFC 9110), judged by the check.
async fn ask(stream: TcpStream, server: SocketAddr, http: &Http) -> Result<(), Reason> {
    let (mut sender, connection) = http1::Builder::new()
        .max_buf_size(BODY_BYTES)
        .handshake::<_, Empty<Bytes>>(TokioIo::new(stream))
        .await
        .map_err(|error| http_reason(&error))?;
    let exchange = async {
        let response = sender.send_request(request(server, http)).await.map_err(|error| http_reason(&error))?;
        judge(response, &http.expect).await
    };
    let (mut exchange, connection) = (pin!(exchange), pin!(connection));
    tokio::select! {
        biased;
        verdict = &mut exchange => verdict,
        // The connection is over; what it received still waits in the exchange, or its error does.
        _ = connection => exchange.await,
    }
}

fn request(server: SocketAddr, http: &Http) -> Request<Empty<Bytes>> {
    let mut request = Request::new(Empty::new());
    *request.uri_mut() = http.path.clone();
    let headers = request.headers_mut();
    headers.insert(HOST, http.host_for(server));
    headers.insert(USER_AGENT, HeaderValue::from_static("containerlb-healthcheck"));
    headers.insert(ACCEPT, HeaderValue::from_static("*/*"));
    headers.insert(CONNECTION, HeaderValue::from_static("close"));
    request
}

async fn judge(response: Response<Incoming>, expect: &Expect) -> Result<(), Reason> {
    let status = response.status().as_u16();
    if !expect.status(status) {
        return Err(Reason { kind: failure::STATUS, detail: status.into() });
    }
    let Expect::Text(text) = expect else {
        return Ok(());
    };
    let mut body = response.into_body();
    let mut search = Search::new(text);
    let mut found = search.piece(b"");
    while found.is_none() {
        match body.frame().await {
            Some(Ok(frame)) => found = frame.data_ref().and_then(|piece| search.piece(piece)),
            Some(Err(error)) => return Err(http_reason(&error)),
            None => break,
        }
    }
    if found == Some(true) { Ok(()) } else { Err(Reason { kind: failure::CONTENT, detail: 0 }) }
}

/// hyper's errors in the board's words: the kernel's if there was one, "no data" for a close without an answer, else
/// the answer was no HTTP.
fn http_reason(error: &hyper::Error) -> Reason {
    if let Some(cause) = error.source().and_then(|cause| cause.downcast_ref::<io::Error>()) {
        return io_reason(cause);
    }
    if error.is_incomplete_message() || error.is_canceled() || error.is_closed() {
        return socket(Errno::ENODATA);
    }
    Reason { kind: failure::PROTOCOL, detail: 0 }
}

#[cfg(test)]
#[path = "prober_tests.rs"]
mod tests;
