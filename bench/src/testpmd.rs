//! `dpdk-testpmd`, DPDK's own forwarder: what the two devices can do when next to nothing is done with a packet.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use crate::spread::Spread;

/// Packets per second the device `tx` sends while testpmd forwards (`5tswap`) from `rx` on `cpu`; one value a second.
///
/// # Errors
/// It does not start (package `dpdk-dev`) or tells nothing.
pub fn swap(rx: &str, tx: &str, memory_mb: u32, buffers: u64, cpus: (u16, u16), seconds: usize) -> Result<Spread, String> {
    let (cpu, other) = cpus;
    let mut command = Command::new("dpdk-testpmd");
    command.arg(format!("--lcores=0@{other},1@{cpu}")).args(["--no-pci", "--in-memory", "--no-telemetry"]);
    command.args(["-m", &memory_mb.to_string(), "--vdev", rx, "--vdev", tx, "--"]);
    command.args(["--forward-mode=5tswap", "--nb-cores=1", "--stats-period=1"]);
    command.arg(format!("--total-num-mbufs={buffers}"));
    let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn();
    let mut child = child.map_err(|error| format!("dpdk-testpmd (package dpdk-dev): {error}"))?;
    let lines = BufReader::new(child.stdout.take().expect("piped")).lines();
    let mut rates = Spread::default();
    // Both ports tell their rate: that of the first, which sends nothing, is 0. The first second is its start.
    let told = lines.map_while(Result::ok).filter_map(|line| {
        let rest = line.trim().strip_prefix("Tx-pps:")?;
        rest.split_whitespace().next()?.parse::<f64>().ok().filter(|rate| *rate > 0.0)
    });
    let count = told.skip(1).take(seconds).map(|rate| rates.add(rate)).count();
    child.kill().and_then(|()| child.wait()).map_err(|error| error.to_string())?;
    if count < seconds {
        return Err(format!("dpdk-testpmd told {count} rates: {command:?}"));
    }
    Ok(rates)
}
