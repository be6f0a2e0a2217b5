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
    let tls = &config.proxy.tls;
    if tls.cert_file.is_some() != tls.key_file.is_some() {
        let (there, missing) = if tls.cert_file.is_some() {
            ("proxy.tls.cert_file", "proxy.tls.key_file")
        } else {
            ("proxy.tls.key_file", "proxy.tls.cert_file")
        };
        problems.push(needs(there, missing));
    } else if tls.client_ca_file.is_some() && tls.cert_file.is_none() {
        problems.push(needs("proxy.tls.client_ca_file", "proxy.tls.cert_file"));
    }
    problems
}

fn needs(there: &str, missing: &str) -> Problem {
    Problem::Value {
        origin: there.into(),
        why: format!("is of no use without {missing}; set both"),
    }
}
