//! Options of the benchmarks with real processes.

use std::path::PathBuf;

use crate::appliance::FOLDER;

/// What they are told.
pub struct Options {
    /// Within the sandbox.
    pub inside: bool,
    /// One object a line.
    pub json: bool,
    /// Rounds of a quarter of a second.
    pub rounds: usize,
    /// The worker's CPU.
    pub cpu: u16,
    /// Folder of `lb-primary`, `lb-worker`, `lbctl`.
    pub programs: PathBuf,
    /// The worker that only reflects.
    pub reflector: PathBuf,
    /// The benchmark of the datapath alone.
    pub packet: PathBuf,
}

impl Options {
    /// Of these words; what is not known is not looked at.
    ///
    /// # Panics
    /// A number is none.
    #[must_use]
    pub fn of(words: &[String]) -> Self {
        let value = |name: &str| {
            let at = words.iter().position(|word| word == name)?;
            words.get(at + 1)
        };
        let path = |name: &str| PathBuf::from(value(name).map_or("", String::as_str));
        let number = |name: &str, usual: u16| value(name).map_or(usual, |n| n.parse().expect("a number"));
        Self {
            inside: words.iter().any(|word| word == "--inside"),
            json: words.iter().any(|word| word == "--json"),
            rounds: number("--rounds", 20).into(),
            cpu: number("--cpu", 1),
            programs: path("--programs"),
            reflector: path("--reflector"),
            packet: path("--packet"),
        }
    }

    /// The CPU of all else.
    #[must_use]
    pub fn other(&self) -> u16 {
        u16::from(self.cpu == 0)
    }

    /// One end of the wire: rings of 1,024 frames.
    #[must_use]
    pub fn memif(&self, role: &str) -> String {
        format!("net_memif0,role={role},id=0,socket={FOLDER}/memif,socket-abstract=no,rsize=10,bsize=2048")
    }
}
