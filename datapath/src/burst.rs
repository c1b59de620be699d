//! The stages over one burst. Batching and prefetch are written here and nowhere else.
//!
//! | stage | touches | asks for |
//! |---|---|---|
//! | parse | headers | index bucket |
//! | probe | index bucket | session line |
//! | look ahead, some packets before | session line | counter line of the server |
//! | act | session, counter and next-hop lines, headers | – |
//!
//! Looking ahead is not a stage of its own: it waits for session lines, and while it waits for those to come, packets whose
//! lines have come are acted on.

use std::cell::Cell;
use std::sync::atomic::Ordering::Relaxed; // Session rows have one writer, this slot.

use packet::plain::{self, Carries, Station};
use packet::{Parsed, V4, ethernet};
use shm_layout::counters::{DropReason, Flow};
use shm_layout::limits::{NONE, RX_BURST};

use crate::family::{Packet, balanced, unchecked};
use crate::io::Io;
use crate::plain::{TCP, UDP};
use crate::runner::{Origin, SlotRunner};

/// What is known of a packet that does not go the straight way.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Flight<P: Packet = V4> {
    pub packet: P,
    pub key: P::Wanted,
    pub hash: u64,
}

/// What the stages find out of one packet. Shape: 16 bytes.
#[derive(Clone, Copy)]
struct Lane {
    hash: u64,
    /// The first record that carries the key's tag, unverified; [`NONE`]: there is none.
    record: u32,
    /// The state its record must have for it to go the straight way; else [`OTHER`] or [`KEYED`], which no record has.
    state: u16,
}

/// Not TCP or UDP to us, or refused by the parser.
const OTHER: u16 = 0x8000;
/// TCP or UDP, but not plain.
const KEYED: u16 = 0x8001;
/// The same over IPv6.
const KEYED_V6: u16 = 0x8002;

/// How many packets before its turn a session's line is looked at. By then it has come, or it is waited for with others.
const AHEAD: usize = 8;

const EMPTY: Lane = Lane { hash: 0, record: NONE, state: OTHER };

impl Lane {
    /// May it begin a session? (Plain TCP packets do not: they are no SYN.)
    const fn may_open(&self) -> bool {
        self.record == NONE && (self.state == KEYED || self.state == UDP)
    }
}

impl SlotRunner {
    /// Takes every packet of `rx[0..count]` to its one verdict.
    pub(crate) fn burst<I: Io>(&mut self, io: &mut I, count: usize, origin: Origin) {
        let count = count.min(RX_BURST);
        // Behind the last packet: none, so that looking ahead needs no end.
        let mut lanes = [EMPTY; RX_BURST + AHEAD];
        let mut bytes = 0;
        for place in 0..count {
            io.prefetch(place);
        }
        let station = self.station(origin);
        for (place, lane) in lanes[..count].iter_mut().enumerate() {
            let Some(frame) = io.frame(place) else { continue };
            bytes += frame.len() as u64;
            if let Some((state, hash)) =
                self.plain_hash(frame, &station).or_else(|| self.any_hash(frame, place, origin))
            {
                self.sessions.prefetch_bucket(hash);
                *lane = Lane { hash, record: NONE, state };
            }
        }
        self.counts.add(Flow::RxBytes, if origin == Origin::Port { bytes } else { 0 });
        let mut unknown = 0;
        for lane in &mut lanes[..count] {
            match self.sessions.candidate(lane.hash) {
                Some(record) => {
                    self.sessions.prefetch_session(record);
                    lane.record = record;
                }
                None => unknown += 1,
            }
        }
        if unknown > 0 && self.large {
            self.foresee_openings(io, (0..count).filter(|place| lanes[*place].may_open()));
        }
        lanes[..AHEAD].iter().for_each(|lane| self.look_ahead(lane));
        // Plain packets are sent when one of another kind or the end comes: the first that is not sent yet.
        let mut first = 0;
        for place in 0..count {
            self.look_ahead(&lanes[place + AHEAD]);
            let lane = &lanes[place];
            if !self.forward_plain(io, place, lane.record, lane.state) {
                self.send(io, first, place);
                self.general(io, place, lane, origin);
                first = place + 1;
            }
        }
        self.send(io, first, count);
    }

    #[inline(always)]
    fn look_ahead(&self, lane: &Lane) {
        if let Some(row) = self.slot.sessions.get(lane.record as usize) {
            arch::prefetch_at(&self.slot.servers, row.server_id.load(Relaxed) as usize);
        }
    }

    /// Sends `rx[from..to]`.
    #[inline(always)]
    fn send<I: Io>(&mut self, io: &mut I, from: usize, to: usize) {
        for place in io.send_all(from, to)..to {
            self.refuse(io, place, DropReason::TxFull);
        }
    }

    /// Whom plain packets of this origin are sent to.
    fn station(&self, origin: Origin) -> Station {
        match origin {
            _ if !self.straight => Station::NOBODY,
            Origin::Port if self.port.vlan != 0 => Station::NOBODY, // The port's packets are tagged.
            Origin::Port => Station::new(Some(self.port.mac)),
            // What a ring brings was judged by the slot that received it, perhaps on a port with another MAC and tag.
            Origin::Ring => Station::new(None),
        }
    }

    /// State and hash of a plain packet.
    #[inline(always)]
    fn plain_hash(&self, frame: &[u8], station: &Station) -> Option<(u16, u64)> {
        let state = match plain::read(frame, station)? {
            Carries::Tcp => TCP,
            Carries::Udp => UDP,
        };
        Some((state, self.sessions.hash_of(plain::key(frame.first_chunk()?))))
    }

    /// The same of any TCP or UDP packet to us, which is kept.
    #[inline(never)]
    fn any_hash(&self, frame: &[u8], place: usize, origin: Origin) -> Option<(u16, u64)> {
        match packet::classify(frame) {
            Ok(Parsed::L4(packet)) if self.is_ours(frame, packet.vlan, origin) => {
                self.parsed.get(place)?.set(packet);
                Some((KEYED, self.sessions.hash(packet.wanted(self.sessions.hash_key()))))
            }
            Ok(Parsed::V6(packet)) if balanced(&packet) && self.is_ours(frame, packet.head.vlan, origin) => {
                self.parsed_v6.get(place)?.set(packet);
                Some((KEYED_V6, self.sessions.hash(packet.wanted(self.sessions.hash_key()))))
            }
            _ => None,
        }
    }

    /// Is the frame to us?
    fn is_ours(&self, frame: &[u8], vlan: u16, origin: Origin) -> bool {
        origin == Origin::Ring || vlan == self.port.vlan && ethernet::dst(frame) == Some(self.port.mac)
    }

    /// Is it a TCP or UDP packet to us?
    fn judge(&self, frame: &[u8], origin: Origin) -> Option<V4> {
        let Ok(Parsed::L4(packet)) = packet::classify(frame) else { return None };
        self.is_ours(frame, packet.vlan, origin).then_some(packet)
    }

    /// Any packet, by its session if it has one.
    #[cold]
    #[inline(never)]
    fn general<I: Io>(&mut self, io: &mut I, place: usize, lane: &Lane, origin: Origin) {
        if lane.state == OTHER {
            return self.other(io, place, origin);
        }
        if lane.state == KEYED_V6 {
            return self.general_v6(io, place, lane, origin);
        }
        let packet = match lane.state {
            KEYED => self.parsed.get(place).map(Cell::get),
            _ => io.frame(place).and_then(|frame| self.judge(frame, origin)),
        };
        let Some(packet) = packet else { return self.refuse(io, place, DropReason::MultiSegment) };
        self.by_session(io, place, &packet, lane, origin);
    }

    /// As [`general`](Self::general), of what was parsed as IPv6.
    #[inline(never)]
    fn general_v6<I: Io>(&mut self, io: &mut I, place: usize, lane: &Lane, origin: Origin) {
        let (Some(packet), Some(frame)) = (self.parsed_v6.get(place).map(Cell::get), io.frame(place)) else {
            return self.refuse(io, place, DropReason::MultiSegment);
        };
        if unchecked(&packet, frame) {
            return self.refuse(io, place, DropReason::NoUdpChecksum);
        }
        self.by_session(io, place, &packet, lane, origin);
    }

    #[inline(always)]
    fn by_session<I: Io, P: Packet>(&mut self, io: &mut I, place: usize, packet: &P, lane: &Lane, origin: Origin) {
        let (key, hash) = (packet.wanted(self.sessions.hash_key()), lane.hash);
        let found = if lane.record == NONE { None } else { self.sessions.resolve(lane.record, key, hash) };
        match found {
            Some(found) => self.established(io, place, packet, hash, found, origin),
            None => self.unknown(io, place, &Flight { packet: *packet, key, hash }, origin),
        }
    }
}
