//! The health board in the hands of someone else: whatever is written on it while the checker
//! cannot defend it, no server that lives is taken for dead and new sessions are served.

use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::thread::sleep;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tests::conf::VIP;
use tests::error::ensure;
use tests::load::LoadReport;
use tests::servers::HTTP_PORT;
use tests::{Error, Result, Rig, claims};

use crate::Ctx;
use crate::random::Random;

/// Where the parts of the board lie (layout 1, `[limits]` as by default): header, heads, targets of
/// 16,384 servers, profiles of 1,024 services, results, failures.
const HEADS: u64 = 4096;
const EPOCH: u64 = HEADS + 64;
const CELLS: u64 = HEADS + 128 + 16_384 * 64 + 1024 * 512;
const END: u64 = CELLS + 2 * 16_384 * 8;
/// States in the low byte of a result.
const UP: u8 = 1;
const DOWN: u8 = 2;

/// What is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Scribble {
    /// Random bytes over all results.
    Random,
    /// Zeros over all results.
    Zero,
    /// Every result that says "up" says "down", just now, about the right server.
    AllDown,
    /// Random bytes over everything but the header: targets, heartbeat and epoch too.
    Everything,
}

/// Five servers, one of them dead, which is known. Each scribble in turn while the checker is
/// stopped: no transition of a server that lives, every new session served by one that lives; once the
/// checker goes on, the board says the truth again.
pub fn overwritten(ctx: &mut Ctx) -> Result<()> {
    let mut rig = ctx.rig_of(5)?;
    rig.add_usual_services();
    // The panic rule keeps a pool for three intervals.
    rig.appliance.conf.service("web").health =
        r#"{ type = "tcp", interval = "3s", fast_interval = "200ms", timeout = "300ms", rise = 2, fall = 2 }"#.into();
    rig.start()?;
    let mut random = Random::new(ctx);
    rig.servers[4].stop_nginx()?;
    let truth = Truth { dead: rig.servers[4].at(HTTP_PORT) };
    truth.shown(&rig, Duration::from_secs(8))?;
    for scribble in [Scribble::Random, Scribble::Zero, Scribble::AllDown, Scribble::Everything] {
        under(&mut rig, scribble, &truth, &mut random)
            .map_err(|error| Error::claim(format!("board overwritten ({scribble:?}): {error}")))?;
    }
    claims::law_holds(&rig.lbctl()?.stats()?)?;
    rig.appliance.expect_alive()?;
    rig.appliance.stop()
}

struct Truth {
    dead: String,
}

impl Truth {
    /// Waits until `rs list` says of `web` what is true: one down, the others up.
    fn shown(&self, rig: &Rig, limit: Duration) -> Result<()> {
        let lbctl = rig.lbctl()?;
        claims::eventually("rs list says the truth", limit, || {
            let all = lbctl.real_servers()?;
            let wrong = all.iter().filter(|rs| rs.service == "web");
            let wrong = wrong.filter(|rs| (rs.health == "down") != (rs.address == self.dead) || rs.health == "unknown");
            let wrong: Vec<String> = wrong.map(|rs| format!("{} {}", rs.address, rs.health)).collect();
            ensure(wrong.is_empty(), || wrong.join(", "))
        })
    }

    /// New sessions are answered, in both slots.
    fn served(rig: &Rig) -> Result<()> {
        let web = format!("{VIP}:80");
        let report: LoadReport =
            rig.load("http-load", &["--target", &web, "--requests", "100"])?.report(Duration::from_secs(30))?;
        claims::all_answered("new sessions, with the dead server known", &report)
    }

    /// For three seconds nobody who lives is called dead; meanwhile new sessions are served.
    ///
    /// `panic`: the rule keeps the whole pool, so the dead one has its share too, and no more than that.
    fn kept(&self, rig: &Rig, panic: bool) -> Result<()> {
        let lbctl = rig.lbctl()?;
        let web = format!("{VIP}:80");
        let load = rig.load("http-load", &["--target", &web, "--rate", "200", "--timeout-ms", "3000"])?;
        let end = Instant::now() + Duration::from_secs(3);
        while Instant::now() < end {
            for rs in lbctl.real_servers()?.iter().filter(|rs| rs.service == "web" && rs.address != self.dead) {
                ensure(rs.health != "down", || format!("{} lives and is called {}", rs.address, rs.health))?;
            }
            sleep(Duration::from_millis(100));
        }
        let report: LoadReport = load.finish(Duration::from_secs(30))?;
        if !panic {
            return claims::all_answered("new sessions", &report);
        }
        let by_the_dead = report.errors.get("connect refused").copied().unwrap_or(0);
        let share = report.requested / rig.servers.len() as u64 + 2;
        let kept = report.failed == by_the_dead && by_the_dead <= share && report.by_server.len() == 4;
        ensure(kept && report.ok > 0, || format!("in panic, of {share} for the dead one: {report:?}"))
    }
}

fn under(rig: &mut Rig, scribble: Scribble, truth: &Truth, random: &mut Random) -> Result<()> {
    // A slot looks at health when a session begins: what no session has asked for it does not know.
    Truth::served(rig)?;
    let checker = rig.appliance.healthcheck.as_ref().ok_or_else(|| Error::claim("no health-checker"))?;
    checker.signal(Signal::SIGSTOP);
    let control = rig.appliance.control_pid()?;
    scribble.write(&board(rig)?, random)?;
    let kept = truth.kept(rig, scribble == Scribble::AllDown);
    if let Some(checker) = &rig.appliance.healthcheck {
        checker.signal(Signal::SIGCONT);
    }
    kept?;
    if scribble == Scribble::Everything {
        // Its name was struck from the board and the targets are gone: what stands in for systemd starts
        // it again, and a new control writes the targets.
        if let Some(mut checker) = rig.appliance.healthcheck.take() {
            checker.wait_end(Duration::from_secs(5))?;
        }
        let pid = i32::try_from(control).map_err(|_| Error::claim("a process id beyond i32"))?;
        kill(Pid::from_raw(pid), Signal::SIGKILL).map_err(|e| Error::claim(format!("kill control: {e}")))?;
        rig.appliance.start_healthcheck()?;
    }
    truth.shown(rig, Duration::from_secs(15))
}

fn board(rig: &Rig) -> Result<PathBuf> {
    let path = PathBuf::from(format!("/dev/shm/containerlb-{}-health", rig.appliance.conf.name));
    let bytes = std::fs::metadata(&path).map_err(Error::file("find", &path))?.len();
    ensure(bytes == END.next_multiple_of(4096), || {
        format!("the board has {bytes} bytes: its layout is another one than this test writes to")
    })?;
    Ok(path)
}

impl Scribble {
    fn write(self, path: &PathBuf, random: &mut Random) -> Result<()> {
        let file = std::fs::File::options().read(true).write(true).open(path).map_err(Error::file("open", path))?;
        let begin = if self == Self::Everything { HEADS } else { CELLS };
        let mut bytes = vec![0; usize::try_from(END - begin).unwrap_or(0)];
        match self {
            Self::Zero => {}
            Self::Random | Self::Everything => {
                bytes
                    .chunks_mut(8)
                    .for_each(|chunk| chunk.copy_from_slice(&random.next().to_le_bytes()[..chunk.len()]));
            }
            Self::AllDown => {
                file.read_exact_at(&mut bytes, begin).map_err(Error::file("read", path))?;
                let now = boot_ms()? / 100;
                let (cells, _) = bytes.split_at_mut(16_384 * 8);
                for cell in cells.chunks_mut(8).filter(|cell| cell[0] == UP) {
                    cell[0] = DOWN;
                    cell[4..].copy_from_slice(&u32::try_from(now).unwrap_or(u32::MAX).to_le_bytes());
                }
            }
        }
        file.write_all_at(&bytes, begin).map_err(Error::file("write", path))?;
        // The slots look when the epoch has moved.
        let mut epoch = [0; 8];
        file.read_exact_at(&mut epoch, EPOCH).map_err(Error::file("read", path))?;
        let next = u64::from_le_bytes(epoch).wrapping_add(1);
        file.write_all_at(&next.to_le_bytes(), EPOCH).map_err(Error::file("write", path))
    }
}

/// Milliseconds since boot: the board's clock (the machine does not sleep).
fn boot_ms() -> Result<u64> {
    let path = "/proc/uptime";
    let text = std::fs::read_to_string(path).map_err(Error::file("read", path))?;
    let seconds = text.split(' ').next().and_then(|t| t.parse::<f64>().ok()).unwrap_or(0.0);
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a time since boot")]
    Ok((seconds * 1000.0) as u64)
}
