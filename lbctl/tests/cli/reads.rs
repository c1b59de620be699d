//! Lists and `show`: tables as they look, JSON as it came.

use serde_json::Value;

use crate::answers::{self, answer};
use crate::fake::{Fake, golden};

const READS: [&str; 11] = [
    "service list",
    "service show web",
    "rs list",
    "session list",
    "session count",
    "stats show",
    "worker list",
    "port list",
    "laddr list",
    "neigh list",
    "config export",
];

#[test]
fn tables_look_like_this() {
    let fake = Fake::new(answer);
    for command in READS {
        let ran = fake.run(command);
        assert_eq!((ran.code, ran.err.as_str()), (0, ""), "{command}");
        assert!(!ran.out.contains('\x1b'), "colour without a terminal");
        golden(&format!("{}.txt", command.replace(' ', "-")), &ran.out);
    }
}

#[test]
fn json_is_the_answer_itself() {
    let fake = Fake::new(answer);
    let json = |command: &str| -> Value {
        let ran = fake.run(&format!("-o json {command}"));
        assert_eq!((ran.code, ran.err.as_str()), (0, ""), "{command}");
        serde_json::from_str(&ran.out).unwrap()
    };
    assert_eq!(json("service list"), Value::from(answers::services()));
    assert_eq!(json("service show web"), answers::services()[0]);
    assert_eq!(json("rs list"), Value::from(answers::servers()));
    assert_eq!(json("session list"), (0..3).map(answers::session).collect::<Value>());
    assert_eq!(json("stats show"), answers::stats(0));
    assert_eq!(json("worker list"), answers::workers());
    for command in ["session count", "port list", "laddr list", "neigh list", "config export"] {
        assert!(json(command).is_object() || json(command).is_array(), "{command}");
    }
}

#[test]
fn a_broken_law_is_seen() {
    let fake = Fake::with(answers::stats(2));
    let ran = fake.run("stats show");
    let balance = ran.out.lines().find(|l| l.starts_with("balance")).unwrap().split_whitespace();
    assert_eq!(balance.collect::<Vec<_>>(), ["balance", "2", "missing", "ok", "2", "missing"]);
}

#[test]
fn filters_and_shortened_words_reach_the_daemon() {
    let fake = Fake::new(answer);
    fake.run("rs l web");
    let asked = fake.asked();
    assert_eq!((asked[0].0.as_str(), &asked[0].1["service"]), ("rs.list", &Value::from("web")));
}

#[test]
fn version_names_both_sides() {
    let fake = Fake::new(answer);
    let ran = fake.run("--version");
    let layout = shm_layout::limits::LAYOUT_VERSION;
    let own = format!("lbctl 0.1.0\nlayout {}.{}\n", layout >> 16, layout & 0xffff);
    assert_eq!(ran.out, format!("{own}DPDK 22.11.11\ndaemon lb1: lb-primary 0.1.0, layout 1.0, api 1\n"));
    let alone = crate::fake::run(&["--socket", "/nonexistent/control.sock"], "--version");
    assert_eq!((alone.code, alone.out.as_str()), (0, format!("{own}DPDK unknown\n").as_str()));
}
