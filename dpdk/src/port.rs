//! Ports: opened by name in every process, configured and started by the primary.

use std::ffi::{CStr, CString};

use dpdk_sys as sys;

use crate::{strerror, tap};

mod facts;

pub use facts::{Capabilities, Checksums, Link, PortConfig, PortError, PortStats};
use facts::{bits, capabilities, rss_fields, rx_bits, tx_bits};

/// A port. A handle: dropping it does nothing.
#[derive(Debug)]
pub struct Port {
    id: u16,
    name: String,
    /// The device its frames leave by, if another one.
    out: Option<Box<Port>>,
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
        Ok(Port { id, name, out: None })
    }

    /// The same port, whose frames leave by the device `out`: a link of two devices, one for each direction.
    /// Both are configured and started by themselves; a slot needs a queue of its own number on either.
    /// All else that is asked of the port is answered by the receiving device.
    #[must_use]
    pub fn sending_by(self, out: Port) -> Port {
        Port { out: Some(Box::new(out)), ..self }
    }

    /// The device its frames leave by.
    pub(crate) fn sender(&self) -> &Port {
        self.out.as_deref().unwrap_or(self)
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

    /// Receives frames to all groups from now on: of a started port. A driver that cannot choose takes them anyway, or never.
    pub fn receive_groups(&self) -> Result<(), PortError> {
        // SAFETY: a number.
        match unsafe { sys::rte_eth_allmulticast_enable(self.id) } {
            code if code == -libc::ENOTSUP => Ok(()),
            code => self.check("receiving all groups", code),
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
