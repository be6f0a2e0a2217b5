//! How much memory this process may still take.

use std::path::{Path, PathBuf};

/// What to assume where the system does not say.
const UNKNOWN: u64 = 4 << 30;

/// Bytes that can be taken now without swapping or being killed: the least of what the machine has and what
/// each enclosing control group still allows.
#[must_use]
pub(crate) fn available_bytes() -> u64 {
    let machine =
        std::fs::read_to_string("/proc/meminfo").ok().and_then(|text| mem_available(&text));
    let groups = std::fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let groups = cgroup_folders(&groups).into_iter().flat_map(|folder| {
        let ancestors: Vec<PathBuf> = folder.ancestors().map(Path::to_owned).collect();
        ancestors.into_iter().take_while(|folder| folder.starts_with("/sys/fs/cgroup"))
    });
    machine.into_iter().chain(groups.filter_map(|folder| left_in(&folder))).min().unwrap_or(UNKNOWN)
}

/// `MemAvailable` of `/proc/meminfo`, in bytes.
fn mem_available(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

/// The memory controller's folders of a `/proc/self/cgroup`, for version 2 and version 1.
fn cgroup_folders(cgroup: &str) -> Vec<PathBuf> {
    let lines = cgroup.lines().filter_map(|line| {
        let mut fields = line.splitn(3, ':').skip(1);
        Some((fields.next()?, fields.next()?.trim_start_matches('/')))
    });
    lines
        .filter_map(|(controllers, path)| match controllers {
            "" => Some(Path::new("/sys/fs/cgroup").join(path)),
            _ if controllers.split(',').any(|name| name == "memory") => {
                Some(Path::new("/sys/fs/cgroup/memory").join(path))
            }
            _ => None,
        })
        .collect()
}

/// Limit less use of one control group; file pages that can be dropped do not count as used. `None` when it
/// sets no limit.
fn left_in(folder: &Path) -> Option<u64> {
    let read = |name: &str| std::fs::read_to_string(folder.join(name)).ok();
    let number = |name: &str| read(name)?.trim().parse::<u64>().ok();
    let limit = number("memory.max").or_else(|| number("memory.limit_in_bytes"))?;
    let used = number("memory.current").or_else(|| number("memory.usage_in_bytes"))?;
    let droppable = read("memory.stat").and_then(|stat| inactive_file(&stat)).unwrap_or(0);
    Some(limit.saturating_sub(used.saturating_sub(droppable)))
}

fn inactive_file(stat: &str) -> Option<u64> {
    let value =
        |name: &str| stat.lines().find_map(|line| line.strip_prefix(name)?.trim().parse().ok());
    value("total_inactive_file ").or_else(|| value("inactive_file "))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn the_kernels_files_are_understood() {
        assert_eq!(mem_available("MemTotal: 9 kB\nMemAvailable:    2048 kB\n"), Some(2 << 20));
        let folders = cgroup_folders("5:memory,cpu:/docker/x\n1:name=systemd:/\n0::/user.slice\n");
        assert_eq!(
            folders,
            [Path::new("/sys/fs/cgroup/memory/docker/x"), Path::new("/sys/fs/cgroup/user.slice")]
        );
        assert_eq!(inactive_file("anon 5\ninactive_file 7\n"), Some(7));
    }

    #[test]
    fn a_groups_limit_less_its_use_counts() {
        let folder = tempfile::tempdir().unwrap();
        let write =
            |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
        write("memory.max", "max\n");
        write("memory.current", "600\n");
        assert_eq!(left_in(folder.path()), None, "no limit");
        write("memory.max", "1000\n");
        assert_eq!(left_in(folder.path()), Some(400));
        write("memory.stat", "inactive_file 100\n");
        assert_eq!(left_in(folder.path()), Some(500));
    }
}
