//! What our server is compared with: the least that its own library needs for the same answer, and
//! nginx saying the same word from its configuration.

use bytes::Bytes;
use http_body_util::Full;
use hyper::{Response, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use inferno_tests::{debian, http::Connection, process::Process};
use std::{
    convert::Infallible,
    io::BufRead,
    net::{SocketAddr, TcpListener},
    process::{Command, Stdio},
};
use tempfile::TempDir;

/// The argument that makes this program [`serve_static`].
pub(crate) const SERVE_STATIC: &str = "--serve-static";

/// A server beside ours.
pub(crate) struct Peer {
    pub(crate) address: SocketAddr,
    pub(crate) process: Process,
    _folder: Option<TempDir>,
}

/// Plain hyper: static bytes, on one thread, until killed. Says its address first.
#[expect(clippy::print_stdout, reason = "how the parent learns the address")]
pub(crate) async fn serve_static() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    println!("{}", listener.local_addr().expect("bound"));
    loop {
        let (stream, _) = listener.accept().await.expect("accepts");
        stream.set_nodelay(true).expect("a socket");
        let answer = service_fn(|_| async {
            let mut answer = Response::new(Full::new(Bytes::from_static(b"healthy")));
            let text = http::HeaderValue::from_static("text/plain; charset=utf-8");
            answer.headers_mut().insert(http::header::CONTENT_TYPE, text);
            Ok::<_, Infallible>(answer)
        });
        tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), answer));
    }
}

/// [`serve_static`] in a process of its own.
pub(crate) fn hyper() -> Peer {
    let mut command = Command::new(std::env::current_exe().expect("a program has a path"));
    command.arg(SERVE_STATIC).stdout(Stdio::piped());
    let mut process = Process::start("hyper", command);
    let mut address = String::new();
    process.stdout().read_line(&mut address).expect("it says its address");
    Peer { address: address.trim().parse().expect("an address"), process, _folder: None }
}

/// nginx in one process, in the foreground, with a folder of its own.
pub(crate) fn nginx() -> Result<Peer, String> {
    let program = debian::program("nginx", "nginx")?;
    let folder = tempfile::tempdir().map_err(|error| error.to_string())?;
    let address = free_address();
    let file = folder.path().join("nginx.conf");
    std::fs::write(&file, nginx_configuration(address)).map_err(|error| error.to_string())?;
    let mut command = Command::new(program);
    command.arg("-p").arg(folder.path()).arg("-c").arg(&file).args(["-e", "stderr"]);
    let process = Process::start("nginx", command);
    let patience = std::time::Instant::now() + std::time::Duration::from_secs(10);
    while Connection::open(address).is_err() {
        if patience < std::time::Instant::now() {
            return Err(process.log());
        }
        std::thread::yield_now();
    }
    Ok(Peer { address, process, _folder: Some(folder) })
}

/// nginx cannot take port 0.
fn free_address() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    listener.local_addr().expect("bound")
}

fn nginx_configuration(address: SocketAddr) -> String {
    let folders: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .map(|name| format!("{name}_temp_path {name};\n"))
        .concat();
    format!(
        "daemon off; master_process off; worker_processes 1; pid nginx.pid; error_log stderr;\n\
         events {{ worker_connections 1024; }}\n\
         http {{\n{folders}access_log off; keepalive_requests 1000000000; default_type text/plain;\n\
         server {{ listen {address}; location / {{ return 200 \"healthy\"; }} }} }}\n"
    )
}
