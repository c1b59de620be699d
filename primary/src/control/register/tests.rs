//! Numbers given, kept and given again.

use super::super::plan::Planner;
use super::*;
use std::cell::RefCell;

/// Session counts a test sets.
#[derive(Default)]
pub struct Fake(pub RefCell<HashMap<u32, u64>>);

impl Counts for Fake {
    fn server(&self, id: u32) -> u64 {
        self.0.borrow().get(&id).copied().unwrap_or(0)
    }
    fn service(&self, _: u32) -> u64 {
        0
    }
}

fn config(services: &[(&str, &[&str])]) -> Config {
    let mut config = crate::control::testing::config();
    config.services.clear();
    for (i, (name, servers)) in services.iter().enumerate() {
        let vip = format!("10.0.0.{}:80", 100 + i).parse().unwrap();
        let mut service = Service::new(name.parse().unwrap(), vip, config::Protocol::Tcp);
        service.rs = servers.iter().map(|a| RealServer::new(a.parse().unwrap())).collect();
        config.services.push(service);
    }
    config
}

fn ids(register: &Register) -> Vec<(u32, u32, Removal)> {
    register.services.iter().flat_map(|s| s.servers.iter().map(|s| (s.id, s.tag, s.removal))).collect()
}

#[test]
fn ids_stay_are_not_reused_while_counted_and_come_back_with_another_tag() {
    use Removal::{Drain, Now, Present};
    let (counts, none) = (Fake::default(), EndNow::default());
    let first = config(&[("a", &["10.0.0.21:80", "10.0.0.22:80"]), ("b", &["10.0.0.21:80"])]);
    let r1 = Register::default().next(&first, None, &none, &counts).unwrap();
    assert_eq!(ids(&r1), [(0, 1, Present), (1, 2, Present), (2, 3, Present)]);
    assert_eq!(r1.config(&first), first);
    // One goes, with a session: it stays as removed, also when it is deleted again at once.
    counts.0.borrow_mut().insert(0, 5);
    let second = config(&[("a", &["10.0.0.22:80", "10.0.0.23:80"]), ("b", &["10.0.0.21:80"])]);
    let r2 = r1.next(&second, None, &none, &counts).unwrap();
    assert_eq!(ids(&r2), [(1, 2, Present), (3, 4, Present), (0, 1, Drain), (2, 3, Present)]);
    assert_eq!(r2.config(&second), second);
    assert_eq!(r2.swept(&counts, &|_| true), None);
    let end = EndNow { what: Some(("a".into(), None)) };
    assert_eq!(ids(&r2.next(&second, None, &end, &counts).unwrap())[2], (0, 1, Now));
    // Added again while it drains: the same server, the same id.
    assert_eq!(ids(&r2.next(&first, None, &none, &counts).unwrap())[0], (0, 1, Present));
    // Its last session is gone: dropped, and the id is given again with another tag.
    counts.0.borrow_mut().clear();
    let r3 = r2.swept(&counts, &|_| true).unwrap();
    assert_eq!(ids(&r3), [(1, 2, Present), (3, 4, Present), (2, 3, Present)]);
    let fourth = config(&[("a", &["10.0.0.22:80", "10.0.0.23:80", "10.0.0.99:80"]), ("b", &["10.0.0.21:80"])]);
    assert_eq!(ids(&r3.next(&fourth, None, &none, &counts).unwrap())[2], (0, 5, Present));
    // An orphan's id is not given.
    counts.0.borrow_mut().insert(0, 1);
    assert_eq!(ids(&r3.next(&fourth, None, &none, &counts).unwrap())[2], (4, 5, Present));
}

/// Edits of all kinds in a row, servers with sessions among them: one service at a time comes to what the whole does,
/// and what was not touched is shared.
#[test]
fn an_edit_comes_to_what_the_whole_configuration_comes_to() {
    let counts = Fake::default();
    let mut now = config(&[("a", &["10.0.0.21:80", "10.0.0.22:80"]), ("b", &["10.0.0.21:80"]), ("c", &[])]);
    let mut register = Register::default().next(&now, None, &EndNow::default(), &counts).unwrap();
    let mut planner = Planner::default();
    let mut seed = 12_345_u64;
    let mut random = |below: u64| {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        seed % below
    };
    let mut kinds = [0; 5];
    for step in 0..2000_u32 {
        let at =
            |random: &mut dyn FnMut(u64) -> u64| usize::try_from(random(now.services.len().max(1) as u64)).unwrap();
        let kind = random(5);
        let mut end = EndNow::default();
        let touched = match kind {
            0 => {
                let names: Vec<_> = now.services.iter().map(|s| s.name.to_string()).collect();
                let Some(name) = ["a", "b", "c", "d", "e"].iter().find(|n| !names.contains(&(**n).into())) else {
                    continue;
                };
                let vip = format!("10.0.0.{}:80", 100 + step % 50).parse().unwrap();
                let protocol = if random(2) == 0 { config::Protocol::Tcp } else { config::Protocol::Udp };
                Some(Touched::Added(Service::new(name.parse().unwrap(), vip, protocol)))
            }
            1 if !now.services.is_empty() => Some(Touched::Removed(at(&mut random))),
            2 => None,
            _ if !now.services.is_empty() => {
                let place = at(&mut random);
                let mut service = now.services[place].clone();
                let address = format!("10.0.0.{}:80", 20 + random(6)).parse().unwrap();
                match service.rs.iter().position(|rs| rs.address == address) {
                    Some(n) if random(2) == 0 => drop(service.rs.remove(n)),
                    Some(n) => service.rs[n].admin = Admin::Drain,
                    None => service.rs.push(RealServer::new(address)),
                }
                if random(8) == 0 {
                    service.protocol = config::Protocol::Udp;
                }
                Some(Touched::Changed(place, service))
            }
            _ => continue,
        };
        kinds[usize::try_from(kind).unwrap()] += 1;
        let mut whole = now.clone();
        match &touched {
            Some(Touched::Added(service)) => whole.services.push(service.clone()),
            Some(Touched::Changed(place, service)) => whole.services[*place] = service.clone(),
            Some(Touched::Removed(place)) => drop(whole.services.remove(*place)),
            None => {}
        }
        if random(3) == 0 {
            end.what = Some((["a", "b", "c"][usize::try_from(random(3)).unwrap()].into(), None));
        }
        let id = u32::try_from(random(30)).unwrap();
        counts.0.borrow_mut().insert(id, random(2));
        let expected = register.next(&whole, None, &end, &counts);
        // Only what the edit is about is ended at once: an order about another service touches that one.
        let told = register.touched(touched.as_ref(), &whole.limits, &end, &counts);
        let about = match (&touched, &end.what) {
            (Some(Touched::Added(s) | Touched::Changed(_, s)), Some((name, _))) => s.name.as_str() == name,
            (Some(Touched::Removed(place)), Some((name, _))) => now.services[*place].name.as_str() == name,
            (None, Some((name, _))) => !now.services.iter().any(|s| s.name.as_str() == name),
            (_, None) => true,
        };
        if !about {
            continue;
        }
        let (Ok(told), Ok(expected)) = (told, expected) else { panic!("no id in step {step}") };
        assert_eq!(told, expected, "step {step}: {touched:?} {end:?}");
        assert_eq!(planner.plan(&told), Planner::default().plan(&told), "step {step}");
        let kept = told.services.iter().filter(|s| register.services.iter().any(|o| Arc::ptr_eq(s, o))).count();
        let live = register.services.iter().filter(|s| !s.removed).count();
        assert!(kept + 1 >= live, "{kept} of {live} are shared");
        (now, register) = (whole, told);
        if step % 7 == 0 {
            register = register.swept(&counts, &|_| true).unwrap_or(register);
        }
    }
    assert!(kinds.iter().all(|n| *n > 100), "{kinds:?}");
}

#[test]
fn a_removed_service_stays_until_its_sessions_are_gone_and_limits_are_said() {
    let (counts, none) = (Fake::default(), EndNow::default());
    let both = config(&[("a", &["10.0.0.21:80"]), ("b", &["10.0.0.21:80"])]);
    let r1 = Register::default().next(&both, None, &none, &counts).unwrap();
    counts.0.borrow_mut().insert(0, 1);
    let mut one = config(&[("b", &["10.0.0.21:80"])]);
    let r2 = r1.next(&one, None, &none, &counts).unwrap();
    assert!(r2.services[1].removed && r2.services[1].index == 0 && r2.has_removed());
    one.limits.real_servers = 2;
    one.services[0].rs.push(RealServer::new("10.0.0.30:80".parse().unwrap()));
    let error = r2.next(&one, None, &none, &counts).unwrap_err();
    assert!(error.to_string().contains("no free real server id: 2 are in use"), "{error}");
    counts.0.borrow_mut().clear();
    assert_eq!(r2.swept(&counts, &|_| true).unwrap().services.len(), 1);
}

#[test]
fn the_operators_word_outlives_an_apply_that_does_not_contradict_it() {
    let (counts, none) = (Fake::default(), EndNow::default());
    let file = config(&[("a", &["10.0.0.21:80", "10.0.0.22:80"])]);
    let mut now = file.clone();
    let r1 = Register::default().next(&file, Some(&file), &none, &counts).unwrap();
    now.services[0].rs[0].admin = Admin::Drain;
    let r2 = r1.next(&now, None, &none, &counts).unwrap();
    let mut again = file.clone();
    r2.keep_admin(&mut again);
    assert_eq!(again, now);
    let r3 = r2.next(&again, Some(&file), &none, &counts).unwrap();
    assert_eq!(r3, r2);
    // The file now says otherwise: it wins.
    let mut changed = file.clone();
    changed.services[0].rs[0].admin = Admin::Disabled;
    r3.keep_admin(&mut changed);
    assert_eq!(changed.services[0].rs[0].admin, Admin::Disabled);
}
