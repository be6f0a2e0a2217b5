//! What other processes cost.

use std::{fs, time::Duration};

/// CPU time of all living threads of a process, to the nanosecond (`/proc/PID/task/*/schedstat`).
#[must_use]
pub fn of(pid: u32) -> Duration {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let nanos = tasks.filter_map(|task| {
        let text = fs::read_to_string(task.path().join("schedstat")).ok()?;
        text.split(' ').next()?.parse::<u64>().ok()
    });
    Duration::from_nanos(nanos.sum())
}
