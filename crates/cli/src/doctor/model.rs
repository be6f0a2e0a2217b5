//! The model: its folder, its file, its hash, and the memory it would take.

use std::path::{Path, PathBuf};

use inferno_engine::store::{self, ModelStore, ResolvedModel, StoreError, Verification};
use inferno_engine::{EngineOptions, LoadError, Survey, catalogue, survey};
use inferno_shared::Config;
use inferno_shared::resources::allowed_memory_bytes;
use nix::sys::statvfs::statvfs;
use nix::unistd::{AccessFlags, access};

use super::Finding;
use crate::console::size;

/// Larger files are not hashed here: that would take more than a few seconds.
const HASHED_BYTES_MAX: u64 = 1 << 30;

pub(super) fn examine(config: &Config) -> Vec<Finding> {
    let store = match ModelStore::open_default() {
        Ok(store) => store,
        Err(error) => {
            return vec![Finding::problem(
                "folder",
                error.to_string(),
                "export INFERNO_MODELS=FOLDER",
            )];
        }
    };
    let name = &config.backend.model;
    let resolved = store.resolve(name);
    let missing = resolved.is_err().then(|| catalogue::find(name).map_or(0, |entry| entry.bytes));
    let mut findings = vec![folder(&Folder::look(store.root()), missing)];
    match resolved {
        Err(error) => findings.push(absent(&error)),
        Ok(resolved) => {
            findings.push(hash(&resolved, verify(&store, name, &resolved.path)));
            findings.push(memory(survey(&resolved.path, &options(config)), allowed_memory_bytes()));
        }
    }
    findings
}

/// The folder that models live in.
struct Folder {
    path: PathBuf,
    exists: bool,
    /// It, or where it would be made, can be written.
    writable: bool,
    /// Of its file system, for us.
    free_bytes: Option<u64>,
}

impl Folder {
    fn look(path: &Path) -> Self {
        let nearest = path.ancestors().find(|folder| folder.is_dir()).unwrap_or(Path::new("/"));
        let space = statvfs(nearest).ok();
        Self {
            path: path.to_owned(),
            exists: path.is_dir(),
            writable: access(nearest, AccessFlags::W_OK).is_ok(),
            free_bytes: space.map(|space| space.blocks_available() * space.fragment_size()),
        }
    }
}

/// Whether models can be brought there; `missing` is the size of the one that still has to be.
fn folder(folder: &Folder, missing: Option<u64>) -> Finding {
    const CHECK: &str = "folder";
    let path = folder.path.display();
    let free = folder.free_bytes.map(|free| format!(", {} free", size(free))).unwrap_or_default();
    match (folder.writable, missing) {
        (false, Some(_)) => Finding::problem(
            CHECK,
            format!("{path} cannot be written, and the model is not there"),
            "set INFERNO_MODELS to a folder of yours, or pull the model as the folder's owner",
        ),
        (false, None) => Finding::ok(CHECK, format!("{path} is read-only for us, which is enough")),
        (true, Some(bytes)) if folder.free_bytes.is_some_and(|free| free < bytes) => {
            Finding::problem(
                CHECK,
                format!("{path}{free}, and the model takes {}", size(bytes)),
                "make room, or set INFERNO_MODELS to a folder on another disk",
            )
        }
        (true, _) => {
            let not_yet = if folder.exists { "" } else { " (made when a model is pulled)" };
            Finding::ok(CHECK, format!("{path}{not_yet}{free}"))
        }
    }
}

fn absent(error: &StoreError) -> Finding {
    const CHECK: &str = "model";
    match error {
        StoreError::NotPulled { name, .. } => Finding::warning(
            CHECK,
            format!("{name} is not pulled"),
            format!("`inferno model pull {name}`; `inferno up` does it by itself"),
        ),
        error => Finding::problem(
            CHECK,
            error.to_string(),
            "`inferno model list` shows the models there are",
        ),
    }
}

/// Hashes a model of moderate size.
fn verify(store: &ModelStore, name: &str, path: &Path) -> Option<Result<Verification, StoreError>> {
    let bytes = store::bytes_of(path).ok()?;
    (bytes <= HASHED_BYTES_MAX).then(|| store.verify(name, &mut |_| {}))
}

fn hash(model: &ResolvedModel, verified: Option<Result<Verification, StoreError>>) -> Finding {
    const CHECK: &str = "model";
    let id = &model.id;
    match verified {
        Some(Ok(verification)) if verification.is_ok() => {
            Finding::ok(CHECK, format!("{id}, hash verified"))
        }
        Some(Ok(verification)) => Finding::problem(
            CHECK,
            format!(
                "{id} is damaged: {} has another hash than it should",
                verification.path.display()
            ),
            "remove it, and `inferno model pull` it again",
        ),
        Some(Err(StoreError::NoManifest { .. })) => Finding::ok(
            CHECK,
            format!(
                "{id} at {}: a file of yours, nothing to verify it against",
                model.path.display()
            ),
        ),
        Some(Err(error)) => {
            Finding::problem(CHECK, error.to_string(), "`inferno model pull` it again")
        }
        None => Finding::ok(CHECK, format!("{id}, large: `inferno model verify` hashes it")),
    }
}

/// What a backend of this configuration would load it with.
fn options(config: &Config) -> EngineOptions {
    EngineOptions {
        kv_bytes: config.backend.kv_memory.map(|size| size.0),
        max_concurrency: config.backend.max_concurrency,
        context_max: config.backend.context_max,
        ..EngineOptions::default()
    }
}

fn memory(survey: Result<Survey, LoadError>, allowed_bytes: u64) -> Finding {
    const CHECK: &str = "memory";
    let survey = match survey {
        Ok(survey) => survey,
        Err(error @ (LoadError::Memory { .. } | LoadError::Overcommitted { .. })) => {
            let text = format!("of {} allowed: {error}", size(allowed_bytes));
            return Finding::problem(CHECK, text, "or give this machine or container more");
        }
        Err(error) => {
            return Finding::problem(
                CHECK,
                error.to_string(),
                "take another model: `inferno model list`",
            );
        }
    };
    let needed: u64 = survey.budget.iter().map(|line| line.bytes).sum();
    let lines = survey.budget.iter().map(|line| format!("{} {}", size(line.bytes), line.name));
    let text = format!(
        "{} available of {}; a backend takes up to {}: {}",
        size(survey.available_bytes),
        size(allowed_bytes),
        size(needed),
        lines.collect::<Vec<_>>().join(", ")
    );
    match needed > survey.available_bytes {
        true => Finding::warning(
            CHECK,
            text,
            "lower backend.kv_memory, backend.context_max or backend.max_concurrency",
        ),
        false => Finding::ok(CHECK, text),
    }
}

#[cfg(test)]
mod tests {
    use super::super::Verdict;
    use super::*;
    use inferno_engine::BudgetLine;

    fn at(writable: bool, free_bytes: u64) -> Folder {
        Folder { path: "/models".into(), exists: true, writable, free_bytes: Some(free_bytes) }
    }

    #[test]
    fn the_folder_must_be_writable_and_large_enough_only_for_what_is_missing() {
        let verdict = |folder_: Folder, missing| folder(&folder_, missing).verdict;
        assert_eq!(verdict(at(false, 0), None), Verdict::Ok);
        assert_eq!(verdict(at(false, 0), Some(5)), Verdict::Problem);
        assert_eq!(verdict(at(true, 4), Some(5)), Verdict::Problem);
        assert_eq!(verdict(at(true, 5), Some(5)), Verdict::Ok);
        assert_eq!(verdict(at(true, 0), None), Verdict::Ok);
    }

    #[test]
    fn a_folder_that_is_not_there_is_looked_at_where_it_would_be_made() {
        let parent = tempfile::tempdir().expect("a folder");
        let folder = Folder::look(&parent.path().join("a/b"));
        assert!(!folder.exists && folder.writable && folder.free_bytes > Some(0));
    }

    #[test]
    fn a_model_is_missing_or_damaged_or_verified() {
        let not_pulled = StoreError::NotPulled { name: "m".into(), path: "/m".into() };
        assert_eq!(absent(&not_pulled).verdict, Verdict::Warning);
        assert_eq!(absent(&StoreError::NoSuchFile { path: "/m".into() }).verdict, Verdict::Problem);
        let model = ResolvedModel { id: "m".into(), path: "/m".into(), sha256: None };
        let verification = |found: &str| Verification {
            path: "/m".into(),
            expected: "aa".into(),
            found: found.into(),
        };
        assert_eq!(hash(&model, Some(Ok(verification("aa")))).verdict, Verdict::Ok);
        assert_eq!(hash(&model, Some(Ok(verification("bb")))).verdict, Verdict::Problem);
        let own = StoreError::NoManifest { path: "/m".into() };
        assert_eq!(hash(&model, Some(Err(own))).verdict, Verdict::Ok);
        assert!(hash(&model, None).text.contains("large"));
    }

    #[test]
    fn memory_is_compared_with_what_is_available_now() {
        let survey = |available_bytes| Survey {
            architecture: "llama".into(),
            context_length: 8,
            budget: vec![
                BudgetLine { name: "weights", bytes: 2 << 20 },
                BudgetLine { name: "KV cache", bytes: 1 << 20 },
            ],
            available_bytes,
        };
        let enough = memory(Ok(survey(3 << 20)), 1 << 30);
        let text = "3.0 MiB available of 1.0 GiB; a backend takes up to 3.0 MiB: 2.0 MiB weights, 1.0 MiB KV cache";
        assert_eq!(enough, Finding::ok("memory", text));
        assert_eq!(memory(Ok(survey((3 << 20) - 1)), 1 << 30).verdict, Verdict::Warning);
        let refused = LoadError::Overcommitted { configured: 2, available: 1, taken: 0 };
        assert_eq!(memory(Err(refused), 1 << 30).verdict, Verdict::Problem);
    }
}
