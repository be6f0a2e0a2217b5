//! The loop that starts processes, hears of their ends and readiness, and stops them.

use std::ffi::OsString;
use std::future::pending;
use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::Context;
use http::StatusCode;
use inferno_shared::endpoint::Endpoint;
use inferno_shared::operations_client::{self, OperationsClient};
use inferno_shared::registration::{secrets::Secrets, wire::Peer};
use tokio::sync::mpsc::{self, Receiver, UnboundedSender};
use tokio::sync::watch;
use tokio::task::spawn_local;
use tokio::time::{sleep, sleep_until, timeout};

use super::events::{Event, Reporter, line, prefix};
use super::fleet::{Fate, Fleet};
use super::plan::{Plan, ProcessPlan, reachable};
use super::process::{Exit, Process, Sink};
use crate::api::{ApiClient, ApiError};
use crate::signals::StopSignals;

/// Between two looks at the proxy while something is not ready yet.
const PROBE_INTERVAL: Duration = Duration::from_millis(20);
/// How long one look may take.
const PROBE_TIMEOUT: Duration = Duration::from_secs(1);
/// What processes get beyond their own drain timeout before they are killed.
const GRACE: Duration = Duration::from_secs(3);

/// How it all ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ended {
    /// As asked: every process finished by itself.
    Stopped,
    /// As asked twice, or because the time was up: some were killed.
    Killed,
    /// The proxy, or every backend, never got ready.
    Hopeless,
}

/// Runs the plan until a signal ends it. Needs a `LocalSet`.
///
/// # Errors
/// If this program or signals cannot be had from the operating system.
pub(crate) async fn supervise(
    plan: &Plan,
    reporter: &Reporter,
    drain: Duration,
) -> anyhow::Result<Ended> {
    let mut stops = StopSignals::new().context("cannot listen to signals")?;
    let (exits, mut exit_inbox) = mpsc::unbounded_channel();
    let (client, proxy) = operations_client::own(&plan.operations_config(), PROBE_TIMEOUT)?;
    let (unsettled, mut peers) = watch_peers(client, proxy, plan.secrets.clone());
    let mut supervisor = Supervisor::new(plan, reporter, exits)?;
    let mut deadline = None;
    loop {
        supervisor.start_due();
        if supervisor.fleet.is_over() {
            reporter.tell(&Event::Stopped);
            return Ok(supervisor.ended);
        }
        unsettled.send_replace(deadline.is_none() && !supervisor.is_settled());
        tokio::select! {
            Some(exit) = exit_inbox.recv() => supervisor.exited(exit),
            Some(members) = peers.recv() => supervisor.observed(&members).await,
            () = until(supervisor.fleet.next_due()) => {}
            () = stops.next() => supervisor.stop_or_kill(&mut deadline, drain),
            () = until(deadline) => supervisor.stop_or_kill(&mut deadline, drain),
        }
        if supervisor.ended == Ended::Hopeless && deadline.is_none() {
            supervisor.stop_or_kill(&mut deadline, drain);
        }
    }
}

struct Supervisor<'a> {
    plan: &'a Plan,
    reporter: &'a Reporter,
    program: OsString,
    processes: Vec<ProcessPlan>,
    sinks: Vec<Sink>,
    running: Vec<Option<Process>>,
    starts: Vec<u32>,
    fleet: Fleet,
    exits: UnboundedSender<Exit>,
    api: ApiClient,
    announced: bool,
    ended: Ended,
}

impl<'a> Supervisor<'a> {
    fn new(
        plan: &'a Plan,
        reporter: &'a Reporter,
        exits: UnboundedSender<Exit>,
    ) -> anyhow::Result<Self> {
        let program = std::env::current_exe().context("cannot find this program")?.into_os_string();
        let processes = plan.processes();
        let names = processes.iter().map(|process| process.name.clone());
        Ok(Self {
            plan,
            reporter,
            program,
            sinks: sinks(&processes),
            running: processes.iter().map(|_| None).collect(),
            starts: vec![0; processes.len()],
            fleet: Fleet::new(names, Instant::now()),
            processes,
            exits,
            api: ApiClient::new(&format!("http://{}", reachable(plan.listen)), None)?,
            announced: false,
            ended: Ended::Stopped,
        })
    }

    fn start_due(&mut self) {
        for process in self.fleet.due(Instant::now()) {
            self.start(process);
        }
    }

    /// Starts one; that it cannot be started is an end like another.
    fn start(&mut self, process: usize) {
        let arguments = &self.processes[process].arguments;
        let exits = self.exits.clone();
        let sink = &self.sinks[process];
        match Process::start(&self.program, arguments, process, sink, exits) {
            Ok(running) => {
                let (name, pid, restarts) =
                    (self.fleet.name(process), running.pid, self.starts[process]);
                self.reporter.tell(&match restarts {
                    0 => Event::Started { process: name, pid },
                    restarts => Event::Restarted { process: name, pid, restarts },
                });
                self.running[process] = Some(running);
            }
            Err(error) => self.exited(Exit { process, status: Err(error) }),
        }
        self.starts[process] += 1;
    }

    fn exited(&mut self, Exit { process, status }: Exit) {
        self.running[process] = None;
        let fate = self.fleet.ended(process, Instant::now());
        let restart_in_ms = match fate {
            Fate::RestartAfter(delay) => Some(millis(delay)),
            Fate::GivenUp | Fate::Hopeless | Fate::Stopped => None,
        };
        let status = status.map_or_else(|error| error.to_string(), |status| status.to_string());
        let name = self.fleet.name(process);
        self.reporter.tell(&Event::Exited { process: name, status: &status, restart_in_ms });
        if matches!(fate, Fate::GivenUp | Fate::Hopeless) {
            self.reporter.tell(&Event::GaveUp { process: name });
        }
        if fate == Fate::Hopeless {
            self.ended = Ended::Hopeless;
        }
    }

    fn is_settled(&self) -> bool {
        self.announced && self.fleet.is_settled()
    }

    async fn observed(&mut self, peers: &[Peer]) {
        for ready in self.fleet.observed(peers, Instant::now()) {
            let process = self.fleet.name(ready.process);
            let Some(peer) = peers.iter().find(|peer| peer.id == process) else { continue };
            let after_ms = millis(ready.after);
            self.reporter.tell(&Event::BackendReady { process, address: peer.address, after_ms });
        }
        if !self.announced && self.fleet.serves() {
            self.announce().await;
        }
    }

    /// Says that the address can be used, once the proxy's clients can see the model.
    async fn announce(&mut self) {
        let models = timeout(PROBE_TIMEOUT, self.api.models()).await;
        let is_served = match models {
            Ok(Ok(models)) => models.contains(&self.plan.model_id),
            // It wants a key, which is not ours to have: that it asks for one is answer enough.
            Ok(Err(ApiError::Refused { status, .. })) => status == StatusCode::UNAUTHORIZED,
            _ => false,
        };
        if is_served {
            self.announced = true;
            self.reporter.tell(&Event::Ready {
                address: self.plan.listen,
                operations: self.plan.operations,
                model: &self.plan.model_id,
                embeds: self.plan.embeds,
                backends: self.plan.backends,
                needs_key: self.plan.needs_key,
            });
        }
    }

    /// The first time, asks every process to finish; the second time, or when the time is up, ends
    /// them.
    fn stop_or_kill(&mut self, deadline: &mut Option<Instant>, drain: Duration) {
        self.fleet.stop();
        let running = self.running.iter().flatten();
        if deadline.is_some() {
            running.for_each(Process::kill);
            // Only the news of their ends is missing.
            *deadline = Some(Instant::now() + GRACE);
            self.ended = Ended::Killed;
            return;
        }
        running.for_each(Process::terminate);
        *deadline = Some(Instant::now() + drain + GRACE);
        self.reporter.tell(&Event::Stopping { timeout_ms: millis(drain) });
    }
}

/// Asks the proxy for its members for as long as the sender says that something is not ready yet.
fn watch_peers(
    client: OperationsClient,
    proxy: Endpoint,
    secrets: Secrets,
) -> (watch::Sender<bool>, Receiver<Vec<Peer>>) {
    let (unsettled, mut wanted) = watch::channel(true);
    // One at most waits: an older answer would tell of processes that are no more.
    let (sender, receiver) = mpsc::channel(1);
    spawn_local(async move {
        while wanted.wait_for(|wanted| *wanted).await.is_ok() {
            // Until it listens, it cannot be asked: that is no news.
            if let Ok(members) = client.peers(proxy.clone(), secrets.first().as_deref()).await
                && sender.send(members.peers).await.is_err()
            {
                break;
            }
            sleep(PROBE_INTERVAL).await;
        }
    });
    (unsettled, receiver)
}

fn sinks(processes: &[ProcessPlan]) -> Vec<Sink> {
    let width = processes.iter().map(|process| process.name.len()).max().unwrap_or(0);
    let sink = |(number, process): (usize, &ProcessPlan)| -> Sink {
        let prefix = prefix(number, &process.name, width);
        Rc::new(move |text| line(&prefix, text))
    };
    processes.iter().enumerate().map(sink).collect()
}

async fn until(moment: Option<Instant>) {
    match moment {
        Some(moment) => sleep_until(moment.into()).await,
        None => pending().await,
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
