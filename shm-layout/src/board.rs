//! The health board: targets (control writes) and results (health-checker writes), in POSIX shared memory.
//!
//! A result is one 8-byte word {tag, state, age}: readers need no lock and never see half of one. A word whose tag is not
//! the server's reads as "unknown", so a late result for a replaced server changes nothing.

use std::path::PathBuf;
use std::sync::Arc;

use crate::error::SegmentError;
use crate::header::{self, Kind, PARAMS};
use crate::published::Name;
use crate::row;
use crate::segment::{Cursor, Mapping, One, Rows};
use crate::sync::{AtomicU32, AtomicU64, Ordering};

/// Bytes of a text in a check profile.
pub const TEXT_BYTES: usize = 120;

/// Shape: two lines. Writers: control (first line), health-checker (second). Readers: all. Units: ms of CLOCK_BOOTTIME.
#[repr(C, align(64))]
#[derive(Debug, Default)]
pub struct BoardHead {
    /// Odd while control writes targets; raised by 2 per change.
    pub targets_sequence: AtomicU64,
    /// Targets in use (rows 0..n).
    pub targets: AtomicU64,
    /// Generation the targets belong to.
    pub generation: AtomicU64,
    reserved0: [AtomicU64; 5],
    /// Raised after every change of a result: slots look again.
    pub epoch: AtomicU64,
    /// Health-checker's heartbeat, ms.
    pub heartbeat_ms: AtomicU64,
    /// Health-checker's pid.
    pub pid: AtomicU64,
    /// Target sequence the health-checker works with.
    pub seen_sequence: AtomicU64,
    reserved1: [AtomicU64; 4],
}
row!(BoardHead, size 128, align 64, epoch @ 64);

/// Kinds of check, [`TargetRow::kind`].
pub mod check {
    /// Not checked.
    pub const NONE: u32 = 0;
    /// TCP connect.
    pub const TCP: u32 = 1;
    /// HTTP GET.
    pub const HTTP: u32 = 2;
}

/// A server to probe.
///
/// Shape: one line. Writer: control, under `targets_sequence`. Reader: health-checker. Units: ms.
#[repr(C, align(64))]
#[derive(Debug, Default)]
pub struct TargetRow {
    /// Server id: row of the result.
    pub id: AtomicU32,
    /// Tag of the id's present use.
    pub tag: AtomicU32,
    /// Address to probe.
    pub ip: [AtomicU64; 2],
    /// Port to probe.
    pub port: AtomicU32,
    /// [`check`].
    pub kind: AtomicU32,
    /// Time between probes.
    pub interval_ms: AtomicU32,
    /// Time between probes while the state is in doubt; 0: `interval_ms`.
    pub fast_interval_ms: AtomicU32,
    /// A probe without result by then has failed.
    pub timeout_ms: AtomicU32,
    /// Successes that make a server up, `rise << 16 | fall`.
    pub rise_fall: AtomicU32,
    /// Row of the profile with path, host, expect.
    pub profile: AtomicU32,
    reserved: AtomicU32,
}
row!(TargetRow, size 64, align 64);

/// A text, NUL padded.
pub type Text = [AtomicU64; TEXT_BYTES / 8];

/// What a service's checks say.
///
/// Shape: eight lines. Writer: control, under `targets_sequence`. Reader: health-checker.
#[repr(C, align(64))]
#[derive(Debug, Default)]
pub struct ProfileRow {
    /// Service name, for the log.
    pub service: Name,
    /// HTTP path.
    pub path: Text,
    /// HTTP Host.
    pub host: Text,
    /// Expected in the answer: a status ("200", "200-399") or a text.
    pub expect: Text,
    /// Sent (UDP).
    pub send: Text,
}
row!(ProfileRow, size 512, align 64);

/// State of a server as probed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Probed {
    /// No result yet: eligible.
    Unknown = 0,
    /// Up.
    Up = 1,
    /// Down.
    Down = 2,
}

/// A result word: bits 0–7 state, 8–31 tag (low 24 bits), 32–63 time of the last change in units of 100 ms of
/// CLOCK_BOOTTIME.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cell(pub u64);

impl Cell {
    /// A result.
    #[must_use]
    pub const fn new(state: Probed, tag: u32, changed_ms: u64) -> Self {
        Self(state as u64 | (tag as u64 & 0xff_ffff) << 8 | (changed_ms / 100) << 32)
    }
    /// The state, if the word is about the server with this tag.
    #[inline]
    #[must_use]
    pub const fn state(self, tag: u32) -> Probed {
        if (self.0 >> 8) & 0xff_ffff != tag as u64 & 0xff_ffff {
            return Probed::Unknown;
        }
        match self.0 & 0xff {
            1 => Probed::Up,
            2 => Probed::Down,
            _ => Probed::Unknown,
        }
    }
    /// Is the word a result of the server with this tag? (Zero and garbage are nobody's.)
    #[inline]
    #[must_use]
    pub const fn is_about(self, tag: u32) -> bool {
        (self.0 >> 8) & 0xff_ffff == tag as u64 & 0xff_ffff && self.0 & 0xff <= Probed::Down as u64
    }
    /// Time of the last change, ms of CLOCK_BOOTTIME (resolution 100 ms).
    #[must_use]
    pub const fn changed_ms(self) -> u64 {
        (self.0 >> 32) * 100
    }
}

/// Why the last probe failed, for people: bits 0–7 [`failure`], 8–31 tag, 32–63 detail (errno or HTTP status).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Failure(pub u64);

/// Kinds of [`Failure`].
pub mod failure {
    /// Last probe succeeded, or none was made.
    pub const NONE: u8 = 0;
    /// No answer in time.
    pub const TIMEOUT: u8 = 1;
    /// Socket error; detail = errno.
    pub const SOCKET: u8 = 2;
    /// Unexpected HTTP status; detail = status.
    pub const STATUS: u8 = 3;
    /// Answer lacks the expected text.
    pub const CONTENT: u8 = 4;
    /// Answer is no HTTP.
    pub const PROTOCOL: u8 = 5;
}

impl Failure {
    /// A failure of the server with this tag.
    #[must_use]
    pub const fn new(kind: u8, tag: u32, detail: u32) -> Self {
        Self(kind as u64 | (tag as u64 & 0xff_ffff) << 8 | (detail as u64) << 32)
    }
    /// Text for `last_check_error`; `None`: no failure, or about another server.
    #[must_use]
    pub fn text(self, tag: u32) -> Option<String> {
        if (self.0 >> 8) & 0xff_ffff != u64::from(tag) & 0xff_ffff {
            return None;
        }
        let detail = u32::try_from(self.0 >> 32).unwrap_or(0);
        match self.0.to_le_bytes()[0] {
            failure::TIMEOUT => Some("timeout".into()),
            failure::SOCKET => {
                Some(std::io::Error::from_raw_os_error(i32::try_from(detail).unwrap_or(0)).to_string().to_lowercase())
            }
            failure::STATUS => Some(format!("http status {detail}")),
            failure::CONTENT => Some("answer lacks the expected text".into()),
            failure::PROTOCOL => Some("answer is not HTTP".into()),
            _ => None,
        }
    }
}

/// The board.
#[derive(Clone, Debug)]
pub struct Board {
    /// Heads.
    pub head: One<BoardHead>,
    /// Targets.
    pub targets: Rows<TargetRow>,
    /// Check profiles, by service index.
    pub profiles: Rows<ProfileRow>,
    /// Results ([`Cell`]) by server id.
    pub cells: Rows<AtomicU64>,
    /// Last failures ([`Failure`]) by server id.
    pub failures: Rows<AtomicU64>,
}

fn offsets(servers: u64, services: u64) -> ([u64; 5], u64) {
    let mut at = Cursor::after_header();
    let places = [
        at.take::<BoardHead>(1),
        at.take::<TargetRow>(servers),
        at.take::<ProfileRow>(services),
        at.take::<AtomicU64>(servers),
        at.take::<AtomicU64>(servers),
    ];
    (places, at.bytes().next_multiple_of(4096))
}

impl Board {
    /// Creates the board `name` (POSIX shared memory, mode 0600; the caller sets group and mode), or attaches to it when
    /// it is there with the same sizes. A board of other sizes or layout is removed and made anew: results are probed
    /// again within an interval, and "unknown" is eligible.
    ///
    /// # Errors
    /// Shared memory cannot be had.
    pub fn create(name: &str, servers: u64, services: u64) -> Result<Self, SegmentError> {
        if let Ok(board) = Self::open(name, true)
            && board.cells.len() as u64 == servers
            && board.profiles.len() as u64 == services
        {
            return Ok(board);
        }
        let _ = std::fs::remove_file(Self::path(name));
        let bytes = offsets(servers, services).1;
        let fail = |reason: String| SegmentError::Board { name: name.into(), reason };
        let size = usize::try_from(bytes).map_err(|_| SegmentError::TooLarge { bytes })?;
        let mut memory =
            shared_memory::ShmemConf::new().os_id(name).size(size).create().map_err(|error| fail(error.to_string()))?;
        memory.set_owner(false); // The board outlives its creator: readers keep the last state.
        drop(memory);
        let map = Mapping::open(&Self::path(name), true)?;
        let board = Self::view(&map, servers, services)?;
        let mut params = [0; PARAMS];
        params[..2].copy_from_slice(&[servers, services]);
        header::write(&map, Kind::Board, &params)?;
        Ok(board)
    }

    /// Attaches to the board `name`.
    ///
    /// # Errors
    /// Missing, foreign or damaged.
    pub fn open(name: &str, writable: bool) -> Result<Self, SegmentError> {
        let map = Mapping::open(&Self::path(name), writable)?;
        let params = header::check(&map, Kind::Board)?;
        Self::view(&map, params[0], params[1])
    }

    /// A board in anonymous memory, for tests.
    ///
    /// # Errors
    /// Memory.
    pub fn anonymous(servers: u64, services: u64) -> Result<Self, SegmentError> {
        Self::view(&Mapping::anonymous(offsets(servers, services).1, false)?, servers, services)
    }

    /// The file behind a POSIX shared memory name.
    #[must_use]
    pub fn path(name: &str) -> PathBuf {
        PathBuf::from("/dev/shm").join(name.trim_start_matches('/'))
    }

    fn view(map: &Arc<Mapping>, servers: u64, services: u64) -> Result<Self, SegmentError> {
        let ([head, targets, profiles, cells, failures], _) = offsets(servers, services);
        Ok(Self {
            head: map.one(head)?,
            targets: map.rows(targets, servers)?,
            profiles: map.rows(profiles, services)?,
            cells: map.rows(cells, servers)?,
            failures: map.rows(failures, servers)?,
        })
    }

    /// Result word of a server id; ids beyond the board read as "unknown".
    #[inline]
    #[must_use]
    pub fn cell(&self, id: u32) -> Cell {
        // Acquire: a reader woken by the epoch sees the result it was raised for.
        self.cells.get(id as usize).map_or(Cell(0), |cell| Cell(cell.load(Ordering::Acquire)))
    }
}

/// A reader's own copy of the last result about each server. Whatever else is written over the board (garbage, zeros,
/// results of others) is no news: the server keeps the state last seen. One never seen stays "unknown".
#[derive(Clone, Debug)]
pub struct LastKnown(Vec<u64>);

impl LastKnown {
    /// Nothing seen of any of `servers`.
    #[must_use]
    pub fn new(servers: usize) -> Self {
        Self(vec![0; servers])
    }

    /// Remembers what the board says of the server `id`, if it says something of this use of the id.
    pub fn look(&mut self, board: &Board, id: u32, tag: u32) {
        let cell = board.cell(id);
        if cell.is_about(tag)
            && let Some(word) = self.0.get_mut(id as usize)
        {
            *word = cell.0;
        }
    }

    /// What the board says of the server, or said last.
    #[must_use]
    pub fn read(&self, board: &Board, id: u32, tag: u32) -> Cell {
        let cell = board.cell(id);
        if cell.is_about(tag) { cell } else { self.0.get(id as usize).map_or(Cell(0), |word| Cell(*word)) }
    }
}

impl Board {
    /// Writes the result of a server and tells the slots. Health-checker only.
    pub fn set(&self, id: u32, cell: Cell) {
        if let Some(word) = self.cells.get(id as usize) {
            word.store(cell.0, Ordering::Release); // Pairs with the Acquire in `cell`.
            // Release: who sees this epoch (Acquire) sees the result it was raised for.
            self.head.epoch.fetch_add(1, Ordering::Release);
        }
    }
}

/// Is a pool in panic? (More than half of at least four servers went down within one interval, less than three intervals
/// ago: rather a fault of the checker or its network than of the servers; the pool keeps them until it is believed.)
///
/// `down` gives the time of change of every server that is down, ms; returns the time until which they are kept.
pub fn panic_until(
    servers: usize,
    interval_ms: u64,
    now_ms: u64,
    down: impl Iterator<Item = u64> + Clone,
) -> Option<u64> {
    if servers < 4 || interval_ms == 0 {
        return None;
    }
    // What is yet to come was written by nobody: such a server is down, and tells nothing about the others.
    let down = down.filter(|changed| *changed <= now_ms + 100);
    let last = down.clone().max()?;
    // Cells have a resolution of 100 ms: two changes within one interval may read as 100 ms more apart.
    let burst = down.filter(|changed| changed + interval_ms + 100 >= last);
    let until = last + 3 * interval_ms;
    (burst.count() * 2 > servers && now_ms < until).then_some(until)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_late_result_for_another_server_is_unknown() {
        let cell = Cell::new(Probed::Down, 7, 123_400);
        assert_eq!((cell.state(7), cell.state(8), cell.changed_ms()), (Probed::Down, Probed::Unknown, 123_400));
        assert_eq!(Failure::new(failure::STATUS, 7, 503).text(7).as_deref(), Some("http status 503"));
        assert_eq!(Failure::new(failure::STATUS, 7, 503).text(9), None);
    }

    #[test]
    fn what_is_scribbled_over_the_board_is_no_news() {
        let board = Board::anonymous(8, 1).unwrap();
        let mut known = LastKnown::new(8);
        let write = |word: u64| board.cells[3].store(word, Ordering::Release);
        assert_eq!(known.read(&board, 3, 7).state(7), Probed::Unknown);
        write(Cell::new(Probed::Down, 7, 500).0);
        known.look(&board, 3, 7);
        let wrong_state = 0x77 | 7 << 8;
        for word in [0, u64::MAX, Cell::new(Probed::Up, 8, 900).0, wrong_state] {
            write(word);
            known.look(&board, 3, 7);
            assert_eq!(known.read(&board, 3, 7), Cell::new(Probed::Down, 7, 500), "{word:x}");
        }
        // The id's next use has its own tag; a result about it is news, also "unknown": checks were switched off.
        assert_eq!(known.read(&board, 3, 9).state(9), Probed::Unknown);
        write(Cell::new(Probed::Unknown, 7, 900).0);
        known.look(&board, 3, 7);
        write(0);
        assert_eq!(known.read(&board, 3, 7).state(7), Probed::Unknown);
        // Beyond the board.
        known.look(&board, 99, 1);
        assert_eq!(known.read(&board, 99, 1), Cell(0));
    }

    #[test]
    fn panic_needs_more_than_half_within_one_interval() {
        let down = |times: &'static [u64]| times.iter().copied();
        assert_eq!(panic_until(4, 2000, 10_000, down(&[9000, 9500, 9900])), Some(15_900));
        assert_eq!(panic_until(4, 2000, 15_900, down(&[9000, 9500, 9900])), None);
        assert_eq!(panic_until(4, 2000, 10_000, down(&[9000, 9500])), None);
        assert_eq!(panic_until(4, 2000, 10_000, down(&[1000, 5000, 9900])), None);
        assert_eq!(panic_until(3, 2000, 10_000, down(&[9000, 9500, 9900])), None);
    }

    #[test]
    fn changes_yet_to_come_make_no_panic() {
        let garbage = [u64::from(u32::MAX) * 100, 4_000_000_000, 10_200, 10_101];
        assert_eq!(panic_until(4, 2000, 10_000, garbage.into_iter()), None);
        assert_eq!(panic_until(4, 2000, 10_000, garbage.into_iter().chain([9000, 9500, 10_100])), Some(16_100));
    }

    proptest::proptest! {
        #[test]
        fn garbage_is_about_nobody(word: u64, tag: u32) {
            let cell = Cell(word);
            let about = u32::try_from(word >> 8 & 0xff_ffff).unwrap();
            let state = match word & 0xff { 1 => Probed::Up, 2 => Probed::Down, _ => Probed::Unknown };
            proptest::prop_assert_eq!(cell.state(about), state, "of the server it names");
            proptest::prop_assert_eq!(cell.state(about | 0xab00_0000), state, "24 bits of the tag stand in the cell");
            if tag & 0xff_ffff != about {
                proptest::prop_assert_eq!(cell.state(tag), Probed::Unknown, "of another");
                proptest::prop_assert_eq!(Failure(word).text(tag), None);
            }
            let _ = (cell.changed_ms(), Failure(word).text(about));
        }

        #[test]
        fn a_cell_says_what_was_written(state in 0_u8..3, tag: u32, ms in 0_u64..u64::from(u32::MAX) * 100, other: u32) {
            let state = [Probed::Unknown, Probed::Up, Probed::Down][usize::from(state)];
            let cell = Cell::new(state, tag, ms);
            proptest::prop_assert_eq!((cell.state(tag), cell.changed_ms()), (state, ms / 100 * 100));
            if (other ^ tag) & 0xff_ffff != 0 {
                proptest::prop_assert_eq!(cell.state(other), Probed::Unknown);
            }
        }

        #[test]
        fn a_scribbled_board_moves_nobody_it_does_not_name(seed: u64) {
            let board = Board::anonymous(64, 4).unwrap();
            let words = board.head.mapping().rows::<AtomicU64>(header::HEADER_BYTES, 300).unwrap();
            let mut state = seed | 1;
            for word in words.iter().chain(board.cells.iter()).chain(board.failures.iter()) {
                state = state.wrapping_mul(0x2545_F491_4F6C_DD1D).rotate_left(17) ^ seed;
                word.store(state, Ordering::Relaxed);
            }
            for id in 0..80 {
                let (cell, tag) = (board.cell(id), 5);
                let names = id < 64 && cell.0 >> 8 & 0xff_ffff == tag;
                proptest::prop_assert!(names || cell.state(tag as u32) == Probed::Unknown);
            }
            let down = (0..64).map(|id| board.cell(id).changed_ms());
            let until = panic_until(64, 2000, 50_000, down);
            proptest::prop_assert!(until.is_none_or(|until| until <= 50_100 + 6000), "panic for ever: {:?}", until);
        }
    }

    #[test]
    fn a_second_creator_attaches() {
        let name = format!("/lb-board-test-{}", std::process::id());
        let first = Board::create(&name, 100, 10).unwrap();
        first.cells[5].store(Cell::new(Probed::Up, 1, 0).0, Ordering::Release);
        let second = Board::create(&name, 100, 10).unwrap();
        assert_eq!(second.cell(5).state(1), Probed::Up);
        let other = Board::create(&name, 200, 10).unwrap();
        assert_eq!(other.cell(5).state(1), Probed::Unknown);
        std::fs::remove_file(Board::path(&name)).unwrap();
    }
}
