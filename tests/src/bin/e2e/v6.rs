//! IPv6 and NAT64 with real kernels at both ends: every mode, path MTU, neighbours.

use std::time::Duration;

use tests::conf::VIP as VIP4;
use tests::daemon::Daemon;
use tests::error::ensure;
use tests::load::LoadReport;
use tests::netns::{Netns, run, wire};
use tests::servers::{DNS_PORT, HTTP_PORT, STREAM_PORT};
use tests::v6::{self, APPLIANCE, CLIENT, VIP, at};
use tests::{Result, Rig, claims, wait};

use crate::Ctx;
use crate::modes::{transfers, tunnel_ends};

const LIMIT: Duration = Duration::from_secs(60);

/// Servers of a service.
#[derive(Clone, Copy)]
enum Servers {
    V4,
    V6,
}

/// A rig with IPv6, the services `web` and `dns` on the ports of `vip`, and UDP servers at IPv6 addresses.
fn rig(ctx: &mut Ctx, vip: &str, ports: (u16, u16), servers: Servers) -> Result<Rig> {
    let mut rig = ctx.bare_rig()?;
    v6::lay(&mut rig)?;
    let folder = rig.folder.clone();
    for (number, host) in rig.servers.iter_mut().enumerate() {
        host.start_dns_at(&folder, &format!("[{}]", v6::server(number)))?;
    }
    let of = |port: u16| {
        move |rig: &Rig, number: usize| match servers {
            Servers::V4 => rig.servers[number].at(port),
            Servers::V6 => at(&v6::server(number), port),
        }
    };
    v6::add_service(&mut rig, "web", "tcp", format!("{vip}:{}", ports.0), of(HTTP_PORT));
    v6::add_service(&mut rig, "dns", "udp", format!("{vip}:{}", ports.1), of(DNS_PORT));
    Ok(rig)
}

fn set_mode(rig: &mut Rig, mode: &'static str) {
    rig.appliance.conf.services.iter_mut().for_each(|service| service.mode = mode);
}

fn whoami(rig: &Rig) -> Result<String> {
    let seen = run(rig.client.command("curl").args(["-gsS", "--max-time", "10", &format!("http://[{VIP}]/whoami")]))?;
    Ok(String::from_utf8_lossy(&seen.stdout).trim().to_string())
}

/// Neighbour solicitations and echo are answered for the port's address, its link-local one and the VIP; transfers; what the
/// views say of IPv6.
pub fn fullnat(ctx: &mut Ctx) -> Result<()> {
    let mut rig = rig(ctx, &format!("[{VIP}]"), (80, 53), Servers::V6)?;
    rig.start()?;
    for address in [APPLIANCE, VIP] {
        run(rig.client.command("ping").args(["-6", "-c", "3", "-i", "0.2", "-W", "2", address]))?;
    }
    let seen = whoami(&rig)?;
    ensure(seen.starts_with("fd00::8"), || format!("the server saw the client as {seen:?}"))?;
    transfers(ctx, &rig, &at(VIP, 80), &at(VIP, 53))?;
    views(&rig)?;
    claims::rings_are_empty(&rig.lbctl()?.stats()?)?;
    rig.appliance.expect_alive()?;
    rig.appliance.stop()
}

/// Sessions are listed with their IPv6 addresses, found by them, and ended by them.
fn views(rig: &Rig) -> Result<()> {
    let lbctl = rig.lbctl()?;
    let all = lbctl.sessions(&["--service", "dns", "--client", CLIENT, "--limit", "5"])?;
    let (client, vip) = (format!("[{CLIENT}]:"), at(VIP, 53));
    let good = all.len() == 5 && all.iter().all(|s| s.client.starts_with(&client) && s.vip == vip);
    ensure(good, || format!("session list shows {all:?}"))?;
    let nobody = lbctl.sessions(&["--client", "fd00::12"])?;
    ensure(nobody.is_empty(), || format!("sessions of a client that there is not: {nobody:?}"))?;
    lbctl.ok(&["session", "kill", "--client", CLIENT])?;
    claims::eventually("no sessions", Duration::from_secs(5), || {
        let left = lbctl.sessions(&["--client", CLIENT])?;
        ensure(left.is_empty(), || format!("{} sessions are left", left.len()))
    })
}

/// Servers see the client's address and answer by way of the appliance.
pub fn nat(ctx: &mut Ctx) -> Result<()> {
    let mut rig = rig(ctx, &format!("[{VIP}]"), (80, 53), Servers::V6)?;
    rig.appliance.conf.laddrs.clear();
    set_mode(&mut rig, "nat");
    for host in &rig.servers {
        host.ns.ip(&[&format!("route add {CLIENT}/128 via {APPLIANCE} dev eth0")])?;
    }
    rig.start()?;
    let seen = whoami(&rig)?;
    ensure(seen.starts_with(&format!("{CLIENT}:")), || format!("the server saw the client as {seen:?}"))?;
    transfers(ctx, &rig, &at(VIP, 80), &at(VIP, 53))?;
    rig.appliance.expect_alive()?;
    rig.appliance.stop()
}

/// Gives the servers the VIPs. On `lo` nobody is answered for an IPv6 one.
fn vip_at_servers(rig: &mut Rig) -> Result<()> {
    let folder = rig.folder.clone();
    for host in &mut rig.servers {
        host.ns.sysctl(&["net.ipv6.conf.lo.disable_ipv6=0", "net.ipv4.conf.all.arp_ignore=1"])?;
        host.ns.ip(&[&format!("addr add {VIP}/128 dev lo nodad"), &format!("addr add {VIP4}/32 dev lo")])?;
        host.start_dns_at(&folder, &format!("[{VIP}]"))?;
        host.start_dns_at(&folder, VIP4)?;
    }
    Ok(())
}

/// Servers have the VIP themselves and reply past the appliance.
pub fn dr(ctx: &mut Ctx) -> Result<()> {
    let mut rig = rig(ctx, &format!("[{VIP}]"), (HTTP_PORT, DNS_PORT), Servers::V6)?;
    rig.appliance.conf.laddrs.clear();
    set_mode(&mut rig, "dr");
    vip_at_servers(&mut rig)?;
    rig.start()?;
    transfers(ctx, &rig, &at(VIP, HTTP_PORT), &at(VIP, DNS_PORT))?;
    rig.appliance.expect_alive()?;
    rig.appliance.stop()
}

/// IPv6 in IPv6. The client's full segments do not fit: an upload gets on only because the client is told so.
pub fn tunnel(ctx: &mut Ctx) -> Result<()> {
    through_tunnel(ctx, &format!("[{VIP}]"), Servers::V6)
}

/// IPv6 in IPv4, and IPv4 in IPv6.
pub fn tunnels_across(ctx: &mut Ctx) -> Result<()> {
    through_tunnel(ctx, &format!("[{VIP}]"), Servers::V4)?;
    through_tunnel(ctx, VIP4, Servers::V6)
}

fn through_tunnel(ctx: &mut Ctx, vip: &str, servers: Servers) -> Result<()> {
    let mut rig = rig(ctx, vip, (HTTP_PORT, DNS_PORT), servers)?;
    set_mode(&mut rig, "tunnel");
    vip_at_servers(&mut rig)?;
    let mut ends = tunnel_ends(&rig)?;
    rig.start()?;
    transfers(ctx, &rig, &format!("{vip}:{HTTP_PORT}"), &format!("{vip}:{DNS_PORT}"))?;
    ends.iter_mut().try_for_each(Daemon::expect_alive)?;
    rig.appliance.expect_alive()?;
    rig.appliance.stop()
}

/// IPv6 clients of IPv4 servers.
pub fn nat64(ctx: &mut Ctx) -> Result<()> {
    let mut rig = rig(ctx, &format!("[{VIP}]"), (80, 53), Servers::V4)?;
    // None is needed of IPv6.
    rig.appliance.conf.laddrs.retain(|range| range != v6::LADDRS);
    rig.start()?;
    let seen = whoami(&rig)?;
    ensure(seen.starts_with("10.0.0.1"), || format!("the server saw the client as {seen:?}"))?;
    transfers(ctx, &rig, &at(VIP, 80), &at(VIP, 53))?;
    rig.appliance.expect_alive()?;
    rig.appliance.stop()
}

/// The far host, and the MTU of the link before it.
const FAR: &str = "fd00:7::2";
const NARROW: u32 = 1300;

/// A client behind a router whose next link takes fewer bytes than the client's own: what the router reports ("packet too big") is
/// about packets of the VIP and must come to the real servers, those of IPv4 too, or the download stands still.
pub fn path_mtu(ctx: &mut Ctx) -> Result<()> {
    let mut rig = rig(ctx, &format!("[{VIP}]"), (80, 53), Servers::V6)?;
    let of = |rig: &Rig, number: usize| rig.servers[number].at(HTTP_PORT);
    v6::add_service(&mut rig, "web64", "tcp", at(VIP, 81), of);
    rig.appliance.conf.gateways = vec![CLIENT.into()];
    rig.start()?;
    let far = far_client(&rig)?;
    for (port, family, mtu) in [(80, "-6", NARROW), (81, "-4", NARROW - 20)] {
        for _ in 0..3 {
            claims::download_from_is_whole(&rig, &far, &at(VIP, port), 15)?;
        }
        let told = format!("mtu {mtu}");
        let learned = rig.servers.iter().filter(|host| {
            let routes = run(host.ns.command("ip").args([family, "route", "show", "cache"]));
            routes.is_ok_and(|output| String::from_utf8_lossy(&output.stdout).contains(&told))
        });
        let learned = learned.count();
        ensure(learned > 0, || format!("no server of family {family} knows the path MTU {mtu}"))?;
    }
    claims::law_holds(&rig.lbctl()?.stats()?)?;
    rig.appliance.expect_alive()?;
    rig.appliance.stop()
}

/// A host behind the client, reached by a link whose router's end takes [`NARROW`].
fn far_client(rig: &Rig) -> Result<Netns> {
    let name = format!("{}-far", rig.appliance.conf.name);
    rig.janitor().netns(&name);
    let far = Netns::create(&name)?;
    wire(&rig.client, "far", &far, "eth0")?;
    v6::awake(&rig.client, "far", "fd00:7::1")?;
    v6::awake(&far, "eth0", FAR)?;
    rig.client.sysctl(&["net.ipv6.conf.all.forwarding=1"])?;
    rig.client.ip(&[&format!("link set far mtu {NARROW}")])?;
    far.ip(&["route add default via fd00:7::1"])?;
    Ok(far)
}

/// A server where nobody listens says so by ICMP, of its own family: the client's socket must hear it.
pub fn port_unreachable(ctx: &mut Ctx) -> Result<()> {
    const ASK: &str = "import socket, sys\n\
        s = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)\n\
        s.settimeout(5)\n\
        s.connect((sys.argv[1], int(sys.argv[2])))\n\
        s.send(b'anybody there?')\n\
        try:\n    print(s.recv(100))\nexcept ConnectionRefusedError:\n    print('refused')\n";
    let mut rig = rig(ctx, &format!("[{VIP}]"), (80, 53), Servers::V6)?;
    v6::add_service(&mut rig, "nobody6", "udp", at(VIP, 7001), |_, number| at(&v6::server(number), STREAM_PORT + 1));
    v6::add_service(&mut rig, "nobody4", "udp", at(VIP, 7002), |rig, number| rig.servers[number].at(STREAM_PORT + 1));
    rig.start()?;
    for port in ["7001", "7002"] {
        for _ in 0..5 {
            let told = run(rig.client.command("/usr/bin/python3").args(["-c", ASK, VIP, port]))?;
            let told = String::from_utf8_lossy(&told.stdout).trim().to_string();
            ensure(told == "refused", || format!("the client of port {port} heard {told:?}"))?;
        }
    }
    claims::law_holds(&rig.lbctl()?.stats()?)?;
    rig.appliance.stop()
}

/// A server that is gone is noticed (it answers no solicitation), and found again when it is back with another MAC.
pub fn neighbours(ctx: &mut Ctx) -> Result<()> {
    let mut rig = rig(ctx, &format!("[{VIP}]"), (80, 53), Servers::V6)?;
    rig.start()?;
    let lbctl = rig.lbctl()?;
    let first = v6::server(0);
    let state = |wanted: &str, limit: u64| {
        wait::until_ok(
            &format!("neighbour {first} {wanted}"),
            Duration::from_secs(limit),
            Duration::from_millis(200),
            || {
                let all: serde_json::Value = lbctl.json(&["neigh", "list"])?;
                let own = all.as_array().and_then(|all| all.iter().find(|n| n["address"] == first.as_str()));
                ensure(own.is_some_and(|n| n["state"] == wanted), || format!("{own:?}"))
            },
        )
    };
    state("reachable", 5)?;
    let host = &rig.servers[0].ns;
    host.ip(&["link set eth0 down"])?;
    state("failed", 45)?;
    host.ip(&["link set eth0 address 02:00:0a:00:00:77", "link set eth0 up"])?;
    // Down, the interface has lost its IPv6 addresses.
    v6::awake(host, "eth0", &first)?;
    state("reachable", 10)?;
    rig.wait_all_up(Duration::from_secs(15))?;
    let http: LoadReport = rig.load("http-load", &["--target", &at(VIP, 80), "--requests", "300"])?.report(LIMIT)?;
    claims::all_answered("http", &http)?;
    claims::equal_shares("http", &http, 3, 2.0)?;
    claims::law_holds(&lbctl.stats()?)?;
    rig.appliance.stop()
}

/// The appliance on a trunk, IPv6 client and servers untagged behind the access port.
pub fn tagged_port(ctx: &mut Ctx) -> Result<()> {
    const VLAN: u16 = 100;
    let mut rig = rig(ctx, &format!("[{VIP}]"), (80, 53), Servers::V6)?;
    rig.appliance.conf.vlan = VLAN;
    let mut relay = crate::vlan::start_on_trunk(&mut rig, VLAN)?;
    run(rig.client.command("ping").args(["-6", "-c", "2", "-i", "0.2", "-W", "2", VIP]))?;
    let http: LoadReport = rig.load("http-load", &["--target", &at(VIP, 80), "--requests", "1000"])?.report(LIMIT)?;
    claims::all_answered("http", &http)?;
    let udp: LoadReport = rig.load("udp-load", &["--target", &at(VIP, 53), "--queries", "1000"])?.report(LIMIT)?;
    claims::all_answered("udp", &udp)?;
    claims::download_from_is_whole(&rig, &rig.client, &at(VIP, 80), 30)?;
    claims::law_holds(&rig.lbctl()?.stats()?)?;
    relay.expect_alive()?;
    relay.stop(Duration::from_secs(5))?;
    rig.appliance.expect_alive()?;
    rig.appliance.stop()
}
