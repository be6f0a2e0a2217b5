//! nginx as Debian has it, in front of the same backend.

use super::super::support::within;
use std::{
    net::{SocketAddr, TcpListener},
    path::PathBuf,
    process::{Child, Command, Stdio},
};
use tokio::net::TcpStream;

/// A running nginx; it ends when this is dropped.
pub struct Nginx {
    child: Child,
    pub address: SocketAddr,
    _folder: tempfile::TempDir,
}

impl Nginx {
    /// In front of `backend`; none, where it is not installed.
    pub async fn start(backend: SocketAddr) -> Option<Self> {
        let program = program()?;
        let folder = tempfile::tempdir().unwrap();
        let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let here = folder.path().display();
        let configuration = format!(
            "daemon off; master_process off; pid {here}/pid; error_log {here}/error.log;\n\
             events {{ worker_connections 64; }}\n\
             http {{\n\
               access_log off; client_body_temp_path {here}/body; proxy_temp_path {here}/proxy;\n\
               fastcgi_temp_path {here}/f; uwsgi_temp_path {here}/u; scgi_temp_path {here}/s;\n\
               client_header_timeout 2s; client_body_timeout 2s; lingering_timeout 1s;\n\
               client_max_body_size 16m;\n\
               server {{ listen {address}; location / {{\n\
                 proxy_pass http://{backend}; proxy_http_version 1.1; proxy_set_header Connection \"\";\n\
               }} }}\n\
             }}\n"
        );
        let path = folder.path().join("nginx.conf");
        std::fs::write(&path, configuration).unwrap();
        let child = Command::new(program)
            .args(["-p", &here.to_string(), "-c"])
            .arg(&path)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let nginx = Self { child, address, _folder: folder };
        within("nginx", async {
            while TcpStream::connect(address).await.is_err() {
                tokio::task::yield_now().await;
            }
        })
        .await;
        Some(nginx)
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// `nginx/1.22.1`; none, where it is not installed.
pub fn version() -> Option<String> {
    let said = Command::new(program()?).arg("-v").output().ok()?;
    let said = String::from_utf8_lossy(&said.stderr).into_owned();
    said.split_once(": ").map(|(_, version)| version.trim().to_owned())
}

/// Debian keeps it where only root looks.
fn program() -> Option<PathBuf> {
    let found = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::env::split_paths(&found).chain(["/usr/sbin".into()]);
    folders.map(|folder| folder.join("nginx")).find(|path| path.is_file())
}
