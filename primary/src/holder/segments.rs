//! The shared files: made at the first start, kept by every later one, so that sessions outlive the appliance.

use std::fs;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use shm_layout::SegmentError;
use shm_layout::choice::{self, Choices};
use shm_layout::counters::{DropReason, Flow};
use shm_layout::geometry::Geometry;
use shm_layout::header;
use shm_layout::limits::{LAYOUT_CHOICES, LAYOUT_WIDE};
use shm_layout::neighbours::Neighbours;
use shm_layout::persistence::{self, Persistence};
use shm_layout::published::Published;
use shm_layout::secrets;
use shm_layout::segment::Mapping;
use shm_layout::slot::{SEEN_IDLE, Slot};

use super::error::HolderError;
use super::plan::HolderPlan;

/// Mode of the tables: group members look, they do not write.
const MODE: u32 = 0o640;
/// Mode of the keys.
const SECRET_MODE: u32 = 0o600;
/// Name of a file that is being made; renamed when it is whole.
const UNFINISHED: &str = ".new";

/// The tables, mapped.
#[derive(Debug)]
pub struct Segments {
    /// Published tables.
    pub published: Published,
    /// All slots.
    pub slots: Vec<Slot>,
    /// Toeplitz key of the ports.
    pub rss_key: [u8; 40],
}

impl Segments {
    /// Opens the tables in the plan's folder and makes those that are missing. No worker and no control lives.
    ///
    /// # Errors
    /// Foreign tables; tables of other sizes that hold sessions; no memory.
    pub fn open(plan: &HolderPlan) -> Result<Self, HolderError> {
        let folder = plan.tables_dir();
        for entry in fs::read_dir(&folder).into_iter().flatten().flatten() {
            if entry.file_name().to_string_lossy().starts_with(UNFINISHED) {
                let _ = fs::remove_file(entry.path()); // Of a start that was killed: in nobody's use.
            }
        }
        keep_or_clear(plan, &folder)?;
        let wanted = plan.geometry;
        let make = |name: &str, bytes, mode, format: &dyn Fn(&Arc<Mapping>) -> Result<(), SegmentError>| {
            make(&folder, name, bytes, mode, format)
        };
        make(secrets::FILE, secrets::BYTES, SECRET_MODE, &|map| secrets::format(map).map(drop))?;
        make(shm_layout::published::FILE, Published::bytes(wanted.published()), MODE, &|map| {
            Published::format(map, wanted.published()).map(drop)
        })?;
        if published_layout(&folder)? >= LAYOUT_CHOICES {
            make(choice::FILE, Choices::bytes(wanted.choices), MODE, &|map| {
                Choices::format(map, wanted.choices).map(drop)
            })?;
            make(persistence::FILE, Persistence::bytes(wanted.slots, wanted.sessions), MODE, &|map| {
                Persistence::format(map, wanted.slots, wanted.sessions).map(drop)
            })?;
        }
        make(shm_layout::neighbours::FILE, Neighbours::bytes(wanted.neighbours), MODE, &|map| {
            Neighbours::format(map, wanted.neighbours).map(drop)
        })?;
        for slot in 0..wanted.slots {
            let mut geometry = wanted.slot(slot);
            if header::layout_version() < LAYOUT_WIDE {
                geometry.wide_sessions = 0;
            }
            let name = shm_layout::slot::file_name(slot);
            make(&name, geometry.bytes(), MODE, &|map| Slot::format(map, geometry).map(drop))?;
        }
        let published = Published::open(&folder, true)?;
        Neighbours::open(&folder, false)?;
        let slots = (0..wanted.slots).map(|n| Slot::open(&folder, n, true)).collect::<Result<Vec<_>, _>>()?;
        let rss_key = secrets::bytes(&secrets::open(&folder)?.rss_key);
        let segments = Self { published, slots, rss_key };
        segments.begin();
        Ok(segments)
    }

    /// Nobody reads, nobody owns, and the packets in the ledgers went with the EAL they belonged to.
    fn begin(&self) {
        let root = &self.published.root;
        // Relaxed: no other process has the tables open yet.
        root.current.store(0, Ordering::Relaxed);
        for directory in &self.published.directories {
            directory.head.generation.store(0, Ordering::Relaxed); // Control takes a number for a generation in use.
        }
        root.control_pid.store(0, Ordering::Relaxed);
        root.holder_pid.store(std::process::id().into(), Ordering::Relaxed);
        for slot in &self.slots {
            slot.pulse.seen_generation.store(SEEN_IDLE, Ordering::Relaxed);
            for word in slot.ledger.rx.iter().chain(&slot.ledger.tx).chain(&slot.ledger.wait) {
                word.store(0, Ordering::Relaxed);
            }
            slot.waits.iter().for_each(|row| row.until_ms.store(0, Ordering::Relaxed));
            if let Some(mut counts) = slot.counters.read()
                && counts.flow(Flow::Held) > 0
            {
                counts.drop_many(DropReason::LostInCrash, counts.flow(Flow::Held));
                counts.set_held(0);
                slot.counters.flip(&counts);
            }
        }
    }

    /// The slots a process owned.
    pub fn owned_by(&self, pid: u32) -> impl Iterator<Item = u32> {
        (0..).zip(&self.slots).filter(move |(_, s)| s.owner.owner().pid() == pid).map(|(number, _)| number)
    }
}

/// Tables of other sizes go if no session lives in them.
fn keep_or_clear(plan: &HolderPlan, folder: &Path) -> Result<(), HolderError> {
    let (found, sessions) = survey(folder, plan.geometry)?;
    if found == Some(plan.geometry) {
        // Nothing in the choice tables outlives a start: control writes them anew.
        let kept = Choices::open(folder, false)?.is_none_or(|choices| choices.count() == plan.geometry.choices);
        if !kept {
            let path = folder.join(choice::FILE);
            fs::remove_file(&path).map_err(HolderError::file("remove", path))?;
        }
        // Without sessions tables of an older layout need not stay.
        if sessions > 0 || published_layout(folder)? >= header::layout_version() {
            return Ok(());
        }
    }
    if sessions > 0 {
        return Err(HolderError::Geometry {
            path: folder.into(),
            mount: plan.mount(),
            sessions,
            found: found.map_or_else(|| "other sizes (incomplete set)".to_owned(), |f| f.to_string()),
            wanted: plan.geometry.to_string(),
        });
    }
    if let Some(found) = found {
        log::info!("the tables were made for {found} and hold no session: made anew for {}", plan.geometry);
    }
    // The keys stay: they are made once per boot.
    for entry in fs::read_dir(folder).map_err(HolderError::file("list", folder))?.flatten() {
        if entry.file_name() != secrets::FILE {
            fs::remove_file(entry.path()).map_err(HolderError::file("remove", entry.path()))?;
        }
    }
    Ok(())
}

/// Sizes (of the choice tables, and of what the layout does not know, those wanted) and sessions of the tables that are there; no sizes: none, or a set that a killed start left half made.
fn survey(folder: &Path, wanted: Geometry) -> Result<(Option<Geometry>, u64), HolderError> {
    let open = |name: &str, kind| match Mapping::open(&folder.join(name), false) {
        Ok(map) => header::check(&map, kind).map(Some),
        Err(SegmentError::Open { source, .. }) if source.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    };
    let published = open(shm_layout::published::FILE, header::Kind::Published)?;
    let neighbours = open(shm_layout::neighbours::FILE, header::Kind::Neighbours)?;
    let mut first: Option<Slot> = None;
    let mut sessions = 0;
    let mut count = 0;
    for number in 0..u32::try_from(shm_layout::limits::MAX_SLOTS).unwrap_or(u32::MAX) {
        if !folder.join(shm_layout::slot::file_name(number)).exists() {
            continue;
        }
        let slot = Slot::open(folder, number, false)?;
        sessions += u64::from(slot.table.active.load(Ordering::Relaxed));
        count += 1;
        first.get_or_insert(slot);
    }
    let (Some(published), Some(neighbours)) = (published, neighbours) else { return Ok((None, sessions)) };
    let Some(slot) = first.filter(|s| s.geometry.slots == count) else { return Ok((None, sessions)) };
    // Tables of a layout that knows no wide records are served without.
    let wide = header::layout_of(slot.sessions.mapping()) >= LAYOUT_WIDE;
    let slot = slot.geometry;
    let geometry = Geometry {
        slots: slot.slots,
        sessions: slot.sessions,
        wide_sessions: if wide { slot.wide_sessions } else { wanted.wide_sessions },
        servers: published[1],
        services: published[0],
        // The row count includes row 0, "none".
        neighbours: neighbours[0].saturating_sub(1),
        choices: wanted.choices,
    };
    Ok((Some(geometry), sessions))
}

/// Layout version of the published tables.
fn published_layout(folder: &Path) -> Result<u32, HolderError> {
    let map = Mapping::open(&folder.join(shm_layout::published::FILE), false)?;
    header::check(&map, header::Kind::Published)?;
    Ok(header::layout_of(&map))
}

/// Makes a file that is not there: reserved, filled, then named, so that nobody sees half of it.
fn make(
    folder: &Path,
    name: &str,
    bytes: u64,
    mode: u32,
    format: &dyn Fn(&Arc<Mapping>) -> Result<(), SegmentError>,
) -> Result<(), HolderError> {
    let path = folder.join(name);
    if path.exists() {
        return Ok(());
    }
    let unfinished = folder.join(format!("{UNFINISHED}-{name}"));
    format(&Mapping::create(&unfinished, bytes, mode)?)?;
    fs::rename(&unfinished, &path).map_err(HolderError::file("rename", &unfinished))
}
