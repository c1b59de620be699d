//! What the machine needs: packages, hugepages, root.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::Outcome;
use crate::step::{self, cargo, say};

/// Debian packages: (name, what for).
const PACKAGES: &[(&str, &str)] = &[
    ("build-essential", "the C shim of dpdk-sys"),
    ("libdpdk-dev", "DPDK, headers and drivers"),
    ("dpdk-dev", "testpmd, which benchmarks are held against"),
    ("libclang-dev", "bindgen"),
    ("pkg-config", "finding DPDK"),
    ("iproute2", "namespaces"),
    ("procps", "sysctl"),
    ("util-linux", "nsenter, setpriv"),
    ("ethtool", "checksum offload of test wires"),
    ("iputils-ping", "echo in tests"),
    ("nginx-light", "real servers"),
    ("curl", "tests"),
    ("wrk", "benchmarks"),
    ("dpdk-dev", "testpmd, which benchmarks compare with"),
    ("haproxy", "a peer in benchmarks"),
    ("libnginx-mod-stream", "a peer in benchmarks"),
    ("nftables", "a peer in benchmarks"),
    ("python3-scapy", "malformed packets"),
    ("tcpdump", "looking at test wires"),
    ("valgrind", "instruction counts"),
    ("systemd", "checks of the units"),
];

/// 2 MiB pages that must be free: EAL's memory and the tables of a test appliance.
const HUGEPAGES: u64 = 512;
const HUGEPAGE_FOLDER: &str = "/sys/kernel/mm/hugepages/hugepages-2048kB";

/// Checks everything, installs and reserves what is missing.
pub fn run_all() -> Outcome {
    require_root()?;
    toolchain()?;
    packages()?;
    hugepages()?;
    tun_device()
}

/// `cargo xtask setup`.
pub fn run() -> Outcome {
    run_all()?;
    say("this machine has all that demo and test need");
    Ok(())
}

fn require_root() -> Outcome {
    // /proc/self belongs to the effective user.
    let uid = fs::metadata("/proc/self").map_err(|e| format!("/proc is not there: {e}"))?.uid();
    if uid == 0 {
        return Ok(());
    }
    Err(format!(
        "this runs as user {uid}, but network namespaces, hugepages and apt need root; \
         hint: sudo -E env \"PATH=$PATH\" cargo xtask …"
    ))
}

fn toolchain() -> Outcome {
    for part in ["fmt", "clippy"] {
        let quiet = cargo().args([part, "--version"]).stdout(Stdio::null()).stderr(Stdio::null()).status();
        if !quiet.is_ok_and(|s| s.success()) {
            let name = if part == "fmt" { "rustfmt" } else { part };
            return Err(format!("cargo {part} is missing; hint: rustup component add {name}"));
        }
    }
    Ok(())
}

fn packages() -> Outcome {
    let missing: Vec<&str> = PACKAGES.iter().map(|(name, _)| *name).filter(|name| !installed(name)).collect();
    if missing.is_empty() {
        return Ok(());
    }
    if !Path::new("/usr/bin/apt-get").exists() {
        let list: Vec<String> =
            PACKAGES.iter().filter(|(n, _)| missing.contains(n)).map(|(n, w)| format!("{n} ({w})")).collect();
        return Err(format!("this is no Debian; install what these hold: {}", list.join(", ")));
    }
    say(&format!("installing {}", missing.join(" ")));
    step::run(Command::new("sh").args(["-c", INSTALL, "install"]).args(&missing))
        .map_err(|e| format!("{e}; hint: see apt's own message above; is the package mirror reachable?"))
}

fn installed(package: &str) -> bool {
    Command::new("dpkg-query")
        .args(["-W", "-f=${db:Status-Status}", package])
        .stderr(Stdio::null())
        .output()
        .is_ok_and(|o| o.stdout == b"installed")
}

/// While apt works, policy-rc.d forbids packages to start their daemons; afterwards, also after
/// Ctrl-C, the machine's own policy is back.
const INSTALL: &str = r#"
policy=/usr/sbin/policy-rc.d
saved=$policy.before-containerlb
clean() { rm -f "$policy"; [ ! -e "$saved" ] || mv "$saved" "$policy"; }
trap clean EXIT
trap 'exit 130' INT TERM HUP
[ ! -e "$policy" ] || mv "$policy" "$saved"
printf '#!/bin/sh\nexit 101\n' > "$policy" && chmod 755 "$policy" || exit 1
export DEBIAN_FRONTEND=noninteractive
apt-get -q -o DPkg::Lock::Timeout=300 update &&
apt-get -q -y -o DPkg::Lock::Timeout=300 --no-install-recommends install "$@"
"#;

fn hugepages() -> Outcome {
    let read = |file: &str| -> Result<u64, String> {
        let path = format!("{HUGEPAGE_FOLDER}/{file}");
        let text = fs::read_to_string(&path).map_err(|e| format!("{path}: {e}; this kernel has no 2 MiB hugepages"))?;
        text.trim().parse().map_err(|_| format!("{path} holds {text:?}"))
    };
    for attempt in 0..3 {
        let (free, all) = (read("free_hugepages")?.saturating_sub(read("resv_hugepages")?), read("nr_hugepages")?);
        if free >= HUGEPAGES {
            return Ok(());
        }
        let wanted = all + HUGEPAGES - free;
        say(&format!("{free} hugepages of 2 MiB are free, {HUGEPAGES} needed: raising {all} to {wanted}"));
        if attempt > 0 {
            // Memory full of caches or in pieces: clear and try again.
            let _ = fs::write("/proc/sys/vm/drop_caches", "3");
            let _ = fs::write("/proc/sys/vm/compact_memory", "1");
        }
        let path = format!("{HUGEPAGE_FOLDER}/nr_hugepages");
        fs::write(&path, wanted.to_string()).map_err(|e| format!("write {wanted} to {path}: {e}"))?;
    }
    let free = read("free_hugepages")?;
    if free >= HUGEPAGES {
        return Ok(());
    }
    Err(format!(
        "only {free} of {HUGEPAGES} hugepages could be reserved: too little memory, or in pieces; \
         hint: free {} MiB, or reserve at boot with hugepages={HUGEPAGES} on the kernel's command line",
        (HUGEPAGES - free) * 2
    ))
}

fn tun_device() -> Outcome {
    if Path::new("/dev/net/tun").exists() {
        return Ok(());
    }
    Err("/dev/net/tun is missing, net_tap ports need it; hint: modprobe tun, or give the container this device".into())
}
