//! Values that may be written out: a template can put a namespace into itself, or a list into itself twice
//! again and again, and writing such a value would take all of the stack or all time.

use minijinja::value::ValueKind;
use minijinja::{Error, ErrorKind, Output, State, Value, escape_formatter};

/// Lists and maps inside one another.
const DEPTH_MAX: usize = 64;
/// Values inside a value, at any depth.
const VALUES_MAX: usize = 100_000;

/// Refuses a value that is nested too deep or holds too many others.
fn check(value: &Value) -> Result<(), Error> {
    let mut left = VALUES_MAX;
    visit(value, DEPTH_MAX, &mut left)
}

fn visit(value: &Value, depth: usize, left: &mut usize) -> Result<(), Error> {
    let map = match value.kind() {
        ValueKind::Seq | ValueKind::Iterable => false,
        ValueKind::Map => true,
        _ => return Ok(()),
    };
    if depth == 0 {
        return Err(refused(format!("a value nested deeper than {DEPTH_MAX} levels")));
    }
    for item in value.try_iter()? {
        *left = left
            .checked_sub(1)
            .ok_or_else(|| refused(format!("a value of more than {VALUES_MAX} parts")))?;
        let inner = if map { value.get_item(&item)? } else { item };
        visit(&inner, depth - 1, left)?;
    }
    Ok(())
}

fn refused(what: String) -> Error {
    Error::new(ErrorKind::InvalidOperation, what)
}

/// What `{{ value }}` writes.
pub(super) fn write(
    out: &mut Output<'_>,
    state: &mut State<'_, '_>,
    value: &Value,
) -> Result<(), Error> {
    check(value)?;
    escape_formatter(out, state, value)
}

/// The filter `string`.
pub(super) fn string(value: Value) -> Result<Value, Error> {
    check(&value)?;
    Ok(if value.as_str().is_some() { value } else { Value::from(value.to_string()) })
}
