//! Every IHL × data offset × length, and random nonsense: the right reason, never a panic, never a look at the padding.
#![allow(clippy::cast_possible_truncation, clippy::unwrap_used, reason = "tests cut small numbers, and may panic")]

mod common;

use common::Random;
use packet::ethernet::Mac;
use packet::{ParseError, Parsed, Rewrite, V4, arp, build, classify, icmp, rewrite_v4, tcp_options};

/// The checks in the order of the headers, written as the RFCs say them: an oracle that shares nothing with the crate.
fn expected(frame: &[u8], l3: usize) -> Result<u8, ParseError> {
    let ip = frame.get(l3..).unwrap_or_default();
    if ip.len() < 20 {
        return Err(ParseError::TooShort);
    }
    if ip[0] >> 4 != 4 {
        return Err(ParseError::BadVersion);
    }
    let ihl = usize::from(ip[0] % 16) * 4;
    if ihl < 20 {
        return Err(ParseError::BadIhl);
    }
    let total = usize::from(ip[2]) * 256 + usize::from(ip[3]);
    if total < ihl || total > ip.len() {
        return Err(ParseError::BadTotalLength);
    }
    let mut sum = 0;
    for word in ip[..ihl].chunks(2) {
        sum += u32::from(word[0]) * 256 + u32::from(word[1]);
    }
    if sum == 0 || sum % 0xffff != 0 {
        return Err(ParseError::BadIpChecksum);
    }
    if ip[6] & 0x20 != 0 || ip[6] & 0x1f != 0 || ip[7] != 0 {
        return Err(ParseError::Fragment);
    }
    let l4 = &ip[ihl..total];
    match ip[9] {
        6 if l4.len() < 20 => Err(ParseError::TcpTooShort),
        6 if l4[12] >> 4 < 5 || usize::from(l4[12] >> 4) * 4 > l4.len() => Err(ParseError::BadTcpOffset),
        17 if l4.len() < 8 => Err(ParseError::UdpTooShort),
        17 => {
            let len = usize::from(l4[4]) * 256 + usize::from(l4[5]);
            if len < 8 || len > l4.len() { Err(ParseError::BadUdpLength) } else { Ok(17) }
        }
        1 if l4.len() < 8 => Err(ParseError::IcmpTooShort),
        other => Ok(other),
    }
}

fn v4(parsed: Parsed) -> Option<V4> {
    match parsed {
        Parsed::L4(v4) | Parsed::Icmp(v4) | Parsed::OtherL4(v4) => Some(v4),
        Parsed::Arp(_) | Parsed::V6(_) => None,
    }
}

/// Everything that takes a frame: none may panic, none may change what is not its own.
fn use_all(frame: &[u8]) {
    let Ok(parsed) = classify(frame) else { return };
    let mac = Mac(common::MAC_B);
    let mut buf = [0; 700];
    let Some(p) = v4(parsed) else {
        let _ = arp::reply_in_place(&mut frame.to_vec(), 14, mac);
        return;
    };
    assert!(p.end() <= frame.len() && usize::from(p.payload) <= p.end(), "{p:?}");
    assert!(p.payload >= p.l4 && p.l4 >= p.l3 + 20);
    let to = Rewrite { src: 1, dst: 2, sport: 3, dport: 4, seq_add: 5, ack_sub: 6 };
    let mut changed = frame.to_vec();
    rewrite_v4(&mut changed, &p, &to);
    assert_eq!(changed[usize::from(p.payload)..], frame[usize::from(p.payload)..], "payload and padding stay");
    let blocks = tcp_options::shift_sack(&mut changed, &p, 7);
    tcp_options::erase_timestamps(&mut changed, &p);
    assert!(p.proto == 6 || blocks == 0);
    assert_eq!(changed[usize::from(p.payload)..], frame[usize::from(p.payload)..]);
    let _ = tcp_options::options(p.segment(frame)).count();
    let _ = build::tcp_rst(&mut buf, frame, &p);
    let _ = build::icmp_error(&mut buf, frame, &p, 1, (3, 3), 0);
    let _ = icmp::echo_reply(&mut changed, &p, mac);
    // A parse of another frame: left alone or changed, no panic.
    for cut in [0, 13, 14, 33, 34, 41, 53, 54] {
        let mut cut = frame[..cut.min(frame.len())].to_vec();
        rewrite_v4(&mut cut, &p, &to);
        tcp_options::shift_sack(&mut cut, &p, 7);
        tcp_options::erase_timestamps(&mut cut, &p);
        icmp::echo_reply(&mut cut, &p, mac);
    }
}

fn fix_checksum(frame: &mut [u8], l3: usize) {
    let ihl = usize::from(frame.get(l3).copied().unwrap_or(0) & 0xf) * 4;
    let Some(header) = frame.get_mut(l3..l3 + ihl).filter(|header| header.len() >= 20) else { return };
    header[10..12].fill(0);
    let sum: u32 = header.chunks(2).map(|word| u32::from(word[0]) * 256 + u32::from(word[1])).sum();
    let sum = (sum >> 16) + (sum & 0xffff);
    header[10..12].copy_from_slice(&(!((sum >> 16) + sum) as u16).to_be_bytes());
}

#[test]
fn every_ihl_offset_length() {
    let mut random = Random(0x1234_5678_9abc_def1);
    let mut seen = std::collections::HashMap::new();
    for vlan in [0, 5] {
        let front = common::ethernet(0x0800, vlan);
        let l3 = front.len();
        for (proto, ihl, offset) in
            [6_u8, 17, 1, 47].iter().flat_map(|&p| (0..16_u8).flat_map(move |i| (0..16_u8).map(move |o| (p, i, o))))
        {
            for length in 0..=120_usize {
                // The length of the IP packet as sent; what the header says of it: the truth, a little less, a little more.
                for said in [length as i64, length as i64 - 1, length as i64 + 1] {
                    let mut frame = [front.clone(), random.bytes(length)].concat();
                    let mut set = |at: usize, value: u8| {
                        if let Some(byte) = frame.get_mut(at) {
                            *byte = value;
                        }
                    };
                    let l4 = l3 + usize::from(ihl) * 4;
                    let said = (said.max(0) as u16).to_be_bytes();
                    // UDP takes the data offset's values as lengths.
                    for (at, value) in [(l4 + 4, 0), (l4 + 5, offset * 8), (l4 + 12, offset << 4)] {
                        set(at, value);
                    }
                    for (at, value) in [(0, 0x40 | ihl), (2, said[0]), (3, said[1]), (6, 0), (7, 0), (9, proto)] {
                        set(l3 + at, value);
                    }
                    fix_checksum(&mut frame, l3);
                    let found = classify(&frame);
                    let kind = found.map(|parsed| v4(parsed).unwrap().proto);
                    assert_eq!(kind, expected(&frame, l3), "ihl {ihl} offset {offset} length {length}: {frame:02x?}");
                    *seen.entry(kind).or_insert(0) += 1;
                    use_all(&frame);
                    // Padding changes nothing (unless the packet claims to be longer than it is).
                    if said == (length as u16).to_be_bytes() && length >= 20 {
                        let padded = [&frame[..], &random.bytes(9)].concat();
                        assert_eq!(classify(&padded), found, "padding was read: {padded:02x?}");
                    }
                    // Exact room: a slice that ends with the data.
                    assert_eq!(classify(&frame.clone().into_boxed_slice()), found);
                }
            }
        }
    }
    for error in [
        ParseError::TooShort,
        ParseError::BadIhl,
        ParseError::BadTotalLength,
        ParseError::TcpTooShort,
        ParseError::BadTcpOffset,
        ParseError::UdpTooShort,
        ParseError::BadUdpLength,
        ParseError::IcmpTooShort,
    ] {
        assert!(seen.contains_key(&Err(error)), "{error:?} never came: {seen:?}");
    }
    assert!([1, 6, 17, 47].iter().all(|&proto| seen.contains_key(&Ok(proto))));
}

fn udp(options: &[u8], payload: usize) -> Vec<u8> {
    let mut frame = common::ethernet(0x0800, 0);
    frame.extend(common::ipv4(1, 2, 64, 17, options, 8 + payload));
    frame.extend(common::udp((1, 2), (3, 4), &vec![0; payload]));
    frame
}

/// Short frames and those with options go header by header, long ones through one window.
const SHAPES: [(&[u8], usize); 3] = [(&[], 4), (&[], 40), (&[1, 1, 1, 0], 40)];

#[test]
fn versions_and_fragments() {
    let changes = [
        (14, 0x20, ParseError::BadVersion), // 6
        (14, 0x50, ParseError::BadVersion), // 1
        (20, 0x20, ParseError::Fragment),   // MF
        (20, 0x10, ParseError::Fragment),
        (20, 0x01, ParseError::Fragment),
        (21, 0x01, ParseError::Fragment),
    ];
    for ((options, payload), (at, change, error)) in SHAPES.iter().flat_map(|s| changes.map(|c| (*s, c))) {
        let mut frame = udp(options, payload);
        assert!(matches!(classify(&frame), Ok(Parsed::L4(_))));
        frame[at] ^= change;
        fix_checksum(&mut frame, 14);
        assert_eq!(classify(&frame), Err(error), "byte {at} ^ {change:x}");
        assert_eq!(expected(&frame, 14).err(), Some(error));
        // "Reserved" and DF are no fragments.
        let mut frame = udp(options, payload);
        frame[20] ^= 0xc0;
        fix_checksum(&mut frame, 14);
        assert!(matches!(classify(&frame), Ok(Parsed::L4(_))));
    }
}

/// Each single wrong bit of the header is noticed, options included.
#[test]
fn header_checksum() {
    for (options, payload) in SHAPES {
        let frame = udp(options, payload);
        for bit in 14 * 8..(34 + options.len()) * 8 {
            let mut bad = frame.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            let error = expected(&bad, 14).unwrap_err();
            assert_eq!(classify(&bad), Err(error), "bit {bit}");
        }
    }
}

#[test]
fn nonsense_never_panics() {
    let mut random = Random(99);
    let mut l4 = 0;
    for round in 0..400_000 {
        let length = random.below(140);
        let mut frame = random.bytes(length);
        // Most of it would stop at the ethertype: help it further, less and less.
        for (at, value, odds) in [(12, 8, 40), (13, 0, 40), (14, 0x45, 4), (16, 0, 20), (20, 0x40, 20), (21, 0, 20)] {
            if at < frame.len() && random.below(odds) != 0 {
                frame[at] = value;
            }
        }
        if frame.len() > 23 && random.below(10) != 0 {
            frame[17] = (length - 14) as u8;
            frame[23] = [6, 6, 17, 1][random.below(4)];
            fix_checksum(&mut frame, 14);
        }
        if frame.len() > 40 && random.below(2) != 0 {
            frame[38] = 0;
            frame[39] = (length - 34) as u8;
        }
        l4 += usize::from(matches!(classify(&frame), Ok(Parsed::L4(_))));
        if round % 7 == 0 {
            assert_eq!(classify(&frame).is_ok(), classify(&frame[..]).is_ok());
        }
        use_all(&frame);
    }
    assert!(l4 > 20_000, "the help is too weak: {l4}");
}
