//! A real Prometheus reads proxy and backend; its own linter reads their metrics; and the page of
//! metrics has those that there are.

use inferno_tests::{MODEL, client::Client, debian, fleet::Fleet, process::Process, wait_for};
use serde_json::{Value, json};
use std::{
    collections::BTreeSet,
    io::Write,
    net::SocketAddr,
    path::PathBuf,
    process::{Command, Stdio},
};
use tempfile::TempDir;

const TOKENS: u64 = 5;

fn debian_program(name: &str) -> PathBuf {
    debian::program("prometheus", name).unwrap_or_else(|why| panic!("{why}"))
}

/// A proxy and a backend that have answered one request with [`TOKENS`] tokens, and refused one. Not by
/// chance: a token that has no text of its own comes with the next, and the gap between them is not seen.
async fn busy_fleet() -> Fleet {
    let fleet = Fleet::start(1).await;
    let body = json!({"model": MODEL, "prompt": "x", "max_tokens": TOKENS, "temperature": 0, "ignore_eos": true});
    fleet.post("/v1/completions", &body).await.ok();
    fleet.post("/v1/completions", &json!({"model": "no-such-model"})).await.error(404);
    fleet
}

/// A Prometheus of which nothing is set but its targets, and that it is in a hurry.
struct Prometheus {
    address: SocketAddr,
    client: Client,
    _process: Process,
    _folder: TempDir,
}

impl Prometheus {
    fn start(targets: &[SocketAddr]) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let targets: Vec<String> = targets.iter().map(ToString::to_string).collect();
        let config = json!({
            "global": {"scrape_interval": "1s"},
            "scrape_configs": [{"job_name": "inferno", "static_configs": [{"targets": targets}]}],
        });
        let file = folder.path().join("prometheus.yml");
        std::fs::write(&file, config.to_string()).expect("JSON is YAML");
        let mut command = Command::new(debian_program("prometheus"));
        command
            .arg(format!("--config.file={}", file.display()))
            .arg(format!("--storage.tsdb.path={}", folder.path().join("data").display()))
            .arg("--web.listen-address=127.0.0.1:0");
        let process = Process::start("prometheus", command);
        process.wait_for_text("Server is ready to receive web requests");
        let log = process.log();
        let listening = log.lines().find(|line| line.contains("msg=\"Listening on\""));
        let address = listening.and_then(|line| line.split_once("address="));
        let address = address.and_then(|(_, address)| address.trim().parse().ok());
        Self {
            address: address.unwrap_or_else(|| panic!("no address in {log}")),
            client: Client::new(),
            _process: process,
            _folder: folder,
        }
    }

    async fn get(&self, path: &str) -> Value {
        let answer = self.client.get(self.address, path).await.ok();
        assert_eq!(answer["status"], "success", "{answer}");
        answer["data"].clone()
    }

    /// The value of the only series that `query` gives, once there is one.
    async fn value(&self, query: &str) -> f64 {
        let path = format!("/api/v1/query?query={}", escaped(query));
        let result = wait_for(query, || async {
            let result = self.get(&path).await["result"].clone();
            (result != json!([])).then_some(result)
        })
        .await;
        assert_eq!(result.as_array().map(Vec::len), Some(1), "{query}: {result}");
        let value = result[0]["value"][1].as_str().expect("a number as text");
        value.parse().expect("a number")
    }

    async fn wait_for_value(&self, query: &str, expected: f64) {
        wait_for(&format!("{query} is {expected}"), || async {
            (self.value(query).await == expected).then_some(())
        })
        .await;
    }
}

/// For a query string: all but the plainest letters in per cent.
fn escaped(query: &str) -> String {
    query
        .bytes()
        .map(|byte| match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'_' => char::from(byte).to_string(),
            _ => format!("%{byte:02X}"),
        })
        .collect()
}

#[tokio::test]
async fn a_stock_prometheus_reads_both_processes() {
    let fleet = busy_fleet().await;
    let (proxy, backend) = (fleet.operations, fleet.backends[0].operations);
    let prometheus = Prometheus::start(&[proxy, backend]);
    prometheus.wait_for_value("sum(up)", 2.0).await;
    for (query, expected) in [
        (format!("inferno_node_ready{{instance='{proxy}'}}"), 1.0),
        (format!("inferno_node_ready{{instance='{backend}'}}"), 1.0),
        (format!("inferno_node_requests_total{{instance='{proxy}'}}"), 2.0),
        (format!("inferno_node_requests_total{{instance='{backend}'}}"), 1.0),
        (
            format!(
                "inferno_proxy_requests_total{{model='{MODEL}',route='completions',status='200'}}"
            ),
            1.0,
        ),
        ("inferno_proxy_requests_total{model='',route='completions',status='404'}".into(), 1.0),
        ("inferno_proxy_own_seconds_count{route='completions'}".into(), 1.0),
        ("inferno_proxy_attempts_total".into(), 1.0),
        ("inferno_proxy_backend_in_flight{backend='backend-1'}".into(), 0.0),
        (format!("vllm:generation_tokens_total{{model_name='{MODEL}'}}"), TOKENS as f64),
        ("vllm:request_success_total{finished_reason='length'}".into(), 1.0),
        ("vllm:e2e_request_latency_seconds_count".into(), 1.0),
        ("vllm:inter_token_latency_seconds_count".into(), TOKENS as f64 - 1.0),
        ("count(inferno_node_average_response_seconds > 0)".into(), 2.0),
        ("count(inferno_node_memory_usage > 0 < 100)".into(), 2.0),
    ] {
        prometheus.wait_for_value(&query, expected).await;
    }
    let latency = "histogram_quantile(0.5, vllm:e2e_request_latency_seconds_bucket)";
    assert!(prometheus.value(latency).await > 0.0);
    for (metric, kind) in [
        ("inferno_node_requests_total", "counter"),
        ("inferno_node_ready", "gauge"),
        ("vllm:time_to_first_token_seconds", "histogram"),
    ] {
        let known = prometheus.get(&format!("/api/v1/metadata?metric={}", escaped(metric))).await;
        assert_eq!(known[metric][0]["type"], kind, "{known}");
        assert_ne!(known[metric][0]["help"], "", "{known}");
    }
}

/// What `promtool check metrics` says of a page, line by line.
fn lint(page: &str) -> Vec<String> {
    let mut promtool = Command::new(debian_program("promtool"))
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("promtool starts");
    let mut input = promtool.stdin.take().expect("piped");
    input.write_all(page.as_bytes()).expect("promtool reads");
    drop(input);
    let output = promtool.wait_with_output().expect("promtool ends");
    let said = [output.stdout, output.stderr].concat();
    String::from_utf8(said).expect("text").lines().map(String::from).collect()
}

/// `vllm:` names have a colon, which promtool keeps for recording rules; they are what dashboards
/// read. Nothing else is forgiven.
fn is_the_known_colon(complaint: &str) -> bool {
    complaint.strip_prefix("vllm:").is_some_and(|rest| {
        rest.split_once(' ').is_some_and(|(_, what)| what == "metric names should not contain ':'")
    })
}

#[tokio::test]
async fn promtool_finds_nothing_to_complain_of() {
    let fleet = busy_fleet().await;
    let client = Client::new();
    for operations in [fleet.operations, fleet.backends[0].operations] {
        let page = client.get(operations, "/telemetry").await.body;
        let complaints = lint(&page);
        let new: Vec<&String> =
            complaints.iter().filter(|complaint| !is_the_known_colon(complaint)).collect();
        assert!(new.is_empty(), "{new:#?}");
        let colons = page.lines().filter(|line| line.starts_with("# TYPE vllm:")).count();
        assert_eq!(complaints.len(), colons, "promtool read every name: {complaints:#?}");
    }
    let flawed = "# HELP a_ms A.\n# TYPE a_ms gauge\na_ms 1\n";
    assert!(!lint(flawed).is_empty(), "promtool is awake");
}

#[tokio::test]
async fn the_documented_metrics_are_those_there_are() {
    let fleet = busy_fleet().await;
    let client = Client::new();
    let mut pages = String::new();
    for operations in [fleet.operations, fleet.backends[0].operations] {
        client.get(operations, "/health").await;
        pages += &client.get(operations, "/telemetry").await.body;
    }
    let spoken: BTreeSet<&str> =
        pages.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next()).collect();
    let documented: BTreeSet<&str> = include_str!("../docs/metrics.md")
        .lines()
        .filter(|line| line.starts_with("| "))
        .flat_map(|row| row.split('`').skip(1).step_by(2))
        .filter(|word| word.starts_with("vllm:") || word.starts_with("inferno_"))
        .collect();
    assert_eq!(documented, spoken);
}
