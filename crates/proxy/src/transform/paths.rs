//! Paths that are taken for others, for clients that have another base path.

use super::{TransformError, check_count};
use http::{Uri, uri::PathAndQuery};
use inferno_shared::config::Rewrite;

const KEY: &str = "proxy.rewrites";

/// How paths begin, and how they begin instead.
#[derive(Debug, Default)]
pub(crate) struct Paths(Vec<Rewrite>);

impl Paths {
    pub(super) fn new(rewrites: &[Rewrite]) -> Result<Self, TransformError> {
        check_count(KEY, rewrites)?;
        for (at, rewrite) in rewrites.iter().enumerate() {
            let earlier =
                rewrites[..at].iter().find(|earlier| begins(&rewrite.from, &earlier.from));
            let wrong = match earlier {
                Some(earlier) => Some(format!("is never reached: `{earlier}` takes it before")),
                None => senseless(rewrite).map(str::to_owned),
            };
            if let Some(why) = wrong {
                return Err(TransformError { key: KEY, why: format!("`{rewrite}` {why}") });
            }
        }
        Ok(Self(rewrites.to_vec()))
    }

    /// What `uri` is taken for, if for anything else. Its query stays.
    pub(crate) fn rewritten(&self, uri: &Uri) -> Option<Uri> {
        let path = uri.path();
        let Rewrite { from, to } = self.0.iter().find(|rewrite| begins(path, &rewrite.from))?;
        let target = uri.path_and_query()?.as_str();
        let target = [to, &target[from.len()..]].concat();
        let mut parts = uri.clone().into_parts();
        // Only its length could be too much; then nothing here serves it either.
        parts.path_and_query = Some(PathAndQuery::try_from(target).ok()?);
        Uri::from_parts(parts).ok()
    }
}

/// Whether `path` is what `beginning` means: itself or, after a slash, something in it.
fn begins(path: &str, beginning: &str) -> bool {
    path.strip_prefix(beginning)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with('/') || beginning.ends_with('/'))
}

/// Why nothing good would come of it.
fn senseless(Rewrite { from, to }: &Rewrite) -> Option<&'static str> {
    let is_served = begins(to, "/v1") || ["/", "/tokenize", "/detokenize"].contains(&&**to);
    if from == to {
        Some("changes nothing")
    } else if begins("/v1/", from) {
        Some("would take away the API's own paths under /v1/")
    } else if !is_served {
        Some("leads nowhere: the API's paths begin with /v1/")
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn paths(items: &[&str]) -> Result<Paths, String> {
        let items: Vec<Rewrite> = items.iter().map(|item| item.parse().expect(item)).collect();
        Paths::new(&items).map_err(|error| error.to_string())
    }

    #[test]
    fn what_begins_so_begins_otherwise_and_keeps_the_rest() {
        let paths = paths(&["/openai/v1/ => /v1/", "/api => /v1", "/t => /tokenize", "/b/ => /"]);
        let paths = paths.expect("valid");
        for (before, after) in [
            ("/openai/v1/chat/completions?a=/openai/v1/", "/v1/chat/completions?a=/openai/v1/"),
            ("/openai/v1/", "/v1/"),
            ("/api", "/v1"),
            ("/api?x=%2F", "/v1?x=%2F"),
            ("/api/models/a%2Fb", "/v1/models/a%2Fb"),
            ("/t", "/tokenize"),
            ("/b/v1/models", "/v1/models"),
            ("/b/b/v1/models", "/b/v1/models"),
            ("http://host:1/api/models", "http://host:1/v1/models"),
        ] {
            let uri: Uri = before.parse().expect("a URI");
            assert_eq!(paths.rewritten(&uri).expect(before), after, "{before}");
        }
        for before in ["/v1/models", "/apis/models", "/openai/v1", "/Api", "*", "/%61pi/models"] {
            assert_eq!(paths.rewritten(&before.parse().expect("a URI")), None, "{before}");
        }
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        for (items, why) in [
            (&["/ => /v1/"][..], "take away the API's own paths"),
            (&["/v1 => /v1/v2"], "take away the API's own paths"),
            (&["/v1/ => /v1/x/"], "take away the API's own paths"),
            (&["/a => /a"], "changes nothing"),
            (&["/a => /b"], "leads nowhere"),
            (&["/a/ => /v10/"], "leads nowhere"),
            (&["/a => /v1", "/a/b => /v1/b"], "`/a/b => /v1/b` is never reached: `/a => /v1`"),
            (&["/a/ => /v1/", "/a/ => /"], "is never reached"),
        ] {
            let error = paths(items).expect_err(why);
            assert!(error.starts_with("proxy.rewrites: ") && error.contains(why), "{error}");
        }
        assert!(paths(&["/a/b => /v1/b", "/a => /v1", "/ab => /v1"]).is_ok());
    }

    proptest! {
        #[test]
        fn a_rewritten_target_is_always_the_rest_behind_the_new_beginning(
            rest in "[a-z/.%0-9]{0,40}(\\?[a-z/?=]{0,20})?",
        ) {
            let paths = paths(&["/from/ => /v1/to/"]).expect("valid");
            let uri: Uri = format!("/from/{rest}").parse().expect("a URI");
            let rewritten = paths.rewritten(&uri).expect("it begins so");
            let target = rewritten.path_and_query().expect("a target").as_str();
            prop_assert_eq!(target, format!("/v1/to/{}", rest));
        }
    }
}
