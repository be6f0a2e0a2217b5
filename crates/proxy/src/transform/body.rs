//! A body with a few bytes changed: the rest of it is neither read again nor written anew.

use super::defaults::Missing;
use crate::envelope::{Model, Written};
use bytes::{Bytes, BytesMut};

/// `body` with the model's name for an alias, and with the fields that it is missing, if any of it changes it.
pub(crate) fn changed(
    body: &[u8],
    named: Option<(&Model<'_>, &str)>,
    missing: Option<&Missing<'_>>,
) -> Option<Bytes> {
    let renamed = named.map(|(named, model)| with_model(body, named, model));
    match missing.filter(|missing| !missing.is_empty()) {
        Some(missing) => Some(with_fields(renamed.as_deref().unwrap_or(body), missing.fields())),
        None => renamed,
    }
}

/// `body` with `model` in the place of the name that `named` found there.
fn with_model(body: &[u8], named: &Model<'_>, model: &str) -> Bytes {
    let quoted = match named.written {
        // Text: the serialiser has nothing to fail on.
        Written::Json => serde_json::to_vec(model).unwrap_or_default(),
        // It ends at a line break, which a model's name has none of.
        Written::Form => model.into(),
    };
    let mut out = BytesMut::with_capacity(body.len() + quoted.len());
    out.extend_from_slice(&body[..named.range.start]);
    out.extend_from_slice(&quoted);
    out.extend_from_slice(&body[named.range.end..]);
    out.freeze()
}

/// `body`, a JSON object, with `fields` (`"name":value` each) before its own.
fn with_fields<'a>(body: &[u8], fields: impl Iterator<Item = &'a [u8]>) -> Bytes {
    let mut fields = fields.peekable();
    let opening = body.iter().position(|&byte| byte == b'{');
    let (Some(opening), Some(_)) = (opening, fields.peek()) else {
        return Bytes::copy_from_slice(body);
    };
    let (before, rest) = body.split_at(opening + 1);
    let mut out = BytesMut::with_capacity(body.len() + 256);
    out.extend_from_slice(before);
    let is_empty = rest.trim_ascii_start().starts_with(b"}");
    while let Some(field) = fields.next() {
        out.extend_from_slice(field);
        if !is_empty || fields.peek().is_some() {
            out.extend_from_slice(b",");
        }
    }
    out.extend_from_slice(rest);
    out.freeze()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::envelope::Envelope;
    use proptest::prelude::*;
    use serde_json::{Map, Value};

    fn named(body: &[u8]) -> Model<'_> {
        Envelope::parse(body, |_| {}).expect("valid").model.expect("named")
    }

    fn renamed(body: &str, model: &str) -> String {
        let body = body.as_bytes();
        String::from_utf8(with_model(body, &named(body), model).to_vec()).expect("UTF-8")
    }

    #[test]
    fn the_name_alone_changes() {
        let body =
            "{ \"messages\":[{\"model\":\"a\"}],\r\n \"m\\u006fdel\" : \"\\u0061\" , \"x\":1.0}";
        assert_eq!(renamed(body, "b\"é"), body.replace("\"\\u0061\" ,", "\"b\\\"é\" ,"));
        assert_eq!(renamed(r#"{"model":"a"}"#, "long name"), r#"{"model":"long name"}"#);
    }

    #[test]
    fn both_changes_go_together_and_none_copies_nothing() {
        let mut defaults = crate::transform::Defaults::default();
        defaults.add_pair("top_p=0.5").expect("one");
        let body = br#"{"model":"a"}"#;
        let (named, mut missing) = (named(body), defaults.missing());
        let both = changed(body, Some((&named, "bc")), Some(&missing)).expect("changed");
        assert_eq!(both, r#"{"top_p":0.5,"model":"bc"}"#);
        missing.saw("top_p");
        let renamed = changed(body, Some((&named, "bc")), Some(&missing)).expect("changed");
        assert_eq!(renamed, r#"{"model":"bc"}"#);
        assert_eq!(changed(body, None, Some(&missing)), None);
    }

    #[test]
    fn fields_come_before_the_others() {
        let with = |body: &str, fields: &[&str]| {
            let fields = fields.iter().map(|field| field.as_bytes());
            String::from_utf8(with_fields(body.as_bytes(), fields).to_vec()).expect("UTF-8")
        };
        assert_eq!(with(" {\"a\":1}", &["\"b\":2", "\"c\":3"]), " {\"b\":2,\"c\":3,\"a\":1}");
        assert_eq!(with("{ }", &["\"b\":2", "\"c\":3"]), "{\"b\":2,\"c\":3 }");
        assert_eq!(with("{\"a\":1}", &[]), "{\"a\":1}");
    }

    fn value() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            ".{0,12}".prop_map(Value::from),
        ];
        leaf.prop_recursive(3, 24, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                prop::collection::vec((".{0,8}", inner), 0..4)
                    .prop_map(|fields| Value::Object(fields.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn all_else_stays(
            fields in prop::collection::vec((".{0,8}", value()), 0..6),
            at in 0usize..7,
            (old, new) in (".{1,20}", ".{1,20}"),
            pretty: bool,
        ) {
            let mut object: Map<String, Value> = fields.into_iter().collect();
            for known in ["model", "stream", "prompt_cache_key", "user"] {
                object.remove(known);
            }
            object.shift_insert(at.min(object.len()), "model".into(), old.clone().into());
            let text = if pretty { serde_json::to_vec_pretty(&object) } else { serde_json::to_vec(&object) };
            let text = text.expect("JSON");
            let model = named(&text);
            prop_assert_eq!(&*model.name, &old);
            let changed = with_model(&text, &model, &new);
            let mut expected = object.clone();
            expected.insert("model".into(), new.into());
            let changed: Map<String, Value> = serde_json::from_slice(&changed).expect("JSON");
            prop_assert_eq!(&changed, &expected);
            let more = with_fields(&text, [b"\"\x20new\":[1]".as_slice()].into_iter());
            object.insert(" new".into(), serde_json::json!([1]));
            let more: Map<String, Value> = serde_json::from_slice(&more).expect("JSON");
            prop_assert_eq!(&more, &object);
        }
    }
}
