//! Routing policies on a trace of requests, against a cost rule; and what one decision costs.
//!
//! ```text
//! cargo bench -p inferno-proxy --bench routing -- TRACE.jsonl [--backends 4,16,64] [--blocks 1000,4000] [--load 0.7,0.95]
//! cargo bench -p inferno-proxy --bench routing -- decisions
//! ```
//!
//! TRACE has a line a request, in the form that Mooncake published theirs (`timestamp` in ms, `output_length` in
//! tokens, `hash_ids` one for each 512 tokens of prompt). Backends are simulated: each prefills one request at a time
//! (8,000 uncached tokens a second, first come first served) and keeps an LRU cache of so many blocks. Arrivals are
//! stretched so that least-outstanding would keep the backends busy for LOAD of the time.
//!
//! The peer is a rule that knows more than a proxy can: what each backend has cached, to the block. It takes the one
//! with the least sum of backlog (as reported a second ago, and what was sent since), uncached work and 20 ms for each
//! stream. Printed are hits as a share of what one infinite cache would hit and as a ratio to the peer's; the largest
//! backend's work over the mean; the mean waiting for the prefill, with its ratio; and the 99th percentile.

#![allow(clippy::print_stdout, missing_docs)]

use inferno_proxy::prompt::PromptHashes;
use inferno_proxy::routing::{Candidates, Pick, Policy, Prompt, RouteRequest, policy};
use inferno_shared::{
    config::RoutingPolicy,
    membership::{
        CandidateList, Generation, InFlight, ModelRef, NodeLoad, NodeState, NodeType, NodeView,
        ReportedLoad,
    },
};
use serde::Deserialize;
use std::{
    collections::{BTreeMap, BinaryHeap, HashMap, HashSet},
    error::Error,
    hint::black_box,
    sync::Arc,
    time::{Duration, Instant},
};

const PREFILL_TOKENS_S: f64 = 8000.0;
const DECODE_TOKENS_S: f64 = 30.0;
const BLOCK_TOKENS: u32 = 512;
const BLOCK_S: f64 = BLOCK_TOKENS as f64 / PREFILL_TOKENS_S;

#[derive(Deserialize)]
struct Line {
    timestamp: f64,
    output_length: f64,
    hash_ids: Vec<u64>,
}

/// A backend's cache: blocks by when they were used, for eviction.
struct Lru {
    size: usize,
    clock: u64,
    used: HashMap<u64, u64>,
    by_use: BTreeMap<u64, u64>,
}

impl Lru {
    fn new(size: usize) -> Self {
        Self { size, clock: 0, used: HashMap::new(), by_use: BTreeMap::new() }
    }

    fn matching(&self, blocks: &[u64]) -> usize {
        blocks.iter().take_while(|block| self.used.contains_key(block)).count()
    }

    fn add(&mut self, blocks: &[u64]) {
        // A prefix outlives its tail.
        for &block in blocks.iter().rev() {
            self.clock += 1;
            if let Some(before) = self.used.insert(block, self.clock) {
                self.by_use.remove(&before);
            }
            self.by_use.insert(self.clock, block);
        }
        while self.used.len() > self.size {
            let Some((_, block)) = self.by_use.pop_first() else { return };
            self.used.remove(&block);
        }
    }
}

/// Something that ends, soonest first.
struct End<T>(f64, T);

impl<T> PartialEq for End<T> {
    fn eq(&self, other: &Self) -> bool {
        self.0 == other.0
    }
}
impl<T> Eq for End<T> {}
impl<T> PartialOrd for End<T> {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl<T> Ord for End<T> {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        other.0.total_cmp(&self.0)
    }
}

/// Who decides.
enum Rule<'a> {
    Peer,
    Ours(&'a dyn Policy),
}

struct Outcome {
    hits: usize,
    imbalance: f64,
    waits_s: Vec<f64>,
    work_s: f64,
}

impl Outcome {
    fn mean_wait_s(&self) -> f64 {
        self.waits_s.iter().sum::<f64>() / self.waits_s.len() as f64
    }

    fn p99_wait_s(&self) -> f64 {
        self.waits_s[self.waits_s.len() * 99 / 100]
    }
}

fn node(ordinal: usize, kv_cache_tokens: u64) -> Arc<NodeView> {
    let address: std::net::SocketAddr = ([127, 0, 0, 1], 1).into();
    Arc::new(NodeView {
        id: format!("node-{ordinal}"),
        ordinal: ordinal as u32,
        key: ordinal as u64,
        node_type: NodeType::Backend,
        generation: Generation(1),
        address,
        operations: address.into(),
        state: NodeState::Ready,
        models: vec![ModelRef { id: "m".into(), sha256: None }],
        capabilities: Vec::new(),
        fingerprint: None,
        max_concurrency: None,
        token: None,
        reported: ReportedLoad { kv_cache_tokens, ..ReportedLoad::default() },
        load: Arc::new(NodeLoad::default()),
    })
}

/// Backends being simulated.
struct World {
    list: CandidateList,
    caches: Vec<Lru>,
    free_s: Vec<f64>,
    work_s: Vec<f64>,
    /// What the peer sees: backlogs at the last whole second, and what it sent since.
    reported_s: Vec<f64>,
    sent_s: Vec<f64>,
    second: f64,
}

impl World {
    fn new(backends: usize, blocks: usize) -> Self {
        let tokens = blocks as u64 * u64::from(BLOCK_TOKENS);
        Self {
            list: CandidateList::new((0..backends).map(|ordinal| node(ordinal, tokens))),
            caches: (0..backends).map(|_| Lru::new(blocks)).collect(),
            free_s: vec![0.0; backends],
            work_s: vec![0.0; backends],
            reported_s: vec![0.0; backends],
            sent_s: vec![0.0; backends],
            second: -1.0,
        }
    }

    fn report(&mut self, now: f64) {
        if now.floor() != self.second {
            self.second = now.floor();
            self.reported_s =
                self.free_s.iter().map(|free| (free - self.second).max(0.0)).collect();
            self.sent_s.fill(0.0);
        }
    }

    fn peer(&mut self, now: f64, blocks: &[u64]) -> usize {
        let cost = |at: usize| {
            let backlog = (self.reported_s[at] - (now - self.second)).max(0.0) + self.sent_s[at];
            let uncached = blocks.len() - self.caches[at].matching(blocks);
            let streams = f64::from(self.list.candidates[at].load.in_flight());
            backlog + uncached as f64 * BLOCK_S + 0.02 * streams
        };
        let costs = (0..self.list.candidates.len()).map(|at| (cost(at), at));
        let (_, at) = costs.min_by(|a, b| a.0.total_cmp(&b.0)).expect("backends");
        self.sent_s[at] += (blocks.len() - self.caches[at].matching(blocks)) as f64 * BLOCK_S;
        at
    }
}

fn replay(
    trace: &[Line],
    backends: usize,
    blocks: usize,
    stretch: f64,
    rule: &Rule<'_>,
) -> Outcome {
    let mut world = World::new(backends, blocks);
    let mut streams: BinaryHeap<End<InFlight>> = BinaryHeap::new();
    let mut prefills: BinaryHeap<End<Pick>> = BinaryHeap::new();
    let (mut hits, mut waits_s) = (0, Vec::with_capacity(trace.len()));
    for line in trace {
        let (now, prompt) = (line.timestamp / 1e3 * stretch, &line.hash_ids);
        world.report(now);
        while streams.peek().is_some_and(|end| end.0 <= now) {
            streams.pop();
        }
        while let (Rule::Ours(policy), Some(End(at, _))) = (rule, prefills.peek()) {
            if *at > now {
                break;
            }
            if let Some(End(at, Pick { expected: Some(expected), .. })) = prefills.pop() {
                policy.answered(&expected, Duration::from_secs_f64(at));
            }
        }
        let (index, pick) = match rule {
            Rule::Peer => (world.peer(now, prompt), None),
            Rule::Ours(policy) => {
                let prompt = Prompt {
                    blocks: prompt,
                    block_tokens: BLOCK_TOKENS,
                    tokens: prompt.len() as u32 * BLOCK_TOKENS,
                };
                let now = Duration::from_secs_f64(now);
                let request = RouteRequest { now, prompt, ..RouteRequest::default() };
                let candidates = Candidates { list: &world.list, tried: &[] };
                let pick = policy.pick(&request, candidates).expect("backends");
                (pick.index, Some(pick))
            }
        };
        let matching = world.caches[index].matching(prompt);
        let work = (prompt.len() - matching) as f64 * BLOCK_S;
        hits += matching;
        let free = &mut world.free_s[index];
        waits_s.push((*free - now).max(0.0));
        *free = free.max(now) + work;
        world.work_s[index] += work;
        prefills.extend(pick.map(|pick| End(*free, pick)));
        let end = *free + line.output_length / DECODE_TOKENS_S;
        streams.push(End(end, world.list.candidates[index].load.acquire()));
        world.caches[index].add(prompt);
    }
    waits_s.sort_by(f64::total_cmp);
    let work_s: f64 = world.work_s.iter().sum();
    let most = world.work_s.iter().copied().fold(0.0, f64::max);
    Outcome { hits, imbalance: most / (work_s / backends as f64), waits_s, work_s }
}

fn replay_all(
    path: &str,
    backends: &[usize],
    blocks: &[usize],
    loads: &[f64],
) -> Result<(), Box<dyn Error>> {
    let text = std::fs::read_to_string(path)?;
    // Hash 0 is nobody's: the ids begin at 0.
    let mut trace: Vec<Line> = text.lines().map(serde_json::from_str).collect::<Result<_, _>>()?;
    trace.iter_mut().flat_map(|line| &mut line.hash_ids).for_each(|id| *id = spread(*id + 1));
    let (mut seen, mut ideal) = (HashSet::<u64>::new(), 0usize);
    for line in &trace {
        ideal += line.hash_ids.iter().filter(|id| seen.contains(*id)).count();
        seen.extend(&line.hash_ids);
    }
    let span = trace.last().ok_or("an empty trace")?.timestamp / 1e3;
    println!("{} requests; ratios are to the peer's", trace.len());
    println!(
        "backends blocks load policy              hits (ratio)  max/mean  wait_s (ratio)    p99_s"
    );
    for &count in backends {
        for &blocks in blocks {
            let least = policy(RoutingPolicy::LeastOutstanding);
            let work = replay(&trace, count, blocks, 1.0, &Rule::Ours(&*least)).work_s;
            for &load in loads {
                let stretch = work / (count as f64 * load) / span;
                let peer = replay(&trace, count, blocks, stretch, &Rule::Peer);
                let say = |name: &str, outcome: &Outcome| {
                    println!(
                        "{count:8} {blocks:6} {load:4.2} {name:18} {:5.3} ({:5.3})  {:8.2} {:7.3} ({:5.2}) {:8.2}",
                        outcome.hits as f64 / ideal as f64,
                        outcome.hits as f64 / peer.hits as f64,
                        outcome.imbalance,
                        outcome.mean_wait_s(),
                        outcome.mean_wait_s() / peer.mean_wait_s(),
                        outcome.p99_wait_s(),
                    );
                };
                say("peer", &peer);
                for (label, name) in [
                    ("prefix", RoutingPolicy::Prefix),
                    ("least_outstanding", RoutingPolicy::LeastOutstanding),
                    ("power_of_two", RoutingPolicy::PowerOfTwo),
                    ("round_robin", RoutingPolicy::RoundRobin),
                ] {
                    let ours = policy(name);
                    say(label, &replay(&trace, count, blocks, stretch, &Rule::Ours(&*ours)));
                }
            }
        }
    }
    Ok(())
}

/// Numbers that look like hashes (the last steps of SplitMix64).
fn spread(mut x: u64) -> u64 {
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

/// What one decision takes among a thousand, for prompts of 4 and 32 blocks that begin alike.
fn decisions() {
    const BACKENDS: usize = 1000;
    const ROUNDS: usize = 20_000;
    let list = CandidateList::new((0..BACKENDS).map(|ordinal| node(ordinal, 0)));
    println!("microseconds a decision among {BACKENDS}, medians of 5");
    for (label, name) in [
        ("prefix", RoutingPolicy::Prefix),
        ("least_outstanding", RoutingPolicy::LeastOutstanding),
        ("power_of_two", RoutingPolicy::PowerOfTwo),
        ("round_robin", RoutingPolicy::RoundRobin),
        ("weighted", RoutingPolicy::Weighted),
        ("session", RoutingPolicy::Session),
    ] {
        for length in [4usize, 32] {
            let policy = policy(name);
            let mut times: Vec<f64> =
                (0..6).map(|round| time(&*policy, &list, length, ROUNDS, round)).collect();
            times.remove(0);
            times.sort_by(f64::total_cmp);
            println!("{label:18} {length:3} blocks {:8.2}", times[times.len() / 2]);
        }
    }
}

/// What hashing a prompt takes.
fn hashing() {
    println!("nanoseconds a KiB of prompt, best of 9");
    for kib in [2usize, 16, 256] {
        let text = "The quick brown fox. ".repeat(kib * 1024 / 21 + 1);
        let text = &text[..kib * 1024];
        let rounds = 64 * 1024 / kib;
        let best = (0..9)
            .map(|_| {
                let started = Instant::now();
                for _ in 0..rounds {
                    black_box(PromptHashes::of("m", None, [None, Some(black_box(text))]));
                }
                started.elapsed().as_secs_f64() * 1e9 / (rounds * kib) as f64
            })
            .fold(f64::INFINITY, f64::min);
        println!("{kib:4} KiB {best:8.1}");
    }
}

fn time(
    policy: &dyn Policy,
    list: &CandidateList,
    length: usize,
    rounds: usize,
    seed: usize,
) -> f64 {
    let mut prompt = vec![0u64; length];
    let mut spent = Duration::ZERO;
    for round in 0..rounds {
        for (at, block) in prompt.iter_mut().enumerate() {
            // Half is everybody's, the rest one of a thousand conversations'.
            let whose = if at < length / 2 { 0 } else { 1 + round * 7919 % 1000 };
            *block = spread((whose * 100 + at + 1 + seed) as u64);
        }
        let blocks: &[u64] = &prompt;
        let tokens = length as u32 * BLOCK_TOKENS;
        let prompt = Prompt { blocks, block_tokens: BLOCK_TOKENS, tokens };
        let now = Duration::from_micros((seed * rounds + round) as u64 * 100);
        let request = RouteRequest { now, model: 0, prompt, session: Some(round as u64) };
        let started = Instant::now();
        black_box(policy.pick(&request, Candidates { list, tried: &[] }));
        spent += started.elapsed();
    }
    spent.as_secs_f64() * 1e6 / rounds as f64
}

fn list<T: std::str::FromStr>(text: &str) -> Result<Vec<T>, String> {
    text.split(',').map(|item| item.parse().map_err(|_| format!("`{item}` is no number"))).collect()
}

fn main() -> Result<(), Box<dyn Error>> {
    let (mut backends, mut blocks, mut loads) =
        (vec![4, 16, 64], vec![1000, 4000], vec![0.7, 0.95]);
    let mut what = None;
    // cargo adds a flag of its own.
    let mut arguments = std::env::args().skip(1).filter(|argument| argument != "--bench");
    while let Some(argument) = arguments.next() {
        let mut value = || arguments.next().ok_or(format!("{argument} needs a value"));
        match argument.as_str() {
            "--backends" => backends = list(&value()?)?,
            "--blocks" => blocks = list(&value()?)?,
            "--load" => loads = list(&value()?)?,
            _ => what = Some(argument),
        }
    }
    match what.as_deref() {
        Some("decisions") => {
            decisions();
            hashing();
        }
        Some(path) => replay_all(path, &backends, &blocks, &loads)?,
        None => return Err("usage: routing TRACE.jsonl | decisions".into()),
    }
    Ok(())
}
