//! Binding a port, with an error that says which key to change and who holds the address.

use std::{
    fs, io,
    net::{SocketAddr, TcpListener},
};

/// A port could not be had.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {address} ({key}, or {variable}): {source}{holder}")]
pub struct BindError {
    /// What was asked for.
    pub address: SocketAddr,
    /// The configuration key that asked for it.
    pub key: &'static str,
    variable: String,
    holder: String,
    source: io::Error,
}

/// Listens on `address`, which the configuration key `key` gave. Port 0: any free port.
pub fn bind(address: SocketAddr, key: &'static str) -> Result<TcpListener, BindError> {
    let listener = TcpListener::bind(address).map_err(|source| BindError {
        address,
        key,
        variable: variable(key),
        holder: holder_of(&source, address),
        source,
    })?;
    // Both runtimes that may adopt it need it so; it cannot fail on an open socket.
    listener.set_nonblocking(true).map_err(|source| BindError {
        address,
        key,
        variable: variable(key),
        holder: String::new(),
        source,
    })?;
    Ok(listener)
}

fn variable(key: &str) -> String {
    crate::config::keys::find(key).map(crate::config::keys::Key::variable).unwrap_or_default()
}

/// `; held by NAME (pid N)` when the address is taken and its holder can be seen.
fn holder_of(error: &io::Error, address: SocketAddr) -> String {
    if error.kind() != io::ErrorKind::AddrInUse {
        return String::new();
    }
    match holder(address.port()) {
        Some((pid, name)) => format!("; held by {name} (pid {pid})"),
        None => String::new(),
    }
}

/// The process that listens on `port`, its id and name, as far as `/proc` shows it to us.
pub fn holder(port: u16) -> Option<(u32, String)> {
    let inodes: Vec<String> = ["/proc/net/tcp", "/proc/net/tcp6"]
        .iter()
        .filter_map(|table| fs::read_to_string(table).ok())
        .flat_map(|table| listening_inodes(&table, port))
        .collect();
    fs::read_dir("/proc").ok()?.flatten().find_map(|process| {
        let pid: u32 = process.file_name().to_str()?.parse().ok()?;
        let holds = fs::read_dir(process.path().join("fd")).ok()?.flatten().any(|fd| {
            fs::read_link(fd.path()).is_ok_and(|link| {
                inodes.iter().any(|inode| link.to_string_lossy() == format!("socket:[{inode}]"))
            })
        });
        let name = fs::read_to_string(process.path().join("comm")).ok()?;
        holds.then(|| (pid, name.trim().to_owned()))
    })
}

/// Inodes of the sockets listening on `port` (state 0A) in a `/proc/net/tcp` table.
fn listening_inodes(table: &str, port: u16) -> Vec<String> {
    let suffix = format!(":{port:04X}");
    table
        .lines()
        .skip(1)
        .filter_map(|line| {
            let fields: Vec<&str> = line.split_whitespace().collect();
            let listens = fields.get(3) == Some(&"0A") && fields.get(1)?.ends_with(&suffix);
            listens.then(|| fields.get(9).map(|inode| (*inode).to_owned()))?
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_taken_port_names_key_variable_and_holder() {
        let first = bind(([127, 0, 0, 1], 0).into(), "proxy.listen").expect("a free port");
        let taken = first.local_addr().expect("bound");
        let error = bind(taken, "proxy.listen").expect_err("it is taken").to_string();
        assert!(error.contains(&taken.to_string()), "{error}");
        assert!(
            error.contains("proxy.listen") && error.contains("INFERNO_PROXY__LISTEN"),
            "{error}"
        );
        assert!(error.contains(&format!("pid {}", std::process::id())), "{error}");
    }
}
