//! The configuration: whether it is valid, and whether its secrets are ones.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use inferno_proxy::keys::examine as examine_keys;
use inferno_shared::Config;
use inferno_shared::config::{ConfigError, ProxyConfig};
use inferno_shared::registration::secrets::{SecretSource, Secrets};

use super::Finding;

/// Whether it can be used, and what is odd about it.
pub(super) fn examine(config: &Result<Config, ConfigError>) -> Vec<Finding> {
    const CHECK: &str = "configuration";
    match config {
        Err(error) => vec![Finding::problem(
            CHECK,
            error.to_string(),
            "`inferno config show` lists keys and where each value comes from; the rest is checked with the defaults",
        )],
        Ok(config) if config.notices.warnings.is_empty() => vec![Finding::ok(CHECK, "valid")],
        Ok(config) => {
            let warning =
                |text: &String| Finding::warning(CHECK, text.clone(), "see docs/configuration.md");
            config.notices.warnings.iter().map(warning).collect()
        }
    }
}

/// Whether registration is closed to strangers, and the secrets are kept.
pub(super) fn secrets(config: &Config) -> Vec<Finding> {
    let registration = &config.registration;
    let sources = registration.secret_sources();
    let found = sources.iter().map(|source| {
        let readable = Secrets::load(std::slice::from_ref(source)).map(drop);
        let readable = readable.map_err(|error| error.to_string());
        match source {
            SecretSource::Value(key, _) => secret_value(key, readable),
            SecretSource::File(_, path) => {
                let mode = fs::metadata(path).ok().map(|metadata| metadata.permissions().mode());
                secret_file(path, readable, mode)
            }
        }
    });
    let open = sources.is_empty();
    let own = open.then(|| {
        let loopback = config.operations.addr.ip().is_loopback();
        without_secret(
            &config.operations.addr.to_string(),
            loopback,
            registration.allow_unauthenticated,
        )
    });
    found.chain(own).collect()
}

fn secret_value(key: &str, readable: Result<(), String>) -> Finding {
    const CHECK: &str = "secret";
    match readable {
        Ok(()) => Finding::warning(
            CHECK,
            format!("{key} stands in the configuration, where other processes may see it"),
            format!("put it into a file and name that with {key}_file"),
        ),
        Err(error) => Finding::problem(CHECK, error, format!("correct {key}, or use {key}_file")),
    }
}

fn secret_file(path: &Path, readable: Result<(), String>, mode: Option<u32>) -> Finding {
    const CHECK: &str = "secret";
    let shown = path.display();
    match (readable, mode.map(|mode| mode & 0o777)) {
        (Err(error), _) => Finding::problem(
            CHECK,
            error,
            format!(
                "make one: `(umask 077; head -c 32 /dev/urandom | base64 -w 0 > {shown})`, readable by the service's user"
            ),
        ),
        (Ok(()), Some(mode)) if mode & 0o077 != 0 => Finding::warning(
            CHECK,
            format!("{shown} is open to other users (mode {mode:o})"),
            format!("`chmod 600 {shown}`"),
        ),
        (Ok(()), _) => Finding::ok(CHECK, format!("{shown} is readable, by nobody else")),
    }
}

fn without_secret(operations: &str, loopback: bool, allowed: bool) -> Finding {
    const CHECK: &str = "secret";
    match (loopback, allowed) {
        (true, _) => Finding::ok(CHECK, "none: only this machine may register"),
        (false, true) => Finding::warning(
            CHECK,
            "registration is open (registration.allow_unauthenticated): whoever reaches the port receives your traffic",
            "set registration.secret_file on every node",
        ),
        (false, false) => Finding::problem(
            CHECK,
            format!(
                "none, and operations.addr is {operations}: a proxy does not start so, and takes no backend of another machine"
            ),
            "set registration.secret_file on every node",
        ),
    }
}

/// Whether the traffic port is closed to strangers, and its keys are kept.
pub(super) fn keys(proxy: &ProxyConfig) -> Vec<Finding> {
    const CHECK: &str = "keys";
    let (listen, is_local) = (proxy.listen, proxy.listen.ip().is_loopback());
    let Some(path) = &proxy.keys_file else {
        return vec![match is_local {
            true => Finding::ok(CHECK, format!("none: only this machine reaches {listen}")),
            false => Finding::warning(
                CHECK,
                format!(
                    "none, and proxy.listen is {listen}: whoever reaches it may use every model"
                ),
                "`inferno key create NAME --file FILE`, and set proxy.keys_file to that",
            ),
        }];
    };
    let (count, warnings) = match examine_keys(path) {
        Ok(examined) => examined,
        Err(error) => {
            let fix = "a proxy does not start so; correct that, or see docs/keys.md";
            return vec![Finding::problem(CHECK, error.to_string(), fix)];
        }
    };
    let on = Finding::ok(CHECK, format!("clients need one of the {count} in {}", path.display()));
    let in_the_clear = (!is_local && proxy.tls.cert_file.is_none()).then(|| {
        Finding::warning(
            CHECK,
            format!("{listen} speaks plain HTTP: keys go over the network as they are"),
            "set proxy.tls.cert_file and key_file, unless something before the proxy speaks TLS",
        )
    });
    let warnings =
        warnings.into_iter().map(|text| Finding::warning(CHECK, text, "see docs/keys.md"));
    [on].into_iter().chain(in_the_clear).chain(warnings).collect()
}

#[cfg(test)]
mod tests {
    use super::super::Verdict;
    use super::*;
    use inferno_proxy::keys::{NewKey, Timestamp, create};
    use inferno_shared::config::ConfigArgs;

    #[test]
    fn a_mistake_is_told_and_a_warning_passed_on() {
        let mistake = Config::load(&ConfigArgs { config: None, set: vec!["x".into()] });
        assert_eq!(examine(&mistake)[0].verdict, Verdict::Problem);
        let mut config = Config::default();
        assert_eq!(examine(&Ok(config.clone())), [Finding::ok("configuration", "valid")]);
        config.notices.warnings = vec!["INFERNO_METRICS_ADDR is the old name".into()];
        let findings = examine(&Ok(config));
        assert_eq!((findings.len(), findings[0].verdict), (1, Verdict::Warning));
    }

    #[test]
    fn a_secret_is_readable_by_its_owner_alone() {
        let path = Path::new("/s");
        assert_eq!(secret_file(path, Ok(()), Some(0o100_600)).verdict, Verdict::Ok);
        let open = secret_file(path, Ok(()), Some(0o100_644));
        assert_eq!((open.verdict, open.fix.as_deref()), (Verdict::Warning, Some("`chmod 600 /s`")));
        assert_eq!(secret_file(path, Err("no".into()), None).verdict, Verdict::Problem);
    }

    #[test]
    fn the_fix_for_a_missing_secret_makes_one_that_is_accepted() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("secret");
        let fix = secret_file(&path, Err("no".into()), None).fix.expect("a fix");
        let command = fix.split('`').nth(1).expect("a command");
        assert!(
            std::process::Command::new("sh").args(["-c", command]).status().expect("sh").success()
        );
        let config = Config {
            registration: inferno_shared::config::RegistrationConfig {
                secret_files: vec![path],
                ..Default::default()
            },
            ..Config::default()
        };
        let findings = secrets(&config);
        assert_eq!((findings.len(), findings[0].verdict), (1, Verdict::Ok), "{findings:?}");
    }

    #[test]
    fn keys_are_wanted_off_loopback_and_have_to_be_good() {
        let judge = |proxy: &ProxyConfig| {
            keys(proxy).iter().map(|finding| finding.verdict).collect::<Vec<_>>()
        };
        let mut proxy = ProxyConfig::default();
        assert_eq!(judge(&proxy), [Verdict::Ok]);
        proxy.listen = ([0, 0, 0, 0], 8080).into();
        assert_eq!(judge(&proxy), [Verdict::Warning]);
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("keys.toml");
        proxy.keys_file = Some(path.clone());
        assert_eq!(judge(&proxy), [Verdict::Problem], "it is not there");
        let new = NewKey { name: "n".into(), ..NewKey::default() };
        create(&path, new, Timestamp::now()).expect("made");
        assert_eq!(judge(&proxy), [Verdict::Ok, Verdict::Warning], "no TLS");
        proxy.tls.cert_file = Some("c".into());
        assert_eq!(judge(&proxy), [Verdict::Ok]);
        let pepper = folder.path().join("keys.pepper");
        fs::set_permissions(&pepper, fs::Permissions::from_mode(0o644)).expect("set");
        assert_eq!(judge(&proxy), [Verdict::Ok, Verdict::Warning], "an open pepper");
    }

    #[test]
    fn no_secret_is_well_only_on_loopback() {
        let verdict = |loopback, allowed| without_secret("a", loopback, allowed).verdict;
        assert_eq!(verdict(true, false), Verdict::Ok);
        assert_eq!(verdict(false, true), Verdict::Warning);
        assert_eq!(verdict(false, false), Verdict::Problem);
    }
}
