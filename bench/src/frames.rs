//! Client frames, of which all follows from the flow's number, and what must become of them.

use packet::{Mac, checksum, ethernet};

/// Bytes of a frame as the driver hands it over.
pub const FRAME: usize = 64;
/// What all frames ask for.
pub const VIP: (u32, u16) = (0x0a00_0064, 80);
/// The router clients are behind.
pub const GATEWAY: (u32, Mac) = (0x0a00_0001, Mac([2, 0, 0, 0, 8, 1]));
/// Flows a client has.
const FLOWS_PER_CLIENT: u64 = 4096;

const IP: usize = ethernet::HEADER;
const UDP: usize = IP + 20;
/// Bytes of the IP packet.
pub const PACKET: usize = FRAME - IP;

/// The client's address and port of flow `n`: 172.16.0.0 and up.
#[must_use]
#[allow(clippy::cast_possible_truncation, reason = "millions of flows at most")]
pub fn client(n: u64) -> (u32, u16) {
    (0xac10_0001 + (n / FLOWS_PER_CLIENT) as u32, 1024 + (n % FLOWS_PER_CLIENT) as u16)
}

/// A UDP frame of 64 bytes from one address and port to another, with right checksums.
#[must_use]
#[allow(clippy::cast_possible_truncation, reason = "lengths below 64")]
pub fn udp(link: (Mac, Mac), from: (u32, u16), to: (u32, u16), ttl: u8, payload: [u8; 8]) -> [u8; FRAME] {
    let mut frame = [0; FRAME];
    ethernet::set_addresses(&mut frame, link.0, link.1);
    frame[12..14].copy_from_slice(&ethernet::IPV4.to_be_bytes());
    let ip = &mut frame[IP..];
    ip[0] = 0x45;
    ip[2..4].copy_from_slice(&(PACKET as u16).to_be_bytes());
    ip[6] = 0x40; // Not to be fragmented.
    ip[8] = ttl;
    ip[9] = packet::ipv4::UDP;
    ip[12..16].copy_from_slice(&from.0.to_be_bytes());
    ip[16..20].copy_from_slice(&to.0.to_be_bytes());
    let sum = checksum::checksum(&ip[..20]);
    ip[10..12].copy_from_slice(&sum.to_be_bytes());
    let segment = &mut frame[UDP..];
    segment[..2].copy_from_slice(&from.1.to_be_bytes());
    segment[2..4].copy_from_slice(&to.1.to_be_bytes());
    let length = segment.len() as u16;
    segment[4..6].copy_from_slice(&length.to_be_bytes());
    segment[8..16].copy_from_slice(&payload);
    let sum = checksum::segment_v4(from.0, to.0, packet::ipv4::UDP, segment);
    segment[6..8].copy_from_slice(&(if sum == 0 { 0xffff } else { sum }).to_be_bytes());
    frame
}

/// What client `n` sends to the port of address `mac`.
#[must_use]
pub fn request(n: u64, mac: Mac) -> [u8; FRAME] {
    udp((mac, GATEWAY.1), client(n), VIP, 64, n.to_be_bytes())
}

/// All flows once, in a random order that is always the same.
#[must_use]
pub fn shuffled(flows: u64) -> Vec<u64> {
    let mut all: Vec<u64> = (0..flows).collect();
    let mut word = 0x0123_4567_89ab_cdef_u64;
    for last in (1..all.len()).rev() {
        word ^= word << 13;
        word ^= word >> 7;
        word ^= word << 17;
        let at = usize::try_from(word % (last as u64 + 1)).expect("an index");
        all.swap(last, at);
    }
    all
}
