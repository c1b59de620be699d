//! Ports: opened by name in every process, configured and started by the primary.

use std::ffi::{CStr, CString};

use dpdk_sys as sys;

use crate::mempool::Pool;
use crate::{strerror, tap};

/// Why a port does not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum PortError {
    /// No such port.
    #[error("port {0} does not exist: is the device string right, and was EAL started with it?")]
    Missing(String),
    /// The driver refused.
    #[error("port {port}: {what} failed: {reason}")]
    Driver {
        /// The port's name.
        port: String,
        /// What was tried.
        what: &'static str,
        /// DPDK's text.
        reason: String,
    },
    /// A configuration the driver cannot have; found before DPDK was asked.
    #[error("port {port}: {what} is {value}, but {limit}")]
    Limit {
        /// The port's name.
        port: String,
        /// Which number.
        what: &'static str,
        /// What it is.
        value: u32,
        /// What it may be, and what to do.
        limit: String,
    },
    /// Its MAC is given in the device string.
    #[error("port {0}: net_tap takes its MAC from `mac=` in the device string (`tap::with_mac`)")]
    MacInDevargs(String),
}

/// What a port is to be.
pub struct PortConfig<'a> {
    /// RX queues; each fills from the pool of its number.
    pub rx_queues: u16,
    /// TX queues.
    pub tx_queues: u16,
    /// RX descriptors a queue; brought into the driver's limits. net_tap always gets 1, see [`Port::configure`].
    pub rx_desc: u16,
    /// TX descriptors a queue; brought into the driver's limits.
    pub tx_desc: u16,
    /// Largest IP packet, bytes.
    pub mtu: u16,
    /// One pool per RX queue.
    pub pools: &'a [Pool],
    /// Toeplitz key; `None`: the driver's own. Ignored where the driver has no RSS.
    pub rss_key: Option<&'a [u8]>,
    /// Whether to receive frames for other MACs as well.
    pub promiscuous: bool,
}

/// Which checksums a driver computes or checks in hardware.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Checksums {
    /// IPv4 header.
    pub ipv4: bool,
    /// UDP.
    pub udp: bool,
    /// TCP.
    pub tcp: bool,
}

/// What a port can do.
#[derive(Clone, Debug)]
pub struct Capabilities {
    /// Driver, for instance `net_tap`.
    pub driver: String,
    /// Most RX queues ([`tap::MAX_QUEUES`] for net_tap).
    pub max_rx_queues: u16,
    /// Most TX queues.
    pub max_tx_queues: u16,
    /// Largest MTU, 0 = unknown.
    pub max_mtu: u16,
    /// Checksums it fills. net_tap's are software and slower than ours: not offered.
    pub tx_checksums: Checksums,
    /// Checksums it checks. As above.
    pub rx_checksums: Checksums,
    /// Entries of the RSS redirection table; 0 = none offered, which is no error.
    pub reta_size: u16,
    /// Whether it spreads by RSS over addresses and ports.
    pub rss: bool,
    /// Bytes of the RSS key, 0 = none.
    pub rss_key_size: u8,
}

/// Counters of a port, since start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PortStats {
    /// Packets received.
    pub rx_packets: u64,
    /// Packets sent.
    pub tx_packets: u64,
    /// Bytes received.
    pub rx_bytes: u64,
    /// Bytes sent.
    pub tx_bytes: u64,
    /// Packets the device dropped because no descriptor was free.
    pub rx_missed: u64,
    /// Damaged packets.
    pub rx_errors: u64,
    /// Packets not sent.
    pub tx_errors: u64,
    /// Times a pool was empty.
    pub rx_nombuf: u64,
}

/// State of the link. Of vdevs it means little (net_tap in another namespace reads down): show, never gate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Link {
    /// Whether it is up.
    pub up: bool,
    /// Mbit/s.
    pub speed_mbps: u32,
    /// Full duplex.
    pub full_duplex: bool,
}

/// A port. A handle: dropping it does nothing.
#[derive(Debug)]
pub struct Port {
    id: u16,
    name: String,
}

impl Port {
    /// The port of a device name (`net_tap0`, `0000:03:00.0`) or string (`net_tap0,iface=…`).
    pub fn open(device: &str) -> Result<Port, PortError> {
        let name = device.split(',').next().unwrap_or(device).to_owned();
        let missing = || PortError::Missing(name.clone());
        let c_name = CString::new(name.as_str()).map_err(|_| missing())?;
        let mut id = 0;
        // SAFETY: a NUL-terminated name, room for the id.
        if unsafe { sys::rte_eth_dev_get_port_by_name(c_name.as_ptr(), &raw mut id) } != 0 {
            return Err(missing());
        }
        Ok(Port { id, name })
    }

    /// The names of all ports, by id.
    pub fn names() -> Vec<String> {
        let mut names = Vec::new();
        let mut id = 0u16;
        loop {
            // SAFETY: any number is allowed; owner 0 = ports owned by nobody.
            let next = unsafe { sys::rte_eth_find_next_owned_by(id, 0) };
            let Ok(next) = u16::try_from(next) else { break };
            if u32::from(next) >= sys::LB_MAX_ETHPORTS {
                break;
            }
            let mut buf = [0 as std::ffi::c_char; sys::LB_ETH_NAME_MAX_LEN as usize];
            // SAFETY: a buffer of the length DPDK asks for.
            if unsafe { sys::rte_eth_dev_get_name_by_port(next, buf.as_mut_ptr()) } == 0 {
                // SAFETY: DPDK wrote a NUL-terminated name.
                names.push(unsafe { CStr::from_ptr(buf.as_ptr()) }.to_string_lossy().into_owned());
            }
            id = next + 1;
        }
        names
    }

    /// DPDK's number, the same in all processes.
    pub fn id(&self) -> u16 {
        self.id
    }

    /// The device's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    fn check(&self, what: &'static str, code: i32) -> Result<(), PortError> {
        if code == 0 {
            return Ok(());
        }
        Err(PortError::Driver { port: self.name.clone(), what, reason: strerror(code) })
    }

    fn limit(&self, what: &'static str, value: impl Into<u32>, limit: String) -> PortError {
        PortError::Limit { port: self.name.clone(), what, value: value.into(), limit }
    }

    fn info(&self) -> Result<sys::rte_eth_dev_info, PortError> {
        // SAFETY: plain data, filled by the call.
        let mut info: sys::rte_eth_dev_info = unsafe { std::mem::zeroed() };
        // SAFETY: room for the answer.
        self.check("asking for capabilities", unsafe { sys::rte_eth_dev_info_get(self.id, &raw mut info) })?;
        Ok(info)
    }

    /// What the port can do.
    pub fn capabilities(&self) -> Result<Capabilities, PortError> {
        Ok(capabilities(&self.info()?))
    }

    /// Configures queues and pools (primary, before [`start`](Self::start)).
    ///
    /// Checksum offloads the device has are switched on ([`Capabilities`]). For net_tap: more than
    /// [`tap::MAX_QUEUES`] queues, or other than as many RX as TX, are refused before DPDK aborts; and its RX
    /// queues get **one** descriptor: the driver reads one frame into one packet per system call, and would
    /// hold the others as a chain which a kill at the wrong instruction loses whole.
    pub fn configure(&self, config: &PortConfig<'_>) -> Result<(), PortError> {
        let info = self.info()?;
        let can = capabilities(&info);
        self.check_config(config, &can)?;
        let _quiet = tap::is_tap(&can.driver).then(tap::Quiet::begin);

        // SAFETY: plain data; all zero is DPDK's default configuration.
        let mut conf: sys::rte_eth_conf = unsafe { std::mem::zeroed() };
        conf.rxmode.mtu = config.mtu.into();
        conf.rxmode.offloads = bits(can.rx_checksums, rx_bits());
        conf.txmode.offloads = bits(can.tx_checksums, tx_bits());
        let mut key = config.rss_key.map(<[u8]>::to_vec);
        if config.rx_queues > 1 && can.rss {
            conf.rxmode.mq_mode = sys::RTE_ETH_MQ_RX_RSS;
            let rss = &mut conf.rx_adv_conf.rss_conf;
            rss.rss_hf = info.flow_type_rss_offloads & rss_fields();
            if let Some(key) = &mut key {
                rss.rss_key = key.as_mut_ptr();
                rss.rss_key_len = u8::try_from(key.len()).unwrap_or(u8::MAX);
            }
        }
        // SAFETY: the configuration and the key it points to live until the call returns; DPDK copies.
        let done = unsafe { sys::rte_eth_dev_configure(self.id, config.rx_queues, config.tx_queues, &raw const conf) };
        self.check("configuring", done)?;
        drop(key);
        self.set_mtu(config.mtu)?;

        let (mut rx_desc, mut tx_desc) = (config.rx_desc, config.tx_desc);
        // SAFETY: two numbers to read and write.
        let done = unsafe { sys::rte_eth_dev_adjust_nb_rx_tx_desc(self.id, &raw mut rx_desc, &raw mut tx_desc) };
        self.check("adjusting descriptors", done)?;
        if tap::is_tap(&can.driver) {
            rx_desc = 1;
        }
        // SAFETY: asks for a number.
        let socket = unsafe { sys::rte_eth_dev_socket_id(self.id) }.cast_unsigned();
        for (queue, pool) in (0..config.rx_queues).zip(config.pools) {
            // SAFETY: a live pool; NULL = default queue configuration.
            let done = unsafe {
                sys::rte_eth_rx_queue_setup(self.id, queue, rx_desc, socket, std::ptr::null(), pool.as_ptr())
            };
            self.check("setting up a receive queue", done)?;
        }
        for queue in 0..config.tx_queues {
            // SAFETY: NULL = default queue configuration.
            let done = unsafe { sys::rte_eth_tx_queue_setup(self.id, queue, tx_desc, socket, std::ptr::null()) };
            self.check("setting up a transmit queue", done)?;
        }
        if config.promiscuous {
            // SAFETY: a number.
            self.check("promiscuous mode", unsafe { sys::rte_eth_promiscuous_enable(self.id) })?;
        }
        Ok(())
    }

    fn check_config(&self, config: &PortConfig<'_>, can: &Capabilities) -> Result<(), PortError> {
        let (rx, tx) = (config.rx_queues, config.tx_queues);
        if rx == 0 || rx > can.max_rx_queues {
            let limit = format!("{} has 1 to {} receive queues", can.driver, can.max_rx_queues);
            return Err(self.limit("rx_queues", rx, limit));
        }
        if tx == 0 || tx > can.max_tx_queues {
            let limit = format!("{} has 1 to {} transmit queues", can.driver, can.max_tx_queues);
            return Err(self.limit("tx_queues", tx, limit));
        }
        if tap::is_tap(&can.driver) && rx != tx {
            return Err(self.limit("tx_queues", tx, format!("net_tap needs as many as receive queues: {rx}")));
        }
        if config.pools.len() != usize::from(rx) {
            let pools = u32::try_from(config.pools.len()).unwrap_or(u32::MAX);
            return Err(self.limit("pools", pools, format!("there must be one per receive queue: {rx}")));
        }
        if can.max_mtu > 0 && config.mtu > can.max_mtu {
            return Err(self.limit("mtu", config.mtu, format!("{} takes at most {}", can.driver, can.max_mtu)));
        }
        // Ethernet header and two VLAN tags.
        let frame = u32::from(config.mtu) + 14 + 8;
        if let Some(pool) = config.pools.iter().find(|p| u32::from(p.data_room()) < frame) {
            let limit = format!("packets of pool {} hold {} bytes, {frame} are needed", pool.name(), pool.data_room());
            return Err(self.limit("mtu", config.mtu, limit));
        }
        if let Some(key) = config.rss_key.filter(|_| can.rss && can.rss_key_size > 0)
            && key.len() != usize::from(can.rss_key_size)
        {
            let len = u32::try_from(key.len()).unwrap_or(u32::MAX);
            return Err(self.limit("rss key length", len, format!("the device takes {}", can.rss_key_size)));
        }
        Ok(())
    }

    /// memif and null refuse `set_mtu`: their frames are bounded by the pool alone, which was checked.
    fn set_mtu(&self, mtu: u16) -> Result<(), PortError> {
        // SAFETY: numbers.
        match unsafe { sys::rte_eth_dev_set_mtu(self.id, mtu) } {
            code if code == -libc::ENOTSUP => Ok(()),
            code => self.check("setting the MTU", code),
        }
    }

    /// Starts the port. net_tap's descriptors are disarmed ([`tap`]).
    pub fn start(&self) -> Result<(), PortError> {
        let _quiet = tap::is_tap(&self.name).then(tap::Quiet::begin);
        // SAFETY: a number.
        self.check("starting", unsafe { sys::rte_eth_dev_start(self.id) })
    }

    /// Stops the port. Secondaries that poll it must have stopped first.
    pub fn stop(&self) -> Result<(), PortError> {
        // SAFETY: a number.
        self.check("stopping", unsafe { sys::rte_eth_dev_stop(self.id) })
    }

    /// Closes the port for good. A secondary that still polls it crashes.
    pub fn close(self) -> Result<(), PortError> {
        // SAFETY: a number; the handle is consumed.
        self.check("closing", unsafe { sys::rte_eth_dev_close(self.id) })
    }

    /// Restarts a queue pair, which gives all packets its descriptors hold back to the pool. `Ok(false)`: the
    /// driver cannot (then restart the port), or has no descriptors worth it (net_tap).
    pub fn restart_queues(&self, queue: u16) -> Result<bool, PortError> {
        if tap::is_tap(&self.name) {
            return Ok(false);
        }
        let steps: [(&'static str, unsafe extern "C" fn(u16, u16) -> i32); 4] = [
            ("stopping a receive queue", sys::rte_eth_dev_rx_queue_stop),
            ("stopping a transmit queue", sys::rte_eth_dev_tx_queue_stop),
            ("starting a transmit queue", sys::rte_eth_dev_tx_queue_start),
            ("starting a receive queue", sys::rte_eth_dev_rx_queue_start),
        ];
        for (what, step) in steps {
            // SAFETY: numbers, checked by DPDK.
            match unsafe { step(self.id, queue) } {
                code if code == -libc::ENOTSUP => return Ok(false),
                code => self.check(what, code)?,
            }
        }
        Ok(true)
    }

    /// Sets the MAC. net_tap's stands in its device string: refused ([`tap::mac_in_devargs`]).
    pub fn set_mac(&self, mac: [u8; 6]) -> Result<(), PortError> {
        if tap::mac_in_devargs(&self.name) {
            return Err(PortError::MacInDevargs(self.name.clone()));
        }
        let mut addr = sys::rte_ether_addr { addr_bytes: mac };
        // SAFETY: six bytes to read.
        self.check("setting the MAC", unsafe { sys::rte_eth_dev_default_mac_addr_set(self.id, &raw mut addr) })
    }

    /// The MAC.
    pub fn mac(&self) -> Result<[u8; 6], PortError> {
        let mut addr = sys::rte_ether_addr { addr_bytes: [0; 6] };
        // SAFETY: six bytes to fill.
        self.check("asking for the MAC", unsafe { sys::rte_eth_macaddr_get(self.id, &raw mut addr) })?;
        Ok(addr.addr_bytes)
    }

    /// The MTU.
    pub fn mtu(&self) -> Result<u16, PortError> {
        let mut mtu = 0;
        // SAFETY: a number to fill.
        self.check("asking for the MTU", unsafe { sys::rte_eth_dev_get_mtu(self.id, &raw mut mtu) })?;
        Ok(mtu)
    }

    /// Its counters.
    pub fn stats(&self) -> Result<PortStats, PortError> {
        // SAFETY: plain data, filled by the call.
        let mut s: sys::rte_eth_stats = unsafe { std::mem::zeroed() };
        // SAFETY: room for the answer.
        self.check("asking for statistics", unsafe { sys::rte_eth_stats_get(self.id, &raw mut s) })?;
        Ok(PortStats {
            rx_packets: s.ipackets,
            tx_packets: s.opackets,
            rx_bytes: s.ibytes,
            tx_bytes: s.obytes,
            rx_missed: s.imissed,
            rx_errors: s.ierrors,
            tx_errors: s.oerrors,
            rx_nombuf: s.rx_nombuf,
        })
    }

    /// The link.
    pub fn link(&self) -> Result<Link, PortError> {
        let (mut speed_mbps, mut duplex, mut up) = (0, 0, 0);
        // SAFETY: three numbers to fill.
        let done = unsafe { sys::lb_link(self.id, &raw mut speed_mbps, &raw mut duplex, &raw mut up) };
        self.check("asking for the link", done)?;
        Ok(Link { up: up != 0, speed_mbps, full_duplex: duplex != 0 })
    }

    pub(crate) fn check_queue(&self, queue: u16, what: &'static str) -> Result<(), PortError> {
        let info = self.info()?;
        let have = if what == "rx" { info.nb_rx_queues } else { info.nb_tx_queues };
        if queue >= have {
            return Err(self.limit("queue", queue, format!("the port has {have} {what} queues configured")));
        }
        Ok(())
    }
}

fn capabilities(info: &sys::rte_eth_dev_info) -> Capabilities {
    let driver = if info.driver_name.is_null() {
        String::new()
    } else {
        // SAFETY: DPDK's driver names are static and NUL-terminated.
        unsafe { CStr::from_ptr(info.driver_name) }.to_string_lossy().into_owned()
    };
    let is_tap = tap::is_tap(&driver);
    let most = |n: u16| if is_tap { n.min(tap::MAX_QUEUES) } else { n };
    let sums = |capable: u64, bit: [u64; 3]| {
        let has = |b: u64| !is_tap && capable & b != 0;
        Checksums { ipv4: has(bit[0]), udp: has(bit[1]), tcp: has(bit[2]) }
    };
    Capabilities {
        max_rx_queues: most(info.max_rx_queues),
        max_tx_queues: most(info.max_tx_queues),
        max_mtu: info.max_mtu,
        tx_checksums: sums(info.tx_offload_capa, tx_bits()),
        rx_checksums: sums(info.rx_offload_capa, rx_bits()),
        reta_size: info.reta_size,
        rss: !is_tap && info.flow_type_rss_offloads & rss_fields() != 0,
        rss_key_size: info.hash_key_size,
        driver,
    }
}

fn bits(sums: Checksums, bit: [u64; 3]) -> u64 {
    [sums.ipv4, sums.udp, sums.tcp].iter().zip(bit).filter(|(on, _)| **on).map(|(_, b)| b).sum()
}

fn tx_bits() -> [u64; 3] {
    // SAFETY: a constant of the shim.
    unsafe { sys::lb_tx_cksum }
}

fn rx_bits() -> [u64; 3] {
    // SAFETY: a constant of the shim.
    unsafe { sys::lb_rx_cksum }
}

fn rss_fields() -> u64 {
    // SAFETY: a constant of the shim.
    unsafe { sys::lb_rss_ip_l4 }
}
