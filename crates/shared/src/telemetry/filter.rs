//! What is logged: the directives of `log.level`, within a limit that they cannot move, pure.
//!
//! Our own lines are written to hold no prompt, output or secret at any level. Those of libraries are
//! not: below `error` HTTP and TLS libraries write whole headers and frames. So a library's lines are
//! logged at `error` at most, whatever `log.level` says; Pingora's not at all, for it reports every
//! client's disconnect as an error, with what it had read, and ours say once what it was.

use tracing::{Level, Metadata, level_filters::LevelFilter};
use tracing_subscriber::{
    EnvFilter,
    filter::{FilterFn, ParseError, filter_fn},
};

/// Our crates, and the targets that are no crates: `inferno::request`.
const OURS: &str = "inferno";
/// Most that a library may say.
const LIBRARY_LEVEL: Level = Level::ERROR;
/// Libraries that say nothing, except from the module beside them.
const SILENT: &[(&str, &str)] = &[("pingora_core", "pingora_core::services::listening")];

/// The filter that `log.level` describes.
///
/// # Errors
/// If it is no list of directives.
pub(super) fn directives(level: &str) -> Result<EnvFilter, ParseError> {
    EnvFilter::builder().with_default_directive(LevelFilter::ERROR.into()).parse(level)
}

/// What no directive can turn on.
pub(super) fn limit() -> FilterFn<impl Fn(&Metadata<'_>) -> bool + Clone> {
    filter_fn(|metadata| may_log(metadata.target(), *metadata.level()))
}

fn may_log(target: &str, level: Level) -> bool {
    is_ours(target) || (level <= LIBRARY_LEVEL && !is_silent(target))
}

fn is_ours(target: &str) -> bool {
    target.starts_with(OURS)
}

fn is_silent(target: &str) -> bool {
    SILENT.iter().any(|(name, except)| target.starts_with(name) && !target.starts_with(except))
}

/// Directives that ask for more of a library than may be logged: nothing is ignored in silence.
pub(super) fn refused(level: &str) -> Vec<&str> {
    let asks_too_much = |directive: &&str| {
        let Some((target, asked)) = directive.rsplit_once('=') else { return false };
        let asked: Option<LevelFilter> = asked.trim().parse().ok();
        asked.is_some_and(|asked| asked > LIBRARY_LEVEL) && !is_ours(target.trim())
    };
    level.split(',').map(str::trim).filter(asks_too_much).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_our_own_lines_come_below_error() {
        for target in ["inferno", "inferno_proxy::app", "inferno_engine", "inferno::request"] {
            assert!(may_log(target, Level::TRACE), "{target}");
        }
        for target in ["hyper::proto::h1", "h2::codec", "rustls::server", "log", "ureq"] {
            assert!(may_log(target, Level::ERROR), "{target}");
            assert!(!may_log(target, Level::WARN), "{target}");
        }
        assert!(!may_log("pingora_core::protocols::http", Level::ERROR));
        assert!(may_log("pingora_core::services::listening", Level::ERROR));
    }

    #[test]
    fn a_directive_that_has_no_effect_is_told() {
        assert_eq!(refused("debug"), [""; 0]);
        assert_eq!(refused("info,inferno_proxy=trace,hyper=error,h2=off"), [""; 0]);
        assert_eq!(
            refused("info, hyper=debug,rustls::server=trace,tower[{x=1}]=info"),
            ["hyper=debug", "rustls::server=trace", "tower[{x=1}]=info"]
        );
    }

    #[test]
    fn what_is_no_directive_is_an_error() {
        assert!(directives("info,inferno_proxy=debug").is_ok());
        assert!(directives("inferno_proxy=loud").is_err());
    }
}
