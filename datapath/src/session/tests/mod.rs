//! Tests of the table: a model, kills after every store, time, ports, hashes, damage, readers.

mod crash;
mod damage;
mod hash;
mod model;
mod ports;
mod readers;
mod rebuild;
mod wheel;
mod wide;

use shm_layout::secrets::{self, Secrets};
use shm_layout::session::State;
use shm_layout::slot::{Slot, SlotGeometry};

use super::{New, SessionTable};

pub const SERVERS: u32 = 16;

/// Fixed keys: tests repeat.
pub fn secrets() -> Secrets {
    let secrets = secrets::anonymous().unwrap();
    let words = secrets.hash_key.iter().chain(&secrets.port_key);
    for (word, i) in words.zip(1_u64..) {
        word.store(i.wrapping_mul(0x9E37_79B9_7F4A_7C15), std::sync::atomic::Ordering::Relaxed);
    }
    secrets
}

pub fn slot(sessions: u64) -> Slot {
    let geometry = SlotGeometry {
        slot: 0,
        slots: 2,
        sessions,
        wide_sessions: 0,
        servers: u64::from(SERVERS),
        services: 4,
        extensions: 0,
    };
    Slot::anonymous(geometry, false).unwrap()
}

pub fn table(sessions: u64) -> SessionTable {
    SessionTable::attach(slot(sessions), &secrets())
}

/// The `i`-th of many different sessions.
pub fn new(i: u32, now_ms: u64) -> New {
    let server = i % SERVERS;
    New {
        client_ip: 0x0a00_0000 + (i >> 12),
        client_port: 1024 + u16::try_from(i & 0xfff).unwrap(),
        vip: 0x0a4d_0064,
        vip_port: 80,
        local_ip: 0x0a4d_0080 + (i >> 20),
        local_port: u16::try_from((i >> 4) & 0xffff).unwrap(),
        server_ip: 0x0b00_0000 + server,
        server_port: 8080,
        udp: i & 1 == 1,
        tunnel: false,
        state: if i & 1 == 1 { State::Udp } else { State::SynSent },
        client_hop: 1,
        client_hop_tag: 2,
        server_hop: 3,
        server_hop_tag: 4,
        server_id: server,
        server_tag: 7 + server,
        service: server % 4,
        service_id: 100 + server % 4,
        isn_shift: i ^ 0x5555,
        end: [i, i + 1],
        ack: [i + 2, i + 3],
        now_ms,
        timeout_ms: 60_000,
        wide: None,
    }
}

/// xorshift64*: enough for tests.
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }

    pub fn below(&mut self, n: u32) -> u32 {
        u32::try_from((self.next() >> 32) * u64::from(n) >> 32).unwrap()
    }
}
