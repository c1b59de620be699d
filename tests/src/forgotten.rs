//! Packets the rig's own kernels drop because a neighbour was flushed under them.
//!
//! `ip neigh flush` deletes an entry that a packet on another CPU may just have looked up: the kernel then drops that packet
//! (`neigh_event_send` on a dead entry, `neigh_invalidate` of a queue) and keeps no counter of it. A rate of 4,500 datagrams a
//! second over a mere veth pair loses one in about a hundred flushes this way. The tracepoint `skb:kfree_skb` tells each one by
//! its reason, so that such a loss is blamed on nobody else and nothing else is blamed on it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::janitor::Janitor;
use crate::{Error, Result};

/// Where the kernel shows its tracepoints.
const TRACEFS: &str = "/sys/kernel/tracing";

/// A trace of our own of the packets dropped for a neighbour's sake, from its making on. The janitor removes it.
pub struct Forgotten {
    instance: PathBuf,
}

impl Forgotten {
    /// Begins to count, if this kernel can: one without the tracepoint or its reasons counts nothing, and excuses nothing.
    ///
    /// # Errors
    /// When the kernel has the tracepoint but does not do as told.
    pub fn watch(name: &str, janitor: &Janitor) -> Result<Option<Self>> {
        if !Path::new(TRACEFS).join("instances").is_dir() {
            let _ = Command::new("mount").args(["-t", "tracefs", "tracefs", TRACEFS]).status();
        }
        let event = Path::new(TRACEFS).join("events/skb/kfree_skb");
        let reasons = fs::read_to_string(event.join("format")).map(|text| neighbour_reasons(&text)).unwrap_or_default();
        if reasons.is_empty() {
            return Ok(None);
        }
        let instance = Path::new(TRACEFS).join("instances").join(name);
        janitor.trace(&instance);
        if !instance.is_dir() {
            fs::create_dir(&instance).map_err(Error::file("create", &instance))?;
        }
        let reasons: Vec<String> = reasons.iter().map(|number| format!("reason=={number}")).collect();
        let event = instance.join("events/skb/kfree_skb");
        // IPv4 only: a lost ARP request is asked again.
        set(&event.join("filter"), &format!("protocol==2048 && ({})", reasons.join(" || ")))?;
        set(&instance.join("trace"), "")?;
        set(&event.join("enable"), "1")?;
        Ok(Some(Self { instance }))
    }

    /// Packets dropped so far.
    ///
    /// # Errors
    /// When the trace cannot be read.
    pub fn count(&self) -> Result<u64> {
        let path = self.instance.join("trace");
        let text = fs::read_to_string(&path).map_err(Error::file("read", &path))?;
        Ok(text.lines().filter(|line| line.contains(" kfree_skb: ")).count() as u64)
    }
}

fn set(path: &Path, value: &str) -> Result<()> {
    fs::write(path, value).map_err(Error::file("write", path))
}

/// The numbers of the reasons NEIGH_…, which differ between kernels, from the tracepoint's format: `{ 60, "NEIGH_DEAD" }`.
fn neighbour_reasons(format: &str) -> Vec<u32> {
    let pairs = format.split('{').filter_map(|part| part.split_once('}')).filter_map(|(pair, _)| pair.split_once(','));
    let ours = pairs.filter(|(_, name)| name.trim().starts_with("\"NEIGH_"));
    ours.filter_map(|(number, _)| number.trim().parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_are_taken_by_name() {
        let format = "print fmt: \"reason: %s\", __print_symbolic(REC->reason, { 2, \"NOT_SPECIFIED\" }, \
            { 57, \"NEIGH_CREATEFAIL\" }, { 60, \"NEIGH_DEAD\" }, { 61, \"TC_EGRESS\" })";
        assert_eq!(neighbour_reasons(format), [57, 60]);
        assert!(neighbour_reasons("field:int reason;").is_empty());
    }
}
