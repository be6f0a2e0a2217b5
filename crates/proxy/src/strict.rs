//! Which request headers are refused although they can be parsed, pure.
//!
//! Pingora parses a header and resolves what in it is ambiguous, as the RFCs allow. Whoever stands in front of us may
//! have resolved it otherwise, and then the two of us see different requests in the same bytes: that is how requests
//! are smuggled. What backends get is framed anew and never ambiguous, so it is the side towards the client that is
//! guarded here: what two parsers could read two ways is refused, and its connection closed. docs/smuggling.md has
//! every case, and what nginx does with it.

use http::{HeaderMap, Method, Version, header, uri::Authority};
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
            framing(&header.headers, raw)
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

/// RFC 9112 §6, strict: lines end in CRLF, and one field at most says where the body ends. Where there is a
/// `transfer-encoding`, Pingora has thrown any `content-length` away, and only the text still has it.
fn framing(headers: &HeaderMap, raw: &[u8]) -> Result<(), Fault> {
    if has_bare_lf(raw) {
        return Err(Fault::Ambiguous("a line does not end in CRLF"));
    }
    let mut codings = headers.get_all(header::TRANSFER_ENCODING).iter();
    let mut lengths = headers.get_all(header::CONTENT_LENGTH).iter();
    if let Some(coding) = codings.next() {
        let mut lines = raw.split(|&byte| byte == b'\n');
        return if codings.next().is_some() {
            Err(Fault::Ambiguous("transfer-encoding is there twice"))
        } else if !coding.as_bytes().eq_ignore_ascii_case(b"chunked") {
            Err(Fault::Ambiguous("transfer-encoding is not chunked"))
        } else if lines.any(|line| has_name(line, b"content-length")) {
            Err(Fault::Ambiguous("content-length beside transfer-encoding"))
        } else {
            Ok(())
        };
    }
    let Some(length) = lengths.next() else { return Ok(()) };
    if lengths.next().is_some() {
        Err(Fault::Ambiguous("content-length is there twice"))
    } else if !length.as_bytes().iter().all(u8::is_ascii_digit) {
        Err(Fault::Ambiguous("content-length is not one number"))
    } else {
        Ok(())
    }
}

/// Without a branch for each byte: every request is looked through.
fn has_bare_lf(raw: &[u8]) -> bool {
    let Some((&first, rest)) = raw.split_first() else { return false };
    let mut bare = first == b'\n';
    for (&one, &two) in raw.iter().zip(rest) {
        bare |= (two == b'\n') & (one != b'\r');
    }
    bare
}

/// Whether the field of a header line is called `name`, in any case.
fn has_name(line: &[u8], name: &[u8]) -> bool {
    line.split_at_checked(name.len())
        .is_some_and(|(before, rest)| rest.starts_with(b":") && before.eq_ignore_ascii_case(name))
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;
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
        let lines = |lines: &str| {
            let mut headers = HeaderMap::new();
            for (name, value) in lines.lines().filter_map(|line| line.split_once(':')) {
                let name = http::HeaderName::from_bytes(name.as_bytes()).expect("a name");
                headers.append(name, value.trim().parse().expect("a value"));
            }
            if headers.contains_key(header::TRANSFER_ENCODING) {
                // As Pingora does.
                headers.remove(header::CONTENT_LENGTH);
            }
            framing(&headers, format!("POST / HTTP/1.1\r\n{lines}\r\n").as_bytes())
        };
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
        fn a_bare_lf_is_found_wherever_it_is(raw in proptest::collection::vec(prop_oneof![Just(b'\r'), Just(b'\n'), any::<u8>()], 0..200)) {
            let bare = raw.iter().enumerate().any(|(at, &byte)| byte == b'\n' && (at == 0 || raw[at - 1] != b'\r'));
            prop_assert_eq!(has_bare_lf(&raw), bare);
            let chunked = [(header::TRANSFER_ENCODING, HeaderValue::from_static("chunked"))];
            let _ = framing(&HeaderMap::from_iter(chunked), &raw);
        }
    }
}
