//! The main loop: read targets, begin probes, write results. One thread; a task per running probe.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use log::{error, info, warn};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use shm_layout::SegmentError;
use shm_layout::board::{Failure, Probed};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval, sleep, sleep_until};

use crate::awake::{Awake, TICK};
use crate::board::{BoardError, HealthBoard};
use crate::link;
use crate::prober;
use crate::report::Report;
use crate::schedule::{Effect, Schedule, Ticket, Verdict};
use crate::settings::Settings;
use crate::target::Check;

/// Descriptors kept for everything but probes.
const SPARE_FILES: u64 = 64;
/// Probes at a time, at most; each costs a descriptor and about 10 KiB.
const RUNNING_MAX: u64 = 4096;
/// Probes begun before results are looked at again.
const STARTS: usize = 64;
/// How often the board is looked for while it is absent.
const RETRY: Duration = Duration::from_millis(200);
/// A board that looks foreign for this long is: a header being written looks so for an instant.
const FOREIGN: Duration = Duration::from_secs(1);

/// Why the checker ends before it is asked to.
#[derive(Debug, thiserror::Error)]
pub enum CheckerError {
    /// The board is not for this program.
    #[error(transparent)]
    Foreign(SegmentError),
    /// Another checker writes the board.
    #[error("another lb-healthcheck (pid {0}) writes the health board; hint: one per instance (node.name)")]
    Rival(u64),
    /// Signals cannot be caught.
    #[error("cannot catch signals: {0}")]
    Signal(std::io::Error),
}

/// Runs until SIGTERM or SIGINT. Ending, however, changes no state on the board.
///
/// # Errors
/// See [`CheckerError`].
pub async fn run(settings: &Settings) -> Result<(), CheckerError> {
    let mut stop = Stop::new().map_err(CheckerError::Signal)?;
    let mut report = Report::new(Instant::now());
    let name = settings.node.board_name();
    let board = tokio::select! {
        board = attach(&name, &mut report) => board?,
        () = stop.asked() => return Ok(()),
    };
    let mut checker = Checker::new(board, settings.source, report);
    let nudge = link::follow(links::control_socket(&settings.node.run_dir()));
    let result = tokio::select! {
        result = checker.work(&name, &nudge) => result,
        () = stop.asked() => Ok(()),
    };
    links::service::stopping();
    info!("stopped; every server keeps its last state");
    result
}

/// SIGTERM and SIGINT.
struct Stop([Signal; 2]);

impl Stop {
    fn new() -> std::io::Result<Self> {
        Ok(Self([signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?]))
    }

    async fn asked(&mut self) {
        let [term, int] = &mut self.0;
        tokio::select! { _ = term.recv() => {}, _ = int.recv() => {} }
    }
}

/// Waits for the board, checks that nobody else writes its results, claims it.
async fn attach(name: &str, report: &mut Report) -> Result<HealthBoard, CheckerError> {
    let mut foreign_since = None;
    let mut said = String::new();
    let board = loop {
        match HealthBoard::attach(name) {
            Ok(board) => break board,
            Err(BoardError::Refused(source)) => {
                if foreign_since.get_or_insert_with(Instant::now).elapsed() >= FOREIGN {
                    return Err(CheckerError::Foreign(source));
                }
            }
            Err(absent) => {
                foreign_since = None;
                let text = absent.to_string();
                if text != said {
                    warn!("{text}; hint: lb-primary makes it");
                    report.status(text.clone());
                    said = text;
                }
            }
        }
        report.alive();
        sleep(RETRY).await;
    };
    if let Some(pid) = board.living().await {
        return Err(CheckerError::Rival(pid));
    }
    board.claim();
    Ok(board)
}

struct Checker {
    board: HealthBoard,
    schedule: Schedule,
    running: JoinSet<(Ticket, Verdict)>,
    running_max: usize,
    source: Option<IpAddr>,
    awake: Arc<Awake>,
    report: Report,
    /// The first reading was logged.
    told: bool,
    ticks: u64,
}

impl Checker {
    fn new(board: HealthBoard, source: Option<IpAddr>, report: Report) -> Self {
        Self {
            board,
            schedule: Schedule::new(shm_layout::clock::now_ns() ^ u64::from(std::process::id())),
            running: JoinSet::new(),
            running_max: probes_at_a_time(),
            source,
            awake: Arc::new(Awake::new(tokio::time::Instant::now())),
            report,
            told: false,
            ticks: 0,
        }
    }

    async fn work(&mut self, name: &str, nudge: &Notify) -> Result<(), CheckerError> {
        let mut tick = interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let room = self.running.len() < self.running_max;
            let due = self.schedule.next_due().filter(|_| room).map(tokio::time::Instant::from_std);
            tokio::select! {
                biased;
                _ = tick.tick() => self.turn(name).await?,
                () = nudge.notified() => self.refresh(),
                Some(ended) = self.running.join_next() => {
                    self.ended(ended);
                    while let Some(ended) = self.running.try_join_next() {
                        self.ended(ended);
                    }
                }
                () = sleep_until(due.unwrap_or_else(tokio::time::Instant::now)), if due.is_some() => self.begin(),
            }
        }
    }

    /// Ten times a second.
    async fn turn(&mut self, name: &str) -> Result<(), CheckerError> {
        self.awake.turn(tokio::time::Instant::now());
        if let Some(pid) = self.board.rival() {
            return Err(CheckerError::Rival(pid));
        }
        self.board.beat();
        self.refresh();
        if self.ticks.is_multiple_of(10) {
            if self.board.replaced() {
                info!("the health board was made anew; attaching to it");
                self.board = attach(name, &mut self.report).await?;
                self.refresh();
            }
            self.agree();
            let census = self.schedule.census();
            let probed = census.up + census.down + census.unknown;
            self.report.status(format!(
                "{probed} servers: {} up, {} down, {} unknown",
                census.up, census.down, census.unknown
            ));
        }
        if self.ticks == 0 {
            crate::privileges::confine();
            links::service::ready("reading targets");
        }
        self.ticks += 1;
        self.report.alive();
        Ok(())
    }

    /// Follows the targets control has written.
    fn refresh(&mut self) {
        if !self.board.moved() {
            return;
        }
        let Some(reading) = self.board.read() else { return };
        for complaint in reading.complaints.iter().take(10) {
            warn!("{complaint}");
        }
        if reading.complaints.len() > 10 {
            warn!("{} more targets are not probed", reading.complaints.len() - 10);
        }
        let (board, now) = (&self.board, Instant::now());
        self.schedule.replace(reading.targets, |target| board.known(target), now);
        self.agree();
        if !self.told {
            self.told = true;
            let census = self.schedule.census();
            let probed = census.up + census.down + census.unknown;
            info!("probing {probed} servers: {} up, {} down before", census.up, census.down);
        }
    }

    /// Makes the board say what is known here: after a new reading, on a board made anew (what is known of a server that
    /// stays is not forgotten), and every second, should something else have scribbled on it.
    fn agree(&self) {
        for (target, state) in self.schedule.states() {
            // Checks switched off: a server that was down then must not stay down for ever.
            let off = target.check == Check::None;
            if off || state != Probed::Unknown {
                self.board.set(target, if off { Probed::Unknown } else { state });
            }
        }
    }

    fn begin(&mut self) {
        let now = Instant::now();
        for _ in 0..STARTS.min(self.running_max - self.running.len()) {
            let Some(start) = self.schedule.start(now) else { return };
            let (source, awake) = (self.source, Arc::clone(&self.awake));
            self.running.spawn(async move { (start.ticket, prober::probe(&start.target, source, &awake).await) });
        }
    }

    fn ended(&mut self, ended: Result<(Ticket, Verdict), tokio::task::JoinError>) {
        let (ticket, verdict) = match ended {
            Ok(ended) => ended,
            Err(error) => {
                error!("a probe broke: {error}");
                return;
            }
        };
        let Some(effect) = self.schedule.finish(ticket, verdict, Instant::now()) else { return };
        if effect.change.is_some() {
            // Before a state is written: is the server still that server, and are we still its checker?
            self.refresh();
            if self.board.rival().is_some() || !self.schedule.current(&effect.target) {
                return;
            }
            self.tell(&effect);
        }
        self.board.write(&effect);
    }

    fn tell(&mut self, effect: &Effect) {
        if !self.report.line(Instant::now()) {
            return;
        }
        let target = &effect.target;
        let why = effect.failure.and_then(|r| Failure::new(r.kind, target.tag, r.detail).text(target.tag));
        match (effect.change, why) {
            (Some(Probed::Down), Some(why)) => {
                warn!("service {} server {} is down: {why}", target.service, target.address)
            }
            (Some(Probed::Down), None) => warn!("service {} server {} is down", target.service, target.address),
            _ => info!("service {} server {} is up", target.service, target.address),
        }
    }
}

/// As many as descriptors allow; the soft limit is raised to the hard one, which needs no privilege.
fn probes_at_a_time() -> usize {
    let limit = getrlimit(Resource::RLIMIT_NOFILE).map_or(1024, |(soft, hard)| {
        let wanted = hard.min(RUNNING_MAX + SPARE_FILES);
        if soft >= wanted || setrlimit(Resource::RLIMIT_NOFILE, wanted, hard).is_ok() { wanted } else { soft }
    });
    let probes = limit.saturating_sub(SPARE_FILES).clamp(16, RUNNING_MAX);
    usize::try_from(probes).unwrap_or(16)
}
