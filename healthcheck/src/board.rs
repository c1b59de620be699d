//! The health board as its second writer sees it: reads targets, writes results.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::os::unix::fs::MetadataExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use shm_layout::SegmentError;
use shm_layout::board::{Board, Cell, Failure, Probed, ProfileRow, TargetRow, check};
use shm_layout::clock::now_ms;
use shm_layout::neighbours::to_std;
use shm_layout::published::load_name;
use shm_layout::seqlock;

use crate::schedule::{Effect, Reason};
use crate::state::Limits;
use crate::target::{Check, Http, Target};

/// Readings of the targets tried before the next turn of the main loop: control writes them within microseconds.
const TRIES: usize = 8;

/// Why there is no board.
#[derive(Debug, thiserror::Error)]
pub enum BoardError {
    /// Not there, not readable or not ready: comes with control.
    #[error("waiting for health board {name}: {source}")]
    Absent {
        /// Its shared-memory name.
        name: String,
        /// The reason.
        source: SegmentError,
    },
    /// There, and not ours.
    #[error(transparent)]
    Refused(SegmentError),
}

/// The board, attached.
#[derive(Debug)]
pub struct HealthBoard {
    board: Board,
    name: String,
    inode: Option<(u64, u64)>,
    /// Target sequence read last; `None`: none yet.
    seen: Option<u64>,
}

/// What a reading of the targets gave.
#[derive(Debug)]
pub struct Reading {
    /// Usable targets.
    pub targets: Vec<Target>,
    /// What is wrong with the others, for the log.
    pub complaints: Vec<String>,
}

impl HealthBoard {
    /// Attaches to the board `name`.
    ///
    /// # Errors
    /// See [`BoardError`].
    pub fn attach(name: &str) -> Result<Self, BoardError> {
        let inode = inode(name);
        match Board::open(name, true) {
            Ok(board) => Ok(Self { board, name: name.into(), inode, seen: None }),
            Err(source @ (SegmentError::Foreign { .. } | SegmentError::Bounds { .. })) => {
                Err(BoardError::Refused(source))
            }
            // Missing, closed to us until control has set group and mode, or still without its size.
            Err(source) => Err(BoardError::Absent { name: name.into(), source }),
        }
    }

    /// A board without a name, for tests.
    #[cfg(test)]
    pub fn of(board: Board) -> Self {
        Self { board, name: "none".into(), inode: None, seen: None }
    }

    /// Has another board taken the name? (Control makes a new one when the sizes change.)
    pub fn replaced(&self) -> bool {
        let now = inode(&self.name);
        now.is_some() && now != self.inode
    }

    /// Says that the results half is ours.
    pub fn claim(&self) {
        self.board.head.pid.store(std::process::id().into(), Ordering::Relaxed);
        self.beat();
    }

    /// Is it still? The pid of whoever claimed it after us.
    pub fn rival(&self) -> Option<u64> {
        let pid = self.board.head.pid.load(Ordering::Relaxed);
        (pid != u64::from(std::process::id())).then_some(pid)
    }

    /// The pid of a checker whose heart beats, watched for a few beats. One board has one writer of results.
    pub async fn living(&self) -> Option<u64> {
        let beat = || self.board.head.heartbeat_ms.load(Ordering::Relaxed);
        let before = beat();
        if now_ms().abs_diff(before) > 2000 {
            return None;
        }
        tokio::time::sleep(Duration::from_millis(350)).await;
        (beat() != before).then(|| self.board.head.pid.load(Ordering::Relaxed))
    }

    /// Heartbeat.
    pub fn beat(&self) {
        self.board.head.heartbeat_ms.store(now_ms(), Ordering::Relaxed);
    }

    /// Has control written other targets than those read last?
    pub fn moved(&self) -> bool {
        Some(self.board.head.targets_sequence.load(Ordering::Relaxed)) != self.seen
    }

    /// Copies the targets, if control is not writing them just now; `None`: try again at the next turn. Until then, and
    /// for ever if control died at it, the last reading holds.
    pub fn read(&mut self) -> Option<Reading> {
        let sequence = &self.board.head.targets_sequence;
        let (number, (rows, profiles)) = seqlock::read(sequence, TRIES, || self.copy())?;
        self.seen = Some(number);
        self.board.head.seen_sequence.store(number, Ordering::Relaxed); // Relaxed: for people.
        Some(self.judge(&rows, &profiles))
    }

    fn copy(&self) -> (Vec<Row>, HashMap<u32, Profile>) {
        let count = usize::try_from(self.board.head.targets.load(Ordering::Relaxed)).unwrap_or(usize::MAX);
        let rows: Vec<Row> = self.board.targets.iter().take(count).map(Row::load).collect();
        let mut profiles = HashMap::new();
        for row in &rows {
            if let Some(profile) = self.board.profiles.get(row.profile as usize) {
                profiles.entry(row.profile).or_insert_with(|| Profile::load(profile));
            }
        }
        (rows, profiles)
    }

    fn judge(&self, rows: &[Row], profiles: &HashMap<u32, Profile>) -> Reading {
        let mut reading = Reading { targets: Vec::with_capacity(rows.len()), complaints: Vec::new() };
        let mut checks = HashMap::new();
        for row in rows {
            let complain = |what: String| format!("target {} tag {}: {what}; it is not probed", row.id, row.tag);
            let empty = Profile::default();
            let profile = profiles.get(&row.profile).unwrap_or(&empty);
            if row.id as usize >= self.board.cells.len() {
                let limit = self.board.cells.len();
                reading.complaints.push(complain(format!("id is beyond the board's {limit} servers")));
                continue;
            }
            let check = match row.kind {
                check::NONE => Check::None,
                check::TCP => Check::Tcp,
                check::HTTP => checks
                    .entry(row.profile)
                    .or_insert_with(|| {
                        Http::new(&profile.path, &profile.host, &profile.expect)
                            .map(|http| Check::Http(Arc::new(http)))
                            .unwrap_or_else(|error| {
                                reading.complaints.push(complain(format!("service {}: {error}", profile.service)));
                                Check::None
                            })
                    })
                    .clone(),
                kind => {
                    reading.complaints.push(complain(format!("kind of check {kind} is not known here")));
                    Check::None
                }
            };
            reading.targets.push(row.target(check, &profile.service));
        }
        reading
    }

    /// State of a server on the board; "unknown" if the cell is about another one.
    pub fn known(&self, target: &Target) -> Probed {
        self.board.cell(target.id).state(target.tag)
    }

    /// Writes a result: the failure for people, and the state if it changed.
    pub fn write(&self, effect: &Effect) {
        self.fail(&effect.target, effect.failure);
        if let Some(state) = effect.change {
            self.set(&effect.target, state);
        }
    }

    /// Writes a state if the board says another.
    pub fn set(&self, target: &Target, state: Probed) {
        if self.known(target) == state {
            return;
        }
        self.board.set(target.id, Cell::new(state, target.tag, now_ms()));
    }

    fn fail(&self, target: &Target, failure: Option<Reason>) {
        let Some(word) = self.board.failures.get(target.id as usize) else { return };
        let reason = failure.unwrap_or(Reason { kind: 0, detail: 0 });
        let new = Failure::new(reason.kind, target.tag, reason.detail).0;
        // Relaxed: one word, shown to people. Unchanged ones stay clean in the readers' caches.
        if word.load(Ordering::Relaxed) != new {
            word.store(new, Ordering::Relaxed);
        }
    }
}

fn inode(name: &str) -> Option<(u64, u64)> {
    std::fs::metadata(Board::path(name)).ok().map(|meta| (meta.dev(), meta.ino()))
}

/// A [`TargetRow`], copied. Relaxed loads: the sequence around them says whether they belong together.
#[derive(Debug)]
struct Row {
    id: u32,
    tag: u32,
    ip: [u64; 2],
    port: u32,
    kind: u32,
    interval_ms: u32,
    fast_interval_ms: u32,
    timeout_ms: u32,
    rise_fall: u32,
    profile: u32,
}

impl Row {
    fn load(row: &TargetRow) -> Self {
        let get = |word: &AtomicU32| word.load(Ordering::Relaxed);
        Self {
            id: get(&row.id),
            tag: get(&row.tag),
            ip: [row.ip[0].load(Ordering::Relaxed), row.ip[1].load(Ordering::Relaxed)],
            port: get(&row.port),
            kind: get(&row.kind),
            interval_ms: get(&row.interval_ms),
            fast_interval_ms: get(&row.fast_interval_ms),
            timeout_ms: get(&row.timeout_ms),
            rise_fall: get(&row.rise_fall),
            profile: get(&row.profile),
        }
    }

    fn target(&self, check: Check, service: &Arc<str>) -> Target {
        let half = |word: u32| u16::try_from(word & 0xffff).unwrap_or(u16::MAX);
        let ms = |ms: u32| Duration::from_millis(ms.into());
        let interval = ms(self.interval_ms);
        let fast = if self.fast_interval_ms == 0 { interval } else { ms(self.fast_interval_ms).min(interval) };
        Target {
            id: self.id,
            tag: self.tag,
            service: Arc::clone(service),
            address: SocketAddr::new(to_std(self.ip), half(self.port)),
            check,
            interval,
            fast,
            timeout: ms(self.timeout_ms),
            limits: Limits { rise: half(self.rise_fall >> 16), fall: half(self.rise_fall) },
        }
    }
}

/// The texts of a [`ProfileRow`].
#[derive(Debug)]
struct Profile {
    service: Arc<str>,
    path: String,
    host: String,
    expect: String,
}

impl Default for Profile {
    fn default() -> Self {
        Self { service: "?".into(), path: String::new(), host: String::new(), expect: String::new() }
    }
}

impl Profile {
    fn load(row: &ProfileRow) -> Self {
        Self {
            service: load_name(&row.service).into(),
            path: text(&row.path),
            host: text(&row.host),
            expect: text(&row.expect),
        }
    }
}

/// A NUL padded text.
fn text(words: &[AtomicU64]) -> String {
    let bytes: Vec<u8> = words.iter().flat_map(|w| w.load(Ordering::Relaxed).to_le_bytes()).collect();
    let end = bytes.iter().position(|b| *b == 0).unwrap_or(bytes.len());
    String::from_utf8_lossy(&bytes[..end]).into_owned()
}

#[cfg(test)]
#[path = "board_tests.rs"]
mod tests;
