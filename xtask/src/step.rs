//! Programs that xtask runs, and the tally of what passed.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// The repository's root.
pub fn root() -> PathBuf {
    // xtask/ lies directly below it.
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().map_or_else(PathBuf::new, PathBuf::from)
}

/// The build's folder.
pub fn target() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), PathBuf::from)
}

/// The cargo that runs us, in the root.
pub fn cargo() -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(root());
    command
}

/// A heading between the outputs of programs.
pub fn say(text: &str) {
    eprintln!("── {text}");
}

/// Runs to the end with output shown.
pub fn run(command: &mut Command) -> Result<(), String> {
    let text = format!("{command:?}");
    match command.status() {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(format!("{text} ended with {status}")),
        Err(error) => Err(format!("{text} cannot be started: {error}")),
    }
}

/// What passed and what failed.
#[derive(Debug, Default)]
pub struct Tally {
    /// Tests and checks that passed.
    pub passed: u64,
    /// Those that did not.
    pub failed: u64,
    /// One line for each failed step.
    pub failures: Vec<String>,
}

impl Tally {
    /// A check that counts as one.
    pub fn check(&mut self, name: &str, outcome: Result<(), String>) {
        match outcome {
            Ok(()) => {
                self.passed += 1;
                eprintln!("   ok: {name}");
            }
            Err(message) => self.fail(format!("{name}: {message}")),
        }
    }

    /// Runs a test program of libtest's form and counts its tests; a program that fails without a
    /// failed test (it does not build, it crashes) counts as one.
    pub fn tests(&mut self, name: &str, command: &mut Command) {
        say(name);
        let before = self.failed;
        let outcome = command.stdout(Stdio::piped()).spawn().and_then(|mut child| {
            if let Some(pipe) = child.stdout.take() {
                for line in BufReader::new(pipe).lines() {
                    let line = line?;
                    println!("{line}");
                    self.count(&line);
                }
            }
            child.wait()
        });
        match outcome {
            Ok(status) if status.success() => {}
            Ok(_) if self.failed > before => {
                self.failures.push(format!("{name}: {} tests failed", self.failed - before))
            }
            Ok(status) => self.fail(format!("{name}: ended with {status}")),
            Err(error) => self.fail(format!("{name}: cannot be run: {error}")),
        }
    }

    /// `test result: ok. 12 passed; 0 failed; …`
    fn count(&mut self, line: &str) {
        let Some(rest) = line.strip_prefix("test result: ") else { return };
        for part in rest.split(['.', ';']) {
            let Some((number, word)) = part.trim().split_once(' ') else { continue };
            let Ok(number) = number.parse::<u64>() else { continue };
            match word {
                "passed" => self.passed += number,
                "failed" => self.failed += number,
                _ => {}
            }
        }
    }

    fn fail(&mut self, message: String) {
        self.failed += 1;
        eprintln!("   FAILED: {message}");
        self.failures.push(message);
    }

    /// Prints the failures and the closing line, which stands alone: `N passed, N failed`.
    pub fn close(self) -> Result<(), String> {
        for failure in &self.failures {
            println!("failed: {}", failure.lines().next().unwrap_or_default());
        }
        println!("{} passed, {} failed", self.passed, self.failed);
        match self.failed {
            0 => Ok(()),
            count => Err(format!("{count} of {} tests and checks failed", self.passed + count)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libtest_lines_are_counted() {
        let mut tally = Tally::default();
        tally.count("test result: ok. 12 passed; 0 failed; 3 ignored; 0 measured; 0 filtered out; finished in 0.10s");
        tally
            .count("test result: FAILED. 1 passed; 2 failed; 0 ignored; 0 measured; 0 filtered out; finished in 9.00s");
        tally.count("test a::b ... ok");
        assert_eq!((tally.passed, tally.failed), (13, 2));
    }

    #[test]
    fn a_program_that_cannot_run_is_a_failure() {
        let mut tally = Tally::default();
        tally.tests("none", &mut Command::new("/no/such/program"));
        tally.tests("false", &mut Command::new("false"));
        assert_eq!((tally.passed, tally.failed), (0, 2));
        assert!(tally.close().is_err());
    }
}
