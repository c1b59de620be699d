//! The stages over one burst. Batching and prefetch are written here and nowhere else.
//!
//! | stage | touches | asks for |
//! |---|---|---|
//! | parse | headers | index bucket |
//! | probe | index bucket | session line |
//! | match | session line | counter line of the server |
//! | act | session, counter and next-hop lines, headers | – |

use std::sync::atomic::Ordering::Relaxed; // Session rows have one writer, this slot.

use packet::{Parsed, V4, ethernet};
use shm_layout::counters::Flow;
use shm_layout::limits::{NONE, RX_BURST};

use crate::io::Io;
use crate::runner::{Origin, SlotRunner};
use crate::session::{Direction, Key};

/// What is known of a packet that has no session yet.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Flight {
    pub packet: V4,
    pub key: Key,
    pub hash: u64,
}

impl Flight {
    pub(crate) fn of(packet: &V4, hash: u64) -> Self {
        Self { packet: *packet, key: key_of(packet), hash }
    }
}

/// The key a packet is looked up by.
#[inline(always)]
fn key_of(packet: &V4) -> Key {
    Key::new(packet.src, packet.sport, packet.dst, packet.dport, packet.proto)
}

impl SlotRunner {
    /// Takes every packet of `rx[0..count]` to its one verdict.
    ///
    /// A packet is either not keyed (not TCP or UDP to us, or refused by the parser), or keyed without a record, or has
    /// one: a candidate after the second stage, its session's after the third.
    pub(crate) fn burst<I: Io>(&mut self, io: &mut I, count: usize, origin: Origin) {
        let count = count.min(RX_BURST);
        let mut packets = [V4::default(); RX_BURST];
        let mut hashes = [0_u64; RX_BURST];
        let mut records = [NONE; RX_BURST];
        let mut directions = [Direction::Client; RX_BURST];
        let mut keyed = 0_u32;
        let mut bytes = 0;
        // What a ring brings was judged by the slot that received it, perhaps on a port with another MAC and tag.
        let judged = origin == Origin::Ring;

        for place in 0..count {
            io.prefetch(place);
        }
        for place in 0..count {
            let Some(frame) = io.frame(place) else { continue };
            bytes += frame.len() as u64;
            if let Ok(Parsed::L4(packet)) = packet::classify(frame)
                && (judged || packet.vlan == self.port.vlan && ethernet::dst(frame) == Some(self.port.mac))
            {
                let hash = self.sessions.hash(key_of(&packet));
                self.sessions.prefetch_bucket(hash);
                packets[place] = packet;
                hashes[place] = hash;
                keyed |= 1 << place;
            }
        }
        self.counts.add(Flow::RxBytes, if origin == Origin::Port { bytes } else { 0 });
        for place in 0..count {
            if keyed >> place & 1 != 0
                && let Some(record) = self.sessions.candidate(hashes[place])
            {
                self.sessions.prefetch_session(record);
                records[place] = record;
            }
        }
        for place in 0..count {
            let candidate = std::mem::replace(&mut records[place], NONE);
            if candidate != NONE
                && let Some((record, direction)) =
                    self.sessions.resolve(candidate, key_of(&packets[place]), hashes[place])
            {
                let server = self.slot.sessions.get(record as usize).map_or(0, |row| row.server_id.load(Relaxed));
                arch::prefetch_at(&self.slot.servers, server as usize);
                records[place] = record;
                directions[place] = direction;
            }
        }
        for place in 0..count {
            let (packet, hash, record) = (&packets[place], hashes[place], records[place]);
            if record != NONE {
                self.established(io, place, packet, hash, (record, directions[place]), origin);
            } else if keyed >> place & 1 != 0 {
                self.unknown(io, place, &Flight::of(packet, hash), origin);
            } else {
                self.other(io, place);
            }
        }
    }
}
