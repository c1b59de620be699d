//! The straight way and the general one: whatever comes, nobody can tell which a packet went. Two appliances alike but for
//! that take the same frames, good, bad and damaged, in the same bursts; after each the same must have come out, and every
//! word of the tables must be the same.
#![allow(clippy::cast_possible_truncation, clippy::unwrap_used, reason = "test data")]

mod world;

use std::sync::atomic::Ordering::Relaxed;

use packet::{Mac, tcp};
use proptest::prelude::*;
use shm_layout::neighbours::ip4;
use shm_layout::session::SessionRow;
use world::*;

const SLOTS: u32 = 2;
/// Clients' ports with a session from the beginning, TCP and UDP.
const PORTS: std::ops::Range<u16> = 40_000..40_006;

/// Two worlds, and whether the frames of a burst lie in their ports already.
struct Pair([World; 2]);

impl Pair {
    fn new() -> Self {
        let mut pair = Self([World::usual(SLOTS), World::usual(SLOTS)]);
        pair.part();
        for world in &mut pair.0 {
            for port in PORTS {
                let slot = usize::from(port & 1);
                let open = Connection::open(world, slot, port);
                world.deliver(slot, open.client_says("", b"begun").frame());
                world.deliver(slot, udp((CLIENT, port), (VIP, 53), b"begun"));
            }
        }
        pair.compare(&[], &[]);
        pair
    }

    /// All packets of the second world go the general way.
    fn part(&mut self) {
        self.0[1].runners.iter_mut().for_each(datapath::SlotRunner::go_general);
    }

    fn push(&mut self, slot: usize, frame: &[u8]) {
        self.0.iter_mut().for_each(|world| world.ios[slot].input.push_back(frame.to_vec()));
    }

    /// Takes what was pushed, as one burst if it fits one.
    fn take(&mut self) {
        let [a, b] = &mut self.0;
        let (a, b) = (a.run(), b.run());
        self.compare(&a, &b);
    }

    fn compare(&self, a: &[(usize, Vec<u8>)], b: &[(usize, Vec<u8>)]) {
        for (a, b) in a.iter().zip(b) {
            assert_eq!(a.0, b.0, "slots of frames");
            assert!(a.1 == b.1, "frames\n{:02x?}\n{:02x?}", a.1, b.1);
        }
        assert_eq!(a.len(), b.len(), "frames");
        let [a, b] = &self.0;
        assert_eq!((a.counts(), a.drops()), (b.counts(), b.drops()));
        for (a, b) in a.shared.slots.iter().zip(&b.shared.slots) {
            let fresh = a.table.fresh.load(Relaxed) as usize;
            let rows = |slot: &shm_layout::slot::Slot| {
                let sessions: Vec<_> = slot.sessions.iter().take(fresh).map(|row| format!("{row:?}")).collect();
                let servers: Vec<_> = slot.servers.iter().map(|row| format!("{row:?}")).collect();
                (sessions, servers, format!("{:?}", *slot.table), slot.pulse.quarantined.load(Relaxed))
            };
            assert_eq!(rows(a), rows(b));
        }
    }

    /// Does the same to both.
    fn both(&mut self, change: impl Fn(&mut World)) {
        self.0.iter_mut().for_each(change);
        self.part();
    }
}

/// What happens next, drawn whole so that a failing sequence can be shortened.
#[derive(Clone, Copy, Debug)]
struct Step {
    what: u8,
    port: u16,
    server: bool,
    flags: u8,
    seq: i32,
    ack: i32,
    ttl: u8,
    payload: usize,
    options: u8,
    harm: u8,
    word: u32,
    /// The burst ends here.
    last: bool,
}

fn step() -> impl Strategy<Value = Step> {
    let near = || prop_oneof![6 => -3..200_i32, 2 => Just(0), 1 => any::<i32>()];
    let flags = prop_oneof![
        8 => prop_oneof![Just(tcp::ACK), Just(tcp::ACK | tcp::PSH)],
        2 => prop_oneof![Just(tcp::SYN), Just(tcp::SYN | tcp::ACK), Just(tcp::FIN | tcp::ACK), Just(tcp::RST)],
        1 => any::<u8>(),
    ];
    let first = (0..100_u8, 40_000..40_007_u16, any::<bool>(), flags, near(), near());
    let ttl = prop_oneof![8 => Just(64_u8), 1 => 0..3_u8];
    let options = prop_oneof![6 => Just(0_u8), 3 => 1..6_u8];
    let harm = prop_oneof![6 => Just(0_u8), 3 => any::<u8>()];
    let payload = prop_oneof![4 => 0..100_usize, 1 => Just(0), 1 => 1440..1600_usize];
    let second = (ttl, payload, options, harm, any::<u32>(), prop::bool::weighted(0.15));
    (first, second).prop_map(|((what, port, server, flags, seq, ack), (ttl, payload, options, harm, word, last))| {
        Step { what, port, server, flags, seq, ack, ttl, payload, options, harm, word, last }
    })
}

impl Step {
    fn carry_out(self, pair: &mut Pair) {
        let slot = usize::from(self.port & 1);
        match self.what {
            0..70 => {
                let frame = self.segment(&pair.0[0]);
                // One in some comes in by the wrong queue, and goes by a ring.
                let astray = usize::from(self.word.is_multiple_of(7));
                pair.push(slot ^ astray, &frame);
            }
            70..85 => {
                let frame = self.datagram(&pair.0[0]);
                pair.push(slot, &frame);
            }
            85..88 => pair.push(slot, &self.word.to_be_bytes().repeat(self.payload % 20)),
            88..92 => pair.both(|world| world.resolve(server(self.word as u8 % 6))),
            92..95 => pair.both(|world| {
                let row = world.learner.row(ip4(server(self.word as u8 % 6)), 0).unwrap();
                world.learner.fail(row);
            }),
            95..97 => pair.both(|world| world.replace(slot)),
            97 => pair.both(|world| drop(world.pass(u64::from(self.word % 50)))),
            _ => pair.both(|world| self.damage(world, slot)),
        }
        if self.last {
            pair.take();
        }
    }

    /// A segment of the session of the client's port, if it has one, with numbers near those that are expected.
    fn segment(self, world: &World) -> Vec<u8> {
        let mut segment = Vec::new();
        let (mut from, mut to, mut seq, mut ack) = ((CLIENT, self.port), (VIP, 80), self.word, self.word);
        if let Some((_, record)) = world.session_of(self.port, false) {
            let me = usize::from(self.server);
            (seq, ack) = (record.end[me], record.end[1 - me]);
            if self.server {
                (from, to) = (record.server, record.local);
                ack = ack.wrapping_add(record.shift);
            }
        }
        let options: &[u8] = match self.options {
            0 => &[],
            1 => &[1, 1, 1, 1],
            2 => &[1, 1, 5, 10, 0, 0, 4, 0, 0, 0, 8, 0],
            3 => &[1, 1, 8, 10, 1, 2, 3, 4, 5, 6, 7, 8],
            4 => &[5, 10, 0, 0, 4, 0, 0, 0, 8, 0, 0, 0],
            _ => &[3, 200, 5, 1],
        };
        segment.extend(from.1.to_be_bytes());
        segment.extend(to.1.to_be_bytes());
        segment.extend(seq.wrapping_add_signed(self.seq).to_be_bytes());
        segment.extend(ack.wrapping_add_signed(self.ack).to_be_bytes());
        segment.extend([(5 + options.len() as u8 / 4) << 4, self.flags, 1, 0, 0, 0, 0, 0]);
        segment.extend(options);
        segment.extend((0..self.payload).map(|i| i as u8));
        self.frame(from.0, to.0, 6, 16, segment)
    }

    fn datagram(self, world: &World) -> Vec<u8> {
        let (mut from, mut to) = ((CLIENT, self.port), (VIP, 53));
        if let Some((_, record)) = world.session_of(self.port, true)
            && self.server
        {
            (from, to) = (record.server, record.local);
        }
        let mut segment = Vec::new();
        segment.extend(from.1.to_be_bytes());
        segment.extend(to.1.to_be_bytes());
        segment.extend((8 + self.payload as u16).to_be_bytes());
        segment.extend([0, 0]);
        segment.extend((0..self.payload).map(|i| i as u8));
        self.frame(from.0, to.0, 17, 6, segment)
    }

    /// With headers and right checksums; then the harm.
    fn frame(self, src: u32, dst: u32, protocol: u8, sum_at: usize, mut segment: Vec<u8>) -> Vec<u8> {
        let mut pseudo = [src.to_be_bytes(), dst.to_be_bytes()].concat();
        pseudo.extend([0, protocol]);
        pseudo.extend((segment.len() as u16).to_be_bytes());
        pseudo.extend(&segment);
        // UDP's "none" now and then; what sums up to 0 as well.
        let none = protocol == 17 && self.word.is_multiple_of(5);
        let sum = if none { 0 } else { internet_checksum(&pseudo) };
        segment[sum_at..sum_at + 2].copy_from_slice(&sum.to_be_bytes());
        let mut frame = [OUR_MAC.0, mac_of(src)].concat();
        frame.extend([8, 0, 0x45, self.word as u8]);
        frame.extend((20 + segment.len() as u16).to_be_bytes());
        frame.extend([1, 2, 0x40, 0, self.ttl, protocol, 0, 0]);
        frame.extend(src.to_be_bytes());
        frame.extend(dst.to_be_bytes());
        frame.extend(segment);
        let at = self.word as usize % frame.len();
        match self.harm {
            0..100 => frame.resize(frame.len().max(60), 0),
            100..115 => frame[self.word as usize % 42] ^= 1 << (self.word >> 8 & 7),
            115..130 => frame.truncate(at),
            130..140 => frame[..6].copy_from_slice(&Mac([2, 0, 0, 0, 0, 9]).0),
            140..150 => frame[16..18].copy_from_slice(&(self.word as u16 % 128).to_be_bytes()),
            150..160 => frame[20..22].copy_from_slice(&(1_u16 << (self.word & 15)).to_be_bytes()),
            160..170 => drop(frame.splice(12..12, [0x81, 0, 0, self.word as u8 % 3])),
            // Of UDP the length.
            170..190 => frame[38..40].copy_from_slice(&(self.word as u16 % 16).to_be_bytes()),
            190..200 => frame.extend([0xaa; 40]),
            200..210 => {
                frame[14] = 0x46;
                frame.splice(34..34, [1; 4]);
            }
            210..230 => frame[at] ^= 1 << (self.word >> 8 & 7),
            _ => frame.extend([0; 2]),
        }
        if self.harm.is_multiple_of(3) {
            fix_ip_checksum(&mut frame);
        }
        frame
    }

    /// Puts something into a record that does not belong there.
    fn damage(self, world: &World, slot: usize) {
        let slot = &world.shared.slots[slot];
        let fresh = slot.table.fresh.load(Relaxed);
        let Some(row) = slot.sessions.get((self.word % fresh.max(1)) as usize) else { return };
        let value = self.seq.cast_unsigned();
        match self.harm % 13 {
            0 => row.hop[0].store(value as u16, Relaxed),
            1 => row.hop[1].store(value as u16, Relaxed),
            2 => row.hop_tag[0].store(value as u8, Relaxed),
            3 => row.hop_tag[1].store(value as u8, Relaxed),
            4 => row.end[self.word as usize & 1].store(value, Relaxed),
            5 => row.ack[self.word as usize & 1].store(value, Relaxed),
            6 => row.isn_shift.store(value, Relaxed),
            7 => row.client_ip.store(value, Relaxed),
            8 => row.local_port.store(value as u16, Relaxed),
            9 => row.last_seen.store(value, Relaxed),
            10 => row.state.store(value as u8 % 10, Relaxed),
            11 => row.client_port.store(value as u16, Relaxed),
            _ => drop_a_flag(row, value),
        }
    }
}

/// Also one that says its record is not in the index, and then perhaps with a state that lets no packet go straight.
fn drop_a_flag(row: &SessionRow, value: u32) {
    row.flags.store(row.flags.load(Relaxed) ^ 1 << (value % 6), Relaxed);
    if value.is_multiple_of(2) {
        row.state.store((value % 7 / 3) as u8, Relaxed);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn nobody_can_tell_which_way_a_packet_went(steps in prop::collection::vec(step(), 1..300)) {
        let mut pair = Pair::new();
        steps.into_iter().for_each(|step| step.carry_out(&mut pair));
        pair.take();
    }
}
