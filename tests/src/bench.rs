//! What the benchmarks with real processes share: figures with their spread, CPU time of processes and of the machine.

use std::fs;

/// Several measurements of one figure.
#[derive(Debug, Clone, Default)]
pub struct Figures(Vec<f64>);

impl Figures {
    /// One more.
    pub fn push(&mut self, value: f64) {
        self.0.push(value);
        self.0.sort_by(f64::total_cmp);
    }

    /// How many there are.
    #[must_use]
    pub fn count(&self) -> usize {
        self.0.len()
    }

    /// The median; NaN of none.
    #[must_use]
    pub fn median(&self) -> f64 {
        match self.0.len() {
            0 => f64::NAN,
            n if n % 2 == 1 => self.0[n / 2],
            n => f64::midpoint(self.0[n / 2 - 1], self.0[n / 2]),
        }
    }

    /// The least; NaN of none.
    #[must_use]
    pub fn least(&self) -> f64 {
        self.0.first().copied().unwrap_or(f64::NAN)
    }

    /// The greatest; NaN of none.
    #[must_use]
    pub fn most(&self) -> f64 {
        self.0.last().copied().unwrap_or(f64::NAN)
    }

    /// Median, least and greatest as one JSON object.
    #[must_use]
    pub fn json(&self) -> serde_json::Value {
        serde_json::json!({
            "median": self.median(), "least": self.least(), "most": self.most(), "rounds": self.count()
        })
    }
}

/// Time that all threads of a process have run, seconds (proc(5): `schedstat`, nanoseconds); threads that have ended
/// count for nothing.
#[must_use]
pub fn cpu_seconds(pid: u32) -> f64 {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let ran = |task: fs::DirEntry| -> Option<u64> {
        fs::read_to_string(task.path().join("schedstat")).ok()?.split_ascii_whitespace().next()?.parse().ok()
    };
    #[allow(clippy::cast_precision_loss, reason = "2^53 ns are 104 days")]
    let nanoseconds = tasks.filter_map(ran).sum::<u64>() as f64;
    nanoseconds / 1e9
}

/// Time the machine's CPUs have run anything, seconds: user, nice, system, interrupts (proc(5): `/proc/stat`, in hundredths).
#[must_use]
pub fn machine_busy_seconds() -> f64 {
    let text = fs::read_to_string("/proc/stat").unwrap_or_default();
    let fields: Vec<u64> = text
        .lines()
        .next()
        .map(|line| line.split_ascii_whitespace().skip(1).filter_map(|f| f.parse().ok()).collect())
        .unwrap_or_default();
    // user nice system idle iowait irq softirq
    #[allow(clippy::cast_precision_loss, reason = "a count of hundredths of seconds")]
    let ticks = [0, 1, 2, 5, 6].iter().filter_map(|i| fields.get(*i)).sum::<u64>() as f64;
    ticks / 100.0
}

/// A field of `/proc/PID/status` or `/proc/PID/io`, such as `VmRSS` in KiB or `wchar` in bytes; 0 where there is none.
#[must_use]
pub fn proc_field(pid: u32, file: &str, field: &str) -> u64 {
    let text = fs::read_to_string(format!("/proc/{pid}/{file}")).unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
    line.and_then(|rest| rest.split_ascii_whitespace().next()?.parse().ok()).unwrap_or(0)
}

/// The machine in words: CPUs, their name, kernel; and how much others make it work.
#[must_use]
pub fn machine() -> String {
    let cpus = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let name = cpus.lines().find_map(|l| l.strip_prefix("model name")?.split_once(": ").map(|(_, name)| name));
    let count = cpus.lines().filter(|l| l.starts_with("processor")).count();
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let load = load.split(' ').next().unwrap_or("?");
    format!("{count} × {}, kernel {}, load {load} at the start", name.unwrap_or("CPU"), kernel.trim())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians_and_their_spread() {
        let mut figures = Figures::default();
        assert!(figures.median().is_nan() && figures.least().is_nan());
        [3.0, 1.0, 2.0].into_iter().for_each(|v| figures.push(v));
        assert_eq!((figures.median(), figures.least(), figures.most(), figures.count()), (2.0, 1.0, 3.0, 3));
        figures.push(10.0);
        assert!((figures.median() - 2.5).abs() < 1e-9);
    }

    #[test]
    fn this_process_and_this_machine_have_run() {
        let begin = std::time::Instant::now();
        while begin.elapsed().as_millis() < 50 {
            std::hint::spin_loop();
        }
        let pid = std::process::id();
        assert!(cpu_seconds(pid) > 0.0 && machine_busy_seconds() > cpu_seconds(pid));
        assert!(proc_field(pid, "status", "VmRSS") > 0 && proc_field(pid, "status", "VmNothing") == 0);
        assert!(machine().contains(" × "));
    }
}
