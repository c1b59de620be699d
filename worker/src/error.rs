//! Why a worker does not start.

/// What stops a worker before it serves.
#[derive(Debug, thiserror::Error)]
pub enum WorkerError {
    /// A table is missing, foreign or damaged: both sides are in the text.
    #[error(transparent)]
    Segment(#[from] shm_layout::SegmentError),
    /// The holder is not there, or said no.
    #[error(transparent)]
    Link(#[from] links::LinkError),
    /// The holder has gone.
    #[error("lb-primary has gone; hint: start it, workers attach again")]
    HolderGone,
    /// Told to stop before it served: no error.
    #[error("told to stop before it was admitted")]
    Stopped,
    /// `lb-primary` stops, and with it its workers: no error.
    #[error("lb-primary stops")]
    Ordered,
    /// EAL.
    #[error(transparent)]
    Eal(#[from] dpdk::EalError),
    /// A port.
    #[error(transparent)]
    Port(#[from] dpdk::PortError),
    /// A pool.
    #[error(transparent)]
    Pool(#[from] dpdk::PoolError),
    /// DPDK numbers the ports otherwise than in the primary.
    #[error("port {name} is number {here} in this process, {there} in lb-primary; hint: restart the appliance")]
    PortNumber {
        /// Its name.
        name: String,
        /// Here.
        here: u16,
        /// There.
        there: u16,
    },
    /// The zone has no slot.
    #[error("zone {zone} serves no slot: no port names it; hint: zones = [..., {zone}] in a [[port]]")]
    NoSlot {
        /// The zone.
        zone: u8,
    },
    /// The successor was not good enough.
    #[error("worker process {pid}, which this one relieved, has taken its slots back; its log says why")]
    TakenBack {
        /// The old worker.
        pid: u32,
    },
    /// A slot's owner lives.
    #[error("slot {slot} is served by process {pid} (zone {zone}); hint: stop it first, or --take-over")]
    Owned {
        /// The slot.
        slot: u32,
        /// Its owner.
        pid: u32,
        /// The owner's zone.
        zone: u32,
    },
    /// The tables contradict each other.
    #[error("slot {slot}: {what}; hint: restart the appliance")]
    Inconsistent {
        /// The slot.
        slot: u32,
        /// What does not fit.
        what: &'static str,
    },
    /// Threads and signals.
    #[error("cannot {what}: {source}")]
    System {
        /// What was tried.
        what: &'static str,
        /// The kernel's reason.
        source: std::io::Error,
    },
}

impl WorkerError {
    /// For `map_err`.
    pub fn system(what: &'static str) -> impl FnOnce(std::io::Error) -> Self {
        move |source| Self::System { what, source }
    }
}
