use super::*;
use proptest::prelude::*;
use std::net::SocketAddr;

const LEASE: Duration = Duration::from_secs(10);
const RETENTION: Duration = Duration::from_secs(30);

fn membership() -> Membership {
    let interval = Duration::from_secs(1);
    Membership::new(Rules { lease: LEASE, interval, retention: RETENTION, nodes_max: 3 })
}

fn announce(id: &str, port: u16, generation: u64) -> Announcement {
    Announcement {
        id: id.into(),
        node_type: NodeType::Backend,
        address: ([127, 0, 0, 1], port).into(),
        operations: SocketAddr::from(([127, 0, 0, 1], port + 1)).into(),
        generation: Some(Generation(generation)),
        nonce: Some(format!("{id}-{generation}")),
        token: None,
        models: vec![ModelRef { id: "m".into(), sha256: None }],
        capabilities: Vec::new(),
        fingerprint: None,
        max_concurrency: None,
        draining: false,
    }
}

fn at(seconds: u64) -> Time {
    Duration::from_secs(seconds)
}

fn passed() -> Check {
    Check::Passed { ready: true, draining: false, load: ReportedLoad::default() }
}

fn state(membership: &Membership, id: &str) -> Option<NodeState> {
    membership.snapshot().nodes.iter().find(|node| node.id == id).map(|node| node.state)
}

/// Who may get a request for `m`.
fn candidates(membership: &Membership) -> Vec<Arc<NodeView>> {
    let snapshot = membership.snapshot();
    let list = snapshot.candidates("m").map(|list| &*list.candidates).unwrap_or_default();
    list.iter().map(|candidate| Arc::clone(&candidate.node)).collect()
}

/// A membership with `a` in generation 5, proved.
fn with_ready_a() -> Membership {
    let mut membership = membership();
    membership.register(at(0), announce("a", 80, 5)).expect("room");
    membership.checked(at(0), "a", Generation(5), passed());
    assert_eq!(state(&membership, "a"), Some(NodeState::Ready));
    membership
}

#[test]
fn heard_is_not_believed() {
    let mut membership = membership();
    assert_eq!(membership.register(at(0), announce("a", 80, 5)), Ok(Accepted::Registered));
    assert_eq!(state(&membership, "a"), Some(NodeState::Joining));
    assert!(membership.snapshot().candidates("m").is_none());
    let loading = Check::Passed { ready: false, draining: false, load: ReportedLoad::default() };
    membership.checked(at(1), "a", Generation(5), loading);
    assert_eq!(state(&membership, "a"), Some(NodeState::Joining), "proved, but not ready");
    membership.checked(at(2), "a", Generation(5), passed());
    assert_eq!(state(&membership, "a"), Some(NodeState::Ready));
    assert_eq!(candidates(&membership).len(), 1);
    assert!(membership.snapshot().candidates("other").is_none());
}

#[test]
fn one_miss_suspects_three_remove_two_passes_restore() {
    let mut membership = with_ready_a();
    membership.checked(at(1), "a", Generation(5), Check::Missed);
    assert_eq!(state(&membership, "a"), Some(NodeState::Suspect));
    membership.checked(at(2), "a", Generation(5), passed());
    assert_eq!(state(&membership, "a"), Some(NodeState::Suspect), "one pass is not enough");
    membership.checked(at(3), "a", Generation(5), passed());
    assert_eq!(state(&membership, "a"), Some(NodeState::Ready));
    for second in 4..7 {
        membership.checked(at(second), "a", Generation(5), Check::Missed);
    }
    assert_eq!(state(&membership, "a"), Some(NodeState::Gone));
    assert_eq!(membership.start_checks(at(9), 9).len(), 1, "its lease holds: it may return");
    membership.checked(at(9), "a", Generation(5), passed());
    membership.checked(at(9), "a", Generation(5), passed());
    assert_eq!(state(&membership, "a"), Some(NodeState::Ready));
}

#[test]
fn who_says_that_it_cannot_serve_gets_nothing_until_it_says_otherwise() {
    let mut membership = with_ready_a();
    let loading = Check::Passed { ready: false, draining: false, load: ReportedLoad::default() };
    for before in [passed(), Check::Missed] {
        membership.checked(at(1), "a", Generation(5), before);
        membership.checked(at(2), "a", Generation(5), loading);
        assert_eq!(state(&membership, "a"), Some(NodeState::Joining));
        assert!(membership.snapshot().candidates("m").is_none(), "nor as the last resort");
        assert!(membership.snapshot().has_model("m"), "it is no unknown model");
        membership.checked(at(3), "a", Generation(5), passed());
        assert_eq!(state(&membership, "a"), Some(NodeState::Ready));
    }
}

#[test]
fn a_node_is_foreign_by_its_word_or_without_a_token() {
    let is_foreign = |token: Option<Token>, capabilities: &[&str]| {
        let mut membership = membership();
        let capabilities = capabilities.iter().map(|word| (*word).to_owned()).collect();
        let announcement = Announcement { token, capabilities, ..announce("a", 80, 5) };
        membership.register(at(0), announcement).expect("taken");
        membership.get("a").expect("known").is_foreign()
    };
    assert!(!is_foreign(Some(Token::new("t")), &["operations-tls"]));
    assert!(is_foreign(None, &[]));
    assert!(is_foreign(Some(Token::new("t")), &[CAPABILITY_FOREIGN]));
}

#[test]
fn checks_come_one_at_a_time_once_an_interval_and_spread_over_it() {
    let mut membership = membership();
    for (id, port) in [("a", 80), ("b", 90), ("c", 100)] {
        membership.register(at(0), announce(id, port, 5)).expect("room");
    }
    let mut firsts: BTreeMap<String, u32> = BTreeMap::new();
    for step in 0..100u32 {
        for target in membership.start_checks(Duration::from_millis(10) * step, 9) {
            firsts.entry(target.id).or_insert(step);
        }
    }
    assert_eq!(firsts.len(), 3, "each once within the first interval: {firsts:?}");
    assert!(firsts.values().min() != firsts.values().max(), "not all at once: {firsts:?}");
    assert!(membership.start_checks(at(5), 9).is_empty(), "each is still being checked");
    membership.checked(at(5), "a", Generation(5), passed());
    assert!(membership.start_checks(at(5), 9).is_empty(), "that turn has passed");
    assert!(membership.start_checks(at(6), 0).is_empty(), "no room");
    assert_eq!(membership.start_checks(at(6), 9).len(), 1);
    membership.checked(at(6), "a", Generation(5), passed());
    assert!(membership.start_checks(at(6), 9).is_empty(), "not before its turn");
    assert_eq!(membership.start_checks(at(7), 9).len(), 1);
}

#[test]
fn if_all_are_suspect_they_are_used_anyway() {
    let mut membership = with_ready_a();
    membership.checked(at(1), "a", Generation(5), Check::Missed);
    assert_eq!(candidates(&membership).len(), 1);
    membership.register(at(1), announce("b", 90, 1)).expect("room");
    membership.checked(at(1), "b", Generation(1), passed());
    let candidates = candidates(&membership);
    assert_eq!(candidates.iter().map(|node| node.id.as_str()).collect::<Vec<_>>(), ["b"]);
}

#[test]
fn a_refused_connection_or_a_stranger_removes_at_once() {
    for check in [Check::Refused, Check::Replaced] {
        let mut membership = with_ready_a();
        membership.checked(at(1), "a", Generation(5), check);
        assert_eq!(state(&membership, "a"), Some(NodeState::Gone));
    }
    let mut membership = with_ready_a();
    membership.connect_refused(at(1), "a", Generation(4));
    assert_eq!(state(&membership, "a"), Some(NodeState::Ready), "that was an older incarnation");
    membership.connect_refused(at(1), "a", Generation(5));
    assert_eq!(state(&membership, "a"), Some(NodeState::Gone));
}

#[test]
fn a_lease_ends_without_renewal_and_the_gone_are_forgotten() {
    let mut membership = with_ready_a();
    pass(&mut membership, at(0), 9);
    assert_eq!(state(&membership, "a"), Some(NodeState::Ready));
    assert_eq!(membership.register(at(9), announce("a", 80, 5)), Ok(Accepted::Updated));
    pass(&mut membership, at(9), 9);
    assert_eq!(state(&membership, "a"), Some(NodeState::Ready));
    membership.tick(at(19));
    assert_eq!(state(&membership, "a"), Some(NodeState::Gone));
    assert!(membership.start_checks(at(19), 9).is_empty());
    pass(&mut membership, at(19), 30);
    assert_eq!(state(&membership, "a"), None);
}

#[test]
fn time_that_this_process_did_not_live_through_costs_nobody_a_lease() {
    let mut membership = with_ready_a();
    membership.tick(at(2));
    membership.tick(at(3_600));
    assert_eq!(state(&membership, "a"), Some(NodeState::Ready), "nobody could renew meanwhile");
    pass(&mut membership, at(3_600), 8);
    assert_eq!(state(&membership, "a"), Some(NodeState::Gone), "8 of its 10 s were left");
}

#[test]
fn an_older_incarnation_never_wins() {
    let mut membership = with_ready_a();
    let older = membership.register(at(1), announce("a", 80, 4));
    assert_eq!(older, Err(Conflict::OlderGeneration { current: Generation(5) }));
    assert!(!membership.leave(at(1), "a", &goodbye(4)));
    assert_eq!(state(&membership, "a"), Some(NodeState::Ready));
    let newer = membership.register(at(1), announce("a", 80, 6));
    assert!(matches!(newer, Err(Conflict::Contested(_))), "5 was alive a moment ago: {newer:?}");
    membership.checked(at(1), "a", Generation(5), Check::Replaced);
    assert_eq!(membership.register(at(1), announce("a", 80, 6)), Ok(Accepted::Registered));
    assert_eq!(state(&membership, "a"), Some(NodeState::Joining), "to be proved anew");
    membership.checked(at(1), "a", Generation(5), passed());
    assert_eq!(state(&membership, "a"), Some(NodeState::Joining), "a late check of the old one");
}

#[test]
fn a_process_that_outgrew_another_proxys_memory_keeps_its_place() {
    let mut membership = with_ready_a();
    let outgrown = Announcement { generation: Some(Generation(9)), ..announce("a", 80, 5) };
    membership.start_checks(at(2), 9);
    assert_eq!(membership.register(at(2), outgrown), Ok(Accepted::Updated));
    assert_eq!(state(&membership, "a"), Some(NodeState::Ready));
    let target = membership.start_checks(at(3), 9).pop().expect("the old check does not block");
    assert_eq!(target.expected_generation, Some(Generation(9)));
    let again = membership.register(at(3), announce("a", 80, 5));
    assert_eq!(again, Err(Conflict::OlderGeneration { current: Generation(9) }));
}

#[test]
fn a_successor_is_not_proved_by_a_check_of_its_predecessor() {
    let mut membership = with_ready_a();
    membership.checked(at(1), "a", Generation(5), Check::Refused);
    let moved = Announcement { nonce: Some("other".into()), ..announce("a", 90, 5) };
    let refused = membership.register(at(1), moved.clone());
    assert_eq!(refused, Err(Conflict::OlderGeneration { current: Generation(5) }));
    let outgrown = Announcement { generation: Some(Generation(6)), ..moved };
    assert_eq!(membership.register(at(1), outgrown), Ok(Accepted::Registered));
    membership.checked(at(1), "a", Generation(5), passed());
    assert_eq!(state(&membership, "a"), Some(NodeState::Joining));
}

#[test]
fn an_id_cannot_be_taken_from_a_node_that_is_alive() {
    let mut membership = with_ready_a();
    let Err(Conflict::Contested(holder)) = membership.register(at(1), announce("a", 90, 6)) else {
        panic!("taken")
    };
    assert_eq!(holder.address, SocketAddr::from(([127, 0, 0, 1], 80)));
    assert_eq!(holder.nonce.as_deref(), Some("a-5"), "what it must prove");
    membership.checked(at(2), "a", Generation(5), Check::Missed);
    assert!(membership.register(at(2), announce("a", 90, 6)).is_err(), "one miss is not its end");
    membership.checked(at(3), "a", Generation(5), Check::Missed);
    membership.checked(at(4), "a", Generation(5), Check::Missed);
    assert_eq!(membership.register(at(4), announce("a", 90, 6)), Ok(Accepted::Registered));
}

#[test]
fn a_process_that_comes_by_a_second_address_keeps_the_first() {
    let mut membership = with_ready_a();
    let twice = Announcement { nonce: Some("a-5".into()), ..announce("a", 90, 5) };
    let first = SocketAddr::from(([127, 0, 0, 1], 80));
    assert_eq!(
        membership.register(at(1), twice.clone()),
        Err(Conflict::AlreadyHere { address: first })
    );
    membership.checked(at(1), "a", Generation(5), Check::Refused);
    let moved = Announcement { generation: Some(Generation(6)), ..twice };
    assert_eq!(membership.register(at(1), moved), Ok(Accepted::Registered), "the first is no more");
}

#[test]
fn the_same_generation_with_another_nonce_is_another_process() {
    let mut membership = with_ready_a();
    let mut other = announce("a", 80, 5);
    other.nonce = Some("another".into());
    let refused = membership.register(at(1), other.clone());
    assert!(matches!(refused, Err(Conflict::Contested(_))), "{refused:?}");
    membership.checked(at(1), "a", Generation(5), Check::Replaced);
    let refused = membership.register(at(1), other);
    assert_eq!(refused, Err(Conflict::OlderGeneration { current: Generation(5) }));
}

#[test]
fn draining_takes_no_new_requests_and_leaving_is_final() {
    let mut membership = with_ready_a();
    let draining = Announcement { draining: true, ..announce("a", 80, 5) };
    assert_eq!(membership.register(at(1), draining), Ok(Accepted::Updated));
    assert_eq!(state(&membership, "a"), Some(NodeState::Draining));
    assert!(membership.snapshot().candidates("m").is_none());
    assert!(membership.snapshot().has_model("m"));
    membership.checked(at(2), "a", Generation(5), passed());
    assert_eq!(state(&membership, "a"), Some(NodeState::Draining));
    assert!(membership.leave(at(3), "a", &goodbye(5)));
    assert_eq!(state(&membership, "a"), Some(NodeState::Gone));
    assert!(membership.start_checks(at(3), 9).is_empty());
}

#[test]
fn a_goodbye_of_an_incarnation_that_was_never_heard_counts() {
    let mut membership = with_ready_a();
    assert!(membership.leave(at(1), "a", &goodbye(9)));
    let next = membership.register(at(1), announce("a", 80, 9));
    assert_eq!(next, Err(Conflict::OlderGeneration { current: Generation(9) }));
    assert_eq!(membership.register(at(1), announce("a", 80, 10)), Ok(Accepted::Registered));
}

/// What `announce("a", …)` of that generation says in the end.
fn goodbye(generation: u64) -> Goodbye {
    let nonce = Some(format!("a-{generation}"));
    Goodbye { generation: Some(Generation(generation)), nonce }
}

#[test]
fn a_late_goodbye_is_not_that_of_a_successor_of_the_same_generation() {
    let mut membership = with_ready_a();
    let late = Goodbye { nonce: Some("of its predecessor".into()), ..goodbye(5) };
    assert!(!membership.leave(at(1), "a", &late));
    assert_eq!(state(&membership, "a"), Some(NodeState::Ready));
    assert!(membership.leave(at(1), "a", &Goodbye { nonce: None, ..goodbye(5) }), "it may not say");
}

#[test]
fn an_announcement_of_draining_counts_even_while_the_vitals_say_ready() {
    let mut membership = membership();
    let draining = Announcement { draining: true, ..announce("a", 80, 5) };
    membership.register(at(0), draining).expect("room");
    membership.checked(at(0), "a", Generation(5), passed());
    assert_eq!(state(&membership, "a"), Some(NodeState::Draining));
}

#[test]
fn a_proxy_is_a_member_and_gets_no_traffic() {
    let mut membership = membership();
    let proxy = Announcement { node_type: NodeType::Proxy, ..announce("p", 80, 5) };
    membership.register(at(0), proxy).expect("room");
    membership.checked(at(0), "p", Generation(5), passed());
    let snapshot = membership.snapshot();
    assert!(snapshot.candidates("m").is_none() && snapshot.members().next().is_none());
    assert_eq!(snapshot.proxies().count(), 1);
}

#[test]
fn each_change_of_state_is_told_once() {
    let mut membership = with_ready_a();
    membership.checked(at(1), "a", Generation(5), Check::Refused);
    pass(&mut membership, at(1), 49);
    let told: Vec<_> =
        membership.take_transitions().into_iter().map(|step| (step.was, step.state)).collect();
    use NodeState::{Gone, Joining, Ready};
    assert_eq!(
        told,
        [
            (None, Some(Joining)),
            (Some(Joining), Some(Ready)),
            (Some(Ready), Some(Gone)),
            (Some(Gone), None)
        ]
    );
    assert!(membership.take_transitions().is_empty());
}

#[test]
fn reported_loads_are_shown_together_once_a_tick() {
    let mut membership = with_ready_a();
    let version = membership.version();
    let load = ReportedLoad { queue_depth: 7, ..ReportedLoad::default() };
    let busy = Check::Passed { ready: true, draining: false, load };
    membership.checked(at(1), "a", Generation(5), busy);
    assert_eq!(membership.version(), version, "nothing to publish yet");
    membership.tick(at(2));
    assert!(membership.version() > version);
    assert_eq!(membership.snapshot().nodes[0].reported.queue_depth, 7);
}

#[test]
fn there_is_a_limit() {
    let mut membership = membership();
    for (index, id) in ["a", "b", "c"].iter().enumerate() {
        membership.register(at(0), announce(id, 80 + 2 * index as u16, 1)).expect("room");
    }
    assert_eq!(membership.register(at(0), announce("d", 99, 1)), Err(Conflict::Full { limit: 3 }));
    assert_eq!(membership.register(at(0), announce("a", 80, 1)), Ok(Accepted::Updated));
}

#[test]
fn the_short_form_renews_by_place() {
    let mut membership = membership();
    let short = |port| Announcement { generation: None, nonce: None, ..announce("a", port, 0) };
    assert_eq!(membership.register(at(0), short(80)), Ok(Accepted::Registered));
    assert_eq!(membership.register(at(1), short(80)), Ok(Accepted::Updated));
    assert_eq!(
        membership.register(at(1), short(90)),
        Ok(Accepted::Registered),
        "the old one never proved"
    );
}

#[test]
fn a_count_in_flight_survives_a_short_absence() {
    let mut membership = with_ready_a();
    let load = Arc::clone(&membership.snapshot().nodes[0].load);
    let guard = load.acquire();
    membership.checked(at(1), "a", Generation(5), Check::Refused);
    membership.register(at(2), announce("a", 80, 5)).expect("back");
    let again = Arc::clone(&membership.snapshot().nodes[0].load);
    assert_eq!(again.in_flight(), 1);
    drop(guard);
    assert_eq!(again.in_flight(), 0);
}

#[derive(Clone, Debug)]
enum Event {
    Register { id: usize, place: u16, generation: u64, draining: bool },
    Leave { id: usize, generation: u64 },
    Check { id: usize, generation: u64, check: Check },
    Wait { seconds: u64 },
}

fn event() -> impl Strategy<Value = Event> {
    let check = prop_oneof![
        (any::<bool>(), any::<bool>()).prop_map(|(ready, draining)| Check::Passed {
            ready: ready && !draining,
            draining,
            load: ReportedLoad::default()
        }),
        Just(Check::Missed),
        Just(Check::Refused),
        Just(Check::Replaced),
    ];
    prop_oneof![
        (0..5usize, 0..3u16, 1..6u64, prop::bool::weighted(0.1)).prop_map(
            |(id, place, generation, draining)| Event::Register {
                id,
                place: 80 + 2 * place,
                generation,
                draining
            }
        ),
        (0..5usize, 1..6u64).prop_map(|(id, generation)| Event::Leave { id, generation }),
        (0..5usize, 1..6u64, check).prop_map(|(id, generation, check)| Event::Check {
            id,
            generation,
            check
        }),
        (0..20u64).prop_map(|seconds| Event::Wait { seconds }),
    ]
}

/// Lets seconds pass, one by one.
fn pass(membership: &mut Membership, mut now: Time, seconds: u64) -> Time {
    for _ in 0..seconds {
        now += Duration::from_secs(1);
        membership.tick(now);
    }
    now
}

proptest! {
    #[test]
    fn whatever_happens_the_invariants_hold(events in prop::collection::vec(event(), 1..200)) {
        let ids = ["a", "b", "c", "d", "e"];
        let mut membership = membership();
        let mut now = Duration::ZERO;
        let mut newest = BTreeMap::new();
        for event in events {
            let before = membership.snapshot();
            match event {
                Event::Register { id, place, generation, draining } => {
                    let announcement = Announcement { draining, ..announce(ids[id], place, generation) };
                    let _ = membership.register(now, announcement);
                }
                Event::Leave { id, generation } => {
                    membership.leave(now, ids[id], &goodbye(generation));
                }
                Event::Check { id, generation, check } => {
                    membership.checked(now, ids[id], Generation(generation), check);
                }
                Event::Wait { seconds } => now = pass(&mut membership, now, seconds),
            }
            let after = membership.snapshot();
            prop_assert!(after.nodes.len() <= 3, "the limit holds");
            prop_assert!(after.version >= before.version);
            let changed = format!("{:?}", before.nodes) != format!("{:?}", after.nodes);
            prop_assert!(!changed || after.version > before.version, "every change is published");
            let known: Vec<&str> = after.nodes.iter().map(|node| node.id.as_str()).collect();
            newest.retain(|id: &String, _| known.contains(&id.as_str()));
            for node in &after.nodes {
                let newest = newest.entry(node.id.clone()).or_insert(node.generation);
                prop_assert!(node.generation >= *newest, "an older incarnation won");
                *newest = node.generation;
            }
            for node in candidates(&membership) {
                prop_assert!(matches!(node.state, NodeState::Ready | NodeState::Suspect));
            }
            let ordinals: Vec<u32> = after.nodes.iter().map(|node| node.ordinal).collect();
            prop_assert!(ordinals.iter().all(|&ordinal| ordinal < 3), "those given back are used");
            prop_assert_eq!(std::collections::BTreeSet::from_iter(&ordinals).len(), ordinals.len(), "no two have one");
        }
        pass(&mut membership, now, (LEASE + RETENTION).as_secs() + 1);
        prop_assert!(membership.snapshot().nodes.is_empty(), "an entry leaked");
    }
}
