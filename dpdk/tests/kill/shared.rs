//! The file both sides map: the ledgers of two slots, and counters.

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

pub const SLOTS: usize = 2;
pub const RX: usize = 32;
pub const TX: usize = 64;
pub const SCRATCH: usize = 256;
const SLOT_WORDS: usize = RX + TX + SCRATCH;

pub const IFACE: &str = "lbkill0";
pub const DEVICE: &str = "net_tap0";
pub const PREFIX: &str = "lbkill";

/// Own tmpfs and hugetlbfs, over /mnt of a private mount namespace.
pub const DIR: &str = "/mnt";

pub struct Shared {
    map: memmap2::MmapRaw,
}

impl Shared {
    pub fn open() -> Self {
        let path = Path::new(DIR).join("ledger");
        let file = std::fs::OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path).unwrap();
        file.set_len(8192).unwrap();
        Shared { map: memmap2::MmapRaw::map_raw(&file).unwrap() }
    }

    fn words(&self) -> &[AtomicU64] {
        // SAFETY: a page-aligned shared mapping of 8192 bytes that lives as long as self; only atomics touch it.
        unsafe { std::slice::from_raw_parts(self.map.as_mut_ptr().cast(), 1024) }
    }

    pub fn slot(&self, slot: usize) -> &[AtomicU64] {
        &self.words()[slot * SLOT_WORDS..][..SLOT_WORDS]
    }

    pub fn rx(&self, slot: usize) -> &[AtomicU64] {
        &self.slot(slot)[..RX]
    }

    pub fn tx(&self, slot: usize) -> &[AtomicU64] {
        &self.slot(slot)[RX..][..TX]
    }

    pub fn scratch(&self, slot: usize) -> &[AtomicU64] {
        &self.slot(slot)[RX + TX..]
    }

    /// Packets received by the slot's workers.
    pub fn received(&self, slot: usize) -> &AtomicU64 {
        &self.words()[SLOTS * SLOT_WORDS + slot]
    }

    pub fn addresses(&self, slot: usize) -> Vec<u64> {
        self.slot(slot).iter().map(|w| w.load(Ordering::Acquire)).collect()
    }

    pub fn clear(&self, slot: usize) {
        self.slot(slot).iter().for_each(|w| w.store(0, Ordering::Release));
    }
}

pub fn pool_name(slot: usize) -> String {
    format!("slot{slot}")
}
