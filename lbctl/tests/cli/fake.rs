//! A daemon that answers what a test tells it to, on a socket of its own, and `lbctl` asked against it.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};

use control_api::rpc::{Request, Response};
use control_api::{API_VERSION, ApiError, Code};
use serde_json::Value;
use tempfile::TempDir;

/// How a call ended.
#[derive(Debug)]
pub struct Ran {
    pub code: i32,
    pub out: String,
    pub err: String,
}

/// The daemon.
#[derive(Debug)]
pub struct Fake {
    pub dir: TempDir,
    asked: Arc<Mutex<Vec<Request>>>,
}

impl Fake {
    /// Answers each request.
    pub fn new(answer: impl Fn(&Request) -> Result<Value, ApiError> + Send + Sync + 'static) -> Self {
        Self::raw(move |request| {
            let mut reply = Response::new(request.id.clone(), answer(request));
            reply.api_version = Some(API_VERSION);
            Some(reply.line())
        })
    }

    /// Answers each request line with bytes; `None` closes the connection.
    pub fn raw(answer: impl Fn(&Request) -> Option<Vec<u8>> + Send + Sync + 'static) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(dir.path().join("control.sock")).unwrap();
        let (asked, answer) = (Arc::new(Mutex::new(Vec::new())), Arc::new(answer));
        let fake = Self { dir, asked: asked.clone() };
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let (asked, answer) = (asked.clone(), answer.clone());
                std::thread::spawn(move || serve(&stream.unwrap(), &asked, &*answer));
            }
        });
        fake
    }

    /// Answers every request with one value.
    pub fn with(answer: Value) -> Self {
        Self::new(move |_| Ok(answer.clone()))
    }

    /// Refuses every request.
    pub fn refusing(error: ApiError) -> Self {
        Self::new(move |_| Err(error.clone()))
    }

    pub fn socket(&self) -> PathBuf {
        self.dir.path().join("control.sock")
    }

    /// `lbctl --socket … ARGUMENTS`.
    pub fn run(&self, arguments: &str) -> Ran {
        run(&["--socket", self.socket().to_str().unwrap()], arguments)
    }

    /// What was asked: method and parameters.
    pub fn asked(&self) -> Vec<(String, Value)> {
        self.asked.lock().unwrap().iter().map(|r| (r.method.clone(), r.params.clone())).collect()
    }
}

fn serve(stream: &UnixStream, asked: &Mutex<Vec<Request>>, answer: &dyn Fn(&Request) -> Option<Vec<u8>>) {
    let mut write = stream.try_clone().unwrap();
    for line in BufReader::new(stream).lines() {
        let Ok(line) = line else { return };
        let request = Request::parse(line.as_bytes()).unwrap();
        asked.lock().unwrap().push(request.clone());
        match answer(&request) {
            Some(bytes) if write.write_all(&bytes).is_ok() => {}
            _ => return,
        }
    }
}

/// The command, without a terminal.
pub fn lbctl() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_lbctl"));
    command.stdin(Stdio::null()).env_remove("NO_COLOR");
    command
}

/// `lbctl FIRST… ARGUMENTS`, arguments parted by spaces.
pub fn run(first: &[&str], arguments: &str) -> Ran {
    let output = lbctl().args(first).args(arguments.split_whitespace()).output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    Ran { code: output.status.code().unwrap(), out: text(output.stdout), err: text(output.stderr) }
}

/// No such method.
pub fn unknown(request: &Request) -> ApiError {
    ApiError::new(Code::UnknownMethod, format!("no method {}", request.method))
}

/// Compares with `golden/NAME`; `UPDATE_GOLDEN=1` writes it.
pub fn golden(name: &str, got: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name);
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(&path, got).unwrap();
    }
    let want = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(got == want, "{name} differs (UPDATE_GOLDEN=1 writes it)\n--- wanted\n{want}\n--- got\n{got}");
}
