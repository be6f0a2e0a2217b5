use super::*;
use proptest::prelude::*;

/// The same number of places for every model, and for all together.
struct Each(usize, usize);

impl Places for Each {
    fn total(&self) -> usize {
        self.1
    }

    fn of(&self, _: &str) -> usize {
        self.0
    }
}

const UNBOUNDED: usize = usize::MAX;

/// A queue, and what its tests would have to spell out each time.
struct Scene {
    queue: FairQueue<&'static str>,
    places: Each,
    model: Arc<str>,
}

impl Scene {
    fn new(places: usize, waiting_max: usize) -> Self {
        let places = Each(places, UNBOUNDED);
        Self { queue: FairQueue::new(waiting_max), places, model: "m".into() }
    }

    /// One of `tenant`, with those `tokens`: whether it runs at once.
    fn ask(&mut self, tenant: &'static str, priority: i32, tokens: u64) -> Option<u64> {
        let Self { queue, places, model } = self;
        let claim = Claim { model, tenant: &tenant.into(), priority, tokens };
        match queue.try_run(claim, places) {
            true => None,
            false => Some(queue.wait(claim, tenant)),
        }
    }

    /// One of `tenant` ends: who is called.
    fn end(&mut self, tenant: &str, reserved: u64, used: u64) -> Vec<&'static str> {
        self.end_with(tenant, 0, reserved, used)
    }

    fn end_with(
        &mut self,
        tenant: &str,
        priority: i32,
        tokens: u64,
        used: u64,
    ) -> Vec<&'static str> {
        let claim = Claim { model: &self.model, tenant: &tenant.into(), priority, tokens };
        self.queue.done(claim, used);
        self.queue.call(&self.places).into_iter().map(|(tenant, _)| tenant).collect()
    }
}

#[test]
fn a_thousand_of_one_tenant_do_not_delay_another() {
    let mut scene = Scene::new(2, 2_000);
    for _ in 0..1_002 {
        scene.ask("many", 0, 50);
    }
    assert_eq!(scene.queue.waiting(), 1_000);
    for round in 0..20 {
        scene.ask("few", 0, 50);
        let called = scene.end("many", 50, 50);
        assert_eq!(called, ["few"], "round {round}: the next place is its own");
        assert_eq!(scene.end("few", 50, 50), ["many"]);
    }
}

#[test]
fn places_are_shared_by_tokens_and_not_by_requests() {
    let mut scene = Scene::new(1, 1_000);
    scene.ask("other", 0, 1);
    for _ in 0..300 {
        scene.ask("long", 0, 100);
        scene.ask("short", 0, 10);
    }
    let (mut running, mut tokens) = ("other", HashMap::from([("long", 0u64), ("short", 0)]));
    for _ in 0..220 {
        let cost = if running == "long" { 100 } else { 10 };
        let called = scene.end(running, if running == "other" { 1 } else { cost }, cost);
        running = called[0];
        *tokens.get_mut(running).expect("one of the two") +=
            if running == "long" { 100 } else { 10 };
    }
    assert!(tokens["long"].abs_diff(tokens["short"]) <= 110, "{tokens:?}");
}

#[test]
fn what_an_answer_really_took_is_what_counts() {
    let mut scene = Scene::new(1, 1_000);
    scene.ask("other", 0, 1);
    for _ in 0..100 {
        scene.ask("modest", 0, 100);
        scene.ask("greedy", 0, 100);
    }
    let mut called = scene.end("other", 1, 1);
    let mut counts = HashMap::from([("modest", 0), ("greedy", 0)]);
    for _ in 0..110 {
        let used = if called[0] == "modest" { 10 } else { 100 };
        *counts.get_mut(called[0]).expect("one of the two") += 1;
        called = scene.end(called[0], 100, used);
    }
    assert!((98..=100).contains(&counts["modest"]), "{counts:?}");
}

#[test]
fn who_was_away_is_owed_nothing_and_owes_nothing_for_free_places() {
    let mut scene = Scene::new(1, 1_000);
    // It ran alone for long, while nobody waited.
    scene.ask("early", 0, 10);
    for _ in 0..1_000 {
        assert_eq!(scene.ask("early", 0, 10), Some(scene.queue.next - 1));
        assert_eq!(scene.end("early", 10, 10), ["early"]);
    }
    for _ in 0..10 {
        scene.ask("late", 0, 10);
        scene.ask("early", 0, 10);
    }
    let mut called = scene.end("early", 10, 10);
    let mut order = vec![called[0]];
    for _ in 0..9 {
        called = scene.end(called[0], 10, 10);
        order.push(called[0]);
    }
    let late = order.iter().filter(|tenant| **tenant == "late").count();
    assert!((4..=6).contains(&late), "{order:?}");
}

#[test]
fn what_nobody_waited_for_is_no_debt_and_no_credit() {
    let mut scene = Scene::new(2, 1_000);
    // One has a long stream, the other many short answers beside it, and nobody is in anyone's way.
    scene.ask("steady", 0, 10);
    for _ in 0..1_000 {
        assert_eq!(scene.ask("busy", 0, 10), None);
        assert!(scene.end("busy", 10, 10).is_empty());
    }
    scene.ask("busy", 0, 10);
    for _ in 0..10 {
        scene.ask("steady", 0, 10);
        scene.ask("busy", 0, 10);
    }
    let mut called = scene.end("busy", 10, 10);
    let mut order = vec![called[0]];
    for _ in 0..9 {
        called = scene.end(called[0], 10, 10);
        order.push(called[0]);
    }
    let steady = order.iter().filter(|tenant| **tenant == "steady").count();
    assert!((4..=6).contains(&steady), "{order:?}");
}

#[test]
fn priority_comes_first_and_age_last() {
    let mut scene = Scene::new(1, 10);
    scene.ask("first", 0, 1);
    for (tenant, priority) in [("low", -1), ("a", 0), ("b", 0)] {
        assert!(scene.ask(tenant, priority, 1).is_some());
    }
    let mut order = Vec::new();
    let mut running = "first";
    for _ in 0..3 {
        running = scene.end(running, 1, 1)[0];
        order.push(running);
    }
    assert_eq!(order, ["a", "b", "low"]);
}

#[test]
fn whoever_runs_with_a_lower_priority_is_not_waited_for() {
    let mut scene = Scene::new(1, 10);
    assert_eq!(scene.ask("low", 0, 1), None);
    assert_eq!(scene.ask("high", 5, 1), None, "the backend makes the other wait");
    assert!(scene.ask("higher", 5, 1).is_some() && scene.ask("low", 0, 1).is_some());
    assert_eq!(scene.end_with("high", 5, 1, 1), ["higher"]);
    assert!(scene.end_with("higher", 5, 1, 1).is_empty(), "one of the low runs still");
    assert_eq!(scene.end("low", 1, 1), ["low"]);
}

#[test]
fn a_full_queue_costs_the_one_who_fills_it() {
    let mut scene = Scene::new(1, 3);
    scene.ask("x", 0, 1);
    for tenant in ["many", "many", "many"] {
        scene.ask(tenant, 0, 1);
        assert_eq!(scene.queue.evict(), None);
    }
    scene.ask("few", 0, 1);
    assert_eq!(scene.queue.evict(), Some("many"), "its newest gives way");
    scene.ask("few", 0, 1);
    assert_eq!(scene.queue.evict(), Some("few"), "of equals the newest is refused");
    scene.ask("low", -1, 1);
    assert_eq!(scene.queue.evict(), Some("low"), "before anyone of higher priority");
    scene.ask("highest", 1, 1);
    assert_eq!(call(&mut scene.queue, &scene.places), ["highest"], "a place of a lower one");
    scene.ask("high", 1, 1);
    assert_eq!(scene.queue.evict(), Some("many"));
    assert_eq!((scene.queue.waiting(), scene.queue.evict()), (3, None));
    let mut nobody = Scene::new(1, 0);
    nobody.ask("a", 0, 1);
    nobody.ask("b", 0, 1);
    assert_eq!(nobody.queue.evict(), Some("b"), "nobody may wait");
}

fn call(queue: &mut FairQueue<&'static str>, places: &Each) -> Vec<&'static str> {
    queue.call(places).into_iter().map(|(called, _)| called).collect()
}

#[test]
fn models_do_not_wait_for_one_another_but_for_places_that_all_share() {
    let mut queue = FairQueue::new(10);
    let (a, b, tenant) = (Arc::from("a"), Arc::from("b"), Tenant::from("t"));
    let claim = |model| Claim { model, tenant: &tenant, priority: 0, tokens: 1 };
    let places = Each(1, UNBOUNDED);
    assert!(queue.try_run(claim(&a), &places));
    queue.wait(claim(&a), "a");
    assert_eq!(call(&mut queue, &places), Vec::<&str>::new());
    queue.wait(claim(&b), "b");
    assert_eq!(call(&mut queue, &places), ["b"], "its own place is free");
    let places = Each(10, 2);
    queue.wait(claim(&b), "b2");
    assert_eq!(call(&mut queue, &places), Vec::<&str>::new(), "two run");
    queue.done(claim(&b), 1);
    assert_eq!(call(&mut queue, &places), ["a"], "the oldest of both models");
}

#[derive(Clone, Debug)]
enum Step {
    Ask { model: usize, tenant: usize, priority: i32, tokens: u64 },
    End { which: usize, used: u64 },
    Leave { which: usize },
    Places { each: usize, total: usize },
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        5 => (0usize..2, 0usize..4, -1i32..2, 1u64..200)
            .prop_map(|(model, tenant, priority, tokens)| Step::Ask { model, tenant, priority, tokens }),
        4 => (any::<usize>(), 0u64..300).prop_map(|(which, used)| Step::End { which, used }),
        1 => any::<usize>().prop_map(|which| Step::Leave { which }),
        1 => (0usize..4, 1usize..6).prop_map(|(each, total)| Step::Places { each, total }),
    ]
}

proptest! {
    #[test]
    fn whatever_happens_nobody_is_lost_and_no_free_place_is_kept_from_one_who_waits(
        steps in prop::collection::vec(step(), 1..300),
    ) {
        const WAITING_MAX: usize = 12;
        let models = [Arc::<str>::from("a"), Arc::from("b")];
        let tenants = ["w", "x", "y", "z"].map(Tenant::from);
        let mut queue = FairQueue::<u64>::new(WAITING_MAX);
        let mut places = Each(2, 3);
        let (mut waiting, mut running) = (Vec::new(), Vec::new());
        for (name, step) in steps.into_iter().enumerate() {
            let name = name as u64;
            match step {
                Step::Ask { model, tenant, priority, tokens } => {
                    let claim = Claim { model: &models[model], tenant: &tenants[tenant], priority, tokens };
                    let one = (name, model, tenant, tokens, priority);
                    match queue.try_run(claim, &places) {
                        true => running.push(one),
                        false => waiting.push((queue.wait(claim, name), one)),
                    }
                }
                Step::End { which, used } if !running.is_empty() => {
                    let (_, model, tenant, tokens, priority) = running.swap_remove(which % running.len());
                    let claim = Claim { model: &models[model], tenant: &tenants[tenant], priority, tokens };
                    queue.done(claim, used);
                }
                Step::Leave { which } if !waiting.is_empty() => {
                    let (number, (name, model, tenant, ..)) = waiting.swap_remove(which % waiting.len());
                    prop_assert_eq!(queue.leave(&models[model], &tenants[tenant], number), Some(name));
                    prop_assert_eq!(queue.leave(&models[model], &tenants[tenant], number), None);
                }
                Step::Places { each, total } => places = Each(each, total),
                Step::End { .. } | Step::Leave { .. } => {}
            }
            for (called, priority) in queue.call(&places) {
                let at = waiting.iter().position(|(_, one)| one.0 == called).expect("it waited");
                let (_, one) = waiting.swap_remove(at);
                running.push((one.0, one.1, one.2, one.3, priority));
            }
            if let Some(evicted) = queue.evict() {
                let at = waiting.iter().position(|(_, one)| one.0 == evicted).expect("it waited");
                waiting.swap_remove(at);
            }
            prop_assert_eq!((queue.waiting(), queue.running), (waiting.len(), running.len()));
            prop_assert!(queue.waiting() <= WAITING_MAX);
            for (at, model) in models.iter().enumerate() {
                let runs = running.iter().filter(|one| one.1 == at).count();
                let waits = waiting.iter().any(|(_, one)| one.1 == at);
                let is_free = runs < places.of(model) && running.len() < places.total();
                prop_assert!(!(waits && is_free), "a place of {} is free", model);
            }
        }
        for (number, (_, model, tenant, ..)) in waiting {
            queue.leave(&models[model], &tenants[tenant], number);
        }
        for (_, model, tenant, tokens, priority) in running {
            let claim = Claim { model: &models[model], tenant: &tenants[tenant], priority, tokens };
            queue.done(claim, tokens);
        }
        prop_assert!(queue.lanes.is_empty(), "nothing is remembered of nobody");
    }
}
