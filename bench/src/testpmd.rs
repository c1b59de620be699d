//! `dpdk-testpmd`, DPDK's own forwarder: what the two devices can do when next to nothing is done with a packet.

use std::collections::HashMap;
use std::ffi::OsString;
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::time::Instant;

use crate::spread::Spread;

/// What it did.
pub struct Swap {
    /// Packets per second, one value a second.
    pub rates: Spread,
    /// How much of the time its thread was running, 0 to 1.
    pub cpu_share: f64,
}

/// Packets per second the device `tx` sends while testpmd forwards (`5tswap`) from `rx` on the first of `cpus`; all else is on the second.
///
/// # Errors
/// It does not start (package `dpdk-dev`) or tells nothing.
pub fn swap(
    rx: &str,
    tx: &str,
    memory_mb: u32,
    buffers: u64,
    cpus: (u16, u16),
    seconds: usize,
) -> Result<Swap, String> {
    let (cpu, other) = cpus;
    let mut command = Command::new("dpdk-testpmd");
    command.arg(format!("--lcores=0@{other},1@{cpu}")).args(["--no-pci", "--in-memory", "--no-telemetry"]);
    command.args(["-m", &memory_mb.to_string(), "--vdev", rx, "--vdev", tx, "--"]);
    command.args(["--forward-mode=5tswap", "--nb-cores=1", "--stats-period=1"]);
    command.arg(format!("--total-num-mbufs={buffers}"));
    let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn();
    let mut child = child.map_err(|error| format!("dpdk-testpmd (package dpdk-dev): {error}"))?;
    let lines = BufReader::new(child.stdout.take().expect("piped")).lines();
    let pid = child.id();
    let mut marks = Vec::new();
    // Both ports tell their rate: that of the first, which sends nothing, is 0. The first second is its start.
    let told = lines.map_while(Result::ok).filter_map(|line| {
        let rest = line.trim().strip_prefix("Tx-pps:")?;
        rest.split_whitespace().next()?.parse::<f64>().ok().filter(|rate| *rate > 0.0)
    });
    let rates: Vec<f64> = told.take(seconds + 1).inspect(|_| marks.push((Instant::now(), threads_ns(pid)))).collect();
    child.kill().and_then(|()| child.wait()).map_err(|error| error.to_string())?;
    let (Some(first), Some(last), true) = (marks.first(), marks.last(), rates.len() > seconds) else {
        return Err(format!("dpdk-testpmd told {} rates: {command:?}", rates.len()));
    };
    // The thread that forwards is the one that ran most: others did before, reading the capture.
    let spent = last.1.iter().map(|(thread, ns)| ns - first.1.get(thread).unwrap_or(ns)).max().unwrap_or(0);
    #[allow(clippy::cast_precision_loss, reason = "a share")]
    let cpu_share = spent as f64 / (last.0 - first.0).as_nanos() as f64;
    let mut swap = Swap { rates: Spread::default(), cpu_share };
    rates.into_iter().skip(1).for_each(|rate| swap.rates.add(rate));
    Ok(swap)
}

/// Time on a CPU of the process's threads, ns.
fn threads_ns(pid: u32) -> HashMap<OsString, u64> {
    let Ok(threads) = std::fs::read_dir(format!("/proc/{pid}/task")) else { return HashMap::new() };
    let spent = |thread: std::fs::DirEntry| {
        let text = std::fs::read_to_string(thread.path().join("schedstat")).ok()?;
        Some((thread.file_name(), text.split_whitespace().next()?.parse().ok()?))
    };
    threads.flatten().filter_map(spent).collect()
}
