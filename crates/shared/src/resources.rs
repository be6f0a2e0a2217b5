//! CPU and memory of this process against what it may use (its cgroup's limits, else the machine's).

use std::{fs, path::PathBuf, sync::Mutex, time::Instant};

/// Shortest time over which CPU use is averaged.
const WINDOW_S: f64 = 1.0;

/// Measures this process; cheap enough to ask at every scrape.
#[derive(Debug)]
pub struct Resources {
    cores: f64,
    memory_bytes: u64,
    cpu: Mutex<CpuWindow>,
}

#[derive(Debug)]
struct CpuWindow {
    since: Instant,
    cpu_s: f64,
    percent: f64,
}

impl Default for Resources {
    fn default() -> Self {
        let cpu = CpuWindow {
            since: Instant::now(),
            cpu_s: process_cpu_s().unwrap_or(0.0),
            percent: 0.0,
        };
        Self { cores: allowed_cores(), memory_bytes: allowed_memory_bytes(), cpu: Mutex::new(cpu) }
    }
}

impl Resources {
    /// Percent of the allowed CPU time used over the last window.
    pub fn cpu_percent(&self) -> f64 {
        let mut window = self.cpu.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let elapsed_s = window.since.elapsed().as_secs_f64();
        if let Some(cpu_s) = process_cpu_s().filter(|_| elapsed_s >= WINDOW_S) {
            window.percent = 100.0 * (cpu_s - window.cpu_s) / (elapsed_s * self.cores);
            window.cpu_s = cpu_s;
            window.since = Instant::now();
        }
        window.percent
    }

    /// Percent of the allowed memory resident.
    pub fn memory_percent(&self) -> f64 {
        let resident = resident_bytes().unwrap_or(0);
        100.0 * resident as f64 / self.memory_bytes.max(1) as f64
    }
}

/// Cores this process may use: its cgroup's quota, within its affinity mask.
pub fn allowed_cores() -> f64 {
    let usable = std::thread::available_parallelism().map_or(1.0, |n| n.get() as f64);
    cpu_quota().map_or(usable, |quota| quota.min(usable))
}

/// Bytes this process may use: its cgroup's limit, else the machine's memory.
pub fn allowed_memory_bytes() -> u64 {
    let machine = meminfo("MemTotal:").unwrap_or(0);
    match cgroup_number("memory.max", "memory/memory.limit_in_bytes") {
        Some(limit) if limit < machine => limit,
        _ => machine,
    }
}

/// `cpu.max` of cgroup v2 (`quota period`), or the two files of v1, in cores.
fn cpu_quota() -> Option<f64> {
    if let Some(text) = read_cgroup("cpu.max") {
        let (quota, period) = text.trim().split_once(' ')?;
        return Some(quota.parse::<f64>().ok()? / period.parse::<f64>().ok()?);
    }
    let quota: f64 = read_cgroup("cpu/cpu.cfs_quota_us")?.trim().parse().ok()?;
    let period: f64 = read_cgroup("cpu/cpu.cfs_period_us")?.trim().parse().ok()?;
    (quota > 0.0).then_some(quota / period)
}

fn cgroup_number(v2: &str, v1: &str) -> Option<u64> {
    read_cgroup(v2).or_else(|| read_cgroup(v1))?.trim().parse().ok()
}

/// A cgroup file of this process: below its own path on a host, at the root inside a container.
fn read_cgroup(file: &str) -> Option<String> {
    let own = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let path = own.lines().find_map(|line| line.strip_prefix("0::/")).unwrap_or_default();
    let root = PathBuf::from("/sys/fs/cgroup");
    fs::read_to_string(root.join(path).join(file))
        .or_else(|_| fs::read_to_string(root.join(file)))
        .ok()
}

/// A `kB` row of `/proc/meminfo`, in bytes.
fn meminfo(row: &str) -> Option<u64> {
    let text = fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find(|line| line.starts_with(row))?;
    Some(line.split_whitespace().nth(1)?.parse::<u64>().ok()? << 10)
}

/// CPU seconds of all threads, user and system.
fn process_cpu_s() -> Option<f64> {
    use nix::sys::resource::{UsageWho, getrusage};
    let usage = getrusage(UsageWho::RUSAGE_SELF).ok()?;
    let seconds =
        |time: nix::sys::time::TimeVal| time.tv_sec() as f64 + time.tv_usec() as f64 / 1e6;
    Some(seconds(usage.user_time()) + seconds(usage.system_time()))
}

/// Resident set of this process, in bytes (`VmRSS` of `/proc/self/status`).
fn resident_bytes() -> Option<u64> {
    let text = fs::read_to_string("/proc/self/status").ok()?;
    let line = text.lines().find(|line| line.starts_with("VmRSS:"))?;
    Some(line.split_whitespace().nth(1)?.parse::<u64>().ok()? << 10)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpu_use_follows_work() {
        let resources = Resources::default();
        let start = Instant::now();
        let mut x = 0u64;
        while start.elapsed().as_secs_f64() < WINDOW_S + 0.1 {
            x = std::hint::black_box(x.wrapping_mul(31).wrapping_add(7));
        }
        let percent = resources.cpu_percent();
        assert!(percent > 5.0 && percent <= 110.0, "{percent}");
    }

    #[test]
    fn memory_use_is_a_share_of_what_is_allowed() {
        let percent = Resources::default().memory_percent();
        assert!(percent > 0.0 && percent < 100.0, "{percent}");
        assert!(allowed_memory_bytes() > 1 << 20);
        assert!(allowed_cores() > 0.0);
    }
}
