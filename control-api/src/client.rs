//! A blocking client of the admin socket.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::error::{ApiError, Code, FULL};
use crate::params::{ConfigUpload, Paging};
use crate::rpc::{Request, Response};
use crate::views::{Page, Uploaded};
use crate::{API_VERSION, MAX_FRAME, MAX_REPLY, UPLOAD_CHUNK, method};

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Nobody listens, or the way to it is barred.
    #[error("cannot reach the daemon at {}: {source}; hint: is lb-primary running, and may this user open the socket?", path.display())]
    Connect {
        /// The socket.
        path: PathBuf,
        /// The kernel's reason.
        source: std::io::Error,
    },
    /// The connection broke, or there was no answer in time.
    #[error("no answer from the daemon at {}: {source}", path.display())]
    Broken {
        /// The socket.
        path: PathBuf,
        /// The kernel's reason.
        source: std::io::Error,
    },
    /// An answer that is none.
    #[error("the daemon at {} answered something that is no reply: {reason}; hint: is it the same version as this program?", path.display())]
    Garbled {
        /// The socket.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The request is too long for a frame.
    #[error("request of {bytes} bytes is longer than a frame of {MAX_FRAME}")]
    TooLong {
        /// Its length.
        bytes: usize,
    },
    /// It was refused.
    #[error(transparent)]
    Refused(#[from] ApiError),
}

impl ClientError {
    /// As a refusal, for one way of showing both.
    #[must_use]
    pub fn into_api(self) -> ApiError {
        match self {
            Self::Refused(error) => error,
            Self::TooLong { .. } => ApiError::new(Code::InvalidRequest, self.to_string()),
            _ => ApiError::new(Code::Unreachable, self.to_string()),
        }
    }
}

/// How long a first request is tried again while all places of the socket are taken.
const FULL_PATIENCE: Duration = Duration::from_secs(3);
/// Pause between two tries.
const FULL_PAUSE: Duration = Duration::from_millis(50);

/// A connection. Requests go one after the other.
#[derive(Debug)]
pub struct Client {
    path: PathBuf,
    timeout: Duration,
    stream: BufReader<UnixStream>,
    next_id: u64,
    api_version: Option<u32>,
}

impl Client {
    /// Connects; `timeout` bounds each wait for the daemon.
    ///
    /// # Errors
    /// [`ClientError::Connect`].
    pub fn connect(path: &Path, timeout: Duration) -> Result<Self, ClientError> {
        let stream = open(path, timeout)?;
        Ok(Self { path: path.into(), timeout, stream: BufReader::new(stream), next_id: 1, api_version: None })
    }

    /// Version of the daemon's interface, known after the first reply.
    #[must_use]
    pub fn api_version(&self) -> Option<u32> {
        self.api_version
    }

    /// Asks, waits, reads the answer as `T`.
    ///
    /// # Errors
    /// No answer, or a refusal.
    pub fn call<T: DeserializeOwned>(&mut self, method: &str, params: &impl Serialize) -> Result<T, ClientError> {
        let params = serde_json::to_value(params).map_err(|error| self.garbled(error.to_string()))?;
        let value = self.call_value(method, params)?;
        serde_json::from_value(value).map_err(|error| self.garbled(format!("{method}: {error}")))
    }

    /// As [`Self::call`], without parameters.
    ///
    /// # Errors
    /// As there.
    pub fn get<T: DeserializeOwned>(&mut self, method: &str) -> Result<T, ClientError> {
        self.call(method, &Value::Null)
    }

    /// All pages of a list, `limit` items at most (`None`: all). `params` is the object of the list's filters.
    ///
    /// # Errors
    /// As [`Self::call`].
    pub fn list<T: DeserializeOwned>(
        &mut self,
        method: &str,
        params: &impl Serialize,
        limit: Option<u64>,
    ) -> Result<Vec<T>, ClientError> {
        let mut params = serde_json::to_value(params).map_err(|error| self.garbled(error.to_string()))?;
        if params.is_null() {
            params = Value::Object(serde_json::Map::new());
        }
        let mut items = Vec::new();
        let mut paging = Paging { after: None, limit };
        loop {
            params["after"] = paging.after.into();
            params["limit"] = paging.limit.into();
            let page: Page<T> = self.call(method, &params)?;
            items.extend(page.items);
            paging.limit = limit.map(|limit| limit.saturating_sub(items.len() as u64));
            if page.next.is_none() || page.next <= paging.after || paging.limit == Some(0) {
                return Ok(items);
            }
            paging.after = page.next;
        }
    }

    /// Sends a configuration's text ahead of `config.check`, `.diff` or `.apply` with `text` absent. Any length.
    ///
    /// # Errors
    /// As [`Self::call`].
    pub fn upload(&mut self, text: &str) -> Result<(), ClientError> {
        let mut rest = text;
        let mut first = true;
        while first || !rest.is_empty() {
            let mut end = rest.len().min(UPLOAD_CHUNK);
            while !rest.is_char_boundary(end) {
                end -= 1;
            }
            let (piece, after) = rest.split_at(end);
            let _: Uploaded = self.call(method::CONFIG_UPLOAD, &ConfigUpload { text: piece.into(), first })?;
            (rest, first) = (after, false);
        }
        Ok(())
    }

    /// As [`Self::call_once`]; a first request that found all places taken was not read, and is made again for a while.
    fn call_value(&mut self, method: &str, params: Value) -> Result<Value, ClientError> {
        let begun = Instant::now();
        loop {
            match self.call_once(method, &params) {
                Err(ClientError::Refused(error))
                    if error.code == FULL && self.api_version.is_none() && begun.elapsed() < FULL_PATIENCE =>
                {
                    std::thread::sleep(FULL_PAUSE);
                    self.stream = BufReader::new(open(&self.path, self.timeout)?);
                }
                other => return other,
            }
        }
    }

    fn call_once(&mut self, method: &str, params: &Value) -> Result<Value, ClientError> {
        let id = self.next_id;
        self.next_id += 1;
        let mut line = serde_json::to_vec(&Request::new(id, method, params.clone())).unwrap_or_default();
        line.push(b'\n');
        if line.len() > MAX_FRAME {
            return Err(ClientError::TooLong { bytes: line.len() });
        }
        let sent = self.stream.get_mut().write_all(&line);
        // A daemon that refuses a connection says why and closes: its words count more than our broken pipe.
        let mut reply = Vec::new();
        let read = (&mut self.stream).take(MAX_REPLY as u64).read_until(b'\n', &mut reply);
        if reply.is_empty() {
            let closed = || std::io::Error::new(std::io::ErrorKind::UnexpectedEof, "connection closed");
            let source = read.err().or(sent.err()).unwrap_or_else(closed);
            return Err(ClientError::Broken { path: self.path.clone(), source });
        }
        let reply: Response = serde_json::from_slice(&reply).map_err(|error| self.garbled(error.to_string()))?;
        if let Some(version) = reply.api_version {
            self.api_version = Some(version);
            if version != API_VERSION {
                return Err(self.garbled(format!("it speaks api_version {version}, this program {API_VERSION}")));
            }
        }
        if reply.id != id && !(reply.id.is_null() && reply.error.is_some()) {
            return Err(self.garbled(format!("reply to request {} instead of {id}", reply.id)));
        }
        Ok(reply.outcome()?)
    }

    fn garbled(&self, reason: String) -> ClientError {
        ClientError::Garbled { path: self.path.clone(), reason }
    }
}

fn open(path: &Path, timeout: Duration) -> Result<UnixStream, ClientError> {
    let fail = |source| ClientError::Connect { path: path.into(), source };
    let stream = UnixStream::connect(path).map_err(fail)?;
    stream.set_read_timeout(Some(timeout)).map_err(fail)?;
    stream.set_write_timeout(Some(timeout)).map_err(fail)?;
    Ok(stream)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixListener;

    /// Answers each line with what `reply` makes of it.
    fn serve(reply: impl Fn(&Request) -> String + Send + 'static) -> PathBuf {
        static COUNT: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
        let number = COUNT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("lb-client-test-{}-{number}", std::process::id()));
        let listener = UnixListener::bind(&path).unwrap();
        std::thread::spawn(move || {
            let (stream, _) = listener.accept().unwrap();
            let mut write = stream.try_clone().unwrap();
            for line in BufReader::new(stream).lines() {
                let request = Request::parse(line.unwrap().as_bytes()).unwrap();
                write.write_all(reply(&request).as_bytes()).unwrap();
            }
        });
        path
    }

    fn connect(path: &Path) -> Client {
        let client = Client::connect(path, Duration::from_secs(5)).unwrap();
        std::fs::remove_file(path).unwrap();
        client
    }

    #[test]
    fn pages_are_joined_and_the_limit_holds() {
        let path = serve(|request| {
            let after = request.params["after"].as_u64().unwrap_or(0);
            let limit = request.params["limit"].as_u64().unwrap_or(10).min(10);
            let page = Page { items: (after..after + limit).collect(), next: (after < 20).then_some(after + limit) };
            let mut reply = Response::new(request.id.clone(), Ok(serde_json::to_value(page).unwrap()));
            reply.api_version = Some(API_VERSION);
            String::from_utf8(reply.line()).unwrap()
        });
        let mut client = connect(&path);
        assert_eq!(client.list::<u64>("x", &Value::Null, None).unwrap(), (0..30).collect::<Vec<_>>());
        assert_eq!(client.list::<u64>("x", &Value::Null, Some(15)).unwrap(), (0..15).collect::<Vec<_>>());
        assert_eq!(client.api_version(), Some(API_VERSION));
    }

    #[test]
    fn refusals_and_nonsense_are_told_apart() {
        let path = serve(|request| match request.method.as_str() {
            "no" => {
                String::from_utf8(Response::new(request.id.clone(), Err(ApiError::new(Code::Refused, "no"))).line())
                    .unwrap()
            }
            _ => "HTTP/1.1 400\n".into(),
        });
        let mut client = connect(&path);
        assert_eq!(client.get::<Value>("no").unwrap_err().into_api().exit_status(), 4);
        assert_eq!(client.get::<Value>("else").unwrap_err().into_api().exit_status(), 3);
        let gone = Client::connect(Path::new("/nonexistent/control.sock"), Duration::from_secs(1)).unwrap_err();
        assert_eq!(gone.into_api().exit_status(), 3);
    }
}
