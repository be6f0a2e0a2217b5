//! `inferno up`, as a person or a script runs it.

use inferno_tests::{
    MODEL,
    client::Client,
    command, model_path,
    process::{Process, address},
    wait_for,
};
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use std::{io::BufRead, net::SocketAddr, process::Stdio};

/// A running `inferno up --json` on free ports.
struct Up {
    process: Process,
    events: std::io::Lines<std::io::BufReader<std::process::ChildStdout>>,
}

fn free_address() -> SocketAddr {
    std::net::TcpListener::bind("127.0.0.1:0")
        .and_then(|listener| listener.local_addr())
        .expect("a free port")
}

impl Up {
    fn start(backends: &str) -> Self {
        Self::start_with(backends, &[])
    }

    fn start_with(backends: &str, settings: &[&str]) -> Self {
        model_path();
        let (listen, operations) = (free_address().to_string(), free_address().to_string());
        let mut command = command(&[
            "up",
            "--json",
            "--backends",
            backends,
            "--threads",
            "1",
            "--listen",
            &listen,
            "--operations",
            &operations,
        ]);
        for setting in settings {
            command.args(["--set", setting]);
        }
        command.stdout(Stdio::piped()).stdin(Stdio::null());
        let mut process = Process::start("up", command);
        let events = process.stdout().lines();
        Self { process, events }
    }

    /// The next event of that kind.
    fn event(&mut self, kind: &str) -> Value {
        for line in self.events.by_ref() {
            let event: Value =
                serde_json::from_str(&line.expect("a line")).expect("one JSON object a line");
            if event["event"] == kind {
                return event;
            }
        }
        panic!("no `{kind}` event:\n{}", self.process.log());
    }
}

fn children_of(pid: u32) -> Vec<u32> {
    let children =
        std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    children.split_whitespace().filter_map(|pid| pid.parse().ok()).collect()
}

async fn wait_for_end_of(pids: &[u32]) {
    wait_for("the children end", || async {
        let alive = |pid: &u32| {
            let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
            stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with('Z'))
        };
        (!pids.iter().any(alive)).then_some(())
    })
    .await;
}

#[tokio::test]
async fn it_serves_restarts_what_dies_and_ends_cleanly() {
    let mut up = Up::start("2");
    let ready = up.event("ready");
    assert_eq!(ready["model"], MODEL);
    let traffic = address(&ready, "address");
    let ask = json!({"model": MODEL, "temperature": 0, "messages": [{"role": "user", "content": "What is the capital of Japan? Answer in one sentence."}]});
    let client = Client::new();
    let answer = client.post(traffic, "/v1/chat/completions", ask.to_string()).await.ok();
    assert_eq!(answer["choices"][0]["message"]["content"], "The capital of Japan is Tokyo.");

    let operations = address(&ready, "operations");
    let states = || async {
        let peers = Client::new().get(operations, "/peers").await.json();
        peers["peers"]
            .as_array()
            .expect("peers")
            .iter()
            .filter(|peer| peer["state"] == "ready")
            .count()
    };
    wait_for("both are ready", || async { (states().await == 2).then_some(()) }).await;
    let peers = client.get(operations, "/peers").await.json();
    let victim = peers["peers"][0].clone();
    let pid = owner_of(address(&victim, "operations"), &children_of(up.process.pid()));
    nix::sys::signal::kill(
        nix::unistd::Pid::from_raw(i32::try_from(pid).expect("a pid")),
        Signal::SIGKILL,
    )
    .expect("it lived");
    up.event("restarted");
    wait_for("it is back, newer", || async {
        let peers = Client::new().get(operations, "/peers").await.json();
        peers["peers"].as_array()?.iter().find(|peer| {
            peer["id"] == victim["id"]
                && peer["state"] == "ready"
                && peer["generation"].as_u64() > victim["generation"].as_u64()
        })?;
        Some(())
    })
    .await;

    let children = children_of(up.process.pid());
    assert_eq!(children.len(), 3);
    up.process.signal(Signal::SIGINT);
    assert_eq!(up.process.wait().code(), Some(0), "{}", up.process.log());
    wait_for_end_of(&children).await;
}

/// Which of `pids` listens on `address`.
fn owner_of(address: SocketAddr, pids: &[u32]) -> u32 {
    let table = std::fs::read_to_string("/proc/net/tcp").expect("linux");
    let local = format!(":{:04X}", address.port());
    let inode = table
        .lines()
        .filter_map(|line| {
            let fields: Vec<&str> = line.split_whitespace().collect();
            (fields.get(1)?.ends_with(&local) && fields.get(3) == Some(&"0A"))
                .then(|| format!("socket:[{}]", fields[9]))
        })
        .next()
        .expect("someone listens");
    let holds = |pid: &&u32| {
        std::fs::read_dir(format!("/proc/{pid}/fd")).is_ok_and(|mut files| {
            files.any(|file| {
                file.is_ok_and(|file| {
                    std::fs::read_link(file.path())
                        .is_ok_and(|link| link.to_string_lossy() == inode)
                })
            })
        })
    };
    *pids.iter().find(holds).expect("one of them")
}

#[tokio::test]
async fn its_children_end_with_it_however_it_ends() {
    let mut up = Up::start("1");
    up.event("ready");
    let children = children_of(up.process.pid());
    assert_eq!(children.len(), 2);
    up.process.signal(Signal::SIGKILL);
    up.process.wait();
    wait_for_end_of(&children).await;
}

#[test]
fn a_port_in_use_is_said_before_anything_starts() {
    model_path();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let listen = taken.local_addr().expect("bound").to_string();
    let output = command(&["up", "--listen", &listen, "--operations", "127.0.0.1:0"])
        .output()
        .expect("runs");
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains(&listen) && said.contains("--listen"), "{said}");
}

#[tokio::test]
async fn chat_and_status_work_against_it() {
    let mut up = Up::start("1");
    let ready = up.event("ready");
    let (traffic, operations) = (address(&ready, "address"), address(&ready, "operations"));
    let url = format!("http://{traffic}");
    let chat = command(&[
        "chat",
        "--url",
        &url,
        "--temperature",
        "0",
        "What is the capital of Japan? Answer in one sentence.",
    ])
    .stdin(Stdio::null())
    .output()
    .expect("runs");
    let said = String::from_utf8_lossy(&chat.stdout);
    assert!(
        chat.status.success() && said.trim() == "The capital of Japan is Tokyo.",
        "{said}{}",
        String::from_utf8_lossy(&chat.stderr)
    );
    let status =
        command(&["status", "--operations", &operations.to_string()]).output().expect("runs");
    let said = String::from_utf8_lossy(&status.stdout);
    assert!(
        status.status.success()
            && said.contains("backend-1")
            && said.contains("ready")
            && said.contains(MODEL),
        "{said}"
    );
    let status = command(&["status", "--json", "--operations", &operations.to_string()])
        .output()
        .expect("runs");
    let json: Value = serde_json::from_slice(&status.stdout).expect("JSON");
    assert!(json.to_string().contains("backend-1"), "{json}");
    let nobody =
        command(&["status", "--operations", &free_address().to_string()]).output().expect("runs");
    assert_eq!(nobody.status.code(), Some(1));
}

#[tokio::test]
async fn a_registration_secret_is_used_by_everyone_who_needs_it() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("secret");
    std::fs::write(&file, "0123-canary\n").expect("written");
    let setting = format!("registration.secret_files={}", file.display());
    let mut up = Up::start_with("1", &[&setting]);
    let ready = up.event("ready");
    let operations = address(&ready, "operations").to_string();
    let status = |more: &[&str]| {
        let mut arguments = vec!["status", "--operations", &operations];
        arguments.extend(more);
        command(&arguments).output().expect("runs")
    };
    let without = status(&[]);
    let said = String::from_utf8_lossy(&without.stderr);
    assert!(!without.status.success() && said.contains("registration.secret_file"), "{said}");
    let with = status(&["--set", &setting]);
    assert!(String::from_utf8_lossy(&with.stdout).contains("backend-1"));
    let peers = Client::new().get(address(&ready, "operations"), "/peers").await;
    assert_eq!(peers.status, 401);
    let said = up.process.log();
    assert!(!said.contains("0123-canary"), "the secret is in the log: {said}");
}
