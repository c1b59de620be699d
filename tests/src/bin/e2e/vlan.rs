//! A port whose link is tagged.

use std::path::Path;
use std::time::Duration;

use tests::conf::VIP;
use tests::daemon::Daemon;
use tests::load::LoadReport;
use tests::netns::run;
use tests::{Result, Rig, claims};

use crate::Ctx;

const VLAN: u16 = 100;
const LIMIT: Duration = Duration::from_secs(60);

/// The appliance on a trunk, client and servers untagged behind the access port: what crosses carries the tag both ways, or the
/// relay between them passes nothing.
pub fn tagged_port(ctx: &mut Ctx) -> Result<()> {
    let mut rig = ctx.rig()?;
    rig.appliance.conf.vlan = VLAN;
    let mut relay = start_on_trunk(&mut rig, VLAN)?;
    run(rig.client.command("ping").args(["-c", "2", "-i", "0.2", "-W", "2", VIP]))?;
    let (web, dns) = (format!("{VIP}:80"), format!("{VIP}:53"));
    let http: LoadReport = rig.load("http-load", &["--target", &web, "--requests", "1000"])?.report(LIMIT)?;
    claims::all_answered("http", &http)?;
    let udp: LoadReport = rig.load("udp-load", &["--target", &dns, "--queries", "1000"])?.report(LIMIT)?;
    claims::all_answered("udp", &udp)?;
    claims::download_is_whole(&rig, &rig.client, 30)?;
    claims::law_holds(&rig.lbctl()?.stats()?)?;
    relay.expect_alive()?;
    relay.stop(Duration::from_secs(5))?;
    rig.appliance.expect_alive()?;
    rig.appliance.stop()
}

/// Starts the appliance, its tap joined to the bridge by a relay that takes off and puts on the tag.
pub fn start_on_trunk(rig: &mut Rig, vlan: u16) -> Result<Daemon> {
    rig.start_primary(&[])?;
    rig.bridge.ip(&["link add name access type veth peer name switch", "link set access master br0"])?;
    run(rig.bridge.command("ethtool").args(["-K", "access", "tx", "off"]))?;
    rig.bridge.ip(&["link set access up", "link set switch up"])?;
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("scapy/vlan_relay.py");
    let mut relay = rig.bridge.command("/usr/bin/python3");
    relay.arg(script).args([&rig.tap(), "switch", &vlan.to_string()]);
    let relay = Daemon::spawn("vlan-relay", &rig.folder, relay, false)?;
    rig.appliance.start_worker(0, 'a', &[])?;
    rig.appliance.start_worker(1, 'a', &[])?;
    rig.appliance.start_healthcheck()?;
    rig.wait_all_up(Duration::from_secs(15))?;
    Ok(relay)
}
