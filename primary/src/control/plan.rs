//! From configuration and ids to what is published.

use std::collections::HashMap;
use std::sync::Arc;

use config::{Admin, Config, HealthKind, Mode, Panic, Scheduler, Service};
use shm_layout::neighbours::from_std;
use shm_layout::publish::{Hashing, LocalPlan, MemberPlan, PortPlan, ServicePlan, SharedPlan, SlotPlan};
use shm_layout::published::{admin, local_flag, mode, port_flag, scheduler, service_flag};
use shm_layout::session::{State, TIMEOUTS};

use super::facts::PortFacts;
use super::register::{Register, Removal, ServerEntry, ServiceEntry};

/// Plans services, each again only when it has changed: a register shares with its predecessor what has not.
#[derive(Debug, Default)]
pub struct Planner {
    /// What each service of `plan` was planned from.
    entries: Vec<Arc<ServiceEntry>>,
    plan: SharedPlan,
}

impl Planner {
    /// What `register` comes to.
    pub fn plan(&mut self, register: &Register) -> &SharedPlan {
        let (entries, services) = (&mut self.entries, &mut self.plan.services);
        let mut place = 0;
        for (entry, (old, plan)) in register.services.iter().zip(entries.iter_mut().zip(services.iter_mut())) {
            if !Arc::ptr_eq(old, entry) {
                if old.index != entry.index {
                    break; // From here on those that stay stand elsewhere.
                }
                (*old, *plan) = (Arc::clone(entry), Arc::new(service(entry)));
            }
            place += 1;
        }
        let old: Vec<_> = entries.drain(place..).zip(services.drain(place..)).collect();
        let known: HashMap<_, _> = old.iter().map(|(entry, plan)| (Arc::as_ptr(entry), plan)).collect();
        for entry in &register.services[place..] {
            services.push(known.get(&Arc::as_ptr(entry)).map_or_else(|| Arc::new(service(entry)), |p| Arc::clone(p)));
            entries.push(Arc::clone(entry));
        }
        self.plan.locals = locals(register);
        &self.plan
    }
}

fn locals(register: &Register) -> Vec<LocalPlan> {
    let local = |l: &super::register::LocalEntry| LocalPlan {
        ip: from_std(l.address),
        port: l.port.into(),
        low: l.ports.first,
        high: l.ports.last,
        flags: if l.removed { local_flag::REMOVED } else { 0 },
    };
    register.locals.iter().map(local).collect()
}

fn service(entry: &ServiceEntry) -> ServicePlan {
    let service = &entry.service;
    let mode = match service.mode {
        Mode::FullNat => mode::FULLNAT,
        Mode::Nat => mode::NAT,
        Mode::Dr => mode::DR,
        Mode::Tunnel => mode::TUNNEL,
    };
    let scheduler = match service.scheduler {
        Scheduler::Rr => scheduler::RR,
        Scheduler::Wrr => scheduler::WRR,
        Scheduler::Lc => scheduler::LC,
        Scheduler::Wlc => scheduler::WLC,
        Scheduler::SourceIp => scheduler::SOURCE_IP,
        Scheduler::SourceIpPort => scheduler::SOURCE_IP_PORT,
        Scheduler::Maglev => scheduler::MAGLEV,
    };
    let panic = if service.panic == Panic::On { service_flag::PANIC } else { 0 };
    let one_packet = if service.one_packet { service_flag::ONE_PACKET } else { 0 };
    ServicePlan {
        index: entry.index,
        id: entry.id,
        vip: from_std(service.vip.ip()),
        port: service.vip.port(),
        protocol: service.protocol.number(),
        mode,
        scheduler,
        flags: panic | one_packet | if entry.removed { service_flag::REMOVED } else { 0 },
        max_sessions: service.max_sessions,
        check_interval_ms: if service.health.kind == HealthKind::None { 0 } else { service.health.interval.get() },
        timeouts: timeouts(service),
        hashing: hashing(service),
        name: service.name.to_string(),
        members: entry.servers.iter().map(member).collect(),
    }
}

/// What its choices by hash follow: the configuration alone, so that all nodes of a cluster choose alike.
fn hashing(service: &Service) -> Hashing {
    let v4 = service.vip.is_ipv4();
    let prefix = u32::from(service.persistence_prefix.unwrap_or(if v4 { 32 } else { 128 }));
    let halves = |key: u128| [key & u128::from(u64::MAX), key >> 64].map(|half| u64::try_from(half).unwrap_or(0));
    Hashing {
        key: service.hash_key.as_ref().map_or([0, 0], |text| halves(config::fnv128(text.as_bytes()))),
        persistence_ms: service.persistence.get(),
        prefix: if service.persistence.get() == 0 { 0 } else { prefix + if v4 { 96 } else { 0 } },
    }
}

fn member(entry: &ServerEntry) -> MemberPlan {
    let admin = match (entry.removal, entry.rs.admin) {
        (Removal::Now, _) => admin::REMOVED_NOW,
        // Removed while its sessions were being ended: they still are.
        (Removal::Drain, Admin::Disabled) => admin::REMOVED_NOW,
        (Removal::Drain, _) => admin::REMOVED,
        (Removal::Present, Admin::Enabled) => admin::ENABLED,
        (Removal::Present, Admin::Drain) => admin::DRAIN,
        (Removal::Present, Admin::Disabled) => admin::DISABLED,
    };
    MemberPlan {
        id: entry.id,
        tag: entry.tag,
        ip: from_std(entry.rs.address.ip()),
        port: entry.rs.address.port(),
        weight: entry.rs.weight,
        admin,
    }
}

fn timeouts(service: &Service) -> [u32; TIMEOUTS] {
    let t = &service.timeouts;
    State::ALL.map(|state| match state {
        State::Free => 0,
        State::SynSent => t.syn_sent.get(),
        State::SynRecv => t.syn_recv.get(),
        State::Established => t.established.get(),
        State::FinWait => t.fin_wait.get(),
        State::CloseWait => t.close_wait.get(),
        State::LastAck => t.last_ack.get(),
        State::TimeWait => t.time_wait.get(),
        State::Close => t.close.get(),
        State::Udp => t.udp.get(),
    })
}

/// Ports and slots: what the holder found, and the configuration. `facts`: one per configured port, in their order.
#[must_use]
pub fn node(config: &Config, facts: &[PortFacts]) -> (Vec<PortPlan>, Vec<SlotPlan>) {
    let homes = config.slot_homes();
    let first = |port: usize| homes.iter().position(|h| usize::from(h.port) == port).unwrap_or(0);
    let number = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
    let ports = config.ports.iter().zip(facts).enumerate();
    let ports = ports.map(|(i, (configured, facts))| {
        let slots = homes.iter().filter(|h| usize::from(h.port) == i).count();
        port(configured, facts, number(first(i)), number(slots))
    });
    let slots = homes.iter().map(|home| SlotPlan {
        port: home.port.into(),
        queue: home.queue.into(),
        zone: home.zone.into(),
        cpu: home.cpu.into(),
    });
    (ports.collect(), slots.collect())
}

fn port(configured: &config::Port, facts: &PortFacts, first_slot: u32, slots: u32) -> PortPlan {
    let flags = [
        (facts.tx_ip_checksum, port_flag::TX_IP_CHECKSUM),
        (facts.tx_l4_checksum, port_flag::TX_L4_CHECKSUM),
        (facts.pipeline, port_flag::PIPELINE),
        (configured.kernel.is_some(), port_flag::KERNEL),
    ];
    PortPlan {
        device: facts.device,
        first_slot,
        slots,
        mtu: configured.mtu.into(),
        vlan: configured.vlan.into(),
        flags: flags.iter().filter(|(on, _)| *on).map(|(_, bit)| bit).sum(),
        steering: facts.steering,
        mac: facts.mac,
        addresses: configured.addresses.iter().map(|a| (from_std(a.address), a.prefix_as_v6())).collect(),
        gateways: configured.gateways.iter().map(|g| from_std(*g)).collect(),
        name: configured.name.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::super::register::{EndNow, tests::Fake};
    use super::*;

    #[test]
    fn removal_and_admin_states_reach_the_tables() {
        let mut config = crate::control::testing::config();
        config.services[0].rs[1].admin = Admin::Drain;
        let (counts, none) = (Fake::default(), EndNow::default());
        let register = Register::default().next(&config, None, &none, &counts).unwrap();
        let mut planner = Planner::default();
        let published = planner.plan(&register);
        assert_eq!(
            published.services[0].members.iter().map(|m| m.admin).collect::<Vec<_>>(),
            [admin::ENABLED, admin::DRAIN]
        );
        assert_eq!(published.services[0].timeouts[State::Established as usize], 90_000);
        assert_eq!(published.locals.len(), 4);
        config.services[0].rs.remove(0);
        let register = register.next(&config, None, &none, &counts).unwrap();
        assert_eq!(planner.plan(&register).services[0].members[1].admin, admin::REMOVED);
        let end = EndNow { what: Some((config.services[0].name.to_string(), None)) };
        let gone = config.services.remove(0);
        let register = register.next(&config, None, &end, &counts).unwrap();
        let published = planner.plan(&register);
        let service = published.services.iter().find(|s| s.name == gone.name.as_str()).unwrap();
        assert!(service.flags & service_flag::REMOVED != 0);
        assert!(service.members.iter().all(|m| m.admin == admin::REMOVED_NOW));
    }
}
