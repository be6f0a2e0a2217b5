//! What one key alone cannot tell: values that do not fit each other.

use super::{Config, problem::Problem};

/// The rules that `config` breaks.
pub(super) fn broken(config: &Config) -> Vec<Problem> {
    let registration = &config.registration;
    let mut problems = Vec::new();
    if registration.secret.is_some() && !registration.secret_files.is_empty() {
        let one = if registration.secret_file.is_some() {
            "registration.secret_file"
        } else {
            "registration.secret"
        };
        problems
            .push(Problem::Conflict { one: one.into(), two: "registration.secret_files".into() });
    }
    let (proxy, operations) = (&config.proxy.tls, &config.operations.tls);
    problems.extend(halves(
        ("proxy.tls.cert_file", proxy.cert_file.is_some()),
        ("proxy.tls.key_file", proxy.key_file.is_some()),
    ));
    problems.extend(halves(
        ("operations.tls.cert_file", operations.cert_file.is_some()),
        ("operations.tls.key_file", operations.key_file.is_some()),
    ));
    let cors = &config.proxy.cors;
    if cors.allow_credentials && cors.allow_origins.iter().any(|origin| origin == "*") {
        problems.push(Problem::Value {
            origin: "proxy.cors.allow_credentials".into(),
            why: "does not go with the origin `*`: any page could act for whoever is logged in; list the origins"
                .into(),
        });
    }
    if proxy.client_ca_file.is_some() && proxy.cert_file.is_none() && proxy.key_file.is_none() {
        problems.push(needs("proxy.tls.client_ca_file", "proxy.tls.cert_file"));
    }
    problems
}

/// Two keys that belong together, each with whether it is set.
fn halves(one: (&str, bool), two: (&str, bool)) -> Option<Problem> {
    match (one, two) {
        ((there, true), (missing, false)) | ((missing, false), (there, true)) => {
            Some(needs(there, missing))
        }
        _ => None,
    }
}

fn needs(there: &str, missing: &str) -> Problem {
    Problem::Value {
        origin: there.into(),
        why: format!("is of no use without {missing}; set both"),
    }
}
