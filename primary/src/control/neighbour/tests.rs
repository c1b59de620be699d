//! Neighbours over virtual time.

use super::*;
use packet::arp::{Arp, Operation};
use packet::build::Link;
use shm_layout::neighbours::{Neighbours, as_v4, ip4};
use std::sync::atomic::Ordering;

const MAC: Mac = Mac([2, 0, 0, 0, 0, 1]);
const PEER: Mac = Mac([2, 0, 0, 0, 0, 9]);
const GATEWAY: Ip = ip4(0x0a00_0001);
const CLIENT: Ip = ip4(0x0a00_0032);

fn neighbourhood(table: &Neighbours, now: u64) -> Neighbourhood {
    let port = PortNet { mac: MAC, vlan: 0, addresses: vec![(ip4(0x0a00_0002), 120)], gateways: vec![GATEWAY] };
    Neighbourhood::new(Learner::attach(table.clone()), vec![port], 60_000, now)
}

fn answer(operation: Operation, ip: Ip, mac: Mac, to: Mac) -> Vec<u8> {
    let message =
        Arp { operation, sender_mac: mac, sender_ip: as_v4(ip).unwrap(), target_mac: to, target_ip: 0x0a00_0002 };
    let mut frame = [0; 64];
    let len = packet::build::arp(&mut frame, Link { dst: to, src: mac, vlan: 0 }, &message).unwrap();
    frame[..len].to_vec()
}

/// Runs until `end`, ms by ms; the times of the questions and whether they were broadcast.
fn questions(n: &mut Neighbourhood, from: u64, end: u64) -> Vec<(u64, bool)> {
    let mut asked = Vec::new();
    for now in from..end {
        n.step(now, |q| {
            asked.push((now - from, q.frame[..6] == [0xff; 6]));
            true
        });
    }
    asked
}

#[test]
fn an_unknown_one_is_asked_quickly_then_fails_and_is_asked_again_on_request() {
    let table = Neighbours::anonymous(64).unwrap();
    let mut n = neighbourhood(&table, 0);
    n.requested(CLIENT, 0, 1000);
    assert!(questions(&mut n, 1000, 1001).len() == 1 && n.waiting());
    let times: Vec<u64> = questions(&mut n, 1001, 6000).iter().map(|q| q.0 + 1).collect();
    assert_eq!(times, [50, 250, 1250, 2250]);
    let (row, hop) = table.find(CLIENT, 0).unwrap();
    assert!(!hop.resolved() && !n.waiting());
    assert_eq!(table.rows[usize::from(row)].state.load(Ordering::Relaxed), state::FAILED);
    n.requested(CLIENT, 0, 7000);
    assert_eq!(questions(&mut n, 7000, 7010).len(), 1);
    n.heard(0, &answer(Operation::Reply, CLIENT, PEER, MAC), 7020);
    assert_eq!(table.hop(row).mac(), PEER.0);
    n.requested(ip4(0x0b00_0001), 0, 7030);
    n.requested(ip4(0x0a00_0002), 0, 7030);
    assert_eq!(table.head.used.load(Ordering::Relaxed), 1, "neither strangers' networks nor our own address");
}

#[test]
fn only_answers_to_questions_are_believed() {
    let table = Neighbours::anonymous(64).unwrap();
    let mut n = neighbourhood(&table, 0);
    n.heard(0, &answer(Operation::Reply, CLIENT, PEER, MAC), 5);
    assert!(table.find(CLIENT, 0).is_none(), "never asked");
    n.pin(&HashSet::from([(GATEWAY, 0)]), 60_000, 10);
    questions(&mut n, 10, 11);
    n.heard(0, &answer(Operation::Reply, GATEWAY, PEER, PEER), 12);
    n.heard(0, &answer(Operation::Request, GATEWAY, PEER, MAC), 12);
    n.heard(1, &answer(Operation::Reply, GATEWAY, PEER, MAC), 12);
    n.heard(0, &[0; 20], 12);
    let (row, hop) = table.find(GATEWAY, 0).unwrap();
    assert!(!hop.resolved(), "not to us, no answer, another port, nonsense");
    n.heard(0, &answer(Operation::Reply, GATEWAY, PEER, MAC), 13);
    assert!(table.hop(row).resolved());
    // An announcement of another MAC: not believed, but the question goes to everybody at once.
    let thief = Mac([2, 6, 6, 6, 6, 6]);
    n.heard(0, &answer(Operation::Request, GATEWAY, thief, Mac::ZERO), 20);
    assert_eq!(table.hop(row).mac(), PEER.0);
    assert_eq!(questions(&mut n, 20, 22), [(0, true)]);
    n.heard(0, &answer(Operation::Reply, GATEWAY, thief, MAC), 23);
    assert_eq!(table.hop(row).mac(), thief.0, "the answer counts");
}

#[test]
fn the_known_are_asked_again_before_they_expire_and_kept_meanwhile() {
    let table = Neighbours::anonymous(64).unwrap();
    let mut n = neighbourhood(&table, 0);
    n.pin(&HashSet::from([(GATEWAY, 0)]), 60_000, 0);
    questions(&mut n, 0, 1);
    n.heard(0, &answer(Operation::Reply, GATEWAY, PEER, MAC), 1);
    let asked = questions(&mut n, 2, 31_000);
    assert_eq!((asked.len(), asked[0].1), (2, false), "first the one who had it, then everybody");
    let (row, hop) = table.find(GATEWAY, 0).unwrap();
    assert!(hop.resolved(), "still used while it is being asked");
    // Control restarts: the row is kept.
    let mut n = neighbourhood(&table, 31_000);
    n.pin(&HashSet::from([(GATEWAY, 0)]), 60_000, 31_000);
    assert!(table.hop(row).resolved());
    questions(&mut n, 31_000, 36_000);
    assert!(!table.hop(row).resolved(), "four questions without an answer");
    assert!(!questions(&mut n, 36_000, 40_000).is_empty(), "a configured one is asked again and again");
    n.heard(0, &answer(Operation::Reply, GATEWAY, PEER, MAC), 40_001);
    assert!(table.hop(row).resolved());
}

#[test]
fn without_a_worker_questions_wait_and_old_rows_go_when_room_is_needed() {
    let table = Neighbours::anonymous(8).unwrap();
    let mut n = neighbourhood(&table, 0);
    n.requested(CLIENT, 0, 0);
    for now in 0..5000 {
        n.step(now, |_| false);
    }
    assert_eq!(questions(&mut n, 5000, 5101).len(), 2, "not counted as tries");
    let mut made = 0;
    while table.head.used.load(Ordering::Relaxed) < 4 {
        n.requested([0, CLIENT[1] + 1 + made], 0, 5200);
        made += 1;
    }
    // Nobody asks for them for longer than a session lives: rows come free by themselves.
    questions(&mut n, 5200, 200_000);
    assert_eq!(table.head.used.load(Ordering::Relaxed), 0);
}

/// An hour of sessions with one client: it is asked in time, never unresolved, and keeps its row. One that no session
/// uses any more goes, also one that would answer.
#[test]
fn who_is_in_use_is_asked_again_and_kept_for_as_long_as_it_is() {
    let table = Neighbours::anonymous(64).unwrap();
    let mut n = neighbourhood(&table, 0);
    n.sessions_are_looked_through();
    let other = [0, CLIENT[1] + 1];
    n.requested(CLIENT, 0, 1);
    n.requested(other, 0, 1);
    let (mut asked, mut row, mut other_gone) = (0_u32, None, None);
    for now in 1..3_600_000_u64 {
        let mut questions = Vec::new();
        if now % 15 == 1 {
            n.step(now, |q| {
                questions.push(ip4(packet::arp::parse(&q.frame[14..]).unwrap().target_ip));
                true
            });
        }
        for ip in questions {
            asked += u32::from(ip == CLIENT);
            n.heard(0, &answer(Operation::Reply, ip, PEER, MAC), now);
        }
        if now % 5000 == 0 {
            // Control looks through the sessions: one, of CLIENT, idle or not.
            let (number, hop) = table.find(CLIENT, 0).unwrap_or_else(|| panic!("forgotten after {now} ms"));
            assert!(hop.resolved(), "unresolved after {now} ms");
            assert_eq!(*row.get_or_insert((number, hop.tag())), (number, hop.tag()), "another row after {now} ms");
            n.in_use(number, hop.tag(), now);
            n.in_use(number + 1, hop.tag() + 9, now); // A session of a recycled row.
            n.pass_done(now);
        }
        if other_gone.is_none() && table.find(other, 0).is_none() && now > 10 {
            other_gone = Some(now);
        }
    }
    assert!((120..=150).contains(&asked), "asked {asked} times in an hour");
    assert!(other_gone.is_some_and(|at| (60_000..120_000).contains(&at)), "not in use: {other_gone:?}");
    // Its last session ends.
    for now in 3_600_000..3_760_000 {
        if now % 15 == 1 {
            n.step(now, |_| true);
        }
        if now % 5000 == 0 {
            n.pass_done(now);
        }
    }
    assert_eq!(table.head.used.load(Ordering::Relaxed), 0);
}

#[test]
fn nobody_is_given_up_before_a_pass_has_looked_for_who_uses_it() {
    let table = Neighbours::anonymous(8).unwrap();
    let mut n = neighbourhood(&table, 0);
    n.sessions_are_looked_through();
    n.requested(CLIENT, 0, 1000);
    questions(&mut n, 1000, 1001);
    n.heard(0, &answer(Operation::Reply, CLIENT, PEER, MAC), 1001);
    // Long after: the pass that is under way has not come to its session yet.
    n.pass_done(900);
    questions(&mut n, 1002, 200_000);
    assert!(table.find(CLIENT, 0).is_some());
    n.pass_done(150_000);
    questions(&mut n, 200_000, 400_000);
    assert!(table.find(CLIENT, 0).is_none());
}

mod v6 {
    use super::*;
    use packet::ipv6::from_bytes;
    use packet::nd::{self, Nd};
    use packet::{Parsed, classify};

    const US: Ip = [0x2001_0db8 << 32, 2];
    const GATEWAY: Ip = [0xfe80 << 48, 1];
    const SERVER: Ip = [0x2001_0db8 << 32, 0x21];

    fn neighbourhood(table: &Neighbours) -> Neighbourhood {
        let addresses = vec![(ip4(0x0a00_0002), 120), (US, 64)];
        let port = PortNet { mac: MAC, vlan: 0, addresses, gateways: vec![GATEWAY] };
        Neighbourhood::new(Learner::attach(table.clone()), vec![port], 60_000, 0)
    }

    /// From whom to whom a question goes, its target and the station it is sent to.
    fn ask(n: &mut Neighbourhood, now: u64) -> (Ip, Ip, Ip, Mac) {
        let mut asked = Vec::new();
        n.step(now, |q| {
            asked.push(q.frame.clone());
            true
        });
        let [frame] = &asked[..] else { panic!("{asked:?}") };
        let Ok(Parsed::V6(p)) = classify(frame) else { panic!("no IPv6") };
        let message = nd::parse(p.src, p.dst, p.head.ttl, p.head.segment(frame)).unwrap();
        let Nd::Solicitation { target, source } = message else { panic!("{message:?}") };
        assert_eq!(source, Some(MAC));
        (p.src, p.dst, target, packet::ethernet::dst(frame).unwrap())
    }

    fn answer(ip: Ip, mac: Mac, to: Ip) -> Vec<u8> {
        let mut frame = [0; 128];
        let len = nd::answer(&mut frame, MAC, to, mac, ip, 0).unwrap();
        frame[..len].to_vec()
    }

    /// The frame with other flags in its advertisement.
    fn with_flags(mut frame: Vec<u8>, flags: u8) -> Vec<u8> {
        frame[58] = flags;
        frame[56..58].fill(0);
        let at = |at: usize| from_bytes(frame[at..at + 16].try_into().unwrap());
        let sum = packet::icmpv6::checksum(at(22), at(38), &frame[54..]);
        frame[56..58].copy_from_slice(&sum.to_be_bytes());
        frame
    }

    #[test]
    fn is_asked_for_by_solicitations_and_believed_when_it_answers() {
        let table = Neighbours::anonymous(64).unwrap();
        let mut n = neighbourhood(&table);
        n.requested(SERVER, 0, 1);
        n.requested([0xff02 << 48, 1], 0, 1);
        n.requested([0x2001_0db9 << 32, 1], 0, 1);
        n.requested(US, 0, 1);
        assert_eq!(table.head.used.load(Ordering::Relaxed), 1, "no groups, no strangers' networks, not ourselves");
        let group = nd::solicited_node(SERVER);
        assert_eq!(ask(&mut n, 1), (US, group, SERVER, nd::multicast_mac(group)));
        let (row, _) = table.find(SERVER, 0).unwrap();
        let mut announced = [0; 128];
        let len = nd::announce(&mut announced, PEER, SERVER, 0).unwrap();
        n.heard(0, &announced[..len], 2);
        let mut forwarded = answer(SERVER, PEER, US);
        forwarded[21] = 254;
        n.heard(0, &forwarded, 2);
        let mut elsewhere = answer(SERVER, PEER, US);
        elsewhere[..6].copy_from_slice(&PEER.0);
        n.heard(0, &elsewhere, 2);
        assert!(!table.hop(row).resolved(), "to all, from behind a router, to another station");
        n.heard(0, &answer(SERVER, PEER, US), 3);
        assert_eq!(table.hop(row).mac(), PEER.0);
        // Known: first the one who had it is asked. Another one that may not replace it does not.
        assert_eq!(ask(&mut n, 30_003), (US, SERVER, SERVER, PEER));
        let thief = Mac([2, 6, 6, 6, 6, 6]);
        n.heard(0, &with_flags(answer(SERVER, thief, US), 0x40), 30_004);
        assert!(n.waiting() && table.hop(row).mac() == PEER.0);
        n.heard(0, &answer(SERVER, thief, US), 30_005);
        assert!(!n.waiting() && table.hop(row).mac() == thief.0, "one with the override flag does");
    }

    #[test]
    fn a_link_local_gateway_is_asked_from_a_link_local_address() {
        let table = Neighbours::anonymous(64).unwrap();
        let mut n = neighbourhood(&table);
        n.pin(&HashSet::from([(GATEWAY, 0)]), 60_000, 0);
        let (src, _, target, _) = ask(&mut n, 0);
        assert_eq!((src, target), (nd::link_local(MAC), GATEWAY));
        n.heard(0, &answer(GATEWAY, PEER, src), 1);
        let (row, hop) = table.find(GATEWAY, 0).unwrap();
        assert!(hop.resolved());
        // It announces another MAC: everybody is asked at once.
        let mut frame = [0; 128];
        let len = nd::announce(&mut frame, Mac([2, 6, 6, 6, 6, 6]), GATEWAY, 0).unwrap();
        n.heard(0, &frame[..len], 100);
        assert_eq!(table.hop(row).mac(), PEER.0);
        assert_eq!(ask(&mut n, 100).1, nd::solicited_node(GATEWAY));
    }

    #[test]
    fn rows_of_both_families_are_taken_over() {
        let table = Neighbours::anonymous(64).unwrap();
        let mut n = neighbourhood(&table);
        n.requested(SERVER, 0, 1);
        n.requested(CLIENT, 0, 1);
        let mut n = neighbourhood(&table);
        assert_eq!(questions(&mut n, 0, 1).len(), 2);
    }
}

/// Whoever asks for addresses that nobody has fills the table, but keeps nobody out who is there or is configured.
#[test]
fn silent_addresses_give_way() {
    let table = Neighbours::anonymous(64).unwrap();
    let mut n = neighbourhood(&table, 0);
    n.requested(CLIENT, 0, 1000);
    let _asked = questions(&mut n, 1000, 1001);
    n.heard(0, &answer(Operation::Reply, CLIENT, PEER, MAC), 1001);
    let mut now = 2000;
    for stranger in 60..250 {
        n.requested(ip4(0x0a00_0000 + stranger), 0, now);
        if stranger % 60 == 0 {
            let _asked = questions(&mut n, now, now + 4000); // None of them answers.
            now += 4000;
        }
    }
    assert!(table.head.used.load(Ordering::Relaxed) >= 60, "the table is nearly full");
    let server = ip4(0x0a00_0015);
    n.pin(&HashSet::from([(server, 0)]), 60_000, now);
    assert!(table.find(server, 0).is_some());
    let _asked = questions(&mut n, now, now + 10);
    n.heard(0, &answer(Operation::Reply, server, PEER, MAC), now + 10);
    assert!(table.find(server, 0).unwrap().1.resolved() && table.find(CLIENT, 0).unwrap().1.resolved());
}
