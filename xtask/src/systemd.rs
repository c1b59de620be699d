//! The units as systemd itself sees them, without installing anything: a root folder with the
//! units, stubs for the programs and stubs for the targets of a real system.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::step::{Tally, root, target};

/// Units and their greatest allowed exposure (`systemd-analyze security`, 0–100). What remains of the
/// primary's is the network that it configures; lb-prepare runs for a moment, as root, to mount.
const UNITS: &[(&str, &str, u32)] = &[
    // (file, instance to verify, threshold)
    ("lb-prepare.service", "lb-prepare.service", 41),
    ("lb-primary.service", "lb-primary.service", 19),
    ("lb-worker@.service", "lb-worker@0a.service", 8),
    ("lb-healthcheck.service", "lb-healthcheck.service", 13),
];
const PROGRAMS: &[&str] =
    &["usr/bin/lb-primary", "usr/bin/lb-worker", "usr/bin/lb-healthcheck", "usr/bin/sh", "usr/lib/containerlb/prepare"];
/// Units of a running system that ours, or systemd's defaults for services, refer to.
const TARGETS: &[&str] = &["basic", "multi-user", "network", "network-pre", "shutdown", "sysinit"];

/// All checks of systemd/.
pub fn checks(tally: &mut Tally) {
    let folder = match lay() {
        Ok(folder) => folder,
        Err(message) => return tally.check("systemd root folder", Err(message)),
    };
    let root_option = format!("--root={}", folder.display());
    let mut verify = Command::new("systemd-analyze");
    verify.args(["verify", "--man=no", &root_option, "lb.target"]).args(UNITS.iter().map(|u| u.1));
    tally.check("systemd-analyze verify", silent(&mut verify));
    for (file, _, threshold) in UNITS {
        let mut security = Command::new("systemd-analyze");
        security.args(["security", "--offline=true", "--no-pager", &root_option]);
        security.arg(format!("--threshold={threshold}"));
        security.arg(folder.join("usr/lib/systemd/system").join(file));
        let name = format!("systemd-analyze security {file}");
        match exposure(&mut security) {
            Ok(shown) => tally.check(&format!("{name}: {shown}"), Ok(())),
            Err(message) => tally.check(&name, Err(message)),
        }
    }
    let mut users = Command::new("systemd-sysusers");
    users.args(["--dry-run", &root_option]).arg(root().join("systemd/sysusers.d/containerlb.conf"));
    tally.check("systemd-sysusers", succeeds(&mut users));
    let prepare = root().join("systemd/prepare");
    tally.check("prepare is a sound shell script", silent(Command::new("sh").arg("-n").arg(prepare)));
}

/// The root folder, made anew.
fn lay() -> Result<PathBuf, String> {
    let folder = target().join("systemd-root");
    let _ = fs::remove_dir_all(&folder);
    let units = folder.join("usr/lib/systemd/system");
    let say = |path: &Path| {
        let path = path.display().to_string();
        move |error: std::io::Error| format!("{path}: {error}")
    };
    fs::create_dir_all(&units).map_err(say(&units))?;
    fs::create_dir_all(folder.join("etc")).map_err(say(&folder))?;
    std::os::unix::fs::symlink("usr/bin", folder.join("bin")).map_err(say(&folder))?;
    let source = root().join("systemd/system");
    for entry in fs::read_dir(&source).map_err(say(&source))?.flatten() {
        fs::copy(entry.path(), units.join(entry.file_name())).map_err(say(&entry.path()))?;
    }
    for name in TARGETS {
        let path = units.join(format!("{name}.target"));
        fs::write(&path, "[Unit]\nDescription=stub\n").map_err(say(&path))?;
    }
    for program in PROGRAMS {
        let path = folder.join(program);
        fs::create_dir_all(path.parent().unwrap_or(&folder)).map_err(say(&path))?;
        fs::write(&path, "#!/bin/sh\n").map_err(say(&path))?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).map_err(say(&path))?;
    }
    Ok(folder)
}

/// Fails on any output: verify warns about what it ignores with status 0.
fn silent(command: &mut Command) -> Result<(), String> {
    let (status, text) = output(command)?;
    if status && text.is_empty() { Ok(()) } else { Err(text) }
}

fn succeeds(command: &mut Command) -> Result<(), String> {
    let (status, text) = output(command)?;
    if status { Ok(()) } else { Err(text) }
}

/// The overall figure, or the rows that cost most when it is beyond the threshold.
fn exposure(command: &mut Command) -> Result<String, String> {
    let (status, text) = output(command)?;
    let overall = text.lines().find_map(|l| l.split_once("exposure level for ")).map(|(_, rest)| rest.to_string());
    match (status, overall) {
        (true, Some(line)) => Ok(line),
        (_, line) => {
            let costs: Vec<&str> = text.lines().filter(|l| l.starts_with('✗') || line.is_none()).collect();
            Err(format!("{}\n{}", line.unwrap_or_default(), costs.join("\n")))
        }
    }
}

fn output(command: &mut Command) -> Result<(bool, String), String> {
    let output = command.output().map_err(|e| format!("{command:?} cannot be started: {e}"))?;
    let text = [output.stdout, output.stderr].concat();
    Ok((output.status.success(), String::from_utf8_lossy(&text).trim().to_string()))
}
