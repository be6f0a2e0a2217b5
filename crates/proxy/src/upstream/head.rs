//! Request and response heads (RFC 9112 §3–§6), pure.

use super::body::BodyDecoder;
use bytes::{BufMut, BytesMut};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};

/// Longest response head we read, bytes.
pub(crate) const HEAD_BYTES_MAX: usize = 64 * 1024;
/// Most header fields in a response.
const FIELDS_MAX: usize = 128;

/// An answer that breaks HTTP/1.1, or a limit of ours.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum CodecError {
    #[error("{0}")]
    Head(#[from] httparse::Error),
    #[error("head over {HEAD_BYTES_MAX} bytes")]
    HeadTooLong,
    #[error("conflicting or invalid content-length")]
    ContentLength,
    #[error("transfer-encoding other than chunked")]
    TransferEncoding,
    #[error("switched protocols unasked")]
    SwitchedProtocols,
    #[error("invalid chunk")]
    Chunk,
    #[error("an event over {limit} bytes")]
    EventTooLong { limit: usize },
}

/// A response's head, and how its body is delimited.
#[derive(Debug)]
pub(crate) struct ResponseHead {
    /// Never informational.
    pub(crate) status: StatusCode,
    /// As the backend sent them.
    pub(crate) headers: HeaderMap,
    /// Decodes what follows.
    pub(crate) body: BodyDecoder,
    /// The body's length, if the header tells it; of an answer to HEAD, what it would be.
    pub(crate) length: Option<u64>,
    /// The backend keeps the connection open afterwards.
    pub(crate) keep_alive: bool,
}

/// Writes a request line and `headers`, and leaves the head open for more of them.
///
/// `target` is the path with its query. Header values go through byte for byte: [`HeaderValue`]
/// and [`http::Uri`] cannot hold a line break.
pub(crate) fn open_request<'a>(
    out: &mut BytesMut,
    method: &Method,
    target: &str,
    headers: impl Iterator<Item = (&'a HeaderName, &'a HeaderValue)>,
) {
    out.put_slice(method.as_str().as_bytes());
    out.put_u8(b' ');
    out.put_slice(target.as_bytes());
    out.put_slice(b" HTTP/1.1\r\n");
    headers.for_each(|(name, value)| field(out, name.as_str(), value.as_bytes()));
}

/// Writes one header field.
pub(crate) fn field(out: &mut BytesMut, name: &str, value: &[u8]) {
    out.put_slice(name.as_bytes());
    out.put_slice(b": ");
    out.put_slice(value);
    out.put_slice(b"\r\n");
}

/// Takes one response head off the front of `input`; `None` until it is whole.
///
/// Informational responses (1xx) are skipped: nothing in them is for the client, who has had its
/// `100 Continue` from us. `to_head`: the request was a HEAD, whose answer has no body whatever it says.
pub(crate) fn decode_response(
    input: &mut BytesMut,
    to_head: bool,
) -> Result<Option<ResponseHead>, CodecError> {
    loop {
        let mut fields = [httparse::EMPTY_HEADER; FIELDS_MAX];
        let mut response = httparse::Response::new(&mut fields);
        let length = match response.parse(input)? {
            httparse::Status::Complete(length) if length <= HEAD_BYTES_MAX => length,
            httparse::Status::Partial if input.len() <= HEAD_BYTES_MAX => return Ok(None),
            _ => return Err(CodecError::HeadTooLong),
        };
        let status = response.code.and_then(|code| StatusCode::from_u16(code).ok());
        let status = status.ok_or(httparse::Error::Status)?;
        if status == StatusCode::SWITCHING_PROTOCOLS {
            return Err(CodecError::SwitchedProtocols);
        }
        let informational = status.is_informational();
        let head = if informational { None } else { Some(build(&response, status, to_head)?) };
        let _ = input.split_to(length);
        if head.is_some() {
            return Ok(head);
        }
    }
}

fn build(
    response: &httparse::Response<'_, '_>,
    status: StatusCode,
    to_head: bool,
) -> Result<ResponseHead, CodecError> {
    let mut headers = HeaderMap::with_capacity(response.headers.len());
    for field in response.headers.iter() {
        let name = HeaderName::from_bytes(field.name.as_bytes())
            .map_err(|_| httparse::Error::HeaderName)?;
        let value =
            HeaderValue::from_bytes(field.value).map_err(|_| httparse::Error::HeaderValue)?;
        headers.append(name, value);
    }
    let bodiless = matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
    let framed = if bodiless { BodyDecoder::empty() } else { framing(&headers)? };
    let length = framed.known_length();
    let body = if to_head { BodyDecoder::empty() } else { framed };
    let keep_alive = response.version == Some(1) && body.is_delimited() && !says_close(&headers);
    Ok(ResponseHead { status, headers, body, length, keep_alive })
}

/// RFC 9112 §6.3, strict: what two parsers could read two ways is refused.
fn framing(headers: &HeaderMap) -> Result<BodyDecoder, CodecError> {
    let mut codings = headers.get_all(header::TRANSFER_ENCODING).iter();
    if let Some(coding) = codings.next() {
        let chunked =
            coding.as_bytes().eq_ignore_ascii_case(b"chunked") && codings.next().is_none();
        let alone = !headers.contains_key(header::CONTENT_LENGTH);
        return if chunked && alone {
            Ok(BodyDecoder::chunked())
        } else {
            Err(CodecError::TransferEncoding)
        };
    }
    let mut lengths = headers.get_all(header::CONTENT_LENGTH).iter();
    let Some(first) = lengths.next() else { return Ok(BodyDecoder::until_close()) };
    let digits = first.to_str().ok().filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()));
    let length = digits.and_then(|digits| digits.parse().ok()).ok_or(CodecError::ContentLength)?;
    if lengths.any(|other| other != first) {
        return Err(CodecError::ContentLength);
    }
    Ok(BodyDecoder::sized(length))
}

fn says_close(headers: &HeaderMap) -> bool {
    let values = headers.get_all(header::CONNECTION).iter();
    values
        .flat_map(|value| value.as_bytes().split(|&byte| byte == b','))
        .any(|option| option.trim_ascii().eq_ignore_ascii_case(b"close"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decode(text: &str) -> Result<Option<ResponseHead>, CodecError> {
        decode_response(&mut BytesMut::from(text), false)
    }

    #[test]
    fn a_request_is_written_in_order() {
        let mut headers = HeaderMap::new();
        headers.insert("accept", HeaderValue::from_static("*/*"));
        let mut out = BytesMut::new();
        open_request(&mut out, &Method::POST, "/v1/x?y=1", headers.iter());
        field(&mut out, "content-length", b"2");
        assert_eq!(out, "POST /v1/x?y=1 HTTP/1.1\r\naccept: */*\r\ncontent-length: 2\r\n");
    }

    #[test]
    fn a_head_arriving_byte_by_byte_is_taken_once_whole() {
        let text = b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nabc";
        let mut input = BytesMut::new();
        let mut head = None;
        for (index, byte) in text.iter().enumerate() {
            input.put_u8(*byte);
            if head.is_none() {
                head = decode_response(&mut input, false).expect("valid");
                assert_eq!(head.is_some(), index + 1 == text.len() - 3);
            }
        }
        let head = head.expect("whole");
        assert!(head.status == StatusCode::OK && head.keep_alive);
        assert_eq!(input, "abc", "the body stays");
    }

    #[test]
    fn informational_answers_are_skipped() {
        let head = decode(
            "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early\r\nlink: x\r\n\r\nHTTP/1.1 204 No\r\n\r\n",
        );
        let head = head.expect("valid").expect("whole");
        assert_eq!(head.status, StatusCode::NO_CONTENT);
        assert!(head.body.is_done());
    }

    #[test]
    fn an_answer_to_head_ends_with_its_header_and_tells_a_length() {
        for (field, length) in
            [("content-length: 7", Some(7)), ("transfer-encoding: chunked", None), ("x: y", None)]
        {
            let mut input = BytesMut::from(&*format!("HTTP/1.1 200 OK\r\n{field}\r\n\r\nHTTP"));
            let head = decode_response(&mut input, true).expect("valid").expect("whole");
            assert_eq!((head.length, head.body.is_done(), head.keep_alive), (length, true, true));
            assert_eq!(input, "HTTP", "what follows is another answer's");
        }
    }

    #[test]
    fn the_connection_is_kept_only_where_both_sides_can_tell_the_end() {
        for (text, kept) in [
            ("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n", true),
            ("HTTP/1.1 200 OK\r\ntransfer-encoding: Chunked\r\n\r\n", true),
            ("HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: x, Close\r\n\r\n", false),
            ("HTTP/1.0 200 OK\r\ncontent-length: 0\r\n\r\n", false),
            ("HTTP/1.1 200 OK\r\n\r\n", false),
        ] {
            let head = decode(text).expect("valid").expect("whole");
            assert_eq!(head.keep_alive, kept, "{text}");
        }
    }

    #[test]
    fn ambiguous_framing_is_refused() {
        for text in [
            "HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\n",
            "HTTP/1.1 200 OK\r\ncontent-length: +1\r\n\r\n",
            "HTTP/1.1 200 OK\r\ncontent-length: 1\r\ntransfer-encoding: chunked\r\n\r\n",
            "HTTP/1.1 200 OK\r\ntransfer-encoding: gzip, chunked\r\n\r\n",
            "HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\n\r\n",
            "SPDY/9 hello\r\n\r\n",
        ] {
            assert!(decode(text).is_err(), "{text}");
        }
    }

    #[test]
    fn an_endless_head_is_refused() {
        let text = format!("HTTP/1.1 200 OK\r\nx: {}", "y".repeat(HEAD_BYTES_MAX));
        assert_eq!(decode(&text).expect_err("refused"), CodecError::HeadTooLong);
    }
}
