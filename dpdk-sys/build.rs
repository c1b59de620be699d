//! Finds the installed DPDK, binds what we call, compiles the shim.
//!
//! `pkg-config` is run as a command: the crate of that name drops `-include rte_config.h` and `-march=…`
//! from the flags, and both bindgen and cc need them.

use std::path::PathBuf;
use std::process::Command;

/// The oldest and the first refused version. Attaching demands the very same DPDK in every process, crash
/// recovery knows this ring layout, and 22.11 is Debian 12's.
const AT_LEAST: (u32, u32) = (22, 11);
const BELOW: (u32, u32) = (22, 12);
const FIX: &str = "apt-get install libdpdk-dev libclang-dev pkg-config";

/// DPDK's libraries that we or the drivers call.
const LIBS: [&str; 20] = [
    "eal",
    "kvargs",
    "telemetry",
    "ring",
    "rcu",
    "mempool",
    "mbuf",
    "net",
    "meter",
    "ethdev",
    "pci",
    "hash",
    "timer",
    "gso",
    "ip_frag",
    "sched",
    "cryptodev",
    "security",
    "vhost",
    "dmadev",
];

/// Buses, the pool's operations, and the network drivers of the appliance, linked in whole: they register themselves before
/// `main`. EAL of a program that links libdpdk.so instead opens every driver that is installed, 128 of them, which is half of a
/// worker's start; and the system's update of those files would stand between a running lb-primary and the next worker.
///
/// All processes must register the pool's operations in one order, which shared memory refers to: add at the end.
const DRIVERS: [&str; 38] = [
    "bus_vdev",
    "bus_pci",
    "bus_auxiliary",
    "bus_vmbus",
    "mempool_ring",
    // Virtual.
    "net_tap",
    "net_null",
    "net_pcap",
    "net_ring",
    "net_memif",
    "net_af_packet",
    "net_af_xdp",
    "net_bond",
    "net_vhost",
    // Of clouds and hypervisors.
    "net_virtio",
    "net_vmxnet3",
    "net_netvsc",
    "net_vdev_netvsc",
    "net_failsafe",
    "net_ena",
    "net_gve",
    // Intel.
    "common_iavf",
    "net_e1000",
    "net_igc",
    "net_ixgbe",
    "net_i40e",
    "net_iavf",
    "net_ice",
    // NVIDIA.
    "common_mlx5",
    "net_mlx4",
    "net_mlx5",
    // Others.
    "net_bnxt",
    "net_enic",
    "net_hns3",
    "net_ionic",
    "net_nfp",
    "net_qede",
    "net_txgbe",
];

/// The libraries called by us: all that is linked with feature `shared`, where drivers are plugins that EAL opens itself.
const CALLED: [&str; 5] = ["eal", "ethdev", "mbuf", "mempool", "ring"];

/// What the drivers need of the system.
const SYSTEM: [&str; 10] = ["bsd", "numa", "pcap", "xdp", "bpf", "ibverbs", "mlx4", "mlx5", "z", "m"];

const FUNCTIONS: [&str; 36] = [
    "rte_eal_init",
    "rte_eal_cleanup",
    "rte_service_finalize",
    "rte_malloc_get_socket_stats",
    "rte_version",
    "rte_strerror",
    "rte_eth_dev_get_port_by_name",
    "rte_eth_dev_get_name_by_port",
    "rte_eth_find_next_owned_by",
    "rte_eth_dev_info_get",
    "rte_eth_dev_configure",
    "rte_eth_dev_adjust_nb_rx_tx_desc",
    "rte_eth_rx_queue_setup",
    "rte_eth_tx_queue_setup",
    "rte_eth_dev_start",
    "rte_eth_dev_stop",
    "rte_eth_dev_close",
    "rte_eth_dev_socket_id",
    "rte_eth_dev_set_mtu",
    "rte_eth_dev_get_mtu",
    "rte_eth_dev_default_mac_addr_set",
    "rte_eth_macaddr_get",
    "rte_eth_stats_get",
    "rte_eth_promiscuous_enable",
    "rte_eth_allmulticast_enable",
    "rte_eth_dev_rx_queue_stop",
    "rte_eth_dev_rx_queue_start",
    "rte_eth_dev_tx_queue_stop",
    "rte_eth_dev_tx_queue_start",
    "rte_pktmbuf_pool_create_by_ops",
    "rte_pktmbuf_free_bulk",
    "rte_mempool_lookup",
    "rte_mempool_avail_count",
    "rte_mempool_obj_iter",
    "rte_mcfg_(mem|tailq|mempool)_write_(un)?lock|rte_mcfg_timer_(un)?lock",
    "lb_.*",
];

fn fail(message: &str) -> ! {
    eprintln!("error: {message}");
    std::process::exit(1);
}

fn pkg_config(arg: &str) -> Vec<String> {
    let out = Command::new("pkg-config").args([arg, "libdpdk"]).output();
    match out {
        Ok(out) if out.status.success() => {
            String::from_utf8_lossy(&out.stdout).split_whitespace().map(str::to_owned).collect()
        }
        Ok(out) => {
            eprintln!("{}", String::from_utf8_lossy(&out.stderr));
            fail(&format!("libdpdk not found: {FIX}"))
        }
        Err(e) => fail(&format!("libdpdk not found (pkg-config: {e}): {FIX}")),
    }
}

fn check_version() {
    let version = pkg_config("--modversion").concat();
    let mut parts = version.split('.').map(|p| p.parse::<u32>().unwrap_or(0));
    let found = (parts.next().unwrap_or(0), parts.next().unwrap_or(0));
    if found < AT_LEAST || found >= BELOW {
        fail(&format!(
            "libdpdk {version} found, but {}.{:02} <= version < {}.{:02} is needed (Debian 12): {FIX}",
            AT_LEAST.0, AT_LEAST.1, BELOW.0, BELOW.1
        ));
    }
}

fn bind(cflags: &[String]) -> bindgen::Bindings {
    let mut builder = bindgen::builder()
        .header("wrapper.h")
        .clang_args(cflags)
        .clang_arg("-Wno-everything")
        .allowlist_var("LB_.*|lb_.*")
        // Named in signatures of ours, but in no function bound here.
        .allowlist_type("rte_eth_rx_mq_mode|rte_ring")
        // Rust cannot express packed and aligned together.
        .opaque_type("rte_arp_.*|rte_gtp_.*|rte_l2tpv2_.*|rte_ecpri_.*")
        // Rust reads these by the offsets in shim.h.
        .opaque_type("rte_mbuf|rte_mempool|rte_ring|rte_memzone|rte_eth_rxseg.*|rte_devargs|rte_device|rte_intr_handle")
        .default_enum_style(bindgen::EnumVariation::Consts)
        .prepend_enum_name(false)
        .generate_comments(false)
        .layout_tests(true)
        .derive_debug(false);
    for f in FUNCTIONS {
        builder = builder.allowlist_function(f);
    }
    // bindgen panics when it cannot load libclang at run time.
    match std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| builder.generate())) {
        Ok(Ok(bindings)) => bindings,
        Ok(Err(e)) => fail(&format!("bindgen could not read the DPDK headers: {e}; {FIX}")),
        Err(_) => fail(&format!("libclang not found: {FIX}")),
    }
}

fn main() {
    for file in ["build.rs", "wrapper.h", "shim.h", "shim.c"] {
        println!("cargo:rerun-if-changed={file}");
    }
    println!("cargo:rerun-if-env-changed=PKG_CONFIG_PATH");
    check_version();
    let cflags = pkg_config("--cflags");

    let out = PathBuf::from(std::env::var_os("OUT_DIR").expect("cargo sets OUT_DIR"));
    bind(&cflags).write_to_file(out.join("bindings.rs")).unwrap_or_else(|e| fail(&format!("bindings.rs: {e}")));

    let mut cc = cc::Build::new();
    cc.file("shim.c").opt_level(3).warnings(true).flag("-Wno-deprecated-declarations");
    for flag in &cflags {
        cc.flag(flag);
    }
    cc.compile("lb_dpdk_shim");

    for flag in pkg_config("--libs-only-L") {
        println!("cargo:rustc-link-search=native={}", flag.trim_start_matches("-L"));
    }
    if std::env::var_os("CARGO_FEATURE_SHARED").is_some() {
        for lib in CALLED {
            println!("cargo:rustc-link-lib=dylib=rte_{lib}");
        }
        return;
    }
    // Whole, and resolved among each other whatever their order: each may call any other.
    for lib in LIBS.iter().chain(&DRIVERS) {
        println!("cargo:rustc-link-lib=static:+whole-archive,-bundle=rte_{lib}");
    }
    for lib in SYSTEM {
        println!("cargo:rustc-link-lib=dylib={lib}");
    }
}
