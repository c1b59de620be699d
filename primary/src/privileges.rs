//! What holder and control give up at their start. Before the first thread: a thread inherits what its maker has.

use links::privileges::{PrivilegeError, Right, give_up};

/// Of root: files and processes of the instance's user.
const INSTANCE: &[Right] =
    &[Right::CAP_CHOWN, Right::CAP_DAC_OVERRIDE, Right::CAP_FOWNER, Right::CAP_FSETID, Right::CAP_KILL];
/// Taps and flow rules; memory that a NIC writes to.
const PORTS: &[Right] = &[Right::CAP_NET_ADMIN, Right::CAP_IPC_LOCK];
/// NICs without an IOMMU: physical addresses, interrupts by port (DPDK, "Running DPDK Applications Without Root Privileges").
const PHYSICAL: &[Right] = &[Right::CAP_SYS_ADMIN, Right::CAP_SYS_RAWIO, Right::CAP_DAC_READ_SEARCH];

/// The holder, when its memory is mounted. Under systemd it has `CAP_NET_ADMIN` at most.
///
/// # Errors
/// The kernel refuses.
pub fn holder(pci: bool) -> Result<(), PrivilegeError> {
    give_up(&[INSTANCE, PORTS, if pci { PHYSICAL } else { &[] }].concat())
}

/// Control touches no port. Under systemd it has nothing at all.
///
/// # Errors
/// The kernel refuses.
pub fn control() -> Result<(), PrivilegeError> {
    give_up(INSTANCE)
}
