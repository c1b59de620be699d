//! ICMP errors of real kernels, through the appliance to the ends they are for.

use tests::conf::VIP;
use tests::error::ensure;
use tests::netns::{Netns, run, wire};
use tests::servers::STREAM_PORT;
use tests::{Result, Rig, claims};

use crate::Ctx;

/// What the client's kernel is as a router: on the appliance's network, and before the far host.
const ROUTER: &str = "10.0.0.11";
/// The far host.
const FAR: &str = "10.7.0.2";

/// A client behind a router whose next link takes only 1,280 bytes, while the client's own link takes 1,500 (so its MSS says
/// nothing of it): the router's "fragmentation needed" is about packets of the VIP and must come to the real server, or the
/// download stands still after the first window.
pub fn path_mtu(ctx: &mut Ctx) -> Result<()> {
    let mut rig = ctx.rig()?;
    rig.appliance.conf.gateways = vec![ROUTER.into()];
    rig.start()?;
    let far = far_client(&rig)?;
    for _ in 0..3 {
        claims::download_is_whole(&rig, &far, 15)?;
    }
    // A server that has learned it has learned it of the path to the local address: that is where its packets go.
    let learned = rig.servers.iter().filter(|host| {
        let routes = run(host.ns.command("ip").args(["route", "show", "cache"]));
        routes.is_ok_and(|output| String::from_utf8_lossy(&output.stdout).contains("mtu 1280"))
    });
    let learned = learned.count();
    ensure(learned > 0, || "no server knows the path MTU, and yet the downloads ended".into())?;
    claims::law_holds(&rig.lbctl()?.stats()?)?;
    rig.appliance.expect_alive()?;
    rig.appliance.stop()
}

/// A host behind the client, reached by a link whose router's end takes 1,280 bytes.
fn far_client(rig: &Rig) -> Result<Netns> {
    let name = format!("{}-far", rig.appliance.conf.name);
    rig.janitor().netns(&name);
    let far = Netns::create(&name)?;
    wire(&rig.client, "far", &far, "eth0")?;
    rig.client.sysctl(&["net.ipv4.ip_forward=1"])?;
    rig.client.ip(&["addr add 10.7.0.1/24 dev far", "link set far mtu 1280 up"])?;
    far.ip(&[&format!("addr add {FAR}/24 dev eth0"), "link set eth0 up", "route add default via 10.7.0.1"])?;
    Ok(far)
}

/// A server where nobody listens says so by ICMP: the client's socket must hear it.
pub fn port_unreachable(ctx: &mut Ctx) -> Result<()> {
    const ASK: &str = "import socket, sys\n\
        s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)\n\
        s.settimeout(5)\n\
        s.connect((sys.argv[1], 7001))\n\
        s.send(b'anybody there?')\n\
        try:\n    print(s.recv(100))\nexcept ConnectionRefusedError:\n    print('refused')\n";
    let mut rig = ctx.rig()?;
    rig.add_service("nobody", "udp", 7001, STREAM_PORT + 1);
    rig.start()?;
    for _ in 0..10 {
        let told = run(rig.client.command("/usr/bin/python3").args(["-c", ASK, VIP]))?;
        let told = String::from_utf8_lossy(&told.stdout).trim().to_string();
        ensure(told == "refused", || format!("the client heard {told:?}"))?;
    }
    claims::law_holds(&rig.lbctl()?.stats()?)?;
    rig.appliance.stop()
}
