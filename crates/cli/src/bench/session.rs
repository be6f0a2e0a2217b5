//! A run from its plan to its report.

use std::fs::File;
use std::io::BufReader;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, bail};
use tokio::runtime::{Builder, Runtime};
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::figures::Figures;
use super::pacer::{self, Due};
use super::plan::{Load, Plan, Prompts};
use super::progress::{Goal, Progress};
use super::report::{Circumstances, FileFacts, Report, Warmup};
use super::runner::{Loader, Prepared, Stop};
use super::target::{ApiTarget, Target};
use super::template::{Endpoint, Template};
use super::trace::Trace;
use super::watch::Recorder;
use super::workload::{Source, Workload};
use super::{draws::Draws, interrupt, limits, schedule};
use crate::api::ApiClient;

/// A warm-up of an open loop is a closed one, of so many at a time.
const WARMUP_CONCURRENCY: usize = 8;

/// Does what the plan says. Ctrl-C ends it early, with what was measured until then.
pub(crate) fn run(mut plan: Plan, quiet: bool) -> anyhow::Result<Report> {
    limits::allow_connections(plan.load.in_flight_max())?;
    let (source, file) = source(&plan)?;
    let client = ApiClient::new(&plan.url, plan.key.as_deref())?;
    let runtime = runtime(plan.threads)?;
    if plan.model.is_none() {
        let models = runtime.block_on(client.models())?;
        let first = models.into_iter().next();
        plan.model = Some(first.context("the endpoint offers no model (yet); --model names one")?);
    }
    let target = ApiTarget { client, endpoint: plan.endpoint, stream: plan.stream };
    let session = Session::new(plan, source, quiet, target);
    let interrupted = interrupt::first().context("cannot watch for Ctrl-C")?;
    runtime.block_on(session.run(file, interrupted))
}

fn runtime(threads: usize) -> anyhow::Result<Runtime> {
    // One thread needs no scheduler that looks for work on others.
    let mut builder = match threads {
        1 => Builder::new_current_thread(),
        _ => Builder::new_multi_thread(),
    };
    builder.worker_threads(threads.max(1)).enable_all().build().context("cannot start")
}

/// Where requests come from, and what is to be told of it.
fn source(plan: &Plan) -> anyhow::Result<(Source, Option<FileFacts>)> {
    let (path, max_context) = match &plan.prompts {
        Prompts::Synthetic { tokens, shared_prefix } => {
            let (tokens, shared_prefix) = (*tokens, *shared_prefix);
            return Ok((Source::Synthetic { tokens, shared_prefix }, None));
        }
        Prompts::Text { text } => return Ok((Source::Text(text.clone()), None)),
        Prompts::File { path, max_context } => (path, *max_context),
    };
    let name = path.display();
    let file = File::open(path).with_context(|| format!("cannot open {name}"))?;
    let trace = Trace::read(BufReader::new(file), plan.max_tokens, max_context)
        .with_context(|| format!("{name} is not a file of requests"))?;
    if plan.endpoint == Endpoint::Completions && trace.has_messages() {
        bail!("{name} holds `messages`, which only --endpoint chat takes");
    }
    if matches!(plan.load, Load::Trace { .. }) && trace.untimed() > 0 {
        let untimed = trace.untimed();
        bail!(
            "{untimed} lines of {name} have no `at_ms`; --prompts sends a file without its times"
        );
    }
    let facts = FileFacts { entries: trace.entries.len() as u64, clipped: trace.clipped };
    Ok((Source::Entries(trace.entries), Some(facts)))
}

/// A run under way.
struct Session<T> {
    plan: Plan,
    workload: Arc<Workload>,
    template: Arc<Template>,
    target: Arc<T>,
    quiet: bool,
}

impl<T: Target> Session<T> {
    fn new(plan: Plan, source: Source, quiet: bool, target: T) -> Self {
        let workload = Workload::new(source, plan.max_tokens, plan.seed);
        let model = plan.model.clone().unwrap_or_default();
        let template = Template::new(plan.endpoint, &model, plan.stream, plan.extra_body.clone());
        Self {
            plan,
            workload: Arc::new(workload),
            template: Arc::new(template),
            target: Arc::new(target),
            quiet,
        }
    }

    async fn run(
        self,
        file: Option<FileFacts>,
        mut interrupt: oneshot::Receiver<()>,
    ) -> anyhow::Result<Report> {
        let warmup = tokio::select! {
            warmup = self.warm_up() => Some(warmup?),
            _ = &mut interrupt => None,
        };
        let recorder = Recorder::new(Figures::with(self.plan.objectives));
        let started_unix_ms = unix_ms();
        let (cpu, started) = (limits::cpu_time(), Instant::now());
        let is_whole = warmup.is_some()
            && tokio::select! {
                ended = self.load(&recorder) => { ended?; true }
                _ = &mut interrupt => false,
            };
        let circumstances = Circumstances {
            started_unix_ms,
            elapsed: started.elapsed(),
            cpu: limits::cpu_time().saturating_sub(cpu),
            interrupted: !is_whole,
            file,
            warmup: warmup.unwrap_or_default(),
        };
        let figures = recorder.figures().clone();
        Ok(Report::new(self.plan, &figures, circumstances))
    }

    /// Sends what is not measured. If all of it fails, so would the run.
    async fn warm_up(&self) -> anyhow::Result<Warmup> {
        let requests = self.plan.warmup;
        if requests == 0 {
            return Ok(Warmup::default());
        }
        let recorder = Recorder::new(Figures::default());
        let progress = self.progress("warm-up: ", Goal::Requests(requests), &recorder);
        let concurrency = match self.plan.load {
            Load::Closed { concurrency } => concurrency,
            load => WARMUP_CONCURRENCY.min(load.in_flight_max()),
        };
        let (workload, template) = (self.workload.clone(), self.template.clone());
        let prepare = move |index| prepare(&template, workload.warm_up(index));
        let stop = Stop { requests: Some(requests), at: None };
        self.loader(&recorder).closed_loop(concurrency, stop, prepare).await;
        drop(progress);
        let figures = recorder.figures();
        match figures.errors.values().next() {
            Some(errors) if figures.completed == 0 => {
                bail!("all {} requests of the warm-up failed: {}", figures.failed, errors.example)
            }
            _ => Ok(Warmup { completed: figures.completed, failed: figures.failed }),
        }
    }

    /// The measured part.
    async fn load(&self, recorder: &Recorder) -> anyhow::Result<()> {
        let loader = self.loader(recorder);
        let _progress = self.progress("", self.goal(), recorder);
        let in_flight_max = self.plan.load.in_flight_max();
        let Plan { requests, duration, .. } = self.plan;
        if let Load::Closed { concurrency } = self.plan.load {
            let (workload, template) = (self.workload.clone(), self.template.clone());
            let prepare = move |index| prepare(&template, workload.ask(index));
            let stop = Stop { requests, at: duration.map(|duration| Instant::now() + duration) };
            loader.closed_loop(concurrency, stop, prepare).await;
        } else {
            let arrivals = pacer::start(self.schedule()).context("cannot start a thread")?;
            loader.open_loop(in_flight_max, arrivals).await;
        }
        Ok(())
    }

    fn loader(&self, recorder: &Recorder) -> Loader<T> {
        Loader {
            target: self.target.clone(),
            recorder: recorder.clone(),
            timeout: self.plan.timeout,
        }
    }

    fn progress(&self, phase: &'static str, goal: Goal, recorder: &Recorder) -> Progress {
        match self.quiet {
            true => Progress::quiet(),
            false => Progress::show(phase, goal, recorder.clone()),
        }
    }

    fn goal(&self) -> Goal {
        let entries = match (&self.workload.source, self.plan.load) {
            (Source::Entries(entries), Load::Trace { .. }) => Some(entries.len() as u64),
            _ => None,
        };
        match (self.plan.duration, self.plan.requests.or(entries)) {
            (_, Some(requests)) => Goal::Requests(requests.min(entries.unwrap_or(u64::MAX))),
            (duration, None) => Goal::Time(duration.unwrap_or_default()),
        }
    }

    /// What an open loop sends, and when.
    fn schedule(&self) -> impl Iterator<Item = Due> + Send + use<T> {
        let times: Box<dyn Iterator<Item = Duration> + Send> = match self.plan.load {
            Load::Open { rate, arrivals, .. } => {
                Box::new(schedule::at_rate(rate, arrivals, Draws::of(self.plan.seed)))
            }
            Load::Trace { speed, .. } => Box::new(times(&self.workload.source, speed).into_iter()),
            Load::Closed { .. } => Box::new(std::iter::empty()),
        };
        let duration = self.plan.duration.unwrap_or(Duration::MAX);
        let requests = self.plan.requests.unwrap_or(u64::MAX);
        let (workload, template) = (self.workload.clone(), self.template.clone());
        (0..requests)
            .zip(times.take_while(move |at| *at < duration))
            .map(move |(index, at)| Due { at, request: prepare(&template, workload.ask(index)) })
    }
}

/// A trace's times at `speed` times their pace.
fn times(source: &Source, speed: f64) -> Vec<Duration> {
    let Source::Entries(entries) = source else { return Vec::new() };
    entries.iter().filter_map(|entry| entry.at).map(|at| at.div_f64(speed)).collect()
}

fn prepare(template: &Template, ask: super::workload::Ask) -> Prepared {
    let prompt_tokens = ask.prompt_tokens;
    Prepared { body: template.body(ask), prompt_tokens }
}

fn unix_ms() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    now.as_millis() as u64
}
