//! Network namespaces and the wires between them, by `ip(8)`.
//!
//! Programs enter by `nsenter --net=FILE`, not `ip netns exec`: the latter gives a new mount
//! namespace in which the appliance's hugetlbfs mount would be unseen by its other processes.

use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

use crate::{Error, Result};

/// A namespace made by a rig; its name is unique on the machine.
#[derive(Debug, Clone)]
pub struct Netns {
    name: String,
}

impl Netns {
    /// Creates the namespace with the loopback up and IPv6 silent: no neighbour discovery or
    /// listener reports may disturb the packet counts.
    ///
    /// # Errors
    /// When `ip` fails, e.g. without root.
    pub fn create(name: &str) -> Result<Self> {
        run(Command::new("ip").args(["netns", "add", name]))?;
        let ns = Self { name: name.into() };
        ns.sysctl(&["net.ipv6.conf.all.disable_ipv6=1", "net.ipv6.conf.default.disable_ipv6=1"])?;
        ns.ip(&["link set lo up"])?;
        Ok(ns)
    }

    /// Name as `ip netns` shows it.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The namespace's file.
    #[must_use]
    pub fn path(&self) -> PathBuf {
        PathBuf::from("/run/netns").join(&self.name)
    }

    /// A command that runs inside; the process id stays that of the program.
    #[must_use]
    pub fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net={}", self.path().display())).arg("--").arg(program);
        command
    }

    /// Several `ip` commands in one call, each as one line without the leading `ip`.
    ///
    /// # Errors
    /// When one of them fails.
    pub fn ip(&self, lines: &[&str]) -> Result<()> {
        let mut command = Command::new("ip");
        command.args(["-n", &self.name, "-batch", "-"]);
        run_with_input(&mut command, &lines.join("\n"))
    }

    /// Sets kernel parameters of the namespace, `key=value` each.
    ///
    /// # Errors
    /// When the kernel refuses one.
    pub fn sysctl(&self, settings: &[&str]) -> Result<()> {
        run(self.command("sysctl").arg("-qw").args(settings)).map(drop)
    }

    /// Counters of an interface inside, as the kernel keeps them.
    ///
    /// # Errors
    /// When the interface is not there.
    pub fn counters(&self, interface: &str) -> Result<LinkCounters> {
        let output = run(Command::new("ip").args(["-n", &self.name, "-j", "-s", "link", "show", "dev", interface]))?;
        let text = String::from_utf8_lossy(&output.stdout);
        let links: Vec<LinkJson> = serde_json::from_str(&text).map_err(|source| Error::Json {
            what: format!("ip link of {interface}"),
            source,
            text: text.chars().take(400).collect(),
        })?;
        let stats = links.into_iter().next().map(|l| l.stats64);
        stats.ok_or_else(|| Error::claim(format!("no interface {interface} in {}", self.name)))
    }

    /// Whether an interface of that name is inside.
    #[must_use]
    pub fn has_link(&self, interface: &str) -> bool {
        Command::new("ip")
            .args(["-n", &self.name, "link", "show", "dev", interface])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()
            .is_ok_and(|s| s.success())
    }
}

/// `ip -s link`: the kernel's counters of one interface.
#[derive(Debug, Clone, Copy, serde::Deserialize)]
pub struct LinkCounters {
    /// What the interface received (for a tap: what its user wrote).
    pub rx: Direction,
    /// What the interface sent (for a tap: what its user read).
    pub tx: Direction,
}

/// One direction of [`LinkCounters`].
#[derive(Debug, Clone, Copy, serde::Deserialize)]
pub struct Direction {
    /// Frames.
    pub packets: u64,
    /// Frames not taken.
    pub dropped: u64,
}

#[derive(serde::Deserialize)]
struct LinkJson {
    stats64: LinkCounters,
}

/// Joins two namespaces by a wire, both ends up, transmit checksum offload off (towards a tap or
/// packet socket a veth hands over partial checksums).
///
/// # Errors
/// When `ip` or `ethtool` fails.
pub fn wire(a: &Netns, a_name: &str, b: &Netns, b_name: &str) -> Result<()> {
    run(Command::new("ip").args([
        "link",
        "add",
        "netns",
        a.name(),
        "name",
        a_name,
        "type",
        "veth",
        "peer",
        "netns",
        b.name(),
        "name",
        b_name,
    ]))?;
    for (ns, end) in [(a, a_name), (b, b_name)] {
        run(ns.command("ethtool").args(["-K", end, "tx", "off"]))?;
        ns.ip(&[&format!("link set {end} up")])?;
    }
    Ok(())
}

/// Runs a command to its end; a non-zero status is an error with its stderr.
///
/// # Errors
/// As said.
pub fn run(command: &mut Command) -> Result<Output> {
    let text = words(command);
    let output =
        command.stdin(Stdio::null()).output().map_err(|source| Error::Spawn { program: text.clone(), source })?;
    check(text, output)
}

fn run_with_input(command: &mut Command, input: &str) -> Result<()> {
    use std::io::Write;
    let text = format!("{} <<< {input:?}", words(command));
    let spawn = |source| Error::Spawn { program: text.clone(), source };
    let mut child =
        command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().map_err(spawn)?;
    if let Some(mut pipe) = child.stdin.take() {
        // A broken pipe shows in the exit status.
        let _ = pipe.write_all(input.as_bytes());
    }
    let output = child.wait_with_output().map_err(spawn)?;
    check(text, output).map(drop)
}

fn check(command: String, output: Output) -> Result<Output> {
    if output.status.success() {
        return Ok(output);
    }
    let stderr = String::from_utf8_lossy(&output.stderr).trim().to_string();
    Err(Error::Command { command, status: output.status.to_string(), stderr })
}

/// Program and arguments as one line, for messages.
#[must_use]
pub fn words(command: &Command) -> String {
    let mut line = command.get_program().to_string_lossy().into_owned();
    for argument in command.get_args() {
        line.push(' ');
        line.push_str(&argument.to_string_lossy());
    }
    line
}
