//! Control with a million sessions and with ten thousand services: nobody waits for all of them at once.
//!
//! Processor time of this thread is measured, not wall time: the machine is shared.

use std::fmt::Write as _;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use control_api::method;
use control_api::rpc::Request;
use control_api::views::{Page, Session};
use nix::time::{ClockId, clock_gettime};
use serde_json::{Value, json};
use shm_layout::session::{State, flag};

use super::core::Core;
use super::dispatch::{Caller, handle};
use super::tests::{Appliance, Sizes};

/// What one turn of control may cost.
const LONGEST: Duration = Duration::from_millis(100);

fn cpu() -> Duration {
    clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).unwrap().into()
}

fn root() -> Caller {
    Caller { uid: 0, pid: 1, user: "root".into(), writes: true, upload: String::new() }
}

/// The answer, and what each turn that it took cost at most.
fn ask(core: &mut Core, method: &str, params: Value) -> (Value, Duration) {
    let (mut longest, mut turns) = (Duration::ZERO, 0);
    loop {
        let begun = cpu();
        let answer =
            handle(core, &mut root(), &Request::new(1, method, params.clone())).unwrap_or_else(|e| panic!("{e}"));
        core.tick();
        longest = longest.max(cpu() - begun);
        turns += 1;
        assert!(turns < 1000, "{method} never comes");
        if let Some(answer) = answer {
            return (answer, longest);
        }
    }
}

#[test]
fn a_million_sessions_keep_nobody_waiting() {
    let appliance = Appliance::sized(&Sizes { sessions: 500_000, ..Sizes::default() });
    for slot in &appliance.slots {
        slot.table.fresh.store(500_000, Relaxed);
        for (row, n) in slot.sessions.iter().zip(0_u32..) {
            row.client_ip.store(0x0b00_0000 + n, Relaxed);
            row.vip.store(0x0a00_0064, Relaxed);
            row.local_ip.store(0x0a00_0080 + n % 4, Relaxed);
            row.server_ip.store(0x0a00_0015, Relaxed);
            row.server_port.store(8080, Relaxed);
            row.flags.store(flag::INDEXED, Relaxed);
            row.state.store(State::Established as u8, Relaxed);
        }
    }
    let mut core = appliance.core();
    // A filter that matches nothing reads them all, page by page; one without a filter makes long pages.
    for (filter, pages) in [(json!({"client": "10.9.9.9"}), 10), (json!({}), 20)] {
        let (mut after, mut worst) = (Value::Null, Duration::ZERO);
        for _ in 0..pages {
            let mut params = filter.clone();
            params["after"] = after;
            let (page, took) = ask(&mut core, method::SESSION_LIST, params);
            let page: Page<Session> = serde_json::from_value(page).unwrap();
            after = page.next.map_or(Value::Null, Value::from);
            worst = worst.max(took);
        }
        assert!(worst < LONGEST, "session.list {filter}: {worst:?}");
        println!("session.list {filter}: longest turn {worst:?}");
    }
    let (laddrs, took) = ask(&mut core, method::LADDR_LIST, Value::Null);
    assert_eq!(laddrs.as_array().unwrap().iter().map(|l| l["used"].as_u64().unwrap()).sum::<u64>(), 1_000_000);
    assert!(took < LONGEST, "laddr.list: {took:?}");
    println!("laddr.list: longest turn {took:?}");
    let (_, took) = ask(&mut core, method::SESSION_COUNT, Value::Null);
    assert!(took < LONGEST, "session.count: {took:?}");
}

#[test]
fn ten_thousand_services_are_listed_in_pieces_and_changed_one_by_one() {
    let services = 10_000;
    let mut more = String::new();
    for n in 0..services {
        let (a, b) = (n / 250, n % 250 + 1);
        let _ = write!(
            more,
            "[[service]]\nname = \"s{n}\"\nvip = \"10.1.{a}.{b}:80\"\nprotocol = \"tcp\"\nmode = \"fullnat\"\n\
             health = {{ type = \"none\" }}\n[[service.rs]]\naddress = \"10.2.{a}.{b}:80\"\n"
        );
    }
    let appliance = Appliance::sized(&Sizes { services: 10_100, servers: 10_200, more, ..Sizes::default() });
    let mut core = appliance.core();
    let mut times = Vec::new();
    for n in 0..3 {
        appliance.serve();
        let params = json!({"service": "s77", "rs": "10.2.0.78:80", "keys": [["weight", (n + 2).to_string()]]});
        let begun = (cpu(), std::time::Instant::now());
        handle(&mut core, &mut root(), &Request::new(1, method::RS_SET, params)).unwrap_or_else(|e| panic!("{e}"));
        times.push((cpu() - begun.0, begun.1.elapsed()));
    }
    times.sort_unstable();
    println!("a change among {services} services: {:?} of processor time, {:?} in all", times[1].0, times[1].1);
    for method in [method::CONFIG_HISTORY, method::SERVICE_LIST, method::RS_LIST] {
        let (_, took) = ask(&mut core, method, json!({}));
        assert!(took < LONGEST, "{method}: {took:?}");
        println!("{method}: longest turn {took:?}");
    }
}
