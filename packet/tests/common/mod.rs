//! Frames made and judged by code that is not ours.
#![allow(dead_code, reason = "each test file uses a part")]
#![allow(clippy::cast_possible_truncation, clippy::unwrap_used, reason = "tests cut random words, and may panic")]

use etherparse::{Ipv4Header, Ipv4HeaderSlice, TcpHeaderSlice, UdpHeader, UdpHeaderSlice};

/// xorshift64*: enough for tests, no dependency; the seed is in the failure's message.
#[derive(Clone, Debug)]
pub struct Random(pub u64);

impl Random {
    pub fn word(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }
    pub fn below(&mut self, n: usize) -> usize {
        (self.word() >> 33) as usize % n
    }
    pub fn bytes(&mut self, n: usize) -> Vec<u8> {
        (0..n).map(|_| (self.word() >> 40) as u8).collect()
    }
}

pub const MAC_A: [u8; 6] = [2, 0, 10, 0, 0, 1];
pub const MAC_B: [u8; 6] = [2, 0, 10, 0, 0, 2];

/// Ethernet header, tagged unless `vlan` is 0.
pub fn ethernet(ethertype: u16, vlan: u16) -> Vec<u8> {
    let mut frame = [MAC_B, MAC_A].concat();
    if vlan != 0 {
        frame.extend(0x8100_u16.to_be_bytes());
        frame.extend((vlan | 0x6000).to_be_bytes());
    }
    frame.extend(ethertype.to_be_bytes());
    frame
}

/// IPv4 header of etherparse: `options` a multiple of 4 bytes.
pub fn ipv4(src: u32, dst: u32, ttl: u8, proto: u8, options: &[u8], payload: usize) -> Vec<u8> {
    let mut header = Ipv4Header::new(payload as u16, ttl, proto.into(), src.to_be_bytes(), dst.to_be_bytes()).unwrap();
    header.options = options.try_into().unwrap();
    header.total_len = (header.header_len() + payload) as u16;
    header.header_checksum = header.calc_header_checksum();
    header.to_bytes().to_vec()
}

/// TCP segment with a valid checksum by etherparse; `options` a multiple of 4 bytes, as they stand.
pub fn tcp(
    addresses: (u32, u32),
    ports: (u16, u16),
    numbers: (u32, u32),
    flags: u8,
    options: &[u8],
    payload: &[u8],
) -> Vec<u8> {
    let mut segment = Vec::new();
    segment.extend(ports.0.to_be_bytes());
    segment.extend(ports.1.to_be_bytes());
    segment.extend(numbers.0.to_be_bytes());
    segment.extend(numbers.1.to_be_bytes());
    segment.extend([((20 + options.len()) as u8 / 4) << 4, flags, 0x12, 0x34, 0, 0, 0, 0]);
    segment.extend(options);
    segment.extend(payload);
    let sum = tcp_checksum(addresses, &segment);
    segment[16..18].copy_from_slice(&sum.to_be_bytes());
    segment
}

/// UDP datagram with a valid checksum by etherparse.
pub fn udp(addresses: (u32, u32), ports: (u16, u16), payload: &[u8]) -> Vec<u8> {
    let (src, dst) = (addresses.0.to_be_bytes(), addresses.1.to_be_bytes());
    let mut header = UdpHeader::without_ipv4_checksum(ports.0, ports.1, payload.len()).unwrap();
    header.checksum = header.calc_checksum_ipv4_raw(src, dst, payload).unwrap();
    [&header.to_bytes(), payload].concat()
}

/// What etherparse says the checksum of this segment should be.
pub fn tcp_checksum(addresses: (u32, u32), segment: &[u8]) -> u16 {
    let slice = TcpHeaderSlice::from_slice(segment).unwrap();
    let payload = &segment[slice.slice().len()..];
    slice.calc_checksum_ipv4_raw(addresses.0.to_be_bytes(), addresses.1.to_be_bytes(), payload).unwrap()
}

/// The same of a UDP datagram without trailing padding.
pub fn udp_checksum(addresses: (u32, u32), datagram: &[u8]) -> u16 {
    let header = UdpHeaderSlice::from_slice(datagram).unwrap().to_header();
    header.calc_checksum_ipv4_raw(addresses.0.to_be_bytes(), addresses.1.to_be_bytes(), &datagram[8..]).unwrap()
}

/// Asserts that all checksums of the frame are what etherparse computes (UDP's may be "none").
pub fn assert_checksums(frame: &[u8], context: &dyn std::fmt::Debug) {
    let l3 = if frame[12..14] == [0x81, 0] { 18 } else { 14 };
    let ip = Ipv4HeaderSlice::from_slice(&frame[l3..]).unwrap();
    let header = ip.to_header();
    assert_eq!(header.header_checksum, header.calc_header_checksum(), "IP checksum: {context:?}");
    let segment = &frame[l3 + ip.slice().len()..l3 + usize::from(ip.total_len())];
    let addresses = (u32::from(ip.source_addr()), u32::from(ip.destination_addr()));
    match ip.protocol().0 {
        6 => assert_eq!(segment[16..18], tcp_checksum(addresses, segment).to_be_bytes(), "TCP checksum: {context:?}"),
        17 if segment[6..8] == [0, 0] => {}
        17 => assert_eq!(segment[6..8], udp_checksum(addresses, segment).to_be_bytes(), "UDP checksum: {context:?}"),
        other => panic!("protocol {other}: {context:?}"),
    }
}
