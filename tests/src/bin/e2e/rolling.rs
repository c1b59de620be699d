//! Rolling upgrades under the full load: what a user sees of them.

use std::thread::sleep;
use std::time::Duration;

use tests::clock::now_us;
use tests::error::ensure;
use tests::gaps::{longest_within, percentile};
use tests::heavy::{Heavy, Weight};
use tests::{Result, Rig, claims};

use crate::Ctx;

/// Upgrades of each zone.
const ROUNDS: usize = 10;
/// Part of an upgrade that is compared with as long a part of its trial, in which nothing happens: attach and hand-over
/// lie in it.
const WINDOW_US: u64 = 1_200_000;
/// What an upgrade may add to the longest silence of a flow, median.
const BLOCKED_US: u64 = 5000;

/// Two zones on two CPUs, sleeping when there is nothing to do.
pub fn adaptive(ctx: &mut Ctx) -> Result<()> {
    rolling(ctx, "adaptive", vec![vec![0], vec![1]])
}

/// One zone that polls its CPU without a pause; the rest of the machine shares the other one.
pub fn busy(ctx: &mut Ctx) -> Result<()> {
    rolling(ctx, "busy", vec![vec![1]])
}

fn rolling(ctx: &mut Ctx, poll: &'static str, zones: Vec<Vec<u32>>) -> Result<()> {
    let mut rig = ctx.rig()?;
    let count = u32::try_from(zones.len()).unwrap_or(1);
    rig.appliance.conf.poll = poll;
    rig.appliance.conf.zones = zones;
    rig.add_stream_service();
    rig.start()?;
    let lbctl = rig.lbctl()?;
    let heavy = Heavy::start(&rig, Weight::default())?;
    ctx.note(format!("{poll}: loss-free rate {}/s, stream at its half", heavy.search.rate));
    let (mut with, mut without) = (Vec::new(), Vec::new());
    sleep(Duration::from_secs(3));
    for round in 0..ROUNDS {
        for zone in 0..count {
            let begin_us = now_us();
            let end_us = upgrade(&mut rig, &heavy, zone, round)?;
            with.push((begin_us, begin_us + WINDOW_US));
            without.push((end_us - WINDOW_US, end_us));
        }
    }
    let report = heavy.finish(&rig)?;
    report.notes().iter().for_each(|note| ctx.note(note));
    report.nothing_broke()?;
    report.no_datagram_lost()?;
    let longest = |windows: &[(u64, u64)]| -> Vec<u64> {
        windows.iter().map(|(from, to)| longest_within(&report.stream.gaps, *from, *to)).collect()
    };
    let (with, without) = (longest(&with), longest(&without));
    let (median, usual) = (percentile(&with, 50), percentile(&without, 50));
    ctx.note(format!(
        "{} upgrades: longest silence of a flow, median {median} µs (worst {}); in as long windows without {usual} µs (worst {})",
        with.len(),
        percentile(&with, 100),
        percentile(&without, 100)
    ));
    ensure(median <= usual + BLOCKED_US, || format!("an upgrade blocks for {} µs", median - usual))?;
    claims::eventually("the law after the upgrades", Duration::from_secs(5), || claims::law_holds(&lbctl.stats()?))?;
    rig.appliance.expect_alive()?;
    rig.appliance.stop()
}

/// Relieves the worker of `zone`; returns when the old one had left.
fn upgrade(rig: &mut Rig, heavy: &Heavy, zone: u32, round: usize) -> Result<u64> {
    let (from, to) = if round.is_multiple_of(2) { ('a', 'b') } else { ('b', 'a') };
    rig.appliance.start_worker(zone, to, &["--take-over"])?;
    if let Some(successor) = rig.appliance.workers.get(&format!("{zone}{to}")) {
        heavy.starvation.add(successor.pid());
    }
    if let Some(mut relieved) = rig.appliance.workers.remove(&format!("{zone}{from}")) {
        let status = relieved.wait_end(Duration::from_secs(20))?;
        ensure(status.success(), || format!("the relieved worker ended with {status}:\n{}", relieved.log_tail(15)))?;
    }
    Ok(now_us())
}
