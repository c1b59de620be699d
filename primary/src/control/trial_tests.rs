//! `apply --confirm`, `confirm`, `rollback`, `history`: in process, with a real journal and a real socket.

use std::sync::Arc;
use std::time::Duration;

use control_api::params::{ConfigApply, ConfigRollback, RsAdd};
use control_api::views::{Applied, Changed, HistoryEntry};
use control_api::{ApiError, ClientError, Code, method};
use serde_json::Value;
use shm_layout::published::admin;

use super::journal::Journal;
use super::tests::{Appliance, Running, eventually, name};

const SECOND: u64 = 1000;

fn apply(text: String, confirm_ms: Option<u64>) -> ConfigApply {
    ConfigApply { file: "new.toml".into(), text: Some(text), dry_run: false, confirm_ms }
}

fn with_weight(appliance: &Appliance, weight: u32) -> String {
    appliance.text().replace("weight = 2", &format!("weight = {weight}"))
}

fn weight(control: &Running) -> u16 {
    control.rs()[1].weight
}

fn history(control: &Running) -> Vec<HistoryEntry> {
    control.client().get(method::CONFIG_HISTORY).unwrap()
}

fn rollback(control: &Running, generations: Option<u64>) -> Result<Applied, ApiError> {
    control.client().call(method::CONFIG_ROLLBACK, &ConfigRollback { generations }).map_err(ClientError::into_api)
}

#[test]
fn what_nobody_confirms_goes_back_by_itself_and_drain_stays_said() {
    let appliance = Arc::new(Appliance::new());
    let control = appliance.start();
    appliance.serve();
    let applied: Applied = control.call(method::CONFIG_APPLY, &apply(with_weight(&appliance, 9), Some(2 * SECOND)));
    let trial = applied.unconfirmed.unwrap();
    assert_eq!((applied.generation, trial.applied, trial.back_to, weight(&control)), (2, 2, 1, 9), "live at once");
    assert!(trial.left_ms > SECOND && trial.left_ms <= 2 * SECOND, "{}", trial.left_ms);
    assert_eq!(history(&control)[1].confirm_until.as_ref(), Some(&trial.until));
    // Another file is not applied meanwhile, on trial or not; a dry run is.
    for confirm in [None, Some(5 * SECOND)] {
        let error = control.refused(method::CONFIG_APPLY, &apply(with_weight(&appliance, 5), confirm));
        assert_eq!((error.kind, error.exit_status()), (Code::Busy, 1));
        assert!(error.message.contains("generation 2 waits") && error.hint.unwrap().contains("config confirm"));
    }
    let dry = ConfigApply { dry_run: true, ..apply(with_weight(&appliance, 5), None) };
    assert_eq!(control.call::<Applied>(method::CONFIG_APPLY, &dry).changes.len(), 1);
    // Single changes are: what is said about a server stays, the rest is undone, and that is said.
    let drained: Changed = control.call(method::RS_DRAIN, &name("web", "10.0.0.21:8080"));
    let add = RsAdd { service: "web".into(), rs: "10.0.0.23:8080".into(), keys: Vec::new() };
    let added: Changed = control.call(method::RS_ADD, &add);
    assert!(drained.warnings.is_empty() && added.warnings[0].contains("undone"), "{:?}", added.warnings);
    appliance.slots[0].servers[3].active.store(2, std::sync::atomic::Ordering::Relaxed);
    eventually("back", || {
        appliance.serve();
        weight(&control) == 2
    });
    let rs = control.rs();
    assert_eq!(rs[0].admin, "drain", "an operator's word is not undone");
    let gone = rs.iter().find(|r| r.address == "10.0.0.23:8080").unwrap();
    assert!(gone.removed && appliance.admin_of(3) == Some(admin::REMOVED), "its sessions go on: drained, not cut");
    let lines = history(&control);
    let last = lines.last().unwrap();
    assert_eq!(last.user, "control");
    assert!(last.summary.contains("rollback to generation 1, generation 2 not confirmed in time"), "{}", last.summary);
    assert!(lines.iter().all(|l| l.confirm_until.is_none()));
    assert_eq!(lines.windows(2).filter(|w| w[0].generation >= w[1].generation).count(), 0, "a line, upwards");
    // The next file is taken again.
    control.call::<Applied>(method::CONFIG_APPLY, &apply(with_weight(&appliance, 5), None));
    assert_eq!((weight(&control), control.rs()[0].admin.as_str()), (5, "drain"));
}

#[test]
fn what_is_confirmed_stays() {
    let appliance = Arc::new(Appliance::new());
    let control = appliance.start();
    for wrong in [999, 86_400_001] {
        let error = control.refused(method::CONFIG_APPLY, &apply(with_weight(&appliance, 9), Some(wrong)));
        assert_eq!(error.exit_status(), 2, "{error}");
    }
    control.call::<Applied>(method::CONFIG_APPLY, &apply(with_weight(&appliance, 9), Some(SECOND)));
    assert_eq!(control.call::<Changed>(method::CONFIG_CONFIRM, &Value::Null).generation, 2);
    let error = control.refused(method::CONFIG_CONFIRM, &Value::Null);
    assert_eq!(error.exit_status(), 1, "{error}");
    drop(control);
    std::thread::sleep(Duration::from_millis(1200));
    let control = appliance.start();
    std::thread::sleep(Duration::from_millis(100));
    assert_eq!((weight(&control), appliance.generation()), (9, 2));
    // Nothing to change: nothing is on trial either.
    let same: Applied = control.call(method::CONFIG_APPLY, &apply(with_weight(&appliance, 9), Some(SECOND)));
    assert!(same.unconfirmed.is_none() && same.generation == 2);
}

#[test]
fn the_deadline_outlives_control_and_the_appliance() {
    let appliance = Arc::new(Appliance::new());
    // From the configuration file itself: after the way back, a restart must not take that file again.
    let bad = with_weight(&appliance, 9);
    let control = appliance.start();
    appliance.write(&bad);
    control.call::<Applied>(method::CONFIG_APPLY, &apply(bad, Some(2 * SECOND)));
    // Control is away for a moment: still on trial, with the old deadline.
    drop(control);
    let control = appliance.start();
    let left = history(&control)[1].confirm_until.clone();
    assert!(left.is_some() && weight(&control) == 9);
    // The whole appliance is away when the time comes: it never forwards by what was not confirmed.
    drop(control);
    std::thread::sleep(Duration::from_millis(2100));
    appliance.published.root.current.store(0, std::sync::atomic::Ordering::Relaxed);
    let mut core = appliance.core();
    core.tick(); // What control does before it says that it is there.
    assert_eq!(core.config().services[0].rs[1].weight, 2);
    drop(core);
    for _ in 0..2 {
        let control = appliance.start();
        assert_eq!(weight(&control), 2);
        assert!(history(&control).last().unwrap().summary.contains("not confirmed in time"));
    }
    // The file counts again when it changes.
    appliance.write(&with_weight(&appliance, 7));
    assert_eq!(weight(&appliance.start()), 7);
}

#[test]
fn rollback_counts_lines_of_history_and_makes_a_new_one() {
    let appliance = Arc::new(Appliance::new());
    let control = appliance.start();
    appliance.serve();
    let error = rollback(&control, None).unwrap_err();
    assert!(error.exit_status() == 4 && error.message.contains("only 0"), "{error}");
    for w in [3, 4, 5] {
        control.call::<Applied>(method::CONFIG_APPLY, &apply(with_weight(&appliance, w), None));
    }
    // Housekeeping makes generations, not lines.
    let add = RsAdd { service: "web".into(), rs: "10.0.0.23:8080".into(), keys: Vec::new() };
    control.call::<Changed>(method::RS_ADD, &add);
    appliance.serve();
    rollback(&control, Some(1)).unwrap();
    eventually("the added one is dropped", || {
        appliance.serve();
        control.rs().len() == 3
    });
    assert_eq!(appliance.generation(), 7);
    assert_eq!(history(&control).iter().map(|l| l.generation).collect::<Vec<_>>(), [1, 2, 3, 4, 5, 6]);
    let done = rollback(&control, Some(3)).unwrap(); // 6 → 3.
    assert_eq!((done.generation, done.changes.len(), weight(&control)), (8, 1, 4));
    appliance.serve();
    rollback(&control, None).unwrap();
    assert_eq!(weight(&control), 5, "once more is where we were");
    assert_eq!(rollback(&control, Some(0)).unwrap_err().exit_status(), 2);
    assert_eq!(rollback(&control, Some(99)).unwrap_err().exit_status(), 4);
    // While a change is on trial: back to before it, whatever came since; its trial is over.
    control.call::<Applied>(method::CONFIG_APPLY, &apply(with_weight(&appliance, 9), Some(60 * SECOND)));
    control.call::<Changed>(method::RS_DRAIN, &name("web", "10.0.0.22:8080"));
    appliance.serve();
    // One line back is the trial itself: it goes on.
    assert!(rollback(&control, Some(1)).unwrap().unconfirmed.is_some() && weight(&control) == 9);
    control.call::<Changed>(method::RS_DRAIN, &name("web", "10.0.0.22:8080"));
    appliance.serve();
    assert!(rollback(&control, None).unwrap().unconfirmed.is_none());
    assert_eq!((weight(&control), control.rs()[1].admin.as_str()), (5, "drain"));
    assert_eq!(control.refused(method::CONFIG_CONFIRM, &Value::Null).exit_status(), 1);
    // To what only a restart brings about: refused. To what is damaged: said.
    let mut journal = Journal::open(&appliance.folder.path().join("state")).unwrap();
    let mut entry = journal.read(2).unwrap();
    entry.skeleton.limits.neighbours = 128;
    let _synced = journal.rewrite(&entry).unwrap();
    let at = |generation: u64| {
        let lines = history(&control);
        (lines.len() - 1 - lines.iter().position(|l| l.generation == generation).unwrap()) as u64
    };
    assert_eq!(rollback(&control, Some(at(2))).unwrap_err().kind, Code::NeedsRestart);
    let path = appliance.folder.path().join("state/journal/0000000000000003.jsonl");
    let text = std::fs::read_to_string(&path).unwrap();
    std::fs::write(&path, &text[..text.len() - 10]).unwrap();
    assert!(rollback(&control, Some(at(3))).unwrap_err().message.contains("checksum"));
    assert_eq!(weight(&control), 5);
}
