//! What is to be published, in plain types, and how it is written into rows and read back from them.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use crate::choice::{Key, Share};
use crate::neighbours::{Ip, as_v4};
use crate::published::{
    LocalRow, MemberRow, Published, ServiceRow, admin, load_name, mode, scheduler, service_flag, store_name,
};
use crate::session::TIMEOUTS;

/// Everything a generation names.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// Services, removed ones that still have sessions included.
    pub services: Vec<ServicePlan>,
    /// Local addresses, one row each.
    pub locals: Vec<LocalPlan>,
}

/// A [`Plan`] whose services are shared with the plan before it: those that are the very same need not be compared.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SharedPlan {
    /// As [`Plan::services`].
    pub services: Vec<Arc<ServicePlan>>,
    /// As [`Plan::locals`].
    pub locals: Vec<LocalPlan>,
}

impl From<&Plan> for SharedPlan {
    fn from(plan: &Plan) -> Self {
        Self { services: plan.services.iter().cloned().map(Arc::new).collect(), locals: plan.locals.clone() }
    }
}

impl From<&SharedPlan> for SharedPlan {
    fn from(plan: &SharedPlan) -> Self {
        plan.clone()
    }
}

/// A service. Fields: [`ServiceRow`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServicePlan {
    /// Place in the directory and in the counts; below the limit of services.
    pub index: u32,
    /// Id of this use of the place.
    pub id: u32,
    /// Virtual address.
    pub vip: Ip,
    /// Virtual port.
    pub port: u16,
    /// [`crate::published::protocol`].
    pub protocol: u8,
    /// [`crate::published::mode`].
    pub mode: u8,
    /// [`scheduler`].
    pub scheduler: u8,
    /// [`crate::published::service_flag`] bits.
    pub flags: u8,
    /// Most sessions, 0 no limit.
    pub max_sessions: u32,
    /// Interval of its checks, ms; 0: not checked.
    pub check_interval_ms: u32,
    /// Timeout per state, ms.
    pub timeouts: [u32; TIMEOUTS],
    /// Choice by hash, and how long it stays.
    pub hashing: Hashing,
    /// Name.
    pub name: String,
    /// Real servers, removed ones included.
    pub members: Vec<MemberPlan>,
}

/// What a service's choices by hash follow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Hashing {
    /// Key; `[0, 0]`: none.
    pub key: Key,
    /// How long a client's prefix keeps its server, ms; 0: it does not.
    pub persistence_ms: u32,
    /// Bits of that prefix (as if IPv6: an IPv4 /24 is 120).
    pub prefix: u32,
}

/// A real server. Fields: [`MemberRow`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemberPlan {
    /// Id; below the limit of servers.
    pub id: u32,
    /// Tag of the id's present use.
    pub tag: u32,
    /// Address.
    pub ip: Ip,
    /// Port.
    pub port: u16,
    /// Weight.
    pub weight: u16,
    /// [`crate::published::admin`].
    pub admin: u8,
}

/// A local address. Fields: [`LocalRow`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LocalPlan {
    /// Address.
    pub ip: Ip,
    /// Port of the appliance it is on.
    pub port: u32,
    /// First L4 port.
    pub low: u16,
    /// Last L4 port.
    pub high: u16,
    /// [`crate::published::local_flag`] bits.
    pub flags: u32,
}

impl ServicePlan {
    /// Weights the sequence of the service is made of; `None`: its scheduler needs no sequence. Servers that take no
    /// sessions count as 0.
    #[must_use]
    pub fn weights(&self) -> Option<Vec<u16>> {
        matches!(self.scheduler, scheduler::WRR | scheduler::WLC).then(|| {
            let takes = |m: &MemberPlan| m.admin == admin::ENABLED;
            self.members.iter().map(|m| if takes(m) { m.weight } else { 0 }).collect()
        })
    }

    /// Shares of the members in the choice table of the service, in their order; `None`: it needs none. Servers that take
    /// no sessions keep their places, so that nobody else's client moves for as long as they are configured.
    pub(super) fn shares(&self) -> Option<Vec<Share>> {
        let hashes = matches!(self.scheduler, scheduler::SOURCE_IP | scheduler::SOURCE_IP_PORT | scheduler::MAGLEV);
        let needed = (hashes || self.hashing.persistence_ms > 0) && self.flags & service_flag::REMOVED == 0;
        let configured = |m: &MemberPlan| !matches!(m.admin, admin::REMOVED | admin::REMOVED_NOW);
        let share = |m: &MemberPlan| Share {
            ip: m.ip,
            port: m.port,
            protocol: self.protocol,
            weight: if configured(m) { m.weight } else { 0 },
        };
        needed.then(|| self.members.iter().map(share).collect())
    }

    /// Are its sessions wide: has it or a server of it an IPv6 address?
    pub(super) fn is_wide(&self) -> bool {
        as_v4(self.vip).is_none() || self.members.iter().any(|member| as_v4(member.ip).is_none())
    }

    /// Does the row say what layout 1.0 does not know?
    pub(super) fn since_1_1(&self) -> bool {
        self.mode != mode::FULLNAT || self.scheduler > scheduler::LC || self.hashing.persistence_ms > 0
    }

    /// Writes the row; its ranges and checksum follow.
    pub(super) fn store(&self, row: &ServiceRow) {
        // Relaxed, here and below: no reader has the row before the Release of `root.current`.
        row.id.store(self.id, Relaxed);
        row.vip[0].store(self.vip[0], Relaxed);
        row.vip[1].store(self.vip[1], Relaxed);
        row.port.store(self.port, Relaxed);
        row.protocol.store(self.protocol, Relaxed);
        row.mode.store(self.mode, Relaxed);
        row.scheduler.store(self.scheduler, Relaxed);
        let persistent = if self.hashing.persistence_ms > 0 { service_flag::PERSISTENT } else { 0 };
        row.flags.store(self.flags | persistent, Relaxed);
        row.max_sessions.store(self.max_sessions, Relaxed);
        row.check_interval_ms.store(self.check_interval_ms, Relaxed);
        for (to, from) in row.timeouts.iter().zip(self.timeouts) {
            to.store(from, Relaxed);
        }
        row.persistence_ms.store(self.hashing.persistence_ms, Relaxed);
        row.persistence_prefix.store(self.hashing.prefix, Relaxed);
        for (to, from) in row.choice_key.iter().zip(self.hashing.key) {
            to.store(from, Relaxed);
        }
        store_name(&row.name, &self.name);
    }

    /// Reads a service version back; `None` when it is not as its checksum says.
    #[must_use]
    pub fn load(tables: &Published, index: u32, row: &ServiceRow) -> Option<Self> {
        let sums = (row.checksum.load(Relaxed), row.choice_sum.load(Relaxed));
        if sums != (tables.service_sum(row), tables.choice_sum(row)) {
            return None;
        }
        let mut timeouts = [0; TIMEOUTS];
        for (to, from) in timeouts.iter_mut().zip(&row.timeouts) {
            *to = from.load(Relaxed);
        }
        let members = tables.members(row);
        if members.len() != row.members.load(Relaxed) as usize {
            return None;
        }
        Some(Self {
            index,
            id: row.id.load(Relaxed),
            vip: [row.vip[0].load(Relaxed), row.vip[1].load(Relaxed)],
            port: row.port.load(Relaxed),
            protocol: row.protocol.load(Relaxed),
            mode: row.mode.load(Relaxed),
            scheduler: row.scheduler.load(Relaxed),
            flags: row.flags.load(Relaxed) & !service_flag::PERSISTENT,
            max_sessions: row.max_sessions.load(Relaxed),
            check_interval_ms: row.check_interval_ms.load(Relaxed),
            timeouts,
            hashing: Hashing {
                key: [row.choice_key[0].load(Relaxed), row.choice_key[1].load(Relaxed)],
                persistence_ms: row.persistence_ms.load(Relaxed),
                prefix: row.persistence_prefix.load(Relaxed),
            },
            name: load_name(&row.name),
            members: members.iter().map(MemberPlan::load).collect(),
        })
    }
}

impl MemberPlan {
    pub(super) fn store(&self, row: &MemberRow, service: &ServicePlan) {
        row.id.store(self.id, Relaxed);
        row.tag.store(self.tag, Relaxed);
        row.ip[0].store(self.ip[0], Relaxed);
        row.ip[1].store(self.ip[1], Relaxed);
        row.port.store(self.port, Relaxed);
        row.weight.store(self.weight, Relaxed);
        row.admin.store(self.admin, Relaxed);
        row.protocol.store(service.protocol, Relaxed);
        row.service.store(service.index, Relaxed);
    }

    fn load(row: &MemberRow) -> Self {
        Self {
            id: row.id.load(Relaxed),
            tag: row.tag.load(Relaxed),
            ip: [row.ip[0].load(Relaxed), row.ip[1].load(Relaxed)],
            port: row.port.load(Relaxed),
            weight: row.weight.load(Relaxed),
            admin: row.admin.load(Relaxed),
        }
    }
}

impl LocalPlan {
    pub(super) fn store(&self, row: &LocalRow) {
        row.ip[0].store(self.ip[0], Relaxed);
        row.ip[1].store(self.ip[1], Relaxed);
        row.port.store(self.port, Relaxed);
        row.low.store(self.low, Relaxed);
        row.high.store(self.high, Relaxed);
        row.flags.store(self.flags, Relaxed);
    }

    /// Reads a row.
    #[must_use]
    pub fn load(row: &LocalRow) -> Self {
        Self {
            ip: [row.ip[0].load(Relaxed), row.ip[1].load(Relaxed)],
            port: row.port.load(Relaxed),
            low: row.low.load(Relaxed),
            high: row.high.load(Relaxed),
            flags: row.flags.load(Relaxed),
        }
    }
}
