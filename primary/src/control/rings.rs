//! The thread between control and the slots: takes frames and requests from their rings, sends questions and orders.
//!
//! One thread is the only consumer of every `to_control` and the only producer of every `from_control` ring; nothing a
//! client of the admin socket asks for delays it.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::thread::JoinHandle;
use std::time::Duration;

use packet::ipv6;
use shm_layout::clock::now_ms;
use shm_layout::limits::RING_FRAME_MAX;
use shm_layout::neighbours::{Ip, ip4};
use shm_layout::ring::{Args, RecordKind};
use shm_layout::session::flag;
use shm_layout::slot::Slot;

use super::neighbour::{Neighbourhood, Question};
use super::pass::Pass;

/// A worker whose last loop is older takes no questions: they would only wait in its ring.
const ALIVE_MS: u64 = 1000;
/// Records taken from one ring before the others have their turn.
const RECORDS: usize = 64;

/// Sessions looked at in one turn for the neighbours they use.
const SESSIONS: usize = 8192;
/// Pause between two passes over the sessions, ms.
const PASS_MS: u64 = 5000;

/// What the rest of control wants of the rings.
#[derive(Debug)]
pub enum Order {
    /// Configured neighbours, and the longest session timeout in ms.
    Pin(HashSet<(Ip, u8)>, u64),
    /// End sessions: see [`RecordKind::Kill`], with the addresses behind it if they are IPv6.
    Kill(Args, Option<[u8; 32]>),
}

/// Which slots a port has, and their rings.
#[derive(Debug, Clone)]
pub struct SlotRings {
    /// Port of the slot.
    pub port: u8,
    /// The slot.
    pub slot: Slot,
}

/// The running thread; dropped, it ends.
#[derive(Debug)]
pub struct Rings {
    orders: Option<SyncSender<Order>>,
    thread: Option<JoinHandle<()>>,
    stop: Arc<AtomicBool>,
}

impl Rings {
    /// Starts the thread.
    ///
    /// # Errors
    /// The kernel gives no thread.
    pub fn start(slots: Vec<SlotRings>, mut neighbours: Neighbourhood) -> std::io::Result<Self> {
        let (orders, inbox) = sync_channel(64);
        let stop = Arc::new(AtomicBool::new(false));
        neighbours.sessions_are_looked_through();
        let tables = slots.iter().map(|entry| entry.slot.clone()).collect();
        let look = Look { tables, pass: Pass::default(), began_ms: now_ms() };
        let mut worker = Turn { slots, neighbours, look, buffer: Box::new([0; RING_FRAME_MAX]) };
        let stopped = Arc::clone(&stop);
        let thread = std::thread::Builder::new().name("rings".into()).spawn(move || worker.run(&inbox, &stopped))?;
        Ok(Self { orders: Some(orders), thread: Some(thread), stop })
    }

    /// Gives an order; `false`: the thread is behind with 64 of them.
    pub fn order(&self, order: Order) -> bool {
        match self.orders.as_ref().map(|orders| orders.try_send(order)) {
            Some(Ok(())) => true,
            Some(Err(TrySendError::Full(_) | TrySendError::Disconnected(_))) | None => false,
        }
    }

    /// Does the thread still run?
    #[must_use]
    pub fn alive(&self) -> bool {
        self.thread.as_ref().is_some_and(|t| !t.is_finished())
    }
}

impl Drop for Rings {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed); // Relaxed: a flag, nothing is published by it.
        self.orders = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// The pass over the sessions that finds which neighbours are in use.
struct Look {
    tables: Vec<Slot>,
    pass: Pass,
    began_ms: u64,
}

impl Look {
    fn go_on(&mut self, neighbours: &mut Neighbourhood, now: u64) {
        if self.began_ms > now {
            return; // The next one is not due.
        }
        let tables = &self.tables;
        let done = self.pass.go_on(tables, SESSIONS, |slot, record| {
            let Some(row) = tables[slot].sessions.get(record as usize) else { return };
            // Relaxed: a session that begins or ends this moment is seen right by the next pass, which is soon enough.
            let r = Ordering::Relaxed;
            if row.flags.load(r) & flag::INDEXED != 0 {
                neighbours.in_use(row.hop[0].load(r), row.hop_tag[0].load(r), now);
                neighbours.in_use(row.hop[1].load(r), row.hop_tag[1].load(r), now);
            }
        });
        if done {
            neighbours.pass_done(self.began_ms);
            (self.pass, self.began_ms) = (Pass::default(), now + PASS_MS);
        }
    }
}

struct Turn {
    slots: Vec<SlotRings>,
    neighbours: Neighbourhood,
    look: Look,
    buffer: Box<[u8; RING_FRAME_MAX]>,
}

impl Turn {
    fn run(&mut self, inbox: &Receiver<Order>, stop: &AtomicBool) {
        while !stop.load(Ordering::Relaxed) {
            let now = now_ms();
            self.take(now);
            self.look.go_on(&mut self.neighbours, now);
            let slots = &self.slots;
            self.neighbours.step(now, |question| send(slots, question, now));
            let pause = Duration::from_millis(if self.neighbours.waiting() { 2 } else { 15 });
            match inbox.recv_timeout(pause) {
                Ok(Order::Pin(wanted, keep_ms)) => self.neighbours.pin(&wanted, keep_ms, now_ms()),
                Ok(Order::Kill(args, addresses)) => {
                    let addresses = addresses.as_ref().map_or(&[][..], |bytes| bytes);
                    for entry in &self.slots {
                        if !entry.slot.from_control.push(RecordKind::Kill, args, addresses) {
                            log::warn!("slot {}: ring full, order lost", entry.slot.geometry.slot);
                        }
                    }
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
        }
    }

    fn take(&mut self, now: u64) {
        for entry in &self.slots {
            for _ in 0..RECORDS {
                match entry.slot.to_control.pop(&mut self.buffer) {
                    Some((RecordKind::Learn, _, len)) => self.neighbours.heard(entry.port, &self.buffer[..len], now),
                    Some((RecordKind::Resolve, args, len)) => {
                        let wide = self.buffer[..len].first_chunk::<16>();
                        let ip = wide.map_or(ip4(args[0]), |bytes| ipv6::from_bytes(*bytes));
                        if let Ok(port) = u8::try_from(args[1]) {
                            self.neighbours.requested(ip, port, now);
                        }
                    }
                    Some(_) => {} // Not for control: a worker of another version.
                    None => break,
                }
            }
        }
    }
}

/// Hands a question to that slot of its port whose worker was last seen; `false`: none lives.
fn send(slots: &[SlotRings], question: &Question, now: u64) -> bool {
    let beat = |s: &&SlotRings| s.slot.pulse.heartbeat_ms.load(Ordering::Relaxed); // Relaxed: one word.
    let of_port = slots.iter().filter(|s| s.port == question.port);
    let freshest = of_port.max_by_key(beat).filter(|s| beat(s) + ALIVE_MS >= now);
    freshest.is_some_and(|s| s.slot.from_control.push(RecordKind::Send, [0; 5], &question.frame))
}
