//! The network: the rig's, with a namespace for the peers, and a second client behind a bridge of its own, which reaches
//! the server only through what joins the two bridges.
//!
//! ```text
//!   client 10.0.0.11 ─┐                       ┌─ tap ── the appliance (VIP 10.0.0.100)
//!   peer   10.0.0.4  ─┼──────── br0 ──────────┼─ server 10.0.0.21: nginx
//!                     └─ tap 1 ── testpmd ── tap 0 ── br1 ── far client 10.0.0.12
//! ```
//!
//! A packet through the appliance and one through testpmd cross the same: a veth, a bridge, a tap in, a tap out, a bridge,
//! a veth; each is polled by one thread.

use tests::conf::PREFIX;
use tests::netns::{Netns, wire};
use tests::rig::BRIDGE;
use tests::servers::HTTP_PORT;
use tests::{Result, Rig, RigSpec};

/// Address of the peers' namespace.
pub const PEER: &str = "10.0.0.4";
/// The far client's.
const FAR: &str = "10.0.0.12";
/// The far bridge.
pub const FAR_BRIDGE: &str = "br1";

/// What everybody runs in.
pub struct Network {
    /// Client, server, bridge, and the appliance's place.
    pub rig: Rig,
    /// Where proxies and packet filters run.
    pub peer: Netns,
    /// Behind the second bridge.
    pub far: Netns,
}

impl Network {
    /// Lays it and starts the server.
    pub fn lay() -> Result<Self> {
        let mut spec = RigSpec::new("users");
        // One server: three would compete for two CPUs, and what is in between is to be seen.
        (spec.servers, spec.run_servers) = (1, false);
        let mut rig = Rig::new(&spec)?;
        let folder = rig.folder.clone();
        rig.servers[0].start_nginx(&folder)?;
        rig.add_service("web", "tcp", 80, HTTP_PORT);
        let conf = &mut rig.appliance.conf;
        // As testpmd: one polling thread on CPU 1, one queue.
        (conf.zones, conf.slots) = (vec![vec![1]], 1);
        let make = |part: &str| {
            let name = format!("lb{}-users-{part}", std::process::id());
            rig.janitor().netns(&name);
            Netns::create(&name)
        };
        let (peer, far) = (make("peer")?, make("far")?);
        rig.bridge.ip(&[
            &format!("link add {FAR_BRIDGE} type bridge stp_state 0 forward_delay 0 mcast_snooping 0"),
            &format!("link set {FAR_BRIDGE} up"),
        ])?;
        for (ns, address, end, bridge) in [(&peer, PEER, "peer", BRIDGE), (&far, FAR, "far", FAR_BRIDGE)] {
            wire(ns, "eth0", &rig.bridge, end)?;
            ns.ip(&[&format!("addr add {address}/{PREFIX} dev eth0")])?;
            rig.bridge.ip(&[&format!("link set {end} master {bridge}")])?;
        }
        for ns in [&rig.client, &far, &peer] {
            // Ten thousand connections a second for seconds: ports in TIME_WAIT are used again.
            ns.sysctl(&["net.ipv4.ip_local_port_range=1024 65000", "net.ipv4.tcp_tw_reuse=1"])?;
        }
        peer.sysctl(&["net.ipv4.ip_forward=1", "net.ipv4.conf.all.send_redirects=0"])?;
        peer.sysctl(&["net.ipv4.conf.eth0.send_redirects=0"])?;
        Ok(Self { rig, peer, far })
    }

    /// `ADDRESS:PORT` of the server itself.
    pub fn server(&self) -> String {
        self.rig.servers[0].at(HTTP_PORT)
    }
}
