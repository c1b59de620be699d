//! Changes to a configuration that come from a command instead of a file, under the same rules.

use std::collections::{BTreeSet, HashSet};
use std::net::{IpAddr, SocketAddr};

use serde::{Deserialize, Serialize};
use toml::de::DeTable;

use crate::check::{Size, check_sized};
use crate::codes;
use crate::diag::{Diagnostic, Level, Report};
use crate::facts::Facts;
use crate::keys::{self, Keys, is_plain, quoted};
use crate::model::{Config, RealServer, Service};
use crate::parse_service::{real_server, service};
use crate::text::nearest;
use crate::walk::{Section, Walk};

/// Keys with their values as a command line gives them: names and words without quotes, inner keys dotted
/// (`health.interval` → `5s`). An empty value takes the key back to its default. Of a key given twice the last counts.
pub type Words = Vec<(String, String)>;

/// A change to services and servers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "edit", rename_all = "kebab-case")]
#[allow(missing_docs, reason = "the fields are the nouns of the configuration")]
pub enum Edit {
    /// A new service, without servers; `keys` hold at least `vip`.
    ServiceAdd { service: String, keys: Words },
    /// Keys of a service.
    ServiceSet { service: String, keys: Words },
    /// A service and its servers, out of the configuration.
    ServiceDel { service: String },
    /// A new server; `keys` may hold `weight` and `admin`.
    RsAdd { service: String, rs: SocketAddr, keys: Words },
    /// Keys of a server: `weight`, `admin`.
    RsSet { service: String, rs: SocketAddr, keys: Words },
    /// A server, out of the configuration.
    RsDel { service: String, rs: SocketAddr },
}

/// Services as an edit finds them, wherever they are kept: only what it touches, and what that can collide with, is
/// looked at closely. Places are those of the configuration, from 0.
pub trait Services {
    /// Number of services.
    fn count(&self) -> usize;
    /// Number of real servers of all services.
    fn servers(&self) -> usize;
    /// Names, in the order of places.
    fn names(&self) -> Box<dyn Iterator<Item = &str> + '_>;
    /// A copy of the service at a place, with its servers.
    fn service(&self, place: usize) -> Service;
    /// Places, ascending, of all that share one of these addresses.
    fn sharing(&self, shares: &Shares) -> Vec<usize>;
}

impl Services for [Service] {
    fn count(&self) -> usize {
        self.len()
    }
    fn servers(&self) -> usize {
        self.iter().map(|s| s.rs.len()).sum()
    }
    fn names(&self) -> Box<dyn Iterator<Item = &str> + '_> {
        Box::new(self.iter().map(|s| s.name.as_str()))
    }
    fn service(&self, place: usize) -> Service {
        self[place].clone()
    }
    fn sharing(&self, shares: &Shares) -> Vec<usize> {
        let of = |s: &Service| shares.with(s.vip, s.rs.iter().map(|rs| rs.address.ip()));
        self.iter().enumerate().filter(|(_, s)| of(s)).map(|(place, _)| place).collect()
    }
}

/// The addresses by which others can newly collide with a service: by its VIP with its port, by having its VIP's address as
/// a server, or one of its servers' as their VIP. Those it had before were accepted, and are looked for no more: most edits
/// bring none.
#[derive(Debug)]
pub struct Shares {
    vip: Option<SocketAddr>,
    /// Sorted.
    servers: Vec<IpAddr>,
}

impl Shares {
    /// Of `service`, which was `before`.
    #[must_use]
    pub fn of(before: Option<&Service>, service: &Service) -> Self {
        // What is allowed beside what depends on protocol and mode too.
        let kind = |s: &Service| (s.protocol, s.mode);
        let before = before.filter(|b| kind(b) == kind(service));
        let known: HashSet<IpAddr> = before.into_iter().flat_map(|b| &b.rs).map(|rs| rs.address.ip()).collect();
        let mut servers: Vec<IpAddr> = service.rs.iter().map(|rs| rs.address.ip()).collect();
        servers.retain(|ip| !known.contains(ip));
        servers.sort_unstable();
        Self { vip: Some(service.vip).filter(|vip| before.is_none_or(|b| b.vip != *vip)), servers }
    }

    /// Is there nothing new to look for?
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.vip.is_none() && self.servers.is_empty()
    }

    /// Does a service of this VIP and these servers share one?
    pub fn with(&self, vip: SocketAddr, mut servers: impl Iterator<Item = IpAddr>) -> bool {
        let of_vip = |own: SocketAddr| vip == own || servers.any(|ip| ip == own.ip());
        self.servers.binary_search(&vip.ip()).is_ok() || self.vip.is_some_and(of_vip)
    }
}

/// What an edit comes to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Touched {
    /// A new service, behind the others.
    Added(Service),
    /// The service at a place, as it is now.
    Changed(usize, Service),
    /// The service at a place is gone.
    Removed(usize),
}

impl Edit {
    /// What the edit comes to among `services`, checked by the rules of a whole configuration, with warnings about what
    /// it touches. `skeleton`: everything but services. What was accepted before and has nothing to do with the edit is
    /// not checked again, so that an edit costs the same among ten services and among ten thousand.
    ///
    /// # Errors
    /// Everything that would be wrong then; [`codes::NOT_FOUND`] when there is no such service or server.
    pub fn judge(
        &self,
        skeleton: &Config,
        services: &(impl Services + ?Sized),
        facts: &dyn Facts,
    ) -> Result<(Touched, Report), Report> {
        let mut found = Vec::new();
        let touched = self.touch(services, &mut found).map_err(Report::from_diagnostics)?;
        let (place, service, more) = match &touched {
            Touched::Added(service) => (services.count(), service, 1),
            Touched::Changed(place, service) => (*place, service, 0),
            // Where there is less, nothing can be wrong that was not.
            Touched::Removed(_) => return Ok((touched, Report::from_diagnostics(found))),
        };
        let before = (more == 0).then(|| services.service(place));
        let replaced = before.as_ref().map_or(0, |b| b.rs.len());
        let size =
            Size { services: services.count() + more, servers: services.servers() + service.rs.len() - replaced };
        // It, and whom it can collide with; in their order, so that the same one of two is told.
        let shares = Shares::of(before.as_ref(), service);
        let mut places = if shares.is_empty() { Vec::new() } else { services.sharing(&shares) };
        if before.is_none() {
            places.extend(services.names().position(|name| name == service.name.as_str()));
        }
        places.push(place);
        places.sort_unstable();
        places.dedup();
        let of = |p: &usize| if *p == place { service.clone() } else { services.service(*p) };
        let part = Config { services: places.iter().map(of).collect(), ..skeleton.clone() };
        let new = service.rs.iter().map(|rs| rs.address.ip()).collect();
        let machine = Touch { facts, new };
        found.extend(check_sized(&part, size, &machine, &BTreeSet::new()).into_iter().map(|d| moved(d, &places)));
        let inside = format!("service[{place}]");
        found.retain(|d| d.level == Level::Error || d.path.starts_with(&inside));
        let report = Report::from_diagnostics(found);
        if report.errors() > 0 { Err(report) } else { Ok((touched, report)) }
    }

    /// Makes the change.
    fn touch(
        &self,
        services: &(impl Services + ?Sized),
        found: &mut Vec<Diagnostic>,
    ) -> Result<Touched, Vec<Diagnostic>> {
        match self {
            Self::ServiceAdd { service: name, keys } => {
                let base = vec![("name", quoted(name))];
                read(&format!("service[{}]", services.count()), base, keys, found, service).map(Touched::Added)
            }
            Self::ServiceSet { service: name, keys } => {
                let place = find_service(services, name)?;
                let path = format!("service[{place}]");
                if keys.iter().any(|(key, value)| key == "name" && value != name) {
                    let error = Diagnostic::new(codes::CONFLICT, format!("{path}.name"), "a service keeps its name");
                    return Err(vec![error.hint("add one with the new name, then del this one")]);
                }
                let old = services.service(place);
                let new = read(&path, keys::service(&old), keys, found, service)?;
                Ok(Touched::Changed(place, Service { rs: old.rs, ..new }))
            }
            Self::ServiceDel { service: name } => find_service(services, name).map(Touched::Removed),
            Self::RsAdd { service: name, rs, keys } => {
                let place = find_service(services, name)?;
                let mut service = services.service(place);
                let path = format!("service[{place}].rs[{}]", service.rs.len());
                let base = keys::real_server(&RealServer::new(*rs));
                service.rs.push(read(&path, base, keys, found, real_server)?);
                Ok(Touched::Changed(place, service))
            }
            Self::RsSet { service: name, rs, keys } => {
                let place = find_service(services, name)?;
                let mut service = services.service(place);
                let server = find_rs(&service, *rs)?;
                let path = format!("service[{place}].rs[{server}]");
                let base = keys::real_server(&service.rs[server]);
                service.rs[server] = read(&path, base, keys, found, real_server)?;
                Ok(Touched::Changed(place, service))
            }
            Self::RsDel { service: name, rs } => {
                let place = find_service(services, name)?;
                let mut service = services.service(place);
                let server = find_rs(&service, *rs)?;
                service.rs.remove(server);
                Ok(Touched::Changed(place, service))
            }
        }
    }
}

impl Config {
    /// The configuration after an edit, with warnings about what it touched. `self` is unchanged.
    ///
    /// # Errors
    /// As [`Edit::judge`].
    pub fn edited(&self, edit: &Edit, facts: &dyn Facts) -> Result<(Self, Report), Report> {
        let mut config = self.clone();
        let services = std::mem::take(&mut config.services);
        let (touched, report) = edit.judge(&config, services.as_slice(), facts)?;
        config.services = services;
        match touched {
            Touched::Added(service) => config.services.push(service),
            Touched::Changed(place, service) => config.services[place] = service,
            Touched::Removed(place) => drop(config.services.remove(place)),
        }
        Ok((config, report))
    }
}

fn find_service(services: &(impl Services + ?Sized), name: &str) -> Result<usize, Vec<Diagnostic>> {
    services.names().position(|known| known == name).ok_or_else(|| {
        let error = Diagnostic::new(codes::NOT_FOUND, "", format!("no service \"{name}\""));
        vec![match nearest(name, services.names()) {
            Some(word) => error.hint(format!("did you mean \"{word}\"?")),
            None => error.hint("see lbctl service list"),
        }]
    })
}

fn find_rs(service: &Service, rs: SocketAddr) -> Result<usize, Vec<Diagnostic>> {
    service.rs.iter().position(|r| r.address == rs).ok_or_else(|| {
        let known: Vec<String> = service.rs.iter().take(8).map(|r| r.address.to_string()).collect();
        let error = Diagnostic::new(codes::NOT_FOUND, "", format!("no server {rs} in service \"{}\"", service.name));
        vec![error.hint(if known.is_empty() { "it has none".into() } else { format!("it has {}", known.join(", ")) })]
    })
}

/// What is said of the n-th service of a part, said of the one at the n-th of `places` of the whole.
fn moved(mut diagnostic: Diagnostic, places: &[usize]) -> Diagnostic {
    let move_to = |path: &mut String| {
        let place = path.strip_prefix("service[").and_then(|rest| rest.split_once(']')).and_then(|(number, rest)| {
            let place = places.get(number.parse::<usize>().ok()?)?;
            Some(format!("service[{place}]{rest}"))
        });
        if let Some(place) = place {
            *path = place;
        }
    };
    move_to(&mut diagnostic.path);
    if let Some(related) = &mut diagnostic.related {
        move_to(&mut related.path);
    }
    diagnostic
}

/// `base` overridden by `words`, read by the same reader as the file's table. Errors end it; warnings go to `found`.
fn read<T>(
    path: &str,
    base: Keys,
    words: &Words,
    found: &mut Vec<Diagnostic>,
    reader: impl FnOnce(&mut Walk, Section<'_>) -> T,
) -> Result<T, Vec<Diagnostic>> {
    let mut keys: Vec<(String, String)> = base.into_iter().map(|(k, v)| (k.to_owned(), v)).collect();
    for (key, value) in words {
        if key.is_empty() || !key.chars().all(|c| c.is_ascii_alphanumeric() || "._-".contains(c)) {
            let error = Diagnostic::new(codes::UNKNOWN_KEY, path, format!("\"{key}\" is not a key"));
            return Err(vec![error.hint("write KEY=VALUE, such as scheduler=wrr or health.interval=5s")]);
        }
        keys.retain(|(known, _)| known != key);
        if !value.is_empty() {
            let plain = is_plain(key) && value.parse::<toml::Value>().is_ok();
            keys.push((key.clone(), if plain { value.clone() } else { quoted(value) }));
        }
    }
    let text: String = keys.iter().map(|(key, value)| format!("{key} = {value}\n")).collect();
    let table = DeTable::parse(&text).map_err(|why| {
        vec![Diagnostic::new(codes::SYNTAX, path, format!("these keys do not go together: {}", why.message()))]
    })?;
    let mut walk = Walk::default();
    let section = Section::new(&mut walk, path, table.get_ref(), 0..0);
    let value = reader(&mut walk, section);
    if walk.found.iter().any(|d| d.level == Level::Error) {
        return Err(walk.found);
    }
    found.append(&mut walk.found);
    Ok(value)
}

/// The machine as an edit asks about it: only routes to the touched service's servers matter; CPUs are as they run, and
/// a route that vanished elsewhere must not hold up the change.
struct Touch<'a> {
    facts: &'a dyn Facts,
    new: HashSet<IpAddr>,
}

impl Facts for Touch<'_> {
    fn cpu_online(&self, _: u16) -> bool {
        true
    }
    fn numa_online(&self, _: u8) -> bool {
        true
    }
    fn has_route(&self, to: IpAddr) -> bool {
        !self.new.contains(&to) || self.facts.has_route(to)
    }
}
