//! The facts of the node: ports and slots, written once before the first generation.

use std::sync::atomic::Ordering::{Relaxed, Release};

use crate::neighbours::Ip;
use crate::published::{Published, store_name};
use crate::seqlock;

/// A port. Fields: [`crate::published::PortRow`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PortPlan {
    /// DPDK's number of it.
    pub device: u32,
    /// First slot.
    pub first_slot: u32,
    /// Slots.
    pub slots: u32,
    /// MTU of IP packets.
    pub mtu: u32,
    /// VLAN tag, 0 none.
    pub vlan: u32,
    /// [`crate::published::port_flag`] bits.
    pub flags: u32,
    /// [`crate::published::steering`].
    pub steering: u32,
    /// MAC.
    pub mac: [u8; 6],
    /// Own addresses with prefix lengths as if IPv6 (an IPv4 /24 is 120).
    pub addresses: Vec<(Ip, u8)>,
    /// Gateways.
    pub gateways: Vec<Ip>,
    /// Name.
    pub name: String,
}

/// A slot. Fields: [`crate::published::SlotRow`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SlotPlan {
    /// Port (our number).
    pub port: u32,
    /// Queue pair.
    pub queue: u32,
    /// Zone.
    pub zone: u32,
    /// CPU.
    pub cpu: u32,
}

/// Writes ports and slots; what exceeds the tables was refused by validation and is left out here. Readers that hold no
/// generation see `sequence` odd meanwhile. A restarted control writes the same again: words that do not change do not
/// tear.
pub fn write_node(tables: &Published, ports: &[PortPlan], slots: &[SlotPlan]) {
    let odd = seqlock::begin(&tables.root.sequence);
    for (i, row) in tables.ports.iter().enumerate() {
        let Some(port) = ports.get(i) else {
            row.used.store(0, Relaxed);
            continue;
        };
        row.device.store(port.device, Relaxed);
        row.first_slot.store(port.first_slot, Relaxed);
        row.slots.store(port.slots, Relaxed);
        row.mtu.store(port.mtu, Relaxed);
        row.vlan.store(port.vlan, Relaxed);
        row.flags.store(port.flags, Relaxed);
        row.steering.store(port.steering, Relaxed);
        let [a, b, c, d, e, f] = port.mac;
        row.mac.store(u64::from_le_bytes([a, b, c, d, e, f, 0, 0]), Relaxed);
        for (k, to) in row.addresses.iter().enumerate() {
            let (ip, prefix) = port.addresses.get(k).copied().unwrap_or(([0, 0], 0));
            to.ip[0].store(ip[0], Relaxed);
            to.ip[1].store(ip[1], Relaxed);
            to.prefix.store(prefix.into(), Relaxed);
        }
        for (k, to) in row.gateways.iter().enumerate() {
            let gateway = port.gateways.get(k);
            let ip = gateway.copied().unwrap_or([0, 0]);
            to.ip[0].store(ip[0], Relaxed);
            to.ip[1].store(ip[1], Relaxed);
            to.prefix.store(u64::from(gateway.is_some()), Relaxed);
        }
        store_name(&row.name, &port.name);
        row.used.store(1, Release); // Pairs with nothing stronger than the Release below; used last, for dumps.
    }
    for (i, row) in tables.slots.iter().enumerate() {
        let Some(slot) = slots.get(i) else {
            row.used.store(0, Relaxed);
            continue;
        };
        row.port.store(slot.port, Relaxed);
        row.queue.store(slot.queue, Relaxed);
        row.zone.store(slot.zone, Relaxed);
        row.cpu.store(slot.cpu, Relaxed);
        row.used.store(1, Release);
    }
    seqlock::end(&tables.root.sequence, odd);
}
