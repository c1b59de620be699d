//! Who has which id: services and real servers with the numbers the tables know them by, removed ones included until
//! their last session is gone.
//!
//! A real server (service, address, port, protocol) gets its id once. An id is given again only when no slot counts a
//! session for it, and then with another tag, so that neither a count nor a health result of its last owner is mistaken.

use std::collections::{HashMap, HashSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use config::{Admin, Config, Limits, PortRange, RealServer, Service, Shares, Touched};
use serde::{Deserialize, Serialize};

/// Services that two registers do not share, each in its register's order.
#[derive(Debug)]
pub struct Difference<'a> {
    gone: Vec<&'a Arc<ServiceEntry>>,
    come: Vec<&'a Arc<ServiceEntry>>,
}

impl Difference<'_> {
    /// Is there one in what `part` says of the configured services?
    pub fn in_part<T: PartialEq>(&self, part: impl Fn(&ServiceEntry) -> T) -> bool {
        let of = |services: &[&Arc<ServiceEntry>]| -> Vec<T> {
            services.iter().filter(|s| !s.removed).map(|s| part(s)).collect()
        };
        of(&self.gone) != of(&self.come)
    }
}

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

/// All numbers in use. The next register shares with this one the services that did not change: who keeps something per
/// service (plans, the journal) knows them by their place in memory.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Register {
    /// Configured services in their order, then removed ones.
    pub services: Vec<Arc<ServiceEntry>>,
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
        Config { services: self.present().map(|s| s.configured()).collect(), ..skeleton.clone() }
    }

    /// The services that are not deleted.
    pub fn present(&self) -> impl Iterator<Item = &Arc<ServiceEntry>> {
        self.services.iter().filter(|s| !s.removed)
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
            let said = |address| file.get(&(service.name.as_str(), address)).copied();
            let entry = next.entry(before, service, &said, now, &mut fresh)?;
            next.services.push(entry);
        }
        let kept: HashSet<u32> = next.services.iter().map(|s| s.index).collect();
        let gone = self.services.iter().filter(|s| !kept.contains(&s.index));
        next.services.extend(gone.map(|entry| ServiceEntry::removed(entry, now)));
        next.locals = self.next_locals(config);
        Ok(next)
    }

    /// The register after an edit: the same as [`Self::next`] of the whole configuration, at the cost of the service that
    /// was touched. `None`: nothing was edited, only what waits for its last session is ended by `now`.
    ///
    /// # Errors
    /// No id is free.
    pub fn touched(
        &self,
        touched: Option<&Touched>,
        limits: &Limits,
        now: &EndNow,
        counts: &dyn Counts,
    ) -> Result<Self, NoId> {
        let mut next = Self { next_service: self.next_service, next_tag: self.next_tag.max(1), ..Self::default() };
        let mut fresh = Fresh::new(self, limits, counts);
        let of = |service: &Service| {
            let same =
                |s: &&Arc<ServiceEntry>| s.service.name == service.name && s.service.protocol == service.protocol;
            // The last one, as a map has it.
            self.services.iter().rfind(same)
        };
        let mut present: Vec<Arc<ServiceEntry>> = self.services.iter().filter(|s| !s.removed).cloned().collect();
        let (old, index) = match touched {
            Some(Touched::Added(service)) => {
                let entry = next.entry(of(service), service, &|_| None, now, &mut fresh)?;
                present.push(Arc::clone(&entry));
                (None, Some(entry.index))
            }
            Some(Touched::Changed(place, service)) => {
                let entry = next.entry(of(service), service, &|_| None, now, &mut fresh)?;
                let old = present.get_mut(*place).map(|at| std::mem::replace(at, Arc::clone(&entry)));
                (old, Some(entry.index))
            }
            Some(Touched::Removed(place)) => (Some(present.remove(*place)), None),
            None => (None, None),
        };
        let gone = old.iter().chain(self.services.iter().filter(|s| s.removed));
        let gone = gone.filter(|s| Some(s.index) != index).map(|entry| ServiceEntry::removed(entry, now));
        next.services = present.into_iter().chain(gone).collect();
        next.locals.clone_from(&self.locals);
        Ok(next)
    }

    /// The entry of a configured service; `before`, if nothing of it changed. `said`: what a file says about a server.
    fn entry(
        &mut self,
        before: Option<&Arc<ServiceEntry>>,
        service: &Service,
        said: &dyn Fn(SocketAddr) -> Option<Admin>,
        now: &EndNow,
        fresh: &mut Fresh<'_>,
    ) -> Result<Arc<ServiceEntry>, NoId> {
        let (index, id) = match before {
            Some(entry) => (entry.index, entry.id),
            None => (fresh.service()?, self.new_service_id()),
        };
        let known: HashMap<SocketAddr, &ServerEntry> =
            before.map_or_else(HashMap::new, |e| e.servers.iter().map(|s| (s.rs.address, s)).collect());
        let mut servers = Vec::with_capacity(service.rs.len());
        for rs in &service.rs {
            let before = known.get(&rs.address);
            let (id, tag) = match before {
                Some(entry) => (entry.id, entry.tag),
                None => (fresh.server()?, self.new_tag()),
            };
            let stays = before.filter(|e| e.removal == Removal::Present);
            let file_admin = said(rs.address).or(stays.map(|e| e.file_admin)).unwrap_or(rs.admin);
            servers.push(ServerEntry { id, tag, rs: rs.clone(), file_admin, removal: Removal::Present });
        }
        let kept: HashSet<SocketAddr> = service.rs.iter().map(|rs| rs.address).collect();
        let gone = before.into_iter().flat_map(|e| &e.servers).filter(|s| !kept.contains(&s.rs.address));
        servers.extend(gone.map(|s| s.removed(service.name.as_str(), now)));
        let service = Service { rs: Vec::new(), ..service.clone() };
        Ok(shared(before, ServiceEntry { index, id, service, removed: false, servers }))
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
            let stays = |s: &ServerEntry| s.removal == Removal::Present || counts.server(s.id) != 0;
            if !service.servers.iter().all(stays) {
                Arc::make_mut(service).servers.retain(stays);
            }
        }
        next.services.retain(|s| !s.removed || !s.servers.is_empty() || counts.service(s.index) != 0);
        next.locals.retain(|l| !l.removed || !local_free(l.address));
        (next != *self).then_some(next)
    }

    /// What leads from this one to `next`, as far as services go.
    pub fn difference<'a>(&'a self, next: &'a Self) -> Difference<'a> {
        Difference { gone: self.beside(next), come: next.beside(self) }
    }

    /// Services of this one that `other` does not have in common with it.
    fn beside(&self, other: &Self) -> Vec<&Arc<ServiceEntry>> {
        let mut others: Vec<Option<&Arc<ServiceEntry>>> = Vec::new();
        for entry in &other.services {
            let place = entry.index as usize;
            if others.len() <= place {
                others.resize(place + 1, None);
            }
            others[place] = Some(entry);
        }
        let of = |s: &Arc<ServiceEntry>| others.get(s.index as usize).copied().flatten();
        self.services.iter().filter(|s| !of(s).is_some_and(|o| Arc::ptr_eq(o, s))).collect()
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

impl ServiceEntry {
    /// Its servers that are not deleted.
    pub fn present(&self) -> impl Iterator<Item = &ServerEntry> {
        self.servers.iter().filter(|s| s.removal == Removal::Present)
    }

    /// The service as it is configured.
    #[must_use]
    pub fn configured(&self) -> Service {
        Service { rs: self.present().map(|s| s.rs.clone()).collect(), ..self.service.clone() }
    }

    /// The entry as one of a deleted service.
    fn removed(entry: &Arc<Self>, now: &EndNow) -> Arc<Self> {
        let servers = entry.servers.iter().map(|s| s.removed(entry.service.name.as_str(), now)).collect();
        let service = entry.service.clone();
        shared(Some(entry), Self { index: entry.index, id: entry.id, service, removed: true, servers })
    }
}

/// The configured services, as an edit finds them.
impl config::Services for Register {
    fn count(&self) -> usize {
        self.present().count()
    }
    fn servers(&self) -> usize {
        self.present().map(|s| s.present().count()).sum()
    }
    fn names(&self) -> Box<dyn Iterator<Item = &str> + '_> {
        Box::new(self.present().map(|s| s.service.name.as_str()))
    }
    fn service(&self, place: usize) -> Service {
        // Configured ones stand before removed ones.
        self.services[place].configured()
    }
    fn sharing(&self, service: &Service) -> Vec<usize> {
        let shares = Shares::of(service);
        let of = |s: &ServiceEntry| shares.with(s.service.vip, s.present().map(|s| s.rs.address.ip()));
        self.present().enumerate().filter(|(_, s)| of(s)).map(|(place, _)| place).collect()
    }
}

/// `entry`, or what was there before if it is the same.
fn shared(before: Option<&Arc<ServiceEntry>>, entry: ServiceEntry) -> Arc<ServiceEntry> {
    before.filter(|b| ***b == entry).map_or_else(|| Arc::new(entry), Arc::clone)
}

impl ServerEntry {
    fn removed(&self, service: &str, now: &EndNow) -> Self {
        let end = now.covers(service, self.rs.address) || self.removal == Removal::Now;
        Self { removal: if end { Removal::Now } else { Removal::Drain }, ..self.clone() }
    }
}

/// Hands out numbers that neither the register nor a session uses, lowest first. What is used is found when the first
/// number is asked for: most edits need none.
struct Fresh<'a> {
    register: &'a Register,
    services: Option<Used>,
    servers: Option<Used>,
    limits: &'a Limits,
    counts: &'a dyn Counts,
}

/// Numbers in use below a limit, and where the search goes on.
struct Used {
    used: Vec<bool>,
    next: u32,
}

impl Used {
    fn new(limit: u32, numbers: impl Iterator<Item = u32>) -> Self {
        let mut used = vec![false; limit as usize];
        for number in numbers {
            if let Some(used) = used.get_mut(number as usize) {
                *used = true;
            }
        }
        Self { used, next: 0 }
    }

    fn take(&mut self, counted: impl Fn(u32) -> bool) -> Option<u32> {
        let free = |(number, used): &(u32, &bool)| !**used && !counted(*number);
        let (number, _) = (0..).zip(&self.used).skip(self.next as usize).find(free)?;
        self.next = number + 1;
        Some(number)
    }
}

impl<'a> Fresh<'a> {
    fn new(register: &'a Register, limits: &'a Limits, counts: &'a dyn Counts) -> Self {
        Self { register, services: None, servers: None, limits, counts }
    }

    fn service(&mut self) -> Result<u32, NoId> {
        let (limit, register, counts) = (self.limits.services, self.register, self.counts);
        let used = || Used::new(limit, register.services.iter().map(|s| s.index));
        let taken = self.services.get_or_insert_with(used).take(|index| counts.service(index) != 0);
        taken.ok_or(NoId { what: "service", key: "services", limit })
    }

    fn server(&mut self) -> Result<u32, NoId> {
        let (limit, register, counts) = (self.limits.real_servers, self.register, self.counts);
        let used = || Used::new(limit, register.services.iter().flat_map(|s| s.servers.iter().map(|s| s.id)));
        let taken = self.servers.get_or_insert_with(used).take(|id| counts.server(id) != 0);
        taken.ok_or(NoId { what: "real server", key: "real_servers", limit })
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

    /// Edits of all kinds in a row, servers with sessions among them: one service at a time comes to what the whole does,
    /// and what was not touched is shared.
    #[test]
    fn an_edit_comes_to_what_the_whole_configuration_comes_to() {
        let counts = Fake::default();
        let mut now = config(&[("a", &["10.0.0.21:80", "10.0.0.22:80"]), ("b", &["10.0.0.21:80"]), ("c", &[])]);
        let mut register = Register::default().next(&now, None, &EndNow::default(), &counts).unwrap();
        let mut seed = 12_345_u64;
        let mut random = |below: u64| {
            seed ^= seed << 13;
            seed ^= seed >> 7;
            seed ^= seed << 17;
            seed % below
        };
        let mut kinds = [0; 5];
        for step in 0..2000_u32 {
            let at =
                |random: &mut dyn FnMut(u64) -> u64| usize::try_from(random(now.services.len().max(1) as u64)).unwrap();
            let kind = random(5);
            let mut end = EndNow::default();
            let touched = match kind {
                0 => {
                    let names: Vec<_> = now.services.iter().map(|s| s.name.to_string()).collect();
                    let Some(name) = ["a", "b", "c", "d", "e"].iter().find(|n| !names.contains(&(**n).into())) else {
                        continue;
                    };
                    let vip = format!("10.0.0.{}:80", 100 + step % 50).parse().unwrap();
                    let protocol = if random(2) == 0 { config::Protocol::Tcp } else { config::Protocol::Udp };
                    Some(Touched::Added(Service::new(name.parse().unwrap(), vip, protocol)))
                }
                1 if !now.services.is_empty() => Some(Touched::Removed(at(&mut random))),
                2 => None,
                _ if !now.services.is_empty() => {
                    let place = at(&mut random);
                    let mut service = now.services[place].clone();
                    let address = format!("10.0.0.{}:80", 20 + random(6)).parse().unwrap();
                    match service.rs.iter().position(|rs| rs.address == address) {
                        Some(n) if random(2) == 0 => drop(service.rs.remove(n)),
                        Some(n) => service.rs[n].admin = Admin::Drain,
                        None => service.rs.push(RealServer::new(address)),
                    }
                    if random(8) == 0 {
                        service.protocol = config::Protocol::Udp;
                    }
                    Some(Touched::Changed(place, service))
                }
                _ => continue,
            };
            kinds[usize::try_from(kind).unwrap()] += 1;
            let mut whole = now.clone();
            match &touched {
                Some(Touched::Added(service)) => whole.services.push(service.clone()),
                Some(Touched::Changed(place, service)) => whole.services[*place] = service.clone(),
                Some(Touched::Removed(place)) => drop(whole.services.remove(*place)),
                None => {}
            }
            if random(3) == 0 {
                end.what = Some((["a", "b", "c"][usize::try_from(random(3)).unwrap()].into(), None));
            }
            let id = u32::try_from(random(30)).unwrap();
            counts.0.borrow_mut().insert(id, random(2));
            let expected = register.next(&whole, None, &end, &counts);
            // Only what the edit is about is ended at once: an order about another service touches that one.
            let told = register.touched(touched.as_ref(), &whole.limits, &end, &counts);
            let about = match (&touched, &end.what) {
                (Some(Touched::Added(s) | Touched::Changed(_, s)), Some((name, _))) => s.name.as_str() == name,
                (Some(Touched::Removed(place)), Some((name, _))) => now.services[*place].name.as_str() == name,
                (None, Some((name, _))) => !now.services.iter().any(|s| s.name.as_str() == name),
                (_, None) => true,
            };
            if !about {
                continue;
            }
            let (Ok(told), Ok(expected)) = (told, expected) else { panic!("no id in step {step}") };
            assert_eq!(told, expected, "step {step}: {touched:?} {end:?}");
            let kept = told.services.iter().filter(|s| register.services.iter().any(|o| Arc::ptr_eq(s, o))).count();
            let live = register.services.iter().filter(|s| !s.removed).count();
            assert!(kept + 1 >= live, "{kept} of {live} are shared");
            (now, register) = (whole, told);
            if step % 7 == 0 {
                register = register.swept(&counts, &|_| true).unwrap_or(register);
            }
        }
        assert!(kinds.iter().all(|n| *n > 100), "{kinds:?}");
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
