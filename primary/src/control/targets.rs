//! The targets half of the health board: who is to be probed, and how.

use std::path::Path;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::{Acquire, Relaxed};

use config::{Health as Checks, HealthKind, RealServer, Service};
use datapath::Health;
use shm_layout::SegmentError;
use shm_layout::board::{Board, LastKnown, ProfileRow, TEXT_BYTES, TargetRow, check};
use shm_layout::neighbours::from_std;
use shm_layout::published::store_name;
use shm_layout::seqlock;

use super::register::{Difference, Register, Removal};
use crate::failpoint::{PUBLISH, step};

/// The writer of targets.
#[derive(Debug)]
pub struct Targets {
    board: Board,
    known: LastKnown,
    /// The epoch of the results that were looked at last.
    looked: Option<u64>,
}

impl Targets {
    /// Makes the board, or attaches to it; group of `run_dir`, mode 0660: the health-checker is another user there.
    ///
    /// # Errors
    /// Shared memory cannot be had.
    pub fn open(name: &str, run_dir: &Path, servers: u64, services: u64) -> Result<Self, SegmentError> {
        let board = Board::create(name, servers, services)?;
        if let Err(error) = share(&Board::path(name), run_dir) {
            log::warn!("health board {name} stays ours alone: {error}; the health-checker must run as the same user");
        }
        Ok(Self { known: LastKnown::new(board.cells.len()), looked: None, board })
    }

    /// On a board of the test's own.
    #[cfg(test)]
    pub fn on(board: Board) -> Self {
        Self { known: LastKnown::new(board.cells.len()), looked: None, board }
    }

    /// The board, for reading.
    #[must_use]
    pub fn board(&self) -> &Board {
        &self.board
    }

    /// What is shown of health: the board, or what it said before something scribbled on it.
    #[must_use]
    pub fn health(&self) -> Health<'_> {
        Health { board: &self.board, known: &self.known }
    }

    /// Remembers what the board says, if it says anything new.
    pub fn look(&mut self, register: &Register) {
        // Acquire: with the results that this epoch was raised for.
        let epoch = Some(self.board.head.epoch.load(Acquire));
        if std::mem::replace(&mut self.looked, epoch) == epoch {
            return;
        }
        for server in register.services.iter().flat_map(|s| &s.servers) {
            self.known.look(&self.board, server.id, server.tag);
        }
    }

    /// The targets are those of `generation` as well.
    pub fn stay(&self, generation: u64) {
        self.board.head.generation.store(generation, Relaxed); // Relaxed: a number that is shown.
    }

    /// Writes the targets of a generation. Readers see an odd sequence meanwhile, and take all of them or none.
    pub fn write(&self, register: &Register, generation: u64) {
        let head = &self.board.head;
        let odd = seqlock::begin(&head.targets_sequence);
        step(PUBLISH);
        let mut rows = self.board.targets.iter();
        let mut count = 0_u64;
        for entry in register.services.iter().filter(|s| !s.removed) {
            let Some(kind) = kind(entry.service.health.kind) else { continue };
            if let Some(row) = self.board.profiles.get(entry.index as usize) {
                store_profile(row, &entry.service);
            }
            for server in entry.servers.iter().filter(|s| s.removal == Removal::Present) {
                let Some(row) = rows.next() else { break };
                row.id.store(server.id, Relaxed); // Relaxed, here and below: ordered by the sequence.
                row.tag.store(server.tag, Relaxed);
                row.profile.store(entry.index, Relaxed);
                row.kind.store(kind, Relaxed);
                store_target(row, &server.rs, &entry.service.health);
                count += 1;
            }
        }
        step(PUBLISH);
        head.targets.store(count, Relaxed);
        head.generation.store(generation, Relaxed);
        seqlock::end(&head.targets_sequence, odd);
    }
}

/// Is there anything in the difference that targets are made of? (Not in weights and admin states.)
#[must_use]
pub fn concerned(difference: &Difference<'_>) -> bool {
    difference.in_part(|s| {
        let servers: Vec<_> = s.present().map(|s| (s.id, s.tag, s.rs.address)).collect();
        (s.index, s.service.name.clone(), s.service.health.clone(), servers)
    })
}

/// Gives `path` to the group of `run_dir`.
pub fn share(path: &Path, run_dir: &Path) -> std::io::Result<()> {
    use std::os::unix::fs::{MetadataExt, PermissionsExt};
    let group = std::fs::metadata(run_dir)?.gid();
    // Mostly it is ours, and then the call may be forbidden (the unit's filter).
    if std::fs::metadata(path)?.gid() != group {
        std::os::unix::fs::chown(path, None, Some(group))?;
    }
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o660))
}

/// Kinds of check this version makes; others were refused by validation.
const fn kind(kind: HealthKind) -> Option<u32> {
    match kind {
        HealthKind::Tcp => Some(check::TCP),
        HealthKind::Http => Some(check::HTTP),
        _ => None,
    }
}

fn store_target(row: &TargetRow, rs: &RealServer, health: &Checks) {
    let ip = from_std(rs.address.ip());
    row.ip[0].store(ip[0], Relaxed);
    row.ip[1].store(ip[1], Relaxed);
    row.port.store(health.port.unwrap_or(rs.address.port()).into(), Relaxed);
    row.interval_ms.store(health.interval.get(), Relaxed);
    row.fast_interval_ms.store(health.fast_interval.get(), Relaxed);
    row.timeout_ms.store(health.timeout.get(), Relaxed);
    row.rise_fall.store(u32::from(health.rise) << 16 | u32::from(health.fall), Relaxed);
}

fn store_profile(row: &ProfileRow, service: &Service) {
    let health = &service.health;
    let expect = match health.kind {
        HealthKind::Http => Some(health.expect.as_deref().unwrap_or("200-399")),
        _ => health.expect.as_deref(),
    };
    store_name(&row.service, service.name.as_str());
    store_text(&row.path, health.path.as_deref().unwrap_or(if health.kind == HealthKind::Http { "/" } else { "" }));
    store_text(&row.host, health.host.as_deref().unwrap_or(""));
    store_text(&row.expect, expect.unwrap_or(""));
    store_text(&row.send, health.send.as_deref().unwrap_or(""));
}

/// Stores a text, cut at [`TEXT_BYTES`]; validation refuses longer ones.
fn store_text(to: &[AtomicU64], text: &str) {
    let mut bytes = [0; TEXT_BYTES];
    let len = text.len().min(TEXT_BYTES);
    bytes[..len].copy_from_slice(&text.as_bytes()[..len]);
    for (word, chunk) in to.iter().zip(bytes.chunks_exact(8)) {
        let mut value = [0; 8];
        value.copy_from_slice(chunk);
        word.store(u64::from_le_bytes(value), Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::super::register::{EndNow, tests::Fake};
    use super::*;

    #[test]
    fn checked_servers_become_targets_with_their_profile() {
        let config = crate::control::testing::config();
        let register = Register::default().next(&config, None, &EndNow::default(), &Fake::default()).unwrap();
        let targets = Targets::on(Board::anonymous(64, 16).unwrap());
        targets.write(&register, 3);
        let concerns = |change: &dyn Fn(&mut config::Config)| {
            let mut config = config.clone();
            change(&mut config);
            let next = register.next(&config, None, &EndNow::default(), &Fake::default()).unwrap();
            concerned(&register.difference(&next))
        };
        assert!(!concerns(&|_| ()));
        assert!(
            !concerns(&|c| c.services[0].rs[0].weight = 9)
                && !concerns(&|c| c.services[0].scheduler = config::Scheduler::Lc)
        );
        assert!(concerns(&|c| c.services[0].rs.truncate(1)) && concerns(&|c| c.services[0].health.rise = 9));
        assert!(concerns(&|c| c.services.truncate(1)) && concerns(&|c| c.services[1].health.kind = HealthKind::Tcp));
        let board = targets.board();
        let words = [&board.head.targets_sequence, &board.head.targets, &board.head.generation];
        assert_eq!(words.map(|w| w.load(Relaxed)), [2, 2, 3]);
        let row = &board.targets[1];
        assert_eq!((row.id.load(Relaxed), row.tag.load(Relaxed), row.kind.load(Relaxed)), (1, 2, check::HTTP));
        assert_eq!((row.interval_ms.load(Relaxed), row.rise_fall.load(Relaxed)), (500, 2 << 16 | 3));
        assert_eq!((row.port.load(Relaxed), row.ip[1].load(Relaxed)), (8080, 0xffff_0a00_0016));
        let profile = &board.profiles[row.profile.load(Relaxed) as usize];
        let text: Vec<u8> = profile.path.iter().flat_map(|w| w.load(Relaxed).to_le_bytes()).collect();
        assert!(text.starts_with(b"/up\0"));
    }
}
