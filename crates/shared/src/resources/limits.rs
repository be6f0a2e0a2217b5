//! What the kernel's files say that a process may use. Pure: reading is the caller's.

use std::path::{Path, PathBuf};

/// What the control groups around a process leave it.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Limits {
    /// CPU seconds a second.
    pub(super) cores: Option<f64>,
    pub(super) memory_bytes: Option<u64>,
}

/// The least that any control group of the process allows, of those that `groups`, a
/// `/proc/self/cgroup`, names and of those around them. `read` gives the text of a file if there is
/// one.
///
/// A container without a namespace of its own sees the host's path there and its own group where
/// all groups are mounted: what is not there limits nothing, and the root is looked at too.
pub(super) fn of_groups(groups: &str, read: impl Fn(&Path) -> Option<String>) -> Limits {
    let cores = folders(groups, "cpu").into_iter().filter_map(|folder| cores(&folder, &read));
    let memory =
        folders(groups, "memory").into_iter().filter_map(|folder| memory_bytes(&folder, &read));
    Limits { cores: cores.min_by(f64::total_cmp), memory_bytes: memory.min() }
}

/// The folders of the control groups that govern `controller`, in version 2 and version 1, each
/// with those around it.
fn folders(groups: &str, controller: &str) -> Vec<PathBuf> {
    let mount = Path::new("/sys/fs/cgroup");
    groups
        .lines()
        .filter_map(|line| {
            let mut fields = line.splitn(3, ':').skip(1);
            Some((fields.next()?, fields.next()?.trim_start_matches('/')))
        })
        .filter_map(|(controllers, path)| match controllers {
            "" => Some((mount.to_owned(), path)),
            _ if controllers.split(',').any(|one| one == controller) => {
                Some((mount.join(controller), path))
            }
            _ => None,
        })
        .flat_map(|(root, path)| {
            let own = root.join(path);
            let around = own.ancestors().take_while(|folder| folder.starts_with(&root));
            around.map(Path::to_owned).collect::<Vec<_>>()
        })
        .collect()
}

fn cores(folder: &Path, read: impl Fn(&Path) -> Option<String>) -> Option<f64> {
    if let Some(text) = read(&folder.join("cpu.max")) {
        let (quota, period) = text.trim().split_once(' ')?;
        return share(quota, period);
    }
    let quota = read(&folder.join("cpu.cfs_quota_us"))?;
    share(&quota, &read(&folder.join("cpu.cfs_period_us"))?)
}

/// `quota` is `max` or -1 where there is none.
fn share(quota: &str, period: &str) -> Option<f64> {
    let (quota, period): (f64, f64) = (quota.trim().parse().ok()?, period.trim().parse().ok()?);
    (quota > 0.0 && period > 0.0).then(|| quota / period)
}

/// `max`, or close to 2⁶³, where there is no limit; the latter is more than any machine has.
fn memory_bytes(folder: &Path, read: impl Fn(&Path) -> Option<String>) -> Option<u64> {
    let text =
        read(&folder.join("memory.max")).or_else(|| read(&folder.join("memory.limit_in_bytes")))?;
    text.trim().parse().ok()
}

/// A row like `VmRSS:  1234 kB` of `/proc/self/status` or `/proc/meminfo`, in bytes.
pub(super) fn row_bytes(text: &str, name: &str) -> Option<u64> {
    let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
    value.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1_024)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A file system that has only `files`.
    fn limits(groups: &str, files: &[(&str, &str)]) -> Limits {
        of_groups(groups, |path| {
            let file = files.iter().find(|(name, _)| Path::new(name) == path)?;
            Some(file.1.to_owned())
        })
    }

    #[test]
    fn version_2_in_a_container_with_a_namespace() {
        let files = [
            ("/sys/fs/cgroup/cpu.max", "150000 100000\n"),
            ("/sys/fs/cgroup/memory.max", "1073741824\n"),
        ];
        let expected = Limits { cores: Some(1.5), memory_bytes: Some(1 << 30) };
        assert_eq!(limits("0::/\n", &files), expected);
    }

    #[test]
    fn version_2_on_a_host_where_an_outer_group_is_the_tighter() {
        let files = [
            ("/sys/fs/cgroup/system.slice/inferno.service/cpu.max", "300000 100000\n"),
            ("/sys/fs/cgroup/system.slice/inferno.service/memory.max", "4096\n"),
            ("/sys/fs/cgroup/system.slice/cpu.max", "50000 100000\n"),
            ("/sys/fs/cgroup/system.slice/memory.max", "8192\n"),
            ("/sys/fs/cgroup/memory.max", "max\n"),
        ];
        let expected = Limits { cores: Some(0.5), memory_bytes: Some(4096) };
        assert_eq!(limits("0::/system.slice/inferno.service\n", &files), expected);
    }

    #[test]
    fn version_1_on_a_host_and_in_a_container() {
        let groups =
            "4:memory:/docker/abc\n3:cpu,cpuacct:/docker/abc\n1:name=systemd:/docker/abc\n";
        for folder in ["/docker/abc", ""] {
            let at = |controller: &str, file: &str| {
                format!("/sys/fs/cgroup/{controller}{folder}/{file}")
            };
            let (quota, period, memory) = (
                at("cpu", "cpu.cfs_quota_us"),
                at("cpu", "cpu.cfs_period_us"),
                at("memory", "memory.limit_in_bytes"),
            );
            let files = [
                (quota.as_str(), "200000\n"),
                (period.as_str(), "100000\n"),
                (memory.as_str(), "2048\n"),
            ];
            let expected = Limits { cores: Some(2.0), memory_bytes: Some(2048) };
            assert_eq!(limits(groups, &files), expected, "{folder:?}");
        }
    }

    #[test]
    fn no_limit_is_none() {
        assert_eq!(limits("", &[]), Limits::default());
        assert_eq!(limits("0::/\n", &[]), Limits::default());
        let unlimited =
            [("/sys/fs/cgroup/cpu.max", "max 100000\n"), ("/sys/fs/cgroup/memory.max", "max\n")];
        assert_eq!(limits("0::/\n", &unlimited), Limits::default());
        let unlimited = [
            ("/sys/fs/cgroup/cpu/cpu.cfs_quota_us", "-1\n"),
            ("/sys/fs/cgroup/cpu/cpu.cfs_period_us", "100000\n"),
        ];
        assert_eq!(limits("3:cpu:/\n", &unlimited), Limits::default());
    }

    #[test]
    fn what_makes_no_sense_limits_nothing() {
        for text in ["", "\n", "many", "1 2 3", "0 0", "100000"] {
            let files = [("/sys/fs/cgroup/cpu.max", text), ("/sys/fs/cgroup/memory.max", text)];
            assert_eq!(limits("0::/\nnonsense\n:\n", &files).cores, None, "{text:?}");
        }
    }

    #[test]
    fn rows_of_proc_are_bytes() {
        let status = "VmPeak:\t  900 kB\nVmRSS:\t   12 kB\nRssAnon: 1 kB\n";
        assert_eq!(row_bytes(status, "VmRSS"), Some(12 << 10));
        assert_eq!(row_bytes("MemTotal:       24576 kB\n", "MemTotal"), Some(24 << 20));
        assert_eq!(row_bytes("Threads: 5\n", "Threads"), None);
        assert_eq!(row_bytes("", "VmRSS"), None);
    }
}
