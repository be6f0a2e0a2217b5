//! How much memory this process may still take, and how much of it goes to the KV cache.

use crate::error::LoadError;
use std::path::{Path, PathBuf};

/// What to assume where the system does not say.
const UNKNOWN: u64 = 4 << 30;

/// What the rest of a process takes beside the model: tokenizer, connections, prompts and answers under way.
pub(crate) const REST_BYTES: u64 = 64 << 20;

/// Most blocks a cache can number.
const BLOCKS_MAX: u64 = u32::MAX as u64;

/// Memory that can be taken now without swapping or being killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Available {
    pub(crate) bytes: u64,
    /// Whether a control group's limit says so, and not what the machine has left: then nobody else counts
    /// on it.
    pub(crate) own: bool,
}

/// What a model asks for. Sizes in bytes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Needs {
    /// Weights in memory.
    pub(crate) weights: u64,
    /// Buffers of the largest step.
    pub(crate) activations: u64,
    /// One block of the cache.
    pub(crate) block: u64,
    /// Blocks of a sequence as long as the context.
    pub(crate) sequence_blocks: u64,
    /// The context, in tokens.
    pub(crate) context: usize,
    /// Sequences that run together at most.
    pub(crate) sequences: u64,
}

impl Needs {
    /// Blocks of the cache: what is `configured`, or a share of what weights and activations leave of what is
    /// available. Of a limit of its own a process takes three quarters of that, of a machine that others use too
    /// a quarter (each counts what the others have really taken), but at least one sequence's, up to half.
    pub(crate) fn blocks(
        &self,
        configured: Option<u64>,
        available: Available,
    ) -> Result<u32, LoadError> {
        let taken = self.weights + self.activations + REST_BYTES;
        let left = available.bytes.saturating_sub(taken);
        let one_sequence = self.sequence_blocks.saturating_mul(self.block);
        let (bytes, origin) = match (configured, available.own) {
            (Some(configured), _) if configured > left => {
                return Err(LoadError::Overcommitted { configured, available: left, taken });
            }
            (Some(configured), _) => (configured, "configured"),
            (None, true) => (left / 4 * 3, "three quarters of what is left of the memory limit"),
            (None, false) if one_sequence > left / 4 => {
                (one_sequence.min(left / 2), "half of what is left of the memory")
            }
            (None, false) => (left / 4, "a quarter of what is left of the memory"),
        };
        let useful = self.sequence_blocks.saturating_mul(self.sequences);
        let blocks = (bytes / self.block).min(useful).min(BLOCKS_MAX);
        if blocks < self.sequence_blocks {
            let (needed, context) = (one_sequence, self.context);
            return Err(LoadError::Memory { needed, available: bytes, origin, context, taken });
        }
        Ok(blocks as u32)
    }
}

/// The least of what the machine has and what each enclosing control group still allows.
#[must_use]
pub(crate) fn available() -> Available {
    let machine =
        std::fs::read_to_string("/proc/meminfo").ok().and_then(|text| mem_available(&text));
    let groups = std::fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let groups = cgroup_folders(&groups).into_iter().flat_map(|folder| {
        let ancestors: Vec<PathBuf> = folder.ancestors().map(Path::to_owned).collect();
        ancestors.into_iter().take_while(|folder| folder.starts_with("/sys/fs/cgroup"))
    });
    let group = groups.filter_map(|folder| left_in(&folder)).min();
    match (machine, group) {
        (Some(machine), Some(group)) if machine <= group => {
            Available { bytes: machine, own: false }
        }
        (_, Some(group)) => Available { bytes: group, own: true },
        (machine, None) => Available { bytes: machine.unwrap_or(UNKNOWN), own: false },
    }
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

    const GIB: u64 = 1 << 30;

    /// 10,000 blocks of one sequence, of 10 KiB each, beside a gibibyte of weights.
    const NEEDS: Needs = Needs {
        weights: GIB - REST_BYTES,
        activations: 0,
        block: 10 << 10,
        sequence_blocks: 10_000,
        context: 320_000,
        sequences: 1_000,
    };

    fn blocks(configured: Option<u64>, gib: u64, own: bool) -> Result<u64, LoadError> {
        let blocks = NEEDS.blocks(configured, Available { bytes: gib * GIB, own });
        blocks.map(u64::from)
    }

    #[test]
    fn a_limit_of_ones_own_is_used_further_than_a_machine_of_all() {
        assert_eq!(blocks(None, 9, true).unwrap(), 6 * GIB / NEEDS.block);
        assert_eq!(blocks(None, 9, false).unwrap(), 2 * GIB / NEEDS.block);
    }

    #[test]
    fn one_sequence_may_have_half_of_a_machine() {
        let one = NEEDS.sequence_blocks;
        let tight = Available { bytes: GIB + 2 * one * NEEDS.block, own: false };
        assert_eq!(NEEDS.blocks(None, tight).unwrap(), one as u32);
    }

    #[test]
    fn too_little_is_refused_with_numbers() {
        let tight = Available { bytes: GIB + NEEDS.block, own: true };
        let error = NEEDS.blocks(None, tight).unwrap_err();
        let LoadError::Memory { needed, available, taken, .. } = error else { panic!("{error}") };
        assert_eq!(needed, NEEDS.sequence_blocks * NEEDS.block);
        assert_eq!((available, taken), (NEEDS.block / 4 * 3, GIB));
        let error = blocks(Some(8 * GIB + 1), 9, true).unwrap_err();
        let LoadError::Overcommitted { configured, available, .. } = error else {
            panic!("{error}")
        };
        assert_eq!((configured, available), (8 * GIB + 1, 8 * GIB));
        assert!(blocks(Some(8 * GIB), 9, false).is_ok(), "what is configured is given");
        assert!(blocks(None, 0, true).is_err());
    }

    #[test]
    fn more_than_all_sequences_can_use_is_not_taken() {
        let few = Needs { sequences: 2, ..NEEDS };
        let much = Available { bytes: 100 * GIB, own: true };
        assert_eq!(few.blocks(None, much).unwrap(), 20_000);
    }

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
