//! The first message: who speaks, and what it was built with.
//!
//! It travels as JSON, so that any version of it can be read, compared and refused by any other.

use serde::{Deserialize, Serialize};
use shm_layout::header::{layout_text, layout_version};

/// Version of the messages. Raised with every change of [`messages`](crate::messages): they are not self-describing.
pub const PROTOCOL: u32 = 2;

/// What a process is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// lb-primary.
    Holder,
    /// Its child.
    Control,
    /// lb-worker.
    Worker,
    /// lb-healthcheck.
    Healthcheck,
}

impl std::fmt::Display for Role {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Holder => "holder",
            Self::Control => "control",
            Self::Worker => "worker",
            Self::Healthcheck => "healthcheck",
        })
    }
}

/// Who speaks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// [`PROTOCOL`] it speaks.
    pub protocol: u32,
    /// Layout version of the tables it was built for.
    pub layout: u32,
    /// Fingerprint of its rows.
    pub fingerprint: u64,
    /// DPDK it has loaded; `None`: it has none.
    pub dpdk: Option<String>,
    /// What it is.
    pub role: Role,
    /// Zone of a worker.
    pub zone: Option<u8>,
    /// A worker that wants the slots of a living one.
    #[serde(default)]
    pub take_over: bool,
    /// Lane it would like to have, 0 = a, 1 = b: that of the unit it is.
    #[serde(default)]
    pub lane: Option<u8>,
    /// Its process id.
    pub pid: u32,
    /// Version of the program.
    pub program: String,
}

impl Hello {
    /// This process.
    #[must_use]
    pub fn new(role: Role, dpdk: Option<String>) -> Self {
        Self {
            protocol: PROTOCOL,
            layout: layout_version(),
            fingerprint: shm_layout::fingerprint(),
            dpdk,
            role,
            zone: None,
            take_over: false,
            lane: None,
            pid: std::process::id(),
            program: env!("CARGO_PKG_VERSION").to_owned(),
        }
    }

    /// The same, of a zone.
    #[must_use]
    pub fn zone(self, zone: u8) -> Self {
        Self { zone: Some(zone), ..self }
    }

    /// "worker of zone 1, version 0.1.0, process 12".
    #[must_use]
    pub fn who(&self) -> String {
        let zone = self.zone.map_or_else(String::new, |z| format!(" of zone {z}"));
        format!("{}{zone}, version {}, process {}", self.role, self.program, self.pid)
    }

    /// Reads a hello of any version as far as it can be understood, and checks that it fits `own`.
    ///
    /// # Errors
    /// A sentence that names both sides and what differs.
    pub fn parse(json: &str, own: &Self) -> Result<Self, String> {
        // Protocol first: of another one the other fields need not be there.
        let value: serde_json::Value = serde_json::from_str(json)
            .map_err(|e| format!("a peer's hello is not understood ({e}); this is {}", own.who()))?;
        let text = |key: &str| value.get(key).map_or_else(|| "unknown".to_owned(), |v| v.to_string().replace('"', ""));
        let theirs = || format!("{}, version {}, process {}", text("role"), text("program"), text("pid"));
        if value.get("protocol").and_then(serde_json::Value::as_u64) != Some(u64::from(own.protocol)) {
            return Err(format!(
                "link protocol differs: {} speaks {}, {} speaks {}; hint: run both from one release",
                theirs(),
                text("protocol"),
                own.who(),
                own.protocol
            ));
        }
        let hello: Self = serde_json::from_value(value.clone())
            .map_err(|e| format!("hello of {} is not understood ({e}); this is {}", theirs(), own.who()))?;
        hello.fits(own).map(|()| hello)
    }

    fn fits(&self, own: &Self) -> Result<(), String> {
        let differ = |what: &str, theirs: String, ours: String| {
            Err(format!(
                "{what} differs: {} has {theirs}, {} has {ours}; hint: run both from one release",
                self.who(),
                own.who()
            ))
        };
        // Another minor version works together: whether it may use the tables, their own version says.
        if self.layout >> 16 != own.layout >> 16 {
            return differ("table layout", layout_text(self.layout), layout_text(own.layout));
        }
        if self.fingerprint != own.fingerprint {
            let print = |f: u64| format!("fingerprint {f:#018x}");
            return differ("table layout", print(self.fingerprint), print(own.fingerprint));
        }
        match (&self.dpdk, &own.dpdk) {
            (Some(theirs), Some(ours)) if theirs != ours => differ("DPDK", theirs.clone(), ours.clone()),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_differs_is_named_with_both_sides() {
        let own = Hello::new(Role::Holder, Some("DPDK 22.11.11".into()));
        let json = |hello: &Hello| serde_json::to_string(hello).unwrap();
        let peer = Hello { pid: 77, program: "0.2.0".into(), ..Hello::new(Role::Worker, own.dpdk.clone()).zone(1) };
        assert_eq!(Hello::parse(&json(&peer), &own), Ok(peer.clone()));

        let foreign = Hello { layout: 0x0002_0000, ..peer.clone() };
        let why = Hello::parse(&json(&foreign), &own).unwrap_err();
        let ours = format!("has {}.{}", own.layout >> 16, own.layout & 0xffff);
        for part in ["worker of zone 1, version 0.2.0, process 77 has 2.0", "holder", &ours] {
            assert!(why.contains(part), "{why}");
        }
        let minor = Hello { layout: own.layout + 1, ..peer.clone() };
        assert_eq!(Hello::parse(&json(&minor), &own), Ok(minor.clone()));
        assert!(Hello::parse(&json(&own), &minor).is_ok(), "the other way too");
        let why = Hello::parse(&json(&Hello { dpdk: Some("DPDK 23.11.0".into()), ..peer.clone() }), &own).unwrap_err();
        assert!(why.contains("23.11.0") && why.contains("22.11.11"), "{why}");
        let why = Hello::parse(r#"{"protocol":9,"program":"9.9","role":"poet"}"#, &own).unwrap_err();
        assert!(
            why.contains("poet, version 9.9")
                && why.contains("speaks 9")
                && why.contains(&format!("speaks {PROTOCOL}")),
            "{why}"
        );
        assert!(Hello::parse("garbage", &own).is_err());
        let without = Hello { dpdk: None, ..peer };
        assert!(Hello::parse(&json(&without), &own).is_ok());
    }
}
