//! Every code a diagnostic can carry. Codes stay the same over versions; `E` is refused, `W` is said.

/// The file cannot be read.
pub const UNREADABLE: &str = "LB-E001";
/// Not TOML.
pub const SYNTAX: &str = "LB-E002";
/// A key nobody knows.
pub const UNKNOWN_KEY: &str = "LB-E003";
/// A key that must be there.
pub const MISSING_KEY: &str = "LB-E004";
/// A value of the wrong TOML type.
pub const WRONG_TYPE: &str = "LB-E005";
/// A text that does not say what its key asks for (name, word, range, device, MAC).
pub const BAD_VALUE: &str = "LB-E010";
/// A duration without unit or with an unknown one.
pub const BAD_DURATION: &str = "LB-E011";
/// Not an address, or one that cannot be used here.
pub const BAD_ADDRESS: &str = "LB-E012";
/// A number or duration outside its limits.
pub const OUT_OF_RANGE: &str = "LB-E013";
/// A name, id, device or interface used twice.
pub const DUPLICATE: &str = "LB-E020";
/// Two services on one VIP, port and protocol.
pub const DUPLICATE_VIP: &str = "LB-E021";
/// A server twice in one service.
pub const DUPLICATE_RS: &str = "LB-E022";
/// Local addresses that are also something else.
pub const OVERLAP: &str = "LB-E023";
/// A port or zone that is not configured.
pub const UNKNOWN_REFERENCE: &str = "LB-E030";
/// FullNAT without a local address of the family.
pub const NO_LADDR: &str = "LB-E031";
/// Keys that exclude each other.
pub const CONFLICT: &str = "LB-E032";
/// A CPU or NUMA node this machine does not have.
pub const NO_SUCH_CPU: &str = "LB-E040";
/// CPUs shared while workers never sleep.
pub const CPU_SHARED_BUSY: &str = "LB-E041";
/// More than the tables hold.
pub const TOO_MANY: &str = "LB-E050";
/// A checked server to which the kernel has no route.
pub const NO_ROUTE: &str = "LB-E060";
/// An edit of something that is not there.
pub const NOT_FOUND: &str = "LB-E070";
/// Specified, but not in this version.
pub const NOT_YET: &str = "LB-E090";

/// CPUs shared by zones or with the holder.
pub const CPU_SHARED: &str = "LB-W001";
/// A zone whose worker would have nothing to do.
pub const IDLE_ZONE: &str = "LB-W002";
/// A server no port can reach.
pub const NO_NEXT_HOP: &str = "LB-W003";
/// A service whose servers are not checked, without saying so.
pub const UNCHECKED: &str = "LB-W004";
