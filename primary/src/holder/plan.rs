//! From the configuration to what the holder has to do, made by a child so that the holder parses no user's text.

use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};

use config::{Config, HugepagesNeeded, SlotHome, TableSizes};
use links::messages::kernel_device;
use serde::{Deserialize, Serialize};
use shm_layout::geometry::Geometry;
use shm_layout::limits::{NEIGH_WAIT, RX_BURST, TX_HELD};

use super::geometry::{self, table_bytes};

/// Environment variable that carries the plan to the holder.
const PLAN: &str = "LB_HOLDER_PLAN";
/// Descriptors of a NIC's queues. (Virtual devices: what the driver takes, a few.)
pub const NIC_DESCRIPTORS: u16 = 1024;
/// Buffers per slot of a virtual device. The pool is a FIFO: every buffer passes through the cache, so few are better.
const VDEV_BUFFERS: u32 = 2047;
/// Buffers per slot of a NIC: both rings full and a reserve.
const NIC_BUFFERS: u32 = 4095;
/// Bytes DPDK adds to a packet's data room: headroom, mbuf, object header, alignment.
const BUFFER_OVERHEAD: u64 = 448;
/// Smallest data room: what every driver takes for one segment.
const DATA_ROOM: u16 = 2048;

/// A port, as the holder makes it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortPlan {
    /// Its name.
    pub name: String,
    /// EAL's device string, `mac=` included where the driver wants it there.
    pub device: String,
    /// PCI: goes on the allow list.
    pub pci: bool,
    /// Queue pairs.
    pub slots: u16,
    /// First slot.
    pub first_slot: u32,
    /// Largest IP packet, bytes.
    pub mtu: u16,
    /// MAC to set on the port after it is configured.
    pub set_mac: Option<[u8; 6]>,
    /// EAL's device string of its kernel interface.
    pub kernel: Option<String>,
    /// It takes part in IPv6, whose neighbours ask groups.
    #[serde(default)]
    pub groups: bool,
    /// Packets per pool.
    pub buffers: u32,
    /// Bytes per packet.
    pub data_room: u16,
}

/// A zone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ZonePlan {
    /// Number.
    pub id: u8,
    /// NUMA node.
    pub numa: u8,
    /// CPUs.
    pub cpus: Vec<u16>,
}

/// All the holder needs to know.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HolderPlan {
    /// Instance.
    pub name: String,
    /// Run directory.
    pub run_dir: PathBuf,
    /// Journal's folder.
    pub state_dir: PathBuf,
    /// First part of EAL's file prefix.
    pub file_prefix: String,
    /// EAL memory, MiB.
    pub dpdk_mb: u32,
    /// The holder's CPU.
    pub cpu: u16,
    /// Zones.
    pub zones: Vec<ZonePlan>,
    /// Ports.
    pub ports: Vec<PortPlan>,
    /// Where slots live.
    pub homes: Vec<SlotHome>,
    /// A worker whose heartbeat is older hangs, ms.
    pub hang_after_ms: u64,
    /// Sizes of the tables.
    pub geometry: Geometry,
    /// Hugepages for all of it.
    pub pages: HugepagesNeeded,
    /// What `--check` says.
    pub summary: String,
}

/// Drivers a secondary process cannot poll (DESIGN §7).
const NOT_POLLABLE: &[&str] = &["net_af_packet", "net_af_xdp", "net_vhost", "net_bonding"];

impl HolderPlan {
    /// The plan of a configuration.
    ///
    /// # Errors
    /// Sentences for the operator: what the holder cannot do.
    pub fn of(config: &Config) -> Result<Self, Vec<String>> {
        let mut wrong = Vec::new();
        let mut first_slot = 0;
        let ports: Vec<PortPlan> = config
            .ports
            .iter()
            .zip(0..)
            .map(|(port, index)| {
                let plan = port_plan(config, port, index, first_slot, &mut wrong);
                first_slot += u32::from(plan.slots);
                plan
            })
            .collect();
        let node = &config.node;
        let buffers: u64 = ports
            .iter()
            .map(|p| u64::from(p.slots) * u64::from(p.buffers) * (u64::from(p.data_room) + BUFFER_OVERHEAD))
            .sum();
        // EAL's own structures and ports take some MiB, and pools want contiguous pieces.
        let needed_mb = (buffers >> 20) + 24;
        if needed_mb > u64::from(node.dpdk_mb) {
            wrong.push(format!(
                "error: node.dpdk_mb is {}, but {first_slot} slots need packet buffers of {needed_mb} MiB\nhelp: dpdk_mb = {needed_mb}",
                node.dpdk_mb
            ));
        }
        if !wrong.is_empty() {
            return Err(wrong);
        }
        let sizes = TableSizes::of(config);
        let pages = config::hugepages_needed(config, table_bytes);
        Ok(Self {
            name: node.name.to_string(),
            run_dir: node.run_dir(),
            state_dir: node.state_dir(),
            file_prefix: node.file_prefix(),
            dpdk_mb: node.dpdk_mb,
            cpu: config.primary.cpu,
            zones: config.zones.iter().map(|z| ZonePlan { id: z.id, numa: z.numa, cpus: z.cpus.clone() }).collect(),
            ports,
            homes: config.slot_homes(),
            hang_after_ms: node.hang_after.get().into(),
            geometry: geometry::of(sizes),
            pages,
            summary: format!(
                "configuration of {} is valid: {} services, {} slots; {} hugepages of 2 MiB are needed ({} for packet buffers, {} for tables)",
                node.name,
                config.services.len(),
                sizes.slots,
                pages.total(),
                pages.eal_pages,
                pages.table_pages
            ),
        })
    }

    /// Hugetlbfs mount.
    pub fn mount(&self) -> PathBuf {
        self.run_dir.join("huge")
    }

    /// EAL's half of it.
    pub fn eal_dir(&self) -> PathBuf {
        self.mount().join("eal")
    }

    /// Our half of it.
    pub fn tables_dir(&self) -> PathBuf {
        self.mount().join("tables")
    }

    /// NUMA node of a slot's home, if there is more than one.
    pub fn socket_of(&self, slot: u32) -> Option<i32> {
        let home = self.homes.iter().find(|h| u32::from(h.slot) == slot)?;
        let several = self.zones.iter().any(|z| z.numa != self.zones[0].numa);
        let zone = self.zones.iter().find(|z| z.id == home.zone)?;
        several.then_some(i32::from(zone.numa))
    }

    /// EAL memory by NUMA node: shared out over the zones' nodes.
    pub fn memory_by_node(&self) -> Vec<u32> {
        let mut nodes: Vec<usize> = self.zones.iter().map(|z| usize::from(z.numa)).collect();
        nodes.sort_unstable();
        nodes.dedup();
        let mut memory = vec![0; nodes.last().map_or(1, |n| n + 1)];
        let share = self.dpdk_mb / u32::try_from(nodes.len().max(1)).unwrap_or(1);
        for node in nodes {
            memory[node] = share;
        }
        memory
    }
}

/// EAL's device string of the port's kernel interface: a tap with the port's own MAC, so that the kernel's frames are the
/// port's.
fn kernel_interface(port: &config::Port, index: u32, mac: Option<[u8; 6]>, wrong: &mut Vec<String>) -> Option<String> {
    let interface = port.kernel.as_ref()?.as_str();
    if interface.contains([',', '=', '%']) {
        wrong.push(format!(
            "error: port {}: kernel interface \"{interface}\" cannot be made\nhelp: a name without \",\", \"=\" and \"%\"",
            port.name
        ));
    }
    let Some(mac) = mac else {
        wrong.push(format!(
            "error: port {}: a kernel interface has the port's MAC, and a NIC's own is not known before it is started\nhelp: mac = \"…\" of the NIC",
            port.name
        ));
        return None;
    };
    Some(dpdk::tap::with_mac(&format!("{},iface={interface}", kernel_device(index)), mac))
}

fn port_plan(config: &Config, port: &config::Port, index: u32, first_slot: u32, wrong: &mut Vec<String>) -> PortPlan {
    let mut device = port.device.to_string();
    let pci = port.device.is_pci();
    let mac = config.node.mac_for(port).map(|m| m.0);
    let in_devargs = dpdk::tap::mac_in_devargs(&device);
    if let Some(mac) = mac.filter(|_| in_devargs) {
        device = dpdk::tap::with_mac(&device, mac);
    }
    if let Some(driver) = port.device.driver().filter(|d| NOT_POLLABLE.contains(d)) {
        wrong.push(format!(
            "error: port {}: workers cannot poll driver {driver}, and this version has no pipeline mode\nhelp: net_tap, net_memif, virtio_user or a PCI device",
            port.name
        ));
    }
    let slots = config.slots_of(port);
    let fixed = if pci { 2 * u32::from(NIC_DESCRIPTORS) } else { 64 };
    let buffers = if pci { NIC_BUFFERS } else { VDEV_BUFFERS };
    let held = u32::try_from(RX_BURST + TX_HELD + NEIGH_WAIT).unwrap_or(u32::MAX);
    debug_assert!(buffers > fixed + 2 * held);
    // Ethernet header and two VLAN tags.
    let data_room = port.mtu.saturating_add(22).next_multiple_of(64).max(DATA_ROOM);
    PortPlan {
        name: port.name.to_string(),
        device,
        pci,
        slots,
        first_slot,
        mtu: port.mtu,
        set_mac: mac.filter(|_| !in_devargs),
        kernel: kernel_interface(port, index, mac, wrong),
        groups: port.addresses.iter().any(|own| own.address.is_ipv6()),
        buffers,
        data_room,
    }
}

/// The plan process: diagnostics to stderr, the plan as JSON to stdout. Status 4: refused.
pub fn main(path: &Path, from_file: bool) -> ExitCode {
    let config = match crate::control::start_config(path, from_file) {
        Ok(config) => config,
        Err(error) => {
            eprintln!("{error}");
            return ExitCode::from(error.exit_status());
        }
    };
    match HolderPlan::of(&config) {
        Ok(plan) => match serde_json::to_string(&plan) {
            Ok(json) => {
                println!("{json}");
                ExitCode::SUCCESS
            }
            Err(error) => {
                eprintln!("error: {error}");
                ExitCode::FAILURE
            }
        },
        Err(wrong) => {
            eprintln!("{}", wrong.join("\n"));
            ExitCode::from(4)
        }
    }
}

/// What the operator started: asks for the plan, then becomes the holder.
pub fn start(path: &Path, from_file: bool, check: bool) -> ExitCode {
    let fail = |what: &str, error: &dyn std::fmt::Display| {
        log::error!("{what}: {error}");
        ExitCode::FAILURE
    };
    let me = match std::env::current_exe() {
        Ok(me) => me,
        Err(error) => return fail("cannot find the own program", &error),
    };
    let again = |life: &str| {
        let mut command = Command::new(&me);
        command.arg("--config").arg(path).args(["--internal", life]);
        if from_file {
            command.arg("--from-file");
        }
        command
    };
    let output = match again("plan").stdin(Stdio::null()).stderr(Stdio::inherit()).output() {
        Ok(output) => output,
        Err(error) => return fail("cannot start the plan process", &error),
    };
    if !output.status.success() {
        let code = output.status.code().and_then(|c| u8::try_from(c).ok());
        return ExitCode::from(code.unwrap_or(1));
    }
    let plan: HolderPlan = match serde_json::from_slice(&output.stdout) {
        Ok(plan) => plan,
        Err(error) => return fail("the plan is not understood", &error),
    };
    if check {
        println!("{}", plan.summary);
        return ExitCode::SUCCESS;
    }
    // EAL's runtime files and the links' sockets follow these variables; the same in all processes of the instance.
    let error = again("holder")
        .env(PLAN, String::from_utf8_lossy(&output.stdout).trim())
        .env("RUNTIME_DIRECTORY", &plan.run_dir)
        .env("TMPDIR", plan.run_dir.join("ipc"))
        .exec();
    fail("cannot become the holder", &error)
}

/// The holder after its ordered end, to start again as the same process: the service manager sees no death. The plan is
/// still in the environment.
pub fn begin_again(path: &Path) -> ExitCode {
    let me = match std::env::current_exe() {
        Ok(me) => me,
        Err(error) => {
            log::error!("cannot find the own program: {error}");
            return ExitCode::FAILURE;
        }
    };
    // Nobody asked for a file that was edited meanwhile.
    let error = Command::new(me).arg("--config").arg(path).args(["--from-journal", "--internal", "holder"]).exec();
    log::error!("cannot start again: {error}");
    ExitCode::FAILURE
}

/// The plan, in the holder.
pub fn inherited() -> Result<HolderPlan, serde_json::Error> {
    serde_json::from_str(&std::env::var(PLAN).unwrap_or_default())
}

/// Keeps the plan out of the environment of children.
pub fn forget(command: &mut Command) {
    command.env_remove(PLAN);
}
