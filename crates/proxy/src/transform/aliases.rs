//! Further names of models.

use super::{TransformError, check_count};
use inferno_shared::config::Alias;
use std::collections::BTreeMap;

const KEY: &str = "proxy.aliases";

/// What clients may ask for besides the models, and what they get. In the order of the names.
#[derive(Debug, Default)]
pub(crate) struct Aliases(BTreeMap<String, String>);

impl Aliases {
    pub(super) fn new(aliases: &[Alias]) -> Result<Self, TransformError> {
        let wrong = |why: String| Err(TransformError { key: KEY, why });
        check_count(KEY, aliases)?;
        let mut models = BTreeMap::new();
        for Alias { name, model } in aliases {
            if models.insert(name.clone(), model.clone()).is_some() {
                return wrong(format!("`{name}` is there twice"));
            }
        }
        // One step is all there is to follow: no alias leads in a circle.
        match models.iter().find(|(_, model)| models.contains_key(*model)) {
            Some((name, model)) if name == model => {
                wrong(format!("`{name}` stands for itself; leave it out"))
            }
            Some((name, model)) => {
                wrong(format!("`{name}` stands for `{model}`, which is an alias too; name a model"))
            }
            None => Ok(Self(models)),
        }
    }

    /// The model that `name` stands for, if it is an alias.
    pub(crate) fn model(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    /// Each alias with its model.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, model)| (name.as_str(), model.as_str()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn aliases(items: &[&str]) -> Result<Aliases, String> {
        let items: Vec<Alias> = items.iter().map(|item| item.parse().expect(item)).collect();
        Aliases::new(&items).map_err(|error| error.to_string())
    }

    #[test]
    fn an_alias_stands_for_a_model() {
        let aliases = aliases(&["b=m", "a=org/n"]).expect("valid");
        assert_eq!((aliases.model("a"), aliases.model("m")), (Some("org/n"), None));
        assert_eq!(aliases.iter().collect::<Vec<_>>(), [("a", "org/n"), ("b", "m")]);
    }

    #[test]
    fn what_would_have_to_be_followed_is_refused() {
        let many: Vec<String> = (0..257).map(|n| format!("{n}=m")).collect();
        let many: Vec<&str> = many.iter().map(String::as_str).collect();
        for (items, why) in [
            (&["a=m", "a=n"][..], "`a` is there twice"),
            (&["a=b", "b=m"], "`a` stands for `b`, which is an alias too"),
            (&["a=b", "b=a"], "which is an alias too"),
            (&["a=a"], "`a` stands for itself"),
            (&many, "more than 256"),
        ] {
            let error = aliases(items).expect_err(why);
            assert!(error.starts_with("proxy.aliases: ") && error.contains(why), "{error}");
        }
    }
}
