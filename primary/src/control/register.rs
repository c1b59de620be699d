//! Who has which id: services and real servers with the numbers the tables know them by, removed ones included until
//! their last session is gone.
//!
//! A real server (service, address, port, protocol) gets its id once. An id is given again only when no slot counts a
//! session for it, and then with another tag, so that neither a count nor a health result of its last owner is mistaken.

mod fresh;

use std::collections::{HashMap, HashSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use config::{Admin, Config, Limits, PortRange, RealServer, Service, Shares, Touched};
use serde::{Deserialize, Serialize};

use self::fresh::Fresh;
pub use self::fresh::NoId;

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
        // Removed ones stand behind the others.
        let last_removed = |s: &ServiceEntry| s.servers.last().is_some_and(|s| s.removal != Removal::Present);
        self.services.iter().any(|s| s.removed || last_removed(s)) || self.has_removed_locals()
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
        self.servers[..self.present_count()].iter()
    }

    /// Their number: removed ones stand behind them.
    fn present_count(&self) -> usize {
        match self.servers.last() {
            Some(last) if last.removal != Removal::Present => {
                self.servers.partition_point(|s| s.removal == Removal::Present)
            }
            _ => self.servers.len(),
        }
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
        self.present().map(|s| s.present_count()).sum()
    }
    fn names(&self) -> Box<dyn Iterator<Item = &str> + '_> {
        Box::new(self.present().map(|s| s.service.name.as_str()))
    }
    fn service(&self, place: usize) -> Service {
        // Configured ones stand before removed ones.
        self.services[place].configured()
    }
    fn sharing(&self, shares: &Shares) -> Vec<usize> {
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

#[cfg(test)]
pub mod tests;
