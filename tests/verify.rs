//! `inferno verify` against a real fleet: what was saved comes out again, or it is said what does not.

use inferno_tests::{MODEL, command, fleet::Fleet};
use serde_json::{Value, json};
use std::{
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
};

/// A request that was saved with its answer, as `curl` saves it.
struct Saved {
    folder: tempfile::TempDir,
    request: Value,
}

impl Saved {
    fn new(request: Value) -> Self {
        Self { folder: tempfile::tempdir().expect("a folder"), request }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn write(&self, name: &str, text: &str) -> PathBuf {
        std::fs::write(self.path(name), text).expect("written");
        self.path(name)
    }

    /// Asks with curl's own hands, and keeps what it says.
    async fn ask(&self, fleet: &Fleet, path: &str) -> PathBuf {
        let request = self.write("request.json", &self.request.to_string());
        let answer = self.path("answer");
        let mut curl = Command::new("curl");
        curl.args(["-sSN", &format!("http://{}{path}", fleet.traffic), "--json"])
            .arg(format!("@{}", request.display()))
            .arg("-o")
            .arg(&answer);
        let output = run(curl).await;
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        answer
    }
}

async fn run(mut command: Command) -> Output {
    let ended = tokio::task::spawn_blocking(move || command.stdin(Stdio::null()).output());
    ended.await.expect("no panic").expect("the program runs")
}

async fn verify(fleet: &Fleet, file: &Path, more: &[&str]) -> (Option<i32>, String, String) {
    let mut command = command(&["verify", "--url", &format!("http://{}", fleet.traffic)]);
    command.arg(file).args(more).env_remove("OPENAI_API_KEY");
    let output = run(command).await;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code(), text(&output.stdout), text(&output.stderr))
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_curl_saved_is_the_same_again() {
    let fleet = Fleet::start(2).await;
    let chat = json!({"model": MODEL, "max_tokens": 12, "temperature": 1.0, "n": 2, "logprobs": true, "top_logprobs": 2,
        "messages": [{"role": "user", "content": "Say something."}]});
    for (path, more) in [
        ("/v1/chat/completions", json!({})),
        (
            "/v1/chat/completions",
            json!({"stream": true, "stream_options": {"include_usage": true}}),
        ),
    ] {
        let mut request = chat.clone();
        request.as_object_mut().expect("fields").extend(more.as_object().cloned().expect("fields"));
        let saved = Saved::new(request);
        let answer = saved.ask(&fleet, path).await;
        let request = saved.path("request.json").display().to_string();
        let (code, said, noted) = verify(&fleet, &answer, &["--request", &request]).await;
        assert_eq!(code, Some(0), "{said}{noted}");
        assert!(said.starts_with("same: 24 tokens, log-probabilities of 24 tokens"), "{said}");
    }
    let saved = Saved::new(
        json!({"model": MODEL, "prompt": "Once", "max_tokens": 9, "logprobs": 1, "echo": true, "stream": true}),
    );
    let answer = saved.ask(&fleet, "/v1/completions").await;
    let request = saved.path("request.json").display().to_string();
    let (code, said, noted) = verify(&fleet, &answer, &["--request", &request, "--json"]).await;
    assert_eq!(code, Some(0), "{said}{noted}");
    let report: Value = serde_json::from_str(&said).expect("JSON");
    assert_eq!(
        (&report["verdict"], &report["scored_tokens"]),
        (&json!("same"), &json!(10)),
        "{report}"
    );
    assert_eq!(report["fingerprint"]["saved"], report["fingerprint"]["now"]);
    assert!(report["seed"].is_u64(), "{report}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_differs_is_said_with_an_exit_code_of_its_own() {
    let fleet = Fleet::start(1).await;
    let request = json!({"model": MODEL, "prompt": "The capital of France is", "max_tokens": 2, "temperature": 0, "logprobs": 1});
    let answer = fleet.post("/v1/completions", &request).await.ok();
    let saved = Saved::new(request.clone());
    let file = |name: &str, answer: &Value| {
        saved.write(name, &json!({"request": request, "response": answer}).to_string())
    };
    assert_eq!(verify(&fleet, &file("same", &answer), &[]).await.0, Some(0));
    let mut forged = answer.clone();
    forged["choices"][0]["text"] = " Lyon.".into();
    let (code, said, _) = verify(&fleet, &file("forged", &forged), &[]).await;
    assert_eq!(code, Some(3), "{said}");
    assert!(said.contains("choice 0, text at 1") && said.contains("\"Lyon.\""), "{said}");
    let mut last_bit = answer.clone();
    let logprob = answer["choices"][0]["logprobs"]["token_logprobs"][0].as_f64().expect("a number");
    last_bit["choices"][0]["logprobs"]["token_logprobs"][0] =
        f64::from_bits(logprob.to_bits() ^ 1).into();
    let (code, said, _) = verify(&fleet, &file("bit", &last_bit), &["--json"]).await;
    let report: Value = serde_json::from_str(&said).expect("JSON");
    assert_eq!(
        (code, &report["differences"][0]["what"]),
        (Some(3), &json!("logprobs")),
        "{report}"
    );
    let mut other = forged.clone();
    other["system_fingerprint"] = "fp_of_another".into();
    let (code, said, _) = verify(&fleet, &file("other", &other), &[]).await;
    assert_eq!(code, Some(4), "{said}");
    assert!(said.contains("fp_of_another"), "{said}");
    let (code, _, noted) = verify(&fleet, &saved.write("nothing", "hello"), &[]).await;
    assert!(code == Some(1) && noted.contains("--request"), "{noted}");
    let mut gone = json!({"request": request, "response": answer});
    gone["request"]["model"] = "gone".into();
    let (code, _, noted) = verify(&fleet, &saved.write("gone", &gone.to_string()), &[]).await;
    assert!(code == Some(1) && noted.contains("gone"), "{noted}");
}
