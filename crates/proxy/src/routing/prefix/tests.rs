use super::*;
use crate::routing::tests::node;
use inferno_shared::membership::{Generation, NodeView, ReportedLoad};
use proptest::prelude::*;
use std::sync::Arc;

const BLOCK_TOKENS: u32 = 100;

/// Backends that say how much they cache, in tokens.
fn list(count: usize, kv_cache_tokens: u64) -> CandidateList {
    let reported = ReportedLoad { kv_cache_tokens, ..ReportedLoad::default() };
    CandidateList::new((0..count).map(|index| Arc::new(node(index, reported))))
}

/// The same backends, of whom `index` runs anew.
fn with_restarted(list: &CandidateList, index: usize) -> CandidateList {
    let views = list.candidates.iter().enumerate().map(|(at, one)| {
        let generation = Generation(one.node.generation.0 + u64::from(at == index));
        Arc::new(NodeView { generation, ..(*one.node).clone() })
    });
    CandidateList::new(views)
}

/// The first `length` blocks of what `whose` conversation will have said.
fn conversation(whose: u64, length: u64) -> Vec<u64> {
    (1..=length).map(|at| (whose << 32) + at).collect()
}

fn send(policy: &Prefix, list: &CandidateList, now_s: f64, blocks: &[u64]) -> Pick {
    let tokens = blocks.len() as u32 * BLOCK_TOKENS;
    let prompt = Prompt { blocks, block_tokens: BLOCK_TOKENS, tokens };
    let now = Duration::from_secs_f64(now_s);
    let request = RouteRequest { now, prompt, ..RouteRequest::default() };
    policy.pick(&request, Candidates { list, tried: &[] }).expect("somebody")
}

fn answered(policy: &Prefix, pick: &Pick, now_s: f64) {
    policy.answered(&pick.expected.expect("it waits"), Duration::from_secs_f64(now_s));
}

/// What the policy thinks `index` still has of `blocks`, in tokens, and how long one would wait there.
fn thinks(
    policy: &Prefix,
    list: &CandidateList,
    now_s: f64,
    blocks: &[u64],
    index: usize,
) -> (f64, f64) {
    let tokens = blocks.len() as u32 * BLOCK_TOKENS;
    let prompt = Prompt { blocks, block_tokens: BLOCK_TOKENS, tokens };
    let now = Duration::from_secs_f64(now_s);
    let request = RouteRequest { now, prompt, ..RouteRequest::default() };
    let opinions = policy.opinions(&request, Candidates { list, tried: &[] });
    let reason = |name| opinions[index].reasons.iter().find(|reason| reason.0 == name);
    (reason("cached_tokens").expect("there").1, reason("waiting_s").expect("there").1)
}

#[test]
fn a_conversation_stays_where_it_is_cached() {
    let (policy, list) = (Prefix::default(), list(8, 0));
    let mut homes = Vec::new();
    for turn in 1..=5u64 {
        for whose in 0..8u64 {
            let now_s = (turn * 100 + whose * 10) as f64;
            let pick = send(&policy, &list, now_s, &conversation(whose, 10 * turn));
            answered(&policy, &pick, now_s + 0.1);
            homes.push(pick.index);
        }
    }
    let first = &homes[..8];
    assert!(homes.chunks(8).all(|turn| turn == first), "{homes:?}");
    let mut sorted = first.to_vec();
    sorted.sort_unstable();
    assert_eq!(sorted, (0..8).collect::<Vec<_>>(), "and new ones go to who has done least");
}

#[test]
fn it_leaves_when_waiting_takes_longer_than_computing_anew() {
    let (policy, list) = (Prefix::default(), list(2, 0));
    let home = send(&policy, &list, 0.0, &conversation(1, 20));
    answered(&policy, &home, 0.5);
    // 0.25 s of prefill go to the other one, 25 s to the home.
    let other = send(&policy, &list, 10.0, &conversation(2, 10));
    assert_ne!(other.index, home.index);
    let (_, waiting_s) = thinks(&policy, &list, 10.0, &[], other.index);
    assert!((0.1..1.0).contains(&waiting_s), "{waiting_s}");
    let long = send(&policy, &list, 10.0, &conversation(3, 1000));
    assert_eq!(long.index, home.index);
    let next_turn = send(&policy, &list, 10.1, &conversation(1, 21));
    assert_eq!(next_turn.index, other.index, "2,100 tokens take less than what waits at home");
    // What it was sent it has now, too.
    assert_eq!(thinks(&policy, &list, 99.0, &conversation(1, 21), other.index).0, 2100.0);
}

#[test]
fn the_first_token_corrects_what_is_believed_to_wait() {
    let (policy, list) = (Prefix::default(), list(1, 0));
    let first = send(&policy, &list, 0.0, &conversation(1, 40));
    let second = send(&policy, &list, 0.0, &conversation(2, 40));
    let (_, both_s) = thinks(&policy, &list, 0.0, &[], 0);
    assert!((both_s - 2.0).abs() < 1e-6, "8,000 tokens at 4,000 a second: {both_s}");
    answered(&policy, &first, 3.0);
    let (_, rest_s) = thinks(&policy, &list, 3.0, &[], 0);
    assert!((rest_s - 1.0).abs() < 1e-6, "the first was 2 s late, and so is the second: {rest_s}");
    answered(&policy, &second, 3.2);
    assert_eq!(thinks(&policy, &list, 3.2, &[], 0).1, 0.0);
}

#[test]
fn what_is_abandoned_waits_no_more() {
    let (policy, list) = (Prefix::default(), list(1, 0));
    let first = send(&policy, &list, 0.0, &conversation(1, 40));
    let second = send(&policy, &list, 0.0, &conversation(2, 40));
    policy.abandoned(&first.expected.expect("it waits"));
    let (_, waiting_s) = thinks(&policy, &list, 0.0, &[], 0);
    assert!((waiting_s - 1.0).abs() < 1e-6, "{waiting_s}");
    // The second ends when it should without the first: nothing is late.
    answered(&policy, &second, 1.0);
    send(&policy, &list, 1.0, &conversation(3, 40));
    let (_, waiting_s) = thinks(&policy, &list, 1.0, &[], 0);
    assert!((waiting_s - 1.0).abs() < 1e-6, "{waiting_s}");
}

#[test]
fn who_is_slow_is_found_out_and_gets_less() {
    let (policy, list) = (Prefix::default(), list(2, 0));
    let mut sent = [0usize; 2];
    let (mut now_s, mut free_s) = (0.0, [0.0f64; 2]);
    let mut waiting: Vec<(f64, Pick)> = Vec::new();
    for whose in 0..400u64 {
        now_s += 0.4;
        waiting.sort_by(|one, other| one.0.total_cmp(&other.0));
        while waiting.first().is_some_and(|(end_s, _)| *end_s <= now_s) {
            let (end_s, pick) = waiting.remove(0);
            answered(&policy, &pick, end_s);
        }
        let pick = send(&policy, &list, now_s, &conversation(whose + 1, 20));
        // Backend 1 takes four times as long.
        let took_s = [0.5, 2.0][pick.index];
        free_s[pick.index] = free_s[pick.index].max(now_s) + took_s;
        waiting.push((free_s[pick.index], pick));
        sent[pick.index] += 1;
    }
    let ratio = sent[0] as f64 / sent[1] as f64;
    assert!((3.0..5.5).contains(&ratio), "{sent:?}");
}

#[test]
fn a_restart_loses_what_was_cached_and_what_waited() {
    let (policy, before) = (Prefix::default(), list(6, 0));
    let blocks = conversation(1, 30);
    // On all of them, so that it stands in a set.
    for tried in [&[][..], &[0], &[0, 1], &[0, 1, 2], &[0, 1, 2, 3], &[0, 1, 2, 3, 4]] {
        let prompt = Prompt { blocks: &blocks, block_tokens: BLOCK_TOKENS, tokens: 3000 };
        let request = RouteRequest { prompt, ..RouteRequest::default() };
        policy.pick(&request, Candidates { list: &before, tried }).expect("somebody");
    }
    for index in 0..6 {
        assert_eq!(thinks(&policy, &before, 0.0, &blocks, index).0, 3000.0, "{index}");
    }
    let after = with_restarted(&before, 4);
    assert_eq!(thinks(&policy, &after, 0.0, &blocks, 4), (0.0, 0.0));
    assert_eq!(thinks(&policy, &after, 0.0, &blocks, 3).0, 3000.0);
}

#[test]
fn what_a_first_token_says_of_an_earlier_incarnation_is_nothing() {
    let (policy, before) = (Prefix::default(), list(1, 0));
    let pick = send(&policy, &before, 0.0, &conversation(1, 40));
    let after = with_restarted(&before, 0);
    send(&policy, &after, 0.0, &conversation(2, 40));
    answered(&policy, &pick, 9.0);
    let (_, waiting_s) = thinks(&policy, &after, 0.0, &[], 0);
    assert!((waiting_s - 1.0).abs() < 1e-6, "{waiting_s}");
}

#[test]
fn a_cache_holds_what_it_holds() {
    // 30 blocks.
    let (policy, list) = (Prefix::default(), list(1, 30 * u64::from(BLOCK_TOKENS)));
    send(&policy, &list, 0.0, &conversation(1, 20));
    send(&policy, &list, 1.0, &conversation(2, 20));
    assert_eq!(thinks(&policy, &list, 2.0, &conversation(1, 20), 0).0, 2000.0);
    send(&policy, &list, 3.0, &conversation(3, 20));
    assert_eq!(thinks(&policy, &list, 4.0, &conversation(1, 20), 0).0, 0.0, "40 came after it");
    assert_eq!(thinks(&policy, &list, 4.0, &conversation(3, 20), 0).0, 2000.0);
}

#[test]
fn while_everybody_is_busy_a_cached_token_is_worth_more() {
    let (policy, list) = (Prefix::default(), list(2, 0));
    for whose in 0..500u64 {
        send(&policy, &list, 0.0, &conversation(whose + 1, 10));
    }
    let state = policy.state();
    let terms = state.terms(&RouteRequest::default());
    assert!((3.8..=4.0).contains(&terms.alpha), "{}", terms.alpha);
    drop(state);
    // Where 2,000 tokens are cached, half a second's worth, one waits a second longer.
    let home = send(&policy, &list, 0.0, &conversation(9000, 20));
    while thinks(&policy, &list, 0.0, &[], home.index).1
        < thinks(&policy, &list, 0.0, &[], 1 - home.index).1 + 1.0
    {
        let tried = [1 - home.index];
        let prompt = Prompt { blocks: &[], block_tokens: BLOCK_TOKENS, tokens: 1000 };
        let request = RouteRequest { prompt, ..RouteRequest::default() };
        policy.pick(&request, Candidates { list: &list, tried: &tried }).expect("the home");
    }
    assert_eq!(send(&policy, &list, 0.0, &conversation(9000, 21)).index, home.index);
    for whose in 0..500u64 {
        send(&policy, &list, 1e6 + whose as f64 * 10.0, &conversation(whose + 1000, 1));
    }
    let alpha = policy.state().terms(&RouteRequest::default()).alpha;
    assert!((1.0..1.1).contains(&alpha), "{alpha}");
}

/// Streams of 100 tokens of which each costs every other `slope_s` a token.
fn teach(policy: &Prefix, slope_s: f64) {
    for round in 0..400 {
        let in_flight = f64::from(1 + round % 8);
        let seconds = 100.0 * (0.01 + slope_s * in_flight);
        policy.streamed(0, &StreamSeen { tokens: 100, seconds, in_flight });
    }
}

#[test]
fn what_streams_cost_one_another_is_learned_from_streams() {
    for slope_s in [0.0, 0.001, 0.02] {
        let policy = Prefix::default();
        teach(&policy, slope_s);
        let stream_s = policy.state().terms(&RouteRequest::default()).stream_s;
        let expected = STREAM_S + 100.0 * slope_s;
        assert!((stream_s - expected).abs() < 0.05 * expected, "{stream_s} for {expected}");
    }
    let policy = Prefix::default();
    for _ in 0..100 {
        policy.streamed(0, &StreamSeen { tokens: 100, seconds: 9.0, in_flight: 4.0 });
        policy.streamed(0, &StreamSeen { tokens: 0, seconds: 9.0, in_flight: 1.0 });
    }
    let stream_s = policy.state().terms(&RouteRequest::default()).stream_s;
    assert_eq!(stream_s, STREAM_S, "always four: who knows what one would have been");
}

/// How `burst` requests that all begin with the same `shared` blocks and stay in flight spread over two backends.
fn crowd(policy: &Prefix, shared: u64, burst: u64) -> [u32; 2] {
    let list = list(2, 0);
    let mut guards = Vec::new();
    for whose in 0..burst {
        let now_s = 1000.0 + whose as f64 * 10.0;
        let mut blocks = conversation(1, shared);
        blocks.push(whose + 1_000_000);
        let pick = send(policy, &list, now_s, &blocks);
        answered(policy, &pick, now_s + 1e-3);
        guards.push(list.candidates[pick.index].load.acquire());
    }
    [0, 1].map(|index: usize| list.candidates[index].load.in_flight())
}

#[test]
fn where_streams_slow_one_another_they_share_even_what_only_one_has() {
    let policy = Prefix::default();
    teach(&policy, 0.005);
    let [one, other] = crowd(&policy, 20, 16);
    assert!(one.abs_diff(other) <= 2, "{one} and {other}");
}

#[test]
fn nobody_has_far_more_in_flight_than_the_mean_whatever_is_cached_there() {
    // 200,000 tokens: to compute them anew costs more than any stream.
    let loads = crowd(&Prefix::default(), 2000, 100);
    let most = *loads.iter().max().expect("two");
    assert!(f64::from(most) <= SKEW_MAX * 50.0 + SKEW_FREE + 1.0, "{loads:?}");
    assert_eq!(loads.iter().sum::<u32>(), 100);
}

#[test]
fn each_model_has_a_speed_of_its_own() {
    let policy = Prefix::default();
    let backends = list(2, 0);
    let of = |index: usize| CandidateList::new([Arc::clone(&backends.candidates[index].node)]);
    // One backend a model; the second is a hundred times slower, and its streams cost one another.
    for (model, list, took_s) in [(1, of(0), 0.1), (2, of(1), 10.0)] {
        for whose in 0..100u64 {
            let blocks = conversation(whose + 1, 10);
            let now_s = whose as f64 * 100.0;
            let prompt = Prompt { blocks: &blocks, block_tokens: BLOCK_TOKENS, tokens: 1000 };
            let now = Duration::from_secs_f64(now_s);
            let request = RouteRequest { now, model, prompt, session: None };
            let pick = policy.pick(&request, Candidates { list: &list, tried: &[] });
            answered(&policy, &pick.expect("somebody"), now_s + took_s);
        }
    }
    for round in 0..100 {
        let in_flight = f64::from(1 + round % 8);
        policy.streamed(2, &StreamSeen { tokens: 10, seconds: in_flight, in_flight });
    }
    let terms = |model| policy.state().terms(&RouteRequest { model, ..RouteRequest::default() });
    let (fast, slow) = (terms(1), terms(2));
    assert!((fast.seconds_per_token - 1e-4).abs() < 1e-5, "{}", fast.seconds_per_token);
    assert!((slow.seconds_per_token - 1e-2).abs() < 1e-3, "{}", slow.seconds_per_token);
    assert!(slow.stream_s > 0.5 && fast.stream_s == STREAM_S, "{}", slow.stream_s);
}

#[test]
fn models_without_end_are_not_remembered() {
    let (policy, list) = (Prefix::default(), list(1, 0));
    for model in 0..10_000 {
        let request = RouteRequest { model, ..RouteRequest::default() };
        policy.pick(&request, Candidates { list: &list, tried: &[] }).expect("somebody");
    }
    assert!(policy.state().groups.len() <= GROUPS_MAX);
}

#[test]
fn the_estimates_stay_numbers_for_years() {
    let (policy, list) = (Prefix::default(), list(3, 0));
    for round in 0..20_000u64 {
        let now_s = round as f64 * 5000.0;
        let pick = send(&policy, &list, now_s, &conversation(round % 7, 10));
        answered(&policy, &pick, now_s + 0.01);
    }
    let state = policy.state();
    assert!(state.unit.0.is_finite() && state.unit.0 <= UNIT_MAX * 2.0);
    assert!(state.paces.iter().all(|pace| pace.work.is_finite()));
    assert!(state.groups[&0].fleet.service_s() > 1e-9, "no number that is slow to multiply");
}

proptest! {
    #[test]
    fn whatever_happens_somebody_is_picked_and_nothing_waits_for_ever(
        steps in proptest::collection::vec((0u64..5, 1u64..40, 0u8..4, 0u64..3), 1..200),
    ) {
        let (policy, mut list) = (Prefix::default(), list(3, 5000));
        let (mut now_s, mut waiting): (f64, Vec<Pick>) = (0.0, Vec::new());
        for (whose, length, what, index) in steps {
            now_s += 0.3;
            match what {
                0 => list = with_restarted(&list, index as usize),
                1 => if let Some(pick) = waiting.pop() { answered(&policy, &pick, now_s) },
                2 => if let Some(pick) = waiting.pop() {
                    policy.abandoned(&pick.expected.expect("it waits"));
                },
                _ => waiting.push(send(&policy, &list, now_s, &conversation(whose, length))),
            }
        }
        let state = policy.state();
        for pace in &state.paces {
            let waiting_s = pace.waiting_s(now_s + 1000.0);
            prop_assert!(waiting_s.is_finite() && waiting_s < 1000.0, "{waiting_s}");
        }
    }
}
