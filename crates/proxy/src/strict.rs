//! Which request headers are refused although they can be parsed, pure.
//!
//! Pingora parses a header and resolves what in it is ambiguous, as the RFCs allow. Whoever stands in front of us may
//! have resolved it otherwise, and then the two of us see different requests in the same bytes: that is how requests
//! are smuggled. What backends get is framed anew and never ambiguous, so it is the side towards the client that is
//! guarded here: what two parsers could read two ways is refused, and its connection closed. docs/smuggling.md has
//! every case, and what nginx does with it.

use http::{Method, Version, header, uri::Authority};
use pingora_http::RequestHeader;

/// Most bytes of a header, request line included.
pub(crate) const HEADER_BYTES_MAX: usize = 64 * 1024;
/// Most header fields.
pub(crate) const FIELDS_MAX: usize = 128;
/// Most bytes of a request target; RFC 9112 §3 asks for at least 8,000.
pub(crate) const TARGET_BYTES_MAX: usize = 8 * 1024;

/// Why a header is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// It is not HTTP.
    Malformed,
    /// It could be read in two ways; this is where.
    Ambiguous(&'static str),
    /// Over [`HEADER_BYTES_MAX`] or [`FIELDS_MAX`].
    TooLarge,
    /// Over [`TARGET_BYTES_MAX`].
    TargetTooLong,
}

/// Looks at a header that could be parsed; `raw` is its text where it came by HTTP/1.
///
/// # Errors
/// What is wrong with it.
pub(crate) fn check(header: &RequestHeader, raw: Option<&[u8]>) -> Result<(), Fault> {
    if header.raw_path().len() > TARGET_BYTES_MAX {
        return Err(Fault::TargetTooLong);
    }
    if header.headers.len() > FIELDS_MAX || raw.is_some_and(|raw| raw.len() > HEADER_BYTES_MAX) {
        return Err(Fault::TooLarge);
    }
    // Of two, a backend could take another than whoever looked at the request before.
    if header.headers.get_all(header::CONTENT_TYPE).iter().nth(1).is_some() {
        return Err(Fault::Ambiguous("content-type is there twice"));
    }
    match raw {
        Some(raw) => {
            target(header)?;
            host(header)?;
            framing(raw)
        }
        None => Ok(()),
    }
}

/// RFC 9112 §3.2: a path, a whole address, or `*`. A control character has been escaped by Pingora, and no client of ours
/// has a use for one that it escapes itself.
fn target(header: &RequestHeader) -> Result<(), Fault> {
    let target = header.raw_path();
    if header.method == Method::CONNECT {
        return Err(Fault::Ambiguous("CONNECT makes a tunnel of a connection"));
    }
    let begins = |with: &[u8]| {
        target
            .split_at_checked(with.len())
            .is_some_and(|(start, _)| start.eq_ignore_ascii_case(with))
    };
    if !begins(b"/") && target != b"*" && !begins(b"http://") && !begins(b"https://") {
        return Err(Fault::Malformed);
    }
    let path = target.split(|&byte| byte == b'?').next().unwrap_or_default();
    let is_control =
        |escape: &[u8]| matches!(escape, [b'%', b'0' | b'1', _] | [b'%', b'7', b'f' | b'F']);
    if path.windows(3).any(is_control) {
        return Err(Fault::Ambiguous("the path has a control character"));
    }
    Ok(())
}

/// RFC 9112 §3.2: a request of HTTP/1.1 names its host. Pingora has seen to it that there is no second one.
fn host(header: &RequestHeader) -> Result<(), Fault> {
    match header.headers.get(header::HOST) {
        None if header.version == Version::HTTP_11 => Err(Fault::Ambiguous("host is missing")),
        Some(host) if Authority::try_from(host.as_bytes()).is_err() => {
            Err(Fault::Ambiguous("host is not the name of a host"))
        }
        _ => Ok(()),
    }
}

/// RFC 9112 §6, strict: lines end in CRLF, and one field at most says where the body ends. In the text, for of
/// `content-length` beside `transfer-encoding` Pingora keeps nothing.
fn framing(raw: &[u8]) -> Result<(), Fault> {
    let (mut lengths, mut codings) = (0, 0);
    for line in raw.split_inclusive(|&byte| byte == b'\n') {
        let Some(line) = line.strip_suffix(b"\r\n") else {
            return Err(Fault::Ambiguous("a line does not end in CRLF"));
        };
        if let Some(length) = value_of(line, b"content-length") {
            lengths += 1;
            if !length.iter().all(u8::is_ascii_digit) {
                return Err(Fault::Ambiguous("content-length is not one number"));
            }
        } else if let Some(coding) = value_of(line, b"transfer-encoding") {
            codings += 1;
            if !coding.eq_ignore_ascii_case(b"chunked") {
                return Err(Fault::Ambiguous("transfer-encoding is not chunked"));
            }
        }
    }
    match (lengths, codings) {
        (0 | 1, 0) | (0, 1) => Ok(()),
        (_, 0) => Err(Fault::Ambiguous("content-length is there twice")),
        (0, _) => Err(Fault::Ambiguous("transfer-encoding is there twice")),
        _ => Err(Fault::Ambiguous("content-length beside transfer-encoding")),
    }
}

/// The value of a header line whose field is called `name`, in any case.
fn value_of<'a>(line: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    let (before, rest) = line.split_at_checked(name.len())?;
    let value = rest.strip_prefix(b":")?;
    before.eq_ignore_ascii_case(name).then(|| value.trim_ascii())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn header(fields: &[(&'static str, &'static str)]) -> RequestHeader {
        let mut header = RequestHeader::build("POST", b"/v1/x", None).expect("a request");
        for (name, value) in fields {
            header.append_header(*name, *value).expect("a field");
        }
        header
    }

    #[test]
    fn one_field_at_most_says_where_the_body_ends() {
        let lines = |fields: &str| framing(format!("POST / HTTP/1.1\r\n{fields}\r\n").as_bytes());
        for sound in [
            "",
            "Content-Length: 0\r\n",
            "content-length:5 \r\n",
            "TRANSFER-encoding: Chunked\r\n",
            "x-content-length: a\r\ncontent-length-x: b\r\ncontent-length: 5\r\n",
        ] {
            assert_eq!(lines(sound), Ok(()), "{sound:?}");
        }
        for (odd, why) in [
            ("content-length: 5\r\nContent-Length: 5\r\n", "content-length is there twice"),
            ("content-length: 5, 5\r\n", "content-length is not one number"),
            ("content-length: +5\r\n", "content-length is not one number"),
            (
                "content-length: 5\r\ntransfer-encoding: chunked\r\n",
                "content-length beside transfer-encoding",
            ),
            ("transfer-encoding: gzip, chunked\r\n", "transfer-encoding is not chunked"),
            (
                "transfer-encoding: chunked\r\ntransfer-encoding: chunked\r\n",
                "transfer-encoding is there twice",
            ),
            ("x: y\n", "a line does not end in CRLF"),
        ] {
            assert_eq!(lines(odd), Err(Fault::Ambiguous(why)), "{odd:?}");
        }
    }

    #[test]
    fn a_request_names_one_host() {
        let raw = b"POST /v1/x HTTP/1.1\r\n\r\n";
        let judged = |fields: &[(&'static str, &'static str)]| check(&header(fields), Some(raw));
        for host in ["a", "a.example:80", "[::1]:8080", "10.0.0.1"] {
            let mut header = header(&[]);
            header.append_header("host", host).expect("a field");
            assert_eq!(check(&header, Some(raw)), Ok(()), "{host}");
        }
        assert_eq!(judged(&[]), Err(Fault::Ambiguous("host is missing")));
        for host in ["", "a b", "a/b", "[::1"] {
            let why = Err(Fault::Ambiguous("host is not the name of a host"));
            let mut header = header(&[]);
            header.append_header("host", host).expect("a field");
            assert_eq!(check(&header, Some(raw)), why, "{host}");
        }
        assert_eq!(check(&header(&[]), None), Ok(()), "HTTP/2 has an authority in its place");
    }

    #[test]
    fn a_target_is_a_path_or_an_address() {
        let judged = |method: &str, text: &str| {
            let header = RequestHeader::build(method, text.as_bytes(), None).expect("a request");
            target(&header)
        };
        for sound in ["/", "/v1/x?a=b%00", "http://p/v1/x", "*", "/v1/models/a%20b"] {
            assert_eq!(judged("POST", sound), Ok(()), "{sound}");
        }
        for malformed in ["v1/x", "p:80", "%20/v1"] {
            assert_eq!(judged("POST", malformed), Err(Fault::Malformed), "{malformed}");
        }
        for odd in ["/v1/x%00", "/v1/x%0d%0a", "/%1F", "/%7f"] {
            assert!(matches!(judged("POST", odd), Err(Fault::Ambiguous(_))), "{odd}");
        }
        assert!(matches!(judged("CONNECT", "p:443"), Err(Fault::Ambiguous(_))));
    }

    #[test]
    fn a_header_has_limits() {
        let mut long = header(&[("host", "h")]);
        long.set_uri(format!("/{}", "x".repeat(TARGET_BYTES_MAX)).parse().expect("a target"));
        assert_eq!(check(&long, None), Err(Fault::TargetTooLong));
        let mut many = header(&[]);
        for index in 0..=FIELDS_MAX {
            many.append_header(format!("x-{index}"), "y").expect("a field");
        }
        assert_eq!(check(&many, None), Err(Fault::TooLarge));
        let raw = vec![b'x'; HEADER_BYTES_MAX + 1];
        assert_eq!(check(&header(&[("host", "h")]), Some(&raw)), Err(Fault::TooLarge));
        let twice = header(&[("content-type", "a/b"), ("content-type", "c/d")]);
        assert_eq!(check(&twice, None), Err(Fault::Ambiguous("content-type is there twice")));
    }

    proptest! {
        #[test]
        fn no_text_is_too_odd(raw: Vec<u8>) {
            let _ = framing(&raw);
        }
    }
}
