use super::*;
use inferno_shared::membership::{ModelRef, NodeLoad, NodeState, NodeType, ReportedLoad};
use proptest::prelude::*;

const REQUEST: RouteRequest<'_> = RouteRequest { model: "m" };

fn node(index: usize, queue_depth: u64) -> Arc<NodeView> {
    let address: std::net::SocketAddr = ([127, 0, 0, 1], 1).into();
    Arc::new(NodeView {
        id: format!("n{index}"),
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
        reported: ReportedLoad { queue_depth, ..ReportedLoad::default() },
        load: Arc::new(NodeLoad::default()),
    })
}

fn nodes(queues: &[u64]) -> Vec<Arc<NodeView>> {
    queues.iter().enumerate().map(|(index, &queue)| node(index, queue)).collect()
}

#[test]
fn nobody_is_picked_from_nobody() {
    for name in [RoutingPolicy::RoundRobin, RoutingPolicy::LeastOutstanding] {
        assert_eq!(policy(name).pick(&REQUEST, &[]), None);
    }
}

proptest! {
    #[test]
    fn round_robin_gives_everyone_the_same(count in 1usize..20, rounds in 1usize..20) {
        let candidates = nodes(&vec![0; count]);
        let policy = policy(RoutingPolicy::RoundRobin);
        let mut picked = vec![0; count];
        for _ in 0..count * rounds {
            picked[policy.pick(&REQUEST, &candidates).expect("some")] += 1;
        }
        prop_assert!(picked.iter().all(|&times| times == rounds));
    }

    #[test]
    fn least_outstanding_never_picks_a_busier_node(
        queues in proptest::collection::vec(0u64..5, 1..10),
        running in proptest::collection::vec(0u32..5, 10),
    ) {
        let candidates = nodes(&queues);
        let guards: Vec<_> = candidates
            .iter()
            .zip(&running)
            .flat_map(|(node, &count)| (0..count).map(|_| node.load.acquire()))
            .collect();
        let outstanding = |index: usize| u64::from(running[index]).max(queues[index]);
        let picked = policy(RoutingPolicy::LeastOutstanding).pick(&REQUEST, &candidates).expect("some");
        prop_assert!((0..candidates.len()).all(|other| outstanding(picked) <= outstanding(other)));
        drop(guards);
    }

    #[test]
    fn a_burst_counted_at_selection_spreads_evenly(count in 1usize..10, burst in 0usize..100) {
        let candidates = nodes(&vec![0; count]);
        let policy = policy(RoutingPolicy::LeastOutstanding);
        let guards: Vec<_> = (0..burst)
            .map(|_| candidates[policy.pick(&REQUEST, &candidates).expect("some")].load.acquire())
            .collect();
        let loads = || candidates.iter().map(|node| node.load.in_flight());
        prop_assert!(loads().max().expect("some") - loads().min().expect("some") <= 1);
        drop(guards);
        prop_assert_eq!(loads().sum::<u32>(), 0);
    }
}
