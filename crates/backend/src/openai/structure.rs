//! Structured output: what a request can say about the form of its answer.
//!
//! OpenAI's `response_format`, and the fields that vLLM's users know: `guided_json` and its siblings, and
//! `structured_outputs`, which came after them. At most one of all may ask for something.

use super::{errors::ApiError, fields::Fields};
use inferno_engine::{Engine, Grammar, GrammarSource};
use serde_json::{Map, Value};

/// Longest name of a schema, as OpenAI has it.
const NAME_MAX: usize = 64;

/// The form that was asked for, and where.
#[derive(Clone, Debug, PartialEq)]
pub struct Structure {
    param: String,
    source: GrammarSource,
}

impl Structure {
    /// Takes it from `fields`.
    pub fn take(fields: &mut Fields) -> Result<Option<Self>, ApiError> {
        let mut found = Vec::new();
        found.extend(response_format(fields)?);
        let mut note = |param: &str, source: Option<GrammarSource>| {
            found.extend(source.map(|source| Self { param: param.into(), source }));
        };
        note("guided_json", fields.take::<Value>("guided_json")?.map(schema).transpose()?);
        note("guided_regex", fields.take("guided_regex")?.map(GrammarSource::Regex));
        note("guided_choice", fields.take("guided_choice")?.map(GrammarSource::Choice));
        note("guided_grammar", fields.take("guided_grammar")?.map(GrammarSource::Lark));
        found.extend(structured_outputs(fields)?);
        match found.len() {
            0 | 1 => Ok(found.pop()),
            _ => Err(ApiError::invalid(
                "invalid_value",
                found[1].param.clone(),
                format!("`{}` and `{}` contradict each other", found[0].param, found[1].param),
            )),
        }
    }

    /// Compiles it for the model of `engine`.
    pub fn compile(&self, engine: &Engine) -> Result<Grammar, ApiError> {
        engine.compile(&self.source).map_err(|error| {
            let message = format!("`{}` cannot be followed: {error}", self.param);
            ApiError::invalid("invalid_grammar", self.param.clone(), message)
        })
    }
}

fn invalid(param: &str, message: &str) -> ApiError {
    ApiError::invalid("invalid_value", param, message)
}

/// A schema as it is, or as JSON in a string.
fn schema(value: Value) -> Result<GrammarSource, ApiError> {
    let value = match value {
        Value::String(text) => serde_json::from_str(&text)
            .map_err(|_| invalid("guided_json", "`guided_json` is a string that is not JSON"))?,
        value => value,
    };
    Ok(GrammarSource::JsonSchema(value))
}

fn response_format(fields: &mut Fields) -> Result<Option<Structure>, ApiError> {
    const FIELD: &str = "response_format";
    let Some(mut format) = fields.take::<Map<String, Value>>(FIELD)? else { return Ok(None) };
    let kind = format.remove("type").unwrap_or_default();
    let found = match kind.as_str() {
        Some("text") => None,
        Some("json_object") => {
            Some(Structure { param: FIELD.into(), source: GrammarSource::JsonObject })
        }
        Some("json_schema") => Some(json_schema(format.remove("json_schema"))?),
        _ => {
            let expected = "`response_format.type` must be text, json_object or json_schema";
            return Err(invalid("response_format.type", expected));
        }
    };
    nothing_left(&format, FIELD)?;
    Ok(found)
}

/// `{"name","schema","description","strict"}`. The schema is followed strictly whatever `strict` says.
fn json_schema(wrapper: Option<Value>) -> Result<Structure, ApiError> {
    const FIELD: &str = "response_format.json_schema";
    let Some(Value::Object(mut wrapper)) = wrapper else {
        return Err(invalid(FIELD, "`response_format.json_schema` must be an object"));
    };
    let name = wrapper.remove("name").unwrap_or_default();
    let fine = |name: &str| {
        (1..=NAME_MAX).contains(&name.len())
            && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-".contains(&byte))
    };
    if !name.as_str().is_some_and(fine) {
        let expected = "the schema's `name` must be 1 to 64 letters, digits, `_` or `-`";
        return Err(invalid("response_format.json_schema.name", expected));
    }
    if !matches!(wrapper.remove("description"), None | Some(Value::Null | Value::String(_))) {
        let expected = "the schema's `description` must be a string";
        return Err(invalid("response_format.json_schema.description", expected));
    }
    if !matches!(wrapper.remove("strict"), None | Some(Value::Null | Value::Bool(_))) {
        let expected = "`strict` must be a boolean";
        return Err(invalid("response_format.json_schema.strict", expected));
    }
    let param = "response_format.json_schema.schema";
    let schema = wrapper.remove("schema").filter(|schema| !schema.is_null());
    let Some(schema) = schema else { return Err(invalid(param, "`schema` is missing")) };
    nothing_left(&wrapper, FIELD)?;
    Ok(Structure { param: param.into(), source: GrammarSource::JsonSchema(schema) })
}

/// vLLM's: an object with exactly one of `json`, `regex`, `choice`, `grammar`, `json_object`.
fn structured_outputs(fields: &mut Fields) -> Result<Option<Structure>, ApiError> {
    const FIELD: &str = "structured_outputs";
    let Some(mut asked) = fields.take::<Map<String, Value>>(FIELD)? else { return Ok(None) };
    asked.retain(|_, value| !value.is_null());
    let mut entries = asked.into_iter();
    let (Some((name, value)), None) = (entries.next(), entries.next()) else {
        let expected =
            "`structured_outputs` must hold one of json, regex, choice, grammar, json_object";
        return Err(invalid(FIELD, expected));
    };
    let strings = |value: &Value| -> Option<Vec<String>> {
        value.as_array()?.iter().map(|choice| Some(choice.as_str()?.to_owned())).collect()
    };
    let source = match name.as_str() {
        "json" => Some(schema(value)?),
        "regex" => value.as_str().map(|regex| GrammarSource::Regex(regex.into())),
        "grammar" => value.as_str().map(|lark| GrammarSource::Lark(lark.into())),
        "choice" => strings(&value).map(GrammarSource::Choice),
        "json_object" if value == true => Some(GrammarSource::JsonObject),
        "json_object" if value == false => return Ok(None),
        _ => None,
    };
    let source = source.ok_or_else(|| {
        invalid(FIELD, "`structured_outputs` holds an unknown name, or a value of another type")
    })?;
    Ok(Some(Structure { param: FIELD.into(), source }))
}

fn nothing_left(fields: &Map<String, Value>, within: &str) -> Result<(), ApiError> {
    match fields.iter().find(|(_, value)| !value.is_null()) {
        None => Ok(()),
        Some((name, _)) => {
            let name: String = name.chars().take(NAME_MAX).collect();
            let message = format!("unknown parameter: `{within}.{name}`");
            Err(ApiError::invalid("unknown_parameter", format!("{within}.{name}"), message))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn take(body: &Value) -> Result<Option<Structure>, ApiError> {
        Structure::take(&mut Fields::parse(body.to_string().as_bytes()).expect("an object"))
    }

    fn found(body: &Value) -> GrammarSource {
        take(body).expect("fine").expect("something").source
    }

    #[test]
    fn each_way_of_asking_is_understood() {
        let schema = json!({"type": "object"});
        let same = GrammarSource::JsonSchema(schema.clone());
        let format = json!({"type": "json_schema", "json_schema": {"name": "a", "schema": schema, "strict": true}});
        for body in [
            json!({ "response_format": format }),
            json!({ "guided_json": schema }),
            json!({ "guided_json": schema.to_string() }),
            json!({ "structured_outputs": {"json": schema, "regex": null} }),
        ] {
            assert_eq!(found(&body), same, "{body}");
        }
        let object = json!({"response_format": {"type": "json_object"}});
        assert_eq!(found(&object), GrammarSource::JsonObject);
        let choice = GrammarSource::Choice(vec!["a".into(), "b".into()]);
        assert_eq!(found(&json!({"guided_choice": ["a", "b"]})), choice);
        assert_eq!(found(&json!({"structured_outputs": {"choice": ["a", "b"]}})), choice);
        assert_eq!(found(&json!({"guided_regex": "a"})), GrammarSource::Regex("a".into()));
        assert_eq!(found(&json!({"guided_grammar": "a"})), GrammarSource::Lark("a".into()));
        for nothing in [json!({}), json!({"response_format": {"type": "text"}})] {
            assert_eq!(take(&nothing).expect("fine"), None);
        }
    }

    #[test]
    fn each_mistake_names_its_field() {
        let schema = |wrapper: Value| json!({"response_format": {"type": "json_schema", "json_schema": wrapper}});
        for (body, param) in [
            (json!({"response_format": {"type": "xml"}}), "response_format.type"),
            (json!({"response_format": {}}), "response_format.type"),
            (json!({"response_format": {"type": "text", "x": 1}}), "response_format.x"),
            (json!({"response_format": {"type": "json_schema"}}), "response_format.json_schema"),
            (schema(json!({"schema": {}})), "response_format.json_schema.name"),
            (schema(json!({"name": "a b", "schema": {}})), "response_format.json_schema.name"),
            (schema(json!({"name": "a"})), "response_format.json_schema.schema"),
            (
                schema(json!({"name": "a", "schema": {}, "strict": 1})),
                "response_format.json_schema.strict",
            ),
            (schema(json!({"name": "a", "schema": {}, "z": 1})), "response_format.json_schema.z"),
            (json!({"guided_json": "{"}), "guided_json"),
            (json!({"guided_choice": "a"}), "guided_choice"),
            (json!({"structured_outputs": {}}), "structured_outputs"),
            (json!({"structured_outputs": {"regex": "a", "json": {}}}), "structured_outputs"),
            (json!({"structured_outputs": {"xml": "a"}}), "structured_outputs"),
            (json!({"guided_regex": "a", "guided_grammar": "b"}), "guided_grammar"),
        ] {
            let error = take(&body).expect_err("refused");
            assert_eq!(error.param.as_deref(), Some(param), "{body}: {error}");
        }
    }
}
