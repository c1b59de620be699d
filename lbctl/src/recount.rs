//! `tables check`: the invariants of the shared tables, counted anew, read-only. Not listed in the help: for support and
//! for tests. Needs no daemon, but the right to read the tables and their keys.

use std::path::Path;
use std::time::Duration;

use clap::Subcommand;
use control_api::{ApiError, Code};
use datapath::check::{self, Found};
use serde::Serialize;
use shm_layout::SegmentError;
use shm_layout::published::Published;
use shm_layout::secrets::{self, Secrets};
use shm_layout::slot::Slot;

use crate::context::Context;
use crate::failure::{Failure, Status};

/// Looks at tables that move, until one finds them at rest.
const LOOKS: u32 = 200;
/// Time between two.
const PAUSE: Duration = Duration::from_millis(5);

const ABOUT: &str = "\
Counts the shared tables anew and compares: every session in one place, with one server and a local port of its slot; \
every key found; every count equal to what is there; the conservation law; no buffer twice; no change half made.

Traffic moves the tables while they are read: a look that finds them moved is thrown away, and after 200 of them the \
check gives up. Exit status 1 when a law is broken.";

/// Verbs of `tables`.
#[derive(Debug, Subcommand)]
#[command(subcommand_help_heading = "Verbs", subcommand_value_name = "VERB")]
pub enum Verb {
    /// Count everything anew and compare
    #[command(long_about = ABOUT)]
    Check,
}

/// The answer.
#[derive(Debug, Serialize)]
struct Recounted {
    /// Live sessions, ended ones that wait for the wheel, records in the free lists.
    sessions: u64,
    waiting: u64,
    free: u64,
    /// Sessions whose server is no longer configured.
    orphans: u64,
    /// See [`Found`]: what owners that died did in their last burst.
    ring_slack: i64,
    session_slack: i64,
    looks: u32,
    violations: Vec<String>,
}

impl Verb {
    /// Carries it out.
    ///
    /// # Errors
    /// A table is missing, foreign or damaged; or they were never at rest.
    pub fn run(self, context: &mut Context) -> Result<Status, Failure> {
        let Self::Check = self;
        let run_dir = context.socket()?.parent().unwrap_or(Path::new("")).to_owned();
        let fail = |why: SegmentError| ApiError::new(Code::Failed, why.to_string());
        let tables = Tables::open(&run_dir.join("huge/tables")).map_err(fail)?;
        let recounted = tables.at_rest()?;
        let status = if recounted.violations.is_empty() { Status::DONE } else { Status::FAILED };
        context.show(&recounted, lines)?;
        Ok(status)
    }
}

struct Tables {
    slots: Vec<Slot>,
    secrets: Secrets,
    published: Published,
}

impl Tables {
    fn open(folder: &Path) -> Result<Self, SegmentError> {
        let first = Slot::open(folder, 0, false)?;
        let others = (1..first.geometry.slots).map(|slot| Slot::open(folder, slot, false));
        let slots = std::iter::once(Ok(first)).chain(others).collect::<Result<_, _>>()?;
        Ok(Self { slots, secrets: secrets::open(folder)?, published: Published::open(folder, false)? })
    }

    /// Looks until nothing moved meanwhile.
    fn at_rest(&self) -> Result<Recounted, ApiError> {
        for looks in 1..=LOOKS {
            let before = check::moves(&self.slots);
            let found = check::appliance(&self.slots, &self.secrets, Some(&self.published));
            if check::moves(&self.slots) == before {
                return Ok(Recounted::of(found, looks));
            }
            std::thread::sleep(PAUSE);
        }
        let text = format!("the tables moved during each of {LOOKS} looks: nothing can be said of them");
        Err(ApiError::new(Code::Failed, text).hint("again with less traffic"))
    }
}

impl Recounted {
    fn of(found: Found, looks: u32) -> Self {
        let sum = |of: fn(&datapath::session::Recount) -> u32| found.tables.iter().map(|(_, t)| u64::from(of(t))).sum();
        Self {
            sessions: sum(|t| t.active),
            waiting: sum(|t| t.waiting),
            free: sum(|t| t.free),
            orphans: found.orphans,
            ring_slack: found.ring_slack,
            session_slack: found.session_slack,
            looks,
            violations: found.violations,
        }
    }
}

fn lines(recounted: &Recounted) -> Vec<String> {
    let Recounted { sessions, waiting, free, orphans, .. } = recounted;
    let mut lines =
        vec![format!("{sessions} sessions ({orphans} orphans), {waiting} ended, {free} free records: counted anew")];
    lines.extend(recounted.violations.iter().map(|law| format!("broken: {law}")));
    if recounted.violations.is_empty() {
        lines.push("every law holds".into());
    }
    lines
}
