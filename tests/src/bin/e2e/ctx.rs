//! What a test is given: rigs whose logs are kept, and a place for figures.

use std::path::PathBuf;

use tests::{Result, Rig, RigSpec};

/// A test's surroundings.
pub struct Ctx {
    logs: PathBuf,
    count: u32,
}

/// Where the logs of the test `name` go: beside the build's own files.
pub fn log_folder(name: &str) -> PathBuf {
    let me = std::env::current_exe().unwrap_or_default();
    // target/release/e2e → target/e2e-logs
    let target = me.ancestors().nth(2).map_or_else(std::env::temp_dir, PathBuf::from);
    target.join("e2e-logs").join(name.replace("::", "-"))
}

impl Ctx {
    /// For the test `name`.
    pub fn new(name: &str) -> Self {
        Self { logs: log_folder(name), count: 0 }
    }

    /// A rig with three servers of each kind and, in its configuration, the services `web`, `dns`
    /// and `talk`; nothing of the appliance runs yet.
    pub fn rig(&mut self) -> Result<Rig> {
        let mut rig = self.bare_rig()?;
        rig.add_usual_services();
        Ok(rig)
    }

    /// As [`Self::rig`], without services.
    pub fn bare_rig(&mut self) -> Result<Rig> {
        self.rig_of(3)
    }

    /// As [`Self::bare_rig`], with another number of server hosts.
    pub fn rig_of(&mut self, servers: u8) -> Result<Rig> {
        self.rig_with(RigSpec { servers, ..RigSpec::new("") })
    }

    /// As [`Self::bare_rig`], of another kind; it gets a name of its own.
    pub fn rig_with(&mut self, spec: RigSpec) -> Result<Rig> {
        self.count += 1;
        let mut rig = Rig::new(&RigSpec { name: format!("r{}", self.count), ..spec })?;
        rig.keep_logs(self.logs.clone());
        Ok(rig)
    }

    /// A figure worth printing beside "ok".
    #[allow(clippy::unused_self, reason = "reads as ctx.note at the caller; the place may change")]
    pub fn note(&self, text: impl AsRef<str>) {
        println!("note: {}", text.as_ref());
    }
}
