//! Long lists of sessions: pages, limits, readers that go away.

use std::io::Read;
use std::process::Stdio;
use std::sync::atomic::{AtomicBool, Ordering};

use control_api::method;
use control_api::rpc::{Request, Response};
use serde_json::{Value, json};

use crate::answers::session;
use crate::fake::{Fake, lbctl};

/// `total` sessions in pages of 60.
fn pages(request: &Request, total: u64) -> Value {
    if request.method == method::SESSION_COUNT {
        return json!({ "active": total, "capacity": 1_000_000, "created_total": total, "expired_total": 0 });
    }
    let first = request.params["after"].as_u64().unwrap_or(0);
    let end = (first + request.params["limit"].as_u64().unwrap_or(60).min(60)).min(total);
    json!({ "items": (first..end).map(session).collect::<Vec<_>>(), "next": (end < total).then_some(end) })
}

#[test]
fn a_table_stops_at_its_limit_and_says_so() {
    let fake = Fake::new(|request| Ok(pages(request, 1000)));
    let ran = fake.run("session list");
    assert_eq!((ran.code, ran.out.lines().count()), (0, 101));
    assert_eq!(ran.err, "warning: 100 sessions shown, of 1000; --limit 0 shows all\n");
    let ran = fake.run("session list --service web --limit 7");
    assert_eq!((ran.code, ran.out.lines().count()), (0, 8));
    assert_eq!(ran.err, "warning: 7 sessions shown, there may be more; --limit 0 shows all\n");
    let ran = fake.run("session list --limit 0");
    assert_eq!((ran.out.lines().count(), ran.err.as_str()), (1001, ""));
}

#[test]
fn json_has_all_a_session_a_line() {
    let fake = Fake::new(|request| Ok(pages(request, 1000)));
    let ran = fake.run("-o json session list");
    let all: Vec<Value> = serde_json::from_str(&ran.out).unwrap();
    assert_eq!(all, (0..1000).map(session).collect::<Vec<_>>());
    assert_eq!((ran.out.lines().count(), ran.err.as_str()), (1002, ""));
    let some: Vec<Value> = serde_json::from_str(&fake.run("-o json session list --limit 61").out).unwrap();
    assert_eq!(some.len(), 61);
    let none = Fake::with(json!({ "items": [], "next": null }));
    assert_eq!(none.run("-o json session list").out, "[]\n");
    assert_eq!(none.run("session list").out.lines().count(), 1);
}

#[test]
fn a_daemon_that_says_the_same_page_for_ever_is_left() {
    let fake = Fake::with(json!({ "items": [session(0)], "next": 5 }));
    let ran = fake.run("-o json session list");
    assert_eq!((ran.code, serde_json::from_str::<Vec<Value>>(&ran.out).unwrap().len()), (0, 2));
}

#[test]
fn a_connection_closed_while_we_waited_is_made_again() {
    let closed = AtomicBool::new(false);
    let fake = Fake::raw(move |request| {
        if request.params["after"] == 60 && !closed.swap(true, Ordering::Relaxed) {
            return None;
        }
        Some(Response::new(request.id.clone(), Ok(pages(request, 130))).line())
    });
    let ran = fake.run("-o json session list");
    assert_eq!((ran.code, serde_json::from_str::<Vec<Value>>(&ran.out).unwrap().len()), (0, 130));
}

#[test]
fn a_reader_that_goes_away_is_no_error() {
    let fake = Fake::new(|request| Ok(pages(request, 20_000)));
    for format in ["table", "json"] {
        let mut child = lbctl()
            .arg("--socket")
            .arg(fake.socket())
            .args(["-o", format, "session", "list", "--limit", "0"])
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut some = [0; 100];
        child.stdout.as_mut().unwrap().read_exact(&mut some).unwrap();
        drop(child.stdout.take());
        let ended = child.wait_with_output().unwrap();
        assert_eq!((ended.status.code(), String::from_utf8(ended.stderr).unwrap().as_str()), (Some(0), ""));
    }
}

#[test]
fn kill_needs_a_filter() {
    let fake = Fake::with(json!({ "slots": 2 }));
    assert_eq!(fake.run("session kill").code, 2);
    assert!(fake.asked().is_empty());
    let ran = fake.run("session kill --client 192.0.2.7 --protocol tcp");
    assert_eq!((ran.code, ran.out.as_str()), (0, "2 slots told to end the sessions that match\n"));
    assert_eq!(fake.asked()[0].1, json!({ "protocol": "tcp", "client": "192.0.2.7", "vip": null }));
}
