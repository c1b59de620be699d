//! Versions and limits of the DPDK in use.

use std::ffi::CStr;

/// Lcore ids lie below this (`RTE_MAX_LCORE`). They are unique over all processes of a file prefix.
pub const MAX_LCORES: u32 = dpdk_sys::LB_MAX_LCORE;

/// The version of the DPDK library loaded, for instance `DPDK 22.11.11`.
///
/// A secondary must run the very same version as its primary: compare before [`eal::init`](crate::eal::init),
/// whose own refusal does not name the versions.
pub fn version() -> String {
    // SAFETY: rte_version returns a static NUL-terminated string.
    unsafe { CStr::from_ptr(dpdk_sys::rte_version()) }.to_string_lossy().into_owned()
}
