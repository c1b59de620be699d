//! What the processes say to each other. Every change raises [`PROTOCOL`](crate::PROTOCOL).

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// A port, as a worker attaches to it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AdmitPort {
    /// Our number of it.
    pub index: u32,
    /// Its name in the configuration.
    pub name: String,
    /// DPDK's name of the device.
    pub device: String,
    /// DPDK's number of it: must be the same in the worker.
    pub device_id: u16,
    /// First slot.
    pub first_slot: u32,
    /// Queue pairs, one per slot.
    pub queues: u16,
    /// Its driver's descriptor rings are torn by a death: the holder restarts the queue pair before anybody polls it.
    pub restarts: bool,
}

/// All a worker needs to attach.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Admit {
    /// EAL's file prefix: another one with every start of the holder.
    pub file_prefix: String,
    /// EAL's hugepage folder.
    pub huge_dir: PathBuf,
    /// Folder of the tables.
    pub tables_dir: PathBuf,
    /// Lane, 0 = a, 1 = b.
    pub lane: u8,
    /// Id of its one EAL lcore, unique over all processes.
    pub lcore: u32,
    /// CPU of that lcore.
    pub cpu: u16,
    /// The ports.
    pub ports: Vec<AdmitPort>,
    /// The holder.
    pub holder_pid: u32,
}

impl Admit {
    /// EAL's lcore of a worker: 0 is the holder's, then two lanes per zone.
    #[must_use]
    pub fn lcore_of(zone: u8, lane: u8) -> u32 {
        1 + u32::from(zone) * 2 + u32::from(lane)
    }
}

/// DPDK's name of the device that is the kernel interface of port `index`.
#[must_use]
pub fn kernel_device(index: u32) -> String {
    format!("net_tap_k{index}")
}

/// Name of the buffer pool of a slot.
#[must_use]
pub fn pool_name(slot: u32) -> String {
    format!("lb-slot-{slot}")
}

/// Holder to worker.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ToWorker {
    /// Attach now: no other process attaches meanwhile.
    Admit(Box<Admit>),
    /// Another worker has died, and the queue pairs it tore are whole again.
    Died {
        /// It.
        pid: u32,
    },
    /// Let go of all slots and leave.
    Stop,
}

/// Worker to holder.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum WorkerSays {
    /// EAL, ports and pools are open: the next one may attach.
    Attached,
    /// These slots are served.
    Serving {
        /// Slot numbers.
        slots: Vec<u32>,
    },
    /// A successor was not good enough: its slots are here again.
    TookBack,
    /// All slots are released; about to leave.
    Stopped,
}

/// Holder to control.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum HolderTells {
    /// Leave.
    Stop,
}

/// Control to holder.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ControlSays {
    /// A generation is published.
    Ready {
        /// Its number.
        generation: u64,
    },
    /// Cannot go on; for the log and the service status.
    Failed {
        /// Why.
        why: String,
    },
}

/// Control to worker and health-checker.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Notice {
    /// Look at the tables (or the board's targets) again: no need to wait for the next look.
    Reload {
        /// Generation published.
        generation: u64,
    },
    /// Leave.
    Stop,
}

/// Worker and health-checker to control.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum PeerSays {
    /// At work.
    Serving,
    /// Works with this generation.
    Seen {
        /// Its number.
        generation: u64,
    },
}
