//! A generation as its difference to another: what a change among ten thousand services writes.
//!
//! All differences are to a generation that is kept whole, not to the one before: each needs two files to be read, and
//! one that is damaged takes no other with it.

use std::sync::Arc;

use config::Config;
use serde::{Deserialize, Serialize};

use super::super::register::{LocalEntry, Register, ServiceEntry};
use super::{Entry, FORMAT, Unconfirmed};

/// Format of differences. (Builds that know whole records only pass these over, and say so.) 2: local addresses always.
const DELTA_FORMAT: u32 = 3;

/// What differences are to.
#[derive(Debug, Clone)]
pub struct Base {
    generation: u64,
    checksum: String,
    bytes: usize,
    register: Register,
    /// Place in `register.services` by service index.
    places: Vec<Option<u32>>,
}

impl Base {
    /// The whole record of `entry`, of so many bytes.
    pub fn new(entry: &Entry, checksum: String, bytes: usize) -> Self {
        let mut places = Vec::new();
        for (place, service) in (0_u32..).zip(&entry.register.services) {
            let index = service.index as usize;
            if places.len() <= index {
                places.resize(index + 1, None);
            }
            places[index] = Some(place);
        }
        Self { generation: entry.generation, checksum, bytes, register: entry.register.clone(), places }
    }

    /// Its number.
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// Length of its record.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Where the very same entry stands in it.
    fn place(&self, entry: &Arc<ServiceEntry>) -> Option<u32> {
        let place = (*self.places.get(entry.index as usize)?)?;
        Arc::ptr_eq(&self.register.services[place as usize], entry).then_some(place)
    }
}

/// A piece of the list of services.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Piece {
    /// So many of the base's services from a place on.
    Same(u32, u32),
    /// One that is not in the base like this.
    New(Arc<ServiceEntry>),
}

/// An [`Entry`] without what its base has as well.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Delta {
    format: u32,
    base_checksum: String,
    generation: u64,
    time: u64,
    user: String,
    summary: String,
    file_digest: String,
    housekeeping: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    unconfirmed: Option<Unconfirmed>,
    skeleton: Config,
    services: Vec<Piece>,
    /// `None`: as the base has them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    locals: Option<Vec<LocalEntry>>,
    next_service: u32,
    next_tag: u32,
}

impl Delta {
    /// What leads from `base` to `entry`. Services that are not shared with the base count as new.
    pub fn of(entry: &Entry, base: &Base) -> Self {
        let mut services: Vec<Piece> = Vec::new();
        for service in &entry.register.services {
            match (base.place(service), services.last_mut()) {
                (Some(place), Some(Piece::Same(first, count))) if *first + *count == place => *count += 1,
                (Some(place), _) => services.push(Piece::Same(place, 1)),
                (None, _) => services.push(Piece::New(Arc::clone(service))),
            }
        }
        let Register { locals, next_service, next_tag, .. } = &entry.register;
        Self {
            format: DELTA_FORMAT,
            base_checksum: base.checksum.clone(),
            generation: entry.generation,
            time: entry.time,
            user: entry.user.clone(),
            summary: entry.summary.clone(),
            file_digest: entry.file_digest.clone(),
            housekeeping: entry.housekeeping,
            unconfirmed: entry.unconfirmed.clone(),
            skeleton: entry.skeleton.clone(),
            services,
            locals: (*locals != base.register.locals).then(|| locals.clone()),
            next_service: *next_service,
            next_tag: *next_tag,
        }
    }

    /// The entry it stands for.
    ///
    /// # Errors
    /// It is a difference to something else, in words.
    pub fn onto(self, base: &Base) -> Result<Entry, String> {
        if !(2..=DELTA_FORMAT).contains(&self.format) {
            return Err(format!("format {} of a difference, needed {DELTA_FORMAT}", self.format));
        }
        if self.base_checksum != base.checksum {
            let (wanted, found) = (&self.base_checksum, &base.checksum);
            return Err(format!("its base {} has checksum {found}, it is a difference to {wanted}", base.generation));
        }
        let mut services = Vec::new();
        for piece in self.services {
            match piece {
                Piece::New(entry) => services.push(entry),
                Piece::Same(first, count) => {
                    let range = first as usize..(first as usize).saturating_add(count as usize);
                    let all = base.register.services.len();
                    let same = base.register.services.get(range.clone());
                    services.extend(same.ok_or_else(|| format!("services {range:?} of {all}"))?.iter().cloned());
                }
            }
        }
        let locals = self.locals.unwrap_or_else(|| base.register.locals.clone());
        let (next_service, next_tag) = (self.next_service, self.next_tag);
        Ok(Entry {
            format: FORMAT,
            generation: self.generation,
            time: self.time,
            user: self.user,
            summary: self.summary,
            file_digest: self.file_digest,
            housekeeping: self.housekeeping,
            unconfirmed: self.unconfirmed,
            skeleton: self.skeleton,
            register: Register { services, locals, next_service, next_tag },
        })
    }
}
