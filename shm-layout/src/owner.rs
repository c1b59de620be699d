//! Whose a slot is, and how it changes hands.
//!
//! **One word decides**: [`OwnerRow::owner`] names the process that may write the slot, 0 nobody. It is taken by
//! compare-and-swap from exactly the word that was looked at: 0 (let go in order) or a process whose death is confirmed.
//! So of several that want it one gets it, with or without anybody to arbitrate.
//!
//! Hand-over: the heir names itself and sets [`hand::OFFERED`]; the owner ends its burst, clears the word, sets
//! [`hand::RELEASED`] and wakes the heir, which takes the word. Nobody spins: heir and owner may share a CPU.

use crate::failpoint::{self, Op};
use crate::header::layout_version;
use crate::row;
use crate::sync::{AtomicU32, AtomicU64, Ordering};

/// A process, told from a later one of the same number: `pid << 32 | low half of its start time` (clock ticks since
/// boot, field 22 of `/proc/PID/stat`; repeats after 497 days).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Process(u64);

impl Process {
    /// No process.
    pub const NOBODY: Self = Self(0);

    /// The process `pid` that started at `start`.
    #[must_use]
    pub const fn new(pid: u32, start: u64) -> Self {
        Self((pid as u64) << 32 | start & 0xffff_ffff)
    }

    /// A living process; `None`: there is none of that number.
    #[must_use]
    pub fn living(pid: u32) -> Option<Self> {
        process_start(pid).map(|start| Self::new(pid, start))
    }

    /// This process.
    #[must_use]
    pub fn this() -> Self {
        Self::living(std::process::id()).expect("a process reads its own /proc entry")
    }

    /// As it stands in a row.
    #[must_use]
    pub const fn from_word(word: u64) -> Self {
        Self(word)
    }

    /// As it stands in a row.
    #[must_use]
    pub const fn word(self) -> u64 {
        self.0
    }

    /// Its number; 0: nobody.
    #[must_use]
    pub const fn pid(self) -> u32 {
        (self.0 >> 32) as u32
    }

    /// Does it still run, by `/proc`? Good enough to strike a reader off; who wants its place asks the kernel for its
    /// confirmed death (pidfd), which is when its last thread is gone.
    #[must_use]
    pub fn runs(self) -> bool {
        // What cannot be read (out of descriptors, say) is no death.
        self.pid() != 0
            && read_start(self.pid()).is_none_or(|start| start.map(|s| Self::new(self.pid(), s)) == Some(self))
    }
}

/// Start time of a process that is neither gone nor a zombie: field 22 of `/proc/PID/stat` (proc(5)), clock ticks since
/// boot.
#[must_use]
pub fn process_start(pid: u32) -> Option<u64> {
    read_start(pid)?
}

/// As [`process_start`]; the outer `None`: it could not be read.
fn read_start(pid: u32) -> Option<Option<u64>> {
    match std::fs::read_to_string(format!("/proc/{pid}/stat")) {
        Ok(stat) => Some(start_of(&stat)),
        // Not there, or it went between open and read (ESRCH).
        Err(error) if error.kind() == std::io::ErrorKind::NotFound || error.raw_os_error() == Some(3) => Some(None),
        Err(_) => None,
    }
}

fn start_of(stat: &str) -> Option<u64> {
    // The name in field 2 may hold blanks and parentheses: count from the last one.
    let mut fields = stat.rsplit_once(')')?.1.split_ascii_whitespace();
    let state = fields.next()?;
    if matches!(state, "Z" | "X") {
        return None;
    }
    fields.nth(18)?.parse().ok()
}

/// Deaths whose times are kept.
pub const DEATHS_KEPT: usize = 3;

/// Whose the slot is.
///
/// Shape: two lines. Writer: whoever owns the slot; `owner` by compare-and-swap, `heir` and `hand` also by who wants it,
/// `deaths` by who takes it after a death. Readers: all.
#[repr(C, align(64))]
#[derive(Debug, Default)]
pub struct OwnerRow {
    /// The [`Process`] that may write the slot; 0: nobody.
    pub owner: AtomicU64,
    /// The [`Process`] that stands by: before the hand-over the one that asks, during its trial the one it relieved.
    pub heir: AtomicU64,
    /// [`hand`] states; the futex an heir sleeps on. It tells and wakes; `owner` decides.
    pub hand: AtomicU32,
    /// Zone of the owner.
    pub zone: AtomicU32,
    /// Lane of the owner: 0 = a, 1 = b.
    pub lane: AtomicU32,
    /// CPU of the owning thread.
    pub cpu: AtomicU32,
    /// Thread id of the owning thread.
    pub tid: AtomicU32,
    /// Layout version the owner was built with.
    pub layout: AtomicU32,
    /// Version text of the owner, NUL padded.
    pub version: [AtomicU64; 2],
    /// Deaths of owners so far.
    pub deaths: AtomicU64,
    /// When the last of them were found, ms of CLOCK_BOOTTIME; death `n` in place `n % 3`.
    pub death_ms: [AtomicU64; DEATHS_KEPT],
    reserved: [AtomicU64; 5],
}
row!(OwnerRow, size 128, align 64);

/// States of [`OwnerRow::hand`].
pub mod hand {
    /// Let go in order.
    pub const RELEASED: u32 = 0;
    /// Owned.
    pub const OWNED: u32 = 1;
    /// An heir asks for it: the owner ends its burst and releases.
    pub const OFFERED: u32 = 2;
}

impl OwnerRow {
    /// The owner as of now; [`Process::NOBODY`]: free.
    #[must_use]
    pub fn owner(&self) -> Process {
        // Acquire: pairs with the Release in `claim` and `release`.
        Process(self.owner.load(Ordering::Acquire))
    }

    /// Takes the slot from `before` (nobody, or a process whose death is confirmed). `false`: somebody was quicker.
    #[must_use]
    pub fn claim(&self, before: Process, by: Process) -> bool {
        // Acquire: all that the last owner wrote before it released. Release: whoever sees us sees nothing of ours yet.
        let done = self.owner.compare_exchange(before.0, by.0, Ordering::AcqRel, Ordering::Acquire).is_ok();
        if done {
            failpoint::store();
            self.hand.swap(hand::OWNED, Ordering::AcqRel); // Swapped: after whatever the last owner still says of it.
            failpoint::store();
        }
        done
    }

    /// The holder made the queues whole of one that died: the slot is the dead one's again, for its successor to settle.
    pub fn give_back_to(&self, dead: Process) {
        self.owner.store(dead.0, Ordering::Release); // Pairs with the Acquire in `claim`.
    }

    /// Tells who serves: for people and for the holder.
    pub fn sign(&self, zone: u8, lane: u8, cpu: u16, version: &str) {
        // Relaxed: true each by itself.
        self.zone.store(zone.into(), Ordering::Relaxed);
        self.lane.store(lane.into(), Ordering::Relaxed);
        self.cpu.store(cpu.into(), Ordering::Relaxed);
        self.tid.store(0, Ordering::Relaxed); // Until its thread serves it.
        self.layout.store(layout_version(), Ordering::Relaxed);
        let mut bytes = [0; 16];
        for (to, from) in bytes.iter_mut().zip(version.bytes().take(15)) {
            *to = from;
        }
        for (word, bytes) in self.version.iter().zip(bytes.as_chunks::<8>().0) {
            word.store(u64::from_le_bytes(*bytes), Ordering::Relaxed);
        }
        failpoint::store();
    }

    /// Asks the living owner for the slot. The answer is its [`release`](Self::release), or its death.
    pub fn ask(&self, heir: Process) {
        self.heir.store(heir.0, Ordering::Relaxed); // Relaxed: published by the next store.
        self.hand.store(hand::OFFERED, Ordering::Release); // Pairs with the Acquire in `asked`.
    }

    /// Takes an [`ask`](Self::ask) back: the owner keeps the slot.
    pub fn ask_no_more(&self) {
        let _ = self.hand.compare_exchange(hand::OFFERED, hand::OWNED, Ordering::AcqRel, Ordering::Relaxed);
        self.heir.store(0, Ordering::Relaxed); // Relaxed: for people.
    }

    /// Does an heir ask? Looked at once per turn.
    #[inline]
    #[must_use]
    pub fn asked(&self) -> bool {
        self.hand.load(Ordering::Acquire) == hand::OFFERED
    }

    /// Lets go: from this store on somebody else may write the slot. Wake who sleeps on `hand` afterwards.
    pub fn release(&self) {
        let _op = failpoint::enter(Op::Release);
        let told = |from| {
            let _ = self.hand.compare_exchange(from, hand::RELEASED, Ordering::AcqRel, Ordering::Relaxed);
        };
        // Nobody asked, so nobody sleeps on it: told while it is still ours, for afterwards OWNED may be another's word.
        told(hand::OWNED);
        self.owner.store(0, Ordering::Release); // Pairs with the Acquire in `claim`.
        failpoint::store();
        told(hand::OFFERED);
        failpoint::store();
    }

    /// Writes down a death found at `now_ms`. Returns whether it is the third within `within_ms`.
    pub fn note_death(&self, now_ms: u64, within_ms: u64) -> bool {
        // Relaxed: one writer, the one that has just claimed the slot.
        let deaths = self.deaths.load(Ordering::Relaxed);
        let place = |n: u64| &self.death_ms[usize::try_from(n % DEATHS_KEPT as u64).unwrap_or(0)];
        place(deaths).store(now_ms, Ordering::Relaxed);
        failpoint::store();
        self.deaths.store(deaths + 1, Ordering::Relaxed);
        failpoint::store();
        // The next place holds the oldest of the three.
        let oldest = place(deaths + 1).load(Ordering::Relaxed);
        deaths + 1 >= DEATHS_KEPT as u64 && now_ms.saturating_sub(oldest) <= within_ms
    }
}

/// Packets of which the heads are kept.
pub const AUTOPSY_PACKETS: usize = 8;
/// Bytes kept of each.
pub const AUTOPSY_BYTES: usize = 64;

/// What the last dead owner had in hand: one of these packets may be what killed it.
///
/// Shape: nine lines. Writer: who took the slot after the death, `count` last. Readers: control, lbctl. Units: bytes;
/// milliseconds of CLOCK_BOOTTIME.
#[repr(C, align(64))]
#[derive(Debug)]
pub struct AutopsyRow {
    /// The dead [`Process`].
    pub process: AtomicU64,
    /// When its death was found, ms.
    pub at_ms: AtomicU64,
    /// Packets kept; 0: nothing is known.
    pub count: AtomicU32,
    reserved: AtomicU32,
    /// Their lengths on the wire.
    pub lengths: [AtomicU32; AUTOPSY_PACKETS],
    reserved1: AtomicU64,
    /// Their first bytes, zero padded.
    pub heads: [[AtomicU64; AUTOPSY_BYTES / 8]; AUTOPSY_PACKETS],
}
row!(AutopsyRow, size 64 * (1 + AUTOPSY_PACKETS), align 64);

impl AutopsyRow {
    /// Keeps the heads of `packets`, at most [`AUTOPSY_PACKETS`] of them.
    pub fn write<'a>(&self, process: Process, at_ms: u64, packets: impl Iterator<Item = &'a [u8]>) {
        self.count.store(0, Ordering::Release); // Readers leave it alone meanwhile.
        self.process.store(process.0, Ordering::Relaxed); // Relaxed: published by the count.
        self.at_ms.store(at_ms, Ordering::Relaxed);
        let mut count = 0;
        for ((packet, head), length) in packets.zip(&self.heads).zip(&self.lengths) {
            length.store(u32::try_from(packet.len()).unwrap_or(u32::MAX), Ordering::Relaxed);
            let mut bytes = [0; AUTOPSY_BYTES];
            let kept = packet.len().min(AUTOPSY_BYTES);
            bytes[..kept].copy_from_slice(&packet[..kept]);
            for (word, bytes) in head.iter().zip(bytes.as_chunks::<8>().0) {
                word.store(u64::from_le_bytes(*bytes), Ordering::Relaxed);
            }
            count += 1;
        }
        self.count.store(count, Ordering::Release); // Pairs with the Acquire in `read`.
    }

    /// The packets kept: length on the wire and first bytes.
    #[must_use]
    pub fn read(&self) -> Vec<(u32, Vec<u8>)> {
        let count = (self.count.load(Ordering::Acquire) as usize).min(AUTOPSY_PACKETS);
        let packet = |(length, head): (&AtomicU32, &[AtomicU64; AUTOPSY_BYTES / 8])| {
            let length = length.load(Ordering::Relaxed);
            let mut bytes: Vec<u8> = head.iter().flat_map(|w| w.load(Ordering::Relaxed).to_le_bytes()).collect();
            bytes.truncate(length as usize);
            (length, bytes)
        };
        self.lengths.iter().zip(&self.heads).take(count).map(packet).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::slot::{Slot, SlotGeometry};

    fn slot() -> Slot {
        let geometry =
            SlotGeometry { slot: 0, slots: 1, sessions: 16, wide_sessions: 0, servers: 4, services: 4, extensions: 0 };
        Slot::anonymous(geometry, false).unwrap()
    }

    #[test]
    fn a_process_is_its_number_and_its_start() {
        let me = Process::this();
        assert!(me.runs() && me.pid() == std::process::id());
        assert!(!Process::from_word(me.word() ^ 1).runs(), "another one had the number before");
        assert!(!Process::NOBODY.runs());
    }

    #[test]
    fn of_two_that_claim_one_gets_it() {
        let slot = slot();
        let [a, b] = [Process::new(1, 1), Process::new(2, 2)];
        assert!(slot.owner.claim(Process::NOBODY, a) && !slot.owner.claim(Process::NOBODY, b));
        slot.owner.ask(b);
        assert!(slot.owner.asked());
        slot.owner.release();
        assert!(!slot.owner.asked() && !slot.owner.claim(a, b), "it is nobody's now");
        assert!(slot.owner.claim(Process::NOBODY, b));
    }

    #[test]
    fn the_third_death_in_time_is_told() {
        let slot = slot();
        let deaths = [1_000, 9_000, 12_000, 19_500, 21_999];
        let told: Vec<bool> = deaths.iter().map(|at| slot.owner.note_death(*at, 10_000)).collect();
        assert_eq!(told, [false, false, false, false, true]);
    }

    #[test]
    fn heads_of_packets_are_kept() {
        let slot = slot();
        let packets: Vec<Vec<u8>> = (1..=10_u8).map(|n| vec![n; usize::from(n) * 12]).collect();
        slot.autopsy.write(Process::this(), 5, packets.iter().map(Vec::as_slice));
        let kept = slot.autopsy.read();
        assert_eq!(kept.len(), AUTOPSY_PACKETS);
        assert_eq!(kept[0], (12, vec![1; 12]));
        assert_eq!(kept[7], (96, vec![8; AUTOPSY_BYTES]));
    }
}
