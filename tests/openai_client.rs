//! The official `openai` Python client runs through the proxy, as a user's program would.

use inferno_tests::{EMBEDDING_MODEL, MODEL, embedding_model_path, fleet::Fleet};
use std::{fs::File, path::PathBuf, process::Command};

/// Pinned: what the client sends and expects changes with its versions.
const PACKAGE: &str = "openai==3.54.0";

/// A folder with the client in it, installed once; test programs that come at once wait for each other.
fn installed() -> PathBuf {
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("python");
    std::fs::create_dir_all(&folder).expect("a folder");
    let lock = File::create(folder.join("lock")).expect("a lock file");
    lock.lock().expect("locked");
    let marker = folder.join(PACKAGE);
    if !marker.exists() {
        let pip = Command::new("python3")
            .args(["-m", "pip", "install", "--quiet", "--upgrade", "--target"])
            .arg(&folder)
            .arg(PACKAGE)
            .output()
            .expect("python3 runs");
        assert!(pip.status.success(), "pip: {}", String::from_utf8_lossy(&pip.stderr));
        File::create(marker).expect("a marker");
    }
    folder
}

#[tokio::test]
async fn the_official_client_works() {
    let mut fleet = Fleet::start(1).await;
    embedding_model_path();
    fleet.add_backend(&[&format!("backend.model={EMBEDDING_MODEL}")]);
    fleet.wait_for_state("backend-2", "ready").await;
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/openai_client.py");
    let url = format!("http://{}/v1", fleet.traffic);
    let run = tokio::task::spawn_blocking(move || {
        Command::new("python3")
            .arg(script)
            .args([&url, MODEL, EMBEDDING_MODEL])
            .env("PYTHONPATH", installed())
            .output()
    });
    let output = run.await.expect("ran").expect("python3 runs");
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}\n{}", String::from_utf8_lossy(&output.stderr));
    let parts = "chat stream completions lists n structured embeddings models errors";
    assert_eq!(said.trim(), parts, "{said}");
}
