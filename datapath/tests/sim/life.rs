//! One life of an appliance under a seed: events, faults, and rests at which everything is counted anew.

use std::collections::VecDeque;

use datapath::session::failpoint;
use shm_layout::published::protocol;
use shm_layout::ring::RecordKind;

use crate::control::{self, Control, SERVERS};
use crate::model::{Kind, Model};
use crate::slots::Owners;
use crate::world::{Rng, World, ip, member, server, service};

/// Events between two rests.
const REST_EVERY: u32 = 1000;
/// A client whose sessions may end at any time, by order.
const DOOMED: u32 = ip(10, 0, 1, 1);
pub const GATEWAY: u32 = ip(10, 0, 0, 1);

/// What a life is like; by its seed.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    pub slots: u32,
    pub sessions: u64,
    pub ports: u16,
    /// Turns per death, on average; 0: nobody dies.
    pub kill_one_in: u64,
    pub flows: usize,
    /// One frame in so many is lost, doubled, late.
    pub noise: u64,
}

impl Shape {
    fn of(rng: &mut Rng) -> Self {
        Self {
            slots: 1 + rng.below(4) as u32,
            sessions: *rng.pick(&[48, 300, 4096]),
            ports: *rng.pick(&[40, 800, 60_000]),
            kill_one_in: *rng.pick(&[0, 30, 300, 3000]),
            flows: *rng.pick(&[30, 200, 1500]),
            noise: *rng.pick(&[5, 20, 200]),
        }
    }
}

/// What happened in a life: a test that nothing happens in shows nothing.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    pub events: u64,
    pub deaths: u64,
    pub again: u64,
    pub handed_over: u64,
    pub by_op: Vec<(&'static str, u64)>,
    pub opened: u64,
    pub delivered: u64,
    pub proven: u64,
    pub generations: u64,
    pub held_generations: u64,
    pub drops: Vec<(&'static str, u64)>,
}

pub struct Life {
    pub rng: Rng,
    pub shape: Shape,
    pub world: World,
    pub owners: Owners,
    pub control: Control,
    pub model: Model,
    pub step: u32,
    /// Frames under way to a slot: due step, slot, frame.
    pub late: VecDeque<(u32, usize, Vec<u8>)>,
    /// Slacks of the counters, which change with a death only.
    pub slack: (i64, i64),
    pub deaths_at_rest: u64,
    pub deliveries: u64,
    pub proven: u64,
    pub opened: u64,
    pub stations: Vec<u32>,
    pub next_port: u16,
    pub calm: bool,
    /// When a table was last made anew: its wheel too, and each record's time with it.
    pub rebuilt_ms: u64,
    /// Flows whose frames are printed: `LB_SIM_TRACE=3,17`.
    pub traced: Vec<u32>,
}

fn traced() -> Vec<u32> {
    let text = std::env::var("LB_SIM_TRACE").unwrap_or_default();
    text.split(',').filter_map(|id| id.parse().ok()).collect()
}

impl Life {
    pub fn new(seed: u64) -> Self {
        let mut rng = Rng(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15));
        let shape = Shape::of(&mut rng);
        let members = |first: u32| (0..3).map(|n| member(first + n, server(n as u8))).collect();
        let services = vec![service(protocol::TCP, 80, members(0)), service(protocol::UDP, 53, members(3))];
        let mut world = World::new(shape.slots, shape.sessions, services);
        world.plan.locals[0].high = world.plan.locals[0].low + shape.ports;
        world.publish();
        let stations: Vec<u32> =
            (0..SERVERS).map(server).chain((1..=8).map(|n| ip(10, 0, 1, n))).chain([GATEWAY]).collect();
        for address in &stations {
            world.resolve(*address);
        }
        let owners = Owners::new(&world);
        Self {
            rng,
            shape,
            world,
            owners,
            control: Control::default(),
            model: Model::default(),
            step: 0,
            late: VecDeque::new(),
            slack: (0, 0),
            deaths_at_rest: 0,
            deliveries: 0,
            proven: 0,
            opened: 0,
            stations,
            next_port: 1024,
            calm: false,
            rebuilt_ms: 0,
            traced: traced(),
        }
    }

    /// Lives for so many events.
    ///
    /// # Errors
    /// The first law broken, and when.
    pub fn run(&mut self, events: u32) -> Result<(), String> {
        for _ in 0..events {
            self.step += 1;
            self.event().map_err(|law| format!("event {}: {law}; {:?}", self.step, self.shape))?;
            if self.step.is_multiple_of(REST_EVERY) {
                self.rest().map_err(|law| format!("rest after event {}: {law}; {:?}", self.step, self.shape))?;
            }
        }
        Ok(())
    }

    pub fn tally(&self) -> Tally {
        Tally {
            events: self.step.into(),
            deaths: self.owners.deaths,
            again: self.owners.again,
            handed_over: self.owners.handed_over,
            by_op: self.owners.by_op.clone(),
            opened: self.opened,
            delivered: self.deliveries,
            proven: self.proven,
            generations: self.control.published,
            held_generations: self.control.held,
            drops: self.world.drops(),
        }
    }

    pub fn now_ms(&self) -> u64 {
        self.world.now / 1_000_000
    }

    fn event(&mut self) -> Result<(), String> {
        self.world.now += match self.rng.below(5000) {
            0 => self.rng.below(200_000) * 1_000_000, // The machine slept.
            1..=20 => self.rng.below(3_000) * 1_000_000,
            21..=300 => 0,
            _ => self.rng.below(4_000_000),
        };
        match self.rng.below(1000) {
            0..=299 => self.some_flow(|life, id| life.client_sends(id, Kind::Data)),
            300..=499 => self.some_flow(|life, id| life.server_sends(id, Kind::Data)),
            500..=619 => self.open(),
            620..=679 => self.some_flow(Self::again),
            680..=709 => self.some_flow(|life, id| {
                life.end(id);
                life.client_sends(id, Kind::Fin);
            }),
            710..=719 => self.some_flow(|life, id| {
                life.end(id);
                let kind = *life.rng.pick(&[Kind::Fin, Kind::Rst]);
                life.server_sends(id, kind);
            }),
            720..=729 => self.some_flow(|life, id| {
                life.end(id);
                life.client_sends(id, Kind::Rst);
            }),
            730..=789 => self.some_flow(|life, id| life.client_sends(id, Kind::Attack)),
            790..=829 => self.noise(),
            830..=839 => {
                let slot = self.rng.below(self.shape.slots.into()) as usize;
                if self.owners.is_alive(slot) && self.shape.kill_one_in > 0 {
                    self.owners.hand_over(&mut self.world, slot, &mut self.rng)?;
                }
            }
            840..=869 => {
                let slot = self.rng.below(self.shape.slots.into()) as usize;
                if !self.owners.is_alive(slot) {
                    self.owners.take_over(&mut self.world, slot, &mut self.rng)?;
                }
            }
            870..=889 => {
                let now_ms = self.now_ms();
                self.control.change(&mut self.world, &mut self.rng, now_ms);
                let control = &self.control;
                self.model.loosen(|flow| flow.path.is_some_and(|p| control.ends(p.server.0, flow.path_ms)));
            }
            890..=899 => control::board(&self.world, &mut self.rng, self.world.now / 1_000_000),
            900..=909 => control::neighbour(&mut self.world, &mut self.rng, &self.stations),
            910..=919 => {
                let slot = self.rng.below(self.shape.slots.into()) as usize;
                let io = &mut self.world.ios[slot];
                match self.rng.below(6) {
                    0 => io.accept = Some(self.rng.below(20) as usize),
                    1 => io.buffers = Some(self.rng.below(20) as usize),
                    _ => (io.accept, io.buffers) = (None, None),
                }
            }
            920 => {
                let slot = self.rng.below(self.shape.slots.into()) as usize;
                let order = [DOOMED, 0, 0, 0, 0];
                failpoint::disarm(); // This push is control's.
                self.world.shared.slots[slot].from_control.push(RecordKind::Kill, order, &[]);
            }
            921 => self.flood()?,
            922 => {
                let slot = self.rng.below(self.shape.slots.into()) as usize;
                if self.owners.is_alive(slot) && self.shape.kill_one_in > 0 {
                    self.owners.rebuild(&mut self.world, slot, &mut self.rng)?;
                    self.rebuilt_ms = self.now_ms();
                }
            }
            _ => {}
        }
        self.arrive();
        for _ in 0..1 + self.rng.below(2) {
            let living: Vec<usize> = self.owners.living().collect();
            if living.is_empty() {
                break;
            }
            let slot = *self.rng.pick(&living);
            self.poll(slot)?;
        }
        Ok(())
    }

    pub fn poll(&mut self, slot: usize) -> Result<usize, String> {
        let armed = !self.calm && self.shape.kill_one_in > 0 && self.rng.one_in(self.shape.kill_one_in);
        let rng = armed.then_some(&mut self.rng);
        let mut work = self.owners.poll(&mut self.world, slot, rng)?;
        for frame in std::mem::take(&mut self.world.ios[slot].output) {
            work += 1;
            self.delivered(&frame)?;
        }
        Ok(work)
    }

    /// A session that began before an order to end those of its server may end, also when it is heard of later.
    pub fn heed_orders(&mut self, id: u32) {
        if let Some(flow) = self.model.flows.get_mut(&id)
            && let Some(path) = flow.path
        {
            flow.loose |= self.control.ends(path.server.0, flow.path_ms);
        }
    }

    fn some_flow(&mut self, act: impl FnOnce(&mut Self, u32)) {
        if !self.model.order.is_empty() {
            let id = *self.rng.pick(&self.model.order);
            act(self, id);
        }
    }

    pub fn end(&mut self, id: u32) {
        if let Some(flow) = self.model.flows.get_mut(&id) {
            flow.loose = true;
        }
    }

    fn open(&mut self) {
        if self.model.order.len() >= self.shape.flows {
            let now_ms = self.now_ms();
            let drop_one_in = self.rng.below(2);
            self.model
                .forget(|flow| flow.loose || flow.seen + 120_000 < now_ms && u64::from(flow.id) % 2 == drop_one_in);
            return;
        }
        let address = match self.rng.below(12) {
            n @ 0..=7 => ip(10, 0, 1, 1 + n as u8),
            n => ip(172, 16, 0, n as u8 - 7),
        };
        self.next_port = if self.next_port == u16::MAX { 1024 } else { self.next_port + 1 };
        let client = (address, self.next_port);
        let udp = self.rng.one_in(4);
        if self.model.is_used(client, if udp { 53 } else { 80 }) {
            return;
        }
        let id = self.model.open(client, udp, self.rng.next() as u32, self.rng.next() as u32);
        self.opened += 1;
        if address == DOOMED {
            self.end(id);
        }
        self.client_sends(id, if udp { Kind::Data } else { Kind::Syn });
    }
}
