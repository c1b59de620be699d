//! Changes of the configuration while traffic flows.

use std::thread::sleep;
use std::time::Duration;

use tests::conf::VIP;
use tests::error::ensure;
use tests::load::{LoadReport, TalkReport};
use tests::servers::{HTTP_PORT, TALK_PORT};
use tests::{Result, claims};

use crate::Ctx;

const LIMIT: Duration = Duration::from_secs(60);

/// Adding, weighing, draining, removing servers and changing the scheduler loses nothing: every
/// request is answered, every established connection lives.
pub fn under_traffic(ctx: &mut Ctx) -> Result<()> {
    let mut rig = ctx.rig()?;
    // s3 is there but not in `web` yet.
    rig.appliance.conf.service("web").rs.pop();
    rig.start()?;
    let lbctl = rig.lbctl()?;
    let (web, talk) = (format!("{VIP}:80"), format!("{VIP}:9000"));
    let third = rig.servers[2].at(HTTP_PORT);
    let second = rig.servers[1].at(HTTP_PORT);
    let talkers = rig.load("tcp-talk", &["client", "--target", &talk, "--connections", "40"])?;
    let http = rig.load("http-load", &["--target", &web, "--concurrency", "8", "--rate", "400"])?;
    let pause = || sleep(Duration::from_millis(700));
    pause();
    let mut last = 0;
    for change in [
        vec!["rs", "add", "web", &third, "--weight", "1"],
        vec!["rs", "set", "web", &second, "--weight", "3"],
        vec!["service", "set", "web", "--scheduler", "wrr"],
        vec!["rs", "drain", "web", &second],
        vec!["service", "set", "web", "--scheduler", "lc"],
        vec!["rs", "enable", "web", &second],
        vec!["rs", "del", "web", &third],
        vec!["rs", "add", "web", &third],
        vec!["service", "set", "web", "--scheduler", "rr"],
        vec!["rs", "drain", "talk", &rig.servers[0].at(TALK_PORT)],
        vec!["rs", "set", "talk", &rig.servers[1].at(TALK_PORT), "--weight", "5"],
    ] {
        lbctl.ok(&change)?;
        last += 1;
        pause();
    }
    // The same by a whole file: back to what it began with.
    let file = rig.appliance.conf_path.display().to_string();
    lbctl.ok(&["config", "apply", &file])?;
    pause();
    let http: LoadReport = http.finish(LIMIT)?;
    let talk: TalkReport = talkers.finish(LIMIT)?;
    claims::all_answered("http", &http)?;
    ensure(talk.opened == 40 && talk.broken.is_empty(), || format!("connections broke: {talk:?}"))?;
    for server in ["s1", "s2", "s3"] {
        ensure(http.by_server.contains_key(server), || format!("{server} was in use: {:?}", http.by_server))?;
    }
    claims::law_holds(&lbctl.stats()?)?;
    rig.appliance.expect_alive()?;
    ctx.note(format!("{last} changes and an apply; {} requests, longest {} ms", http.ok, http.max_us / 1000));
    Ok(())
}

/// What each admin state does to established connections: drain nothing, disable ends those of
/// the one server, del waits for the last; ids are never given again.
pub fn drain_disable_del(ctx: &mut Ctx) -> Result<()> {
    let mut rig = ctx.rig()?;
    rig.start()?;
    let lbctl = rig.lbctl()?;
    let talk = format!("{VIP}:9000");
    let (s1, s2) = (rig.servers[0].at(TALK_PORT), rig.servers[1].at(TALK_PORT));
    let count = |address: &str| lbctl.sessions(&["--service", "talk", "--rs", address]).map(|s| s.len());
    let begin = || rig.load("tcp-talk", &["client", "--target", &talk, "--connections", "30"]);

    let load = begin()?;
    sleep(Duration::from_secs(1));
    let (on_s1, on_s2) = (count(&s1)?, count(&s2)?);
    // Each of the two slots goes round by itself: a server may be one off in each.
    ensure(on_s1.abs_diff(10) <= 2 && on_s2.abs_diff(10) <= 2, || {
        format!("of 30 connections {on_s1} are on s1, {on_s2} on s2")
    })?;

    lbctl.ok(&["rs", "drain", "talk", &s1])?;
    let more = rig.load("tcp-talk", &["client", "--target", &talk, "--connections", "10"])?;
    sleep(Duration::from_secs(1));
    ensure(count(&s1)? == on_s1, || "a drained server got sessions or lost them".into())?;
    ensure(lbctl.real_server("talk", &s1)?.admin == "drain", || "rs list does not show drain".into())?;
    let report: TalkReport = more.finish(LIMIT)?;
    ensure(report.broken.is_empty() && report.opened == 10, || format!("{report:?}"))?;

    lbctl.ok(&["rs", "disable", "talk", &s1])?;
    claims::eventually("no session of a disabled server", Duration::from_secs(3), || {
        let left = count(&s1)?;
        ensure(left == 0, || format!("{left} are left"))
    })?;
    sleep(Duration::from_millis(500)); // Each connection's next round finds the reset.
    let report: TalkReport = load.finish(LIMIT)?;
    ensure(report.broken.len() == on_s1, || {
        format!("disable of a server with {on_s1} connections broke {}: {report:?}", report.broken.len())
    })?;

    // del: gone with the last session.
    lbctl.ok(&["rs", "enable", "talk", &s1])?;
    let old = lbctl.real_server("talk", &s2)?;
    let load = begin()?;
    sleep(Duration::from_secs(1));
    let kept = count(&s2)?;
    lbctl.ok(&["rs", "del", "talk", &s2])?;
    sleep(Duration::from_secs(1));
    ensure(kept > 0 && count(&s2)? == kept, || format!("del ended sessions: {kept} before"))?;
    let report: TalkReport = load.finish(LIMIT)?;
    ensure(report.broken.is_empty(), || format!("{report:?}"))?;
    claims::eventually("s2 gone from rs list", Duration::from_secs(10), || {
        ensure(lbctl.real_server("talk", &s2).is_err(), || "it is still listed".into())
    })?;
    lbctl.ok(&["rs", "add", "talk", &s2])?;
    let new = lbctl.real_server("talk", &s2)?;
    // Its id may be given again now that no session has it; its counts may not.
    ensure(new.sessions == 0 && new.sessions_total < old.sessions_total, || {
        format!("the new server has the counts of the old one: {} total", new.sessions_total)
    })
}
