//! The rig's network with IPv6 beside IPv4: one silent link, no router, no duplicate detection.

use crate::conf::Service;
use crate::netns::Netns;
use crate::{Result, Rig};

/// Address of the appliance on the port.
pub const APPLIANCE: &str = "fd00::2";
/// Address of the management leg.
pub const MANAGEMENT: &str = "fd00::3";
/// The client's address.
pub const CLIENT: &str = "fd00::11";
/// TCP and UDP address of the services.
pub const VIP: &str = "fd00::100";
/// Local addresses.
pub const LADDRS: &str = "fd00::80/126";
/// Prefix length of the network.
pub const PREFIX: u8 = 64;

/// Address of the `number`-th server host, from 0.
#[must_use]
pub fn server(number: usize) -> String {
    format!("fd00::{}", 21 + number)
}

/// `address:port` as it is written.
#[must_use]
pub fn at(address: &str, port: u16) -> String {
    format!("[{address}]:{port}")
}

/// Gives client, servers, management leg and the appliance's port (in its configuration) IPv6 addresses; before the appliance
/// is started.
///
/// # Errors
/// The kernel's.
pub fn lay(rig: &mut Rig) -> Result<()> {
    awake(&rig.client, "eth0", CLIENT)?;
    // Only the leg: the tap's kernel end is made in the same namespace and is to be silent.
    awake(&rig.app, "mgmt0", MANAGEMENT)?;
    for (number, host) in rig.servers.iter().enumerate() {
        awake(&host.ns, "eth0", &server(number))?;
    }
    let conf = &mut rig.appliance.conf;
    conf.addresses.push(format!("{APPLIANCE}/{PREFIX}"));
    conf.laddrs.push(LADDRS.into());
    Ok(())
}

/// IPv6 on one interface, which says nothing by itself.
///
/// # Errors
/// The kernel's.
pub fn awake(ns: &Netns, interface: &str, address: &str) -> Result<()> {
    let keys = ["disable_ipv6=0", "accept_dad=0", "dad_transmits=0", "accept_ra=0", "router_solicitations=0"];
    let keys = keys.map(|key| format!("net.ipv6.conf.{interface}.{key}"));
    ns.sysctl(&keys.each_ref().map(String::as_str))?;
    ns.ip(&[&format!("addr add {address}/{PREFIX} dev {interface} nodad")])
}

/// A service on the VIP's `port`, with every host's `server_port` at the addresses `of` names.
pub fn add_service(rig: &mut Rig, name: &str, protocol: &'static str, vip: String, of: impl Fn(&Rig, usize) -> String) {
    let mut service = Service::new(name, vip, protocol);
    for number in 0..rig.servers.len() {
        service = service.with(of(rig, number), 1);
    }
    rig.appliance.conf.services.push(service);
}
