//! Configurations named on the command line, and their way to the daemon.

use std::io::Read;
use std::path::{Path, PathBuf};

use control_api::{MAX_FRAME, method};

use crate::context::Context;
use crate::failure::Failure;

/// Room in a frame for what is not the text.
const ENVELOPE: usize = 16 << 10;

/// A configuration, read.
#[derive(Debug)]
pub struct Input {
    /// What reports call it.
    pub name: String,
    /// Its text.
    pub text: String,
}

impl Input {
    /// Reads a file; `-` is standard input.
    ///
    /// # Errors
    /// It cannot be read, or is no UTF-8.
    pub fn read(path: &Path) -> Result<Self, Failure> {
        let (name, bytes) = if path == Path::new("-") {
            let mut bytes = Vec::new();
            ("standard input".to_owned(), std::io::stdin().read_to_end(&mut bytes).map(|_| bytes))
        } else {
            (path.display().to_string(), std::fs::read(path))
        };
        let bytes = bytes.map_err(|why| {
            Failure::failed(format!("cannot read {name}: {why}"), "FILE is a configuration, - is standard input")
        })?;
        let text = String::from_utf8(bytes)
            .map_err(|why| Failure::failed(format!("cannot read {name}: {why}"), "a configuration is UTF-8 text"))?;
        Ok(Self { name, text })
    }

    /// The text as a parameter: itself if it fits a frame as JSON, else `None` after it was uploaded in pieces.
    ///
    /// # Errors
    /// The upload was refused: it needs write rights.
    pub fn parameter(&self, context: &mut Context) -> Result<Option<String>, Failure> {
        let escaped = serde_json::to_string(&self.text).map_or(usize::MAX, |json| json.len());
        if escaped <= MAX_FRAME - ENVELOPE {
            return Ok(Some(self.text.clone()));
        }
        context.client()?.upload(&self.text).map_err(Failure::from).map_err(|failure| match failure {
            Failure::Api(mut error) if error.kind == control_api::Code::NotPermitted => {
                let why = format!("{} is longer than a frame and goes by {}", self.name, method::CONFIG_UPLOAD);
                error.hint.get_or_insert(why);
                Failure::Api(error)
            }
            other => other,
        })?;
        Ok(None)
    }
}

/// A FILE argument.
#[derive(Debug, clap::Args)]
pub struct File {
    /// Configuration file; - is standard input
    #[arg(value_name = "FILE")]
    pub path: PathBuf,
}
