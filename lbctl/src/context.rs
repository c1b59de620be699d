//! What every command needs: where to write, and a connection made when it is first needed.

use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use control_api::{Client, ClientError};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::cli::{Cli, Format};
use crate::failure::Failure;
use crate::output::Out;
use crate::table::Table;

/// Longest wait for an answer. A change may wait for workers to let go of old generations, so it is not short.
const PATIENCE: Duration = Duration::from_secs(20);

/// What every command needs.
#[derive(Debug)]
pub struct Context {
    config: PathBuf,
    socket: Option<PathBuf>,
    /// How answers are printed.
    pub format: Format,
    /// Standard output.
    pub out: Out,
    client: Option<Client>,
    patience: Duration,
}

impl Context {
    /// Of a command line; connects to nobody yet.
    pub fn new(cli: &Cli) -> Self {
        Self {
            config: cli.config.clone(),
            socket: cli.socket.clone(),
            format: cli.output,
            out: Out::new(),
            client: None,
            patience: PATIENCE,
        }
    }

    /// Whether the answer is for programs.
    pub fn json(&self) -> bool {
        self.format == Format::Json
    }

    /// Bounds each wait for the daemon from now on.
    pub fn set_patience(&mut self, patience: Duration) {
        self.patience = patience;
    }

    /// The admin socket: `--socket`, else that of the configuration's `[node]`.
    ///
    /// # Errors
    /// The file cannot be read, or its `[node]` is wrong.
    pub fn socket(&mut self) -> Result<&Path, Failure> {
        if self.socket.is_none() {
            let node = config::load_node(&self.config).map_err(|report| match Failure::from(report) {
                Failure::Api(mut error) => {
                    error.hint = Some("name the appliance with --config FILE or --socket PATH".into());
                    Failure::Api(error)
                }
                other => other,
            })?;
            self.socket = Some(node.socket());
        }
        Ok(self.socket.as_deref().unwrap_or(Path::new("")))
    }

    /// The connection.
    ///
    /// # Errors
    /// As [`Self::socket`]; nobody listens.
    pub fn client(&mut self) -> Result<&mut Client, Failure> {
        let client = match self.client.take() {
            Some(client) => client,
            None => {
                let patience = self.patience;
                Client::connect(self.socket()?, patience)?
            }
        };
        Ok(self.client.insert(client))
    }

    /// One request.
    ///
    /// # Errors
    /// As [`Self::client`]; no answer, or a refusal.
    pub fn call<T: DeserializeOwned>(&mut self, method: &str, params: &impl Serialize) -> Result<T, Failure> {
        Ok(self.client()?.call(method, params)?)
    }

    /// One request without parameters.
    ///
    /// # Errors
    /// As [`Self::call`].
    pub fn get<T: DeserializeOwned>(&mut self, method: &str) -> Result<T, Failure> {
        Ok(self.client()?.get(method)?)
    }

    /// All pages of a list.
    ///
    /// # Errors
    /// As [`Self::call`].
    pub fn list<T: DeserializeOwned>(&mut self, method: &str, params: &impl Serialize) -> Result<Vec<T>, Failure> {
        Ok(self.client()?.list(method, params, None)?)
    }

    /// A request that may be repeated: the daemon closes connections that are idle, as ours is while our own reader (a
    /// pager, a slow disk) lets us wait.
    ///
    /// # Errors
    /// As [`Self::call`].
    pub fn call_again<T: DeserializeOwned>(&mut self, method: &str, params: &impl Serialize) -> Result<T, Failure> {
        match self.client()?.call(method, params) {
            Err(ClientError::Broken { .. }) => {
                self.client = None;
                self.call(method, params)
            }
            other => Ok(other?),
        }
    }

    /// Prints an answer: as JSON, or as the lines `text` makes of it.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn show<T: Serialize>(&mut self, answer: &T, text: impl FnOnce(&T) -> Vec<String>) -> Result<(), Failure> {
        if self.json() {
            return self.show_json(answer);
        }
        for line in text(answer) {
            self.out.line(&line)?;
        }
        Ok(())
    }

    /// Prints an answer: as JSON, or as a table.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn show_table<T: Serialize>(&mut self, answer: &T, table: impl FnOnce(&T) -> Table) -> Result<(), Failure> {
        let colour = self.out.colour;
        self.show(answer, |answer| table(answer).lines(colour))
    }

    /// Prints an answer as JSON.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn show_json(&mut self, answer: &impl Serialize) -> Result<(), Failure> {
        let text = serde_json::to_string_pretty(answer).map_err(std::io::Error::from)?;
        Ok(self.out.line(&text)?)
    }

    /// Shows the warnings about a configuration, with their places, to people only.
    pub fn warn_whole(&self, warnings: &config::Report) {
        if !self.json() {
            let styled = std::io::stderr().is_terminal();
            let text = if styled { warnings.styled() } else { warnings.to_string() };
            let _ = writeln!(std::io::stderr(), "{}", text.trim_end());
        }
    }

    /// Says something beside the answer, to people only.
    pub fn warn(&self, texts: impl IntoIterator<Item = impl AsRef<str>>) {
        for text in texts.into_iter().filter(|_| !self.json()) {
            let text = text.as_ref();
            let prefix = if text.starts_with("warning") { "" } else { "warning: " };
            let _ = writeln!(std::io::stderr(), "{prefix}{text}");
        }
    }
}
