//! Standard output: buffered, quiet when the reader has gone (`lbctl … | head`).

use std::io::{self, BufWriter, IsTerminal, Stdout, Write};

/// Standard output.
#[derive(Debug)]
pub struct Out {
    to: BufWriter<Stdout>,
    /// Whether colours may be used: a terminal, and `NO_COLOR` (no-color.org) is not set.
    pub colour: bool,
    gone: bool,
}

impl Out {
    /// Standard output.
    pub fn new() -> Self {
        let stdout = io::stdout();
        let colour = stdout.is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
        Self { to: BufWriter::new(stdout), colour, gone: false }
    }

    /// Whether the reader has gone: what follows can be left out.
    pub fn gone(&self) -> bool {
        self.gone
    }

    /// Writes a line.
    ///
    /// # Errors
    /// Disk full and the like; a reader that has gone is no error.
    pub fn line(&mut self, line: &str) -> io::Result<()> {
        self.bytes(line.as_bytes())?;
        self.bytes(b"\n")
    }

    /// Writes bytes.
    ///
    /// # Errors
    /// As [`Self::line`].
    pub fn bytes(&mut self, bytes: &[u8]) -> io::Result<()> {
        if self.gone {
            return Ok(());
        }
        let result = self.to.write_all(bytes);
        self.forgive(result)
    }

    /// Flushes.
    ///
    /// # Errors
    /// As [`Self::line`].
    pub fn finish(&mut self) -> Result<(), crate::failure::Failure> {
        if self.gone {
            return Ok(());
        }
        let result = self.to.flush();
        Ok(self.forgive(result)?)
    }

    fn forgive(&mut self, result: io::Result<()>) -> io::Result<()> {
        match result {
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {
                self.gone = true;
                Ok(())
            }
            other => other,
        }
    }
}
