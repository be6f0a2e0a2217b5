//! `inferno status`: the nodes as a proxy sees them.

use std::fmt::Display;
use std::net::SocketAddr;
use std::process::ExitCode;
use std::time::Duration;

use anstyle::Style;
use inferno_shared::NodeVitals;
use inferno_shared::config::{Config, ConfigArgs};
use inferno_shared::membership::NodeState;
use inferno_shared::operations_client::{ClientError, OperationsClient};
use inferno_shared::registration::{
    secrets::Secrets,
    wire::{Peer, Peers},
};

use super::runtime;
use crate::console::{BAD, BOLD, DIM, GOOD, Styled, WARN, harmless, print};

/// How long the proxy may take to answer.
const PATIENCE: Duration = Duration::from_secs(3);

/// The arguments of `status`.
#[derive(Debug, clap::Args)]
pub(crate) struct StatusArgs {
    /// The proxy's operations address [default: operations.addr of the configuration]
    #[arg(long, value_name = "ADDR")]
    operations: Option<SocketAddr>,
    #[command(flatten)]
    config: ConfigArgs,
    /// One JSON object instead of a table
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(args: &StatusArgs) -> anyhow::Result<ExitCode> {
    let config = Config::load(&args.config)?;
    let operations = args.operations.unwrap_or(config.operations.addr);
    let secrets = Secrets::load(&config.registration.secret_sources())?;
    let asked = runtime()?.block_on(ask(operations, &secrets));
    let (vitals, peers) = asked.map_err(|error| explain(error, operations))?;
    if args.json {
        print(serde_json::json!({ "proxy": vitals, "peers": peers.peers }))?;
    } else {
        print(headline(operations, &vitals))?;
        print(table(&peers.peers))?;
    }
    Ok(ExitCode::SUCCESS)
}

async fn ask(proxy: SocketAddr, secrets: &Secrets) -> Result<(NodeVitals, Peers), ClientError> {
    let client = OperationsClient::new(PATIENCE);
    tokio::try_join!(client.vitals(proxy), client.peers(proxy, secrets.first()))
}

/// What to look at, by what went wrong.
fn explain(error: ClientError, operations: SocketAddr) -> anyhow::Error {
    let what = match &error {
        ClientError::Answer { status, .. } if *status == http::StatusCode::UNAUTHORIZED => format!(
            "the proxy at {operations} wants its registration secret: --set registration.secret_files=FILE"
        ),
        ClientError::Refused | ClientError::Timeout(_) | ClientError::Connection(_) => format!(
            "no proxy answers at {operations}: is it running (`inferno up`), and is this its operations address (--operations)?"
        ),
        _ => format!("{operations} does not answer like a proxy's operations server"),
    };
    anyhow::Error::new(error).context(what)
}

fn headline(operations: SocketAddr, proxy: &NodeVitals) -> String {
    format!(
        "{} {} at {operations}, {}, version {}, up {}: {} requests in progress, {} done, {} failed",
        proxy.service,
        Styled(BOLD, harmless(&proxy.node_id)),
        proxy.state.word(),
        proxy.version,
        duration(proxy.uptime_seconds),
        proxy.requests_in_progress,
        proxy.requests_total.saturating_sub(proxy.requests_in_progress),
        proxy.failed_responses,
    )
}

const COLUMNS: [&str; 10] = [
    "NODE",
    "STATE",
    "ADDRESS",
    "MODELS",
    "IN FLIGHT",
    "QUEUE",
    "KV %",
    "TOKENS/S",
    "CPU %",
    "MEM %",
];
/// Columns from here on are numbers, set to the right.
const FIRST_NUMBER: usize = 4;
const STATE: usize = 1;

fn table(peers: &[Peer]) -> String {
    if peers.is_empty() {
        return "no backend has registered yet".to_owned();
    }
    let rows: Vec<_> = peers.iter().map(row).collect();
    let widths: Vec<_> = (0..COLUMNS.len())
        .map(|column| {
            let cells = rows.iter().map(|row| row[column].chars().count());
            cells.chain([COLUMNS[column].len()]).max().unwrap_or(0)
        })
        .collect();
    let mut lines = vec![Styled(DIM, line(&COLUMNS, &widths, Style::new())).to_string()];
    for (row, peer) in rows.iter().zip(peers) {
        lines.push(line(row, &widths, style(peer.state)));
    }
    lines.join("\n")
}

fn row(peer: &Peer) -> [String; COLUMNS.len()] {
    let models: Vec<_> = peer.models.iter().map(|model| harmless(&model.id)).collect();
    let load = &peer.reported;
    // What a node that is gone reported last is no longer true.
    let reported = |text: String| if peer.state == NodeState::Gone { "-".to_owned() } else { text };
    [
        harmless(&peer.id),
        peer.state.as_str().to_owned(),
        peer.address.to_string(),
        models.join(","),
        peer.in_flight.to_string(),
        reported(load.queue_depth.to_string()),
        reported(format!("{:.0}", load.kv_cache_usage)),
        reported(format!("{:.1}", load.tokens_per_second)),
        reported(format!("{:.0}", load.cpu_usage)),
        reported(format!("{:.0}", load.memory_usage)),
    ]
}

fn line(cells: &[impl Display], widths: &[usize], state: Style) -> String {
    let mut line = String::new();
    for (column, (cell, &width)) in cells.iter().zip(widths).enumerate() {
        let cell = match column {
            FIRST_NUMBER.. => format!("{cell:>width$}"),
            STATE => Styled(state, format_args!("{cell:<width$}")).to_string(),
            _ => format!("{cell:<width$}"),
        };
        line.push_str(&cell);
        line.push_str("  ");
    }
    line.trim_end().to_owned()
}

fn style(state: NodeState) -> Style {
    match state {
        NodeState::Ready => GOOD,
        NodeState::Joining | NodeState::Draining => WARN,
        NodeState::Suspect | NodeState::Gone => BAD,
    }
}

/// The two largest units: `3 d 4 h`, `12 min 5 s`.
fn duration(seconds: u64) -> String {
    match seconds {
        0..60 => format!("{seconds} s"),
        60..3600 => format!("{} min {} s", seconds / 60, seconds % 60),
        3600..86400 => format!("{} h {} min", seconds / 3600, seconds / 60 % 60),
        _ => format!("{} d {} h", seconds / 86400, seconds / 3600 % 24),
    }
}
