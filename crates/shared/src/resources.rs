//! CPU and memory of this process against what it may use (its control groups' limits, else the
//! machine's).

mod limits;

use std::{
    fmt, fs,
    path::Path,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

/// The kernel is asked at most this often, and CPU use averaged over at least as long: a scraper in
/// a loop costs nothing, and finds what is at most so old.
const SAMPLE_EVERY: Duration = Duration::from_secs(1);

/// How much of what it may use a process uses.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Usage {
    /// Of the CPU time, over the last second or more; 0 in the first second.
    pub cpu_percent: f64,
    /// Of the memory: the part that is resident.
    pub memory_percent: f64,
}

/// What the kernel says at one time.
#[derive(Clone, Copy, Debug)]
struct Reading {
    /// Of all threads, since the process started.
    cpu_s: f64,
    resident_bytes: u64,
    cores: f64,
    memory_bytes: u64,
}

/// Measures this process. Its lock is taken only by who reads vitals.
pub struct Resources {
    read: Box<dyn Fn() -> Reading + Send + Sync>,
    sample: Mutex<Sample>,
}

#[derive(Debug)]
struct Sample {
    taken: Instant,
    cpu_s: f64,
    usage: Usage,
}

impl fmt::Debug for Resources {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Resources").field("sample", &self.sample).finish_non_exhaustive()
    }
}

impl Default for Resources {
    fn default() -> Self {
        Self::new(read_this_process, Instant::now())
    }
}

impl Resources {
    fn new(read: impl Fn() -> Reading + Send + Sync + 'static, now: Instant) -> Self {
        let sample = Mutex::new(Sample::first(read(), now));
        Self { read: Box::new(read), sample }
    }

    /// As of at most a second ago.
    pub fn usage(&self) -> Usage {
        self.usage_at(Instant::now())
    }

    fn usage_at(&self, now: Instant) -> Usage {
        let mut sample = self.sample.lock().unwrap_or_else(PoisonError::into_inner);
        if now.duration_since(sample.taken) >= SAMPLE_EVERY {
            *sample = sample.next((self.read)(), now);
        }
        sample.usage
    }
}

impl Sample {
    fn first(reading: Reading, now: Instant) -> Self {
        let usage = Usage { cpu_percent: 0.0, memory_percent: reading.memory_percent() };
        Self { taken: now, cpu_s: reading.cpu_s, usage }
    }

    fn next(&self, reading: Reading, now: Instant) -> Self {
        let allowed_s = now.duration_since(self.taken).as_secs_f64() * reading.cores;
        let cpu_percent = 100.0 * (reading.cpu_s - self.cpu_s) / allowed_s;
        let usage = Usage { cpu_percent, memory_percent: reading.memory_percent() };
        Self { taken: now, cpu_s: reading.cpu_s, usage }
    }
}

impl Reading {
    fn memory_percent(&self) -> f64 {
        100.0 * self.resident_bytes as f64 / self.memory_bytes.max(1) as f64
    }
}

/// The limits are read each time: they may be changed while a container runs.
fn read_this_process() -> Reading {
    let (cores, memory_bytes) = allowed();
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    Reading {
        cpu_s: process_cpu_s().unwrap_or(0.0),
        resident_bytes: limits::row_bytes(&status, "VmRSS").unwrap_or(0),
        cores,
        memory_bytes,
    }
}

/// Cores this process may use: its control groups' quota, within its affinity mask.
pub fn allowed_cores() -> f64 {
    allowed().0
}

/// Bytes this process may use: its control groups' limit, else the machine's memory.
pub fn allowed_memory_bytes() -> u64 {
    allowed().1
}

/// Cores, and bytes of memory.
fn allowed() -> (f64, u64) {
    let groups = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let limits = limits::of_groups(&groups, |path: &Path| fs::read_to_string(path).ok());
    let usable = std::thread::available_parallelism().map_or(1.0, |n| n.get() as f64);
    let machine = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let machine_bytes = limits::row_bytes(&machine, "MemTotal").unwrap_or(0);
    let cores = limits.cores.map_or(usable, |quota| quota.min(usable));
    (cores, limits.memory_bytes.map_or(machine_bytes, |limit| limit.min(machine_bytes)))
}

/// CPU seconds of all threads, user and system.
fn process_cpu_s() -> Option<f64> {
    use nix::sys::resource::{UsageWho, getrusage};
    let usage = getrusage(UsageWho::RUSAGE_SELF).ok()?;
    let seconds =
        |time: nix::sys::time::TimeVal| time.tv_sec() as f64 + time.tv_usec() as f64 / 1e6;
    Some(seconds(usage.user_time()) + seconds(usage.system_time()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    };

    #[test]
    fn the_kernel_is_asked_once_a_second_whoever_asks_us() {
        let start = Instant::now();
        let asked = Arc::new(AtomicU64::new(0));
        let counter = Arc::clone(&asked);
        // Each time it is asked, half a second more of one core was used, of the two it may have.
        let read = move || Reading {
            cpu_s: 0.5 * counter.fetch_add(1, Relaxed) as f64,
            resident_bytes: 25,
            cores: 2.0,
            memory_bytes: 100,
        };
        let resources = Resources::new(read, start);
        let usage_at = |millis| resources.usage_at(start + Duration::from_millis(millis));
        for millis in 0..1_000 {
            assert_eq!(usage_at(millis), Usage { cpu_percent: 0.0, memory_percent: 25.0 });
        }
        assert_eq!(asked.load(Relaxed), 1);
        for millis in 1_000..2_000 {
            assert_eq!(usage_at(millis).cpu_percent, 25.0, "half a second of two");
        }
        assert_eq!(asked.load(Relaxed), 2);
        assert_eq!(usage_at(11_000).cpu_percent, 2.5, "half a second of twenty");
    }

    #[test]
    fn this_process_uses_something_of_what_it_may() {
        let reading = read_this_process();
        assert!(reading.cpu_s > 0.0, "{reading:?}");
        assert!(reading.resident_bytes > 100 << 10, "{reading:?}");
        assert!(
            reading.cores > 0.0 && reading.memory_bytes > reading.resident_bytes,
            "{reading:?}"
        );
    }
}
