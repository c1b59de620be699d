//! Numbers that are free.

use config::Limits;

use super::{Counts, Register};

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

/// Hands out numbers that neither the register nor a session uses, lowest first. What is used is found when the first
/// number is asked for: most edits need none.
pub struct Fresh<'a> {
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
    /// For `register`, within `limits`, none that `counts` has sessions for.
    pub fn new(register: &'a Register, limits: &'a Limits, counts: &'a dyn Counts) -> Self {
        Self { register, services: None, servers: None, limits, counts }
    }

    /// A service index.
    pub fn service(&mut self) -> Result<u32, NoId> {
        let (limit, register, counts) = (self.limits.services, self.register, self.counts);
        let used = || Used::new(limit, register.services.iter().map(|s| s.index));
        let taken = self.services.get_or_insert_with(used).take(|index| counts.service(index) != 0);
        taken.ok_or(NoId { what: "service", key: "services", limit })
    }

    /// A real server id.
    pub fn server(&mut self) -> Result<u32, NoId> {
        let (limit, register, counts) = (self.limits.real_servers, self.register, self.counts);
        let used = || Used::new(limit, register.services.iter().flat_map(|s| s.servers.iter().map(|s| s.id)));
        let taken = self.servers.get_or_insert_with(used).take(|id| counts.server(id) != 0);
        taken.ok_or(NoId { what: "real server", key: "real_servers", limit })
    }
}
