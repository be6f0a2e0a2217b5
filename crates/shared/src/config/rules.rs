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
    problems
}
