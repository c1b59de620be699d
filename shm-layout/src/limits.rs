//! Every fixed size of the shared tables, in one place, with their relations asserted.

/// Layout version: high 16 bits major (another layout: refused), low 16 bits minor (meanings given to reserved bytes, see
/// [`compatible`](crate::header::compatible)). Whoever raises it adds the golden segments of the new version
/// (`cargo run -p shm-layout --example golden`) and keeps the old ones.
pub const LAYOUT_VERSION: u32 = 0x0001_0002;
/// First version with choice tables, persistence, and what [`ServiceRow`](crate::published::ServiceRow) says of them; with
/// the modes after `FULLNAT` and the flags they set ([`mode`](crate::published::mode),
/// [`directory_flag::NAT`](crate::published::directory_flag::NAT), [`flag::DIRECT`](crate::session::flag::DIRECT),
/// [`flag::TUNNEL`](crate::session::flag::TUNNEL)).
pub const LAYOUT_CHOICES: u32 = 0x0001_0001;
/// First version with wide records ([`AddressLine`](crate::session::AddressLine)), and with that IPv6.
pub const LAYOUT_WIDE: u32 = 0x0001_0002;

/// Ports an appliance may own.
pub const MAX_PORTS: usize = 8;
/// Slots over all ports (one queue pair each).
pub const MAX_SLOTS: usize = 64;
/// Worker processes (zones).
pub const MAX_ZONES: usize = 8;
/// Addresses of its own a port may carry.
pub const MAX_PORT_ADDRS: usize = 8;
/// Gateways a port may name.
pub const MAX_PORT_GATEWAYS: usize = 4;
/// FullNAT local addresses, single ones, over all ports.
pub const MAX_LADDRS: usize = 1024;

/// Packets taken from a queue at once.
pub const RX_BURST: usize = 32;
/// Packets of one slot that may wait to be sent. At least two bursts: one unsent rest and one new burst.
pub const TX_HELD: usize = 128;
/// Packets of one slot that may wait for a neighbour's address.
pub const NEIGH_WAIT: usize = 128;
/// Packets that may wait for one neighbour.
pub const NEIGH_WAIT_PER_HOP: usize = 64;

/// Buckets of the timer wheel (a power of two).
pub const WHEEL_BUCKETS: usize = 128;
/// One step of the timer wheel in milliseconds; the longest stride is `WHEEL_BUCKETS - 1` steps.
pub const WHEEL_TICK_MS: u32 = 125;
/// Expiry and sweep work done at most per burst, in session records.
pub const RECORDS_PER_BURST: usize = 64;

/// Keys in one index bucket (one cache line: tags 20 B, indices 40 B, overflow count 4 B).
pub const BUCKET_KEYS: usize = 10;
/// Index load the table is sized for, per cent.
pub const INDEX_LOAD_PERCENT: u64 = 85;

/// How keys are packed and hashed; raised with every change, for a table filled by one way is empty to another. Odd: by
/// the CPU's AES instructions.
pub const INDEX_HASH: usize =
    2 + cfg!(all(target_arch = "x86_64", target_feature = "avx", target_feature = "aes")) as usize;

/// Retired generations kept before `apply` waits for the slowest worker.
pub const RETIRED_GENERATIONS: usize = 4;
/// Directory blocks: the current generation, the one being built, the retired ones.
pub const DIRECTORIES: usize = RETIRED_GENERATIONS + 2;

/// Bytes of a ring's records between two slots; shared out so that 64 slots do not eat the machine.
pub const RING_BYTES_MAX: usize = 256 * 1024;
/// Smallest ring between two slots.
pub const RING_BYTES_MIN: usize = 32 * 1024;
/// Bytes of the rings between control and a slot, each way.
pub const CONTROL_RING_BYTES: usize = 256 * 1024;
/// Largest frame a ring record carries.
pub const RING_FRAME_MAX: usize = 9728;

/// "None" in every index and id of the tables.
pub const NONE: u32 = u32::MAX;

/// Bytes of a name in the tables (config allows 32).
pub const NAME_BYTES: usize = 32;

const _: () = assert!(WHEEL_BUCKETS.is_power_of_two());
const _: () = assert!(TX_HELD >= 2 * RX_BURST);
const _: () = assert!(RING_BYTES_MIN > 2 * RING_FRAME_MAX);
const _: () = assert!(RING_BYTES_MIN.is_power_of_two() && RING_BYTES_MAX.is_power_of_two());
const _: () = assert!(CONTROL_RING_BYTES.is_power_of_two());

/// Bytes of one slot-to-slot ring for an appliance of `slots` slots.
#[must_use]
pub const fn ring_bytes(slots: usize) -> usize {
    let mut bytes = RING_BYTES_MAX;
    // All inbound rings of one slot together stay within 2 MiB, one hugepage.
    while bytes > RING_BYTES_MIN && bytes * slots > 2 << 20 {
        bytes /= 2;
    }
    bytes
}

/// Buckets of the session index for `sessions` records: two keys each at [`INDEX_LOAD_PERCENT`].
#[must_use]
pub const fn index_buckets(sessions: u64) -> u64 {
    let keys = sessions * 2;
    let per = BUCKET_KEYS as u64 * INDEX_LOAD_PERCENT;
    let buckets = (keys * 100).div_ceil(per);
    if buckets < 4 { 4 } else { buckets }
}
