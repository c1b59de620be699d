//! Configurations that are refused.

use tests::error::ensure;
use tests::netns::words;
use tests::{Error, Result};

use crate::Ctx;

/// What is made wrong, and what a report must name to be of use.
const MISTAKES: [(&str, &str, &str); 5] = [
    // (right, wrong, named)
    ("poll = \"adaptive\"", "poll = \"lazy\"", "lazy"),
    ("mtu = 1500", "mtoo = 1500", "mtoo"),
    ("address = \"10.0.0.128/30\"", "address = \"10.0.0.999/30\"", "10.0.0.999"),
    ("interval = \"500ms\"", "interval = \"500\"", "500"),
    ("scheduler = \"rr\"", "scheduler = \"fair\"", "fair"),
];

/// Five different mistakes: all five are told at once with their lines, status 4, nothing starts.
pub fn five_mistakes(ctx: &mut Ctx) -> Result<()> {
    let rig = ctx.rig()?;
    let mut text = rig.appliance.conf.to_toml();
    for (right, wrong, _) in MISTAKES {
        ensure(text.contains(right), || format!("the test's own configuration lacks {right}"))?;
        text = text.replacen(right, wrong, 1);
    }
    let path = &rig.appliance.conf_path;
    std::fs::write(path, &text).map_err(Error::file("write", path))?;
    let lines: Vec<usize> = MISTAKES
        .iter()
        .map(|(_, wrong, _)| text.lines().position(|l| l.contains(wrong)).map_or(0, |n| n + 1))
        .collect();

    let mut commands = vec![rig.appliance.command("lb-primary", &[])?];
    commands.push(rig.appliance.command("lb-primary", &["--check"])?);
    let file = path.display().to_string();
    commands.push(rig.appliance.command("lbctl", &["config", "check", &file])?);
    for command in &mut commands {
        let what = words(command);
        let output = command.output().map_err(|source| Error::Spawn { program: what.clone(), source })?;
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        ensure(output.status.code() == Some(4), || format!("{what} ended with {}: {told}", output.status))?;
        for ((_, _, named), line) in MISTAKES.iter().zip(&lines) {
            ensure(told.contains(named), || format!("{what} does not tell of {named:?}:\n{told}"))?;
            ensure(told.contains(&line.to_string()), || format!("{what} does not name line {line}:\n{told}"))?;
        }
    }
    let started = rig.appliance.conf.run_dir.exists() || rig.app.has_link(&rig.tap());
    ensure(!started, || "something was started: a run directory or a tap is there".into())
}
