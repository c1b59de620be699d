//! The admin socket, spoken directly (INTERFACE §6): for measuring, without a program started for each request.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};

use crate::{Error, Result};

/// Bytes of text in one upload, well below the longest frame.
const PIECE: usize = 100 << 10;

/// A connection.
pub struct Admin {
    reader: BufReader<UnixStream>,
    next: u64,
}

impl Admin {
    /// Connects to `socket`. No answer may take longer than `limit`.
    ///
    /// # Errors
    /// Nobody listens there.
    pub fn connect(socket: &Path, limit: Duration) -> Result<Self> {
        let stream = UnixStream::connect(socket).map_err(Error::file("connect to", socket))?;
        stream.set_read_timeout(Some(limit)).map_err(Error::file("set timeout of", socket))?;
        Ok(Self { reader: BufReader::new(stream), next: 0 })
    }

    /// The result of one request.
    ///
    /// # Errors
    /// The refusal, or the connection's end.
    pub fn call(&mut self, method: &str, params: &Value) -> Result<Value> {
        self.next += 1;
        let line = json!({"jsonrpc": "2.0", "id": self.next, "method": method, "params": params});
        let failed = |why: String| Error::claim(format!("{method}: {why}"));
        self.reader.get_mut().write_all(format!("{line}\n").as_bytes()).map_err(|e| failed(e.to_string()))?;
        let mut answer = String::new();
        self.reader.read_line(&mut answer).map_err(|e| failed(e.to_string()))?;
        let answer: Value = serde_json::from_str(&answer)
            .map_err(|e| failed(format!("{e}: {:?}", answer.chars().take(300).collect::<String>())))?;
        match answer.get("result") {
            Some(result) => Ok(result.clone()),
            None => Err(failed(answer["error"].to_string())),
        }
    }

    /// Hands over a configuration for the next `config.apply` of this connection.
    ///
    /// # Errors
    /// As [`Self::call`].
    pub fn upload(&mut self, text: &str) -> Result<()> {
        let (mut rest, mut first) = (text, true);
        while !rest.is_empty() || first {
            let mut end = rest.len().min(PIECE);
            while !rest.is_char_boundary(end) {
                end -= 1;
            }
            self.call("config.upload", &json!({"text": rest[..end], "first": first}))?;
            (rest, first) = (&rest[end..], false);
        }
        Ok(())
    }
}
