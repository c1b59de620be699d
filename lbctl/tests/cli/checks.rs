//! Configurations: checked here, compared and applied there.

use std::path::{Path, PathBuf};

use control_api::{ApiError, Code, MAX_FRAME, method};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::fake::{Fake, golden, run};

const GOOD: &str = r#"[node]
name = "lb1"
[[zone]]
id = 0
cpus = [0]
[[port]]
name = "net0"
device = "net_tap0,iface=lb1net0"
zones = [0]
addresses = ["10.0.0.2/24"]
[[laddr]]
port = "net0"
address = "10.0.0.128/30"
[[service]]
name = "web"
vip = "10.0.0.100:80"
scheduler = "rr"
timeouts = { established = "90s" }
health = { type = "none" }
[[service.rs]]
address = "10.0.0.21:8080"
"#;

/// Five mistakes of different kinds.
const MISTAKES: [(&str, &str); 5] = [
    ("name = \"lb1\"", "name = \"lb 1\""),
    ("zones = [0]", "zones = [3]"),
    ("scheduler = ", "schedular = "),
    ("\"90s\"", "90"),
    ("10.0.0.21:8080", "10.0.0.421:8080"),
];

fn file(text: &str) -> (TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("lb.toml");
    std::fs::write(&path, text).unwrap();
    (dir, path)
}

fn five() -> String {
    MISTAKES.iter().fold(GOOD.to_owned(), |text, (right, wrong)| text.replacen(right, wrong, 1))
}

fn config(first: &[&str], verb: &str, path: &Path) -> crate::fake::Ran {
    run(first, &format!("config {verb} {}", path.display()))
}

#[test]
fn a_good_file_needs_no_daemon() {
    let (_dir, path) = file(GOOD);
    let ran = config(&[], "check", &path);
    assert_eq!(ran.code, 0, "{}", ran.err);
    assert!(ran.out.contains("is valid: 1 service, 1 real server; "), "{}", ran.out);
    assert!(ran.err.contains("warning[LB-W001]") && ran.err.contains("cpus = [0]"), "{}", ran.err);
    let ran = config(&["-o", "json"], "check", &path);
    let checked: Value = serde_json::from_str(&ran.out).unwrap();
    assert_eq!((&checked["services"], &checked["real_servers"], ran.err.as_str()), (&json!(1), &json!(1), ""));
    // 192 MiB for DPDK, and a million sessions of at most 96 bytes.
    assert!((96..200).contains(&checked["hugepages"].as_u64().unwrap()), "{checked}");
}

#[test]
fn five_mistakes_are_listed_at_once() {
    let (_dir, path) = file(&five());
    let ran = config(&[], "check", &path);
    assert_eq!((ran.code, ran.out.as_str()), (4, ""));
    golden("five-mistakes.txt", &ran.err.replace(path.to_str().unwrap(), "lb.toml"));
    let ran = config(&["-o", "json"], "check", &path);
    assert_eq!(ran.code, 4);
    let error: Value = serde_json::from_str(&ran.err).unwrap();
    let all: Vec<&Value> = error["all"].as_array().unwrap().iter().filter(|d| d["level"] == "error").collect();
    assert_eq!((all.len(), &all[0]["code"], &all[0]["path"]), (5, &error["code"], &error["path"]));
    for mistake in all {
        assert!(mistake["message"].is_string() && mistake["line"].as_u64() > Some(0), "{mistake}");
        assert!(mistake.get("hint").is_some());
    }
}

#[test]
fn a_file_that_is_not_there_is_no_refusal() {
    for command in ["config check /nonexistent.toml", "--config /nonexistent.toml service list"] {
        let ran = run(&[], command);
        assert!(ran.code == 1 && ran.err.starts_with("error: cannot read /nonexistent.toml: "), "{ran:?}");
    }
    // A node that is wrong is one: nobody can say where its socket is.
    let (_dir, path) = file(&five());
    assert_eq!(run(&["--config", path.to_str().unwrap()], "service list").code, 4);
}

#[test]
fn the_socket_follows_from_the_configuration() {
    let fake = Fake::new(crate::answers::answer);
    let run_dir = format!("name = \"lb1\"\nrun_dir = \"{}\"", fake.dir.path().display());
    let (_dir, path) = file(&GOOD.replacen("name = \"lb1\"", &run_dir, 1));
    let ran = run(&["--config", path.to_str().unwrap()], "session count");
    assert!(ran.code == 0 && ran.out.starts_with("active    3\n"), "{ran:?}");
}

#[test]
fn differences_have_a_status_of_their_own() {
    let (_dir, path) = file(GOOD);
    let change = json!({ "path": "service web", "text": "service web: scheduler rr → lc", "needs_restart": false });
    for (changes, status, said) in [(json!([]), 0, ""), (json!([change]), 1, "service web: scheduler rr → lc\n")] {
        let fake = Fake::with(json!({ "changes": changes }));
        let ran = fake.run(&format!("config diff {}", path.display()));
        assert_eq!((ran.code, ran.out.as_str(), ran.err.as_str()), (status, said, ""));
        assert_eq!(fake.asked()[0].1, json!({ "file": path, "text": GOOD }));
        let ran = fake.run(&format!("-o json config diff {}", path.display()));
        assert_eq!(
            (ran.code, serde_json::from_str::<Value>(&ran.out).unwrap()),
            (status, json!({ "changes": changes }))
        );
    }
}

#[test]
fn apply_says_what_it_did_or_would() {
    let (_dir, path) = file(GOOD);
    let fake = Fake::new(|request| {
        let change = json!({ "path": "service web", "text": "service web: scheduler rr → lc", "needs_restart": false });
        Ok(json!({ "generation": 6, "changes": [change], "dry_run": request.params["dry_run"], "warnings": [] }))
    });
    let ran = fake.run(&format!("config apply {}", path.display()));
    assert_eq!((ran.code, ran.out.as_str()), (0, "service web: scheduler rr → lc\n1 change made (generation 6)\n"));
    let ran = fake.run(&format!("config apply {} --dry-run", path.display()));
    assert!(ran.out.ends_with("dry run: 1 change not made (generation 6)\n"), "{}", ran.out);
    assert_eq!(fake.asked()[1].1["dry_run"], json!(true));
}

#[test]
fn a_refused_file_shows_the_daemons_report() {
    let (_dir, path) = file(GOOD);
    let mut refusal = ApiError::new(Code::Refused, "no route to 10.0.0.21").code("LB-E060").path("service[0].rs[0]");
    refusal.report = Some("error[LB-E060]: no route to 10.0.0.21\n --> lb.toml:20:11\n\n1 error".into());
    let fake = Fake::refusing(refusal);
    let ran = fake.run(&format!("config apply {}", path.display()));
    assert_eq!((ran.code, ran.out.as_str()), (4, ""));
    assert_eq!(ran.err, "error[LB-E060]: no route to 10.0.0.21\n --> lb.toml:20:11\n\n1 error\n");
}

#[test]
fn a_file_longer_than_a_frame_goes_in_pieces() {
    let long = format!("{GOOD}{}", "# \"quoted\" and long\n".repeat(MAX_FRAME / 20));
    let (_dir, path) = file(&long);
    let fake = Fake::new(|request| match request.method.as_str() {
        method::CONFIG_UPLOAD => Ok(json!({ "bytes": 0 })),
        _ => Ok(json!({ "changes": [] })),
    });
    assert_eq!(fake.run(&format!("config diff {}", path.display())).code, 0);
    let asked = fake.asked();
    let (last, pieces) = asked.split_last().unwrap();
    let text: String = pieces.iter().map(|(_, params)| params["text"].as_str().unwrap()).collect();
    assert_eq!((text == long, pieces[0].1["first"] == true, &last.1["text"]), (true, true, &Value::Null));
}
