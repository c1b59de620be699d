//! The world with IPv6: frames of both families made and read by an independent implementation (etherparse), field by field.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use datapath::session::{Session, SessionReader};
use etherparse::{
    EtherType, Ethernet2Header, IpNumber, Ipv4Header, Ipv6FlowLabel, Ipv6Header, NetSlice, SlicedPacket, TcpHeader,
    TransportSlice, UdpHeader,
};
use shm_layout::neighbours::from_std;

use super::*;

pub const VIP6: IpAddr = v6(0x100);
pub const CLIENT6: IpAddr = v6(0x10);
pub const LOCAL6: IpAddr = v6(0x128);
pub const PORT6: IpAddr = v6(2);

pub const fn v6(last: u16) -> IpAddr {
    IpAddr::V6(Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, last))
}

pub const fn v4(address: u32) -> IpAddr {
    IpAddr::V4(Ipv4Addr::from_bits(address))
}

/// Address of real server `n`.
pub const fn server6(n: u8) -> IpAddr {
    v6(0x200 + n as u16)
}

/// MAC of a station by its address.
pub fn station(address: IpAddr) -> [u8; 6] {
    match address {
        IpAddr::V4(address) => mac_of(address.to_bits()),
        IpAddr::V6(address) => {
            let [.., c, d] = address.octets();
            [2, 0, 0, 6, c, d]
        }
    }
}

/// A packet of either family, as both ends of it mean it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seg {
    pub from: (IpAddr, u16),
    pub to: (IpAddr, u16),
    /// Of TCP: sequence number, acknowledgement, flags, options; `None`: UDP.
    pub tcp: Option<(u32, Option<u32>, &'static str, Vec<u8>)>,
    pub payload: Vec<u8>,
    pub ttl: u8,
    pub class: u8,
    pub flow: u32,
}

impl Seg {
    pub fn udp(from: (IpAddr, u16), to: (IpAddr, u16), payload: &[u8]) -> Self {
        Self { from, to, tcp: None, payload: payload.to_vec(), ttl: 64, class: 0, flow: 0 }
    }

    pub fn tcp(from: (IpAddr, u16), to: (IpAddr, u16), numbers: (u32, Option<u32>), flags: &'static str) -> Self {
        Self { tcp: Some((numbers.0, numbers.1, flags, Vec::new())), ..Self::udp(from, to, &[]) }
    }

    pub fn with(mut self, options: &[u8], payload: &[u8]) -> Self {
        if let Some(tcp) = &mut self.tcp {
            tcp.3 = options.to_vec();
        }
        self.payload = payload.to_vec();
        self
    }

    /// The IP packet, checksums right. `id`: identification, and whether it may be cut up (IPv4 only).
    pub fn packet(&self, (id, dont_fragment): (u16, bool)) -> Vec<u8> {
        let len = u16::try_from(self.payload.len() + self.tcp.as_ref().map_or(8, |t| 20 + t.3.len())).unwrap();
        let proto = if self.tcp.is_some() { IpNumber::TCP } else { IpNumber::UDP };
        let mut out = Vec::new();
        let mut v4 = None;
        match (self.from.0, self.to.0) {
            (IpAddr::V4(from), IpAddr::V4(to)) => {
                let mut ip = Ipv4Header::new(len, self.ttl, proto, from.octets(), to.octets()).unwrap();
                ip.dscp = (self.class >> 2).try_into().unwrap();
                ip.ecn = (self.class & 3).try_into().unwrap();
                (ip.identification, ip.dont_fragment) = (id, dont_fragment);
                ip.header_checksum = ip.calc_header_checksum();
                ip.write(&mut out).unwrap();
                v4 = Some((from.octets(), to.octets()));
            }
            (IpAddr::V6(from), IpAddr::V6(to)) => {
                let ip = Ipv6Header {
                    traffic_class: self.class,
                    flow_label: Ipv6FlowLabel::try_from(self.flow).unwrap(),
                    payload_length: len,
                    next_header: proto,
                    hop_limit: self.ttl,
                    source: from.octets(),
                    destination: to.octets(),
                };
                ip.write(&mut out).unwrap();
            }
            other => panic!("{other:?}"),
        }
        let ends = || match (self.from.0, self.to.0) {
            (IpAddr::V6(from), IpAddr::V6(to)) => (from.octets(), to.octets()),
            other => panic!("{other:?}"),
        };
        if let Some((seq, ack, flags, options)) = &self.tcp {
            let mut header = TcpHeader::new(self.from.1, self.to.1, *seq, 64_000);
            header.ack = ack.is_some();
            header.acknowledgment_number = ack.unwrap_or(0);
            header.syn = flags.contains('S');
            header.fin = flags.contains('F');
            header.rst = flags.contains('R');
            header.psh = flags.contains('P');
            header.set_options_raw(options).unwrap();
            header.checksum = match v4 {
                Some((from, to)) => header.calc_checksum_ipv4_raw(from, to, &self.payload).unwrap(),
                None => header.calc_checksum_ipv6_raw(ends().0, ends().1, &self.payload).unwrap(),
            };
            header.write(&mut out).unwrap();
        } else {
            let mut header =
                UdpHeader { source_port: self.from.1, destination_port: self.to.1, length: len, checksum: 0 };
            header.checksum = match v4 {
                Some((from, to)) => header.calc_checksum_ipv4_raw(from, to, &self.payload).unwrap(),
                None => header.calc_checksum_ipv6_raw(ends().0, ends().1, &self.payload).unwrap(),
            };
            header.write(&mut out).unwrap();
        }
        out.extend(&self.payload);
        out
    }

    /// As its sender sends it to us.
    pub fn frame(&self) -> Vec<u8> {
        framed(station(self.from.0), OUR_MAC.0, &self.packet((77, true)))
    }

    /// As it leaves us for `to`, after a hop, so changed: `change` makes of the packet we got the one that goes out.
    pub fn sent(&self, to: IpAddr) -> Vec<u8> {
        let total = self.packet((0, true)).len();
        framed(OUR_MAC.0, station(to), &self.packet((0, total > 1260)))
    }
}

pub fn framed(from: [u8; 6], to: [u8; 6], packet: &[u8]) -> Vec<u8> {
    let ether_type = if packet[0] >> 4 == 4 { EtherType::IPV4 } else { EtherType::IPV6 };
    let mut out = Vec::new();
    Ethernet2Header { source: from, destination: to, ether_type }.write(&mut out).unwrap();
    out.extend(packet);
    out
}

/// Ends and numbers of a frame the appliance sent, by an independent parser.
pub fn read(frame: &[u8]) -> Seg {
    let sliced = SlicedPacket::from_ethernet(frame).unwrap_or_else(|e| panic!("{e}: {frame:02x?}"));
    let (from, to, ttl, class, flow) = match sliced.net.unwrap() {
        NetSlice::Ipv4(ip) => {
            let h = ip.header().to_header();
            let class = u8::from(h.dscp) << 2 | u8::from(h.ecn);
            (IpAddr::from(h.source), IpAddr::from(h.destination), h.time_to_live, class, 0)
        }
        NetSlice::Ipv6(ip) => {
            let h = ip.header().to_header();
            (IpAddr::from(h.source), IpAddr::from(h.destination), h.hop_limit, h.traffic_class, h.flow_label.value())
        }
        other => panic!("{other:?}"),
    };
    let (sport, dport, tcp, payload) = match sliced.transport.unwrap() {
        TransportSlice::Tcp(t) => {
            let flags = match (t.syn(), t.fin(), t.rst(), t.psh()) {
                (true, ..) => "S",
                (_, true, ..) => "F",
                (_, _, true, _) => "R",
                (_, _, _, true) => "P",
                _ => "",
            };
            let ack = t.ack().then(|| t.acknowledgment_number());
            let tcp = Some((t.sequence_number(), ack, flags, t.options().to_vec()));
            (t.source_port(), t.destination_port(), tcp, t.payload().to_vec())
        }
        TransportSlice::Udp(u) => (u.source_port(), u.destination_port(), None, u.payload().to_vec()),
        other => panic!("{other:?}"),
    };
    Seg { from: (from, sport), to: (to, dport), tcp, payload, ttl, class, flow }
}

/// Puts 0 where an IPv4 packet that may be cut up has its identification, its checksum updated; returns the identification.
pub fn unidentified(frame: &mut [u8]) -> Option<u16> {
    if frame[12..14] != [8, 0] || frame[20] & 0x40 != 0 {
        return None;
    }
    let id = u16::from_be_bytes([frame[18], frame[19]]);
    frame[18..20].fill(0);
    fix_ip_checksum(frame);
    Some(id)
}

pub fn member6(id: u32, address: IpAddr, port: u16) -> MemberPlan {
    MemberPlan { ip: from_std(address), port, ..member(id, 0) }
}

/// TCP and UDP on [`VIP6`], or the IPv4 [`VIP`], with three servers each.
pub fn services(vip: IpAddr, mode: u8, server: impl Fn(u8) -> IpAddr) -> Vec<ServicePlan> {
    let direct = mode == mode::DR || mode == mode::TUNNEL;
    let of = |proto, port: u16, first: u32| {
        let at = if direct { port } else { 8080 };
        let members = (0..3).map(|n| member6(first + n, server(n as u8), at)).collect();
        ServicePlan { vip: from_std(vip), mode, ..service(proto, port, members) }
    };
    vec![of(protocol::TCP, 80, 0), of(protocol::UDP, 53, 3)]
}

impl World {
    /// A world with both families on its port.
    pub fn dual(slots: u32, services: Vec<ServicePlan>) -> Self {
        let mut port = port(slots);
        port.addresses.push((from_std(PORT6), 64));
        let mut world = Self::with_ports(vec![port], 4096, services);
        world.plan.locals.push(LocalPlan { ip: from_std(LOCAL6), port: 0, low: 1024, high: 65_535, flags: 0 });
        for address in [CLIENT6].into_iter().chain((0..3).map(server6)) {
            world.resolve_any(address);
        }
        world.publish();
        world
    }

    pub fn resolve_any(&mut self, address: IpAddr) {
        let row = self.learner.row(from_std(address), 0).unwrap();
        self.learner.confirm(row, station(address), self.now / 1_000_000);
    }

    /// Delivers a frame of which exactly one comes out.
    pub fn through(&mut self, slot: usize, frame: Vec<u8>) -> Vec<u8> {
        let mut out = self.deliver(slot, frame);
        assert_eq!(out.len(), 1, "drops: {:?}", self.drops());
        out.remove(0).1
    }

    /// All sessions, as lbctl sees them.
    pub fn list(&self) -> Vec<(u32, Session)> {
        let readers = self.shared.slots.iter().map(|slot| SessionReader::new(slot.clone(), self.shared.hash_key()));
        readers.flat_map(|reader| reader.iter().collect::<Vec<_>>()).collect()
    }
}
