//! The journal alone, on a folder of the test's own.

use std::sync::Arc;

use super::super::register::{EndNow, tests::Fake};
use super::*;
use crate::control::testing::{Folder, config};

fn entry(generation: u64) -> Entry {
    let config = config();
    let register = Register::default().next(&config, None, &EndNow::default(), &Fake::default()).unwrap();
    Entry {
        format: FORMAT,
        generation,
        time: 1,
        user: "root".into(),
        summary: "test".into(),
        file_digest: "d".into(),
        housekeeping: false,
        unconfirmed: None,
        skeleton: Config { services: Vec::new(), ..config },
        register,
    }
}

#[test]
fn the_newest_whole_generation_counts() {
    let folder = Folder::new("journal");
    let mut journal = Journal::open(folder.path()).unwrap();
    assert!(journal.newest().is_none());
    for generation in 1..=3 {
        let _synced = journal.write(&entry(generation)).unwrap();
    }
    assert_eq!(journal.newest().unwrap(), entry(3));
    assert_eq!(journal.newest().unwrap().config(), config());
    // Cut short by a disk that lied about fsync, and one byte flipped.
    let text = fs::read(journal.path(3)).unwrap();
    fs::write(journal.path(3), &text[..text.len() / 2]).unwrap();
    assert_eq!(journal.newest().unwrap().generation, 2);
    let text = fs::read_to_string(journal.path(2)).unwrap().replace("\"user\":\"root\"", "\"user\":\"toor\"");
    fs::write(journal.path(2), text).unwrap();
    assert_eq!(journal.newest().unwrap().generation, 1);
}

#[test]
fn half_written_files_and_old_generations_go() {
    let folder = Folder::new("journal-old");
    let mut journal = Journal::open(folder.path()).unwrap();
    for generation in 1..=KEPT as u64 + 5 {
        let _synced = journal.write(&entry(generation)).unwrap();
    }
    fs::write(journal.folder.join("x.tmp"), "half").unwrap();
    let mut journal = Journal::open(folder.path()).unwrap();
    journal.prune(&[KEPT as u64 + 5, 3], Some(50));
    let numbers = journal.numbers();
    assert_eq!((&numbers[..2], numbers.len()), (&[3, 5][..], KEPT + 1), "3 is needed: somebody goes back to it");
    assert!(journal.names(".tmp").is_empty() && !numbers.contains(&50));
}

#[test]
fn a_list_needs_the_first_lines_alone_and_reads_those_of_earlier_builds() {
    let folder = Folder::new("journal-heads");
    let mut journal = Journal::open(folder.path()).unwrap();
    (1..=3).for_each(|generation| drop(journal.write(&entry(generation)).unwrap()));
    let whole = fs::read_to_string(journal.path(2)).unwrap();
    let (first, body) = whole.split_once('\n').unwrap();
    fs::write(journal.path(1), first.replace("\"generation\":2", "\"generation\":1") + "\n{ not read").unwrap();
    // As it was written before there were heads.
    let old: serde_json::Value = serde_json::from_str(first).unwrap();
    fs::write(journal.path(2), format!("{}\n{body}", serde_json::json!({"checksum": old["checksum"]}))).unwrap();
    fs::write(journal.path(4), "x".repeat(100)).unwrap();
    let heads = journal.heads();
    assert_eq!(heads.iter().map(|h| h.generation).collect::<Vec<_>>(), [1, 2, 3]);
    assert_eq!((heads[1].user.as_str(), heads[1].summary.as_str()), ("root", "test"));
    assert_eq!(journal.newest().unwrap().generation, 3);
}

#[test]
fn a_disk_that_refuses_changes_nothing() {
    let folder = Folder::new("journal-full");
    let mut journal = Journal::open(folder.path()).unwrap();
    let _synced = journal.write(&entry(1)).unwrap();
    fs::create_dir(journal.path(2).with_extension("tmp")).unwrap(); // In the way of the temporary file.
    assert!(journal.write(&entry(2)).unwrap_err().to_string().contains("cannot write"));
    assert_eq!(journal.newest().unwrap().generation, 1);
}

/// `entry` with other weights for the servers of one service: the others are shared, as a change leaves them.
fn with_weight(before: &Entry, generation: u64, service: usize, weight: u16) -> Entry {
    let mut entry = Entry { generation, ..before.clone() };
    let service = Arc::make_mut(&mut entry.register.services[service]);
    service.servers.iter_mut().for_each(|s| s.rs.weight = weight);
    entry
}

/// A journal that writes differences of everything, however small.
fn of_differences(folder: &Folder) -> Journal {
    let mut journal = Journal::open(folder.path()).unwrap();
    journal.small = 0;
    journal
}

fn large(generation: u64) -> Entry {
    let mut config = config();
    (config.limits.services, config.limits.real_servers) = (100, 200);
    let mut service = config.services[0].clone();
    for n in 0..50_u8 {
        service.name = format!("s{n}").parse().unwrap();
        service.vip = format!("10.0.1.{n}:80").parse().unwrap();
        config.services.push(service.clone());
    }
    let register = Register::default().next(&config, None, &EndNow::default(), &Fake::default()).unwrap();
    Entry { register, ..entry(generation) }
}

#[test]
fn differences_are_short_and_say_the_same() {
    let folder = Folder::new("journal-delta");
    let mut journal = of_differences(&folder);
    let first = large(1);
    let second = with_weight(&first, 2, 7, 9);
    // One more, one less, one in front of another: order, numbers, and what is on trial come back.
    let mut third = with_weight(&second, 3, 40, 3);
    let moved = third.register.services.remove(5);
    third.register.services.insert(30, moved);
    third.register.services.remove(12);
    (third.register.next_tag, third.housekeeping) = (77, true);
    let deadline = Deadline::after(std::time::Duration::from_secs(9), &super::super::deadline::Now::read());
    third.unconfirmed = Some(Unconfirmed { back_to: 1, applied: 3, deadline });
    for e in [&first, &second, &third] {
        assert!(journal.write(e).unwrap().unsynced.is_none());
    }
    let size = |n| fs::metadata(journal.path(n)).unwrap().len();
    assert!(size(2) * 5 < size(1) && size(3) * 4 < size(1), "{} {} {}", size(1), size(2), size(3));
    for e in [&first, &second, &third] {
        assert_eq!(&journal.read(e.generation).unwrap(), e);
    }
    assert_eq!(journal.heads().iter().map(|h| h.generation).collect::<Vec<_>>(), [1, 2, 3]);
    // Another process goes on where this one stopped, with differences to the same.
    let (found, base) = Journal::peek_with_base(folder.path()).unwrap();
    assert_eq!(found, third);
    let mut next = of_differences(&folder);
    next.go_on(base);
    let fourth = Entry { unconfirmed: None, ..with_weight(&found, 4, 0, 1) };
    let _synced = next.write(&fourth).unwrap();
    assert!(size(4) * 4 < size(1));
    assert_eq!(next.newest().unwrap(), fourth);
    // One that is settled is written again as such.
    let settled = Entry { file_digest: "other".into(), ..fourth };
    let _synced = next.rewrite(&settled).unwrap();
    assert_eq!(next.newest().unwrap(), settled);
    // A change of everything is written whole.
    let all = with_weight(&settled, 5, 0, 1);
    let all = (0..all.register.services.len()).fold(all, |e, n| with_weight(&e, 5, n, 8));
    let _synced = next.write(&all).unwrap();
    assert!(size(5) * 2 > size(1) && next.kept[&5].is_none());
    assert_eq!(next.newest().unwrap(), all);
}

#[test]
fn a_difference_without_its_base_is_passed_over_and_bases_are_kept() {
    let folder = Folder::new("journal-base");
    let mut journal = of_differences(&folder);
    let first = large(1);
    let _synced = journal.write(&first).unwrap();
    let last = KEPT as u64 + 20;
    for generation in 2..=last {
        let _synced = journal.write(&with_weight(&first, generation, 3, 5)).unwrap();
        journal.prune(&[generation], None);
    }
    let numbers = journal.numbers();
    assert_eq!((numbers[0], numbers.len()), (1, KEPT + 2), "what the others are differences to");
    assert_eq!(journal.newest().unwrap().generation, last);
    // A base that is another one's, whole as it is, is not taken for it.
    let text = fs::read_to_string(journal.path(1)).unwrap();
    let elsewhere = Folder::new("journal-other");
    let mut other = Journal::open(elsewhere.path()).unwrap();
    let _synced = other.write(&with_weight(&first, 1, 4, 4)).unwrap();
    fs::copy(other.path(1), journal.path(1)).unwrap();
    assert!(journal.read(last).unwrap_err().contains("it is a difference to"));
    assert_eq!(journal.newest().unwrap().generation, 1);
    fs::write(journal.path(1), &text[..text.len() - 9]).unwrap();
    assert!(journal.read(last).unwrap_err().contains("its base 1"));
    assert!(journal.newest().is_none());
}

#[test]
fn a_long_difference_makes_a_whole_record_behind_the_answers() {
    let folder = Folder::new("journal-compact");
    let mut journal = of_differences(&folder);
    let first = large(1);
    let _synced = journal.write(&first).unwrap();
    let second = with_weight(&first, 2, 3, 5);
    let _synced = journal.write(&second).unwrap();
    assert_eq!(journal.kept[&2], Some(1));
    journal.compact(&second);
    // The next change does not wait for it, and is a difference to the old base still.
    let third = with_weight(&second, 3, 4, 5);
    let _synced = journal.write(&third).unwrap();
    let end = std::time::Instant::now() + std::time::Duration::from_secs(20);
    while journal.compaction.is_some() {
        assert!(std::time::Instant::now() < end, "never written");
        journal.tend();
    }
    assert_eq!((journal.kept[&2], journal.kept[&3]), (None, Some(1)));
    let fourth = with_weight(&third, 4, 4, 6);
    let _synced = journal.write(&fourth).unwrap();
    assert_eq!(journal.kept[&4], Some(2), "the next one is a difference to the new one");
    for e in [&first, &second, &third, &fourth] {
        assert_eq!(&journal.read(e.generation).unwrap(), e);
    }
    // Written anew meanwhile: the older text does not come back.
    journal.compact(&fourth);
    let settled = Entry { file_digest: "other".into(), ..fourth.clone() };
    let _synced = journal.rewrite(&settled).unwrap();
    journal.tend();
    assert_eq!(journal.newest().unwrap(), settled);
    // At an orderly end the newest is whole.
    journal.close(&settled);
    assert_eq!((journal.newest().unwrap(), journal.kept[&4]), (settled, None));
    assert!(journal.names(".tmp").is_empty());
}

#[test]
fn one_whole_record_carries_a_part_of_what_is_kept() {
    let folder = Folder::new("journal-many");
    let mut journal = of_differences(&folder);
    let first = large(1);
    let _synced = journal.write(&first).unwrap();
    let mut locals = first.clone();
    locals.register.locals.truncate(1);
    for generation in 2..=1 + 2 * MANY {
        let before = if generation % 5 == 0 { &locals } else { &first };
        let entry = with_weight(before, generation, 3, 5);
        let _synced = journal.write(&entry).unwrap();
        let end = std::time::Instant::now() + std::time::Duration::from_secs(20);
        while journal.compaction.is_some() {
            assert!(std::time::Instant::now() < end, "never written");
            journal.tend();
        }
        assert_eq!(journal.read(generation).unwrap(), entry);
    }
    let of = |base| journal.kept.values().filter(|b| **b == Some(base)).count() as u64;
    assert_eq!((of(1), of(1 + MANY)), (MANY - 1, MANY - 1));
    assert_eq!((journal.kept[&(1 + MANY)], journal.kept[&(1 + 2 * MANY)]), (None, None));
}

/// A format-2 difference named its local addresses always.
#[test]
fn differences_of_earlier_builds_are_read() {
    let folder = Folder::new("journal-format-2");
    let mut journal = of_differences(&folder);
    let first = large(1);
    let _synced = journal.write(&first).unwrap();
    let second = with_weight(&first, 2, 7, 9);
    let _synced = journal.write(&second).unwrap();
    let text = fs::read_to_string(journal.path(2)).unwrap();
    let (head, body) = text.split_once('\n').unwrap();
    let mut body: serde_json::Value = serde_json::from_str(body).unwrap();
    assert!(body.get("locals").is_none(), "the base has them");
    body["format"] = 2.into();
    body["locals"] = serde_json::to_value(&first.register.locals).unwrap();
    let body = format!("{body}\n");
    let mut head: serde_json::Value = serde_json::from_str(head).unwrap();
    head["checksum"] = config::digest(body.as_bytes()).into();
    fs::write(journal.path(2), format!("{head}\n{body}")).unwrap();
    assert_eq!(journal.read(2).unwrap(), second);
}

#[test]
fn a_folder_that_cannot_be_synced_is_said_and_the_generation_counts() {
    let folder = Folder::new("journal-sync");
    let mut journal = Journal::open(folder.path()).unwrap();
    journal.sync_folder = |_| Err(std::io::Error::from_raw_os_error(5));
    let said = journal.write(&entry(1)).unwrap().unsynced.unwrap();
    assert!(said.contains("could not be synced") && said.contains("loss of power"), "{said}");
    // Whoever comes next finds it, as the answer says.
    assert_eq!(Journal::peek(folder.path()).unwrap(), entry(1));
}
