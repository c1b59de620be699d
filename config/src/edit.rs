//! Changes to a configuration that come from a command instead of a file, under the same rules.

use std::collections::HashSet;
use std::net::{IpAddr, SocketAddr};

use serde::{Deserialize, Serialize};
use toml::de::DeTable;

use crate::check::check;
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

impl Config {
    /// The configuration after an edit, with warnings about what it touched. `self` is unchanged.
    ///
    /// # Errors
    /// Everything that would be wrong then; [`codes::NOT_FOUND`] when there is no such service or server.
    pub fn edited(&self, edit: &Edit, facts: &dyn Facts) -> Result<(Self, Report), Report> {
        let mut config = self.clone();
        let mut found = Vec::new();
        let touched = config.change(edit, &mut found).map_err(Report::from_diagnostics)?;
        let inside = format!("service[{touched}]");
        let known = |s: &Service| s.rs.iter().map(|rs| rs.address.ip()).collect::<Vec<_>>();
        let new = config.services.get(touched).map(known).unwrap_or_default().into_iter().collect();
        found.extend(check(&config, &Touched { facts, new }, &std::collections::BTreeSet::new()));
        found.retain(|d| d.level == Level::Error || d.path.starts_with(&inside));
        let report = Report::from_diagnostics(found);
        if report.errors() > 0 { Err(report) } else { Ok((config, report)) }
    }

    /// Makes the change; the index of the service that was touched.
    fn change(&mut self, edit: &Edit, found: &mut Vec<Diagnostic>) -> Result<usize, Vec<Diagnostic>> {
        match edit {
            Edit::ServiceAdd { service: name, keys } => {
                let index = self.services.len();
                let base = vec![("name", quoted(name))];
                let added = read(&format!("service[{index}]"), base, keys, found, service)?;
                self.services.push(added);
                Ok(index)
            }
            Edit::ServiceSet { service: name, keys } => {
                let index = self.find_service(name)?;
                let path = format!("service[{index}]");
                if keys.iter().any(|(key, value)| key == "name" && value != name) {
                    let error = Diagnostic::new(codes::CONFLICT, format!("{path}.name"), "a service keeps its name");
                    return Err(vec![error.hint("add one with the new name, then del this one")]);
                }
                let old = &mut self.services[index];
                let mut new = read(&path, keys::service(old), keys, found, service)?;
                new.rs = std::mem::take(&mut old.rs);
                *old = new;
                Ok(index)
            }
            Edit::ServiceDel { service: name } => {
                let index = self.find_service(name)?;
                self.services.remove(index);
                Ok(usize::MAX)
            }
            Edit::RsAdd { service: name, rs, keys } => {
                let index = self.find_service(name)?;
                let path = format!("service[{index}].rs[{}]", self.services[index].rs.len());
                let base = keys::real_server(&RealServer::new(*rs));
                let added = read(&path, base, keys, found, real_server)?;
                self.services[index].rs.push(added);
                Ok(index)
            }
            Edit::RsSet { service: name, rs, keys } => {
                let index = self.find_service(name)?;
                let server = self.find_rs(index, *rs)?;
                let path = format!("service[{index}].rs[{server}]");
                let old = &mut self.services[index].rs[server];
                *old = read(&path, keys::real_server(old), keys, found, real_server)?;
                Ok(index)
            }
            Edit::RsDel { service: name, rs } => {
                let index = self.find_service(name)?;
                let server = self.find_rs(index, *rs)?;
                self.services[index].rs.remove(server);
                Ok(index)
            }
        }
    }

    fn find_service(&self, name: &str) -> Result<usize, Vec<Diagnostic>> {
        self.services.iter().position(|s| s.name.as_str() == name).ok_or_else(|| {
            let error = Diagnostic::new(codes::NOT_FOUND, "", format!("no service \"{name}\""));
            vec![match nearest(name, self.services.iter().map(|s| s.name.as_str())) {
                Some(word) => error.hint(format!("did you mean \"{word}\"?")),
                None => error.hint("see lbctl service list"),
            }]
        })
    }

    fn find_rs(&self, service: usize, rs: SocketAddr) -> Result<usize, Vec<Diagnostic>> {
        let service = &self.services[service];
        service.rs.iter().position(|r| r.address == rs).ok_or_else(|| {
            let known: Vec<String> = service.rs.iter().take(8).map(|r| r.address.to_string()).collect();
            let error =
                Diagnostic::new(codes::NOT_FOUND, "", format!("no server {rs} in service \"{}\"", service.name));
            vec![error.hint(if known.is_empty() {
                "it has none".into()
            } else {
                format!("it has {}", known.join(", "))
            })]
        })
    }
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
struct Touched<'a> {
    facts: &'a dyn Facts,
    new: HashSet<IpAddr>,
}

impl Facts for Touched<'_> {
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
