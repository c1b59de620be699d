//! The table of cases (`tests/cases`) through real processes: the same that run in memory in the datapath's own tests.

use std::path::{Path, PathBuf};

use tests::netns::run;
use tests::{Error, Result, Rig, RigSpec, claims};

use crate::Ctx;

/// One untagged port.
pub fn plain(ctx: &mut Ctx) -> Result<()> {
    through_processes(ctx, "plain", |_| ())
}

/// A port whose frames carry a tag.
pub fn tagged(ctx: &mut Ctx) -> Result<()> {
    through_processes(ctx, "tagged", |rig| {
        rig.appliance.conf.vlan = 100;
        (rig.appliance.conf.slots, rig.appliance.conf.zones) = (1, vec![vec![1]]);
    })
}

/// A port that takes shorter packets than its link.
pub fn short(ctx: &mut Ctx) -> Result<()> {
    through_processes(ctx, "short", |rig| rig.appliance.conf.mtu = 1300)
}

/// Several gateways.
pub fn gateways(ctx: &mut Ctx) -> Result<()> {
    through_processes(ctx, "gateways", |rig| {
        rig.appliance.conf.gateways = ["1", "8", "9"].map(|n| format!("10.0.0.{n}")).into()
    })
}

fn script() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("cases/run.py")
}

/// An appliance with the services of all cases of `world`; the cases' program is all there is at the other end of its port.
fn through_processes(ctx: &mut Ctx, world: &str, configure: fn(&mut Rig)) -> Result<()> {
    let mut rig = ctx.rig_with(RigSpec { servers: 0, run_servers: false, ..RigSpec::new(world) })?;
    rig.appliance.conf.gateways = vec!["10.0.0.1".into()];
    configure(&mut rig);
    let services = run(rig.bridge.command("/usr/bin/python3").arg(script()).args(["toml", world]))?;
    rig.appliance.conf.services_toml = String::from_utf8_lossy(&services.stdout).into_owned();
    rig.start_primary(&[])?;
    let tap = rig.tap();
    rig.bridge.ip(&[&format!("link set {tap} nomaster"), &format!("link set {tap} arp off mtu 1500")])?;
    for (zone, _) in (0..).zip(rig.appliance.conf.zones.clone()) {
        rig.appliance.start_worker(zone, 'a', &[])?;
    }
    let socket = rig.appliance.conf.run_dir.join("control.sock");
    let mut cases = rig.bridge.command("/usr/bin/python3");
    cases.arg(script()).args(["tap", world, &tap]).arg(socket);
    cases.args(std::env::var("CASES").unwrap_or_default().split_whitespace());
    let output = cases.output().map_err(|source| Error::Spawn { program: "run.py".into(), source })?;
    let (said, errors) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    if !output.status.success() {
        return Err(Error::claim(format!("{said}{errors}")));
    }
    said.lines().for_each(|line| ctx.note(line));
    let stats = rig.lbctl()?.stats()?;
    claims::law_holds(&stats)?;
    claims::rings_are_empty(&stats)?;
    rig.appliance.expect_alive()?;
    rig.appliance.stop()
}
