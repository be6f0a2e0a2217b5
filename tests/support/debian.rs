//! Programs of other people, for tests and benchmarks against the real thing.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

/// Where `name` is: on the `PATH`, or in Debian's `package`, which is fetched and unpacked into
/// cargo's `target/tmp`. It is not installed: that would start a daemon.
///
/// # Errors
/// What to install, if it can be had in neither way.
pub fn program(package: &str, name: &str) -> Result<PathBuf, String> {
    if let Some(path) = on_path(name) {
        return Ok(path);
    }
    let own = std::env::current_exe().expect("a test program has a path");
    let target = own.ancestors().nth(3).expect("target/PROFILE/deps/TEST");
    let folder = target.join("tmp").join(format!("debian-{package}"));
    if !folder.exists() {
        fetch(package, &folder).map_err(|why| {
            format!(
                "the program `{name}` is needed: install Debian's package `{package}`, or make \
                 `apt-get download {package}` work (`apt-get update` may be all); that said: {why}"
            )
        })?;
    }
    let found = ["usr/bin", "usr/sbin"].iter().map(|bin| folder.join(bin).join(name));
    let found = found.into_iter().find(|path| path.is_file());
    found.ok_or_else(|| format!("Debian's package `{package}` has no program `{name}`"))
}

fn on_path(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|folder| folder.join(name)).find(|path| path.is_file())
}

/// Unpacks `package` into `folder`, all of it or nothing: another test may be at it too.
fn fetch(package: &str, folder: &Path) -> Result<(), String> {
    let beside = folder.parent().expect("a folder in a folder");
    std::fs::create_dir_all(beside).map_err(|error| error.to_string())?;
    let work = tempfile::tempdir_in(beside).map_err(|error| error.to_string())?;
    run(Command::new("apt-get").args(["download", "-qq", package]).current_dir(work.path()))?;
    let mut files = work.path().read_dir().map_err(|error| error.to_string())?.flatten();
    let file = files.next().ok_or("nothing was downloaded")?.path();
    let unpacked = work.path().join("unpacked");
    run(Command::new("dpkg").arg("-x").args([&file, &unpacked]))?;
    match std::fs::rename(&unpacked, folder) {
        Err(error) if !folder.exists() => Err(error.to_string()),
        _ => Ok(()),
    }
}

fn run(command: &mut Command) -> Result<(), String> {
    let output = command.output().map_err(|error| format!("{command:?}: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    Err(format!("{command:?}: {}", String::from_utf8_lossy(&output.stderr).trim()))
}
