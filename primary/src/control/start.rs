//! Which configuration wins at start (DESIGN §5): if the file is unchanged since the journal's generation descended from
//! it, the journal; else the file. `--from-file` forces the file.

use std::path::Path;

use config::{Config, Facts, Report, SystemFacts};

use super::journal::{Base, Entry, Journal};

/// No configuration can be had.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The file is refused.
    #[error("{0}")]
    Refused(Box<Report>),
    /// The file cannot be read.
    #[error("error: cannot read {}: {source}; hint: name it with --config FILE", path.display())]
    Unreadable {
        /// The file.
        path: std::path::PathBuf,
        /// The kernel's reason.
        source: std::io::Error,
    },
}

impl StartError {
    /// Exit status of the program: 4 refused by validation, 1 failed.
    #[must_use]
    pub fn exit_status(&self) -> u8 {
        match self {
            Self::Refused(_) => 4,
            Self::Unreadable { .. } => 1,
        }
    }
}

/// What was chosen.
#[derive(Debug)]
pub struct Chosen {
    /// The configuration to be in force.
    pub config: Config,
    /// The same as the file has it, when the file won.
    pub file: Option<Config>,
    /// Digest of the file.
    pub digest: String,
    /// The journal's newest generation.
    pub entry: Option<Entry>,
    /// What the next generations may be written as differences to.
    pub base: Option<Base>,
}

/// Which configuration wins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Prefer {
    /// The journal, unless the file has changed since.
    Newer,
    /// The file.
    File,
    /// The journal: control comes back while the appliance runs, and a file that was edited and not applied must wait.
    Journal,
}

impl Prefer {
    /// As an operator starts the appliance.
    #[must_use]
    pub const fn at_start(from_file: bool) -> Self {
        if from_file { Self::File } else { Self::Newer }
    }
}

/// The configuration an appliance starts with. Touches nothing.
///
/// # Errors
/// The file cannot be read, or is refused.
pub fn start_config(path: &Path, from_file: bool) -> Result<Config, StartError> {
    choose(path, Prefer::at_start(from_file), None, &SystemFacts::read()).map(|chosen| chosen.config)
}

/// As [`start_config`], with where it comes from. `state_dir`: the journal's folder where it is known; then a control that
/// goes on with the journal needs no file.
///
/// # Errors
/// As there.
pub fn choose(path: &Path, prefer: Prefer, state_dir: Option<&Path>, facts: &dyn Facts) -> Result<Chosen, StartError> {
    if let (Prefer::Journal, Some((entry, base))) = (prefer, state_dir.and_then(Journal::peek_with_base)) {
        return Ok(from_journal(entry, base));
    }
    let text = std::fs::read(path).map_err(|source| StartError::Unreadable { path: path.into(), source })?;
    let digest = config::digest(&text);
    let refused = |report| StartError::Refused(Box::new(report));
    let node = config::load_node(path).map_err(|report| {
        // Not the node's mistakes alone: everything wrong is listed at once.
        refused(config::load(path, facts).err().unwrap_or(report))
    })?;
    let (entry, base) = Journal::peek_with_base(&node.state_dir()).unzip();
    let wins = |e: &Entry| match prefer {
        Prefer::Newer => e.file_digest == digest,
        Prefer::File => false,
        Prefer::Journal => true,
    };
    let (entry, base) = match (entry, base) {
        (Some(entry), Some(base)) if wins(&entry) => return Ok(from_journal(entry, base)),
        other => other,
    };
    let loaded = config::load(path, facts).map_err(refused)?;
    let mut file = loaded.config;
    let before = entry.as_ref().map(Entry::config);
    file.fix_slots(before.as_ref());
    let mut config = file.clone();
    if let Some(entry) = &entry {
        entry.register.keep_admin(&mut config);
    }
    Ok(Chosen { config, file: Some(file), digest, entry, base })
}

/// The journal's generation. The digest stays that of the file it descends from: an edited one wins at the appliance's next
/// start.
fn from_journal(entry: Entry, base: Base) -> Chosen {
    let digest = entry.file_digest.clone();
    Chosen { config: entry.config(), file: None, digest, entry: Some(entry), base: Some(base) }
}

#[cfg(test)]
mod tests {
    use super::super::journal::FORMAT;
    use super::super::register::{EndNow, Register, tests::Fake};
    use super::*;
    use crate::control::testing::{Folder, TOML};
    use config::AllFacts;

    #[test]
    fn the_journal_wins_until_the_file_changes() {
        let folder = Folder::new("start");
        let path = folder.path().join("lb.toml");
        let state = format!("name = \"test\"\nstate_dir = \"{}\"", folder.path().display());
        let text = TOML.replace("name = \"test\"", &state);
        std::fs::write(&path, &text).unwrap();
        let first = choose(&path, Prefer::Newer, None, &AllFacts).unwrap();
        assert!(first.file.is_some() && first.entry.is_none());
        assert_eq!(first.config.ports[0].slots, Some(2));
        // An edit was made: the journal has it, the file does not.
        let mut edited = first.config.clone();
        edited.services[0].rs.pop();
        edited.services[0].rs[0].admin = config::Admin::Drain;
        let register =
            Register::default().next(&first.config, Some(&first.config), &EndNow::default(), &Fake::default());
        let register = register.unwrap().next(&edited, None, &EndNow::default(), &Fake::default()).unwrap();
        let entry = Entry {
            format: FORMAT,
            generation: 7,
            time: 0,
            user: "root".into(),
            summary: String::new(),
            file_digest: first.digest,
            housekeeping: false,
            unconfirmed: None,
            skeleton: Config { services: Vec::new(), ..edited.clone() },
            register,
        };
        let _written = Journal::open(folder.path()).unwrap().write(&entry).unwrap();
        let second = choose(&path, Prefer::Newer, None, &AllFacts).unwrap();
        assert!(second.file.is_none() && second.config == edited);
        let forced = choose(&path, Prefer::File, None, &AllFacts).unwrap();
        assert_eq!(forced.config.services[0].rs.len(), 2);
        assert_eq!(forced.config.services[0].rs[0].admin, config::Admin::Drain, "the operator's word stays");
        // Slots are those of the first start, also with another CPU; anything changed makes the file win.
        std::fs::write(&path, text.replace("slots = 2\n", "").replace("cpus = [1]", "cpus = [1, 2]")).unwrap();
        let third = choose(&path, Prefer::Newer, None, &AllFacts).unwrap();
        assert!(third.file.is_some() && third.config.ports[0].slots == Some(2));
        // Control that comes back goes on with what is in force, and the edited file still wins at the next start.
        let back = choose(&path, Prefer::Journal, None, &AllFacts).unwrap();
        assert!(back.file.is_none() && back.config == edited && back.digest == entry.file_digest);
        // Nor does it ask a file that names another folder, is damaged or gone, where the holder knows the folder.
        for text in [text.replace("state_dir = \"", "state_dir = \"/nowhere"), "[node".into()] {
            std::fs::write(&path, text).unwrap();
            let back = choose(&path, Prefer::Journal, Some(folder.path()), &AllFacts).unwrap();
            assert!(back.file.is_none() && back.config == edited);
        }
        std::fs::remove_file(&path).unwrap();
        assert!(choose(&path, Prefer::Journal, Some(folder.path()), &AllFacts).unwrap().config == edited);
        assert_eq!(choose(&path, Prefer::Newer, Some(folder.path()), &AllFacts).unwrap_err().exit_status(), 1);
        std::fs::write(&path, "[node]\nname = \"test\"\nnonsense = 1\n").unwrap();
        assert_eq!(choose(&path, Prefer::Newer, None, &AllFacts).unwrap_err().exit_status(), 4);
    }
}
