//! One appliance of so many services, and what is measured of it.

use std::fmt::Write as _;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::thread::sleep;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};
use tests::admin::Admin;
use tests::bench::{cpu_seconds, proc_field};
use tests::{Error, Result, Rig, RigSpec, wait};

use crate::report::{Cost, Kind, Report};

/// Longest that anything may take here.
const LIMIT: Duration = Duration::from_secs(120);
/// After the answer, until what control does behind it is done and its threads have been accounted.
const SETTLE: Duration = Duration::from_millis(30);

/// A running appliance.
pub struct Subject {
    rig: Rig,
    admin: Admin,
    name: &'static str,
    services: u32,
    servers: u32,
    /// The configuration with all services.
    text: String,
}

impl Subject {
    /// Starts an appliance without services, in tables for `services` × `servers`.
    pub fn start(name: &'static str, services: u32, servers: u32) -> Result<Self> {
        let mut rig = Rig::new(&RigSpec { name: name.into(), servers: 1, run_servers: false })?;
        let conf = &mut rig.appliance.conf;
        (conf.zones, conf.slots, conf.sessions) = (vec![vec![1]], 1, 16_384);
        // Servers lie behind a router, as those of a cloud do; the checks' routes go the same way.
        conf.gateways = vec!["10.0.0.21".into()];
        conf.limits = Some((services + 64, services * servers + 640));
        rig.app.ip(&["route add default via 10.0.0.21"])?;
        rig.start_primary(&[])?;
        rig.appliance.start_worker(0, 'a', &[])?;
        let socket = rig.appliance.conf.run_dir.join("control.sock");
        let text = rig.appliance.conf.to_toml() + &tables(services, servers);
        Ok(Self { admin: Admin::connect(&socket, LIMIT)?, rig, name, services, servers, text })
    }

    /// Anew: control cuts off who has been silent for half a minute.
    fn connect(&mut self) -> Result<()> {
        self.admin = Admin::connect(&self.rig.appliance.conf.run_dir.join("control.sock"), LIMIT)?;
        self.admin.call("version", &Value::Null).map(drop)
    }

    fn pid(&self) -> Result<u32> {
        self.rig.appliance.control_pid()
    }

    /// Everything at once: checked only, then applied; then the same file with one weight changed.
    pub fn whole(&mut self, report: &mut Report) -> Result<()> {
        let text = self.text.clone();
        let apply = |text: &str, dry: bool| (text.to_owned(), json!({"file": "bench.toml", "dry_run": dry}));
        let other = text.replacen("weight = 2", "weight = 3", 1);
        for (kind, (text, params)) in [
            (Kind::CheckAll, apply(&text, true)),
            (Kind::ApplyAll, apply(&text, false)),
            (Kind::CheckFile, apply(&other, true)),
            (Kind::ApplyFile, apply(&other, false)),
        ] {
            self.connect()?;
            self.admin.upload(&text)?;
            sleep(SETTLE);
            let cost = self.cost("config.apply", &params)?;
            report.add(self.name, kind, &cost);
        }
        Ok(())
    }

    /// One change of one kind; what it adds is taken away without being measured.
    pub fn change(&mut self, kind: Kind, round: u32, report: &mut Report) -> Result<()> {
        // Another service each time, all over the tables.
        let at = (round * 7919 + 13) % self.services;
        let service = format!("s{at}");
        let rs = server(at, 0);
        let more = server(at, self.servers);
        let (method, params) = match kind {
            Kind::Weight => {
                ("rs.set", json!({"service": service, "rs": rs, "keys": [["weight", (round + 5).to_string()]]}))
            }
            Kind::Drain => ("rs.drain", json!({"service": service, "rs": rs})),
            Kind::RsAdd => ("rs.add", json!({"service": service, "rs": more, "keys": []})),
            Kind::RsDel => ("rs.del", json!({"service": service, "rs": more, "now": false})),
            Kind::ServiceAdd => {
                let keys = json!([["vip", "10.3.0.1:80"], ["protocol", "tcp"], ["mode", "fullnat"]]);
                ("service.add", json!({"service": "one-more", "keys": keys}))
            }
            Kind::ServiceDel => ("service.del", json!({"service": "one-more", "now": false})),
            _ => return Err(Error::claim("this is no single change")),
        };
        self.connect()?;
        let cost = self.cost(method, &params)?;
        report.add(self.name, kind, &cost);
        if kind == Kind::Drain {
            self.admin.call("rs.enable", &params)?;
        }
        sleep(SETTLE);
        Ok(())
    }

    /// Asks, waits for the answer, and then until every slot reads the generation it names.
    fn cost(&mut self, method: &str, params: &Value) -> Result<Cost> {
        let pid = self.pid()?;
        let (cpu, written) = (cpu_seconds(pid), proc_field(pid, "io", "wchar"));
        let begun = Instant::now();
        let answer = self.admin.call(method, params)?;
        let answered = begun.elapsed();
        let generation = answer["generation"].as_u64().unwrap_or(0);
        self.seen(generation)?;
        let visible = begun.elapsed();
        sleep(SETTLE);
        let cpu = cpu_seconds(pid) - cpu;
        let written = proc_field(pid, "io", "wchar") - written;
        Ok(Cost { answered, visible, cpu, written })
    }

    fn seen(&mut self, generation: u64) -> Result<()> {
        wait::until("the generation in every slot", LIMIT, Duration::from_micros(200), || {
            let workers = self.admin.call("worker.list", &Value::Null)?;
            let slots = workers.as_array().into_iter().flatten().filter_map(|w| w["slots"].as_array()).flatten();
            let seen: Vec<u64> = slots.filter_map(|slot| slot["generation"].as_u64()).collect();
            Ok((!seen.is_empty() && seen.iter().all(|seen| *seen >= generation)).then_some(()))
        })
    }

    /// What control costs while nobody asks for anything.
    pub fn rest(&mut self, report: &mut Report) -> Result<()> {
        let pid = self.pid()?;
        let (cpu, begun) = (cpu_seconds(pid), Instant::now());
        sleep(Duration::from_secs(2));
        report.rest(self.name, (cpu_seconds(pid) - cpu) / begun.elapsed().as_secs_f64());
        Ok(())
    }

    /// Memory of control, and sizes of what is shared.
    pub fn memory(&mut self, report: &mut Report) -> Result<()> {
        let pid = self.pid()?;
        for (what, field) in [("control", "VmRSS"), ("control at most", "VmHWM")] {
            report.memory(self.name, what, proc_field(pid, "status", field) << 10);
        }
        let tables = self.rig.appliance.conf.run_dir.join("huge/tables");
        for entry in fs::read_dir(&tables).map_err(Error::file("read", &tables))?.flatten() {
            let size = entry.metadata().map_or(0, |m| m.blocks() * 512);
            report.memory(self.name, &format!("tables/{}", entry.file_name().display()), size);
        }
        let name = &self.rig.appliance.conf.name;
        for entry in fs::read_dir("/dev/shm").into_iter().flatten().flatten() {
            if entry.file_name().to_string_lossy().contains(name.as_str()) {
                report.memory(self.name, "health board", entry.metadata().map_or(0, |m| m.blocks() * 512));
            }
        }
        let journal = self.rig.appliance.conf.state_dir.join("journal");
        let files = fs::read_dir(&journal).map_err(Error::file("read", &journal))?.flatten();
        report.memory(self.name, "journal on disk", files.filter_map(|f| f.metadata().ok()).map(|m| m.len()).sum());
        Ok(())
    }

    /// Control is killed: until its successor answers, from journal and tables.
    pub fn restart(&mut self, report: &mut Report) -> Result<()> {
        let old = self.pid()?;
        let raw = i32::try_from(old).map_err(|_| Error::claim("a pid is positive"))?;
        let begun = Instant::now();
        kill(Pid::from_raw(raw), Signal::SIGKILL).map_err(|e| Error::claim(format!("kill {old}: {e}")))?;
        let socket = self.rig.appliance.conf.run_dir.join("control.sock");
        let pid = wait::until_ok("a new control", LIMIT, Duration::from_millis(1), || {
            let pid = self.pid()?;
            tests::error::ensure(pid != old, || "the old one".into())?;
            self.admin = Admin::connect(&socket, LIMIT)?;
            self.admin.call("version", &Value::Null)?;
            Ok(pid)
        })?;
        let answered = begun.elapsed();
        let cpu = cpu_seconds(pid);
        report.add(self.name, Kind::Restart, &Cost { answered, visible: answered, cpu, written: 0 });
        Ok(())
    }

    /// The disk alone: a kilobyte written, synced, renamed, the folder synced, as the journal does.
    pub fn disk(&self) -> Result<Duration> {
        let folder = self.rig.appliance.conf.state_dir.join("journal");
        let (path, to) = (self.rig.folder.join("probe"), self.rig.folder.join("probe-renamed"));
        let begun = Instant::now();
        let store = || -> std::io::Result<()> {
            fs::write(&path, [b'x'; 1024])?;
            fs::File::open(&path)?.sync_all()?;
            fs::rename(&path, &to)?;
            fs::File::open(&folder)?.sync_all()
        };
        store().map_err(Error::file("write", Path::new(&path)))?;
        Ok(begun.elapsed())
    }

    /// Stops the appliance; fails if anything of it had died.
    pub fn stop(&mut self) -> Result<()> {
        self.rig.appliance.expect_alive()?;
        self.rig.appliance.stop()
    }
}

/// The address of a service's server.
fn server(service: u32, number: u32) -> String {
    format!("10.{}.{}.{}:{}", 128 + service / 65_536, service / 256 % 256, service % 256, 8000 + number)
}

/// All services, the half of them weighted, every one checked (once a minute: nothing is checked here).
fn tables(services: u32, servers: u32) -> String {
    let mut out = String::new();
    for n in 0..services {
        let scheduler = if n % 2 == 0 { "rr" } else { "wrr" };
        // Writing to a String cannot fail.
        let _ = write!(
            out,
            "\n[[service]]\nname = \"s{n}\"\nvip = \"10.{}.{}.{}:80\"\nprotocol = \"tcp\"\nmode = \"fullnat\"\n\
             scheduler = \"{scheduler}\"\nhealth = {{ type = \"tcp\", interval = \"60s\" }}\n",
            64 + n / 65_536,
            n / 256 % 256,
            n % 256
        );
        for k in 0..servers {
            let _ = write!(out, "[[service.rs]]\naddress = \"{}\"\nweight = {}\n", server(n, k), k % 3 + 1);
        }
    }
    out
}
