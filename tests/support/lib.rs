//! What the end-to-end tests share: real processes on free ports, a client, and patience.
//!
//! Nothing here sleeps to let something happen: it waits for the event, and gives up after
//! [`PATIENCE`] with what the processes logged.

pub mod client;
pub mod cpu;
pub mod debian;
pub mod fleet;
pub mod http;
pub mod probe;
pub mod process;
pub mod stand_in;
pub mod vocabulary;

use std::{future::Future, path::PathBuf, process::Command, sync::OnceLock, time::Duration};

/// How long anything may take on a slow, shared machine before it counts as not happening.
pub const PATIENCE: Duration = Duration::from_secs(120);
/// The model every test uses.
pub const MODEL: &str = "smollm2-135m-instruct";

/// The model of the tests of embeddings.
pub const EMBEDDING_MODEL: &str = "all-minilm-l6-v2";

/// The program under test, which cargo put beside the folder of the test programs.
pub fn program() -> PathBuf {
    let own = std::env::current_exe().expect("a test program has a path");
    let folder = own.ancestors().nth(2).expect("target/PROFILE/deps/TEST");
    folder.join("inferno-under-test")
}

/// A command of the program, in an environment without our variables but `INFERNO_MODELS`.
pub fn command(arguments: &[&str]) -> Command {
    let mut command = Command::new(program());
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("INFERNO_") && name != "INFERNO_MODELS" {
            command.env_remove(name);
        }
    }
    command.args(arguments);
    command
}

/// The path of the model file, pulled once if it is not there, as a user would.
pub fn model_path() -> PathBuf {
    static PATH: OnceLock<PathBuf> = OnceLock::new();
    PATH.get_or_init(|| pulled(MODEL)).clone()
}

/// The path of the embedding model's directory, likewise.
pub fn embedding_model_path() -> PathBuf {
    static PATH: OnceLock<PathBuf> = OnceLock::new();
    PATH.get_or_init(|| pulled(EMBEDDING_MODEL)).clone()
}

fn pulled(name: &str) -> PathBuf {
    let pulled = command(&["model", "pull", name]).output().expect("the program runs");
    assert!(pulled.status.success(), "{}", String::from_utf8_lossy(&pulled.stderr));
    let store = inferno_engine::store::ModelStore::open_default().expect("a model folder");
    store.resolve(name).expect("just pulled").path
}

/// Asks until the answer is `Some`.
///
/// # Panics
/// After [`PATIENCE`], naming `what`.
pub async fn wait_for<T, F: Future<Output = Option<T>>>(
    what: &str,
    mut ask: impl FnMut() -> F,
) -> T {
    let asked = async {
        loop {
            if let Some(answer) = ask().await {
                return answer;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(PATIENCE, asked).await.unwrap_or_else(|_| panic!("never happened: {what}"))
}
