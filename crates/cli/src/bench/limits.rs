//! What the operating system allows this process.

use nix::errno::Errno;
use nix::sys::resource::{Resource, Usage, UsageWho, getrlimit, getrusage, setrlimit};
use std::time::Duration;

/// Descriptors for everything that is not a request: standard streams, the runtime, files.
const RESERVED: u64 = 64;

/// More requests at once than descriptors.
#[derive(Debug, thiserror::Error)]
#[error(
    "{in_flight} requests in flight need {needed} file descriptors, but this process may open only {allowed} (ulimit -n): lower --concurrency or --max-in-flight, or raise the limit"
)]
pub(crate) struct TooFewDescriptors {
    in_flight: u64,
    needed: u64,
    allowed: u64,
}

/// Makes sure that so many connections can be open, raising the soft limit if it must.
pub(super) fn allow_connections(in_flight: usize) -> Result<(), TooFewDescriptors> {
    let in_flight = in_flight as u64;
    let needed = in_flight + RESERVED;
    // Where there is no such limit there is nothing to check.
    let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE) else { return Ok(()) };
    let raised = || setrlimit(Resource::RLIMIT_NOFILE, needed, hard);
    match needed {
        _ if needed <= soft => Ok(()),
        _ if needed <= hard && raised().is_ok() => Ok(()),
        _ => Err(TooFewDescriptors { in_flight, needed, allowed: hard }),
    }
}

/// The processor time this process has used so far.
pub(super) fn cpu_time() -> Duration {
    let used: Result<Usage, Errno> = getrusage(UsageWho::RUSAGE_SELF);
    used.map_or(Duration::ZERO, |usage| {
        let times = [usage.user_time(), usage.system_time()];
        let micros = times.map(|time| time.tv_sec() * 1_000_000 + time.tv_usec());
        Duration::from_micros(micros.into_iter().sum::<i64>().unsigned_abs())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn more_connections_than_descriptors_are_refused_with_the_numbers() {
        allow_connections(1).expect("there is room for one");
        let error = allow_connections(1 << 40).expect_err("a million millions").to_string();
        let hard = getrlimit(Resource::RLIMIT_NOFILE).expect("a limit").1;
        assert!(error.contains("ulimit -n") && error.contains(&hard.to_string()), "{error}");
    }

    #[test]
    fn processor_time_grows_with_work() {
        let before = cpu_time();
        let mut sum = 0_u64;
        while cpu_time() == before {
            sum = std::hint::black_box(sum.wrapping_add(1));
        }
        assert!(cpu_time() > before);
    }
}
