//! Changes on trial, and control killed at every step of a change.

use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use tests::conf::VIP;
use tests::error::ensure;
use tests::lbctl::Lbctl;
use tests::load::{LoadReport, TalkReport};
use tests::servers::{DNS_PORT, HTTP_PORT, TALK_PORT};
use tests::{Error, Result, Rig, claims};

use crate::Ctx;

const LIMIT: Duration = Duration::from_secs(60);

/// `apply --confirm`: what nobody confirms goes back by itself, also when control is killed meanwhile; what is confirmed
/// stays; `rollback` and `history` tell a straight story; no connection and no request is lost by any of it.
pub fn goes_back_unless_confirmed(ctx: &mut Ctx) -> Result<()> {
    let mut rig = ctx.rig()?;
    rig.start()?;
    let lbctl = rig.lbctl()?;
    let (web, talk) = (format!("{VIP}:80"), format!("{VIP}:9000"));
    let talkers = rig.load("tcp-talk", &["client", "--target", &talk, "--connections", "30"])?;
    let http = rig.load("http-load", &["--target", &web, "--concurrency", "4", "--rate", "200"])?;
    sleep(Duration::from_millis(500));
    // Without s1 in `talk`: its connections must outlive both the change and the way back.
    let file = rig.folder.join("new.toml");
    let mut conf = rig.appliance.conf.clone();
    conf.service("talk").rs.remove(0);
    conf.service("web").rs[1].weight = 7;
    write(&file, &conf.to_toml())?;
    let path = file.display().to_string();
    let weight = || lbctl.real_server("web", &rig.servers[1].at(HTTP_PORT)).map(|rs| rs.weight);

    let told = lbctl.ok(&["config", "apply", &path, "--confirm", "4s"])?;
    ensure(told.contains("on trial") && weight()? == 7, || format!("not live, or not said: {told}"))?;
    let busy = lbctl.call(&["config", "apply", &path])?;
    ensure(busy.code == 1 && busy.err.contains("waits to be confirmed"), || format!("{busy:?}"))?;
    kill_control(&rig)?;
    claims::eventually("control's return", Duration::from_secs(10), || lbctl.services().map(drop))?;
    claims::eventually("the way back", Duration::from_secs(15), || {
        ensure(weight()? == 1, || "the unconfirmed change is still in force".into())
    })?;
    let back = lbctl.real_server("talk", &rig.servers[0].at(TALK_PORT))?;
    ensure(back.admin == "enabled", || format!("{back:?}"))?;

    lbctl.ok(&["config", "apply", &path, "--confirm", "3s"])?;
    lbctl.ok(&["config", "confirm"])?;
    ensure(lbctl.call(&["config", "confirm"])?.code == 1, || "confirmed twice".into())?;
    sleep(Duration::from_millis(3500));
    ensure(weight()? == 7, || "a confirmed change went back".into())?;
    lbctl.ok(&["config", "rollback"])?;
    ensure(weight()? == 1, || "rollback".into())?;
    lbctl.ok(&["config", "rollback", "1"])?;
    ensure(weight()? == 7, || "rollback of the rollback".into())?;
    ensure(lbctl.call(&["config", "rollback", "99"])?.code == 4, || "rollback 99".into())?;
    ensure(lbctl.call(&["config", "rollback", "0"])?.code == 2, || "rollback 0".into())?;
    ensure(lbctl.call(&["config", "apply", &path, "--confirm", "60"])?.code == 2, || "--confirm without unit".into())?;

    let history: Vec<Value> = lbctl.json(&["config", "history"])?;
    let users: Vec<&str> = history.iter().filter_map(|h| h["user"].as_str()).collect();
    ensure(users == ["control", "root", "control", "root", "root", "root"], || format!("{history:?}"))?;
    let generations: Vec<u64> = history.iter().filter_map(|h| h["generation"].as_u64()).collect();
    ensure(generations.len() == 6 && generations.is_sorted(), || format!("{generations:?}"))?;
    let shaped = history.iter().all(|h| {
        let time = h["time"].as_str().unwrap_or_default();
        time.len() == 20 && time.ends_with('Z') && h["summary"].as_str().is_some_and(|s| !s.is_empty())
    });
    ensure(shaped, || format!("{history:?}"))?;

    let http: LoadReport = http.finish(LIMIT)?;
    let talk: TalkReport = talkers.finish(LIMIT)?;
    claims::all_answered("http", &http)?;
    ensure(talk.opened == 30 && talk.broken.is_empty(), || format!("connections broke: {talk:?}"))?;
    claims::law_holds(&lbctl.stats()?)?;
    rig.appliance.expect_alive()?;
    rig.appliance.stop()
}

/// SIGKILL at every step of an apply, of the way back, of confirm and of control's start: the old generation or the new
/// one, never a mix, nothing left behind, the next change works, and no connection notices. Among so many services that
/// the journal has differences besides whole records.
pub fn killed_at_every_step(ctx: &mut Ctx) -> Result<()> {
    let mut rig = ctx.rig()?;
    for n in 0..40 {
        rig.add_service(&format!("idle{n}"), "udp", 20_000 + n, DNS_PORT);
    }
    let order = rig.folder.join("die-at");
    rig.appliance.instead.insert("lb-primary".into(), tests::janitor::with_failpoints("lb-primary")?);
    rig.appliance.environment.push(("LB_DIE_AT".into(), format!("@{}", order.display())));
    rig.start()?;
    let (web, talk) = (format!("{VIP}:80"), format!("{VIP}:9000"));
    let talkers = rig.load("tcp-talk", &["client", "--target", &talk, "--connections", "20"])?;
    let http = rig.load("http-load", &["--target", &web, "--concurrency", "4", "--rate", "100"])?;
    let mut case = Case { lbctl: rig.lbctl()?, rig: &rig, order, now: 1, deaths: 0 };
    for place in ["publish", "journal"] {
        case.every_step(place, |case, value| {
            let answer = case.lbctl.call(&["config", "apply", &case.file(value)?])?;
            Ok(answer.code == 0)
        })?;
    }
    case.every_step("open", |case, _| {
        kill_control(case.rig)?;
        case.returned()?;
        Ok(false)
    })?;
    case.confirm()?;
    case.way_back()?;
    let deaths = case.deaths;
    let lbctl = rig.lbctl()?;
    let http: LoadReport = http.finish(LIMIT)?;
    let talk: TalkReport = talkers.finish(LIMIT)?;
    claims::all_answered("http", &http)?;
    ensure(talk.opened == 20 && talk.broken.is_empty(), || format!("connections broke: {talk:?}"))?;
    let (whole, differences) = case.records()?;
    ensure(whole > 0 && differences > 30, || format!("the journal has {whole} whole records, {differences} others"))?;
    ensure(deaths >= 30, || format!("only {deaths} deaths: are there failpoints?"))?;
    claims::law_holds(&lbctl.stats()?)?;
    rig.appliance.expect_alive()?;
    ctx.note(format!("control killed at {deaths} steps"));
    rig.appliance.stop()
}

struct Case<'a> {
    rig: &'a Rig,
    lbctl: Lbctl,
    order: PathBuf,
    /// What is in force: the weight of one server in each of two services.
    now: u64,
    deaths: u32,
}

impl Case<'_> {
    /// A file in which both services have `value`.
    fn file(&self, value: u64) -> Result<String> {
        let mut conf = self.rig.appliance.conf.clone();
        for service in ["web", "talk"] {
            conf.service(service).rs[1].weight = u32::try_from(value).unwrap_or(0);
        }
        let path = self.rig.folder.join("value.toml");
        write(&path, &conf.to_toml())?;
        Ok(path.display().to_string())
    }

    /// Whole records and differences in the journal.
    fn records(&self) -> Result<(usize, usize)> {
        let journal = self.rig.appliance.conf.state_dir.join("journal");
        let entries = std::fs::read_dir(&journal).map_err(Error::file("list", &journal))?;
        let texts: Vec<String> = entries.flatten().filter_map(|e| std::fs::read_to_string(e.path()).ok()).collect();
        let based = |text: &&String| text.lines().next().is_some_and(|first| first.contains("\"base\":"));
        let differences = texts.iter().filter(based).count();
        Ok((texts.len() - differences, differences))
    }

    fn pid(&self) -> Result<u32> {
        self.rig.appliance.control_pid()
    }

    fn returned(&self) -> Result<()> {
        claims::eventually("control's return", Duration::from_secs(20), || {
            self.pid()?;
            self.lbctl.services().map(drop)
        })
    }

    /// Orders a death; `change` brings it about (`true`: it was told that it is done).
    fn every_step(&mut self, place: &str, change: impl Fn(&Self, u64) -> Result<bool>) -> Result<()> {
        for step in 1..100 {
            let (what, value) = (format!("{place}:{step}"), if self.now == 1 { 7 } else { self.now % 90 + 1 });
            write(&self.order, &what)?;
            let done = change(self, value).map_err(|e| Error::claim(format!("{what}: {e}")))?;
            self.returned().map_err(|e| Error::claim(format!("{what}: {e}")))?;
            let died = !self.order.exists();
            let _ = std::fs::remove_file(&self.order);
            self.whole(&what, value, done)?;
            if !died {
                ensure(step > 1, || format!("{place} has no failpoint"))?;
                return Ok(());
            }
            self.deaths += 1;
        }
        Err(Error::claim(format!("{place} never ends")))
    }

    /// The old value or the new one, in both services, also in the export; nothing half made lies about; changes work.
    fn whole(&mut self, what: &str, value: u64, done: bool) -> Result<()> {
        let (web, talk) = self.weights()?;
        ensure(web == talk && (web == self.now || web == value), || {
            format!("{what}: web has {web}, talk {talk}; before {}, wanted {value}", self.now)
        })?;
        ensure(!done || web == value, || format!("{what}: done was said, and {web} is in force"))?;
        let journal = self.rig.appliance.conf.state_dir.join("journal");
        let entries = std::fs::read_dir(&journal).map_err(Error::file("list", &journal))?;
        let left: Vec<String> = entries.flatten().map(|e| e.file_name().to_string_lossy().into_owned()).collect();
        ensure(left.iter().all(|name| name.ends_with(".jsonl")), || format!("{what}: left behind: {left:?}"))?;
        let history: Vec<Value> = self.lbctl.json(&["config", "history"])?;
        let numbers: Vec<u64> = history.iter().filter_map(|h| h["generation"].as_u64()).collect();
        ensure(numbers.windows(2).all(|w| w[0] < w[1]), || format!("{what}: history is {numbers:?}"))?;
        self.now = value % 90 + 101;
        self.lbctl.ok(&["config", "apply", &self.file(self.now)?])?;
        let after = self.weights()?;
        ensure(after == (self.now, self.now), || format!("{what}: the next change gave {after:?}"))
    }

    fn weights(&self) -> Result<(u64, u64)> {
        let of = |service, port| self.lbctl.real_server(service, &self.rig.servers[1].at(port)).map(|rs| rs.weight);
        Ok((of("web", HTTP_PORT)?, of("talk", TALK_PORT)?))
    }

    /// Killed at each step of writing that a trial is over: it is over or it is not; told "done", it is over.
    fn confirm(&mut self) -> Result<()> {
        for step in 1..100 {
            let (what, value) = (format!("confirm, journal:{step}"), self.now % 90 + 1);
            self.lbctl.ok(&["config", "apply", &self.file(value)?, "--confirm", "60s"])?;
            write(&self.order, &format!("journal:{step}"))?;
            let done = self.lbctl.call(&["config", "confirm"])?.code == 0;
            self.returned()?;
            let died = !self.order.exists();
            let _ = std::fs::remove_file(&self.order);
            let again = self.lbctl.call(&["config", "confirm"])?.code;
            ensure(again == if done { 1 } else { again } && again <= 1, || format!("{what}: then {again}"))?;
            self.whole(&what, value, true)?;
            if !died {
                return Ok(());
            }
            self.deaths += 1;
        }
        Err(Error::claim("confirm never ends"))
    }

    /// Killed on the way back from an unconfirmed change: the next control goes the rest of the way.
    fn way_back(&mut self) -> Result<()> {
        for order in ["publish:1", "journal:3", "journal:5", "publish:8"] {
            let (before, value) = (self.now, self.now % 90 + 1);
            self.lbctl.ok(&["config", "apply", &self.file(value)?, "--confirm", "1s"])?;
            write(&self.order, order)?;
            claims::eventually("the death", Duration::from_secs(10), || {
                ensure(!self.order.exists(), || format!("{order} was not reached"))
            })?;
            self.deaths += 1;
            self.returned()?;
            claims::eventually("the way back", Duration::from_secs(10), || {
                let found = self.weights()?;
                ensure(found == (before, before), || format!("{order} on the way back to {before}: {found:?}"))
            })?;
            self.whole(order, before, true)?;
        }
        Ok(())
    }
}

fn kill_control(rig: &Rig) -> Result<()> {
    let pid = rig.appliance.control_pid()?;
    let raw = i32::try_from(pid).map_err(|_| Error::claim("a process id beyond i32"))?;
    kill(Pid::from_raw(raw), Signal::SIGKILL).map_err(|e| Error::claim(format!("kill {pid}: {e}")))?;
    claims::eventually("its end", Duration::from_secs(5), || {
        ensure(rig.appliance.control_pid().ok() != Some(pid), || "the killed one is still there".into())
    })
}

fn write(path: &Path, text: &str) -> Result<()> {
    std::fs::write(path, text).map_err(Error::file("write", path))
}
