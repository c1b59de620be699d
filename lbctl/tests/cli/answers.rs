//! What the daemon of the tests has to tell: two services, two slots, a worker that died.

use control_api::rpc::Request;
use control_api::{ApiError, method};
use serde_json::{Value, json};

use crate::fake::unknown;

fn rs(id: u32, service: &str, address: &str, health: &str, error: Option<&str>) -> Value {
    json!({
        "id": id, "service": service, "address": address, "weight": 1, "admin": "enabled", "removed": false,
        "health": health, "sessions": 3, "sessions_total": 3334, "packets_in": 20_004, "packets_out": 16_670,
        "bytes_in": 1_500_300, "bytes_out": 48_010_000, "last_check_error": error
    })
}

/// `rs list`.
pub fn servers() -> Vec<Value> {
    let mut drained = rs(9, "web", "10.0.0.23:8080", "up", None);
    drained["admin"] = "drain".into();
    vec![
        rs(7, "web", "10.0.0.21:8080", "up", None),
        rs(8, "web", "10.0.0.22:8080", "down", Some("connection refused")),
        drained,
        rs(10, "dns", "10.0.0.21:53", "unknown", None),
    ]
}

/// `service list`.
pub fn services() -> Vec<Value> {
    let service = |name: &str, vip: &str, protocol: &str, scheduler: &str| {
        let of_it: Vec<Value> = servers().into_iter().filter(|rs| rs["service"] == name).collect();
        json!({
            "name": name, "vip": vip, "protocol": protocol, "mode": "fullnat", "scheduler": scheduler,
            "removed": false, "sessions": 9, "sessions_total": 10_002, "refused": 1, "packets_in": 60_012,
            "packets_out": 50_010, "bytes_in": 4_500_900, "bytes_out": 144_030_000, "rs": of_it
        })
    };
    vec![service("web", "10.0.0.100:80", "tcp", "rr"), service("dns", "10.0.0.100:53", "udp", "wrr")]
}

/// A session of client number `n`.
pub fn session(n: u64) -> Value {
    json!({
        "protocol": "tcp", "client": format!("192.0.2.7:{}", 40_000 + n), "vip": "10.0.0.100:80",
        "laddr": format!("10.0.0.128:{}", 2_000 + n), "rs": "10.0.0.21:8080", "state": "established",
        "idle_ms": 1_250 * n, "worker": "0a", "slot": 0, "service": "web"
    })
}

fn counters(rx: u64, tx: u64, originated: u64, held: u64, no_session: u64) -> Value {
    json!({
        "rx": rx, "tx": tx, "from_ring": 5, "to_ring": 5, "to_kernel": 2, "from_kernel": 2, "originated": originated,
        "held": held, "drops": { "no_session": no_session, "handled_arp": 4, "bad_arp": 0 }, "rx_bytes": 64 * rx,
        "tx_bytes": 64 * tx, "sessions_created": 10, "sessions_ended": 8, "sessions_refused": 1
    })
}

/// `stats show`; slot 1 has lost `lost` packets.
pub fn stats(lost: u64) -> Value {
    let mut slots = [counters(1000, 990, 1, 3, 4), counters(2000 + lost, 1990, 0, 0, 6)];
    let mut sum = counters(3000 + lost, 2980, 1, 3, 10);
    for key in ["from_ring", "to_ring"] {
        sum[key] = 10.into();
    }
    for key in ["to_kernel", "from_kernel"] {
        sum[key] = 4.into();
    }
    sum["drops"]["handled_arp"] = 8.into();
    for (n, slot) in slots.iter_mut().enumerate() {
        slot["slot"] = n.into();
        slot["zone"] = n.into();
    }
    sum["per_slot"] = slots.to_vec().into();
    sum
}

/// `worker list`.
pub fn workers() -> Value {
    let slot = |slot: u32, heartbeat_ms: u64| {
        json!({
            "slot": slot, "cpu": slot, "heartbeat_ms": heartbeat_ms, "busy_ratio": 0.375, "sessions": 12,
            "generation": 4, "quarantined": 0, "deaths": 0, "last_packets": []
        })
    };
    json!([
        { "zone": 0, "lane": "a", "pid": 4711, "version": "0.1.0", "state": "serving", "slots": [slot(0, 0)], "degraded": null },
        { "zone": 1, "lane": "b", "pid": 4712, "version": "0.1.0", "state": "dead", "slots": [slot(1, 65_000)], "degraded": null },
        { "zone": 2, "lane": "a", "pid": 4713, "version": "0.1.0", "state": "attaching", "slots": [], "degraded": null },
    ])
}

/// The answer to any reading request.
pub fn answer(request: &Request) -> Result<Value, ApiError> {
    let page = |items: Value| json!({ "items": items, "next": null });
    Ok(match request.method.as_str() {
        method::VERSION => json!({
            "api_version": 1, "version": "0.1.0", "layout": "1.0", "dpdk": "22.11.11", "node": "lb1", "generation": 4,
            "pid": 99
        }),
        method::SERVICE_LIST => {
            let wanted = request.params["service"].as_str();
            page(services().into_iter().filter(|s| wanted.is_none_or(|name| s["name"] == name)).collect())
        }
        method::RS_LIST => page(servers().into()),
        method::SESSION_LIST => page((0..3).map(session).collect()),
        method::SESSION_COUNT => {
            json!({ "active": 3, "capacity": 2_000_000, "created_total": 10_010, "expired_total": 10_007 })
        }
        method::STATS_SHOW => stats(0),
        method::WORKER_LIST => workers(),
        method::PORT_LIST => json!([{
            "name": "net0", "device": "net_tap0,iface=lb1net0", "mac": "02:00:00:00:00:01", "link": "up", "mode": "rtc",
            "steering": "driver", "queues": 2, "rx_packets": 3000, "tx_packets": 2980, "rx_missed": 0, "rx_nombuf": 7,
            "mbufs_free": 4000
        }]),
        method::LADDR_LIST => json!([
            { "address": "10.0.0.128", "port": "net0", "used": 12, "misses": 0,
              "tightest": { "rs": "10.0.0.21:8080", "used": 5, "free": 64_507 }, "removed": false },
            { "address": "10.0.0.129", "port": "net0", "used": 0, "misses": 0, "tightest": null, "removed": false },
        ]),
        method::NEIGH_LIST => page(json!([
            { "address": "10.0.0.21", "port": "net0", "mac": "02:00:00:00:00:21", "state": "reachable",
              "confirmed_ms": 1500, "row": 0 },
            { "address": "10.0.0.99", "port": "net0", "mac": null, "state": "incomplete", "confirmed_ms": null, "row": 1 },
        ])),
        method::CONFIG_EXPORT => json!({ "generation": 4, "text": EXPORT }),
        _ => return Err(unknown(request)),
    })
}

const EXPORT: &str = "\
[node]
name = \"lb1\"

[[service]]
name = \"dns\"
vip = \"10.0.0.100:53\"

[[service]]
name = \"web\"
vip = \"10.0.0.100:80\"
health = { type = \"http\", interval = \"2s\" }

  [[service.rs]]
  address = \"10.0.0.21:8080\"
";
