use super::{layers::Layer, *};
use std::{collections::BTreeSet, ffi::OsString, path::Path};

mod environment;
mod files;
mod secrets;

/// The `INFERNO_*` variables of these names.
fn variables(pairs: &[(&str, &str)]) -> Vec<(OsString, OsString)> {
    pairs.iter().map(|(name, value)| (name.into(), value.into())).collect()
}

fn args(file: Option<&Path>, set: &[&str]) -> ConfigArgs {
    ConfigArgs {
        // An empty file of ours: the default ones of this machine do not matter.
        config: Some(file.unwrap_or(Path::new("/dev/null")).into()),
        set: set.iter().map(|s| (*s).to_owned()).collect(),
    }
}

fn load(pairs: &[(&str, &str)], set: &[&str], file: Option<&str>) -> Result<Config, ConfigError> {
    let dir = tempfile::tempdir().expect("a folder");
    let path = dir.path().join("inferno.toml");
    std::fs::write(&path, file.unwrap_or("")).expect("written");
    Config::from_sources(&args(Some(&path), set), variables(pairs))
}

fn env(pairs: &[(&str, &str)]) -> Layer {
    env::read(variables(pairs))
}

fn error(pairs: &[(&str, &str)], set: &[&str], file: Option<&str>) -> String {
    load(pairs, set, file).expect_err("must be refused").to_string()
}

/// Each text must stand in `error`.
fn assert_says(error: &str, texts: &[&str]) {
    for text in texts {
        assert!(error.contains(text), "{text:?} is missing in: {error}");
    }
}

#[test]
fn the_table_of_keys_and_the_schema_agree() {
    let defaults = layers::json(&Config::default());
    let mut schema = BTreeSet::new();
    leaves(&defaults, "", &mut schema);
    let table: BTreeSet<String> = keys::KEYS.iter().map(|key| key.name.to_owned()).collect();
    assert_eq!(schema, table);
    for key in keys::KEYS {
        let default = defaults.pointer(&layers::pointer(key.name)).expect("a leaf");
        assert!(keys::TABLES.iter().any(|(table, _)| *table == key.table()), "{}", key.table());
        assert_eq!(default.is_null(), key.unset.is_some(), "{}: what is it when unset?", key.name);
        if key.kind == kind::Kind::Secret {
            let twin = secret::twin(key).unwrap_or_else(|| panic!("{} has no twin", key.name));
            assert_eq!(twin.kind, kind::Kind::Path);
        }
    }
}

/// Dotted names of all that is no table.
fn leaves(value: &serde_json::Value, name: &str, names: &mut BTreeSet<String>) {
    match value.as_object() {
        Some(table) => {
            for (inner, value) in table {
                let dotted =
                    if name.is_empty() { inner.clone() } else { format!("{name}.{inner}") };
                leaves(value, &dotted, names);
            }
        }
        None => drop(names.insert(name.to_owned())),
    }
}

#[test]
fn every_default_is_a_value_that_its_key_takes() {
    let defaults = layers::json(&Config::default());
    for key in keys::KEYS {
        let value = defaults.pointer(&layers::pointer(key.name)).expect("a leaf");
        if !value.is_null() {
            let value = figment::value::Value::serialize(value).expect("a value");
            key.kind.check(&value).unwrap_or_else(|why| panic!("{}: {why}", key.name));
        }
    }
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
    let twice = ["proxy.listen=127.0.0.1:3", "proxy.listen=127.0.0.1:4"];
    assert_eq!(load(&[], &twice, None).expect("flags").proxy.listen.port(), 4, "the last flag");
}

#[test]
fn sizes_numbers_and_switches_are_read() {
    let pairs = [
        ("INFERNO_PROXY__BODY_BYTES_MAX", "1 MiB"),
        ("INFERNO_BACKEND__KV_MEMORY", "2GiB"),
        ("INFERNO_ENABLE_METRICS", "False"),
        ("INFERNO_BACKEND__THREADS", " 3 "),
    ];
    let config = load(&pairs, &[], None).expect("values");
    assert_eq!(config.proxy.body_bytes_max, ByteSize(1 << 20));
    assert_eq!(config.backend.kv_memory, Some(ByteSize(2 << 30)));
    assert!(!config.operations.enable_metrics);
    assert_eq!(config.backend.threads, Some(3));
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
fn unknown_keys_are_errors_with_the_nearest_known_one() {
    let hint = "did you mean `proxy.listen`?";
    assert_says(&error(&[], &[], Some("[proxy]\nlisen = \"x\"")), &[":2", hint]);
    assert_says(&error(&[], &[], Some("[prxy]\nlisten = \"x\"")), &[":2", hint]);
    assert_says(&error(&[], &["proxy.listn=x"], None), &["in --set", hint]);
    assert_says(&error(&[], &["novalue"], None), &["KEY=VALUE"]);
    assert_says(&error(&[], &[], Some("[empty]")), &["unknown key `empty`", ":1"]);
}

#[test]
fn a_table_is_no_key_and_a_key_no_table() {
    let table = "proxy is a table of keys, not a key; its keys are ";
    assert_says(&error(&[("INFERNO_PROXY", "x")], &[], None), &[table, "INFERNO_PROXY__LISTEN"]);
    assert_says(&error(&[], &["proxy=x"], None), &["--set proxy", table, "proxy.listen"]);
    assert_says(&error(&[], &[], Some("proxy = \"x\"")), &[":1", table]);
    let routing = error(&[("INFERNO_PROXY__ROUTING", "x")], &[], None);
    assert_says(&routing, &["not a key; its keys are INFERNO_PROXY__ROUTING__POLICY"]);
    let reversed = error(&[], &[], Some("[proxy.listen]\nport = 1"));
    assert_says(&reversed, &["proxy.listen: is one value", "there is no proxy.listen.port"]);
}

#[test]
fn wrong_values_name_their_origin_and_say_what_to_write() {
    let of = |set: &str| error(&[], &[set], None);
    assert_says(
        &error(&[("INFERNO_BACKEND__THREADS", "two")], &[], None),
        &["INFERNO_BACKEND__THREADS: `two` is not a whole number"],
    );
    assert_says(&of("proxy.listen=8080"), &["--set proxy.listen: `8080` is not IP:PORT"]);
    assert_says(&of("proxy.listen=localhost:8080"), &["127.0.0.1:8080"]);
    assert_says(
        &of("proxy.routing.policy=best"),
        &["prefix, least_outstanding", "weighted or session"],
    );
    assert_says(&of("proxy.routing.policy=round_robbin"), &["did you mean `round_robin`?"]);
    assert_says(&of("log.format=yaml"), &["auto, human or json"]);
    assert_says(&of("operations.enable_metrics=maybe"), &["`maybe` is neither true nor false"]);
    assert_says(&of("health.interval_ms=0"), &["health.interval_ms: must be at least 1"]);
    assert_says(&of("proxy.timeouts.idle_ms=-1"), &["proxy.timeouts.idle_ms"]);
    assert_says(&of("registration.lease_ms=2"), &["at least 1000"]);
    assert_says(&of("registration.allowed_networks=10.0.0.0/8,10.x"), &["`10.x` is not a network"]);
    assert_says(&of("backend.max_concurrency=513"), &["at most 512"]);
    assert_says(
        &of("backend.proxies=ftp://p:6100"),
        &["`ftp://p:6100` is not [https://]HOST:PORT"],
    );
    assert_says(&of("backend.proxies=p"), &["HOST:PORT"]);
    assert_says(&of("backend.advertise=http://p"), &["HOST or HOST:PORT"]);
    assert_says(&of("backend.device=gpu"), &["cuda:N"]);
    assert_says(&of("node.id=a b"), &["node.id"]);
    assert_says(&of("proxy.body_bytes_max=big"), &["16MiB"]);
    assert_says(&of("log.level=inof"), &["log.level: `inof` is not", "did you mean `info`?"]);
    assert_says(&of("log.level=inferno_proxy=loud"), &["log.level"]);
}

#[test]
fn what_is_of_no_use_alone_is_refused() {
    let of = |set: &[&str]| error(&[], set, None);
    assert_says(&of(&["proxy.tls.cert_file=c"]), &["cert_file: is of no use without", "key_file"]);
    assert_says(&of(&["proxy.tls.key_file=k"]), &["key_file: is of no use without", "cert_file"]);
    assert_says(&of(&["proxy.tls.client_ca_file=a"]), &["client_ca_file: is of no use without"]);
    assert!(load(&[], &["proxy.tls.cert_file=c", "proxy.tls.key_file=k"], None).is_ok());
}

#[test]
fn any_page_and_its_visitors_credentials_do_not_go_together() {
    let set = |origins: &'static str| {
        let origins = format!("proxy.cors.allow_origins={origins}");
        load(&[], &[&origins, "proxy.cors.allow_credentials=true"], None)
    };
    let error = set("https://a.example,*").expect_err("refused").to_string();
    assert_says(&error, &["proxy.cors.allow_credentials", "`*`", "list the origins"]);
    assert!(set("https://a.example").is_ok());
}

#[test]
fn an_origin_is_what_browsers_send() {
    for (origin, why) in [
        ("app.example", "is not an origin, e.g."),
        ("null", "is not an origin"),
        ("https://app.example/", "leave out the `/`"),
        ("https://app.example/x", "is not an origin"),
        ("https://*.app.example", "is not an origin"),
        ("https://u@app.example", "is not an origin"),
        ("https://", "is not an origin"),
        ("HTTPS://app.example", "is not an origin"),
        ("https://App.example", "in lower case"),
        ("https://app.example:443", "leave out the port 443"),
        ("http://[::1]:80", "leave out the port 80"),
    ] {
        let set = format!("proxy.cors.allow_origins={origin}");
        assert_says(&error(&[], &[&set], None), &["proxy.cors.allow_origins", why]);
    }
}

#[test]
fn values_of_every_form_are_taken() {
    for set in [
        "proxy.cors.allow_origins=*",
        "proxy.cors.allow_origins=https://app.example,http://localhost:3000,http://[::1]:8080",
        "proxy.cors.allow_origins=tauri://localhost,chrome-extension://abc",
        "proxy.cors.allow_headers=*",
        "proxy.cors.expose_headers=",
        "backend.proxies=https://p:1/,http://[::1]:6100",
        "backend.proxies=p:1,10.0.0.1:2,[::1]:3,a-b.c_d:4",
        "backend.advertise=host",
        "backend.advertise=10.0.0.1",
        "backend.advertise=::1",
        "backend.advertise=[::1]:80",
        "log.level=warn,inferno_proxy=debug,[request{id=1}]=trace",
        "log.level=INFO",
        "backend.device=cuda:7",
        "proxy.listen=[::]:8080",
    ] {
        load(&[], &[set], None).unwrap_or_else(|error| panic!("{set}: {error}"));
    }
}

#[test]
fn everything_that_is_wrong_is_told_at_once() {
    let error = error(
        &[("INFERNO_PROXI", "x"), ("INFERNO_BACKEND__THREADS", "x")],
        &["proxy.listen=x"],
        Some("[proxy]\ndrain_timeout_ms = \"x\"\nlisen = 1"),
    );
    assert_says(&error, &["5 problems", "INFERNO_PROXI", "BACKEND__THREADS", "--set proxy.listen"]);
    assert_says(&error, &["inferno.toml:2: proxy.drain_timeout_ms", "inferno.toml:3"]);
}

#[test]
fn an_empty_value_means_none_where_there_may_be_none() {
    let file = Some("[node]\nid = \"n\"\n[backend]\nthreads = 4\nproxies = [\"p:1\"]");
    let config = load(&[], &[], file).expect("set");
    assert_eq!((config.node.id.as_deref(), config.backend.threads), (Some("n"), Some(4)));
    let empty = [
        ("INFERNO_NODE__ID", ""),
        ("INFERNO_BACKEND__THREADS", ""),
        ("INFERNO_BACKEND__PROXIES", ""),
    ];
    assert_eq!(load(&empty, &[], file).expect("unset"), Config::default());
    let empty = Some("[node]\nid = \"\"\n[backend]\nkv_memory = \"\"\nthreads = \"\"");
    assert_eq!(load(&[], &[], empty).expect("unset"), Config::default());
    for set in ["backend.model=", "proxy.listen=", "operations.enable_metrics="] {
        assert_says(&error(&[], &[set], None), &["must not be empty"]);
    }
}

#[test]
fn one_process_knows_the_whole_schema() {
    // A backend's environment may carry what is meant for the proxy beside it, and the reverse.
    let set = ["proxy.listen=127.0.0.1:1", "proxy.routing.policy=round_robin"];
    let pairs = [("INFERNO_PROXY__TIMEOUTS__IDLE_MS", "5"), ("INFERNO_BACKEND__THREADS", "3")];
    let config = load(&pairs, &set, None).expect("both");
    assert_eq!((config.proxy.timeouts.idle_ms, config.backend.threads), (5, Some(3)));
}

#[test]
fn each_value_says_where_it_came_from() {
    let dir = tempfile::tempdir().expect("a folder");
    let path = dir.path().join("inferno.toml");
    std::fs::write(&path, "[proxy]\n\ndrain_timeout_ms = 5\nlisten = \"127.0.0.1:1\"")
        .expect("written");
    let environment = variables(&[
        ("INFERNO_OPERATIONS_ADDR", "127.0.0.1:7"),
        ("INFERNO_PROXY__LISTEN", "127.0.0.1:2"),
    ]);
    let args = args(Some(&path), &["backend.threads=3"]);
    let settings = Config::settings(&args, environment).expect("valid");
    let of = |name: &str| {
        let setting = settings.iter().find(|setting| setting.key.name == name).expect("a key");
        let value = setting.value.as_ref().map(ToString::to_string).unwrap_or_default();
        (value, setting.origin.clone(), setting.is_changed)
    };
    let line = format!("{}:3", path.display());
    assert_eq!(of("proxy.drain_timeout_ms"), ("5".into(), line, true));
    assert_eq!(
        of("proxy.listen"),
        ("\"127.0.0.1:2\"".into(), "INFERNO_PROXY__LISTEN".into(), true)
    );
    assert_eq!(of("operations.addr").1, "INFERNO_OPERATIONS_ADDR");
    assert_eq!(of("backend.threads"), ("3".into(), "--set".into(), true));
    assert_eq!(of("health.interval_ms"), ("1000".into(), "default".into(), false));
    assert_eq!(of("backend.kv_memory"), (String::new(), "default".into(), false));
    assert_eq!(settings.len(), keys::KEYS.len());
}

#[test]
fn a_share_and_an_address_are_what_they_say() {
    let ratio = |text: &str| load(&[], &[&format!("telemetry.otlp.sample_ratio={text}")], None);
    assert_eq!(
        ratio("0.25").expect("a share").telemetry.otlp.sample_ratio.to_bits(),
        0.25f64.to_bits()
    );
    let file = Some("[telemetry.otlp]\nsample_ratio = 1\nendpoint = \"https://c/v1/traces\"");
    let otlp = load(&[], &[], file).expect("whole numbers too").telemetry.otlp;
    assert_eq!(otlp.endpoint.as_deref(), Some("https://c/v1/traces"));
    for bad in ["1.1", "-0.1", "NaN", "10%", "x"] {
        let error = ratio(bad).expect_err("refused").to_string();
        assert_says(&error, &["telemetry.otlp.sample_ratio", "0 to 1"]);
    }
    for bad in ["c:4318", "grpc://c:4317", "localhost", "http://"] {
        let error = error(&[("INFERNO_TELEMETRY__OTLP__ENDPOINT", bad)], &[], None);
        assert_says(&error, &["INFERNO_TELEMETRY__OTLP__ENDPOINT"]);
    }
    let error = error(&[], &["telemetry.otlp.endpoint=http://u:hunter2@c:4318"], None);
    assert_says(&error, &["telemetry.otlp.endpoint", "no credentials"]);
    assert!(!error.contains("hunter2"), "{error}");
}

#[test]
fn what_the_proxy_changes_is_said_alike_in_a_file_a_variable_and_a_flag() {
    let file = Some(
        "[proxy]\naliases = [\"a=m\", \"b=n\"]\nrewrites = [\"/x/ => /v1/\"]\n\
         [proxy.headers]\nresponse_set = [\"vary: a, b\"]",
    );
    let pairs = [
        ("INFERNO_PROXY__ALIASES", "a=m, b=n"),
        ("INFERNO_PROXY__REWRITES", "/x/ => /v1/"),
        ("INFERNO_PROXY__HEADERS__RESPONSE_SET", "[\"vary: a, b\"]"),
    ];
    let set = [
        "proxy.aliases=[\"a=m\",\"b=n\"]",
        "proxy.rewrites=/x/=>/v1/",
        "proxy.headers.response_set=[\"Vary:a, b\"]",
    ];
    let config = load(&[], &[], file).expect("a file");
    assert_eq!(config.proxy.aliases[1].to_string(), "b=n");
    assert_eq!(config, load(&pairs, &[], None).expect("variables"));
    assert_eq!(config, load(&[], &set, None).expect("flags"));
    let default = load(&[], &["proxy.routing.default_model=m"], None).expect("a flag");
    assert_eq!(default.proxy.routing.default_model.as_deref(), Some("m"));
    // A comma that was not meant as one.
    let split = error(&[("INFERNO_PROXY__HEADERS__RESPONSE_SET", "vary: a, b")], &[], None);
    assert_says(&split, &["INFERNO_PROXY__HEADERS__RESPONSE_SET", "NAME: VALUE"]);
    let of = |set: &str| error(&[], &[set], None);
    assert_says(&of("proxy.aliases=gpt-4o"), &["--set proxy.aliases: `gpt-4o` is not ALIAS=MODEL"]);
    assert_says(&of("proxy.rewrites=/a/ => /b"), &["both sides end in /, or neither does"]);
    assert_says(&of("proxy.headers.request_remove=a b"), &["`a b` is not the name of a header"]);
    let table = error(&[], &[], Some("[proxy.aliases]\n\"a\" = \"m\""));
    assert_says(&table, &["proxy.aliases: is one value, not a table"]);
}
