//! The gateways: ours as it is shipped, nginx and HAProxy as Debian ships them, each on as many
//! threads as there are processors, with keep-alive on both sides, timeouts, metrics and a line a
//! request in a file.

use crate::{debian, upstream::MODEL};
use inferno_proxy::keys::{NewKey, Timestamp, create};
use inferno_shared::config::KeyLimits;
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::Value;
use std::{
    fs::{self, File},
    net::{SocketAddr, TcpListener, TcpStream},
    path::Path,
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};
use tempfile::TempDir;

/// Longer than any start.
const PATIENCE: Duration = Duration::from_secs(20);
/// Open at once, at most.
pub(crate) const CONNECTIONS_MAX: usize = 9_900;

/// A process of ours, ended when dropped.
pub(crate) struct Running(Child);

impl Running {
    pub(crate) fn new(child: Child) -> Self {
        Self(child)
    }

    /// Its process and those that it started.
    pub(crate) fn pids(&self) -> Vec<u32> {
        let own = self.0.id();
        let children = fs::read_to_string(format!("/proc/{own}/task/{own}/children"));
        let children = children.unwrap_or_default();
        let children = children.split_whitespace().filter_map(|pid| pid.parse().ok());
        std::iter::once(own).chain(children).collect()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // nginx ends its workers; ours would wait for its streams.
        let pids = self.pids();
        let signal = if pids.len() > 1 { Signal::SIGTERM } else { Signal::SIGKILL };
        let pid = Pid::from_raw(i32::try_from(self.0.id()).expect("a pid"));
        kill(pid, signal).ok();
        self.0.wait().ok();
    }
}

/// A gateway that serves.
pub(crate) struct Gateway {
    pub(crate) name: &'static str,
    pub(crate) address: SocketAddr,
    /// The API key that it wants.
    pub(crate) key: Option<String>,
    pub(crate) pids: Vec<u32>,
    /// Where backends register; ours alone.
    pub(crate) operations: Option<SocketAddr>,
    _running: Running,
    _folder: TempDir,
}

impl Gateway {
    /// All CPU time that it has used.
    pub(crate) fn cpu(&self) -> Duration {
        self.pids.iter().map(|&pid| crate::cpu::of(pid)).sum()
    }

    /// The part of it in the kernel that the system's ticks have seen, of all that they have seen.
    pub(crate) fn kernel_ticks(&self) -> (u64, u64) {
        let of = |&pid: &u32| {
            let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
            // The name may hold anything but ends with the last bracket; utime and stime are 14th and 15th.
            let fields = stat.rsplit_once(')').map(|(_, fields)| fields.split_whitespace());
            let mut ticks = fields?.skip(11).map(|field| field.parse::<u64>().unwrap_or_default());
            let (user, kernel) = (ticks.next()?, ticks.next()?);
            Some((kernel, user + kernel))
        };
        let all = self.pids.iter().filter_map(of);
        all.fold((0, 0), |sum, ticks| (sum.0 + ticks.0, sum.1 + ticks.1))
    }

    /// Memory that it occupies, bytes.
    pub(crate) fn resident(&self) -> u64 {
        let of = |&pid: &u32| {
            let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
            let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
            line.and_then(|line| line.trim().trim_end_matches(" kB").parse::<u64>().ok())
        };
        self.pids.iter().filter_map(of).sum::<u64>() * 1024
    }
}

fn processors() -> usize {
    thread::available_parallelism().map_or(1, usize::from)
}

/// Our proxy, as built beside this program.
pub(crate) const OURS: &str = env!("CARGO_BIN_EXE_inferno-proxy");

/// The proxy that `program` is; with `keyed` it asks for an API key.
pub(crate) fn inferno(name: &'static str, program: &str, keyed: bool) -> Gateway {
    let folder = tempfile::tempdir().expect("a folder");
    let mut command = Command::new(program);
    let keys = folder.path().join("keys.toml");
    let limits = ["connections_max", "requests_max"]
        .map(|limit| format!("proxy.limits.{limit}={CONNECTIONS_MAX}"));
    let mut set = |setting: &str| {
        command.args(["--set", setting]);
    };
    for setting in ["proxy.listen=127.0.0.1:0", "operations.addr=127.0.0.1:0", "log.format=json"] {
        set(setting);
    }
    limits.iter().for_each(|limit| set(limit));
    // For requests that name no model.
    set(&format!("proxy.routing.default_model={MODEL}"));
    let key = keyed.then(|| {
        set(&format!("proxy.keys_file={}", keys.display()));
        new_key(&keys)
    });
    let log = folder.path().join("log");
    let child = command.stderr(File::create(&log).expect("a file")).spawn().expect("it starts");
    let running = Running::new(child);
    let ready = wait("the proxy", || {
        let text = fs::read_to_string(&log).ok()?;
        let mut events = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        events.find(|event| event["message"] == "proxy ready")
    });
    let address = |field: &str| ready[field].as_str().expect("told").parse().expect("an address");
    Gateway {
        name,
        address: address("traffic"),
        key,
        pids: running.pids(),
        operations: Some(address("operations")),
        _running: running,
        _folder: folder,
    }
}

/// An API key in a new file, for our model alone.
fn new_key(file: &Path) -> String {
    let new = NewKey {
        name: "bench".into(),
        models: Some(vec![MODEL.into()]),
        limits: KeyLimits {
            concurrency_max: Some(1 << 40),
            requests_per_minute: Some(1 << 40),
            tokens_per_minute: Some(1 << 50),
        },
        ..NewKey::default()
    };
    create(file, new, Timestamp::now()).expect("a key").key.expose().to_owned()
}

/// nginx before `upstream`.
pub(crate) fn nginx(upstream: SocketAddr) -> Result<Gateway, String> {
    let program = debian::program("nginx-light", "nginx")?;
    peer("nginx", upstream, nginx_configuration, |file, folder| {
        let mut command = Command::new(program);
        command.arg("-p").arg(folder).arg("-c").arg(file).args(["-e", "stderr"]);
        command
    })
}

/// HAProxy before `upstream`.
pub(crate) fn haproxy(upstream: SocketAddr) -> Result<Gateway, String> {
    let program = debian::program("haproxy", "haproxy")?;
    peer("HAProxy", upstream, haproxy_configuration, |file, folder| {
        let mut command = Command::new(program);
        command.arg("-f").arg(file).current_dir(folder);
        command
    })
}

fn peer(
    name: &'static str,
    upstream: SocketAddr,
    configuration: fn(SocketAddr, SocketAddr, SocketAddr) -> String,
    command: impl FnOnce(&Path, &Path) -> Command,
) -> Result<Gateway, String> {
    let folder = tempfile::tempdir().map_err(|error| error.to_string())?;
    let (address, metrics) = (free_address(), free_address());
    let file = folder.path().join("configuration");
    fs::write(&file, configuration(address, metrics, upstream))
        .map_err(|error| error.to_string())?;
    let said = File::create(folder.path().join("errors")).map_err(|error| error.to_string())?;
    let log = File::create(folder.path().join("log")).map_err(|error| error.to_string())?;
    let mut command = command(&file, folder.path());
    let child = command.stdout(log).stderr(said).stdin(Stdio::null()).spawn();
    let running = Running::new(child.map_err(|error| error.to_string())?);
    let started = Instant::now();
    while TcpStream::connect(address).is_err() {
        if started.elapsed() > PATIENCE {
            return Err(fs::read_to_string(folder.path().join("errors")).unwrap_or_default());
        }
        thread::sleep(Duration::from_millis(10));
    }
    let pids = running.pids();
    Ok(Gateway {
        name,
        address,
        key: None,
        pids,
        operations: None,
        _running: running,
        _folder: folder,
    })
}

/// Neither takes port 0.
fn free_address() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    listener.local_addr().expect("bound")
}

/// The line has about the fields that ours has, and is buffered as long.
fn nginx_configuration(address: SocketAddr, metrics: SocketAddr, upstream: SocketAddr) -> String {
    let folders: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .map(|name| format!("{name}_temp_path {name};\n"))
        .concat();
    let workers = processors();
    format!(
        "user root root; daemon off; worker_processes {workers}; worker_rlimit_nofile 20000; pid nginx.pid; error_log stderr;\n\
         events {{ worker_connections 20000; }}\n\
         http {{\n{folders}\
         log_format line escape=json '{{\"timestamp\":\"$time_iso8601\",\"request_id\":\"$request_id\",\
           \"method\":\"$request_method\",\"path\":\"$uri\",\"status\":$status,\"backend\":\"$upstream_addr\",\
           \"duration\":$request_time,\"ttfb\":\"$upstream_header_time\",\"request_bytes\":$request_length,\
           \"response_bytes\":$bytes_sent}}';\n\
         access_log access.log line buffer=4k flush=1s;\n\
         keepalive_requests 1000000000; client_body_buffer_size 64k;\n\
         upstream backend {{ server {upstream}; keepalive 256; keepalive_requests 1000000000; }}\n\
         server {{ listen {address}; client_header_timeout 60s; client_body_timeout 60s; send_timeout 60s;\n\
           location / {{ proxy_pass http://backend; proxy_http_version 1.1; proxy_set_header Connection \"\";\n\
             proxy_connect_timeout 5s; proxy_read_timeout 600s; proxy_send_timeout 60s; }} }}\n\
         server {{ listen {metrics}; access_log off; location /metrics {{ stub_status; }} }} }}\n"
    )
}

fn haproxy_configuration(address: SocketAddr, metrics: SocketAddr, upstream: SocketAddr) -> String {
    let threads = processors();
    format!(
        "global\n nbthread {threads}\n maxconn {CONNECTIONS_MAX}\n log stdout format raw local0 info\n\
         defaults\n mode http\n log global\n option httplog\n option http-keep-alive\n option http-no-delay\n http-reuse always\n\
         \x20timeout connect 5s\n timeout client 60s\n timeout server 600s\n timeout http-request 60s\n timeout http-keep-alive 60s\n\
         frontend traffic\n bind {address}\n default_backend upstream\n\
         backend upstream\n server one {upstream} check inter 1s\n\
         frontend metrics\n bind {metrics}\n no log\n http-request use-service prometheus-exporter if {{ path /metrics }}\n"
    )
}

/// Waits until there is something.
pub(crate) fn wait<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let began = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(began.elapsed() < PATIENCE, "waited in vain for {what}");
        thread::sleep(Duration::from_millis(10));
    }
}
