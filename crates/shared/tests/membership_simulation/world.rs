//! The world of one run: time, the processes at their sites, and the messages between them.

use crate::{
    ms,
    network::{Network, Site},
    oracle::{self, RECOVERY},
    process::{Claim, LEASE, Members, Pending, Process, RETENTION, address, site, traffic},
    schedule::{CHAOS, Cast, Fault, faults},
};
use fastrand::Rng;
use inferno_shared::{
    NodeVitals,
    endpoint::Endpoint,
    membership::{
        Announcement, Check, Conflict, Generation, Goodbye, NodeState, NodeType, Target, Time,
    },
    registration::{
        lease::book::{Book, Outcome, Phase, Standing},
        proof::judge,
    },
};
use std::{
    cmp::Reverse,
    collections::{BTreeMap, BinaryHeap, HashMap},
    time::Duration,
};

/// How long a registration may take, as the real edge has it.
const REGISTRATION_TIMEOUT: Duration = Duration::from_secs(2);
/// How long a check may take.
const CHECK_TIMEOUT: Duration = Duration::from_millis(500);
/// How often a proxy looks whose check is due.
const BEAT: Duration = Duration::from_millis(100);
/// More events at one moment than any run has: a loop that waits for nothing.
const STANDSTILL_MAX: u32 = 100_000;
/// The wall clock at the beginning, in Unix milliseconds.
const EPOCH_MS: u64 = 1_700_000_000_000;

/// Something that happens to one process.
#[derive(Clone, Debug)]
pub(crate) enum Event {
    /// Its book has something due.
    Wake,
    /// A proxy looks around.
    Beat,
    /// A client's request comes to a proxy.
    Request,
    /// A message arrives.
    Arrive(Message),
    /// An answer arrives.
    Answer { request: u64, answer: Answer },
    /// No answer came in time.
    Expire { request: u64 },
}

/// A question on its way. Duplicates have the request number 0, and their answer is not awaited.
#[derive(Clone, Debug)]
pub(crate) struct Message {
    from: Site,
    request: u64,
    question: Question,
}

#[derive(Clone, Debug)]
enum Question {
    Register(Box<Announcement>),
    Leave(String, Goodbye),
    Vitals,
}

/// What comes back.
#[derive(Clone, Debug)]
pub(crate) enum Answer {
    Registered { instance: String, peers: Vec<Endpoint> },
    Conflict { generation: Option<Generation>, instance: Option<String> },
    Vitals(Box<NodeVitals>),
    Nothing,
    ConnectionRefused,
}

/// Whom an event is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum To {
    /// Whatever runs there when it comes.
    Site(Site),
    /// This incarnation or nobody.
    Process(Site, u64),
}

pub(crate) struct World {
    now: Time,
    rng: Rng,
    cast: Cast,
    /// Nodes know one proxy and hear of the others from it.
    learning: bool,
    network: Network,
    processes: BTreeMap<Site, (u64, Process)>,
    incarnations: u64,
    requests: u64,
    queue: BinaryHeap<Reverse<(Time, u64)>>,
    events: HashMap<u64, (To, Event)>,
    scheduled: u64,
    faults: Vec<(Duration, Fault)>,
    digest: u64,
    /// Events since time last went on.
    standstill: u32,
    tell: bool,
}

impl World {
    pub(crate) fn new(seed: u64, tell: bool) -> Self {
        let mut rng = Rng::with_seed(seed);
        let cast = Cast::of(seed, &mut rng);
        let mut faults = faults(&mut rng, &cast);
        faults.sort_by_key(|(at, _)| Reverse(*at));
        let network = Network::unreliable(&mut rng);
        let learning = cast.proxies > 1 && rng.u8(0..4) == 0;
        Self {
            now: Duration::ZERO,
            rng,
            cast,
            learning,
            network,
            processes: BTreeMap::new(),
            incarnations: 0,
            requests: 0,
            queue: BinaryHeap::new(),
            events: HashMap::new(),
            scheduled: 0,
            faults,
            digest: 0,
            standstill: 0,
            tell,
        }
    }

    /// Chaos, peace, and the end of all backends; with a look at what must hold at each.
    pub(crate) fn run(&mut self) -> Result<(), String> {
        self.run_until(CHAOS)?;
        self.heal();
        // Who has to hear of the other proxies first needs a lease more for that.
        let recovery = if self.learning { RECOVERY + LEASE } else { RECOVERY };
        self.run_until(CHAOS + recovery)?;
        self.check_peace()?;
        for backend in self.cast.proxies..self.cast.sites() {
            self.processes.remove(&backend);
        }
        self.run_until(self.now + LEASE + RETENTION + ms(2_000))?;
        self.check_silence()
    }

    /// A number that two runs share only if they were the same.
    pub(crate) fn digest(&self) -> u64 {
        self.digest
    }

    fn run_until(&mut self, end: Time) -> Result<(), String> {
        loop {
            let next_fault = self.faults.last().map(|(at, _)| *at).filter(|at| *at < CHAOS);
            let next_event = self.queue.peek().map(|Reverse((at, _))| *at);
            let fault_first = next_fault.is_some_and(|at| next_event.is_none_or(|e| at <= e));
            let Some(at) = (if fault_first { next_fault } else { next_event }) else { break };
            if at >= end {
                break;
            }
            self.standstill = if at == self.now { self.standstill + 1 } else { 0 };
            if self.standstill > STANDSTILL_MAX {
                return Err(format!(
                    "time stands still at {at:?}: somebody has something due for ever"
                ));
            }
            self.now = at;
            if fault_first {
                let (_, fault) = self.faults.pop().expect("seen");
                self.befall(&fault);
            } else if let Some(Reverse((_, number))) = self.queue.pop() {
                let (to, event) = self.events.remove(&number).expect("scheduled");
                self.digest = self.digest.rotate_left(5) ^ number ^ at.as_nanos() as u64;
                self.happen(to, event)?;
            }
        }
        self.now = end;
        Ok(())
    }

    fn schedule(&mut self, after: Duration, to: To, event: Event) {
        self.scheduled += 1;
        self.queue.push(Reverse((self.now + after, self.scheduled)));
        self.events.insert(self.scheduled, (to, event));
    }

    // -- faults -------------------------------------------------------------------------------

    fn befall(&mut self, fault: &Fault) {
        self.story(|| format!("{fault:?}"));
        match *fault {
            Fault::Start { site, skew_ms } => self.start(site, None, skew_ms),
            Fault::Impostor { site, of } => self.start(site, Some(of), 0),
            Fault::Crash(site) => {
                self.processes.remove(&site);
            }
            Fault::Drain(site) => self.drain(site),
            Fault::Leave(site) => self.leave(site),
            Fault::Pause(site) => {
                if let Some((_, process)) = self.processes.get_mut(&site) {
                    process.paused.get_or_insert_default();
                }
            }
            Fault::Resume(site) => self.resume(site),
            Fault::Unready(site) => self.set_ready(site, false),
            Fault::Ready(site) => self.set_ready(site, true),
            Fault::Cut(from, to) => self.network.cut(from, to),
            Fault::Mend(from, to) => self.network.mend(from, to),
            Fault::Slow(site) => self.network.slow_down(site),
            Fault::Fast(site) => self.network.speed_up(site),
        }
    }

    /// All faults end: everyone runs, nobody is in anybody's place.
    fn heal(&mut self) {
        self.story(|| "all is well".into());
        self.network.heal();
        let first_impostor = self.cast.proxies + self.cast.backends;
        for site in 0..self.cast.sites() {
            let retired =
                self.processes.get(&site).is_some_and(|(_, p)| p.phase == Phase::Draining);
            if site >= first_impostor || retired {
                self.processes.remove(&site);
            }
            if site < first_impostor {
                self.start(site, None, 0);
                self.resume(site);
                self.set_ready(site, true);
            }
        }
    }

    /// Starts a process where none runs.
    fn start(&mut self, site: Site, impostor_of: Option<Site>, skew_ms: i64) {
        if self.processes.contains_key(&site) {
            return;
        }
        self.incarnations += 1;
        let incarnation = self.incarnations;
        let is_proxy = site < self.cast.proxies;
        let name = impostor_of.unwrap_or(site);
        let clock = EPOCH_MS.saturating_add_signed(skew_ms) + self.now.as_millis() as u64;
        let mut process = Process {
            id: format!("{}{name}", if is_proxy { "p" } else { "b" }),
            node_type: if is_proxy { NodeType::Proxy } else { NodeType::Backend },
            site,
            generation: Generation(clock),
            nonce: format!("n{incarnation}"),
            started: self.now,
            book: Book::new(format!("n{incarnation}")),
            phase: Phase::Serving,
            ready: true,
            paused: None,
            pending: HashMap::new(),
            wake: None,
            members: is_proxy.then(|| Box::new(Members::new())),
        };
        let known = if self.learning { 0..1 } else { 0..self.cast.proxies };
        let known: Vec<_> = known.map(|proxy| Endpoint::plain(address(proxy))).collect();
        process.book.resolved(Duration::ZERO, 0, &known);
        self.processes.insert(site, (incarnation, process));
        if is_proxy {
            self.schedule(BEAT, To::Process(site, incarnation), Event::Beat);
            self.schedule(ms(50), To::Process(site, incarnation), Event::Request);
        }
        self.plan_wake(site);
    }

    fn drain(&mut self, site: Site) {
        if let Some((_, process)) = self.processes.get_mut(&site) {
            process.phase = Phase::Draining;
            self.plan_wake(site);
        }
    }

    /// A drained process says goodbye to whoever holds its lease, and ends.
    fn leave(&mut self, site: Site) {
        let leaving = self.processes.get(&site);
        if leaving.is_none_or(|(_, p)| p.phase != Phase::Draining || p.paused.is_some()) {
            return;
        }
        let Some((_, process)) = self.processes.remove(&site) else { return };
        for proxy in process.book.held() {
            let nonce = Some(process.nonce.clone());
            let goodbye = Goodbye { generation: Some(process.generation), nonce };
            let question = Question::Leave(process.id.clone(), goodbye);
            self.send(site, proxy.address, 0, question);
        }
    }

    fn resume(&mut self, site: Site) {
        let Some((incarnation, process)) = self.processes.get_mut(&site) else { return };
        let incarnation = *incarnation;
        for event in process.paused.take().into_iter().flatten() {
            self.schedule(Duration::ZERO, To::Process(site, incarnation), event);
        }
    }

    fn set_ready(&mut self, site: Site, ready: bool) {
        if let Some((_, process)) = self.processes.get_mut(&site) {
            process.ready = ready;
        }
    }

    // -- events -------------------------------------------------------------------------------

    fn happen(&mut self, to: To, event: Event) -> Result<(), String> {
        let (To::Site(site) | To::Process(site, _)) = to;
        let Some((incarnation, process)) = self.processes.get_mut(&site) else {
            if let Event::Arrive(message) = event {
                self.answer(site, &message, Answer::ConnectionRefused);
            }
            return Ok(());
        };
        if matches!(to, To::Process(_, meant) if meant != *incarnation) {
            return Ok(());
        }
        if let Some(waiting) = &mut process.paused {
            waiting.push(event);
            return Ok(());
        }
        match event {
            Event::Wake => self.wake(site),
            Event::Beat => self.beat(site)?,
            Event::Request => self.route(site)?,
            Event::Arrive(message) => self.arrive(site, &message),
            Event::Answer { request, answer } => self.finish(site, request, Some(answer)),
            Event::Expire { request } => self.finish(site, request, None),
        }
        Ok(())
    }

    /// Announces the process to every proxy whose time has come.
    fn wake(&mut self, site: Site) {
        let now = self.now;
        let (process, _) = self.at(site);
        process.wake = None;
        let standing = process.standing();
        let due = process.book.start_due(process.local(now), standing);
        let announcement = process.announcement();
        for announce in due {
            let proxy = announce.endpoint.address;
            let question = Question::Register(Box::new(announcement.clone()));
            self.ask(site, proxy, Pending::Announcement { proxy, standing }, question);
        }
        self.plan_wake(site);
    }

    fn plan_wake(&mut self, site: Site) {
        let now = self.now;
        let (process, incarnation) = self.at(site);
        let Some(due) = process.book.next_due(process.standing()) else { return };
        let at = (process.started + due).max(now);
        if process.wake.is_none_or(|planned| at < planned) {
            process.wake = Some(at);
            self.schedule(at - now, To::Process(site, incarnation), Event::Wake);
        }
    }

    /// What the real registry does in its loop.
    fn beat(&mut self, site: Site) -> Result<(), String> {
        let now = self.now;
        let (process, incarnation) = self.at(site);
        let local = process.local(now);
        let members = process.members.as_deref_mut().expect("a proxy");
        if members.next_tick <= local {
            members.membership.tick(local);
            members.next_tick = local + ms(1_000);
        }
        let targets = members.membership.start_checks(local, usize::MAX);
        members.oracle.shown(&members.membership.snapshot())?;
        self.tell_transitions(site);
        for target in targets {
            let operations = target.operations.address;
            self.ask(site, operations, Pending::Check(target), Question::Vitals);
        }
        self.schedule(BEAT, To::Process(site, incarnation), Event::Beat);
        Ok(())
    }

    /// A client's request: it goes to any candidate, and finds nobody there or somebody.
    fn route(&mut self, site: Site) -> Result<(), String> {
        let again = ms(self.rng.u64(50..400));
        let chance = self.rng.usize(..);
        let now = self.now;
        let (process, incarnation) = self.at(site);
        let local = process.local(now);
        let members = process.members.as_deref_mut().expect("a proxy");
        let snapshot = members.membership.snapshot();
        if let Some(list) = snapshot.candidates("m") {
            let chosen = &list.candidates[chance % list.candidates.len()].node;
            let target = members.membership.target(&chosen.id).expect("it is shown");
            members.oracle.routed(&target)?;
            let to = self::site(chosen.operations.address);
            let reaches = self.network.send(&mut self.rng, site, to).after.is_some();
            if reaches && !self.processes.contains_key(&to) {
                let members = self.at(site).0.members.as_deref_mut().expect("a proxy");
                members.membership.connect_refused(local, &chosen.id, chosen.generation);
                members.oracle.refused(&target);
                self.tell_transitions(site);
            }
        }
        self.schedule(again, To::Process(site, incarnation), Event::Request);
        Ok(())
    }

    fn arrive(&mut self, site: Site, message: &Message) {
        let now = self.now;
        let process = self.at(site).0;
        let local = process.local(now);
        let answer = match &message.question {
            Question::Vitals => Answer::Vitals(Box::new(process.vitals())),
            Question::Leave(id, goodbye) => {
                if let Some(members) = process.members.as_deref_mut()
                    && members.membership.leave(local, id, goodbye)
                {
                    members.oracle.left(id, traffic(message.from), goodbye);
                }
                Answer::Nothing
            }
            Question::Register(announcement) => {
                let announcement = (**announcement).clone();
                let claim = Claim { from: message.from, request: message.request, announcement };
                return self.register(site, Box::new(claim), false);
            }
        };
        self.tell_transitions(site);
        self.answer(site, message, answer);
    }

    /// What the real registry does with a registration; `proved` after a look at the id's holder.
    fn register(&mut self, site: Site, claim: Box<Claim>, proved: bool) {
        let now = self.now;
        let process = self.at(site).0;
        let (local, instance) = (process.local(now), process.nonce.clone());
        let own = process.id == claim.announcement.id;
        let refusal =
            |generation| Answer::Conflict { generation, instance: Some(instance.clone()) };
        let Some(members) = process.members.as_deref_mut().filter(|_| !own) else {
            return self.reply(site, claim.from, claim.request, refusal(None));
        };
        let answer = match members.membership.register(local, claim.announcement.clone()) {
            Ok(_) => {
                members.oracle.registered(&claim.announcement);
                let snapshot = members.membership.snapshot();
                let others = snapshot.proxies().filter(|proxy| proxy.id != claim.announcement.id);
                let peers = others.map(|proxy| proxy.operations.clone()).collect();
                Answer::Registered { instance, peers }
            }
            Err(Conflict::Contested(holder)) if !proved => {
                let operations = holder.operations.address;
                let pending = Pending::Proof { holder: *holder, claim };
                return self.ask(site, operations, pending, Question::Vitals);
            }
            Err(Conflict::OlderGeneration { current }) => refusal(Some(current)),
            Err(_) => refusal(None),
        };
        self.reply(site, claim.from, claim.request, answer);
        self.tell_transitions(site);
        self.prove(site, &claim.announcement.id);
    }

    /// Checks at once whoever was only heard.
    fn prove(&mut self, site: Site, id: &str) {
        let members = self.at(site).0.members.as_deref_mut().expect("a proxy");
        let joining = members.membership.get(id).is_some_and(|n| n.state == NodeState::Joining);
        if let Some(target) = members.membership.target(id).filter(|_| joining) {
            self.ask(site, target.operations.address, Pending::Check(target), Question::Vitals);
        }
    }

    /// A question of the process at `site` was answered, or was not in time.
    fn finish(&mut self, site: Site, request: u64, answer: Option<Answer>) {
        match self.at(site).0.pending.remove(&request) {
            None => {}
            Some(Pending::Announcement { proxy, standing }) => {
                self.announced(site, proxy, standing, answer);
            }
            Some(Pending::Check(target)) => self.checked(site, &target, answer.as_ref()),
            Some(Pending::Proof { holder, claim }) => {
                self.checked(site, &holder, answer.as_ref());
                self.register(site, claim, true);
            }
        }
    }

    fn announced(
        &mut self,
        site: Site,
        proxy: std::net::SocketAddr,
        standing: Standing,
        answer: Option<Answer>,
    ) {
        let now = self.now;
        let chance = self.rng.f64();
        let process = self.at(site).0;
        let outcome = match answer {
            Some(Answer::Registered { instance, peers }) => {
                Outcome::Held { instance, lease: LEASE, peers }
            }
            Some(Answer::Conflict { generation: Some(current), .. }) => {
                process.generation = process.generation.max(current.next());
                Outcome::Outgrown
            }
            Some(Answer::Conflict { instance, .. }) => Outcome::Refused { instance },
            _ => Outcome::Failed,
        };
        let local = process.local(now);
        let id = process.id.clone();
        let story = format!("{id} at {site} told p{}: {outcome:?}", self::site(proxy));
        process.book.finished(local, proxy, standing, outcome, chance);
        self.story(|| story);
        self.plan_wake(site);
    }

    fn checked(&mut self, site: Site, target: &Target, answer: Option<&Answer>) {
        let now = self.now;
        let process = self.at(site).0;
        let local = process.local(now);
        let check = match answer {
            Some(Answer::Vitals(vitals)) => judge(target, vitals),
            Some(Answer::ConnectionRefused) => Check::Refused,
            _ => Check::Missed,
        };
        let members = process.members.as_deref_mut().expect("a proxy");
        let state = members.membership.get(&target.id).map(|node| node.state);
        members.oracle.checked(target, check, state);
        members.membership.checked(local, &target.id, target.generation, check);
        self.tell_transitions(site);
    }

    /// Proxies that proved themselves are registered with; the story has each change of state.
    fn tell_transitions(&mut self, site: Site) {
        let now = self.now;
        let tell = self.tell;
        let process = self.at(site).0;
        let local = process.local(now);
        let Some(members) = process.members.as_deref_mut() else { return };
        let mut learned = false;
        for step in members.membership.take_transitions() {
            if tell {
                println!("{now:>12?} {} sees {} {:?}", process.id, step.id, step.state);
            }
            if step.state == Some(NodeState::Ready) && step.node_type == NodeType::Proxy {
                learned |= process.book.learned(local, &step.operations);
            }
        }
        if learned {
            self.plan_wake(site);
        }
    }

    // -- messages -----------------------------------------------------------------------------

    /// Asks, and waits for the answer as long as the real edge would.
    fn ask(&mut self, site: Site, to: std::net::SocketAddr, pending: Pending, question: Question) {
        self.requests += 1;
        let request = self.requests;
        let patience = match pending {
            Pending::Announcement { .. } => REGISTRATION_TIMEOUT,
            Pending::Check(_) | Pending::Proof { .. } => CHECK_TIMEOUT,
        };
        let (process, incarnation) = self.at(site);
        process.pending.insert(request, pending);
        self.schedule(patience, To::Process(site, incarnation), Event::Expire { request });
        self.send(site, to, request, question);
    }

    fn send(&mut self, from: Site, to: std::net::SocketAddr, request: u64, question: Question) {
        let to = site(to);
        let delivery = self.network.send(&mut self.rng, from, to);
        if let Some(after) = delivery.again_after {
            let message = Message { from, request: 0, question: question.clone() };
            self.schedule(after, To::Site(to), Event::Arrive(message));
        }
        if let Some(after) = delivery.after {
            self.schedule(after, To::Site(to), Event::Arrive(Message { from, request, question }));
        }
    }

    fn answer(&mut self, site: Site, message: &Message, answer: Answer) {
        self.reply(site, message.from, message.request, answer);
    }

    fn reply(&mut self, from: Site, to: Site, request: u64, answer: Answer) {
        if request == 0 {
            return;
        }
        if let Some(after) = self.network.send(&mut self.rng, from, to).after {
            self.schedule(after, To::Site(to), Event::Answer { request, answer });
        }
    }

    // -- what must hold -----------------------------------------------------------------------

    fn check_peace(&mut self) -> Result<(), String> {
        let mut snapshots = Vec::new();
        for (site, (_, proxy)) in self.processes.range(..self.cast.proxies) {
            let snapshot = proxy.members.as_ref().expect("a proxy").membership.snapshot();
            let others = self.processes.iter().filter(|(other, _)| *other != site);
            oracle::knows_all(&proxy.id, &snapshot, others.map(|(_, (_, process))| process))?;
            snapshots.push((proxy.id.clone(), snapshot));
        }
        oracle::agree(&snapshots)
    }

    fn check_silence(&self) -> Result<(), String> {
        for (_, proxy) in self.processes.range(..self.cast.proxies).map(|(_, process)| process) {
            let snapshot = proxy.members.as_ref().expect("a proxy").membership.snapshot();
            let left = snapshot.nodes.iter().find(|node| node.node_type == NodeType::Backend);
            if let Some(node) = left {
                return Err(format!("{} still knows {} as {:?}", proxy.id, node.id, node.state));
            }
        }
        Ok(())
    }

    /// The process at a site where one runs.
    fn at(&mut self, site: Site) -> (&mut Process, u64) {
        let (incarnation, process) = self.processes.get_mut(&site).expect("it runs");
        (process, *incarnation)
    }

    fn story(&self, line: impl FnOnce() -> String) {
        if self.tell {
            println!("{:>12?} {}", self.now, line());
        }
    }
}
