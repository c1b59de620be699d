//! Where packets can be lost in a rig, besides in the appliance: read before and after, so that a
//! loss is blamed on the place it happened at.

use std::collections::BTreeMap;

use crate::netns::{Netns, run};
use crate::{Result, Rig};

/// Lost packets by place.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Places(BTreeMap<String, u64>);

impl Places {
    /// All places of `rig` that the kernel keeps count of: UDP sockets of client and servers, and
    /// every wire's ends, the tap's included.
    ///
    /// # Errors
    /// When one cannot be read.
    pub fn read(rig: &Rig) -> Result<Self> {
        let mut places = Self::default();
        places.udp("client", &rig.client)?;
        places.link("client eth0", &rig.client, "eth0")?;
        places.link("bridge cli", &rig.bridge, "cli")?;
        for host in &rig.servers {
            places.udp(&host.name, &host.ns)?;
            places.link(&format!("{} eth0", host.name), &host.ns, "eth0")?;
            places.link(&format!("bridge {}", host.name), &rig.bridge, &host.name)?;
        }
        if rig.bridge.has_link(&rig.tap()) {
            // tx: the appliance did not read in time; rx: the kernel did not take what it wrote.
            places.link("tap", &rig.bridge, &rig.tap())?;
        }
        Ok(places)
    }

    /// What was lost since `before`, at each place where something was. A place that began anew (the
    /// tap of a restarted appliance) counts from 0.
    #[must_use]
    pub fn since(&self, before: &Self) -> Self {
        let grown = self.0.iter().map(|(place, now)| {
            let then = before.0.get(place).copied().unwrap_or(0);
            (place.clone(), if *now >= then { now - then } else { *now })
        });
        Self(grown.filter(|(_, lost)| *lost > 0).collect())
    }

    /// Adds a place that the kernel keeps no counter of.
    pub fn add(&mut self, place: &str, lost: u64) {
        if lost > 0 {
            self.0.insert(place.into(), lost);
        }
    }

    /// Lost at places whose name contains `part`.
    #[must_use]
    pub fn at(&self, part: &str) -> u64 {
        self.0.iter().filter(|(place, _)| place.contains(part)).map(|(_, lost)| lost).sum()
    }

    /// "nowhere", or the places with their counts.
    #[must_use]
    pub fn words(&self) -> String {
        if self.0.is_empty() {
            return "nowhere".into();
        }
        self.0.iter().map(|(place, lost)| format!("{place} {lost}")).collect::<Vec<_>>().join(", ")
    }

    fn udp(&mut self, who: &str, ns: &Netns) -> Result<()> {
        let output = run(ns.command("cat").arg("/proc/net/snmp"))?;
        for (name, value) in udp_errors(&String::from_utf8_lossy(&output.stdout)) {
            self.0.insert(format!("{who} UDP {name}"), value);
        }
        Ok(())
    }

    fn link(&mut self, what: &str, ns: &Netns, interface: &str) -> Result<()> {
        let counters = ns.counters(interface)?;
        self.0.insert(format!("{what} rx"), counters.rx.dropped);
        self.0.insert(format!("{what} tx"), counters.tx.dropped);
        Ok(())
    }
}

/// The queue's losses in the `Udp:` lines of /proc/net/snmp. (`InErrors` has them within it.)
fn udp_errors(text: &str) -> Vec<(String, u64)> {
    let mut lines = text.lines().filter_map(|l| l.strip_prefix("Udp: "));
    let (Some(names), Some(values)) = (lines.next(), lines.next()) else { return Vec::new() };
    let pairs = names.split(' ').zip(values.split(' '));
    let wanted = ["RcvbufErrors", "SndbufErrors", "InCsumErrors", "MemErrors"];
    let kept = pairs.filter(|(name, _)| wanted.contains(name));
    kept.filter_map(|(name, value)| Some((name.to_string(), value.parse().ok()?))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SNMP: &str = "Ip: Forwarding\nIp: 1\n\
        Udp: InDatagrams NoPorts InErrors OutDatagrams RcvbufErrors SndbufErrors InCsumErrors IgnoredMulti MemErrors\n\
        Udp: 100 0 7 50 7 1 0 0 0\nUdpLite: InDatagrams\nUdpLite: 0\n";

    #[test]
    fn losses_are_told_by_place_and_only_new_ones() {
        let read = |text: &str| Places(udp_errors(text).into_iter().collect());
        let (before, after) = (read(SNMP), read(&SNMP.replace("50 7 1", "50 9 1")));
        let lost = after.since(&before);
        assert_eq!((lost.at("RcvbufErrors"), lost.at("SndbufErrors")), (2, 0));
        assert_eq!(lost.words(), "RcvbufErrors 2");
        assert_eq!(before.since(&before).words(), "nowhere");
    }
}
