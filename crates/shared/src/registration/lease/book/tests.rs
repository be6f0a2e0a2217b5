use super::*;

const NOBODY: [u8; 0] = [];

fn at(seconds: u64) -> Time {
    Duration::from_secs(seconds)
}

fn proxy(last: u8) -> Endpoint {
    Endpoint::plain(([10, 0, 0, last], 6100).into())
}

fn held(instance: &str) -> Outcome {
    Outcome::Held { instance: instance.into(), lease: at(9), peers: Vec::new() }
}

/// A book with one configured name that stands for proxies 1 to `count`.
fn book(count: u8) -> Book {
    let mut book = Book::new("me");
    let endpoints: Vec<_> = (1..=count).map(proxy).collect();
    book.resolved(at(0), 0, &endpoints);
    book
}

const SERVING: Standing = Standing { phase: Phase::Serving, generation: Generation(1), edition: 0 };
const DRAINING: Standing = Standing { phase: Phase::Draining, ..SERVING };

#[test]
fn a_new_edition_is_told_to_whoever_holds_our_lease() {
    let mut book = book(2);
    assert_eq!(told(&mut book, at(0), SERVING), [1, 2]);
    finish(&mut book, at(0), 1, held("p1"));
    finish(&mut book, at(0), 2, Outcome::Failed);
    let edited = Standing { edition: 1, ..SERVING };
    assert!(book.has_told(SERVING) && !book.has_told(edited));
    assert_eq!(told(&mut book, at(0), edited), [1], "the other is not due");
    book.finished(at(0), proxy(1).address, edited, held("p1"), 0.5);
    assert!(book.has_told(edited));
}

/// Who is told at `now`.
fn told(book: &mut Book, now: Time, standing: Standing) -> Vec<u8> {
    let last = |announce: Announce| match announce.endpoint.address.ip() {
        std::net::IpAddr::V4(ip) => ip.octets()[3],
        std::net::IpAddr::V6(_) => 0,
    };
    book.start_due(now, standing).into_iter().map(last).collect()
}

fn finish(book: &mut Book, now: Time, last: u8, outcome: Outcome) -> News {
    book.finished(now, proxy(last).address, SERVING, outcome, 0.5)
}

#[test]
fn every_address_is_told_and_told_again_after_a_third_of_the_lease() {
    let mut book = book(2);
    assert_eq!(told(&mut book, at(0), SERVING), [1, 2]);
    assert_eq!(told(&mut book, at(0), SERVING), NOBODY, "both are being asked");
    assert_eq!(finish(&mut book, at(0), 1, held("p1")), News::Registered);
    assert_eq!(finish(&mut book, at(0), 2, held("p2")), News::Registered);
    assert_eq!(book.next_due(SERVING), Some(at(3)));
    assert_eq!(told(&mut book, at(2), SERVING), NOBODY);
    assert_eq!(told(&mut book, at(3), SERVING), [1, 2]);
    assert_eq!(finish(&mut book, at(3), 1, held("p1")), News::Nothing);
    assert_eq!(finish(&mut book, at(3), 2, held("again")), News::Registered, "it has restarted");
    assert_eq!(book.held().len(), 2);
}

#[test]
fn renewals_are_spread() {
    for (chance, due_ms) in [(0.0, 2_700), (0.5, 3_000), (0.999, 3_299)] {
        let mut book = book(1);
        book.start_due(at(0), SERVING);
        book.finished(at(0), proxy(1).address, SERVING, held("p"), chance);
        let due = book.next_due(SERVING).expect("one");
        assert_eq!(due.as_millis(), due_ms);
    }
}

#[test]
fn tries_begin_1_2_4_8_seconds_apart_for_ever() {
    let mut book = book(1);
    let mut now = at(0);
    let mut pauses = Vec::new();
    for _ in 0..6 {
        assert_eq!(told(&mut book, now, SERVING), [1]);
        // Each takes half a second to fail, which is not added.
        let failed = now + Duration::from_millis(500);
        finish(&mut book, failed, 1, Outcome::Failed);
        let due = book.next_due(SERVING).expect("one");
        pauses.push((due - now).as_secs());
        now = due;
    }
    assert_eq!(pauses, [1, 2, 4, 8, 8, 8]);
    assert_eq!(backoff(u32::MAX), BACKOFF_MAX);
}

#[test]
fn a_new_phase_is_told_at_once_to_who_holds_a_lease() {
    let mut book = book(2);
    told(&mut book, at(0), SERVING);
    finish(&mut book, at(0), 1, held("p1"));
    finish(&mut book, at(0), 2, Outcome::Failed);
    assert_eq!(book.next_due(DRAINING), Some(Time::ZERO));
    assert_eq!(told(&mut book, at(0), DRAINING), [1]);
    // The order to drain came while an announcement of serving was under way.
    book.finished(at(0), proxy(1).address, SERVING, held("p1"), 0.5);
    assert_eq!(told(&mut book, at(0), DRAINING), [1]);
    book.finished(at(0), proxy(1).address, DRAINING, held("p1"), 0.5);
    assert_eq!(told(&mut book, at(0), DRAINING), NOBODY, "it knows");
}

#[test]
fn a_new_generation_is_told_at_once_to_who_holds_a_lease() {
    let mut book = book(2);
    told(&mut book, at(0), SERVING);
    finish(&mut book, at(0), 1, held("p1"));
    finish(&mut book, at(0), 2, Outcome::Outgrown);
    let outgrown = Standing { generation: Generation(2), ..SERVING };
    assert_eq!(told(&mut book, at(0), outgrown), [1, 2]);
}

#[test]
fn a_name_that_changes_its_mind_costs_no_lease() {
    let mut book = book(2);
    told(&mut book, at(0), SERVING);
    finish(&mut book, at(0), 1, held("p1"));
    finish(&mut book, at(0), 2, Outcome::Failed);
    book.resolved(at(1), 0, &[proxy(3)]);
    assert_eq!(book.held(), [proxy(1)]);
    let learned: Vec<bool> = book.view().iter().map(|lease| lease.learned).collect();
    assert_eq!(learned, [true, true, false]);
    told(&mut book, at(61), SERVING);
    let known: Vec<_> = book.view().into_iter().map(|lease| lease.endpoint).collect();
    assert_eq!(known, [proxy(1), proxy(3)], "2 never answered and is forgotten");
}

#[test]
fn peers_are_learned_up_to_a_limit() {
    let mut book = book(1);
    told(&mut book, at(0), SERVING);
    let peers = (2..=200).map(proxy).collect();
    let outcome = Outcome::Held { instance: "p1".into(), lease: at(9), peers };
    finish(&mut book, at(0), 1, outcome);
    assert_eq!(book.view().len(), 1 + LEARNED_MAX);
    assert_eq!(told(&mut book, at(0), SERVING).len(), LEARNED_MAX, "at once");
    assert!(!book.learned(at(0), &proxy(201)));
    assert!(book.learned(at(0), &proxy(2)), "known already");
}

#[test]
fn being_outgrown_is_mended_at_once_but_not_in_a_hot_loop() {
    let mut book = book(1);
    told(&mut book, at(0), SERVING);
    finish(&mut book, at(0), 1, Outcome::Failed);
    assert_eq!(told(&mut book, at(1), SERVING), [1]);
    assert_eq!(finish(&mut book, at(1), 1, Outcome::Outgrown), News::Nothing);
    assert_eq!(told(&mut book, at(1), SERVING), [1]);
    let news = finish(&mut book, at(1), 1, Outcome::Outgrown);
    assert!(matches!(news, News::Failure { .. }), "{news:?}");
    assert_eq!(told(&mut book, at(1), SERVING), NOBODY);
    // Another process of our name has been at it meanwhile: that is no hot loop.
    assert_eq!(told(&mut book, at(9), SERVING), [1]);
    assert_eq!(finish(&mut book, at(9), 1, Outcome::Outgrown), News::Nothing);
    assert_eq!(told(&mut book, at(9), SERVING), [1]);
}

#[test]
fn a_proxy_reached_by_two_addresses_holds_one_lease_and_makes_no_noise() {
    let mut book = book(2);
    told(&mut book, at(0), SERVING);
    finish(&mut book, at(0), 1, held("p"));
    let refused = Outcome::Refused { instance: Some("p".into()) };
    assert_eq!(finish(&mut book, at(0), 2, refused), News::Nothing);
    assert_eq!(book.held(), [proxy(1)]);
    let stranger = Outcome::Refused { instance: Some("another".into()) };
    told(&mut book, at(10), SERVING);
    let news = finish(&mut book, at(10), 2, stranger);
    assert!(matches!(news, News::Failure { covered: true, .. }), "{news:?}");
}

#[test]
fn a_proxy_does_not_mind_finding_itself() {
    let mut book = book(1);
    told(&mut book, at(0), SERVING);
    let own = Outcome::Refused { instance: Some("me".into()) };
    assert_eq!(finish(&mut book, at(0), 1, own), News::Nothing);
    assert!(book.held().is_empty());
}

#[test]
fn an_answer_of_a_forgotten_proxy_changes_nothing() {
    let mut book = book(1);
    assert_eq!(finish(&mut book, at(0), 9, held("p9")), News::Nothing);
    assert_eq!(book.view().len(), 1);
}
