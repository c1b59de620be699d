//! What the health-checker reads of the configuration file: the instance's name and the source of probes, nothing else.
//! Targets come from the board, so that a file being edited, or one with a mistake in a service, stops no check.

use std::net::IpAddr;
use std::path::{Path, PathBuf};

use config::{Name, Node};

/// The checker's part of the configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// The instance.
    pub node: Node,
    /// Address probes are sent from; `None`: the kernel chooses.
    pub source: Option<IpAddr>,
}

/// The file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    /// Not readable.
    #[error("cannot read {}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The kernel's reason.
        source: std::io::Error,
    },
    /// Readable, but wrong.
    #[error("{}: {message}; hint: lbctl config check {}", path.display(), path.display())]
    Wrong {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        message: String,
    },
}

impl Settings {
    /// Reads `path`.
    ///
    /// # Errors
    /// Unreadable, no TOML, no or wrong `node.name`, a source that is no address.
    pub fn load(path: &Path) -> Result<Self, SettingsError> {
        let source =
            std::fs::read_to_string(path).map_err(|source| SettingsError::Read { path: path.into(), source })?;
        Self::parse(&source).map_err(|message| SettingsError::Wrong { path: path.into(), message })
    }

    fn parse(text: &str) -> Result<Self, String> {
        let file: toml::Table = text.parse().map_err(|error: toml::de::Error| error.to_string())?;
        let key = |table: &str, key: &str| match file.get(table).and_then(|t| t.get(key)) {
            None => Ok(None),
            Some(toml::Value::String(text)) => Ok(Some(text.as_str())),
            Some(other) => Err(format!("{table}.{key} is {other}, not a text")),
        };
        let name = key("node", "name")?.ok_or("node.name is missing: it names the instance")?;
        let name: Name = name.parse().map_err(|error| format!("node.name: {error}"))?;
        let mut node = Node::named(name);
        node.run_dir = key("node", "run_dir")?.map(PathBuf::from);
        let source = match key("healthcheck", "source")? {
            None | Some("") => None,
            Some(text) => Some(text.parse().map_err(|_| format!("healthcheck.source \"{text}\" is no address"))?),
        };
        Ok(Self { node, source })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_its_own_keys_matter() {
        let settings = Settings::parse(
            "[node]\nname = \"lb1\"\nrun_dir = \"/run/x\"\nfuture = 1\n[healthcheck]\nsource = \"10.9.0.1\"\n\
             [[service]]\nvip = \"nonsense\"\n",
        )
        .unwrap();
        assert_eq!(settings.node.board_name(), "/containerlb-lb1-health");
        assert_eq!(settings.node.run_dir(), PathBuf::from("/run/x"));
        assert_eq!(settings.source, Some("10.9.0.1".parse().unwrap()));
        assert_eq!(Settings::parse("[node]\nname = \"lb1\"\n[healthcheck]\nsource = \"\"").unwrap().source, None);
    }

    #[test]
    fn mistakes_are_named() {
        for (text, part) in [
            ("", "node.name is missing"),
            ("[node]\nname = 7", "node.name is 7, not a text"),
            ("[node]\nname = \"a/b\"", "node.name: "),
            ("[node]\nname = \"a\"\n[healthcheck]\nsource = \"here\"", "healthcheck.source \"here\" is no address"),
            ("[node", "TOML parse error"),
        ] {
            let message = Settings::parse(text).unwrap_err();
            assert!(message.contains(part), "{text}: {message}");
        }
    }
}
