//! Against etherparse: what it makes we read, what we read it reads the same.
#![allow(clippy::cast_possible_truncation, clippy::unwrap_used, reason = "tests cut random words, and may panic")]

mod common;

use etherparse::{PacketBuilder, SlicedPacket, TransportSlice, VlanId};
use packet::{Parsed, V4, checksum, classify, tcp, udp};
use proptest::prelude::*;

prop_compose! {
    fn frame()(
        addresses in any::<(u32, u32)>(), ports in any::<(u16, u16)>(), numbers in any::<(u32, u32)>(), ttl in any::<u8>(),
        vlan in prop::option::of(1..4095_u16), is_tcp in any::<bool>(), flags in 0..64_u8,
        payload in prop::collection::vec(any::<u8>(), 0..200), padding in 0..40_usize,
    ) -> (V4, Vec<u8>, Vec<u8>) {
        let builder = PacketBuilder::ethernet2(common::MAC_A, common::MAC_B);
        let (src, dst) = (addresses.0.to_be_bytes(), addresses.1.to_be_bytes());
        let builder = match vlan {
            Some(id) => builder.single_vlan(VlanId::try_new(id).unwrap()).ipv4(src, dst, ttl),
            None => builder.ipv4(src, dst, ttl),
        };
        let mut frame = Vec::new();
        if is_tcp {
            let mut header = etherparse::TcpHeader::new(ports.0, ports.1, numbers.0, 1000);
            header.acknowledgment_number = numbers.1;
            (header.fin, header.syn, header.rst) = (flags & 1 != 0, flags & 2 != 0, flags & 4 != 0);
            (header.psh, header.ack, header.urg) = (flags & 8 != 0, flags & 16 != 0, flags & 32 != 0);
            builder.tcp_header(header).write(&mut frame, &payload).unwrap();
        } else {
            builder.udp(ports.0, ports.1).write(&mut frame, &payload).unwrap();
        }
        let l3 = if vlan.is_some() { 18 } else { 14 };
        let header = if is_tcp { 20 } else { 8 };
        let p = V4 {
            src: addresses.0, dst: addresses.1, sport: ports.0, dport: ports.1, ttl, l3, l4: l3 + 20, payload: l3 + 20 + header,
            seq: if is_tcp { numbers.0 } else { 0 }, ack: if is_tcp { numbers.1 } else { 0 }, vlan: vlan.unwrap_or(0),
            tcp_flags: if is_tcp { flags } else { 0 }, proto: if is_tcp { 6 } else { 17 },
            total_len: (20 + usize::from(header) + payload.len()) as u16,
        };
        frame.extend(vec![0xee; padding]);
        (p, frame, payload)
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_etherparse_writes_is_read((p, frame, payload) in frame()) {
        prop_assert_eq!(classify(&frame), Ok(Parsed::L4(p)));
        prop_assert_eq!(&frame[usize::from(p.payload)..p.end()], &payload[..]);
        prop_assert_eq!(p.payload_len() as usize, payload.len());
        let verify = if p.proto == 6 { tcp::verify } else { udp::verify };
        prop_assert!(verify(p.src, p.dst, p.segment(&frame)));
    }

    /// A frame with some bytes changed: what we accept, etherparse accepts, and both read the same.
    #[test]
    fn what_we_accept_etherparse_reads_alike(
        (_, mut frame, _) in frame(), changes in prop::collection::vec((12..60_usize, any::<u8>()), 0..4), cut in 0..300_usize, fix in any::<bool>(),
    ) {
        frame.truncate(cut.max(14));
        for (at, value) in changes {
            if let Some(byte) = frame.get_mut(at) {
                *byte = value;
            }
        }
        if fix && frame.len() >= 34 && frame[14] == 0x45 {
            frame[24..26].fill(0);
            let sum = checksum::checksum(&frame[14..34]);
            frame[24..26].copy_from_slice(&sum.to_be_bytes());
        }
        if let Ok(Parsed::L4(p)) = classify(&frame) {
            let packet = SlicedPacket::from_ethernet(&frame).unwrap();
            let Some(etherparse::NetSlice::Ipv4(ip)) = &packet.net else { panic!("no IPv4: {frame:02x?}") };
            let header = ip.header();
            prop_assert_eq!((p.src, p.dst), (u32::from(header.source_addr()), u32::from(header.destination_addr())));
            prop_assert_eq!((p.ttl, p.proto, p.total_len), (header.ttl(), header.protocol().0, header.total_len()));
            match packet.transport {
                Some(TransportSlice::Tcp(t)) => {
                    prop_assert_eq!((p.sport, p.dport, p.seq, p.ack), (t.source_port(), t.destination_port(), t.sequence_number(), t.acknowledgment_number()));
                    prop_assert_eq!(p.payload_len() as usize, t.payload().len());
                    prop_assert_eq!(p.tcp_flags & tcp::SYN != 0, t.syn());
                }
                Some(TransportSlice::Udp(u)) => prop_assert_eq!((p.sport, p.dport), (u.source_port(), u.destination_port())),
                other => panic!("{other:?}"),
            }
        }
    }

    #[test]
    fn sums_do_not_depend_on_where_they_are_cut(bytes in prop::collection::vec(any::<u8>(), 0..300), at in 0..150_usize) {
        let plain: u64 = bytes.chunks(2).map(|w| u64::from(w[0]) << 8 | u64::from(w.get(1).copied().unwrap_or(0))).sum();
        let folded = checksum::fold(checksum::sum(&bytes));
        prop_assert_eq!(u64::from(folded) % 0xffff, plain % 0xffff);
        prop_assert_eq!(folded == 0, plain == 0);
        let sum = checksum::sum(&bytes);
        for sum in [sum, sum + u64::from(!folded)] {
            prop_assert_eq!(checksum::sums_to_ones(sum) && sum != 0, checksum::fold(sum) == 0xffff);
        }
        let (a, b) = bytes.split_at((at * 2).min(bytes.len()));
        prop_assert_eq!(checksum::fold(checksum::sum(a) + checksum::sum(b)), folded);
    }

    /// Any change of bytes at any offset, and its way back.
    #[test]
    fn deltas_follow_any_change(mut bytes in prop::collection::vec(any::<u8>(), 2..100), at in 0..100_usize, new in prop::collection::vec(any::<u8>(), 0..20)) {
        bytes[0] |= 1; // A sum of 0 has no one's complement checksum of its own.
        let at = 1 + at % (bytes.len() - 1);
        let len = new.len().min(bytes.len() - at);
        let before = checksum::checksum(&bytes);
        let delta = checksum::Delta::NONE.bytes(at, &bytes[at..at + len], &new);
        bytes[at..at + len].copy_from_slice(&new[..len]);
        prop_assert_eq!(delta.apply(before), checksum::checksum(&bytes));
    }
}
