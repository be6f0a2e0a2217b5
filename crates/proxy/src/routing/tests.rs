use super::*;
use inferno_shared::membership::{ModelRef, NodeLoad, NodeState, NodeType, NodeView, ReportedLoad};
use proptest::prelude::*;
use std::collections::BTreeSet;

const REQUEST: RouteRequest<'_> = RouteRequest {
    now: Duration::ZERO,
    model: 0,
    prompt: Prompt { blocks: &[], block_tokens: 128, tokens: 0 },
    session: None,
};

const EVERY: [RoutingPolicy; 6] = [
    RoutingPolicy::Prefix,
    RoutingPolicy::LeastOutstanding,
    RoutingPolicy::PowerOfTwo,
    RoutingPolicy::RoundRobin,
    RoutingPolicy::Weighted,
    RoutingPolicy::Session,
];

/// A node that serves `m`.
pub(crate) fn node(index: usize, reported: ReportedLoad) -> NodeView {
    let address: std::net::SocketAddr = ([127, 0, 0, 1], 1).into();
    NodeView {
        id: format!("n{index}"),
        ordinal: index as u32,
        key: (index as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15),
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
        reported,
        load: Arc::new(NodeLoad::default()),
    }
}

/// A fleet in which nothing happens.
#[derive(Default)]
pub(crate) struct Still(pub(crate) Arc<Snapshot>);

impl Fleet for Still {
    fn snapshot(&self) -> Arc<Snapshot> {
        Arc::clone(&self.0)
    }

    fn changes(&self) -> watch::Receiver<u64> {
        watch::Sender::new(0).subscribe()
    }

    fn report_connect_refused(&self, id: &str, _: Generation) {
        unreachable!("{id} refused nothing");
    }
}

fn list(queues: &[u64]) -> CandidateList {
    let reported = |queue_depth| ReportedLoad { queue_depth, ..ReportedLoad::default() };
    let nodes = queues.iter().enumerate();
    CandidateList::new(nodes.map(|(index, &queue)| Arc::new(node(index, reported(queue)))))
}

fn all(list: &CandidateList) -> Candidates<'_> {
    Candidates { list, tried: &[] }
}

fn pick(policy: &dyn Policy, list: &CandidateList) -> usize {
    policy.pick(&REQUEST, all(list)).expect("some").index
}

#[test]
fn nobody_is_picked_from_nobody() {
    let (none, two) = (list(&[]), list(&[0, 0]));
    for name in EVERY {
        let policy = policy(name);
        assert_eq!(policy.pick(&REQUEST, all(&none)), None, "{name:?}");
        let tried = Candidates { list: &two, tried: &[0, 1] };
        assert_eq!(policy.pick(&REQUEST, tried), None, "{name:?}");
        assert!(policy.opinions(&REQUEST, tried).is_empty(), "{name:?}");
    }
}

#[test]
fn a_session_stays_and_moves_only_if_its_node_is_gone() {
    let (before, policy) = (list(&[0; 10]), policy(RoutingPolicy::Session));
    let kept = before.candidates.iter().filter(|one| one.ordinal != 3);
    let after = CandidateList::new(kept.map(|one| Arc::clone(&one.node)));
    let of = |list: &CandidateList, session| {
        let request = RouteRequest { session: Some(session), ..REQUEST };
        let pick = policy.pick(&request, all(list)).expect("some");
        list.candidates[pick.index].ordinal
    };
    let mut chosen = BTreeSet::new();
    for session in (0..500).map(|n| crate::prompt::name(format!("s{n}").as_bytes())) {
        let (was, is) = (of(&before, session), of(&after, session));
        assert_eq!(of(&before, session), was, "it stays");
        assert!(was == is || was == 3, "{was} became {is}");
        chosen.insert(was);
    }
    assert_eq!(chosen.len(), 10, "everyone has some");
}

#[test]
fn without_a_session_the_least_busy_is_taken() {
    assert_eq!(pick(&*policy(RoutingPolicy::Session), &list(&[2, 0, 1])), 1);
}

#[test]
fn who_can_take_twice_as_many_gets_twice_as_many() {
    let with = |index, max_concurrency| {
        Arc::new(NodeView { max_concurrency, ..node(index, ReportedLoad::default()) })
    };
    let list = CandidateList::new([with(0, Some(100)), with(1, Some(200)), with(2, None)]);
    let policy = policy(RoutingPolicy::Weighted);
    let guards: Vec<_> = (0..100 + 200 + 256)
        .map(|_| list.candidates[pick(&*policy, &list)].load.acquire())
        .collect();
    let loads: Vec<u32> = list.candidates.iter().map(|one| one.load.in_flight()).collect();
    assert_eq!(loads, [100, 200, 256]);
    drop(guards);
}

#[test]
fn of_two_at_random_the_less_busy_is_taken() {
    // The busiest of all can only be the better of a pair with itself.
    let (list, policy) = (list(&[9, 0, 0, 0]), policy(RoutingPolicy::PowerOfTwo));
    let picks: BTreeSet<usize> = (0..1000).map(|_| pick(&*policy, &list)).collect();
    assert_eq!(picks, BTreeSet::from([1, 2, 3]));
}

proptest! {
    #[test]
    fn whoever_failed_is_not_picked_again(
        name in proptest::sample::select(&EVERY),
        queues in proptest::collection::vec(0u64..5, 1..8),
        session: Option<u64>,
        blocks in proptest::collection::vec(1u64.., 0..6),
    ) {
        let (list, policy) = (list(&queues), policy(name));
        let prompt = Prompt { blocks: &blocks, block_tokens: 128, tokens: 700 };
        let request = RouteRequest { session, prompt, ..REQUEST };
        let mut tried = Vec::new();
        while let Some(pick) = policy.pick(&request, Candidates { list: &list, tried: &tried }) {
            prop_assert!(!tried.contains(&pick.index));
            tried.push(pick.index);
        }
        prop_assert_eq!(tried.len(), queues.len(), "everyone was asked");
    }

    #[test]
    fn round_robin_gives_everyone_the_same(count in 1usize..20, rounds in 1usize..20) {
        let (list, policy) = (list(&vec![0; count]), policy(RoutingPolicy::RoundRobin));
        let mut picked = vec![0; count];
        for _ in 0..count * rounds {
            picked[pick(&*policy, &list)] += 1;
        }
        prop_assert!(picked.iter().all(|&times| times == rounds));
    }

    #[test]
    fn least_outstanding_never_picks_a_busier_node(
        queues in proptest::collection::vec(0u64..5, 1..10),
        running in proptest::collection::vec(0u32..5, 10),
    ) {
        let list = list(&queues);
        let guards: Vec<_> = list
            .candidates
            .iter()
            .zip(&running)
            .flat_map(|(one, &count)| (0..count).map(|_| one.load.acquire()))
            .collect();
        let outstanding = |index: usize| u64::from(running[index]).max(queues[index]);
        let picked = pick(&*policy(RoutingPolicy::LeastOutstanding), &list);
        prop_assert!((0..queues.len()).all(|other| outstanding(picked) <= outstanding(other)));
        drop(guards);
    }

    #[test]
    fn a_burst_counted_at_selection_spreads_evenly(
        name in proptest::sample::select(&[RoutingPolicy::LeastOutstanding, RoutingPolicy::Prefix][..]),
        count in 1usize..10,
        burst in 0usize..100,
    ) {
        let (list, policy) = (list(&vec![0; count]), policy(name));
        let guards: Vec<_> =
            (0..burst).map(|_| list.candidates[pick(&*policy, &list)].load.acquire()).collect();
        let loads = || list.candidates.iter().map(|one| one.load.in_flight());
        prop_assert!(loads().max().expect("some") - loads().min().expect("some") <= 1);
        drop(guards);
        prop_assert_eq!(loads().sum::<u32>(), 0);
    }
}
