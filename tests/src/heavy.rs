//! The load under which nothing may break: thousands of connections that carry checked data, new
//! ones all the time, and a numbered UDP stream at half of the rate at which nothing is lost here.

use std::thread::sleep;
use std::time::Duration;

use crate::clock::now_us;
use crate::conf::VIP;
use crate::cpu::{Starvation, pressure_us};
use crate::drops::Places;
use crate::error::ensure;
use crate::forgotten::Forgotten;
use crate::load::{Load, LoadReport};
use crate::stream::{SearchReport, StreamReport};
use crate::talk::TalkReport;
use crate::{Error, Result, Rig, claims};

/// Time for the end of each program.
const END: Duration = Duration::from_secs(60);
/// The place of [`Forgotten`].
const NEIGHBOUR: &str = "rig's kernels, neighbour flushed";
/// Reasons for which a datagram of a session may be dropped.
const REASONS: &[&str] = &[
    "tx_full",
    "ring_full",
    "no_buffer",
    "no_neighbour",
    "no_route",
    "no_port",
    "table_full",
    "index_full",
    "no_server",
    "lost_in_crash",
    "bad_record",
    "service_full",
    "not_for_us",
    "no_service",
    "disabled",
    "too_big",
    "bad_udp_header",
];
/// Bursts of the search take about a second each.
const SEARCH: Duration = Duration::from_secs(90);

/// How heavy.
#[derive(Debug, Clone, Copy)]
pub struct Weight {
    /// TCP connections that stay, over service `talk`.
    pub connections: u32,
    /// Pause of each between two rounds, milliseconds.
    pub period_ms: u64,
    /// New connections per second, over service `web`.
    pub new_per_second: u64,
    /// Flows of the stream, over service `stream`.
    pub flows: u32,
    /// Highest rate of the stream that is tried, datagrams per second: what is found is halved.
    pub stream_limit: u64,
    /// Silences of a flow from here on are recorded, microseconds.
    pub gap_us: u64,
}

impl Default for Weight {
    /// That of the promises: 2,000 connections, 500 new ones per second.
    fn default() -> Self {
        Self { connections: 2000, period_ms: 1000, new_per_second: 500, flows: 16, stream_limit: 24_000, gap_us: 2000 }
    }
}

/// The load at work.
pub struct Heavy {
    talk: Load,
    web: Load,
    stream: Load,
    before: Places,
    forgotten: Option<Forgotten>,
    dropped: u64,
    weight: Weight,
    pressure: (u64, u64),
    /// What the search found.
    pub search: SearchReport,
    /// The workers' waiting for a CPU. Those that run at the start are watched; a test adds others.
    pub starvation: Starvation,
}

/// What became of it.
#[derive(Clone)]
pub struct HeavyReport {
    /// The connections that stay.
    pub talk: TalkReport,
    /// The new ones.
    pub web: LoadReport,
    /// The stream.
    pub stream: StreamReport,
    /// Where packets were lost, besides in the appliance.
    pub places: Places,
    /// The workers' waiting for a CPU.
    pub starvation: Starvation,
    /// Datagrams the appliance itself may have dropped: what its counters of such reasons grew by. By the conservation law it
    /// lost none besides.
    pub dropped: u64,
    /// Share of the time in which somebody on the machine waited for a CPU, percent.
    pub pressure: u64,
}

impl Heavy {
    /// Starts the load; returns when all connections are there and the stream flows. The rig has the
    /// usual services and `stream`, and the appliance serves.
    ///
    /// # Errors
    /// When a connection does not come, or no rate is free of losses.
    pub fn start(rig: &Rig, weight: Weight) -> Result<Self> {
        let (talk, web) = (format!("{VIP}:9000"), format!("{VIP}:80"));
        let (connections, period) = (weight.connections.to_string(), weight.period_ms.to_string());
        let talk = rig.load(
            "tcp-talk",
            &[
                "client",
                "--target",
                &talk,
                "--connections",
                &connections,
                "--period-ms",
                &period,
                "--timeout-ms",
                "30000",
                "--open-rate",
                "2000",
                "--size",
                "100",
            ],
        )?;
        let lbctl = rig.lbctl()?;
        claims::eventually("all connections of the load", Duration::from_secs(30), || {
            let services = lbctl.services()?;
            let there = services.iter().find(|s| s.name == "talk").map_or(0, |s| s.sessions);
            ensure(there >= u64::from(weight.connections), || format!("{there} of {connections} are there"))
        })?;
        let rate = weight.new_per_second.to_string();
        let new = ["--target", &web, "--rate", &rate, "--concurrency", "256", "--timeout-ms", "20000"];
        let web = rig.load("http-load", &new)?;
        sleep(Duration::from_secs(1)); // Caches and neighbours are warm: the search is of what lasts.
        let search = loss_free_rate(rig, weight)?;
        let forgotten = Forgotten::watch(&rig.appliance.conf.name, rig.janitor())?;
        let (before, dropped) = (Places::read(rig)?, dropped(rig)?);
        let stream = stream(rig, search.rate / 2, weight)?;
        let workers = rig.appliance.workers.values().map(crate::daemon::Daemon::pid).collect();
        let (starvation, pressure) = (Starvation::watch(workers), (now_us(), pressure_us()));
        Ok(Self { talk, web, stream, before, forgotten, dropped, weight, pressure, search, starvation })
    }

    /// Ends the load and takes the reports.
    ///
    /// # Errors
    /// When a program fails; not when it saw failures.
    pub fn finish(self, rig: &Rig) -> Result<HeavyReport> {
        let stream: StreamReport = self.stream.finish(END)?;
        let web: LoadReport = self.web.finish(END)?;
        let talk: TalkReport = self.talk.finish(END)?;
        ensure(stream.sent > 0 && talk.opened == u64::from(self.weight.connections), || {
            format!("the load itself did not work: {}; {}", talk.summary(), stream.summary())
        })?;
        let mut places = Places::read(rig)?.since(&self.before);
        places.add(NEIGHBOUR, self.forgotten.as_ref().map_or(Ok(0), Forgotten::count)?);
        let dropped = dropped(rig)?.saturating_sub(self.dropped);
        let (begin, before) = self.pressure;
        let pressure = (pressure_us() - before) * 100 / (now_us() - begin).max(1);
        Ok(HeavyReport { talk, web, stream, places, starvation: self.starvation, dropped, pressure })
    }
}

impl HeavyReport {
    /// No established connection was lost, none was reset, every new one was answered.
    ///
    /// # Errors
    /// With what broke and where packets were lost.
    pub fn nothing_broke(&self) -> Result<()> {
        ensure(self.talk.broken.is_empty() && self.talk.rounds > 0, || {
            let first: Vec<_> = self.talk.broken.iter().take(8).collect();
            format!("{}; first: {first:#?}; packets lost: {}", self.talk.summary(), self.places.words())
        })?;
        claims::all_answered("new connections", &self.web)
            .map_err(|error| Error::claim(format!("{error}; packets lost: {}", self.places.words())))
    }

    /// And not one datagram of the stream was lost, doubled or changed. Two losses are the machine's, not the appliance's; they
    /// are told, and excused one by one as far as the kernel shows them: what the tap's full queue dropped while a worker waited
    /// for a CPU that others had, and what the rig's kernels dropped when a test flushed a neighbour.
    ///
    /// # Errors
    /// With when it was lost, and where besides the appliance packets were.
    pub fn no_datagram_lost(&self) -> Result<()> {
        let stream = &self.stream;
        let own: Vec<_> = stream.losses.iter().filter(|loss| !self.starvation.explains(loss.at_us)).collect();
        let excused = self.lost_to_starvation() + self.places.at(NEIGHBOUR);
        ensure(stream.lost <= excused && stream.duplicated + stream.foreign == 0, || {
            format!(
                "{}; excused {excused}; lost while no worker was starved, first: {:?}; dropped by the appliance: {}; packets lost: {}",
                stream.summary(),
                own.iter().take(12).collect::<Vec<_>>(),
                self.dropped,
                self.places.words()
            )
        })
    }

    /// Datagrams lost while a worker waited for a CPU, as far as the tap's queue overflowed.
    #[must_use]
    pub fn lost_to_starvation(&self) -> u64 {
        let starved = self.stream.losses.iter().filter(|loss| self.starvation.explains(loss.at_us));
        starved.map(|loss| loss.count).sum::<u64>().min(self.places.at("tap tx"))
    }

    /// Lines for people.
    #[must_use]
    pub fn notes(&self) -> Vec<String> {
        let web = &self.web;
        vec![
            self.talk.summary(),
            format!(
                "{} new connections at {:.0}/s: {} failed, {} reset; p99 {} ms, longest {} ms",
                web.requested,
                web.requested as f64 / web.seconds.max(0.001),
                web.failed,
                web.resets(),
                web.p99_us / 1000,
                web.max_us / 1000
            ),
            format!(
                "{}; {} of the lost while a worker was starved; dropped by the appliance: {}; packets lost besides: {}",
                self.stream.summary(),
                self.lost_to_starvation(),
                self.dropped,
                self.places.words()
            ),
            format!("somebody waited for a CPU during {} % of the time", self.pressure),
        ]
    }
}

/// The highest rate of the stream at which nothing is lost, under whatever load there is.
///
/// # Errors
/// When there is none.
pub fn loss_free_rate(rig: &Rig, weight: Weight) -> Result<SearchReport> {
    let (target, flows, max) = (format!("{VIP}:7000"), weight.flows.to_string(), weight.stream_limit.to_string());
    let arguments = ["search", "--target", &target, "--flows", &flows, "--min", "1000", "--max", &max, "--steps", "5"];
    let report: SearchReport = rig.load("udp-stream", &arguments)?.report(SEARCH)?;
    ensure(report.rate > 0, || format!("the link loses datagrams at every rate: {:?}", report.tries))?;
    Ok(report)
}

/// The stream at `rate`, until it is told to end.
///
/// # Errors
/// When it cannot start.
pub fn stream(rig: &Rig, rate: u64, weight: Weight) -> Result<Load> {
    let (target, flows) = (format!("{VIP}:7000"), weight.flows.to_string());
    let (rate, gap) = (rate.to_string(), weight.gap_us.to_string());
    rig.load("udp-stream", &["client", "--target", &target, "--flows", &flows, "--rate", &rate, "--gap-us", &gap])
}

/// Packets the appliance has dropped for one of [`REASONS`].
fn dropped(rig: &Rig) -> Result<u64> {
    let stats = rig.lbctl()?.stats()?;
    Ok(REASONS.iter().filter_map(|reason| stats.sum.drops.get(*reason)).sum())
}
