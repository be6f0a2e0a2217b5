//! A proxy and its backends, as processes on free ports.

use crate::{
    client::{Answer, Client},
    command, model_path,
    process::{Process, address},
    wait_for,
};
use serde_json::Value;
use std::net::SocketAddr;

/// A proxy with backends that registered themselves.
pub struct Fleet {
    /// The proxy.
    pub proxy: Process,
    /// Where clients are served.
    pub traffic: SocketAddr,
    /// The proxy's operations server.
    pub operations: SocketAddr,
    /// The backends, by the order they were started in.
    pub backends: Vec<Backend>,
    client: Client,
}

/// One backend.
pub struct Backend {
    /// Its name, as it registered.
    pub id: String,
    /// Its process.
    pub process: Process,
    /// Where it takes requests.
    pub traffic: SocketAddr,
    /// Its operations server.
    pub operations: SocketAddr,
}

impl Fleet {
    /// A proxy without backends.
    pub fn proxy_only(settings: &[&str]) -> Self {
        let (proxy, traffic, operations) = start_proxy("127.0.0.1:0", settings);
        Self { proxy, traffic, operations, backends: Vec::new(), client: Client::new() }
    }

    /// A proxy with `count` ready backends.
    pub async fn start(count: usize) -> Self {
        let mut fleet = Self::proxy_only(&[]);
        for _ in 0..count {
            fleet.add_backend(&[]);
        }
        for index in 0..count {
            fleet.wait_for_state(&fleet.backends[index].id, "ready").await;
        }
        fleet
    }

    /// Starts one more backend, of one thread; it has loaded its model when this returns.
    pub fn add_backend(&mut self, settings: &[&str]) -> &Backend {
        let id = format!("backend-{}", self.backends.len() + 1);
        let proxies = format!("backend.proxies={}", self.operations);
        let named = format!("node.id={id}");
        let mut all = vec!["backend.threads=1", "backend.kv_memory=512MiB", &proxies, &named];
        all.extend(settings);
        let backend = start_backend(&id, &all);
        self.backends.push(backend);
        &self.backends[self.backends.len() - 1]
    }

    /// Ends the proxy at once and starts another at the same addresses.
    pub fn restart_proxy(&mut self) {
        self.proxy.signal(nix::sys::signal::Signal::SIGKILL);
        self.proxy.wait();
        let operations = self.operations.to_string();
        let listen = format!("proxy.listen={}", self.traffic);
        (self.proxy, self.traffic, self.operations) = start_proxy(&operations, &[&listen]);
    }

    /// Posts to the proxy.
    pub async fn post(&self, path: &str, body: &Value) -> Answer {
        self.client.post(self.traffic, path, body.to_string()).await
    }

    /// Gets from the proxy.
    pub async fn get(&self, path: &str) -> Answer {
        self.client.get(self.traffic, path).await
    }

    /// The members as the proxy sees them.
    pub async fn peers(&self) -> Vec<Value> {
        let answer = self.client.get(self.operations, "/peers").await.json();
        answer["peers"].as_array().cloned().unwrap_or_default()
    }

    /// What the proxy says of one node's state.
    pub async fn state_of(&self, id: &str) -> Option<String> {
        let peers = self.peers().await;
        let peer = peers.iter().find(|peer| peer["id"] == id)?;
        peer["state"].as_str().map(String::from)
    }

    /// Waits until the proxy sees a node in `state`.
    pub async fn wait_for_state(&self, id: &str, state: &str) {
        wait_for(&format!("{id} is {state}"), || async {
            (self.state_of(id).await.as_deref() == Some(state)).then_some(())
        })
        .await;
    }

    /// The vitals of backend `index`.
    pub async fn vitals(&self, index: usize) -> Value {
        self.client.get(self.backends[index].operations, "/metrics").await.json()
    }
}

fn start_proxy(operations: &str, settings: &[&str]) -> (Process, SocketAddr, SocketAddr) {
    let operations = format!("operations.addr={operations}");
    let mut all = vec!["proxy.listen=127.0.0.1:0", &operations];
    all.extend(settings);
    let proxy = start_service("proxy", "proxy", &all);
    let ready = proxy.wait_for_event("proxy ready");
    let (traffic, operations) = (address(&ready, "traffic"), address(&ready, "operations"));
    (proxy, traffic, operations)
}

/// Starts a backend and waits until it has loaded its model.
pub fn start_backend(id: &str, settings: &[&str]) -> Backend {
    model_path();
    let mut all = vec!["backend.listen=127.0.0.1:0", "operations.addr=127.0.0.1:0"];
    all.extend(settings);
    let process = start_service(id, "backend", &all);
    let ready = process.wait_for_event("backend ready");
    Backend {
        id: id.into(),
        traffic: address(&ready, "traffic"),
        operations: address(&ready, "operations"),
        process,
    }
}

fn start_service(name: &str, service: &str, settings: &[&str]) -> Process {
    let mut command = command(&[service, "--set", "log.format=json"]);
    for setting in settings {
        command.args(["--set", setting]);
    }
    Process::start(name, command)
}
