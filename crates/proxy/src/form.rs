//! The `model` of a form (RFC 7578, RFC 2046 §5.1), found without copying the rest, pure.
//!
//! Strict where two readers could read two things: what the proxy takes for the model is what decides who may have
//! the request, and a backend must not find another one there.

use crate::{
    envelope::{Model, Written},
    error::RequestError,
};
use memchr::memmem;
use std::{borrow::Cow, ops::Range};

/// Most parts of a form.
const PARTS_MAX: usize = 128;
/// Longest header of a part, in bytes, and most fields in it.
const HEAD_BYTES_MAX: usize = 8 * 1024;
const HEAD_FIELDS_MAX: usize = 16;
/// Longest boundary (RFC 2046 §5.1.1), in bytes.
const BOUNDARY_BYTES_MAX: usize = 70;
/// Longest name of a model, in bytes.
const MODEL_BYTES_MAX: usize = 256;

const LINE_BREAK: &[u8] = b"\r\n";

/// Why a form is none: fixed words, for the log has them too.
#[derive(Debug, PartialEq, Eq)]
struct Malformed(&'static str);

impl From<Malformed> for RequestError {
    fn from(Malformed(detail): Malformed) -> Self {
        Self::MalformedForm { detail }
    }
}

/// The model that the form in `body` names, if it names one; `content_type` is `multipart/form-data` with its
/// parameters.
pub(crate) fn model<'a>(
    content_type: &[u8],
    body: &'a [u8],
) -> Result<Option<Model<'a>>, RequestError> {
    let (_, parameters) = cut_kind(content_type);
    let boundary = parameter(parameters, b"boundary")?;
    let boundary = boundary.filter(|boundary| is_boundary(boundary));
    let boundary = boundary.ok_or(Malformed("its content type has no boundary"))?;
    let mut found = None;
    let mut parts = Parts::new(body, &boundary)?;
    while let Some(part) = parts.next()? {
        if !is_named(part.head, b"model")? {
            continue;
        }
        if found.replace(part.content).is_some() {
            return Err(Malformed("the field 'model' is there twice").into());
        }
    }
    found.map(|range| name(body, range)).transpose()
}

fn name(body: &[u8], range: Range<usize>) -> Result<Model<'_>, RequestError> {
    let value = &body[range.clone()];
    let text = std::str::from_utf8(value).ok().filter(|text| {
        (1..=MODEL_BYTES_MAX).contains(&text.len()) && !text.contains(char::is_control)
    });
    let wrong = RequestError::WrongType { param: "model", expected: "a non-empty string" };
    let name = Cow::Borrowed(text.ok_or(wrong)?);
    Ok(Model { name, range, written: Written::Form })
}

/// A form, part by part.
struct Parts<'a> {
    body: &'a [u8],
    /// Finds `--boundary`, wherever it stands: some readers take it without a whole line break before it.
    delimiter: memmem::Finder<'static>,
    /// Behind the last delimiter.
    at: usize,
    count: usize,
}

struct Part<'a> {
    /// Header fields up to the blank line, with it.
    head: &'a [u8],
    /// Where its content stands.
    content: Range<usize>,
}

impl<'a> Parts<'a> {
    /// Reads past whatever comes before the first part.
    fn new(body: &'a [u8], boundary: &[u8]) -> Result<Self, Malformed> {
        let delimiter = memmem::Finder::new(&[b"--", boundary].concat()).into_owned();
        let mut parts = Self { body, delimiter, at: 0, count: 0 };
        if body.starts_with(parts.delimiter.needle()) {
            parts.at = parts.delimiter.needle().len();
        } else {
            parts.advance(0)?;
        }
        Ok(parts)
    }

    /// Goes behind the next delimiter from `start` on; where what was before it ends.
    fn advance(&mut self, start: usize) -> Result<usize, Malformed> {
        let found = self.delimiter.find(&self.body[start..]);
        let found = start + found.ok_or(Malformed("it ends before its last part does"))?;
        self.at = found + self.delimiter.needle().len();
        match self.body[start..found].ends_with(LINE_BREAK) {
            true => Ok(found - LINE_BREAK.len()),
            false => Err(Malformed("its boundary stands within a line")),
        }
    }

    /// The next part; `None` after the last, which the form must say it is.
    fn next(&mut self) -> Result<Option<Part<'a>>, Malformed> {
        let rest = &self.body[self.at..];
        if rest.starts_with(b"--") {
            return Ok(None);
        }
        self.count += 1;
        if self.count > PARTS_MAX {
            return Err(Malformed("it has more than 128 parts"));
        }
        let padding = rest.iter().take_while(|&&byte| matches!(byte, b' ' | b'\t')).count();
        let rest = rest[padding..].strip_prefix(LINE_BREAK);
        let rest = rest.ok_or(Malformed("a boundary is not alone in its line"))?;
        let reach = &rest[..rest.len().min(HEAD_BYTES_MAX)];
        let head = memmem::find(reach, b"\r\n\r\n").map(|at| &rest[..at + 2 * LINE_BREAK.len()]);
        let head = head.ok_or(Malformed("a part has no header, or one over 8 KiB"))?;
        let start = self.body.len() - rest.len() + head.len();
        // A part without any content may end with its header: the blank line is then the delimiter's own.
        let end = self.advance(start - LINE_BREAK.len())?;
        Ok(Some(Part { head, content: start.min(end)..end }))
    }
}

/// Whether the part with this header is the field `name`.
fn is_named(head: &[u8], name: &[u8]) -> Result<bool, Malformed> {
    let has_bare_feeds = memmem::find_iter(head, b"\n").any(|at| !head[..at].ends_with(b"\r"));
    let mut fields = [httparse::EMPTY_HEADER; HEAD_FIELDS_MAX];
    let fields = match httparse::parse_headers(head, &mut fields) {
        Ok(httparse::Status::Complete((length, fields)))
            if length == head.len() && !has_bare_feeds =>
        {
            fields
        }
        _ => return Err(Malformed("a part's header is not valid")),
    };
    let mut dispositions =
        fields.iter().filter(|field| field.name.eq_ignore_ascii_case("content-disposition"));
    let (Some(disposition), None) = (dispositions.next(), dispositions.next()) else {
        return Err(Malformed("a part has no content-disposition, or two"));
    };
    let (_, parameters) = cut_kind(disposition.value);
    Ok(parameter(parameters, b"name")?.is_some_and(|named| named == name))
}

/// `kind; parameters` as its two sides; the second with its semicolon.
fn cut_kind(value: &[u8]) -> (&[u8], &[u8]) {
    value.split_at(value.iter().position(|&byte| byte == b';').unwrap_or(value.len()))
}

/// The value of the parameter `wanted` among `; name=value; name="value"` (RFC 9110 §5.6.6), without quotes and
/// escapes.
fn parameter(mut rest: &[u8], wanted: &[u8]) -> Result<Option<Vec<u8>>, Malformed> {
    let mut found = None;
    loop {
        rest = rest.trim_ascii_start();
        let Some(after) = rest.strip_prefix(b";") else { break };
        rest = after.trim_ascii_start();
        let Some(end) = rest.iter().position(|byte| b"=;".contains(byte)) else { break };
        let (name, after) = (rest[..end].trim_ascii(), &rest[end..]);
        let Some(after) = after.strip_prefix(b"=") else {
            rest = after;
            continue;
        };
        let (value, after) = value(after.trim_ascii_start())?;
        rest = after;
        if name.eq_ignore_ascii_case(wanted) && found.replace(value).is_some() {
            return Err(Malformed("a parameter is there twice"));
        }
    }
    match rest.trim_ascii().is_empty() {
        true => Ok(found),
        false => Err(Malformed("a parameter is not NAME=VALUE")),
    }
}

/// A parameter's value at the beginning of `text`, and what comes behind it.
fn value(text: &[u8]) -> Result<(Vec<u8>, &[u8]), Malformed> {
    let Some(mut rest) = text.strip_prefix(b"\"") else {
        let end = text.iter().position(|&byte| byte == b';').unwrap_or(text.len());
        return Ok((text[..end].trim_ascii_end().to_vec(), &text[end..]));
    };
    let mut value = Vec::new();
    loop {
        rest = match rest {
            [b'"', after @ ..] => return Ok((value, after)),
            [b'\\', byte, after @ ..] | [byte, after @ ..] => {
                value.push(*byte);
                after
            }
            [] => return Err(Malformed("a quote is not closed")),
        };
    }
}

/// RFC 2046 §5.1.1.
fn is_boundary(text: &[u8]) -> bool {
    let is_allowed = |byte: &u8| byte.is_ascii_alphanumeric() || b"'()+_,-./:=? ".contains(byte);
    (1..=BOUNDARY_BYTES_MAX).contains(&text.len())
        && text.iter().all(is_allowed)
        && !text.ends_with(b" ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const KIND: &str = "multipart/form-data; boundary=b0";

    /// A form of these parts, each a header and a content.
    fn form(parts: &[(&str, &str)]) -> String {
        let part = |(head, content): &(&str, &str)| format!("--b0\r\n{head}\r\n\r\n{content}\r\n");
        parts.iter().map(part).collect::<String>() + "--b0--\r\n"
    }

    fn field(name: &str) -> String {
        format!("Content-Disposition: form-data; name=\"{name}\"")
    }

    fn found(kind: &str, body: &str) -> Result<Option<String>, &'static str> {
        let model = model(kind.as_bytes(), body.as_bytes()).map_err(|error| error.code())?;
        Ok(model.map(|model| {
            assert_eq!(&body[model.range], model.name, "it stands there");
            model.name.into_owned()
        }))
    }

    #[test]
    fn the_model_is_found_wherever_it_stands() {
        let (model, file) = (
            field("model"),
            "Content-Disposition: form-data; name=\"file\"; filename=\"model\"\r\nContent-Type: audio/wav",
        );
        for parts in [
            vec![(model.as_str(), "whisper-1"), (file, "RIFF\r\n--b\r\n\r\n")],
            vec![
                (file, "\r\n\r\n--\r\n-b0"),
                ("content-disposition:form-data;name=model", "whisper-1"),
            ],
            vec![
                (file, ""),
                (
                    "X: y\r\nContent-Disposition: form-data; filename=x; NAME = \"mod\\el\"",
                    "whisper-1",
                ),
            ],
        ] {
            assert_eq!(found(KIND, &form(&parts)), Ok(Some("whisper-1".into())), "{parts:?}");
        }
        let body = form(&[(&model, "org/é")]);
        for (kind, body) in [
            ("Multipart/Form-Data;charset=utf-8; BOUNDARY=\"b0\"", body.clone()),
            (KIND, format!("preamble\r\n{body}epilogue")),
            (KIND, format!("\r\n{body}")),
            (KIND, body.replace("--b0\r\n", "--b0 \t\r\n")),
            ("multipart/form-data; boundary=\"a b\"", body.replace("b0", "a b")),
        ] {
            assert_eq!(found(kind, &body), Ok(Some("org/é".into())), "{kind} {body}");
        }
        assert_eq!(found(KIND, &form(&[(file, "model")])), Ok(None));
        assert_eq!(found(KIND, "--b0--"), Ok(None), "a form of nothing");
        let bare = format!("--b0\r\n{file}\r\n\r\n--b0\r\n{model}\r\n\r\nm\r\n--b0--");
        assert_eq!(found(KIND, &bare), Ok(Some("m".into())), "a part that ends with its header");
    }

    #[test]
    fn what_could_be_read_two_ways_is_refused() {
        let (model, other) = (field("model"), field("x"));
        let good = form(&[(&model, "m"), (&other, "y")]);
        assert_eq!(found(KIND, &good), Ok(Some("m".into())));
        let long = format!("X: {}\r\n{model}", "y".repeat(HEAD_BYTES_MAX));
        let cases = [
            ("twice", form(&[(&model, "m"), (&model, "n")])),
            ("cut", good[..good.len() - 6].into()),
            ("cut in the boundary", good[..good.len() - 4].into()),
            ("bare line feeds", good.replace("\r\n", "\n")),
            ("bare line feeds in a header", form(&[(&format!("X: y\n{model}"), "m")])),
            ("no disposition", form(&[("X: y", "m")])),
            ("two dispositions", form(&[(&format!("{other}\r\n{model}"), "m")])),
            ("two names", form(&[(&format!("{other}; name=model"), "m")])),
            ("an open quote", form(&[("Content-Disposition: form-data; name=\"model", "m")])),
            ("a longer boundary", good.replacen("--b0\r\n", "--b0x\r\n", 1)),
            ("a boundary in a line", form(&[(&other, "y--b0\r\n")])),
            ("a boundary behind a bare line feed", good.replacen("m\r\n--b0", "m\n--b0", 1)),
            ("no boundary", "model=m".into()),
            ("nothing", String::new()),
            ("a long header", form(&[(&long, "m")])),
            ("many parts", form(&vec![(other.as_str(), ""); PARTS_MAX + 1])),
        ];
        let taken = cases.iter().filter(|(_, body)| found(KIND, body) != Err("malformed_form"));
        assert_eq!(taken.map(|(what, _)| *what).collect::<Vec<_>>(), [""; 0]);
        for kind in [
            "multipart/form-data",
            "multipart/form-data; boundary=",
            "multipart/form-data; boundary=\"b0",
            "multipart/form-data; boundary=b0; boundary=b1",
            "multipart/form-data; boundary=b0 x\"",
            "multipart/form-data; boundary=\"b0 \"",
            &format!("multipart/form-data; boundary={}", "b".repeat(71)),
        ] {
            assert_eq!(found(kind, &good), Err("malformed_form"), "{kind}");
        }
    }

    #[test]
    fn a_model_is_text_of_a_sane_length() {
        for content in ["", "a\nb", "\u{0}", &"m".repeat(257)] {
            assert_eq!(found(KIND, &form(&[(&field("model"), content)])), Err("invalid_type"));
        }
        let bytes = [
            b"--b0\r\nContent-Disposition: form-data; name=model\r\n\r\n\xff".as_slice(),
            b"\r\n--b0--",
        ];
        let error = model(KIND.as_bytes(), &bytes.concat()).expect_err("not UTF-8");
        assert_eq!(error.code(), "invalid_type");
    }

    proptest! {
        #[test]
        fn no_form_is_too_odd(
            kind in prop::collection::vec(any::<u8>(), 0..60),
            pieces in prop::collection::vec(prop::sample::select(vec![
                "--b0", "\r\n", "--", "\n", ":", ";", "=", "\"", "\\", "name", "model", "é",
                "Content-Disposition: form-data; name=\"model\"", "\r\n\r\n", "x",
            ]), 0..24),
        ) {
            let body = pieces.concat();
            let _ = model(&kind, body.as_bytes());
            let _ = found(KIND, &body);
        }

        #[test]
        fn what_was_put_in_is_found(
            files in prop::collection::vec("[\\x00-\\x7f]{0,60}", 0..4),
            at in 0usize..5,
            name in "[!-~][ -~]{0,40}",
        ) {
            prop_assume!(files.iter().all(|file| !file.contains("--b0")));
            let (file, field) = (field("file"), field("model"));
            let mut parts: Vec<(&str, &str)> = files.iter().map(|text| (file.as_str(), text.as_str())).collect();
            parts.insert(at.min(parts.len()), (&field, &name));
            prop_assert_eq!(found(KIND, &form(&parts)), Ok(Some(name)));
        }
    }
}
