//! What net_tap needs that other drivers do not.
//!
//! The driver arms `O_ASYNC` with a real-time signal towards the primary on every queue's descriptor: every
//! packet then cuts the primary's sleeps short, and when the signal queue is full the kernel sends SIGIO,
//! which kills. Polling needs none of it: [`Quiet`] holds the signals back while ports start and disarms the
//! descriptors afterwards. (Source: DPDK 22.11 `drivers/net/tap/rte_eth_tap.c`, `tun_alloc`.)

use std::path::Path;

/// Most queue pairs of a net_tap port with secondaries; the fifth overruns an array and aborts the primary.
pub const MAX_QUEUES: u16 = 4;

/// Whether a device string (`net_tap0,iface=…`) or driver name means net_tap.
pub fn is_tap(device: &str) -> bool {
    device.starts_with("net_tap")
}

/// Whether the MAC must stand in the device string rather than be set on the port: net_tap gives its own to
/// the kernel interface when it is made.
pub fn mac_in_devargs(device: &str) -> bool {
    is_tap(device)
}

/// The device string with `mac=` (replacing one that is there), if the device wants it so; else unchanged.
pub fn with_mac(device: &str, mac: [u8; 6]) -> String {
    if !mac_in_devargs(device) {
        return device.to_owned();
    }
    let [a, b, c, d, e, f] = mac;
    let mut parts: Vec<&str> = device.split(',').filter(|p| !p.starts_with("mac=")).collect();
    let mac = format!("mac={a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{f:02x}");
    parts.push(&mac);
    parts.join(",")
}

/// Holds real-time signals back in this thread (and in threads it starts) until dropped; then disarms all tap
/// descriptors of the process, takes the signals that came meanwhile, and restores the mask.
/// SIGIO stays ignored for the life of the process.
pub struct Quiet {
    before: libc::sigset_t,
}

fn real_time() -> libc::sigset_t {
    // SAFETY: a zeroed sigset_t is overwritten by sigemptyset; the numbers added are valid signals.
    unsafe {
        let mut set = std::mem::zeroed();
        libc::sigemptyset(&raw mut set);
        for signal in libc::SIGRTMIN()..=libc::SIGRTMAX() {
            libc::sigaddset(&raw mut set, signal);
        }
        set
    }
}

impl Quiet {
    /// Begins. Nests: the inner one restores the outer one's mask.
    pub fn begin() -> Self {
        let set = real_time();
        // SAFETY: SIG_IGN needs no handler; the sets are initialised; `before` is filled by the call.
        unsafe {
            libc::signal(libc::SIGIO, libc::SIG_IGN);
            let mut before = std::mem::zeroed();
            libc::pthread_sigmask(libc::SIG_BLOCK, &raw const set, &raw mut before);
            Quiet { before }
        }
    }
}

impl Drop for Quiet {
    fn drop(&mut self) {
        if let Err(e) = disarm() {
            ::log::warn!("the tap descriptors could not be disarmed, packets will interrupt sleeps: {e}");
        }
        let set = real_time();
        let now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
        // SAFETY: valid set and time; NULL for the info we do not want. Ends when none is pending (or on error).
        while unsafe { libc::sigtimedwait(&raw const set, std::ptr::null_mut(), &raw const now) } > 0 {}
        // SAFETY: `before` was filled by pthread_sigmask.
        unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, &raw const self.before, std::ptr::null_mut()) };
    }
}

/// Clears `O_ASYNC` on every open `/dev/net/tun` descriptor of this process. Returns how many were armed.
pub fn disarm() -> std::io::Result<usize> {
    let mut armed = 0;
    for entry in std::fs::read_dir("/proc/self/fd")? {
        let entry = entry?;
        // The descriptor of this very listing may be gone: not a tap.
        let Ok(target) = std::fs::read_link(entry.path()) else { continue };
        if target != Path::new("/dev/net/tun") {
            continue;
        }
        let Some(fd) = entry.file_name().to_str().and_then(|n| n.parse::<i32>().ok()) else { continue };
        // SAFETY: fcntl on a number; a descriptor closed meanwhile gives EBADF.
        let flags = unsafe { libc::fcntl(fd, libc::F_GETFL) };
        if flags >= 0 && flags & libc::O_ASYNC != 0 {
            // SAFETY: as above.
            if unsafe { libc::fcntl(fd, libc::F_SETFL, flags & !libc::O_ASYNC) } < 0 {
                return Err(std::io::Error::last_os_error());
            }
            armed += 1;
        }
    }
    Ok(armed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mac_goes_into_the_device_string_of_taps_only() {
        let mac = [2, 0, 0, 0xab, 0, 1];
        assert_eq!(with_mac("net_tap0,iface=x", mac), "net_tap0,iface=x,mac=02:00:00:ab:00:01");
        assert_eq!(with_mac("net_tap0,mac=fixed,iface=x", mac), "net_tap0,iface=x,mac=02:00:00:ab:00:01");
        assert_eq!(with_mac("net_null0", mac), "net_null0");
    }

    #[test]
    fn the_mask_comes_back() {
        let mask = || {
            // SAFETY: asks for the mask only.
            unsafe {
                let mut set = std::mem::zeroed();
                libc::pthread_sigmask(libc::SIG_BLOCK, std::ptr::null(), &raw mut set);
                libc::sigismember(&raw const set, libc::SIGRTMIN())
            }
        };
        assert_eq!(mask(), 0);
        let quiet = Quiet::begin();
        assert_eq!(mask(), 1);
        drop(quiet);
        assert_eq!(mask(), 0);
    }
}
