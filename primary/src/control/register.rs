//! Who has which id: services and real servers with the numbers the tables know them by, removed ones included until
//! their last session is gone.
//!
//! A real server (service, address, port, protocol) gets its id once. An id is given again only when no slot counts a
//! session for it, and then with another tag, so that neither a count nor a health result of its last owner is mistaken.

use std::collections::{HashMap, HashSet};
use std::net::{IpAddr, SocketAddr};

use config::{Admin, Config, Limits, PortRange, RealServer, Service};
use serde::{Deserialize, Serialize};

/// How a server was removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Removal {
    /// It was not.
    Present,
    /// Gone with its last session.
    Drain,
    /// Its sessions are ended.
    Now,
}

/// A service and its numbers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceEntry {
    /// Place in the tables.
    pub index: u32,
    /// Id of this use of the place.
    pub id: u32,
    /// As configured; its servers are in `servers`.
    pub service: Service,
    /// Deleted.
    pub removed: bool,
    /// Its servers, removed ones behind the others.
    pub servers: Vec<ServerEntry>,
}

/// A real server and its numbers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServerEntry {
    /// Id.
    pub id: u32,
    /// Tag of this use of the id.
    pub tag: u32,
    /// As configured, with the operator's word on it.
    pub rs: RealServer,
    /// What the last configuration file said about it; a file that says something else overrules the operator.
    pub file_admin: Admin,
    /// Deleted.
    pub removal: Removal,
}

/// A local address.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LocalEntry {
    /// Address.
    pub address: IpAddr,
    /// Number of its port.
    pub port: u16,
    /// L4 ports.
    pub ports: PortRange,
    /// Out of the configuration, still in use.
    pub removed: bool,
}

/// All numbers in use.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Register {
    /// Configured services in their order, then removed ones.
    pub services: Vec<ServiceEntry>,
    /// Configured local addresses in their order, then removed ones.
    pub locals: Vec<LocalEntry>,
    /// Id of the next new service.
    pub next_service: u32,
    /// Tag of the next new server.
    pub next_tag: u32,
}

/// Counts of live sessions, from the slots' tables.
pub trait Counts {
    /// Sessions of a server id, over all slots.
    fn server(&self, id: u32) -> u64;
    /// Sessions of a service index.
    fn service(&self, index: u32) -> u64;
}

/// What is ended instead of drained, when it goes.
#[derive(Debug, Clone, Default)]
pub struct EndNow {
    /// Service, and its server; `None`: all of them.
    pub what: Option<(String, Option<SocketAddr>)>,
}

impl EndNow {
    fn covers(&self, service: &str, address: SocketAddr) -> bool {
        self.what.as_ref().is_some_and(|(name, rs)| name == service && rs.is_none_or(|rs| rs == address))
    }
}

/// No number left.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "no free {what} id: {limit} are in use or held by the sessions of removed ones; hint: raise limits.{key}, which needs a restart, or del --now"
)]
pub struct NoId {
    what: &'static str,
    key: &'static str,
    limit: u32,
}

impl Register {
    /// The configuration without what was removed; `skeleton` is everything but services.
    #[must_use]
    pub fn config(&self, skeleton: &Config) -> Config {
        let present = self.services.iter().filter(|s| !s.removed);
        let services = present.map(|entry| {
            let rs = entry.servers.iter().filter(|s| s.removal == Removal::Present).map(|s| s.rs.clone());
            Service { rs: rs.collect(), ..entry.service.clone() }
        });
        Config { services: services.collect(), ..skeleton.clone() }
    }

    /// Puts the operator's words (drain, disable) into a configuration that comes from a file, for servers that stay and
    /// of which the file says what it said before.
    pub fn keep_admin(&self, config: &mut Config) {
        let known: HashMap<(&str, SocketAddr), &ServerEntry> = self
            .services
            .iter()
            .filter(|s| !s.removed)
            .flat_map(|s| s.servers.iter().map(move |rs| ((s.service.name.as_str(), rs.rs.address), rs)))
            .filter(|(_, rs)| rs.removal == Removal::Present)
            .collect();
        for service in &mut config.services {
            for rs in &mut service.rs {
                if let Some(entry) = known.get(&(service.name.as_str(), rs.address))
                    && entry.file_admin == rs.admin
                {
                    rs.admin = entry.rs.admin;
                }
            }
        }
    }

    /// The register that goes with `config`. `file`: the configuration as a file has it, before [`Self::keep_admin`];
    /// `None` for edits.
    ///
    /// # Errors
    /// No id is free.
    pub fn next(
        &self,
        config: &Config,
        file: Option<&Config>,
        now: &EndNow,
        counts: &dyn Counts,
    ) -> Result<Self, NoId> {
        let mut next = Self { next_service: self.next_service, next_tag: self.next_tag.max(1), ..Self::default() };
        let mut fresh = Fresh::new(self, &config.limits, counts);
        let old: HashMap<_, _> =
            self.services.iter().map(|s| ((s.service.name.as_str(), s.service.protocol), s)).collect();
        let file: HashMap<(&str, SocketAddr), Admin> = file.map_or_else(HashMap::new, |file| {
            let of = |s: &'_ Service| s.rs.iter().map(|rs| (rs.address, rs.admin)).collect::<Vec<_>>();
            file.services.iter().flat_map(|s| of(s).into_iter().map(|(a, w)| ((s.name.as_str(), a), w))).collect()
        });
        for service in &config.services {
            let before = old.get(&(service.name.as_str(), service.protocol)).copied();
            let (index, id) = match before {
                Some(entry) => (entry.index, entry.id),
                None => (fresh.service()?, next.new_service_id()),
            };
            let known: HashMap<SocketAddr, &ServerEntry> =
                before.map_or_else(HashMap::new, |e| e.servers.iter().map(|s| (s.rs.address, s)).collect());
            let mut servers = Vec::with_capacity(service.rs.len());
            for rs in &service.rs {
                let before = known.get(&rs.address);
                let (id, tag) = match before {
                    Some(entry) => (entry.id, entry.tag),
                    None => (fresh.server()?, next.new_tag()),
                };
                let stays = before.filter(|e| e.removal == Removal::Present);
                let said = file.get(&(service.name.as_str(), rs.address)).copied();
                let file_admin = said.or(stays.map(|e| e.file_admin)).unwrap_or(rs.admin);
                servers.push(ServerEntry { id, tag, rs: rs.clone(), file_admin, removal: Removal::Present });
            }
            let kept: HashSet<SocketAddr> = service.rs.iter().map(|rs| rs.address).collect();
            let gone = before.into_iter().flat_map(|e| &e.servers).filter(|s| !kept.contains(&s.rs.address));
            servers.extend(gone.map(|s| s.removed(service.name.as_str(), now)));
            let service = Service { rs: Vec::new(), ..service.clone() };
            next.services.push(ServiceEntry { index, id, service, removed: false, servers });
        }
        let kept: HashSet<u32> = next.services.iter().map(|s| s.index).collect();
        for entry in self.services.iter().filter(|s| !kept.contains(&s.index)) {
            let servers = entry.servers.iter().map(|s| s.removed(entry.service.name.as_str(), now)).collect();
            next.services.push(ServiceEntry { removed: true, servers, ..entry.clone() });
        }
        next.locals = self.next_locals(config);
        Ok(next)
    }

    fn next_locals(&self, config: &Config) -> Vec<LocalEntry> {
        let mut locals = Vec::new();
        for laddr in &config.laddrs {
            let port = config.ports.iter().position(|p| p.name == laddr.port);
            let port = port.and_then(|p| u16::try_from(p).ok()).unwrap_or(0);
            let entry = |address| LocalEntry { address, port, ports: laddr.ports, removed: false };
            locals.extend(laddr.address.addresses().map(entry));
        }
        let kept: HashSet<IpAddr> = locals.iter().map(|l| l.address).collect();
        let gone = self.locals.iter().filter(|l| !kept.contains(&l.address));
        locals.extend(gone.map(|l| LocalEntry { removed: true, ..l.clone() }));
        locals
    }

    /// The register without the removed whose last session is gone; `None`: nothing to drop. `local_free`: no session
    /// uses that local address.
    #[must_use]
    pub fn swept(&self, counts: &dyn Counts, local_free: &dyn Fn(IpAddr) -> bool) -> Option<Self> {
        let mut next = self.clone();
        for service in &mut next.services {
            service.servers.retain(|s| s.removal == Removal::Present || counts.server(s.id) != 0);
        }
        next.services.retain(|s| !s.removed || !s.servers.is_empty() || counts.service(s.index) != 0);
        next.locals.retain(|l| !l.removed || !local_free(l.address));
        (next != *self).then_some(next)
    }

    /// Is anything waiting for its last session?
    #[must_use]
    pub fn has_removed(&self) -> bool {
        self.services.iter().any(|s| s.removed || s.servers.iter().any(|s| s.removal != Removal::Present))
            || self.has_removed_locals()
    }

    /// Does a removed local address wait for its last session?
    #[must_use]
    pub fn has_removed_locals(&self) -> bool {
        self.locals.iter().any(|l| l.removed)
    }

    fn new_service_id(&mut self) -> u32 {
        let id = self.next_service.max(1);
        self.next_service = id.wrapping_add(1);
        id
    }

    fn new_tag(&mut self) -> u32 {
        let tag = self.next_tag;
        // The board compares 24 bits, and 0 is what an empty cell has.
        self.next_tag = if tag >= 0xff_ffff { 1 } else { tag + 1 };
        tag
    }
}

impl ServerEntry {
    fn removed(&self, service: &str, now: &EndNow) -> Self {
        let end = now.covers(service, self.rs.address) || self.removal == Removal::Now;
        Self { removal: if end { Removal::Now } else { Removal::Drain }, ..self.clone() }
    }
}

/// Hands out numbers that neither the register nor a session uses, lowest first.
struct Fresh<'a> {
    services: HashSet<u32>,
    servers: HashSet<u32>,
    next_service: u32,
    next_server: u32,
    limits: &'a Limits,
    counts: &'a dyn Counts,
}

impl<'a> Fresh<'a> {
    fn new(register: &Register, limits: &'a Limits, counts: &'a dyn Counts) -> Self {
        Self {
            services: register.services.iter().map(|s| s.index).collect(),
            servers: register.services.iter().flat_map(|s| s.servers.iter().map(|s| s.id)).collect(),
            next_service: 0,
            next_server: 0,
            limits,
            counts,
        }
    }

    fn service(&mut self) -> Result<u32, NoId> {
        let limit = self.limits.services;
        let free = |i: &u32| !self.services.contains(i) && self.counts.service(*i) == 0;
        let index = (self.next_service..limit).find(free).ok_or(NoId { what: "service", key: "services", limit })?;
        self.next_service = index + 1;
        Ok(index)
    }

    fn server(&mut self) -> Result<u32, NoId> {
        let limit = self.limits.real_servers;
        let free = |i: &u32| !self.servers.contains(i) && self.counts.server(*i) == 0;
        let id =
            (self.next_server..limit).find(free).ok_or(NoId { what: "real server", key: "real_servers", limit })?;
        self.next_server = id + 1;
        Ok(id)
    }
}

#[cfg(test)]
pub mod tests {
    use super::*;
    use std::cell::RefCell;

    /// Session counts a test sets.
    #[derive(Default)]
    pub struct Fake(pub RefCell<HashMap<u32, u64>>);

    impl Counts for Fake {
        fn server(&self, id: u32) -> u64 {
            self.0.borrow().get(&id).copied().unwrap_or(0)
        }
        fn service(&self, _: u32) -> u64 {
            0
        }
    }

    fn config(services: &[(&str, &[&str])]) -> Config {
        let mut config = crate::control::testing::config();
        config.services.clear();
        for (i, (name, servers)) in services.iter().enumerate() {
            let vip = format!("10.0.0.{}:80", 100 + i).parse().unwrap();
            let mut service = Service::new(name.parse().unwrap(), vip, config::Protocol::Tcp);
            service.rs = servers.iter().map(|a| RealServer::new(a.parse().unwrap())).collect();
            config.services.push(service);
        }
        config
    }

    fn ids(register: &Register) -> Vec<(u32, u32, Removal)> {
        register.services.iter().flat_map(|s| s.servers.iter().map(|s| (s.id, s.tag, s.removal))).collect()
    }

    #[test]
    fn ids_stay_are_not_reused_while_counted_and_come_back_with_another_tag() {
        use Removal::{Drain, Now, Present};
        let (counts, none) = (Fake::default(), EndNow::default());
        let first = config(&[("a", &["10.0.0.21:80", "10.0.0.22:80"]), ("b", &["10.0.0.21:80"])]);
        let r1 = Register::default().next(&first, None, &none, &counts).unwrap();
        assert_eq!(ids(&r1), [(0, 1, Present), (1, 2, Present), (2, 3, Present)]);
        assert_eq!(r1.config(&first), first);
        // One goes, with a session: it stays as removed, also when it is deleted again at once.
        counts.0.borrow_mut().insert(0, 5);
        let second = config(&[("a", &["10.0.0.22:80", "10.0.0.23:80"]), ("b", &["10.0.0.21:80"])]);
        let r2 = r1.next(&second, None, &none, &counts).unwrap();
        assert_eq!(ids(&r2), [(1, 2, Present), (3, 4, Present), (0, 1, Drain), (2, 3, Present)]);
        assert_eq!(r2.config(&second), second);
        assert_eq!(r2.swept(&counts, &|_| true), None);
        let end = EndNow { what: Some(("a".into(), None)) };
        assert_eq!(ids(&r2.next(&second, None, &end, &counts).unwrap())[2], (0, 1, Now));
        // Added again while it drains: the same server, the same id.
        assert_eq!(ids(&r2.next(&first, None, &none, &counts).unwrap())[0], (0, 1, Present));
        // Its last session is gone: dropped, and the id is given again with another tag.
        counts.0.borrow_mut().clear();
        let r3 = r2.swept(&counts, &|_| true).unwrap();
        assert_eq!(ids(&r3), [(1, 2, Present), (3, 4, Present), (2, 3, Present)]);
        let fourth = config(&[("a", &["10.0.0.22:80", "10.0.0.23:80", "10.0.0.99:80"]), ("b", &["10.0.0.21:80"])]);
        assert_eq!(ids(&r3.next(&fourth, None, &none, &counts).unwrap())[2], (0, 5, Present));
        // An orphan's id is not given.
        counts.0.borrow_mut().insert(0, 1);
        assert_eq!(ids(&r3.next(&fourth, None, &none, &counts).unwrap())[2], (4, 5, Present));
    }

    #[test]
    fn a_removed_service_stays_until_its_sessions_are_gone_and_limits_are_said() {
        let (counts, none) = (Fake::default(), EndNow::default());
        let both = config(&[("a", &["10.0.0.21:80"]), ("b", &["10.0.0.21:80"])]);
        let r1 = Register::default().next(&both, None, &none, &counts).unwrap();
        counts.0.borrow_mut().insert(0, 1);
        let mut one = config(&[("b", &["10.0.0.21:80"])]);
        let r2 = r1.next(&one, None, &none, &counts).unwrap();
        assert!(r2.services[1].removed && r2.services[1].index == 0 && r2.has_removed());
        one.limits.real_servers = 2;
        one.services[0].rs.push(RealServer::new("10.0.0.30:80".parse().unwrap()));
        let error = r2.next(&one, None, &none, &counts).unwrap_err();
        assert!(error.to_string().contains("no free real server id: 2 are in use"), "{error}");
        counts.0.borrow_mut().clear();
        assert_eq!(r2.swept(&counts, &|_| true).unwrap().services.len(), 1);
    }

    #[test]
    fn the_operators_word_outlives_an_apply_that_does_not_contradict_it() {
        let (counts, none) = (Fake::default(), EndNow::default());
        let file = config(&[("a", &["10.0.0.21:80", "10.0.0.22:80"])]);
        let mut now = file.clone();
        let r1 = Register::default().next(&file, Some(&file), &none, &counts).unwrap();
        now.services[0].rs[0].admin = Admin::Drain;
        let r2 = r1.next(&now, None, &none, &counts).unwrap();
        let mut again = file.clone();
        r2.keep_admin(&mut again);
        assert_eq!(again, now);
        let r3 = r2.next(&again, Some(&file), &none, &counts).unwrap();
        assert_eq!(r3, r2);
        // The file now says otherwise: it wins.
        let mut changed = file.clone();
        changed.services[0].rs[0].admin = Admin::Disabled;
        r3.keep_admin(&mut changed);
        assert_eq!(changed.services[0].rs[0].admin, Admin::Disabled);
    }
}
