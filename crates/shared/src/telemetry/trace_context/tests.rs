use super::*;
use proptest::prelude::*;

const VALID: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

fn parse(text: &str) -> Option<TraceParent> {
    TraceParent::parse(text.as_bytes())
}

fn state(text: &str) -> Option<String> {
    tracestate([text.as_bytes()].into_iter())
}

#[test]
fn the_example_of_the_standard_is_read_and_written() {
    let parent = parse(VALID).expect("valid");
    assert_eq!(parent.trace_id.to_string(), "0af7651916cd43dd8448eb211c80319c");
    assert_eq!(parent.span_id.to_string(), "b7ad6b7169203331");
    assert!(parent.sampled);
    assert_eq!(parent.to_string(), VALID);
    assert_eq!(parent.to_header(), VALID);
}

#[test]
fn what_the_standard_forbids_is_refused() {
    for text in [
        "",
        "00",
        "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331",
        "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-1",
        "00-0AF7651916CD43DD8448EB211C80319C-B7AD6B7169203331-01",
        "00-00000000000000000000000000000000-b7ad6b7169203331-01",
        "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01",
        "ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-more",
        "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01 ",
        "00_0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        "0g-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        "00-0af7651916cd43dd8448eb211c8031gc-b7ad6b7169203331-01",
        "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-0x",
        "cc-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01.what",
    ] {
        assert_eq!(parse(text), None, "{text}");
    }
}

#[test]
fn a_later_version_is_read_as_far_as_ours_goes() {
    let same = parse(VALID);
    let later = VALID.replacen("00", "cc", 1);
    assert_eq!(parse(&later), same);
    assert_eq!(parse(&format!("{later}-what-the-future-brings")), same);
}

#[test]
fn only_the_sampled_flag_is_known_and_passed_on() {
    let flags = |flags: &str| parse(&format!("{}{flags}", &VALID[..53])).expect("valid");
    assert!(flags("ff").sampled && flags("01").sampled && flags("09").sampled);
    assert!(!flags("00").sampled && !flags("fe").sampled);
    assert!(flags("ff").to_string().ends_with("-01"));
}

fn headers(fields: &[(&HeaderName, &str)]) -> HeaderMap {
    let mut map = HeaderMap::new();
    for (name, value) in fields {
        map.append(*name, HeaderValue::from_str(value).expect("a value"));
    }
    map
}

#[test]
fn a_state_needs_a_parent_and_a_parent_comes_once() {
    let both = headers(&[(&TRACEPARENT, VALID), (&TRACESTATE, "a=1"), (&TRACESTATE, "b=2")]);
    let (parent, state) = TraceParent::of(&both).expect("valid");
    assert_eq!(Some(parent), parse(VALID));
    assert_eq!(state.expect("valid"), "a=1,b=2");
    for none in [
        headers(&[(&TRACESTATE, "a=1")]),
        headers(&[(&TRACEPARENT, VALID), (&TRACEPARENT, VALID)]),
        headers(&[(&TRACEPARENT, "00-x"), (&TRACESTATE, "a=1")]),
    ] {
        assert!(TraceParent::of(&none).is_none(), "{none:?}");
    }
    let (_, state) = TraceParent::of(&headers(&[(&TRACEPARENT, VALID), (&TRACESTATE, "A=1")]))
        .expect("the parent is valid");
    assert_eq!(state, None, "a state that cannot be read is left out, the parent stays");
}

#[test]
fn a_state_is_passed_clean_or_not_at_all() {
    for (given, clean) in [
        ("rojo=00f067aa0ba902b7", "rojo=00f067aa0ba902b7"),
        ("congo=t61rcWkgMzE,rojo=00f", "congo=t61rcWkgMzE,rojo=00f"),
        (" a=1 ,\tb=2 ,, ", "a=1,b=2"),
        ("0tenant@system=v,k_-*/=a b", "0tenant@system=v,k_-*/=a b"),
    ] {
        assert_eq!(state(given).as_deref(), Some(clean), "{given}");
    }
    for bad in ["", " , ", "a", "=1", "A=1", "a=1,a=2", "0a=1", "a=b=c", "a=é", "t@0s=1", "a@b@c=1"]
    {
        assert_eq!(state(bad), None, "{bad}");
    }
}

#[test]
fn the_limits_of_a_state_hold() {
    let members =
        |count: usize| (0..count).map(|n| format!("k{n}=v")).collect::<Vec<_>>().join(",");
    assert!(state(&members(STATE_MEMBERS_MAX)).is_some());
    assert!(state(&members(STATE_MEMBERS_MAX + 1)).is_none());
    assert!(state(&format!("a={}", "v".repeat(256))).is_some());
    assert!(state(&format!("a={}", "v".repeat(257))).is_none());
    let long = |length: usize| format!("a={},b={}", "v".repeat(250), "v".repeat(length));
    assert_eq!(state(&long(512 - 255)).map(|state| state.len()), None, "a value over 256 bytes");
    assert_eq!(state(&long(256)).map(|state| state.len()), Some(511));
    assert!(state(&format!("{},c=1", long(256))).is_none());
}

#[test]
fn ids_are_new_each_time() {
    assert_ne!(TraceId::random(), TraceId::random());
    // More than are asked for at once, on threads that ask apart.
    let many = || (0..500).map(|_| TraceId::random().0).collect::<Vec<_>>();
    let other = std::thread::spawn(many);
    let mut all = many();
    all.extend(other.join().expect("ids"));
    all.sort_unstable();
    all.dedup();
    assert_eq!(all.len(), 1_000);
    assert_ne!(SpanId::random(), SpanId::random());
}

proptest! {
    /// What we write, we read.
    #[test]
    fn a_written_parent_is_read_back(trace in any::<[u8; 16]>(), span in any::<[u8; 8]>(), sampled: bool) {
        prop_assume!(trace != [0; 16] && span != [0; 8]);
        let parent = TraceParent { trace_id: TraceId(trace), span_id: SpanId(span), sampled };
        let text = parent.to_string();
        prop_assert_eq!(text.len(), LENGTH);
        prop_assert_eq!(TraceParent::parse(text.as_bytes()), Some(parent));
    }

    /// Any bytes are read without a panic; what is accepted has the form that the standard's grammar
    /// describes, and in version 00 nothing is lost but unknown flags.
    #[test]
    fn whatever_is_accepted_is_of_the_form(text in proptest::string::bytes_regex(
        "(?s-u)([0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}(-.{0,4})?|.{0,80})").expect("a pattern")) {
        let Some(parent) = TraceParent::parse(&text) else { return Ok(()) };
        let written = parent.to_string().into_bytes();
        prop_assert_eq!(&text[3..52], &written[3..52]);
        prop_assert_ne!(&text[..2], b"ff");
        prop_assert!(text.len() == LENGTH || (&text[..2] != b"00" && text[LENGTH] == b'-'));
    }

    /// One changed byte of a valid value is another valid value or none; it is never an id of zeros.
    #[test]
    fn no_damage_makes_an_invalid_id(at in 0..LENGTH, byte: u8) {
        let mut text = VALID.as_bytes().to_vec();
        text[at] = byte;
        if let Some(parent) = TraceParent::parse(&text) {
            prop_assert!(byte.is_ascii_hexdigit() && !byte.is_ascii_uppercase() || byte == b'-');
            prop_assert_ne!(parent.trace_id.0, [0; 16]);
        }
    }

    /// A state that was passed once passes again unchanged, and is within the limits.
    #[test]
    fn a_clean_state_stays_as_it_is(text in "([a-z0-9@=, ]|[a-z]=[a-z0-9],){0,60}") {
        if let Some(clean) = state(&text) {
            prop_assert!(clean.len() <= STATE_BYTES_MAX);
            prop_assert!(clean.split(',').count() <= STATE_MEMBERS_MAX);
            prop_assert_eq!(state(&clean), Some(clean));
        }
    }
}
