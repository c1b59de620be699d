//! Verbs that change something: what is asked of the daemon, word for word.

use serde_json::{Value, json};

use crate::fake::Fake;

/// Asked with `command`, the daemon gets `method` and `params`, and people read `said`.
fn changes(command: &str, method: &str, params: Value, said: &str) {
    let fake = Fake::with(json!({ "generation": 5, "warnings": ["rs 10.0.0.9:80: no port reaches it"] }));
    let ran = fake.run(command);
    assert_eq!((ran.code, ran.out.trim()), (0, said), "{command}");
    assert_eq!(ran.err, "warning: rs 10.0.0.9:80: no port reaches it\n");
    assert_eq!(fake.asked(), [(method.to_owned(), params)], "{command}");
    let json = fake.run(&format!("-o json {command}"));
    let answer: Value = serde_json::from_str(&json.out).unwrap();
    assert_eq!((&answer["generation"], json.err.as_str()), (&json!(5), ""));
}

#[test]
fn services() {
    changes(
        "service add dns --vip 10.0.0.100:53 --protocol udp --timeout udp=10s --health type=none",
        "service.add",
        json!({ "service": "dns", "keys": [
            ["vip", "10.0.0.100:53"], ["protocol", "udp"], ["health.type", "none"], ["timeouts.udp", "10s"]
        ] }),
        "service dns added (generation 5)",
    );
    changes(
        "service set web --scheduler wrr --timeout established=",
        "service.set",
        json!({ "service": "web", "keys": [["scheduler", "wrr"], ["timeouts.established", ""]] }),
        "service web changed (generation 5)",
    );
    changes(
        "service del web",
        "service.del",
        json!({ "service": "web", "now": false }),
        "service web removed, gone with its last session (generation 5)",
    );
}

#[test]
fn servers() {
    let name = json!({ "service": "web", "rs": "10.0.0.21:8080" });
    let with = |key: &str, value: Value| {
        let mut params = name.clone();
        params[key] = value;
        params
    };
    let weight = |n: &str| with("keys", json!([["weight", n]]));
    let end = |how: &str| format!("rs 10.0.0.21:8080 of web {how} (generation 5)");
    changes("rs add web 10.0.0.21:8080", "rs.add", with("keys", json!([])), &end("added"));
    changes("rs add web 10.0.0.21:8080 --weight 2", "rs.add", weight("2"), &end("added"));
    changes("rs set web 10.0.0.21:8080 --weight 0", "rs.set", weight("0"), &end("changed"));
    changes("rs enable web 10.0.0.21:8080", "rs.enable", name.clone(), &end("enabled"));
    changes("rs disable web 10.0.0.21:8080", "rs.disable", name.clone(), &end("disabled, its sessions ended"));
    changes("rs drain web 10.0.0.21:8080", "rs.drain", name.clone(), &end("drains: no new sessions"));
    changes("rs del web 10.0.0.21:8080 --now", "rs.del", with("now", true.into()), &end("removed, its sessions ended"));
}

#[test]
fn a_set_without_anything_to_set_is_wrong_usage() {
    let fake = Fake::with(json!({ "generation": 5 }));
    for command in ["rs set web 10.0.0.21:8080", "service set web", "rs set web 10.0.0.21:8080 --weight many"] {
        let ran = fake.run(command);
        assert!(ran.code == 2 && ran.err.starts_with("error: "), "{command}: {ran:?}");
    }
    assert!(fake.asked().is_empty());
}
