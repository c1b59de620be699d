//! One measurement by wrk: 64 connections of one thread.

use std::time::Duration;

use ::tests::netns::{Netns, run};
use ::tests::{Error, Result};
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeValLike;

/// What is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// Requests on connections that stay.
    KeepAlive,
    /// Each on a new connection.
    NewConnections,
}

impl Kind {
    /// Both.
    pub const ALL: [Self; 2] = [Self::KeepAlive, Self::NewConnections];

    /// For people and JSON.
    pub fn text(self) -> &'static str {
        match self {
            Self::KeepAlive => "requests/s, keep-alive",
            Self::NewConnections => "connections/s, one request each",
        }
    }
}

/// What wrk said.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Answer {
    /// Requests answered.
    pub requests: u64,
    /// The same a second.
    pub rate: f64,
    /// Median time from a request to its answer, µs. (Of a new connection: from its first byte, not from connect.)
    pub p50_us: f64,
    /// The same of the slowest hundredth.
    pub p99_us: f64,
    /// Sockets that failed, timed out, or answers that were not 200.
    pub errors: u64,
    /// CPU time of wrk, seconds.
    pub cpu: f64,
}

/// Measures at `target` from `client`.
pub fn measure(client: &Netns, target: &str, kind: Kind, length: Duration) -> Result<Answer> {
    let mut command = client.command("wrk");
    command.args(["-t1", "-c64", "--latency", "--timeout", "2s", "-d", &format!("{}s", length.as_secs())]);
    if kind == Kind::NewConnections {
        command.args(["-H", "Connection: close"]);
    }
    command.arg(format!("http://{target}/"));
    let before = children_seconds()?;
    let output = run(&mut command)?;
    let cpu = children_seconds()? - before;
    let text = String::from_utf8_lossy(&output.stdout);
    let answer = read(&text).ok_or_else(|| Error::claim(format!("wrk said:\n{text}")))?;
    Ok(Answer { cpu, ..answer })
}

/// CPU time of all children that have ended, seconds.
fn children_seconds() -> Result<f64> {
    let usage = getrusage(UsageWho::RUSAGE_CHILDREN).map_err(|e| Error::claim(format!("getrusage: {e}")))?;
    #[allow(clippy::cast_precision_loss, reason = "2^53 µs are 285 years")]
    let micros = (usage.user_time().num_microseconds() + usage.system_time().num_microseconds()) as f64;
    Ok(micros / 1e6)
}

/// wrk's words.
fn read(text: &str) -> Option<Answer> {
    let after = |word: &str| text.lines().find_map(|line| line.trim().strip_prefix(word)).map(str::trim);
    let requests = text.lines().find_map(|line| line.trim().split_once(" requests in "))?.0.parse().ok()?;
    // `Socket errors: connect 0, read 1, write 0, timeout 2`
    let sockets = after("Socket errors:").unwrap_or_default();
    let sockets = sockets.split(|c: char| !c.is_ascii_digit()).filter_map(|n| n.parse::<u64>().ok());
    let wrong = after("Non-2xx or 3xx responses:").and_then(|n| n.parse::<u64>().ok()).unwrap_or(0);
    Some(Answer {
        requests,
        rate: after("Requests/sec:")?.parse().ok()?,
        p50_us: micros(after("50%")?)?,
        p99_us: micros(after("99%")?)?,
        errors: sockets.sum::<u64>() + wrong,
        cpu: 0.0,
    })
}

/// `1.18ms`, `473.00us`, `2.01s` in µs.
fn micros(text: &str) -> Option<f64> {
    let unit = text.find(|c: char| c.is_ascii_alphabetic())?;
    let (number, unit) = text.split_at(unit);
    let factor = match unit {
        "us" => 1.0,
        "ms" => 1e3,
        "s" => 1e6,
        "m" => 60e6,
        _ => return None,
    };
    Some(number.parse::<f64>().ok()? * factor)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SAID: &str = "\
Running 2s test @ http://10.0.0.100:80/
  1 threads and 64 connections
  Thread Stats   Avg      Stdev     Max   +/- Stdev
    Latency     1.95ms  822.45us  11.86ms   82.21%
    Req/Sec    33.01k     1.25k   35.44k    75.00%
  Latency Distribution
     50%    1.84ms
     75%    2.20ms
     90%  933.00us
     99%    5.33ms
  65913 requests in 2.01s, 11.06MB read
  Socket errors: connect 1, read 2, write 0, timeout 40
  Non-2xx or 3xx responses: 7
Requests/sec:  32813.34
Transfer/sec:      5.51MB
";

    #[test]
    fn its_words_are_understood() {
        let answer = read(SAID).unwrap();
        assert_eq!((answer.requests, answer.rate, answer.errors), (65_913, 32_813.34, 50));
        assert_eq!((answer.p50_us, answer.p99_us), (1840.0, 5330.0));
        assert_eq!(read(&SAID.replace("Socket errors", "x").replace("Non-2xx", "x")).unwrap().errors, 0);
        assert!(read("unable to connect to 10.0.0.100:80 Connection refused").is_none());
        assert_eq!(
            [micros("473.00us"), micros("2.50s"), micros("3.00"), micros("1h")],
            [Some(473.0), Some(2.5e6), None, None]
        );
    }
}
