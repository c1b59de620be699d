//! Ports: pools, queues, start, statistics. The holder owns no queue: it never receives and never sends.

use dpdk::{Pool, Port, PortConfig};
use links::messages::{AdmitPort, pool_name};
use shm_layout::published::steering;

use super::error::HolderError;
use super::plan::{HolderPlan, NIC_DESCRIPTORS, PortPlan};
use crate::control::{PortFacts, PortStats};

/// A started port.
#[derive(Debug)]
pub struct HeldPort {
    name: String,
    index: u32,
    first_slot: u32,
    port: Port,
    /// Its kernel interface.
    kernel: Option<Port>,
    pools: Vec<Pools>,
    facts: PortFacts,
}

/// A pool, for its statistics and for recovery; taken from and given to by the slot's owner alone.
struct Pools(Pool);

impl std::fmt::Debug for Pools {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.0.name())
    }
}

impl HeldPort {
    /// Makes the pools, configures and starts port number `index` of the plan.
    ///
    /// # Errors
    /// The driver's, with the port named.
    pub fn start(plan: &HolderPlan, index: u32, wanted: &PortPlan, rss_key: &[u8; 40]) -> Result<Self, HolderError> {
        let port = Port::open(&wanted.device)?;
        let pools = (0..u32::from(wanted.slots))
            .map(|queue| {
                let slot = wanted.first_slot + queue;
                Pool::create(&pool_name(slot), wanted.buffers, wanted.data_room, plan.socket_of(slot))
            })
            .collect::<Result<Vec<_>, _>>()?;
        let can = port.capabilities()?;
        port.configure(&PortConfig {
            rx_queues: wanted.slots,
            tx_queues: wanted.slots,
            rx_desc: NIC_DESCRIPTORS,
            tx_desc: NIC_DESCRIPTORS,
            mtu: wanted.mtu,
            pools: &pools,
            rss_key: (usize::from(can.rss_key_size) == rss_key.len()).then_some(rss_key.as_slice()),
            promiscuous: false,
        })?;
        if let Some(mac) = wanted.set_mac
            && let Err(error) = port.set_mac(mac)
        {
            log::warn!("port {} keeps its own MAC: {error}", wanted.name);
        }
        port.start()?;
        if wanted.groups {
            port.receive_groups()?;
        }
        if wanted.kernel.is_some() && wanted.set_mac.is_some_and(|mac| port.mac().ok() != Some(mac)) {
            return Err(HolderError::KernelMac { port: wanted.name.clone() });
        }
        let kernel =
            wanted.kernel.as_deref().map(|device| start_kernel(device, wanted.mtu, &pools[..1])).transpose()?;
        let facts = PortFacts {
            device: port.id().into(),
            mac: port.mac()?,
            tx_ip_checksum: can.tx_checksums.ipv4,
            tx_l4_checksum: can.tx_checksums.tcp && can.tx_checksums.udp,
            pipeline: false,
            // A tap returns a flow to the queue that sent it; elsewhere the copying redirect brings replies home.
            steering: if dpdk::tap::is_tap(&can.driver) { steering::DRIVER } else { steering::REDIRECT },
            driver: can.driver,
        };
        log::info!(
            "port {}: {} with {} queue pairs, MAC {}",
            wanted.name,
            facts.driver,
            wanted.slots,
            mac_text(facts.mac)
        );
        let pools = pools.into_iter().map(Pools).collect();
        Ok(Self { name: wanted.name.clone(), index, first_slot: wanted.first_slot, port, kernel, pools, facts })
    }

    /// What control publishes of it.
    pub fn facts(&self) -> PortFacts {
        self.facts.clone()
    }

    /// What a worker attaches to.
    pub fn admit(&self) -> AdmitPort {
        AdmitPort {
            index: self.index,
            name: self.name.clone(),
            device: self.port.name().to_owned(),
            device_id: self.port.id(),
            first_slot: self.first_slot,
            queues: u16::try_from(self.pools.len()).unwrap_or(u16::MAX),
            restarts: self.tears(),
        }
    }

    /// What only the holder knows of it.
    pub fn stats(&self) -> PortStats {
        let stats = self.port.stats().unwrap_or_default();
        let link = self.port.link().map_or("unknown", |l| if l.up { "up" } else { "down" });
        PortStats {
            name: self.name.clone(),
            link: link.into(),
            rx_missed: stats.rx_missed,
            rx_nombuf: stats.rx_nombuf,
            mbufs_free: self.pools.iter().map(|p| u64::from(p.0.available())).sum(),
        }
    }

    /// Which of its queues a slot is.
    pub fn queue_of(&self, slot: u32) -> Option<u16> {
        let queue = usize::try_from(slot.checked_sub(self.first_slot)?).ok()?;
        u16::try_from(queue).ok().filter(|_| queue < self.pools.len())
    }

    /// Is a descriptor ring torn when its user dies in a burst?
    pub fn tears(&self) -> bool {
        !dpdk::tap::is_tap(&self.facts.driver)
    }

    /// After the confirmed death of a slot's owner: a driver killed inside a burst leaves its descriptor ring torn.
    pub fn restart_queue(&self, queue: u16) {
        // So that the driver gives its packets back to a whole ring; the successor recovers with the ledger afterwards.
        self.pools[usize::from(queue)].0.recover(&[]);
        match self.port.restart_queues(queue) {
            Ok(true) => log::info!("port {}: queue pair {queue} restarted", self.name),
            Ok(false) => {}
            Err(error) => log::error!("{error}"),
        }
    }

    /// Stops and closes it. No worker polls it any more.
    pub fn close(self) {
        for port in self.kernel.into_iter().chain([self.port]) {
            let stopped = port.stop();
            for error in [stopped.err(), port.close().err()].into_iter().flatten() {
                log::warn!("{error}");
            }
        }
    }
}

/// Starts a kernel interface. Its one queue pair is the first slot's, and so are its buffers.
fn start_kernel(device: &str, mtu: u16, pools: &[Pool]) -> Result<Port, HolderError> {
    let port = Port::open(device)?;
    port.configure(&PortConfig {
        rx_queues: 1,
        tx_queues: 1,
        rx_desc: NIC_DESCRIPTORS,
        tx_desc: NIC_DESCRIPTORS,
        mtu,
        pools,
        rss_key: None,
        promiscuous: false,
    })?;
    port.start()?;
    Ok(port)
}

fn mac_text(mac: [u8; 6]) -> String {
    mac.map(|b| format!("{b:02x}")).join(":")
}
