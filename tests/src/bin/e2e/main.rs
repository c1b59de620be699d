//! End-to-end tests: real processes, one test at a time, each in a process of its own with a time
//! limit, so that a hanging test is ended and what it made is removed.
//!
//! `e2e [FILTER…]` runs the tests whose names contain a filter; `e2e --list` names them. Output is
//! as libtest's. Logs of failed tests stay in `target/e2e-logs/TEST`.
#![forbid(unsafe_code)]

mod admin;
mod board;
mod cases;
mod changes;
mod configuration;
mod crash;
mod ctx;
mod failpoints;
mod faults;
mod forwarding;
mod health;
mod holder;
mod icmp;
mod kernel;
mod modes;
mod privileges;
mod random;
mod restart;
mod rig_itself;
mod rolling;
mod schedulers;
mod shapes;
mod supervise;
mod trial;
mod units;
mod upgrade;
mod v6;
mod vlan;

use std::time::Duration;

use ctx::Ctx;

/// One test.
pub struct Test {
    /// Its name, `area::promise`.
    pub name: &'static str,
    /// When it is ended as hanging.
    pub limit: Duration,
    /// The test.
    pub body: fn(&mut Ctx) -> tests::Result<()>,
}

const fn test(name: &'static str, seconds: u64, body: fn(&mut Ctx) -> tests::Result<()>) -> Test {
    Test { name, limit: Duration::from_secs(seconds), body }
}

/// All tests, the simple ones first: when the rig itself is broken, nothing else is worth reading.
const TESTS: &[Test] = &[
    test("rig::direct_traffic", 60, rig_itself::direct_traffic),
    test("rig::tap_is_plumbed", 30, rig_itself::tap_is_plumbed),
    test("rig::nothing_is_left", 60, rig_itself::nothing_is_left),
    test("forwarding::tcp_and_udp", 120, forwarding::tcp_and_udp),
    test("forwarding::law_under_load", 180, forwarding::law_under_load),
    test("forwarding::server_speaks_first", 120, forwarding::server_speaks_first),
    test("forwarding::malformed_packets", 120, forwarding::malformed_packets),
    test("cases::plain", 900, cases::plain),
    test("cases::tagged", 120, cases::tagged),
    test("cases::short", 120, cases::short),
    test("cases::gateways", 300, cases::gateways),
    test("icmp::path_mtu", 60, icmp::path_mtu),
    test("icmp::port_unreachable", 60, icmp::port_unreachable),
    test("vlan::tagged_port", 120, vlan::tagged_port),
    test("kernel::session_holds", 240, kernel::session_holds),
    test("modes::fullnat", 180, modes::fullnat),
    test("modes::nat", 180, modes::nat),
    test("modes::dr", 180, modes::dr),
    test("modes::tunnel", 180, modes::tunnel),
    test("v6::fullnat", 180, v6::fullnat),
    test("v6::nat", 180, v6::nat),
    test("v6::dr", 180, v6::dr),
    test("v6::tunnel", 180, v6::tunnel),
    test("v6::tunnels_across", 240, v6::tunnels_across),
    test("v6::nat64", 180, v6::nat64),
    test("v6::path_mtu", 120, v6::path_mtu),
    test("v6::port_unreachable", 60, v6::port_unreachable),
    test("v6::neighbours", 120, v6::neighbours),
    test("v6::tagged_port", 120, v6::tagged_port),
    test("shapes::lbctl_json", 120, shapes::lbctl_json),
    test("shapes::exit_codes", 60, shapes::exit_codes),
    test("configuration::five_mistakes", 30, configuration::five_mistakes),
    test("health::server_down_and_up", 120, health::server_down_and_up),
    test("health::server_down_and_up_without_control", 120, health::without_control),
    test("health::checker_killed", 120, health::checker_killed),
    test("health::board_overwritten", 120, board::overwritten),
    test("changes::under_traffic", 180, changes::under_traffic),
    test("changes::drain_disable_del", 120, changes::drain_disable_del),
    test("schedulers::changes_move_nobody", 240, schedulers::changes_move_nobody),
    test("schedulers::equal_after_a_restart", 120, schedulers::equal_after_a_restart),
    test("schedulers::clients_keep_their_server", 120, schedulers::clients_keep_their_server),
    test("trial::goes_back_unless_confirmed", 120, trial::goes_back_unless_confirmed),
    test("trial::killed_at_every_step", 240, trial::killed_at_every_step),
    test("admin::peer_credentials", 60, admin::peer_credentials),
    test("admin::all_places_taken", 60, admin::all_places_taken),
    test("admin::hostile_clients", 120, admin::hostile_clients),
    test("faults::control_killed", 120, faults::control_killed),
    test("faults::second_primary_refused", 60, faults::second_primary_refused),
    test("faults::second_worker_refused", 60, faults::second_worker_refused),
    test("faults::foreign_layout_refused", 90, faults::foreign_layout_refused),
    test("upgrade::take_over_keeps_every_connection", 180, upgrade::take_over_keeps_every_connection),
    test("upgrade::successor_killed_on_trial", 120, upgrade::successor_killed_on_trial),
    test("upgrade::by_lbctl", 120, upgrade::by_lbctl),
    test("upgrade::stopped_worker_is_killed", 120, upgrade::stopped_worker_is_killed),
    test("rolling::adaptive", 300, rolling::adaptive),
    test("rolling::busy", 300, rolling::busy),
    test("upgrade::bad_successors", 120, upgrade::bad_successors),
    test("upgrade::other_layouts", 120, upgrade::other_layouts),
    test("upgrade::orphans_are_adopted", 120, upgrade::orphans_are_adopted),
    test("failpoints::not_shipped", 30, failpoints::not_shipped),
    test("failpoints::every_store", 900, failpoints::every_store),
    test("restart::one_cpu_more_and_less", 180, restart::one_cpu_more_and_less),
    test("crash::workers_killed_under_load", 240, crash::workers_killed_under_load),
    test("crash::three_deaths", 120, crash::three_deaths),
    test("crash::kills_during_attach", 300, crash::kills_during_attach),
    test("holder::killed", 300, holder::killed),
    test("holder::stopped", 240, holder::stopped),
    test("holder::second_primary_refused_while_workers_live", 60, holder::second_primary_refused_while_workers_live),
    test("privileges::given_up", 60, privileges::given_up),
    test("privileges::forbidden_calls", 120, privileges::forbidden_calls),
    test("privileges::no_secrets", 90, privileges::no_secrets),
    test("units::target_serves", 60, units::target_serves),
    test("units::killed_come_back", 60, units::killed_come_back),
    test("units::holder_killed", 60, units::holder_killed),
    test("units::planned_restart", 60, units::planned_restart),
    test("units::rolling_upgrade", 60, units::rolling_upgrade),
];

fn main() {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let status = match words.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["--list"] => {
            TESTS.iter().for_each(|t| println!("{}: test", t.name));
            0
        }
        ["--one", name] => supervise::one(name),
        ref filters => supervise::all(filters),
    };
    std::process::exit(status);
}
