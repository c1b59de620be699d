//! What the tests of this folder share: a configuration, a folder that goes away, facts, slots.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use config::{AllFacts, Config};

/// One port of two slots, two services, four local addresses.
pub const TOML: &str = r#"
[node]
name = "test"
sessions = 65536
[primary]
cpu = 0
[[zone]]
id = 0
numa = 0
cpus = [0]
[[zone]]
id = 1
numa = 0
cpus = [1]
[[port]]
name = "net0"
device = "net_tap0,iface=lbtest0"
zones = [0, 1]
slots = 2
addresses = ["10.0.0.2/24"]
gateways = ["10.0.0.1"]
[limits]
services = 16
real_servers = 64
neighbours = 64
[[laddr]]
port = "net0"
address = "10.0.0.128/30"
[[service]]
name = "web"
vip = "10.0.0.100:80"
protocol = "tcp"
mode = "fullnat"
scheduler = "wrr"
health = { type = "http", path = "/up", interval = "500ms", timeout = "300ms", rise = 2, fall = 3 }
[[service.rs]]
address = "10.0.0.21:8080"
[[service.rs]]
address = "10.0.0.22:8080"
weight = 2
[[service]]
name = "dns"
vip = "10.0.0.100:53"
protocol = "udp"
mode = "fullnat"
scheduler = "rr"
health = { type = "none" }
[[service.rs]]
address = "192.168.7.7:53"
"#;

/// [`TOML`], loaded.
pub fn config() -> Config {
    config::load_text("test.toml", TOML, &AllFacts).unwrap_or_else(|report| panic!("{report}")).config
}

/// A folder of its own below the temporary folder, removed when dropped.
pub struct Folder(PathBuf);

impl Folder {
    pub fn new(name: &str) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("lb-control-{name}-{}-{number}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }
    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
