//! The filter `tojson`, as Hugging Face's templates expect it: Python's separators, not escaped for HTML,
//! `indent` honoured. A writer of our own, because a template may build a value of any depth and, by naming
//! one list twice, of any size.

use super::Limited;
use minijinja::value::{Kwargs, ValueKind};
use minijinja::{Error, ErrorKind, Value};
use std::io::{self, Write};

/// Lists and maps inside one another.
const DEPTH_MAX: usize = 64;
/// Spaces a level; more are taken for as many.
const INDENT_MAX: usize = 16;

/// A value as JSON.
///
/// # Errors
/// When it is nested deeper than [`DEPTH_MAX`] or takes more bytes than a prompt may, or for options that
/// do not exist.
#[expect(clippy::needless_pass_by_value, reason = "minijinja gives filters owned options")]
pub(super) fn to_json(value: &Value, options: Kwargs) -> Result<String, Error> {
    let indent: Option<usize> = options.get("indent")?;
    // Accepted for compatibility; our writer never escapes non-ASCII text.
    let _: Option<bool> = options.get("ensure_ascii")?;
    options.assert_all_used()?;
    let indent = indent.map(|indent| indent.min(INDENT_MAX));
    let mut json = Json { out: Limited(Vec::new()), indent, depth: 0 };
    json.value(value)
        .map_err(|error| Error::new(ErrorKind::BadSerialization, format!("tojson: {error}")))?;
    Ok(String::from_utf8_lossy(&json.out.0).into_owned())
}

struct Json {
    out: Limited,
    indent: Option<usize>,
    depth: usize,
}

impl Json {
    fn value(&mut self, value: &Value) -> io::Result<()> {
        match value.kind() {
            ValueKind::Seq | ValueKind::Iterable => {
                let items = value.try_iter().map_err(io::Error::other)?;
                self.nested(b"[]", items, |json, item| json.value(&item))
            }
            ValueKind::Map => {
                let keys = value.try_iter().map_err(io::Error::other)?;
                self.nested(b"{}", keys, |json, key| {
                    json.key(&key)?;
                    json.value(&value.get_item(&key).map_err(io::Error::other)?)
                })
            }
            _ => Ok(serde_json::to_writer(&mut self.out, value)?),
        }
    }

    fn key(&mut self, key: &Value) -> io::Result<()> {
        match key.as_str() {
            Some(text) => serde_json::to_writer(&mut self.out, text)?,
            None => serde_json::to_writer(&mut self.out, &key.to_string())?,
        }
        self.out.write_all(b": ")
    }

    /// What `each` writes for every item, between `brackets`.
    fn nested(
        &mut self,
        brackets: &[u8; 2],
        items: impl Iterator<Item = Value>,
        mut each: impl FnMut(&mut Self, Value) -> io::Result<()>,
    ) -> io::Result<()> {
        if self.depth == DEPTH_MAX {
            return Err(io::Error::other(format!("nested deeper than {DEPTH_MAX} levels")));
        }
        self.out.write_all(&brackets[..1])?;
        self.depth += 1;
        let mut any = false;
        for item in items {
            if any {
                self.out.write_all(if self.indent.is_some() { b"," } else { b", " })?;
            }
            self.line()?;
            each(self, item)?;
            any = true;
        }
        self.depth -= 1;
        if any {
            self.line()?;
        }
        self.out.write_all(&brackets[1..])
    }

    /// A new line, where lines are asked for.
    fn line(&mut self) -> io::Result<()> {
        let Some(indent) = self.indent else { return Ok(()) };
        self.out.write_all(b"\n")?;
        self.out.write_all(&b" ".repeat(indent * self.depth))
    }
}
