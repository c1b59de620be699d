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
use shm_layout::limits::RX_BURST;

use crate::io::Io;
use crate::runner::{Origin, SlotRunner};
use crate::session::{Direction, Key};

/// What the stages know of one packet.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Flight {
    pub packet: V4,
    pub key: Key,
    pub hash: u64,
}

/// Where a packet stands between the stages.
#[derive(Clone, Copy, Debug)]
enum Stage {
    /// Not TCP or UDP over IPv4 to us, or refused by the parser: the slow way.
    Other,
    /// Keyed, bucket asked for.
    Keyed,
    /// A record whose tag fits, line asked for.
    Candidate(u32),
    /// Its session.
    Known(u32, Direction),
}

impl SlotRunner {
    /// Takes every packet of `rx[0..count]` to its one verdict.
    pub(crate) fn burst<I: Io>(&mut self, io: &mut I, count: usize, origin: Origin) {
        let count = count.min(RX_BURST);
        let mut stages = [Stage::Other; RX_BURST];
        let mut flights = [Flight { packet: V4::default(), key: Key { a: 0, b: 0 }, hash: 0 }; RX_BURST];
        let mut bytes = 0;

        for place in 0..count {
            io.prefetch(place);
        }
        for (place, (stage, flight)) in stages.iter_mut().zip(&mut flights).enumerate().take(count) {
            let Some(frame) = io.frame(place) else { continue };
            bytes += frame.len() as u64;
            if ethernet::dst(frame) != Some(self.port.mac) {
                continue;
            }
            if let Ok(Parsed::L4(packet)) = packet::classify(frame)
                && packet.vlan == self.port.vlan
            {
                let key = Key::new(packet.src, packet.sport, packet.dst, packet.dport, packet.proto);
                let hash = self.sessions.hash(key);
                self.sessions.prefetch_bucket(hash);
                *flight = Flight { packet, key, hash };
                *stage = Stage::Keyed;
            }
        }
        self.counts.add(Flow::RxBytes, if origin == Origin::Port { bytes } else { 0 });
        for (stage, flight) in stages.iter_mut().zip(&flights).take(count) {
            if matches!(stage, Stage::Keyed)
                && let Some(record) = self.sessions.candidate(flight.hash)
            {
                self.sessions.prefetch_session(record);
                *stage = Stage::Candidate(record);
            }
        }
        for (stage, flight) in stages.iter_mut().zip(&flights).take(count) {
            if let Stage::Candidate(record) = *stage
                && let Some((record, direction)) = self.sessions.resolve(record, flight.key, flight.hash)
            {
                let server = self.sessions.row(record).map_or(0, |row| row.server_id.load(Relaxed));
                arch::prefetch_at(&self.slot.servers, server as usize);
                *stage = Stage::Known(record, direction);
            }
        }
        for (place, (stage, flight)) in stages.iter().zip(&flights).enumerate().take(count) {
            match *stage {
                Stage::Known(record, direction) => self.established(io, place, flight, record, direction),
                Stage::Keyed | Stage::Candidate(_) => self.unknown(io, place, flight, origin),
                Stage::Other => self.other(io, place),
            }
        }
    }
}
