//! Choice tables in use: who needs one, and whose may stay.

use std::collections::HashMap;
use std::sync::Arc;

use super::plan::ServicePlan;
use super::{Arena, PublishError};
use crate::choice::{Choices, maglev};

/// A choice table in use; shared by the versions of a service that differ in other things.
#[derive(Debug)]
pub(super) struct Table(u32);

/// The choice tables.
#[derive(Debug)]
pub(super) struct Tables {
    choices: Option<Choices>,
    free: Arena,
    /// Found in the tables by a writer that takes over.
    found: HashMap<u32, Arc<Table>>,
}

impl Tables {
    pub(super) fn new(choices: Option<Choices>) -> Self {
        let free = Arena::new(choices.as_ref().map_or(0, Choices::count));
        Self { choices, free, found: HashMap::new() }
    }

    /// Takes the table that a row names (its number + 1) as in use.
    pub(super) fn claim(&mut self, named: u32) -> Option<Arc<Table>> {
        let number = named.checked_sub(1)?;
        if let Some(table) = self.found.get(&number) {
            return Some(Arc::clone(table));
        }
        if !self.free.claim(&(number..number.checked_add(1)?)) {
            return None;
        }
        let table = Arc::new(Table(number));
        self.found.insert(number, Arc::clone(&table));
        Some(table)
    }

    /// Everything that is in use has been claimed.
    pub(super) fn claimed(&mut self) {
        self.found.clear();
    }

    /// The table of a service version: that of the version before it if the same servers share in it, else a new one.
    pub(super) fn of(
        &mut self,
        plan: &ServicePlan,
        before: Option<(&ServicePlan, &Arc<Table>)>,
    ) -> Result<Option<Arc<Table>>, PublishError> {
        if plan.since_1_1() && self.choices.is_none() {
            return Err(PublishError::Older { service: plan.name.clone() });
        }
        let (Some(choices), Some(shares)) = (&self.choices, plan.shares()) else { return Ok(None) };
        if let Some((was, table)) = before
            && was.hashing.key == plan.hashing.key
            && was.shares().is_some_and(|old| old == shares)
        {
            return Ok(Some(Arc::clone(table)));
        }
        let number = self.free.take(1).ok_or_else(|| PublishError::Full {
            what: "choice tables",
            count: 1,
            free: self.free.free(),
        })?;
        choices.write(number.start, &maglev::build(&shares, plan.hashing.key));
        Ok(Some(Arc::new(Table(number.start))))
    }

    /// Number + 1 and checksum, for the row; 0 and 0: no table.
    pub(super) fn named(&self, table: Option<&Arc<Table>>) -> (u32, u32) {
        let sum = |table: &Arc<Table>| self.choices.as_ref().map_or(0, |choices| choices.sum(table.0));
        table.map_or((0, 0), |table| (table.0 + 1, sum(table)))
    }

    /// A version lets go of its table.
    pub(super) fn give(&mut self, table: Option<Arc<Table>>) {
        if let Some(Table(number)) = table.and_then(Arc::into_inner) {
            self.free.give(number..number + 1);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::Ordering::Relaxed;
    use std::time::Duration;

    use super::*;
    use crate::choice::PLACES;
    use crate::neighbours::ip4;
    use crate::publish::{Hashing, MemberPlan, Plan, Publisher};
    use crate::published::{Published, PublishedGeometry, admin, mode, protocol, scheduler};
    use crate::session::TIMEOUTS;

    fn service(index: u32, by: u8) -> ServicePlan {
        let member = |k: u32| MemberPlan {
            id: index * 4 + k,
            tag: 1,
            ip: ip4(0x0a00_0015 + k),
            port: 80,
            weight: 1,
            admin: admin::ENABLED,
        };
        ServicePlan {
            index,
            id: index + 100,
            vip: ip4(0x0a00_0064 + index),
            port: 80,
            protocol: protocol::TCP,
            mode: 0,
            scheduler: by,
            flags: 0,
            max_sessions: 0,
            check_interval_ms: 0,
            timeouts: [1000; TIMEOUTS],
            hashing: Hashing::default(),
            name: format!("service-{index}"),
            members: (0..3).map(member).collect(),
        }
    }

    fn publish(publisher: &mut Publisher, services: &[ServicePlan]) -> Result<(), PublishError> {
        let plan = Plan { services: services.to_vec(), locals: vec![] };
        let staged = publisher.stage(&plan, publisher.generation() + 1, &[], Duration::ZERO)?;
        publisher.commit(staged);
        let tables = publisher.tables();
        tables.verify(tables.current().unwrap()).unwrap();
        assert!(publisher.in_force(&plan), "read back as written");
        Ok(())
    }

    /// Number + 1 of a service's table, and its places.
    fn table(tables: &Published, index: u32) -> (u32, Vec<u16>) {
        let row = tables.service(tables.current().unwrap(), index).unwrap();
        let places = tables.choice(row).unwrap_or(&[]).iter().map(|p| p.load(Relaxed)).collect();
        (row.choice.load(Relaxed), places)
    }

    fn tables(count: u32) -> Published {
        let tables = Published::anonymous(PublishedGeometry { services: 16, servers: 64 }).unwrap();
        tables.with(Some(Choices::anonymous(count).unwrap()))
    }

    #[test]
    fn who_chooses_by_hash_has_a_table_and_keeps_it_while_its_servers_stay() {
        let tables = tables(4);
        let mut publisher = Publisher::attach(tables.clone());
        let mut services = [service(0, scheduler::MAGLEV), service(1, scheduler::WLC), service(2, scheduler::RR)];
        services[2].hashing = Hashing { key: [1, 2], persistence_ms: 5000, prefix: 120 };
        publish(&mut publisher, &services).unwrap();
        let (first, places) = table(&tables, 0);
        assert_eq!((places.len(), table(&tables, 1), table(&tables, 2).1.len()), (PLACES, (0, vec![]), PLACES));
        // Drained, disabled: it keeps its places. Other keys of the service: the table stays as it is.
        services[0].members[1].admin = admin::DRAIN;
        services[0].max_sessions = 7;
        publish(&mut publisher, &services).unwrap();
        assert_eq!(table(&tables, 0), (first, places.clone()));
        // Removed: others sit in its places.
        services[0].members[1].admin = admin::REMOVED;
        publish(&mut publisher, &services).unwrap();
        let (second, fewer) = table(&tables, 0);
        assert!(second != first && !fewer.contains(&1) && places.contains(&1));
        // What nobody names is free again, also for a writer that takes over.
        for weight in 2..40 {
            services[0].members[0].weight = weight;
            publish(&mut publisher, &services).unwrap();
            if weight % 10 == 0 {
                publisher = Publisher::attach(tables.clone());
            }
        }
    }

    #[test]
    fn no_room_changes_nothing() {
        let tables = tables(2);
        let mut publisher = Publisher::attach(tables.clone());
        let services = [0, 1, 2].map(|index| service(index, scheduler::SOURCE_IP));
        publish(&mut publisher, &services[..2]).unwrap();
        let error = publish(&mut publisher, &services).unwrap_err().to_string();
        assert!(error.contains("choice tables") && error.contains("[limits]"), "{error}");
        assert_eq!(publisher.generation(), 1);
        publish(&mut publisher, &[services[0].clone(), services[1].clone(), service(2, scheduler::LC)]).unwrap();
    }

    #[test]
    fn tables_of_an_older_layout_get_nothing_new() {
        let older = Published { choices: None, ..tables(1) };
        let mut publisher = Publisher::attach(older);
        for by in [scheduler::WLC, scheduler::MAGLEV] {
            let error = publish(&mut publisher, &[service(0, by)]).unwrap_err();
            assert!(matches!(error, PublishError::Older { .. }), "{error}");
        }
        let direct = ServicePlan { mode: mode::DR, ..service(0, scheduler::RR) };
        assert!(matches!(publish(&mut publisher, &[direct]), Err(PublishError::Older { .. })));
        let persistent = Hashing { persistence_ms: 1000, ..Hashing::default() };
        let error = publish(&mut publisher, &[ServicePlan { hashing: persistent, ..service(0, scheduler::RR) }]);
        assert!(matches!(error, Err(PublishError::Older { .. })));
        publish(&mut publisher, &[service(0, scheduler::LC)]).unwrap();
    }

    #[test]
    fn a_damaged_table_is_found_and_made_anew() {
        let tables = tables(2);
        let mut publisher = Publisher::attach(tables.clone());
        let services = [service(0, scheduler::MAGLEV)];
        publish(&mut publisher, &services).unwrap();
        let generation = tables.current().unwrap();
        let (_, places) = table(&tables, 0);
        let row = tables.service(generation, 0).unwrap();
        tables.choice(row).unwrap()[77].store(places[77] ^ 1, Relaxed);
        let error = tables.verify(generation).unwrap_err().to_string();
        assert!(error.contains("choice table"), "{error}");
        let mut successor = Publisher::attach(tables.clone());
        let plan = Plan { services: services.to_vec(), locals: vec![] };
        assert!(!successor.in_force(&plan));
        publish(&mut successor, &services).unwrap();
        assert_eq!(table(&tables, 0).1, places);
    }
}
