//! One slot, burst by burst: take updates → rx → stages → tx → counters.

use std::cell::Cell;
use std::sync::Arc;
use std::sync::atomic::Ordering::{Acquire, Relaxed};

use arch::HashKey;
use packet::plain::{Source, Station};
use packet::{Mac, V4, V6, ethernet};
use shm_layout::counters::{Counts, DropReason, Flow};
use shm_layout::failpoint::{self, Bug};
use shm_layout::limits::{RECORDS_PER_BURST, RING_FRAME_MAX, RX_BURST, TX_HELD};
use shm_layout::neighbours::{Hop, Ip, as_v4};
use shm_layout::published::{Generation, LocalRow, PortRow, directory_flag, local_flag, port_flag};
use shm_layout::ring::RecordKind;
use shm_layout::session::SessionRow;
use shm_layout::slot::Slot;

use crate::ahead::foresee_timeout;
use crate::closing::{Closing, Tables};
use crate::io::Io;
use crate::kernel::Kernel;
use crate::rate::Rate;
use crate::schedule::Schedulers;
use crate::session::{LocalPool, LocalRange, SessionReader, SessionTable};
use crate::shared::Shared;
use crate::sweep::{Order, Sweep};
use crate::waiting::{Fate, Waiting};

/// Resets and echo answers of our own a slot makes per second: enough to be a good neighbour, too few to reflect a flood.
const ANSWERS_PER_SECOND: u32 = 1000;

/// Services whose rows stay in the CPU's caches, with their servers'. Tests look ahead whatever their size.
const SMALL: u32 = if cfg!(debug_assertions) { 0 } else { 64 };

/// Facts of the slot's port, copied at the start of every generation.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PortFacts {
    pub number: u8,
    pub mac: Mac,
    pub mtu: u32,
    pub vlan: u16,
    /// What its frames are sent by.
    pub source: Source,
    /// Whom plain packets of it are sent to; nobody where its packets are tagged.
    pub station: Station,
    /// Its longest untagged frame, bytes.
    pub longest: usize,
    /// Hops it reaches.
    pub way: Hop,
}

/// A slot and everything its owner keeps beside the shared tables. Nothing in it must survive: a successor makes it anew.
#[derive(Debug)]
pub struct SlotRunner {
    pub(crate) shared: Arc<Shared>,
    pub(crate) slot: Slot,
    pub(crate) number: u32,
    pub(crate) port: PortFacts,
    pub(crate) sessions: SessionTable,
    pub(crate) schedulers: Schedulers,
    pub(crate) waiting: Waiting,
    pub(crate) closing: Closing,
    pub(crate) answers: Rate,
    /// Errors of others that are translated: whoever asks for answers must not stop path MTU discovery.
    pub(crate) errors: Rate,
    /// The port's kernel interface, if it has one.
    pub(crate) kernel: Option<Kernel>,
    pub(crate) isn_key: HashKey,
    pub(crate) generation: Option<Generation>,
    /// Its tables do not stay in the CPU's caches: what sessions begin and end by is asked for ahead (`ahead`).
    pub(crate) large: bool,
    pub(crate) counts: Counts,
    pub(crate) now_ns: u64,
    pub(crate) now_ms: u64,
    pub(crate) sweep: Sweep,
    /// Local addresses and this slot's ports, by our port number.
    pub(crate) locals: Vec<LocalPool>,
    /// The same of IPv6.
    pub(crate) locals_v6: Vec<LocalPool<Ip>>,
    /// The other slots, read-only.
    pub(crate) others: Vec<(u32, SessionReader)>,
    /// Plain packets go the straight way.
    pub(crate) straight: bool,
    /// Packets of the burst that were parsed in full, by their place; others' places hold old ones.
    pub(crate) parsed: [Cell<V4>; RX_BURST],
    /// The same of IPv6.
    pub(crate) parsed_v6: [Cell<V6>; RX_BURST],
    /// IPv4 identification of the last packet that was IPv6 before.
    pub(crate) ident: u16,
    pub(crate) scratch: Box<[u8; RING_FRAME_MAX]>,
    flushed: bool,
    /// Addresses the neighbours know of, and those they are to be told.
    pub(crate) announced: Vec<Ip>,
    pub(crate) to_announce: Vec<Ip>,
}

/// What a burst came from: decides which way it may go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Origin {
    /// The port.
    Port,
    /// Another slot: it must not be passed on again.
    Ring,
}

impl SlotRunner {
    /// Takes up the work of slot `number` at a start or after its owner's death: the caller owns it. Counters go on where
    /// the last owner's stood; what it held is lost. (Whoever gave its buffers back may have counted that already.)
    #[must_use]
    pub fn new(shared: Arc<Shared>, number: u32, now_ns: u64) -> Option<Self> {
        let waits = Waiting::anew(shared.slots.get(number as usize)?.waits.clone());
        let mut runner = Self::take_up(shared, number, now_ns, waits)?;
        let counts = &mut runner.counts;
        if !failpoint::planted(Bug::LostUncounted) {
            counts.drop_many(DropReason::LostInCrash, counts.flow(Flow::Held));
        }
        counts.set_held(0);
        Some(runner)
    }

    /// Takes up the work of slot `number` after [`hand_over`](Self::hand_over): what is held passes with it.
    #[must_use]
    pub fn resume(shared: Arc<Shared>, number: u32, now_ns: u64) -> Option<Self> {
        let waits = Waiting::resume(shared.slots.get(number as usize)?.waits.clone());
        Self::take_up(shared, number, now_ns, waits)
    }

    fn take_up(shared: Arc<Shared>, number: u32, now_ns: u64, waiting: Waiting) -> Option<Self> {
        let slot = shared.slots.get(number as usize)?.clone();
        let row = shared.published.slots.get(number as usize)?;
        let place = u8::try_from(row.port.load(Relaxed)).ok()?;
        let port = shared.published.ports.get(usize::from(place))?;
        let mac = mac_of(port);
        let mtu = port.mtu.load(Relaxed);
        let kernel = port.flags.load(Relaxed) & port_flag::KERNEL != 0;
        let kernel = kernel.then(|| Kernel::new(port.first_slot.load(Relaxed)));
        let vlan = u16::try_from(port.vlan.load(Relaxed)).ok()?;
        let port = PortFacts {
            number: place,
            mac,
            source: Source::new(mac),
            station: if vlan == 0 { Station::new(Some(mac)) } else { Station::NOBODY },
            mtu,
            longest: ethernet::HEADER + mtu as usize,
            way: Hop::any_by(place),
            vlan,
        };
        let counts = slot.counters.read()?;
        Some(Self {
            sessions: SessionTable::attach(slot.clone(), &shared.secrets),
            schedulers: Schedulers::new(&shared, number, now_ns ^ u64::from(number) << 32),
            isn_key: shared.isn_key(),
            waiting,
            closing: Closing::default(),
            answers: Rate::new(ANSWERS_PER_SECOND),
            errors: Rate::new(ANSWERS_PER_SECOND),
            kernel,
            generation: None,
            large: false,
            counts,
            now_ns,
            now_ms: now_ns / 1_000_000,
            sweep: Sweep::default(),
            locals: Vec::new(),
            locals_v6: Vec::new(),
            others: others(&shared, number),
            straight: true,
            parsed: Default::default(),
            parsed_v6: Default::default(),
            // Slots share local addresses: each begins elsewhere (RFC 6864 §4.3), also after a take-over.
            #[allow(clippy::cast_possible_truncation, reason = "16 bits of it are wanted")]
            ident: (u64::from(number) << 12 ^ now_ns) as u16,
            scratch: Box::new([0; RING_FRAME_MAX]),
            flushed: false,
            announced: Vec::new(),
            to_announce: Vec::new(),
            shared,
            slot,
            number,
            port,
        })
    }

    /// One turn of the slot. Returns the packets it handled; 0: nothing to do.
    pub fn poll<I: Io>(&mut self, io: &mut I, now_ns: u64) -> usize {
        self.now_ns = now_ns;
        self.now_ms = now_ns / 1_000_000;
        self.update();
        let mut work = io.receive();
        if work > 0 {
            self.counts.add(Flow::Rx, work as u64);
            self.burst(io, work, Origin::Port);
        }
        work += self.take_orders(io);
        work += self.take_rings(io);
        work += self.take_from_kernel(io);
        work += self.settle_waiting(io);
        work += self.announce(io);
        let ended = self.housekeeping(io);
        self.finish(io, work + ended > 0);
        work
    }

    /// Burst boundary: nothing of an earlier generation is held from here on.
    #[inline(always)]
    fn update(&mut self) {
        if self.shared.published.current() != self.generation {
            self.change_generation();
        }
    }

    #[cold]
    #[inline(never)]
    fn change_generation(&mut self) {
        if self.generation.is_none() {
            self.slot.pulse.join();
        }
        let intact = |generation: &Generation| self.shared.published.names(*generation);
        match self.shared.published.current().filter(intact) {
            // A root that names nothing any more is damaged: the last good generation stays.
            None if self.generation.is_some() => return,
            current => self.generation = current,
        }
        if let Some(generation) = self.generation {
            self.slot.pulse.see(generation.number);
            let head = &self.shared.published.directory(generation).head;
            let flags = head.flags.load(Relaxed);
            self.large = head.services.load(Relaxed) > SMALL;
            if flags & directory_flag::SWEEP != 0 {
                self.sweep.want_disabled(&mut self.sessions);
            }
            self.locals = local_pools(&self.shared, generation, self.number, as_v4);
            self.locals_v6 = local_pools(&self.shared, generation, self.number, as_v6);
            self.plan_announcements(generation);
        }
    }

    /// Frames other slots pass on: at most a burst of each, and no more than there is room to send. The rest waits in its
    /// ring, where nothing is lost.
    fn take_rings<I: Io>(&mut self, io: &mut I) -> usize {
        let mut work = 0;
        for from in 0..self.slot.inbound.len() {
            if self.slot.inbound[from].is_empty() {
                continue;
            }
            let mut count = 0;
            let room = TX_HELD.saturating_sub(io.queued()).min(RX_BURST);
            for _ in 0..room {
                let Some((kind, _, len)) = self.slot.inbound[from].pop(&mut self.scratch) else { break };
                self.counts.add(Flow::FromRing, 1);
                work += 1;
                let frame = &self.scratch[..len];
                match kind {
                    RecordKind::Redirect if io.inject(count, frame) => count += 1,
                    RecordKind::Send if io.originate(frame) => {}
                    RecordKind::Redirect | RecordKind::Send => self.counts.drop(DropReason::NoBuffer),
                    _ => self.counts.drop(DropReason::BadRecord),
                }
            }
            self.burst(io, count, Origin::Ring);
        }
        work
    }

    /// What control sends and orders, whatever the other rings carry.
    fn take_orders<I: Io>(&mut self, io: &mut I) -> usize {
        let mut work = 0;
        while work < RX_BURST && io.queued() < TX_HELD && !self.slot.from_control.is_empty() {
            let Some((kind, args, len)) = self.slot.from_control.pop(&mut self.scratch) else { break };
            work += 1;
            match kind {
                RecordKind::Send => self.originate_from_scratch(io, len),
                RecordKind::Kill => self.sweep.want_kill(Order::of(args, &self.scratch[..len]), &mut self.sessions),
                _ => {}
            }
        }
        work
    }

    pub(crate) fn originate_from_scratch<I: Io>(&mut self, io: &mut I, len: usize) {
        self.counts.add(Flow::Originated, 1);
        if !io.originate(&self.scratch[..len]) {
            self.counts.drop(DropReason::NoBuffer);
        }
    }

    /// Packets whose neighbour has answered, or never did.
    fn settle_waiting<I: Io>(&mut self, io: &mut I) -> usize {
        let epoch = self.shared.neighbours.head.epoch.load(Acquire); // Pairs with control's Release after the row.
        if !self.waiting.due(epoch, self.now_ms) {
            return 0;
        }
        let mut settled = 0;
        let mut from = 0;
        while let Some((at, fate)) = self.waiting.settle(from, &self.shared.neighbours, self.now_ms) {
            from = at + 1;
            settled += 1;
            match fate {
                Fate::Go(hop) => {
                    if let Some(frame) = io.parked(at) {
                        ethernet::set_addresses(frame, Mac(hop.mac()), self.port.mac);
                    }
                    if !io.unpark(at) {
                        io.discard_parked(at);
                        self.counts.drop(DropReason::TxFull);
                    }
                }
                Fate::GiveUp => {
                    io.discard_parked(at);
                    self.counts.drop(DropReason::NoNeighbour);
                }
            }
        }
        settled
    }

    /// Bounded work that no packet asked for: expiry, early release of closed sessions, sweeps.
    /// Returns the sessions that ended.
    fn housekeeping<I: Io>(&mut self, io: &mut I) -> usize {
        let Some(generation) = self.generation else { return 0 };
        let published = &self.shared.published;
        let timeout = |row: &SessionRow| crate::timeout::of(published, generation, row);
        let foresee = |row: &SessionRow, step| foresee_timeout(published, generation, row, step);
        let (large, sessions) = (self.large, &mut self.sessions);
        let mut ended = if large {
            sessions.expire_ahead(self.now_ms, RECORDS_PER_BURST, timeout, foresee, |_, _| ())
        } else {
            sessions.expire(self.now_ms, RECORDS_PER_BURST, timeout, |_, _| ())
        };
        if !self.closing.is_empty() {
            ended += self.closing.run(&mut self.sessions, self.now_ms, Tables { published, generation, large });
        }
        if self.sessions.sweeping() {
            ended += self.sweep_on(io, generation);
        }
        self.counts.add(Flow::Ended, ended as u64);
        ended
    }

    /// Sends, then makes the burst's counts the valid ones.
    pub(crate) fn finish<I: Io>(&mut self, io: &mut I, worked: bool) {
        let queued = io.queued();
        if queued > 0 {
            let flushed = io.flush();
            self.counts.add(Flow::Tx, flushed.sent as u64);
            self.counts.add(Flow::TxBytes, flushed.bytes);
            self.counts.drop_many(DropReason::TxFull, flushed.dropped as u64);
        }
        // An idle poll changes nothing: no flip, no stores.
        if worked || queued > 0 || !self.flushed {
            self.counts.set_held((io.queued() + self.waiting.count()) as u64);
            self.slot.counters.flip(&self.counts);
            self.flushed = true;
        }
    }

    /// Ends the last burst and keeps what is held for the successor: called once before the owner releases the slot to it.
    pub fn hand_over<I: Io>(&mut self, io: &mut I) {
        self.finish(io, true);
        self.leave_generation();
    }

    fn leave_generation(&mut self) {
        self.generation = None;
        self.slot.pulse.leave();
    }

    /// Drops everything that is held and lets go: called once before the owner releases the slot to nobody.
    pub fn release<I: Io>(&mut self, io: &mut I) {
        // Of what the port refuses, every second flush gives up one.
        for _ in 0..=2 * TX_HELD {
            if io.queued() == 0 {
                break;
            }
            self.finish(io, true);
        }
        let mut from = 0;
        while let Some((at, _)) = self.waiting.settle(from, &self.shared.neighbours, u64::MAX) {
            from = at + 1;
            io.discard_parked(at);
            self.counts.drop(DropReason::NoNeighbour);
        }
        self.finish(io, true);
        self.leave_generation();
    }

    /// The slot that sends by `port` for this one, which has no queue of it.
    pub(crate) fn sender_of(&self, port: &PortRow) -> u32 {
        port.first_slot.load(Relaxed) + self.number % port.slots.load(Relaxed).max(1)
    }

    /// Counts as of the last burst.
    #[must_use]
    pub fn counts(&self) -> &Counts {
        &self.counts
    }

    /// Lets all packets go the general way: for tests that compare the two.
    pub fn go_general(&mut self) {
        self.straight = false;
    }

    /// The session table, to be filled by tools and benchmarks.
    pub fn sessions_mut(&mut self) -> &mut SessionTable {
        &mut self.sessions
    }

    /// The session table, for tools and tests.
    #[must_use]
    pub fn sessions(&self) -> &SessionTable {
        &self.sessions
    }
}

/// The MAC of a published port.
pub(crate) fn mac_of(port: &PortRow) -> Mac {
    let [a, b, c, d, e, f, ..] = port.mac.load(Relaxed).to_le_bytes();
    Mac([a, b, c, d, e, f])
}

/// Views of all slots but `own`.
fn others(shared: &Shared, own: u32) -> Vec<(u32, SessionReader)> {
    let slots = (0..).zip(&shared.slots).filter(|(number, _)| *number != own);
    slots.map(|(number, slot)| (number, SessionReader::new(slot.clone(), shared.hash_key()))).collect()
}

const fn as_v6(ip: Ip) -> Option<Ip> {
    if as_v4(ip).is_some() { None } else { Some(ip) }
}

/// The local addresses of a generation and a family that new sessions may use, by our port number.
fn local_pools<A: Copy>(
    shared: &Shared,
    generation: Generation,
    slot: u32,
    family: fn(Ip) -> Option<A>,
) -> Vec<LocalPool<A>> {
    let directory = shared.published.directory(generation);
    let rows = directory.locals.iter().take(directory.head.locals.load(Relaxed) as usize);
    let usable: Vec<_> = rows.filter(|row| row.flags.load(Relaxed) & local_flag::REMOVED == 0).collect();
    let pool = |port: u32| {
        let own = usable.iter().filter(|row| row.port.load(Relaxed) == port);
        let range = |row: &&LocalRow| {
            let ip = family([row.ip[0].load(Relaxed), row.ip[1].load(Relaxed)])?;
            Some(LocalRange { ip, low: row.low.load(Relaxed), high: row.high.load(Relaxed) })
        };
        let ranges: Vec<_> = own.filter_map(range).collect();
        LocalPool::new(&ranges, slot, shared.slot_count())
    };
    (0..).take(shared.published.ports.len()).map(pool).collect()
}
