//! The JSON of `lbctl -o json` (INTERFACE §5), written down a second time: every field named there
//! must be present with its type. Fields added later are ignored.

use std::collections::BTreeMap;

use serde::Deserialize;

/// One element of `service list`.
#[derive(Debug, Clone, Deserialize)]
#[allow(missing_docs, reason = "the names are INTERFACE §5, word for word")]
pub struct Service {
    pub name: String,
    pub vip: String,
    pub protocol: String,
    pub mode: String,
    pub scheduler: String,
    pub sessions: u64,
    pub sessions_total: u64,
    pub packets_in: u64,
    pub packets_out: u64,
    pub bytes_in: u64,
    pub bytes_out: u64,
    pub rs: Vec<RealServer>,
}

/// One element of `rs list`.
#[derive(Debug, Clone, Deserialize)]
#[allow(missing_docs, reason = "the names are INTERFACE §5, word for word")]
pub struct RealServer {
    pub id: u64,
    pub service: String,
    pub address: String,
    pub weight: u64,
    pub admin: String,
    pub health: String,
    pub sessions: u64,
    pub sessions_total: u64,
    pub packets_in: u64,
    pub packets_out: u64,
    pub bytes_in: u64,
    pub bytes_out: u64,
    pub last_check_error: Option<String>,
}

/// One element of `session list`.
#[derive(Debug, Clone, Deserialize)]
#[allow(missing_docs, reason = "the names are INTERFACE §5, word for word")]
pub struct Session {
    pub protocol: String,
    pub client: String,
    pub vip: String,
    pub laddr: Option<String>,
    pub rs: String,
    pub state: String,
    pub idle_ms: u64,
    pub worker: serde_json::Value,
}

/// `session count`.
#[derive(Debug, Clone, Deserialize)]
#[allow(missing_docs, reason = "the names are INTERFACE §5, word for word")]
pub struct SessionCount {
    pub active: u64,
    pub capacity: u64,
    pub created_total: u64,
    pub expired_total: u64,
}

/// One element of `worker list`.
#[derive(Debug, Clone, Deserialize)]
#[allow(missing_docs, reason = "the names are INTERFACE §5, word for word")]
pub struct Worker {
    pub zone: u32,
    pub lane: String,
    pub pid: u32,
    pub version: String,
    pub state: String,
    pub slots: Vec<WorkerSlot>,
}

/// One slot of [`Worker`].
#[derive(Debug, Clone, Deserialize)]
#[allow(missing_docs, reason = "the names are INTERFACE §5, word for word")]
pub struct WorkerSlot {
    pub slot: u32,
    pub cpu: u32,
    pub heartbeat_ms: u64,
    pub busy_ratio: f64,
    pub sessions: u64,
}

/// The counters of the conservation law, of one slot or of all.
#[derive(Debug, Clone, Deserialize)]
#[allow(missing_docs, reason = "the names are INTERFACE §5, word for word")]
pub struct Counters {
    pub rx: u64,
    pub tx: u64,
    pub from_ring: u64,
    pub to_ring: u64,
    pub to_kernel: u64,
    pub from_kernel: u64,
    pub originated: u64,
    pub held: u64,
    pub drops: BTreeMap<String, u64>,
}

/// One element of `stats show`'s `per_slot`.
#[derive(Debug, Clone, Deserialize)]
#[allow(missing_docs, reason = "the names are INTERFACE §5, word for word")]
pub struct SlotCounters {
    pub slot: u32,
    pub zone: u32,
    #[serde(flatten)]
    pub counters: Counters,
}

/// `stats show`.
#[derive(Debug, Clone, Deserialize)]
#[allow(missing_docs, reason = "the names are INTERFACE §5, word for word")]
pub struct Stats {
    #[serde(flatten)]
    pub sum: Counters,
    pub per_slot: Vec<SlotCounters>,
}

/// One element of `port list`.
#[derive(Debug, Clone, Deserialize)]
#[allow(missing_docs, reason = "the names are INTERFACE §5, word for word")]
pub struct Port {
    pub name: String,
    pub device: String,
    pub mac: String,
    pub link: serde_json::Value,
    pub mode: String,
    pub steering: String,
    pub queues: u64,
    pub rx_packets: u64,
    pub tx_packets: u64,
    pub rx_missed: u64,
    pub rx_nombuf: u64,
    pub mbufs_free: u64,
    #[serde(default)]
    pub degraded: Option<String>,
}

/// One element of `laddr list`.
#[derive(Debug, Clone, Deserialize)]
#[allow(missing_docs, reason = "the names are INTERFACE §5, word for word")]
pub struct LocalAddress {
    pub address: String,
    pub port: String,
    pub used: u64,
    pub misses: u64,
    pub tightest: Option<Tightest>,
}

/// The real server towards which a local address has the fewest free ports.
#[derive(Debug, Clone, Deserialize)]
#[allow(missing_docs, reason = "the names are INTERFACE §5, word for word")]
pub struct Tightest {
    pub rs: String,
    pub used: u64,
    pub free: u64,
}

impl Counters {
    /// Both sides of the law of DESIGN §4: what came in, what became of it.
    #[must_use]
    pub fn sides(&self) -> (u64, u64) {
        let came = self.rx + self.from_ring + self.from_kernel + self.originated;
        let went = self.tx + self.to_ring + self.to_kernel + self.drops.values().sum::<u64>() + self.held;
        (came, went)
    }
}

impl Stats {
    /// Where the law does not hold: one line per slot (and the sum), empty when all is well.
    /// Also wrong: the sum is not the sum of the slots; a reason called "other".
    #[must_use]
    pub fn violations(&self) -> Vec<String> {
        let mut found = Vec::new();
        let mut check = |what: String, counters: &Counters| {
            let (came, went) = counters.sides();
            if came != went {
                found.push(format!("{what}: {came} came, {went} went ({counters:?})"));
            }
        };
        check("sum".into(), &self.sum);
        for slot in &self.per_slot {
            check(format!("slot {}", slot.slot), &slot.counters);
        }
        let total: u64 = self.per_slot.iter().map(|s| s.counters.rx).sum();
        if total != self.sum.rx {
            found.push(format!("sum.rx is {}, the slots' rx add up to {total}", self.sum.rx));
        }
        if self.sum.drops.contains_key("other") {
            found.push("a drop reason is called \"other\"".into());
        }
        found
    }

    /// Packets received and sent by the slots of each zone.
    #[must_use]
    pub fn packets_by_zone(&self) -> BTreeMap<u32, u64> {
        let mut zones = BTreeMap::new();
        for slot in &self.per_slot {
            *zones.entry(slot.zone).or_default() += slot.counters.rx + slot.counters.tx;
        }
        zones
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_law_is_told_where_it_breaks() {
        let text = r#"{"rx":10,"tx":7,"from_ring":0,"to_ring":0,"to_kernel":0,"from_kernel":0,
            "originated":1,"held":1,"drops":{"no_session":3},"per_slot":[
            {"slot":0,"zone":0,"rx":10,"tx":7,"from_ring":0,"to_ring":0,"to_kernel":0,
             "from_kernel":0,"originated":0,"held":1,"drops":{"no_session":3}}]}"#;
        let stats: Stats = serde_json::from_str(text).unwrap();
        let found = stats.violations();
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(found[0].starts_with("slot 0: 10 came, 11 went"));
        assert_eq!(stats.packets_by_zone()[&0], 17);
    }
}
