//! From nothing to an attached process: tables checked, admitted by the holder, EAL and ports open.

use std::path::Path;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::Duration;

use config::Node;
use datapath::Shared;
use dpdk::{EalArgs, Port, ProcType};
use links::messages::{Admit, ToWorker, WorkerSays};
use links::pidfd::Peer;
use links::{Hello, Link, Role};
use shm_layout::board::Board;
use shm_layout::neighbours::Neighbours;
use shm_layout::persistence::Persistence;
use shm_layout::published::Published;
use shm_layout::secrets;
use shm_layout::slot::Slot;

use crate::error::WorkerError;

/// Time for the holder's verdict on our hello.
const HELLO_LIMIT: Duration = Duration::from_secs(10);

/// Time between two looks at signals while others attach.
const LOOK: Duration = Duration::from_millis(50);

/// An attached worker: nothing is owned yet.
pub struct Attached {
    /// All tables.
    pub shared: Shared,
    /// What the holder told.
    pub admit: Admit,
    /// To the holder.
    pub link: Link<WorkerSays>,
    /// From the holder.
    pub orders: Receiver<ToWorker>,
    /// The holder.
    pub holder: Peer,
    /// Ports by our number.
    pub ports: Vec<Port>,
}

/// Maps all tables, each checked before one byte of it is used. Foreign ones are refused here: before EAL, before the
/// holder is asked.
pub fn tables(node: &Node) -> Result<Shared, WorkerError> {
    let folder = node.tables_dir();
    let published = Published::open(&folder, false)?;
    whole(&published)?;
    let neighbours = Neighbours::open(&folder, false)?;
    let secrets = secrets::open(&folder)?;
    let first = Slot::open(&folder, 0, true)?;
    let others = (1..first.geometry.slots).map(|slot| Slot::open(&folder, slot, true));
    let slots = std::iter::once(Ok(first)).chain(others).collect::<Result<_, _>>()?;
    let persistence = Persistence::open(&folder, true)?;
    let board = Board::open(&node.board_name(), false)?;
    Ok(Shared { published, neighbours, board, secrets, persistence, slots })
}

/// Refuses a damaged generation: who serves goes on with the one it has.
fn whole(published: &Published) -> Result<(), WorkerError> {
    while let Some(generation) = published.current() {
        match published.verify(generation) {
            // We are not in the quorum yet: it may have been replaced and taken back meanwhile.
            Err(_) if published.current() != Some(generation) => {}
            verdict => return Ok(verdict?),
        }
    }
    Ok(())
}

/// Says hello, waits for its turn, attaches.
///
/// # Errors
/// [`WorkerError::Stopped`] when `asked_to_stop` says so while it waits; an attach that has begun is not broken off (a
/// process that ends within it may leave EAL's lock taken).
pub fn attach(
    node: &Node,
    run_dir: &Path,
    zone: u8,
    take_over: bool,
    asked_to_stop: &dyn Fn() -> bool,
) -> Result<Attached, WorkerError> {
    let shared = tables(node)?;
    let hello = Hello { take_over, lane: lane_of_unit(), ..Hello::new(Role::Worker, Some(dpdk::version())).zone(zone) };
    let (link, orders) = links::connect::<WorkerSays, ToWorker>(&links::holder_socket(run_dir), &hello, HELLO_LIMIT)?;
    let holder = Peer::open(link.peer()).map_err(|_| WorkerError::HolderGone)?;
    let admit = loop {
        match orders.recv_timeout(LOOK) {
            Ok(ToWorker::Admit(admit)) => break *admit,
            Ok(ToWorker::Died { .. }) => {}
            Ok(ToWorker::Stop) => return Err(WorkerError::Ordered),
            Err(RecvTimeoutError::Timeout) if asked_to_stop() => return Err(WorkerError::Stopped),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return Err(WorkerError::HolderGone),
        }
    };
    let lcore = format!("{}@{}", admit.lcore, admit.cpu);
    dpdk::eal::init(&EalArgs::new(ProcType::Secondary, &admit.file_prefix, &admit.huge_dir, &lcore))?;
    let ports = admit.ports.iter().map(open_port).collect::<Result<Vec<_>, _>>()?;
    Ok(Attached { shared, admit, link, orders, holder, ports })
}

fn open_port(wanted: &links::messages::AdmitPort) -> Result<Port, WorkerError> {
    let port = Port::open(&wanted.device)?;
    if port.id() != wanted.device_id {
        let (name, here, there) = (wanted.name.clone(), port.id(), wanted.device_id);
        return Err(WorkerError::PortNumber { name, here, there });
    }
    Ok(port)
}

/// The lane of the unit that started us: `LB_INSTANCE=0b`.
fn lane_of_unit() -> Option<u8> {
    let instance = std::env::var("LB_INSTANCE").ok()?;
    match instance.chars().last()? {
        'a' => Some(0),
        'b' => Some(1),
        _ => None,
    }
}
