//! The packets of a round, and what must have become of them: a model of its own, sums computed anew.

use std::sync::atomic::Ordering::Relaxed;

use shm_layout::session::SessionRow;
use shm_layout::slot::Slot;

use crate::port::{BUFFERS, Port};
use crate::world::{Case, MAC, hop_mac};
use crate::xorshift;

/// Bytes of payload; every other TCP packet is an acknowledgement without any.
const PAYLOAD: usize = 64;
const TTL: u8 = 64;
/// ECT(0), so that the byte is not 0.
const TOS: u8 = 2;

/// What was put into a buffer.
#[derive(Clone, Copy, Default)]
struct Sent {
    n: u64,
    server: bool,
    payload: usize,
    seq: u32,
    /// In the peer's own numbers.
    ack: u32,
}

/// Sequence ends and acks of a session, client then server.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Tracked {
    end: [u32; 2],
    ack: [u32; 2],
}

/// What servers are to have counted: packets and bytes, in and out.
type Counted = [u64; 4];

/// The packets of all rounds.
pub struct Traffic {
    case: Case,
    random: u64,
    sent: Vec<Sent>,
    tracked: Vec<Tracked>,
    counted: Counted,
    /// Bytes of the round's frames.
    pub bytes: u64,
}

impl Traffic {
    pub fn new(case: Case) -> Self {
        let tracked = Tracked { end: [1000, 2000], ack: [2000, 1000] };
        let sessions = usize::try_from(case.sessions).unwrap();
        Self {
            case,
            random: 0x9E37_79B9_7F4A_7C15,
            sent: vec![Sent::default(); BUFFERS],
            tracked: vec![tracked; sessions],
            counted: [0; 4],
            bytes: 0,
        }
    }

    /// Fills all buffers with packets of random sessions; half of them replies, half of the TCP ones without payload.
    pub fn fill(&mut self, port: &mut Port) {
        self.bytes = 0;
        for buffer in 0..BUFFERS {
            self.random = xorshift(self.random);
            let n = self.random % self.case.sessions;
            let (server, data) = (self.random >> 60 & 1 == 1, self.case.udp || self.random >> 61 & 1 == 1);
            let payload = if data { PAYLOAD } else { 0 };
            let tracked = &mut self.tracked[n as usize];
            let (me, peer) = (usize::from(server), usize::from(!server));
            let sent = Sent { n, server, payload, seq: tracked.end[me], ack: tracked.end[peer] };
            tracked.end[me] = tracked.end[me].wrapping_add(payload as u32);
            tracked.ack[me] = sent.ack;
            self.sent[buffer] = sent;
            let frame = self.incoming(&sent);
            self.counted[me] += 1;
            self.counted[2 + me] += u64::from(u16::from_be_bytes([frame[16], frame[17]]));
            self.bytes += frame.len() as u64;
            port.put(buffer, &frame);
        }
        port.rewind();
    }

    /// Session of the packet in a buffer.
    pub fn session_of(&self, buffer: usize) -> usize {
        self.sent[buffer].n as usize
    }

    pub fn udp(&self) -> bool {
        self.case.udp
    }

    fn incoming(&self, sent: &Sent) -> Vec<u8> {
        let new = self.case.session(sent.n);
        let shift = if sent.server { new.isn_shift } else { 0 };
        let (from, to) = if sent.server {
            ((new.server_ip, new.server_port), (new.local_ip, new.local_port))
        } else {
            ((new.client_ip, new.client_port), (new.vip, new.vip_port))
        };
        frame(
            [MAC, [2, 0, 0, 0, 9, 0xff]],
            TTL,
            from,
            to,
            (sent.seq, sent.ack.wrapping_add(shift)),
            sent,
            self.case.udp,
        )
    }

    fn outgoing(&self, sent: &Sent) -> Vec<u8> {
        let new = self.case.session(sent.n);
        let shift = if sent.server { 0 } else { new.isn_shift };
        let (from, to) = if sent.server {
            ((new.vip, new.vip_port), (new.client_ip, new.client_port))
        } else {
            ((new.local_ip, new.local_port), (new.server_ip, new.server_port))
        };
        let hop = hop_mac(self.case.hop(sent.n, sent.server));
        frame([hop, MAC], TTL - 1, from, to, (sent.seq.wrapping_add(shift), sent.ack), sent, self.case.udp)
    }

    /// Is every frame, every record, every server's count what the model says? The first that is not.
    pub fn check(&self, port: &Port, slot: &Slot, now_ms: u64) -> Result<(), String> {
        for (buffer, sent) in self.sent.iter().enumerate() {
            let (is, expected) = (port.frame_of(buffer), self.outgoing(sent));
            if is != expected {
                return Err(format!("packet {buffer} of session {}\n   is {is:02x?}\nnot   {expected:02x?}", sent.n));
            }
            self.check_record(sent.n, &slot.sessions[sent.n as usize], now_ms)?;
        }
        let mut counted = [0; 4];
        for row in slot.servers.iter() {
            for (sum, word) in
                counted.iter_mut().zip([&row.packets_in, &row.packets_out, &row.bytes_in, &row.bytes_out])
            {
                *sum += word.load(Relaxed);
            }
        }
        if counted != self.counted {
            return Err(format!("servers counted {counted:?}, not {:?}", self.counted));
        }
        Ok(())
    }

    fn check_record(&self, n: u64, row: &SessionRow, now_ms: u64) -> Result<(), String> {
        let pair = |words: &[std::sync::atomic::AtomicU32; 2]| [words[0].load(Relaxed), words[1].load(Relaxed)];
        let (is, expected) = (Tracked { end: pair(&row.end), ack: pair(&row.ack) }, self.tracked[n as usize]);
        if !self.case.udp && is != expected {
            return Err(format!("session {n} is at {is:?}, not {expected:?}"));
        }
        let seen = row.last_seen.load(Relaxed);
        if seen != now_ms as u32 {
            return Err(format!("session {n} was seen at {seen} ms, not {now_ms}"));
        }
        Ok(())
    }
}

/// A frame with right checksums, summed byte by byte, padded to 60 bytes.
fn frame(
    macs: [[u8; 6]; 2],
    ttl: u8,
    from: (u32, u16),
    to: (u32, u16),
    numbers: (u32, u32),
    sent: &Sent,
    udp: bool,
) -> Vec<u8> {
    let mut segment = Vec::with_capacity(120);
    segment.extend(from.1.to_be_bytes());
    segment.extend(to.1.to_be_bytes());
    if udp {
        segment.extend((8 + sent.payload as u16).to_be_bytes());
        segment.extend([0, 0]);
    } else {
        segment.extend(numbers.0.to_be_bytes());
        segment.extend(numbers.1.to_be_bytes());
        let psh = if sent.payload > 0 { 8 } else { 0 };
        segment.extend([0x50, 0x10 | psh, 4, 0, 0, 0, 0, 0]);
    }
    segment.extend((0..sent.payload).map(|i| (i as u8).wrapping_mul(7) ^ sent.n as u8));
    let protocol = if udp { 17 } else { 6 };
    let mut pseudo = [from.0.to_be_bytes(), to.0.to_be_bytes()].concat();
    pseudo.extend([0, protocol]);
    pseudo.extend((segment.len() as u16).to_be_bytes());
    pseudo.extend(&segment);
    let at = if udp { 6 } else { 16 };
    segment[at..at + 2].copy_from_slice(&internet_checksum(&pseudo).to_be_bytes());
    let mut ip = vec![0x45, TOS];
    ip.extend((20 + segment.len() as u16).to_be_bytes());
    ip.extend([sent.n as u8, sent.seq as u8, 0x40, 0, ttl, protocol, 0, 0]);
    ip.extend(from.0.to_be_bytes());
    ip.extend(to.0.to_be_bytes());
    let sum = internet_checksum(&ip);
    ip[10..12].copy_from_slice(&sum.to_be_bytes());
    let mut frame = macs.concat();
    frame.extend([8, 0]);
    frame.extend(ip);
    frame.extend(segment);
    frame.resize(frame.len().max(60), 0xee);
    frame
}

/// RFC 1071, as it is written there.
fn internet_checksum(bytes: &[u8]) -> u16 {
    let mut sum = 0_u32;
    for pair in bytes.chunks(2) {
        sum += u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0));
    }
    while sum >> 16 != 0 {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}
