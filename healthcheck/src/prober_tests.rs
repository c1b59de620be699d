use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream as StdStream};
use std::sync::Arc;
use std::sync::mpsc;
use std::time::Duration;

use nix::sys::socket::{Backlog, listen, setsockopt, sockopt};

use super::*;
use crate::state::Limits;

fn target(address: SocketAddr, check: Check) -> Target {
    let second = Duration::from_secs(1);
    Target {
        id: 0,
        tag: 0,
        service: "test".into(),
        address,
        check,
        interval: second,
        fast: second,
        timeout: Duration::from_millis(500),
        limits: Limits { rise: 1, fall: 1 },
    }
}

fn http(path: &str, expect: &str) -> Check {
    Check::Http(Arc::new(Http::new(path, "www.example.com", expect).unwrap()))
}

fn run(target: &Target, source: Option<&str>) -> Verdict {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let source = source.map(|s| s.parse().unwrap());
    runtime.block_on(async {
        let awake = Awake::new(Instant::now());
        let turns = async {
            loop {
                tokio::time::sleep(crate::awake::TICK).await;
                awake.turn(Instant::now());
            }
        };
        tokio::select! { verdict = probe(target, source, &awake) => verdict, () = turns => unreachable!() }
    })
}

fn bad(kind: u8, detail: u32) -> Verdict {
    Verdict::Bad(Reason { kind, detail })
}

fn errno(errno: Errno) -> Verdict {
    bad(failure::SOCKET, u32::try_from(errno as i32).unwrap())
}

/// A server for one connection, which does `serve` with it after the request's head has come; the head comes back.
fn serve(serve: impl FnOnce(StdStream) + Send + 'static) -> (SocketAddr, mpsc::Receiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let (head, heads) = mpsc::channel();
    std::thread::spawn(move || {
        let mut stream = listener.accept().unwrap().0;
        let mut seen = Vec::new();
        let mut byte = [0];
        while !seen.ends_with(b"\r\n\r\n") && stream.read(&mut byte).unwrap_or(0) == 1 {
            seen.push(byte[0]);
        }
        let _ = head.send(String::from_utf8(seen).unwrap());
        serve(stream);
    });
    (address, heads)
}

fn answer(text: &'static str) -> SocketAddr {
    serve(move |mut stream| stream.write_all(text.as_bytes()).unwrap()).0
}

#[test]
fn tcp_up_and_refused() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    assert_eq!(run(&target(address, Check::Tcp), None), Verdict::Good);
    drop(listener);
    assert_eq!(run(&target(address, Check::Tcp), None), errno(Errno::ECONNREFUSED));
}

#[test]
fn a_listener_that_accepts_nothing_more_times_out() {
    // Backlog 0 holds one connection; the SYNs of others are dropped, as by a host that is gone.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listen(&listener, Backlog::new(0).unwrap()).unwrap();
    let address = listener.local_addr().unwrap();
    let _queued = StdStream::connect(address).unwrap();
    let begun = std::time::Instant::now();
    assert_eq!(run(&target(address, Check::Tcp), None), bad(failure::TIMEOUT, 0));
    let took = begun.elapsed();
    assert!(took >= Duration::from_millis(500) && took < Duration::from_millis(800), "{took:?}");
}

#[test]
fn http_says_what_it_is_asked_to() {
    let (address, heads) = serve(|mut s| s.write_all(b"HTTP/1.1 204 No Content\r\n\r\n").unwrap());
    assert_eq!(run(&target(address, http("/health?x=1", "")), None), Verdict::Good);
    let head = heads.recv().unwrap();
    assert!(head.starts_with("GET /health?x=1 HTTP/1.1\r\n"), "{head}");
    let head = head.to_lowercase();
    assert!(head.contains("host: www.example.com\r\n") && head.contains("connection: close\r\n"), "{head}");
}

#[test]
fn http_judges_status_and_content() {
    let cases: [(&str, &str, Verdict); 10] = [
        ("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", "", Verdict::Good),
        ("HTTP/1.0 302 Found\r\nLocation: /\r\n\r\n", "", Verdict::Good),
        ("HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n", "", bad(failure::STATUS, 503)),
        ("HTTP/1.1 204 No\r\n\r\n", "200", bad(failure::STATUS, 204)),
        ("HTTP/1.1 404 No\r\nContent-Length: 0\r\n\r\n", "404", Verdict::Good),
        ("HTTP/1.1 200 OK\r\n\r\nI am alive", "alive", Verdict::Good),
        (
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nal\r\n3\r\nive\r\n0\r\n\r\n",
            "alive",
            Verdict::Good,
        ),
        ("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\ndead", "alive", bad(failure::CONTENT, 0)),
        ("HTTP/1.1 500 No\r\nContent-Length: 5\r\n\r\nalive", "alive", bad(failure::STATUS, 500)),
        ("SSH-2.0-OpenSSH_9.2\r\n\r\n", "", bad(failure::PROTOCOL, 0)),
    ];
    for (text, expect, verdict) in cases {
        assert_eq!(run(&target(answer(text), http("/", expect)), None), verdict, "{text:?} expecting {expect:?}");
    }
}

#[test]
fn http_that_ends_early_or_late() {
    // Closed without a word.
    let (address, _) = serve(drop);
    assert_eq!(run(&target(address, http("/", "")), None), errno(Errno::ENODATA));
    // Reset.
    let (address, _) = serve(|stream| {
        setsockopt(&stream, sockopt::Linger, &nix::libc::linger { l_onoff: 1, l_linger: 0 }).unwrap();
    });
    assert_eq!(run(&target(address, http("/", "")), None), errno(Errno::ECONNRESET));
    // Slow, but in time; and too slow, also byte by byte.
    let slow = |ms| {
        move |mut s: StdStream| {
            std::thread::sleep(Duration::from_millis(ms));
            let _ = s.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
        }
    };
    assert_eq!(run(&target(serve(slow(200)).0, http("/", "")), None), Verdict::Good);
    assert_eq!(run(&target(serve(slow(900)).0, http("/", "")), None), bad(failure::TIMEOUT, 0));
    let (address, _) = serve(|mut stream| {
        for byte in b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n" {
            std::thread::sleep(Duration::from_millis(50));
            let _ = stream.write_all(&[*byte]);
        }
    });
    assert_eq!(run(&target(address, http("/", "")), None), bad(failure::TIMEOUT, 0));
}

#[test]
fn an_endless_body_is_searched_no_further_than_the_limit() {
    let (address, _) = serve(|mut stream| {
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n");
        while stream.write_all(&[b'x'; 4096]).is_ok() {}
    });
    assert_eq!(run(&target(address, http("/", "alive")), None), bad(failure::CONTENT, 0));
}

#[test]
fn probes_come_from_the_source_and_a_missing_source_is_our_own_fault() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let target = target(listener.local_addr().unwrap(), Check::Tcp);
    assert_eq!(run(&target, Some("127.0.0.9")), Verdict::Good);
    assert_eq!(listener.accept().unwrap().1.ip(), "127.0.0.9".parse::<IpAddr>().unwrap());
    assert_eq!(run(&target, Some("fd00::9")), Verdict::Good, "another family: the kernel chooses");
    let missing = Reason { kind: failure::SOCKET, detail: u32::try_from(Errno::EADDRNOTAVAIL as i32).unwrap() };
    assert_eq!(run(&target, Some("192.0.2.77")), Verdict::Void(missing));
}

#[test]
fn no_time_wait_is_left() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    for _ in 0..50 {
        assert_eq!(run(&target(address, Check::Tcp), None), Verdict::Good);
        let _ = listener.accept();
    }
    let http_address = answer("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
    assert_eq!(run(&target(http_address, http("/", "")), None), Verdict::Good);
    let table = std::fs::read_to_string("/proc/net/tcp").unwrap();
    let port = format!(":{:04X}", address.port());
    // Columns: number, local, remote, state; 06 is TIME_WAIT.
    let waiting = table.lines().filter(|line| {
        let mut columns = line.split_whitespace().skip(1);
        let ends = columns.next().unwrap_or("").ends_with(&port) | columns.next().unwrap_or("").ends_with(&port);
        ends && columns.next() == Some("06")
    });
    assert_eq!(waiting.count(), 0);
}
