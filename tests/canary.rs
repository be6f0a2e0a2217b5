//! Nothing that a client wrote, no output and no secret is in any log, metric or panic, at any level.
//!
//! Each place of a request gets a text that is nowhere else. Then every line, metric and member list
//! of every process is searched for it. That the search finds what is there, the test shows by a
//! request id, which is logged.

use bytes::Bytes;
use futures_util::future::join_all;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use hyper_util::rt::TokioIo;
use inferno_proxy::keys::{NewKey, Timestamp, create};
use inferno_tests::{
    MODEL,
    client::Client,
    fleet::{Backend, Fleet, start_backend},
    model_path, wait_for,
};
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use std::{convert::Infallible, net::SocketAddr};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::oneshot,
};

/// In every canary, and nowhere else. It is the same in any case, quoting and encoding of JSON.
const CANARY: &str = "kanarienvogel7f3a";
/// In the registration secret.
const SECRET: &str = "kanarienvogel7f3a-secret";

fn canary(place: &str) -> String {
    format!("{CANARY} {place}")
}

/// Bodies with a canary in each place where a client can write.
fn bodies() -> Vec<String> {
    let completion = |field: &str, value: Value| {
        let mut body = json!({"model": MODEL, "prompt": "x", "max_tokens": 2});
        body[field] = value;
        body.to_string()
    };
    let chat = |message: Value| {
        json!({"model": MODEL, "messages": [message], "max_tokens": 2, "stream": true}).to_string()
    };
    let text = |place: &str| Value::from(canary(place));
    vec![
        completion("prompt", text("prompt")),
        completion("prompt", json!([canary("one"), canary("two")])),
        completion("prompt", json!({CANARY: CANARY})),
        completion("stop", json!([canary("stop")])),
        completion("stop", json!([canary(&"long ".repeat(300))])),
        completion("user", text("user")),
        completion("metadata", json!({CANARY: canary("metadata")})),
        completion("model", text("model")),
        completion("model", json!([CANARY])),
        completion("stream", text("stream")),
        completion("temperature", text("temperature")),
        completion("max_tokens", text("max_tokens")),
        completion("logit_bias", json!({CANARY: 1})),
        completion("seed", text("seed")),
        completion("suffix", text("suffix")),
        completion("response_format", json!({"type": CANARY})),
        completion("tools", json!([{"type": "function", "function": {"name": CANARY}}])),
        completion(CANARY, json!(1)),
        completion("temprature", text("misspelt")),
        chat(json!({"role": "user", "content": canary("content")})),
        chat(json!({"role": "system", "content": canary("system"), "name": CANARY})),
        chat(json!({"role": CANARY, "content": "x"})),
        chat(json!({"role": "user", "content": [{"type": CANARY, "text": CANARY}]})),
        chat(json!({"role": "user", "content": [{"type": "text", "text": canary("part")}]})),
        chat(json!({"role": "user", "content": "x", CANARY: 1})),
        chat(text("message")),
        format!("{{\"prompt\": \"{CANARY}"),
        format!("{{\"model\": \"{MODEL}\", \"{CANARY}\": \u{1} }}"),
        format!("{{\"model\": \"{MODEL}\", \"model\": \"{CANARY}\"}}"),
        format!("{{\"{CANARY}\": 1, \"{CANARY}\": 1}}"),
        CANARY.to_owned(),
        format!("[\"{CANARY}\"]"),
    ]
}

/// Headers that a client may set to anything, and the API key with which the proxy lets it in.
fn headers(key: &str) -> Vec<(&'static str, String)> {
    let header = |name| (name, canary(name));
    vec![
        ("authorization", format!("Bearer {key}")),
        header("x-api-key"),
        header("api-key"),
        ("cookie", format!("session={CANARY}")),
        header("x-request-id"),
        header("traceparent"),
        header("user-agent"),
        header("x-something"),
        ("referer", format!("http://{CANARY}/")),
    ]
}

/// Requests that are no good HTTP, or ask for odd things.
fn raw_requests() -> Vec<String> {
    let valid = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    vec![
        format!(
            "POST /v1/completions?key={CANARY} HTTP/1.1\r\nhost: {CANARY}\r\ncontent-length: 2\r\n\r\n{{}}"
        ),
        format!("GET /{CANARY} HTTP/1.1\r\nhost: h\r\n\r\n"),
        format!("GET /v1/models/{CANARY} HTTP/1.1\r\nhost: h\r\n\r\n"),
        format!("POST /v1/{CANARY}/x HTTP/1.1\r\nhost: h\r\ncontent-length: 2\r\n\r\n{{}}"),
        format!("{} /v1/models HTTP/1.1\r\nhost: h\r\n\r\n", CANARY.to_uppercase()),
        format!("GET / HTTP/1.1\r\nhost: h\r\nx-inferno-{CANARY}: {CANARY}\r\n\r\n"),
        format!(
            "GET / HTTP/1.1\r\nhost: h\r\ntraceparent: {valid}\r\ntracestate: {CANARY}={CANARY}\r\n\r\n"
        ),
        format!("GET / HTTP/1.1\r\nhost: h\r\nconnection: upgrade\r\nupgrade: {CANARY}\r\n\r\n"),
        format!("GET / HTTP/1.1\r\nhost: h\r\nexpect: {CANARY}\r\n\r\n"),
        format!("POST / HTTP/1.1\r\nhost: h\r\ncontent-length: {CANARY}\r\n\r\n"),
        format!("POST / HTTP/1.1\r\nhost: h\r\ntransfer-encoding: chunked\r\n\r\n{CANARY}\r\n"),
        format!("GET / HTTP/1.1\r\nhost: h\r\n{CANARY} without a colon\r\n\r\n"),
        format!("{CANARY}\r\n\r\n"),
        format!("\u{16}\u{3}\u{1}{CANARY}{CANARY}\r\n\r\n"),
        format!("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n{CANARY}{CANARY}{CANARY}"),
        format!("POST /registration/{CANARY} HTTP/1.1\r\nhost: h\r\ncontent-length: 0\r\n\r\n"),
        format!(
            "DELETE /registration/{CANARY}?generation={CANARY} HTTP/1.1\r\nhost: h\r\nauthorization: Bearer {CANARY}\r\n\r\n"
        ),
    ]
}

/// Those of [`raw_requests`] that a proxy would answer 401, with the key; and the key in places where
/// it does not belong.
fn raw_requests_with(key: &str) -> Vec<String> {
    let authorization = format!("host: h\r\nauthorization: Bearer {key}\r\n");
    let keyed = raw_requests().into_iter().map(|raw| raw.replace("host: h\r\n", &authorization));
    let cut = &key[..key.len() - 1];
    let misplaced = [
        format!("GET /v1/models?key={key} HTTP/1.1\r\n{authorization}\r\n"),
        format!("GET /v1/models/{key} HTTP/1.1\r\n{authorization}\r\n"),
        format!("GET /v1/models HTTP/1.1\r\n{authorization}x-inferno-{key}: {key}\r\n\r\n"),
        format!("GET /v1/models HTTP/1.1\r\nhost: h\r\nauthorization: Basic {key}\r\n\r\n"),
        format!("GET /v1/models HTTP/1.1\r\nhost: h\r\nauthorization: Bearer {cut}\r\n\r\n"),
        format!("GET /v1/models HTTP/1.1\r\nhost: h\r\nauthorization: {CANARY}\r\n\r\n"),
        format!("GET /v1/models HTTP/1.1\r\nhost: h\r\nx-api-key: {key}\r\n\r\n"),
        format!("GET /v1/models HTTP/1.1\r\n{authorization}{authorization}\r\n"),
        format!("{key} / HTTP/1.1\r\n{authorization}\r\n"),
    ];
    keyed.chain(misplaced).collect()
}

/// Sends bytes and reads whatever comes until the other side closes, or has said all it will.
async fn send_raw(server: SocketAddr, bytes: &str) {
    let mut stream = TcpStream::connect(server).await.expect("it listens");
    stream.write_all(bytes.as_bytes()).await.expect("sent");
    stream.shutdown().await.ok();
    let mut answer = Vec::new();
    let answered = stream.read_to_end(&mut answer);
    // A reset is an answer too.
    drop(tokio::time::timeout(inferno_tests::PATIENCE, answered).await.expect("in time"));
}

/// Plays a proxy's operations server for one registration, and keeps what came.
async fn overhear_registration() -> (SocketAddr, oneshot::Receiver<Value>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("bound");
    let (sender, receiver) = oneshot::channel();
    tokio::spawn(async move {
        let sender = std::sync::Mutex::new(Some(sender));
        let service = hyper::service::service_fn(|request: Request<hyper::body::Incoming>| {
            let sender = sender.lock().expect("no panic").take();
            async move {
                let body = request.into_body().collect().await.expect("a body").to_bytes();
                if let (Some(sender), Ok(body)) = (sender, serde_json::from_slice(&body)) {
                    sender.send(body).ok();
                }
                let answer = json!({"status": "registered", "lease_ms": 60_000, "instance": "i", "peers": []});
                Ok::<_, Infallible>(Response::new(Full::new(Bytes::from(answer.to_string()))))
            }
        });
        let (stream, _) = listener.accept().await.expect("a backend");
        let http = hyper::server::conn::http1::Builder::new();
        http.serve_connection(TokioIo::new(stream), service).await.ok();
    });
    (address, receiver)
}

/// A model file whose chat template fails: by an error of its own that quotes the conversation, or by
/// calling what does not exist.
fn model_with_failing_template(folder: &std::path::Path) -> std::path::PathBuf {
    let mut file = std::fs::read(model_path()).expect("the model");
    let key = b"tokenizer.chat_template";
    let at = file.windows(key.len()).position(|window| window == key).expect("it has a template");
    // A type of 4 bytes, a length of 8, and the text (GGUF's metadata).
    let (length, text) = (at + key.len() + 4, at + key.len() + 12);
    let length = u64::from_le_bytes(file[length..text].try_into().expect("8 bytes"));
    let template = "{% set said = messages[0]['content'] %}{% if 'raise' in said %}\
        {{ raise_exception('no: ' + said) }}{% endif %}{{ said.no_such_method(said) }}";
    let length = usize::try_from(length).expect("a length");
    assert!(template.len() <= length, "it must fit into {length} bytes");
    let padded = format!("{template:length$}");
    file[text..text + length].copy_from_slice(padded.as_bytes());
    let path = folder.join("failing-template.gguf");
    std::fs::write(&path, file).expect("written");
    path
}

/// Text of an answer that is long enough to be no accident.
fn recognisable(text: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphabetic() || c == ' ';
    let pieces = text.split(|c| !is_plain(c)).map(str::trim);
    let longest = pieces.max_by_key(|piece| piece.len()).unwrap_or_default();
    assert!(longest.len() >= 16, "too short to search for: {text}");
    longest.to_owned()
}

struct Stage {
    fleet: Fleet,
    failing: Backend,
    token: String,
    key: String,
    _folder: tempfile::TempDir,
}

impl Stage {
    async fn set() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let secret = folder.path().join("secret");
        std::fs::write(&secret, SECRET).expect("written");
        let secret = format!("registration.secret_files={}", secret.display());
        let keys_file = folder.path().join("keys.toml");
        let new = NewKey { name: "client".into(), ..NewKey::default() };
        let created = create(&keys_file, new, Timestamp::now()).expect("made");
        let key = created.key.expose().to_owned();
        let keys_file = format!("proxy.keys_file={}", keys_file.display());
        let settings = ["log.level=trace", secret.as_str()];
        let mut fleet = Fleet::proxy_only(&[settings[0], settings[1], &keys_file]);
        let (overhearing, overheard) = overhear_registration().await;
        let proxies = format!("backend.proxies={},{overhearing}", fleet.operations);
        fleet.add_backend(&[settings[0], settings[1], &proxies]);
        let model = model_with_failing_template(folder.path());
        let model = format!("backend.model={}", model.display());
        let failing = [
            settings[0],
            settings[1],
            &model,
            "backend.threads=1",
            "backend.kv_memory=128MiB",
            "backend.context_max=1024",
        ];
        let failing = start_backend("failing", &failing);
        let registration = tokio::time::timeout(inferno_tests::PATIENCE, overheard).await;
        let registration = registration.expect("in time").expect("a registration");
        let token = registration["token"].as_str().expect("a token").to_owned();
        let authorization = format!("Bearer {key}");
        let headers = [("authorization", authorization.as_str())];
        wait_for("the model is served", || async {
            let models = Client::new().get_with(fleet.traffic, "/v1/models", &headers).await;
            models.body.contains(MODEL).then_some(())
        })
        .await;
        Self { fleet, failing, token, key, _folder: folder }
    }

    fn traffic(&self) -> [SocketAddr; 3] {
        [self.fleet.traffic, self.fleet.backends[0].traffic, self.failing.traffic]
    }

    fn operations(&self) -> [SocketAddr; 3] {
        [self.fleet.operations, self.fleet.backends[0].operations, self.failing.operations]
    }

    /// Everything that the processes say of themselves.
    async fn told(&mut self) -> String {
        let mut told = String::new();
        let secret = format!("Bearer {SECRET}");
        for operations in self.operations() {
            for path in ["/metrics", "/telemetry", "/peers"] {
                let headers = [("authorization", secret.as_str())];
                let answer = Client::new().get_with(operations, path, &headers).await;
                assert_eq!(answer.status, 200, "{path}: {}", answer.body);
                told += &answer.body;
            }
        }
        for process in
            [&mut self.failing.process, &mut self.fleet.backends[0].process, &mut self.fleet.proxy]
        {
            process.signal(Signal::SIGTERM);
            assert_eq!(process.wait().code(), Some(0));
            process.wait_for_end_of_log();
            told += &process.log();
        }
        told
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn neither_prompt_nor_output_nor_secret_is_ever_told() {
    let mut stage = Stage::set().await;
    let client = Client::new();
    join_all(stage.traffic().map(|server| post_bodies(server, &stage.key))).await;
    let raw = [raw_requests(), raw_requests_with(&stage.key)].concat();
    let servers = [stage.traffic(), stage.operations()].concat();
    join_all(servers.iter().flat_map(|server| raw.iter().map(|raw| send_raw(*server, raw)))).await;
    for server in stage.operations() {
        for body in registrations(&stage.token) {
            for secret in [SECRET, CANARY] {
                let secret = format!("Bearer {secret}");
                let headers = [("authorization", secret.as_str())];
                client.post_with(server, "/registration", &headers, body.clone()).await;
            }
        }
    }
    for said in [canary("raise"), canary("call")] {
        let body =
            json!({"model": "failing-template", "messages": [{"role": "user", "content": said}]});
        let error =
            client.post(stage.failing.traffic, "/v1/chat/completions", body.to_string()).await;
        error.error(400);
    }
    let output = long_answer(&stage).await;
    let told = stage.told().await;
    assert!(told.contains("findable-id"), "the search would find something");
    // Part of it would be too much as well.
    let secret_of_key = &stage.key[13..29];
    for (what, text) in [
        ("text", CANARY),
        ("token", stage.token.as_str()),
        ("key", secret_of_key),
        ("output", output.as_str()),
    ] {
        let found = told.lines().find(|line| line.to_lowercase().contains(&text.to_lowercase()));
        assert_eq!(found, None, "{what} was told");
    }
}

/// Posts every body to both endpoints, with every header.
async fn post_bodies(server: SocketAddr, key: &str) {
    let (client, headers) = (Client::new(), headers(key));
    let headers: Vec<_> = headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
    for body in bodies() {
        for path in ["/v1/completions", "/v1/chat/completions"] {
            client.post_with(server, path, &headers, body.clone()).await;
        }
    }
}

/// Registrations that are wrong in each field, by the secret text or the true token.
fn registrations(token: &str) -> Vec<String> {
    let good = json!({"id": "x", "address": "127.0.0.1:1", "metrics_port": 1, "token": token});
    let with = |field: &str, value: Value| {
        let mut body = good.clone();
        body[field] = value;
        body.to_string()
    };
    vec![
        with("metrics_port", json!(CANARY)),
        with("metrics_port", json!(token)),
        with("action", json!(token)),
        with("node_type", json!(CANARY)),
        with("id", json!([CANARY])),
        with("id", json!(format!("{CANARY} {CANARY}"))),
        with("token", json!([token])),
        with("capabilities", json!(token)),
        format!("{{\"token\": \"{token}"),
        CANARY.to_owned(),
    ]
}

/// Lets the model speak, as a stream through the proxy, and gives what it said.
async fn long_answer(stage: &Stage) -> String {
    let body = json!({"model": MODEL, "prompt": "Once upon a time", "max_tokens": 60,
        "temperature": 0, "ignore_eos": true});
    let authorization = format!("Bearer {}", stage.key);
    let headers = [("x-request-id", "findable-id"), ("authorization", authorization.as_str())];
    let answer = Client::new()
        .post_with(stage.fleet.traffic, "/v1/completions", &headers, body.to_string())
        .await
        .ok();
    recognisable(answer["choices"][0]["text"].as_str().expect("text"))
}
