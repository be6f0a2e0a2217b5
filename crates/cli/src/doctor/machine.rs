//! The machine: processor, cores, descriptors, GPU, container.

use std::path::Path;

use inferno_shared::Config;
use inferno_shared::config::ConfigError;
use inferno_shared::resources::allowed_cores;
use nix::sys::resource::{Resource, getrlimit};

use super::Finding;

/// A busy proxy holds two descriptors a request.
const DESCRIPTORS_WANTED: u64 = 4_096;
/// Fewer cannot even start a few hundred connections.
const DESCRIPTORS_NEEDED: u64 = 256;

/// Where the dynamic loader finds the driver's library, by distribution.
const CUDA_LIBRARIES: &[&str] = &[
    "/usr/lib/x86_64-linux-gnu/libcuda.so.1",
    "/usr/lib/aarch64-linux-gnu/libcuda.so.1",
    "/usr/lib64/libcuda.so.1",
    "/usr/lib/libcuda.so.1",
    "/run/opengl-driver/lib/libcuda.so.1",
];

pub(super) fn examine(config: &Result<Config, ConfigError>) -> Vec<Finding> {
    let threads = config.as_ref().ok().and_then(|config| config.backend.threads);
    vec![
        processor(&Features::of_this_machine()),
        cores(allowed_cores(), machine_cores(), threads),
        descriptors(getrlimit(Resource::RLIMIT_NOFILE).ok()),
        gpu(driver_version().as_deref(), has_cuda_library()),
        surroundings(container(), cgroup_version()),
    ]
}

/// What the processor can do, as far as our kernels care.
#[derive(Clone, Copy, Debug, Default)]
struct Features {
    x86_64: bool,
    avx2: bool,
    avx512: bool,
    vnni: bool,
}

impl Features {
    #[cfg(target_arch = "x86_64")]
    fn of_this_machine() -> Self {
        use std::arch::is_x86_feature_detected as has;
        Self {
            x86_64: true,
            avx2: has!("avx2") && has!("fma") && has!("f16c"),
            avx512: has!("avx512f") && has!("avx512bw") && has!("avx512dq") && has!("avx512vl"),
            vnni: has!("avx512vnni") || has!("avxvnni"),
        }
    }

    #[cfg(not(target_arch = "x86_64"))]
    fn of_this_machine() -> Self {
        Self::default()
    }
}

fn processor(features: &Features) -> Finding {
    const CHECK: &str = "processor";
    match features {
        Features { x86_64: false, .. } => Finding::warning(
            CHECK,
            "not x86-64: built for it, but not tested",
            "tell us how it goes",
        ),
        Features { avx2: false, .. } => Finding::problem(
            CHECK,
            "no AVX2, FMA and F16C: a backend does not start here",
            "use a processor from 2013 on; in a virtual machine, hand the host's processor through (`-cpu host`)",
        ),
        Features { avx512, vnni, .. } => {
            let more = [(*avx512, "AVX-512"), (*vnni, "VNNI")];
            let has = more.iter().filter(|(has, _)| *has).map(|(_, name)| *name);
            Finding::ok(CHECK, std::iter::once("AVX2").chain(has).collect::<Vec<_>>().join(", "))
        }
    }
}

fn machine_cores() -> usize {
    let cpus = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    cpus.lines().filter(|line| line.starts_with("processor")).count()
}

/// `allowed` cores of the machine's, and the threads that the configuration asks for.
fn cores(allowed: f64, machine: usize, threads: Option<usize>) -> Finding {
    const CHECK: &str = "cores";
    let share = match machine as f64 > allowed {
        true => format!("{allowed} of {machine} cores (cgroup quota or affinity)"),
        false => format!("{allowed} cores"),
    };
    if let Some(threads) = threads.filter(|threads| *threads as f64 > allowed.ceil()) {
        return Finding::warning(
            CHECK,
            format!("{share}, but backend.threads is {threads}: threads wait for one another"),
            "leave backend.threads out",
        );
    }
    match allowed < 1.0 {
        true => {
            Finding::warning(CHECK, format!("{share}: generation will be slow"), "raise the quota")
        }
        false => Finding::ok(CHECK, share),
    }
}

/// The soft and the hard limit of open files.
fn descriptors(limits: Option<(u64, u64)>) -> Finding {
    const CHECK: &str = "descriptors";
    let Some((soft, hard)) = limits else {
        return Finding::warning(CHECK, "the limit cannot be read", "see `ulimit -n`");
    };
    let fix =
        format!("`ulimit -n {}`, or LimitNOFILE= of the service", DESCRIPTORS_WANTED.min(hard));
    let text = format!("{soft} open files at most");
    match soft {
        ..DESCRIPTORS_NEEDED => Finding::problem(CHECK, text, fix),
        ..DESCRIPTORS_WANTED if soft < hard => {
            Finding::warning(CHECK, format!("{text}: too few for many clients of a proxy"), fix)
        }
        _ => Finding::ok(CHECK, text),
    }
}

/// The version in `/proc/driver/nvidia/version`, whose first line is
/// `NVRM version: NVIDIA UNIX x86_64 Kernel Module  550.54.15  …`.
fn driver_version() -> Option<String> {
    let text = std::fs::read_to_string("/proc/driver/nvidia/version").ok()?;
    version_in(&text)
}

fn version_in(text: &str) -> Option<String> {
    let is_version = |word: &&str| {
        word.contains('.') && word.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.')
    };
    text.lines().next()?.split_whitespace().find(is_version).map(str::to_owned)
}

fn has_cuda_library() -> bool {
    CUDA_LIBRARIES.iter().any(|path| Path::new(path).exists())
}

fn gpu(driver: Option<&str>, library: bool) -> Finding {
    const CHECK: &str = "gpu";
    match (driver, library) {
        (Some(version), true) => Finding::ok(
            CHECK,
            format!(
                "NVIDIA driver {version} is here, but this build has no CUDA: it computes on the processor"
            ),
        ),
        (Some(version), false) => Finding::warning(
            CHECK,
            format!(
                "NVIDIA driver {version} is here without libcuda.so.1; this build has no CUDA and does not need it"
            ),
            "in a container: the NVIDIA container toolkit brings it",
        ),
        (None, _) => Finding::ok(CHECK, "no NVIDIA driver: it computes on the processor"),
    }
}

/// Whose container this is, if one leaves its mark.
fn container() -> Option<&'static str> {
    let marks = [("/.dockerenv", "Docker"), ("/run/.containerenv", "Podman")];
    let marked = marks.iter().find(|(mark, _)| Path::new(mark).exists()).map(|(_, whose)| *whose);
    let kubernetes = std::env::var_os("KUBERNETES_SERVICE_HOST").is_some();
    if kubernetes { Some("Kubernetes") } else { marked }
}

/// 2 has its controllers in one tree, 1 a tree for each.
fn cgroup_version() -> Option<u8> {
    let exists = |path: &str| Path::new(path).exists();
    match (exists("/sys/fs/cgroup/cgroup.controllers"), exists("/sys/fs/cgroup/memory")) {
        (true, _) => Some(2),
        (false, true) => Some(1),
        (false, false) => None,
    }
}

fn surroundings(container: Option<&str>, cgroup: Option<u8>) -> Finding {
    const CHECK: &str = "container";
    let place = container
        .map_or("not in a container".to_owned(), |whose| format!("in a container ({whose})"));
    match cgroup {
        Some(version) => Finding::ok(CHECK, format!("{place}, cgroup v{version}")),
        None if container.is_some() => Finding::warning(
            CHECK,
            format!(
                "{place} without /sys/fs/cgroup: its limits cannot be seen, the machine's count"
            ),
            "mount it, or set backend.threads and backend.kv_memory",
        ),
        None => Finding::ok(CHECK, format!("{place}, no cgroups")),
    }
}

#[cfg(test)]
mod tests {
    use super::super::Verdict;
    use super::*;

    #[test]
    fn a_processor_without_avx2_is_a_problem() {
        let old = Features { x86_64: true, ..Features::default() };
        assert_eq!(processor(&old).verdict, Verdict::Problem);
        let new = Features { avx2: true, avx512: true, vnni: true, ..old };
        assert_eq!(processor(&new), Finding::ok("processor", "AVX2, AVX-512, VNNI"));
        assert_eq!(processor(&Features::default()).verdict, Verdict::Warning);
    }

    #[test]
    fn cores_are_what_the_quota_leaves() {
        assert_eq!(cores(4.0, 4, None), Finding::ok("cores", "4 cores"));
        let quota = cores(1.5, 8, Some(2));
        assert_eq!(quota, Finding::ok("cores", "1.5 of 8 cores (cgroup quota or affinity)"));
        assert_eq!(cores(1.5, 8, Some(3)).verdict, Verdict::Warning);
        assert_eq!(cores(0.5, 8, None).verdict, Verdict::Warning);
    }

    #[test]
    fn few_descriptors_are_told_with_the_limit_that_can_be_had() {
        assert_eq!(descriptors(Some((64, 1 << 20))).verdict, Verdict::Problem);
        let few = descriptors(Some((1024, 2048)));
        assert_eq!(few.verdict, Verdict::Warning);
        assert!(few.fix.expect("a fix").contains("ulimit -n 2048"));
        assert_eq!(descriptors(Some((1024, 1024))).verdict, Verdict::Ok);
        assert_eq!(descriptors(Some((1 << 20, 1 << 20))).verdict, Verdict::Ok);
        assert_eq!(descriptors(None).verdict, Verdict::Warning);
    }

    #[test]
    fn a_driver_is_named_and_that_it_is_not_used() {
        let text =
            "NVRM version: NVIDIA UNIX x86_64 Kernel Module  550.54.15  Tue Mar  5\nGCC version:";
        assert_eq!(version_in(text).as_deref(), Some("550.54.15"));
        assert!(gpu(Some("550.54.15"), true).text.contains("no CUDA"));
        assert_eq!(gpu(Some("550.54.15"), false).verdict, Verdict::Warning);
        assert_eq!(gpu(None, false).verdict, Verdict::Ok);
    }

    #[test]
    fn a_container_without_cgroups_hides_its_limits() {
        assert_eq!(
            surroundings(Some("Docker"), Some(2)).text,
            "in a container (Docker), cgroup v2"
        );
        assert_eq!(surroundings(Some("Docker"), None).verdict, Verdict::Warning);
        assert_eq!(surroundings(None, None).verdict, Verdict::Ok);
    }
}
