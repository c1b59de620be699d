//! The table of cases (`tests/cases`), in memory: the same cases run through real processes end to end.
//!
//! The cases and the reference that says what must come out are a program of their own in another language; it asks this
//! one, a line of JSON at a time, for worlds and for what comes of a frame.
#![allow(clippy::cast_possible_truncation, clippy::unwrap_used, reason = "test data")]

mod world;

use std::io::{BufRead, BufReader, Write};
use std::net::Ipv4Addr;
use std::process::{Command, Stdio};
use std::sync::atomic::Ordering::Relaxed;

use serde_json::{Value, json};
use shm_layout::counters::{Counts, DropReason, Flow};
use shm_layout::neighbours::ip4;
use shm_layout::publish::{Hashing, LocalPlan, MemberPlan, PortPlan, ServicePlan};
use shm_layout::published::{admin, mode, protocol, scheduler, service_flag};
use shm_layout::session::{SessionRow, State, flag};
use world::*;

/// As lbctl shows them, in the order of [`State`].
const STATES: [&str; 10] =
    ["free", "syn_sent", "syn_recv", "established", "fin_wait", "close_wait", "last_ack", "time_wait", "close", "udp"];

#[test]
fn all_cases() {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/cases/run.py");
    let chosen = std::env::var("CASES").unwrap_or_default();
    // Debian's, for which scapy is packaged.
    let mut child = Command::new("/usr/bin/python3")
        .arg(script)
        .arg("memory")
        .args(chosen.split_whitespace())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("the cases need python3; hint: cargo xtask setup");
    let (mut to, from) = (child.stdin.take().unwrap(), BufReader::new(child.stdout.take().unwrap()));
    let mut world = None;
    for line in from.lines() {
        let asked: Value = serde_json::from_str(&line.unwrap()).unwrap();
        let answer = answer(&mut world, &asked);
        writeln!(to, "{answer}").unwrap();
    }
    drop(to);
    assert!(child.wait().unwrap().success(), "see above; hint: python3-scapy is installed by cargo xtask setup");
}

/// What a case's program asks for. What it does not know is an error of the case.
fn answer(world: &mut Option<World>, asked: &Value) -> Value {
    let op = asked["op"].as_str().unwrap();
    match (op, world.as_mut()) {
        ("report", _) => {
            println!("{}", asked["text"].as_str().unwrap());
            json!({})
        }
        ("world", old) => {
            if let Some(old) = old {
                old.rest();
            }
            *world = Some(laid(asked));
            json!({})
        }
        ("send", Some(world)) => {
            let frame = bytes(asked["frame"].as_str().unwrap());
            let slot = asked["slot"].as_u64().unwrap() as usize;
            outcome(world, |world| world.deliver(slot, frame))
        }
        ("wait", Some(world)) => outcome(world, |world| world.pass(asked["ms"].as_u64().unwrap())),
        ("change", Some(world)) => outcome(world, |world| {
            let rs = asked["rs"].as_u64().unwrap() as usize;
            change(world, rs, asked["key"].as_str().unwrap(), &asked["value"]);
            world.put_in_force();
            world.run()
        }),
        ("silence", Some(world)) => {
            let (row, _) = world.shared.neighbours.find(ip4(address(&asked["station"])), 0).unwrap();
            world.learner.fail(row);
            json!({})
        }
        ("sessions", Some(world)) => json!({ "sessions": sessions(world) }),
        _ => json!({ "error": format!("{op} is not known here") }),
    }
}

fn laid(asked: &Value) -> World {
    let number = |key: &str| asked[key].as_u64().unwrap() as u32;
    let gateways = asked["gateways"].as_array().unwrap().iter().map(|g| ip4(address(g))).collect();
    let port = PortPlan {
        vlan: number("vlan"),
        mtu: asked["mtu"].as_u64().unwrap_or(1500) as u32,
        addresses: vec![(ip4(address(&asked["address"])), 96 + 24)],
        gateways,
        ..port(number("slots"))
    };
    let mut world = World::with_ports(vec![port], 4096, vec![planned(&asked["service"])]);
    for n in 1..100 {
        world.resolve(ip(10, 0, 0, n));
    }
    let local = |l: &Value| LocalPlan { ip: ip4(address(l)), port: 0, low: 1024, high: 65_535, flags: 0 };
    world.plan.locals = asked["laddrs"].as_array().unwrap().iter().map(local).collect();
    world.publish();
    world
}

fn planned(asked: &Value) -> ServicePlan {
    let text = |key: &str| asked[key].as_str().unwrap_or_default();
    let number = |key: &str| asked[key].as_u64().unwrap_or(0) as u32;
    let members = asked["rs"].as_array().unwrap().iter().zip(0..).map(|(rs, id)| MemberPlan {
        port: rs["port"].as_u64().unwrap() as u16,
        weight: rs["weight"].as_u64().unwrap() as u16,
        ..member(id, address(&rs["ip"]))
    });
    let proto = if text("protocol") == "tcp" { protocol::TCP } else { protocol::UDP };
    let mut plan = service(proto, number("port") as u16, members.collect());
    plan.mode = match text("mode") {
        "fullnat" => mode::FULLNAT,
        "nat" => mode::NAT,
        "dr" => mode::DR,
        "tunnel" => mode::TUNNEL,
        other => panic!("mode {other}"),
    };
    plan.scheduler = match text("scheduler") {
        "rr" => scheduler::RR,
        "wrr" => scheduler::WRR,
        "lc" => scheduler::LC,
        "wlc" => scheduler::WLC,
        "source-ip" => scheduler::SOURCE_IP,
        "source-ip-port" => scheduler::SOURCE_IP_PORT,
        "maglev" => scheduler::MAGLEV,
        other => panic!("scheduler {other}"),
    };
    plan.max_sessions = number("max_sessions");
    if asked["one_packet"] == true {
        plan.flags |= service_flag::ONE_PACKET;
    }
    let prefix = asked["persistence_prefix"].as_u64().unwrap_or(32) as u32;
    plan.hashing = Hashing { persistence_ms: number("persistence"), prefix: 96 + prefix, ..Hashing::default() };
    for (state, ms) in asked["timeouts"].as_object().unwrap() {
        let place = STATES.iter().position(|name| name == state).unwrap_or_else(|| panic!("state {state}"));
        plan.timeouts[place] = ms.as_u64().unwrap() as u32;
    }
    plan
}

fn change(world: &mut World, rs: usize, key: &str, value: &Value) {
    let member = &mut world.plan.services[0].members[rs];
    match key {
        "weight" => member.weight = value.as_u64().unwrap() as u16,
        _ => {
            member.admin = match value.as_str().unwrap() {
                "enabled" => admin::ENABLED,
                "drain" => admin::DRAIN,
                "disabled" => admin::DISABLED,
                "removed" => admin::REMOVED,
                other => panic!("admin {other}"),
            }
        }
    }
}

/// What came out, and what was dropped for which reason, by what was done.
fn outcome(world: &mut World, act: impl FnOnce(&mut World) -> Vec<(usize, Vec<u8>)>) -> Value {
    let before = world.counts();
    let out = act(world);
    let dropped = |counts: &Counts, reason: DropReason| counts.dropped(reason);
    let after = world.counts();
    let drops = DropReason::ALL.iter().filter(|r| dropped(&before, **r) != dropped(&after, **r));
    let drops: serde_json::Map<_, _> =
        drops.map(|r| (r.name().to_owned(), (dropped(&after, *r) - dropped(&before, *r)).into())).collect();
    assert_eq!(after.flow(Flow::Held), 0);
    json!({ "out": out.iter().map(|(_, frame)| hex(frame)).collect::<Vec<_>>(), "drops": drops })
}

fn sessions(world: &World) -> Vec<Value> {
    let rows = world.shared.slots.iter().flat_map(|slot| {
        let fresh = slot.table.fresh.load(Relaxed) as usize;
        slot.sessions.iter().take(fresh).filter(|row| row.flags.load(Relaxed) & flag::INDEXED != 0)
    });
    let shown = |row: &SessionRow| {
        let client = Ipv4Addr::from(row.client_ip.load(Relaxed));
        let state = State::of(row.state.load(Relaxed)).unwrap();
        json!({
            "client": format!("{client}:{}", row.client_port.load(Relaxed)),
            "state": STATES[state as usize],
        })
    };
    rows.map(shown).collect()
}

fn address(text: &Value) -> u32 {
    text.as_str().and_then(|t| t.parse::<Ipv4Addr>().ok()).unwrap_or_else(|| panic!("{text} is no address")).into()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn bytes(hex: &str) -> Vec<u8> {
    let digits: Vec<u8> = hex.chars().map(|c| c.to_digit(16).unwrap() as u8).collect();
    digits.chunks(2).map(|pair| pair[0] << 4 | pair[1]).collect()
}
