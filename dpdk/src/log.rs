//! DPDK's log lines to the [`log`](https://docs.rs/log) facade, target `dpdk`.
//!
//! Left alone, DPDK 22.11 writes each line to stderr *and* to syslog, so a journal shows all of them twice.

use std::ffi::c_char;
use std::sync::Once;

/// Redirects, once per process. [`eal::init`](crate::eal::init) calls it before EAL says its first word.
pub(crate) fn redirect() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        // SAFETY: `line` has the signature the shim calls, and lives as long as the program.
        if unsafe { dpdk_sys::lb_log_redirect(Some(line)) } != 0 {
            ::log::warn!("DPDK's log could not be redirected; its lines appear on stderr and in syslog");
        }
    });
}

/// One `rte_log` call: usually one line. Level: 1 emergency … 4 error, 5 warning, 6 notice, 7 info, 8 debug.
unsafe extern "C" fn line(level: u32, text: *const c_char, len: usize) {
    // SAFETY: the C library hands over `len` readable bytes that stay until this returns.
    let bytes = unsafe { std::slice::from_raw_parts(text.cast::<u8>(), len) };
    let level = match level {
        0..=4 => ::log::Level::Error,
        5 => ::log::Level::Warn,
        6 | 7 => ::log::Level::Info,
        _ => ::log::Level::Debug,
    };
    for text in String::from_utf8_lossy(bytes).lines().filter(|l| !l.trim().is_empty()) {
        let level = if expected(text) { ::log::Level::Debug } else { level };
        ::log::log!(target: "dpdk", level, "{text}");
    }
}

/// What net_tap calls errors at every start on a kernel without the multiq queueing discipline, which only its
/// flow rules would need.
fn expected(text: &str) -> bool {
    ["multiq qdisc", "Disabling rte flow support", "Specified qdisc kind is unknown"].iter().any(|t| text.contains(t))
}
