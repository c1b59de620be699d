//! Exit statuses (INTERFACE §2) and errors in both forms.

use control_api::{ApiError, Code};
use serde_json::{Value, json};

use crate::answers;
use crate::fake::{Fake, Ran, run};

fn error_of(ran: &Ran) -> Value {
    let error: Value = serde_json::from_str(&ran.err).unwrap();
    for key in ["code", "message", "path", "hint"] {
        assert!(error.get(key).is_some(), "no {key}: {error}");
    }
    error
}

#[test]
fn nobody_listens() {
    let there = tempfile::tempdir().unwrap();
    let socket = there.path().join("control.sock");
    let first = ["--socket", socket.to_str().unwrap()];
    let ran = run(&first, "service list");
    assert_eq!((ran.code, ran.out.as_str()), (3, ""));
    assert!(ran.err.starts_with(&format!("error: cannot reach the daemon at {}", socket.display())), "{}", ran.err);
    assert!(ran.err.contains("\n  hint: start it with `systemctl start lb-primary.service`"), "{}", ran.err);
    for command in ["-o json stats show", "-o json session list", "-o json rs drain web 10.0.0.1:80"] {
        let ran = run(&first, command);
        assert_eq!((ran.code, &error_of(&ran)["code"]), (3, &json!("unreachable")), "{command}");
    }
    // A socket nobody serves any more.
    drop(std::os::unix::net::UnixListener::bind(&socket).unwrap());
    assert_eq!(run(&first, "port list").code, 3);
}

#[test]
fn answers_that_are_none() {
    let replies: [&[u8]; 7] = [
        b"",
        b"\n",
        b"HTTP/1.1 400 Bad Request\r\n",
        b"{\"jsonrpc\":\"2.0\",\"id\":77,\"result\":[]}\n",
        b"{\"jsonrpc\":\"2.0\",\"id\":1,\"api_version\":99,\"result\":[]}\n",
        b"{\"jsonrpc\":\"2.0\",\"id\":1,\"result\":{\"rx\":\"many\"}}\n",
        b"\xff\xfe\x00\n",
    ];
    for reply in replies {
        let fake = Fake::raw(move |_| (!reply.is_empty()).then(|| reply.to_vec()));
        let ran = fake.run("worker list");
        assert!(ran.code == 3 && ran.out.is_empty() && ran.err.starts_with("error: "), "{reply:?}: {ran:?}");
    }
}

#[test]
fn refusals_have_the_status_of_their_kind() {
    let kinds = [
        (Code::Failed, 1),
        (Code::NotPermitted, 1),
        (Code::Busy, 1),
        (Code::InvalidParams, 2),
        (Code::UnknownMethod, 2),
        (Code::Refused, 4),
        (Code::NeedsRestart, 4),
    ];
    for (kind, status) in kinds {
        let refusal = ApiError::new(kind, "weight is 70000, at most 65535").code("LB-E013").path("service[0].rs[1]");
        let fake = Fake::refusing(refusal.hint("smaller"));
        let ran = fake.run("rs set web 10.0.0.21:8080 --weight 3");
        assert_eq!((ran.code, ran.out.as_str()), (status, ""), "{kind:?}");
        assert_eq!(ran.err, "error: weight is 70000, at most 65535\n  at service[0].rs[1]\n  hint: smaller\n");
        let error = error_of(&fake.run("-o json rs set web 10.0.0.21:8080 --weight 3"));
        let fields = [&error["code"], &error["path"], &error["hint"]];
        assert_eq!(fields, [&json!("LB-E013"), &json!("service[0].rs[1]"), &json!("smaller")]);
    }
}

#[test]
fn wrong_usage() {
    for command in
        ["", "fly", "service fly", "rs drain web", "--no-such-option", "-o yaml rs list", "s list", "service"]
    {
        let ran = run(&[], command);
        assert!(ran.code == 2 && ran.out.is_empty() && !ran.err.is_empty(), "{command}: {ran:?}");
    }
    let ran = run(&[], "-o json service fly");
    assert_eq!((ran.code, &error_of(&ran)["code"]), (2, &json!("usage")));
    assert!(run(&[], "srevice list").err.contains("service"), "a typing mistake is named");
}

#[test]
fn what_is_not_there_yet_does_not_pretend() {
    let later = ["explain tcp 192.0.2.7:1 10.0.0.100:80", "trace", "capture", "doctor", "top"];
    for command in later {
        let ran = run(&[], command);
        assert!(ran.code == 2 && ran.err.contains("is not in this version"), "{command}: {ran:?}");
    }
}

#[test]
fn what_does_not_exist_is_a_failure() {
    let ran = Fake::new(answers::answer).run("service show mail");
    assert_eq!((ran.code, ran.out.as_str()), (1, ""));
    assert!(ran.err.starts_with("error: there is no service \"mail\""), "{}", ran.err);
}

#[test]
fn help_is_on_stdout_everywhere() {
    let all = ["", "service", "service add", "rs", "rs set", "session list", "stats show", "config apply"];
    for command in all {
        let ran = run(&[], &format!("{command} --help"));
        assert!(ran.code == 0 && ran.out.contains("Usage: lbctl") && ran.err.is_empty(), "{command}: {ran:?}");
    }
}
