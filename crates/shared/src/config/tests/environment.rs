//! Variables: ours, and those that somebody else put there.

use super::*;

#[test]
fn text_is_never_guessed_at() {
    for text in ["0123", "true", "[x]", "\"q\"", " spaced ", "1e5"] {
        let config = load(&[("INFERNO_BACKEND__MODEL", text)], &[], None).expect("text");
        assert_eq!(config.backend.model, text);
    }
}

#[test]
fn lists_are_read_in_both_forms() {
    for text in ["a:1,b:2", "a:1, b:2", "[\"a:1\",\"b:2\"]", "[a:1,b:2]"] {
        let config = load(&[("INFERNO_BACKEND__PROXIES", text)], &[], None).expect("list");
        assert_eq!(config.backend.proxies, ["a:1", "b:2"], "{text}");
    }
}

#[test]
fn every_key_has_its_variable_and_unknown_ones_name_the_nearest() {
    for key in keys::KEYS {
        let names = [Some(key.variable()), key.flat.map(String::from)];
        for name in names.into_iter().flatten() {
            // An empty value is refused, or means none; either way the variable is known.
            let layer = env(&[(&name, "")]);
            let unknown =
                layer.problems.iter().any(|p| matches!(p, Problem::UnknownVariable { .. }));
            assert!(!unknown && layer.notices == Notices::default(), "{name}");
        }
    }
    for (mistyped, meant) in [
        ("INFERNO_PROXY__LISTN", "INFERNO_PROXY__LISTEN"),
        ("INFERNO_PROXY_LISTEN", "INFERNO_PROXY__LISTEN"),
        ("INFERNO_OPERATION_ADDR", "INFERNO_OPERATIONS_ADDR"),
        ("INFERNO_CONFG", "INFERNO_CONFIG"),
        ("INFERNO_MODEL", "INFERNO_MODELS"),
    ] {
        assert_says(&error(&[(mistyped, "x")], &[], None), &[mistyped, &format!("`{meant}`")]);
    }
}

#[test]
fn flat_names_work_and_must_agree_with_nested_ones() {
    let flat = ("INFERNO_OPERATIONS_ADDR", "127.0.0.1:7");
    assert_eq!(load(&[flat], &[], None).expect("flat").operations.addr.port(), 7);
    let nested = ("INFERNO_OPERATIONS__ADDR", "127.0.0.1:8");
    let texts = ["INFERNO_OPERATIONS__ADDR and INFERNO_OPERATIONS_ADDR say two things"];
    assert_says(&error(&[flat, nested], &[], None), &texts);
    assert!(load(&[flat, ("INFERNO_OPERATIONS__ADDR", "127.0.0.1:7")], &[], None).is_ok());
    // The same value in other words.
    let both = [("INFERNO_ENABLE_METRICS", "0"), ("INFERNO_OPERATIONS__ENABLE_METRICS", "false")];
    assert!(!load(&both, &[], None).expect("one value").operations.enable_metrics);
    assert_eq!(load(&[("INFERNO_LOG", "debug")], &[], None).expect("flat").log.level, "debug");
}

#[test]
fn the_old_metrics_address_warns_and_loses() {
    let old = ("INFERNO_METRICS_ADDR", "127.0.0.1:9090");
    let config = load(&[old], &[], None).expect("old");
    assert_eq!(config.operations.addr.port(), 9090);
    assert_says(&config.notices.warnings[0], &["INFERNO_METRICS_ADDR", "INFERNO_OPERATIONS_ADDR"]);
    for new in ["INFERNO_OPERATIONS_ADDR", "INFERNO_OPERATIONS__ADDR"] {
        let config = load(&[("INFERNO_METRICS_ADDR", "x"), (new, "127.0.0.1:7")], &[], None);
        let config = config.expect("the old one is not even read");
        assert_eq!(config.operations.addr.port(), 7);
        assert_says(&config.notices.warnings[0], &["INFERNO_METRICS_ADDR is ignored", new]);
    }
    assert_says(
        &error(&[("INFERNO_METRICS_ADDR", "x")], &[], None),
        &["INFERNO_METRICS_ADDR: `x`"],
    );
}

/// What a container sees in a namespace with the services `inferno-proxy` (two named TCP ports and
/// one of UDP), `inferno-backend`, and `inferno` (one port without a name), as Kubernetes makes it.
const POD: &[(&str, &str)] = &[
    ("KUBERNETES_SERVICE_HOST", "10.96.0.1"),
    ("KUBERNETES_PORT", "tcp://10.96.0.1:443"),
    ("INFERNO_PROXY_SERVICE_HOST", "10.96.12.7"),
    ("INFERNO_PROXY_SERVICE_PORT", "8080"),
    ("INFERNO_PROXY_SERVICE_PORT_HTTP", "8080"),
    ("INFERNO_PROXY_SERVICE_PORT_OPERATIONS", "6100"),
    ("INFERNO_PROXY_SERVICE_PORT_GOSSIP_UDP", "7946"),
    ("INFERNO_PROXY_PORT", "tcp://10.96.12.7:8080"),
    ("INFERNO_PROXY_PORT_8080_TCP", "tcp://10.96.12.7:8080"),
    ("INFERNO_PROXY_PORT_8080_TCP_PROTO", "tcp"),
    ("INFERNO_PROXY_PORT_8080_TCP_PORT", "8080"),
    ("INFERNO_PROXY_PORT_8080_TCP_ADDR", "10.96.12.7"),
    ("INFERNO_PROXY_PORT_6100_TCP", "tcp://10.96.12.7:6100"),
    ("INFERNO_PROXY_PORT_6100_TCP_PROTO", "tcp"),
    ("INFERNO_PROXY_PORT_6100_TCP_PORT", "6100"),
    ("INFERNO_PROXY_PORT_6100_TCP_ADDR", "10.96.12.7"),
    ("INFERNO_PROXY_PORT_7946_UDP", "udp://10.96.12.7:7946"),
    ("INFERNO_PROXY_PORT_7946_UDP_PROTO", "udp"),
    ("INFERNO_PROXY_PORT_7946_UDP_PORT", "7946"),
    ("INFERNO_PROXY_PORT_7946_UDP_ADDR", "10.96.12.7"),
    ("INFERNO_BACKEND_SERVICE_HOST", "fd00:10:96::a1"),
    ("INFERNO_BACKEND_SERVICE_PORT", "8080"),
    ("INFERNO_BACKEND_PORT", "tcp://[fd00:10:96::a1]:8080"),
    ("INFERNO_BACKEND_PORT_8080_TCP", "tcp://[fd00:10:96::a1]:8080"),
    ("INFERNO_BACKEND_PORT_8080_TCP_PROTO", "tcp"),
    ("INFERNO_BACKEND_PORT_8080_TCP_PORT", "8080"),
    ("INFERNO_BACKEND_PORT_8080_TCP_ADDR", "fd00:10:96::a1"),
    ("INFERNO_SERVICE_HOST", "10.96.3.4"),
    ("INFERNO_SERVICE_PORT", "80"),
    ("INFERNO_PORT", "tcp://10.96.3.4:80"),
    ("INFERNO_PORT_80_TCP", "tcp://10.96.3.4:80"),
    ("INFERNO_PORT_80_TCP_PROTO", "tcp"),
    ("INFERNO_PORT_80_TCP_PORT", "80"),
    ("INFERNO_PORT_80_TCP_ADDR", "10.96.3.4"),
];

/// What `docker run --link inferno-proxy` gives: its ports, and its whole environment.
const LINKED: &[(&str, &str)] = &[
    ("INFERNO_PROXY_NAME", "/chat/inferno-proxy"),
    ("INFERNO_PROXY_PORT", "tcp://172.17.0.2:6100"),
    ("INFERNO_PROXY_PORT_6100_TCP", "tcp://172.17.0.2:6100"),
    ("INFERNO_PROXY_PORT_6100_TCP_ADDR", "172.17.0.2"),
    ("INFERNO_PROXY_PORT_6100_TCP_PORT", "6100"),
    ("INFERNO_PROXY_PORT_6100_TCP_PROTO", "tcp"),
    ("INFERNO_PROXY_PORT_8080_TCP_START", "tcp://172.17.0.2:8080"),
    ("INFERNO_PROXY_PORT_8080_TCP_PORT_START", "8080"),
    ("INFERNO_PROXY_PORT_8080_TCP_END", "tcp://172.17.0.2:8081"),
    ("INFERNO_PROXY_PORT_8080_TCP_PORT_END", "8081"),
    ("INFERNO_PROXY_ENV_PATH", "/usr/local/bin:/bin"),
    ("INFERNO_PROXY_ENV_INFERNO_OPERATIONS_ADDR", "0.0.0.0:6100"),
];

#[test]
fn what_platforms_inject_is_no_mistake() {
    for platform in [POD, LINKED] {
        let config = load(platform, &[], None).expect("no error");
        let ours = platform.iter().filter(|(name, _)| name.starts_with("INFERNO_")).count();
        assert_eq!(config.notices.injected.len(), ours, "all of them are noted");
        assert_eq!(Config { notices: Notices::default(), ..config }, Config::default());
    }
}

#[test]
fn a_mistake_beside_what_platforms_inject_is_still_one() {
    for (mistyped, value) in [
        ("INFERNO_PROXY__LISTN", "127.0.0.1:1"),
        ("INFERNO_PROXY_PORT", "8080"),
        ("INFERNO_PROXY__PORT", "tcp://10.0.0.1:80"),
        ("INFERNO_PROXY_SERVICE_HOST", "a host"),
        ("INFERNO_PROXY_SERVICE_PORT", "http"),
        ("INFERNO_PROXY_PORT_8080_TCP_ADDRESS", "10.0.0.1"),
        ("INFERNO_PROXY_PORT_8080_TPC", "tcp://10.0.0.1:8080"),
        ("INFERNO_BACKEND_NAME", "gpu-1"),
        ("INFERNO_BACKEND_ENV_PATH", "/bin"),
    ] {
        let mut pairs: Vec<_> = POD.iter().chain(LINKED).copied().collect();
        pairs.retain(|(name, _)| *name != mistyped);
        pairs.push((mistyped, value));
        let error = error(&pairs, &[], None);
        assert!(error.starts_with(&format!("unknown environment variable {mistyped}")), "{error}");
    }
}

#[cfg(unix)]
#[test]
fn what_is_not_utf_8_is_refused_by_name() {
    use std::os::unix::ffi::OsStringExt;
    let bad = || OsString::from_vec(vec![b'x', 0xff]);
    let layer = env::read([("INFERNO_BACKEND__MODEL".into(), bad())]);
    assert_says(&layer.problems[0].to_string(), &["INFERNO_BACKEND__MODEL: is not valid UTF-8"]);
    let mut name = OsString::from("INFERNO_");
    name.push(bad());
    assert_says(&env::read([(name, "x".into())]).problems[0].to_string(), &["INFERNO_x"]);
    // A path need not be, nor what is not ours.
    let elsewhere = [("INFERNO_MODELS".into(), bad()), ("LS_COLORS".into(), bad())];
    assert!(env::read(elsewhere).problems.is_empty());
}
