use super::*;
use std::collections::BTreeSet;

fn env_of(pairs: &[(&str, &str)]) -> Result<env::Environment, ConfigError> {
    env::read(pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())))
}

fn load(pairs: &[(&str, &str)], set: &[&str], file: Option<&str>) -> Result<Config, ConfigError> {
    let dir = tempfile::tempdir().expect("a folder");
    let path = dir.path().join("inferno.toml");
    std::fs::write(&path, file.unwrap_or("")).expect("written");
    let args =
        ConfigArgs { config: Some(path), set: set.iter().map(|s| (*s).to_owned()).collect() };
    Config::from_layers(&args, &env_of(pairs)?)
}

fn error(pairs: &[(&str, &str)], set: &[&str], file: Option<&str>) -> String {
    load(pairs, set, file).expect_err("must be refused").to_string()
}

#[test]
fn the_table_of_keys_and_the_schema_agree() {
    let figment =
        figment::Figment::from(figment::providers::Serialized::defaults(Config::default()));
    let data = figment::Provider::data(&figment).expect("data");
    let mut names = Vec::new();
    for dict in data.values() {
        layers::flatten(dict, "", &mut names);
    }
    let schema: BTreeSet<&str> = names.iter().map(String::as_str).collect();
    let table: BTreeSet<&str> = keys::KEYS.iter().map(|key| key.name).collect();
    assert_eq!(schema, table);
}

#[test]
fn later_layers_win() {
    let file = Some("[proxy]\nlisten = \"127.0.0.1:1\"\ndrain_timeout_ms = 5");
    let config = load(&[], &[], file).expect("file");
    assert_eq!((config.proxy.listen.port(), config.proxy.drain_timeout_ms), (1, 5));
    let pairs = [("INFERNO_PROXY__LISTEN", "127.0.0.1:2")];
    assert_eq!(load(&pairs, &[], file).expect("environment").proxy.listen.port(), 2);
    let config = load(&pairs, &["proxy.listen=127.0.0.1:3"], file).expect("flags");
    assert_eq!((config.proxy.listen.port(), config.proxy.drain_timeout_ms), (3, 5));
}

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
    assert!(
        load(&[("INFERNO_BACKEND__PROXIES", "")], &[], None)
            .expect("empty")
            .backend
            .proxies
            .is_empty()
    );
}

#[test]
fn sizes_numbers_and_switches_are_read() {
    let pairs = [
        ("INFERNO_PROXY__BODY_BYTES_MAX", "1 MiB"),
        ("INFERNO_BACKEND__KV_MEMORY", "2GiB"),
        ("INFERNO_ENABLE_METRICS", "false"),
        ("INFERNO_BACKEND__THREADS", "3"),
    ];
    let config = load(&pairs, &[], None).expect("values");
    assert_eq!(config.proxy.body_bytes_max, ByteSize(1 << 20));
    assert_eq!(config.backend.kv_memory, Some(ByteSize(2 << 30)));
    assert!(!config.operations.enable_metrics);
    assert_eq!(config.backend.threads, Some(3));
}

#[test]
fn unknown_names_are_errors_with_the_nearest_known_one() {
    assert!(
        error(&[], &[], Some("[proxy]\nlisen = \"x\"")).contains("did you mean `proxy.listen`?")
    );
    assert!(error(&[], &["backend.modle=x"], None).contains("did you mean `backend.model`?"));
    assert!(error(&[("INFERNO_PROXY__LISTN", "x")], &[], None).contains("INFERNO_PROXY__LISTEN"));
    assert!(
        error(&[("INFERNO_OPERATION_ADDR", "x")], &[], None).contains("INFERNO_OPERATIONS_ADDR")
    );
    assert!(error(&[], &["novalue"], None).contains("KEY=VALUE"));
}

#[test]
fn wrong_values_name_their_origin() {
    assert!(
        error(&[("INFERNO_BACKEND__THREADS", "two")], &[], None)
            .contains("INFERNO_BACKEND__THREADS")
    );
    assert!(error(&[("INFERNO_PROXY__LISTEN", "8080")], &[], None).contains("proxy.listen"));
    assert!(
        error(&[("INFERNO_PROXY__ROUTING__POLICY", "best")], &[], None).contains("round_robin")
    );
    assert!(error(&[], &["health.interval_ms=0"], None).contains("health.interval_ms"));
    assert!(error(&[], &["proxy.timeouts.idle_ms=0"], None).contains("proxy.timeouts.idle_ms"));
    assert!(error(&[], &["registration.lease_ms=2"], None).contains("at least 1000"));
    assert!(error(&[], &["node.id=a b"], None).contains("node.id"));
    assert!(error(&[], &["proxy.body_bytes_max=big"], None).contains("16MiB"));
}

#[test]
fn flat_names_work_and_must_agree_with_nested_ones() {
    let flat = ("INFERNO_OPERATIONS_ADDR", "127.0.0.1:7");
    assert_eq!(load(&[flat], &[], None).expect("flat").operations.addr.port(), 7);
    // The flat name of operations.addr differs from its nested one.
    let nested = ("INFERNO_OPERATIONS__ADDR", "127.0.0.1:8");
    assert!(error(&[flat, nested], &[], None).contains("different values"));
    assert!(load(&[flat, ("INFERNO_OPERATIONS__ADDR", "127.0.0.1:7")], &[], None).is_ok());
}

#[test]
fn the_old_metrics_address_warns_and_loses() {
    let old = ("INFERNO_METRICS_ADDR", "127.0.0.1:9090");
    let environment = env_of(&[old]).expect("read");
    assert!(environment.notices.warnings[0].contains("INFERNO_OPERATIONS_ADDR"));
    assert_eq!(load(&[old], &[], None).expect("old").operations.addr.port(), 9090);
    let both = [old, ("INFERNO_OPERATIONS_ADDR", "127.0.0.1:7")];
    assert_eq!(load(&both, &[], None).expect("both").operations.addr.port(), 7);
}

#[test]
fn what_platforms_inject_is_no_mistake() {
    let injected = [
        ("INFERNO_PROXY_SERVICE_HOST", "10.0.0.1"),
        ("INFERNO_PROXY_SERVICE_PORT", "8080"),
        ("INFERNO_PROXY_SERVICE_PORT_HTTP", "8080"),
        ("INFERNO_PROXY_PORT", "tcp://10.0.0.1:8080"),
        ("INFERNO_PROXY_PORT_8080_TCP", "tcp://10.0.0.1:8080"),
        ("INFERNO_PROXY_PORT_8080_TCP_ADDR", "10.0.0.1"),
    ];
    assert_eq!(env_of(&injected).expect("no error").notices.injected.len(), injected.len());
    assert!(load(&injected, &[], None).is_ok());
    assert!(env_of(&[("INFERNO_PROXY_PORT", "8080")]).is_err(), "no link: a mistake");
}

#[test]
fn a_named_file_must_exist() {
    let args = ConfigArgs { config: Some("/nonexistent/inferno.toml".into()), set: Vec::new() };
    let error = Config::from_layers(&args, &env::Environment::default()).expect_err("missing");
    assert!(error.to_string().contains("/nonexistent/inferno.toml"));
}

#[test]
fn sizes_print_as_they_are_written() {
    for text in ["16MiB", "3KiB", "1000", "2TiB"] {
        assert_eq!(text.parse::<ByteSize>().expect("a size").to_string(), text);
    }
    assert!("1.5GiB".parse::<ByteSize>().is_err() && "".parse::<ByteSize>().is_err());
    assert!("99999999TiB".parse::<ByteSize>().is_err(), "overflow");
}

#[test]
fn each_value_says_where_it_came_from() {
    let dir = tempfile::tempdir().expect("a folder");
    let path = dir.path().join("inferno.toml");
    std::fs::write(&path, "[proxy]\ndrain_timeout_ms = 5\nlisten = \"127.0.0.1:1\"")
        .expect("written");
    let args = ConfigArgs { config: Some(path.clone()), set: vec!["backend.threads=3".into()] };
    let environment = env_of(&[
        ("INFERNO_OPERATIONS_ADDR", "127.0.0.1:7"),
        ("INFERNO_PROXY__LISTEN", "127.0.0.1:2"),
    ]);
    let settings = Config::settings(&args, &environment.expect("read")).expect("valid");
    let of = |name: &str| {
        let setting = settings.iter().find(|setting| setting.name == name).expect("a key");
        (setting.value.clone().unwrap_or_default(), setting.origin.clone())
    };
    assert_eq!(of("proxy.drain_timeout_ms").1, path.display().to_string());
    assert_eq!(of("proxy.listen"), ("\"127.0.0.1:2\"".into(), "INFERNO_PROXY__LISTEN".into()));
    assert_eq!(of("operations.addr").1, "INFERNO_OPERATIONS_ADDR");
    assert_eq!(of("backend.threads"), ("3".into(), "--set".into()));
    assert_eq!(of("health.interval_ms"), ("1000".into(), "default".into()));
    assert_eq!(of("backend.kv_memory"), (String::new(), "default".into()));
    assert_eq!(settings.len(), keys::KEYS.len());
}
