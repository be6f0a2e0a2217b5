//! The corpus: raw bytes of HTTP/1.1 as an attacker would send them, and what must come of each.

use Outcome::{Answered, Last, Passed, Refused};

/// What must come of a request.
#[derive(Clone, Copy, Debug)]
pub enum Outcome {
    /// This status, the connection closed, and no backend hears of it.
    Refused(u16),
    /// One request with this body reaches a backend, and the next on the connection is answered as its own.
    Passed(&'static str),
    /// One request with this body reaches a backend, and the connection is closed.
    Last(&'static str),
    /// This status from the proxy itself, no backend hears of it, and either the next request on the connection is
    /// answered as its own or the connection is closed.
    Answered(u16),
}

/// One request.
pub struct Case {
    pub name: &'static str,
    /// Of RFC 9112, or 9110 where it says so.
    pub section: &'static str,
    pub bytes: Vec<u8>,
    pub outcome: Outcome,
    /// Why we let pass what nginx refuses.
    pub why: &'static str,
}

impl Case {
    fn why(self, why: &'static str) -> Self {
        Self { why, ..self }
    }
}

/// A request body that can be routed.
pub const BODY: &str = r#"{"model":"m"}"#;

/// A request of its own, hidden behind another. Nothing else here has its path.
const HIDDEN: &str =
    "POST /v1/embeddings HTTP/1.1\r\nhost: p\r\ncontent-length: 13\r\n\r\n{\"model\":\"m\"}";

/// Why a tab is no fault.
const BLANK: &str = "A tab is a blank as a space is (RFC 9110 §5.6.3), and the backend gets a length in a field of ours.";

/// The path by which the hidden request is known.
pub const HIDDEN_PATH: &str = "/v1/embeddings";

fn case(
    name: &'static str,
    section: &'static str,
    bytes: impl Into<Vec<u8>>,
    outcome: Outcome,
) -> Case {
    Case { name, section, bytes: bytes.into(), outcome, why: "" }
}

/// A completion whose header has these lines besides the host, and whatever follows it.
fn post(lines: &str, rest: &str) -> String {
    format!("POST /v1/completions HTTP/1.1\r\nhost: p\r\n{lines}\r\n{rest}")
}

/// A body in one chunk, and its end.
fn chunked() -> String {
    format!("d\r\n{BODY}\r\n0\r\n\r\n")
}

/// A chunked request with this text for its body.
fn chunks(text: &str) -> String {
    post("transfer-encoding: chunked\r\n", text)
}

/// A request with the usual length and body, and these lines besides.
fn plain(lines: &str) -> String {
    post(&format!("{lines}content-length: 13\r\n"), BODY)
}

/// A request line in place of the usual one, with the usual body.
fn line(line: &str) -> String {
    format!("{line}\r\nhost: p\r\ncontent-length: 13\r\n\r\n{BODY}")
}

/// All of it, in groups.
pub fn corpus() -> Vec<(&'static str, Vec<Case>)> {
    vec![
        ("Content-Length", lengths()),
        ("Transfer-Encoding", codings()),
        ("Chunks", sizes()),
        ("Between chunks and after them", ends()),
        ("Lines and fields", fields()),
        ("Host and target", targets()),
        ("Request lines", request_lines()),
        ("Limits", limits()),
        ("One request behind another", pipelines()),
        ("Fields with a meaning of their own", meanings()),
    ]
}

fn lengths() -> Vec<Case> {
    let of = |lines: &str| post(lines, &format!("{BODY}{HIDDEN}"));
    vec![
        case("one length", "§6.2", plain(""), Passed(BODY)),
        case(
            "two lengths that differ",
            "§6.3",
            of("content-length: 13\r\ncontent-length: 5\r\n"),
            Refused(400),
        ),
        case(
            "two lengths that differ, and a request for a body",
            "§6.3",
            post(&format!("content-length: {}\r\ncontent-length: 0\r\n", HIDDEN.len()), HIDDEN),
            Refused(400),
        ),
        case(
            "two lengths that differ, the shorter first",
            "§6.3",
            of("content-length: 5\r\ncontent-length: 13\r\n"),
            Refused(400),
        ),
        case(
            "two equal lengths",
            "9110 §8.6",
            of("content-length: 13\r\ncontent-length: 13\r\n"),
            Refused(400),
        ),
        case(
            "a list of equal lengths",
            "9110 §8.6",
            of("content-length: 13, 13\r\n"),
            Refused(400),
        ),
        case("a list of lengths", "9110 §8.6", of("content-length: 13, 5\r\n"), Refused(400)),
        case("a negative length", "9110 §8.6", of("content-length: -13\r\n"), Refused(400)),
        case("a length with a plus", "9110 §8.6", of("content-length: +13\r\n"), Refused(400)),
        case("a length in hexadecimal", "9110 §8.6", of("content-length: 0xd\r\n"), Refused(400)),
        case("a length with an exponent", "9110 §8.6", of("content-length: 1e1\r\n"), Refused(400)),
        case("a length with a fraction", "9110 §8.6", of("content-length: 13.0\r\n"), Refused(400)),
        case(
            "a length with a space in it",
            "9110 §8.6",
            of("content-length: 1 3\r\n"),
            Refused(400),
        ),
        case("a length in quotes", "9110 §8.6", of("content-length: \"13\"\r\n"), Refused(400)),
        case("an empty length", "9110 §8.6", of("content-length:\r\n"), Refused(400)),
        case(
            "a length with leading zeros",
            "9110 §8.6",
            post("content-length: 00013\r\n", BODY),
            Passed(BODY),
        ),
        case(
            "a length with tabs around it",
            "9110 §5.5",
            post("content-length: \t 13 \t\r\n", BODY),
            Passed(BODY),
        )
        .why(BLANK),
        case(
            "a length over 64 bits",
            "9110 §8.6",
            of("content-length: 18446744073709551629\r\n"),
            Refused(400),
        ),
        case(
            "a length over 63 bits",
            "9110 §8.6",
            of("content-length: 9223372036854775808\r\n"),
            Answered(413),
        ),
        case(
            "a length over the limit",
            "9110 §15.5.14",
            of("content-length: 99999999999\r\n"),
            Answered(413),
        ),
        case(
            "a length, and the name in capitals again",
            "§6.3",
            of("Content-Length: 13\r\nCONTENT-LENGTH: 5\r\n"),
            Refused(400),
        ),
        case(
            "a GET with a body",
            "9110 §9.3.1",
            format!(
                "GET /v1/models/m HTTP/1.1\r\nhost: p\r\ncontent-length: {}\r\n\r\n{HIDDEN}",
                HIDDEN.len()
            ),
            Answered(200),
        ),
    ]
}

fn codings() -> Vec<Case> {
    let of = |lines: &str| post(lines, &format!("{}{HIDDEN}", chunked()));
    let te = |value: &str| of(&format!("transfer-encoding: {value}\r\n"));
    vec![
        case("chunked", "§7.1", chunks(&chunked()), Last(BODY)),
        case(
            "chunked in capitals",
            "§7",
            post("Transfer-Encoding: CHUNKED\r\n", &chunked()),
            Last(BODY),
        ),
        case(
            "a length, then chunked",
            "§6.1",
            of("content-length: 13\r\ntransfer-encoding: chunked\r\n"),
            Refused(400),
        ),
        case(
            "chunked, then a length",
            "§6.1",
            of("transfer-encoding: chunked\r\ncontent-length: 13\r\n"),
            Refused(400),
        ),
        case(
            "chunked twice",
            "§6.1",
            of("transfer-encoding: chunked\r\ntransfer-encoding: chunked\r\n"),
            Refused(400),
        ),
        case(
            "chunked and identity in two fields",
            "§6.1",
            of("transfer-encoding: chunked\r\ntransfer-encoding: identity\r\n"),
            Refused(400),
        ),
        case("xchunked", "§6.1", te("xchunked"), Refused(400)),
        case("chunkedx", "§6.1", te("chunkedx"), Refused(400)),
        case("chunked, identity", "§6.1", te("chunked, identity"), Refused(400)),
        case("identity, chunked", "§6.1", te("identity, chunked"), Refused(400)),
        case("gzip, chunked", "§6.1", te("gzip, chunked"), Refused(400)),
        case("chunked, chunked", "§6.1", te("chunked, chunked"), Refused(400)),
        case("identity", "§6.1", te("identity"), Refused(400)),
        case("chunked in quotes", "§6.1", te("\"chunked\""), Refused(400)),
        case("chunked with a parameter", "§6.1", te("chunked; q=1"), Refused(400)),
        case("chunked behind a comma", "9110 §5.6.1", te(", chunked"), Refused(400)),
        case("chunked before a comma", "9110 §5.6.1", te("chunked,"), Refused(400)),
        case("no coding", "§6.1", te(""), Refused(400)),
        case(
            "a space before the colon",
            "§5.1",
            of("transfer-encoding : chunked\r\n"),
            Refused(400),
        ),
        case(
            "a tab before the colon",
            "§5.1",
            of("transfer-encoding\t: chunked\r\n"),
            Refused(400),
        ),
        case(
            "a tab after the colon",
            "§5.1",
            post("transfer-encoding:\tchunked\r\n", &chunked()),
            Last(BODY),
        )
        .why(BLANK),
        case("a vertical tab before chunked", "9110 §5.5", te("\u{b}chunked"), Refused(400)),
        case("a form feed after chunked", "9110 §5.5", te("chunked\u{c}"), Refused(400)),
        case("NUL after chunked", "9110 §5.5", te("chunked\0"), Refused(400)),
        case("chunked on a folded line", "§5.2", te("\r\n chunked"), Refused(400)),
        case(
            "a length, and chunked in a folded line",
            "§5.2",
            of("content-length: 13\r\nx: y\r\n transfer-encoding: chunked\r\n"),
            Refused(400),
        ),
        case(
            "chunked behind a bare CR",
            "§2.2",
            of("x: y\rtransfer-encoding: chunked\r\n"),
            Refused(400),
        ),
        case(
            "chunked behind a bare LF",
            "§2.2",
            of("content-length: 13\r\nx: y\ntransfer-encoding: chunked\r\n"),
            Refused(400),
        ),
        case(
            "an underscore in place of the dash",
            "9110 §5.1",
            post("transfer_encoding: chunked\r\ncontent-length: 13\r\n", BODY),
            Passed(BODY),
        ),
        case(
            "a coding on HTTP/1.0",
            "§6.1",
            te("chunked").replace("HTTP/1.1", "HTTP/1.0"),
            Refused(400),
        ),
        case(
            "a coding and a length on HTTP/1.0",
            "§6.1",
            of("content-length: 13\r\ntransfer-encoding: chunked\r\n")
                .replace("HTTP/1.1", "HTTP/1.0"),
            Refused(400),
        ),
    ]
}

fn sizes() -> Vec<Case> {
    let of = |size: &str| chunks(&format!("{size}\r\n{BODY}\r\n0\r\n\r\n{HIDDEN}"));
    let last = |text: &str| chunks(&format!("{text}\r\n{BODY}\r\n0\r\n\r\n"));
    vec![
        case("a size in capitals", "§7.1", last("D"), Last(BODY)),
        case("leading zeros in a size", "§7.1", last("000d"), Last(BODY)),
        case("more leading zeros than a size has digits", "§7.1", of("0000000000000000000d"), Refused(400)),
        case("a size over 64 bits", "§7.1", of("1000000000000000d"), Refused(400)),
        case("a size of 64 bits", "§7.1", of("ffffffffffffffff"), Refused(400)),
        case("a size of 63 bits", "§7.1", of("7fffffffffffffff"), Answered(408)),
        case("a size with 0x", "§7.1", of("0xd"), Refused(400)),
        case("a size with a plus", "§7.1", of("+d"), Refused(400)),
        case("a negative size", "§7.1", of("-d"), Refused(400)),
        case("a space before a size", "§7.1", of(" d"), Refused(400)),
        case("spaces after a size", "§7.1", last("d  "), Last(BODY))
            .why("RFC 9112 §7.1.1 allows blanks only before `;`. Nothing follows on the connection, and the backend gets a length."),
        case("an empty size", "§7.1", of(""), Refused(400)),
        case("a size that is none", "§7.1", of("g"), Refused(400)),
        case("a size before a bare LF", "§7.1", chunks(&format!("d\n{BODY}\r\n0\r\n\r\n{HIDDEN}")), Refused(400)),
        case("a size before a bare CR", "§7.1", chunks(&format!("d\r{BODY}\r\n0\r\n\r\n{HIDDEN}")), Refused(400)),
        case("an extension", "§7.1.1", last("d;a=b"), Last(BODY)),
        case("an extension in quotes", "§7.1.1", last("d;a=\"b;c\""), Last(BODY)),
        case("an extension with CRLF in quotes", "§7.1.1", chunks(&format!("d;a=\"\r\n{BODY}\r\n0\r\n\r\n")), Last(BODY)),
        // To who ends a line at a bare LF, the body has the length of a request that hides in it.
        case(
            "an extension with a bare LF",
            "§7.1.1",
            chunks(&format!("d;a\nb\r\n{BODY}\r\n0\r\n\r\n{HIDDEN}")),
            Last(BODY),
        )
        .why("Extensions are skipped unread. Whoever sees other chunks sees another end of this request, but nothing after it is looked at."),
        case("an extension over 64 KiB", "§7.1.1", of(&format!("d;{}", "x".repeat(100 << 10))), Refused(400)),
    ]
}

fn ends() -> Vec<Case> {
    let of = |text: &str| chunks(&format!("{text}{HIDDEN}"));
    let trailer = |lines: &str| chunks(&format!("d\r\n{BODY}\r\n0\r\n{lines}\r\n"));
    let dropped =
        "Trailers are dropped unread (RFC 9112 §7.1.2), so none of them counts for anything.";
    vec![
        case("nothing after a chunk", "§7.1", of(&format!("d\r\n{BODY}0\r\n\r\n")), Refused(400)),
        case(
            "other bytes after a chunk",
            "§7.1",
            of(&format!("d\r\n{BODY}xx0\r\n\r\n")),
            Refused(400),
        ),
        case(
            "a bare LF after a chunk",
            "§7.1",
            of(&format!("d\r\n{BODY}\n0\r\n\r\n")),
            Refused(400),
        ),
        case(
            "a chunk longer than its size",
            "§7.1",
            of(&format!("5\r\n{BODY}\r\n0\r\n\r\n")),
            Refused(400),
        ),
        case(
            "two chunks",
            "§7.1",
            chunks("6\r\n{\"mode\r\n7\r\nl\":\"m\"}\r\n0\r\n\r\n"),
            Last(BODY),
        ),
        case(
            "a last chunk of many zeros",
            "§7.1",
            chunks(&format!("d\r\n{BODY}\r\n0000\r\n\r\n")),
            Last(BODY),
        ),
        case("a bare LF at the end", "§7.1", of(&format!("d\r\n{BODY}\r\n0\r\n\n")), Refused(400)),
        case("a trailer", "§7.1.2", trailer("x-sum: 1\r\n"), Last(BODY)).why(dropped),
        case(
            "content-length in a trailer",
            "9110 §6.5.1",
            trailer("content-length: 99\r\n"),
            Last(BODY),
        )
        .why(dropped),
        case(
            "transfer-encoding in a trailer",
            "9110 §6.5.1",
            trailer("transfer-encoding: chunked\r\n"),
            Last(BODY),
        )
        .why(dropped),
        case(
            "authorization in a trailer",
            "9110 §6.5.1",
            trailer("authorization: Bearer x\r\n"),
            Last(BODY),
        )
        .why(dropped),
        case("host in a trailer", "9110 §6.5.1", trailer("host: other\r\n"), Last(BODY))
            .why(dropped),
        case(
            "an internal field in a trailer",
            "9110 §6.5.1",
            trailer("x-inferno-token: x\r\n"),
            Last(BODY),
        )
        .why(dropped),
        case(
            "a trailer that ends in a bare LF",
            "§2.2",
            of(&format!("d\r\n{BODY}\r\n0\r\nx: y\n\r\n")),
            Refused(400),
        ),
        case(
            "a bare CR in a trailer",
            "§2.2",
            of(&format!("d\r\n{BODY}\r\n0\r\nx: \ry\r\n\r\n")),
            Refused(400),
        ),
        case(
            "a request for a trailer",
            "§7.1.2",
            trailer("GET /v1/models HTTP/1.1\r\n"),
            Last(BODY),
        )
        .why(dropped),
        case(
            "trailers over 64 KiB",
            "§7.1.2",
            of(&format!("d\r\n{BODY}\r\n0\r\nx: {}\r\n\r\n", "y".repeat(80 << 10))),
            Refused(400),
        ),
    ]
}

fn fields() -> Vec<Case> {
    let of =
        |lines: &str| post(&format!("{lines}content-length: 13\r\n"), &format!("{BODY}{HIDDEN}"));
    vec![
        case("a folded value", "§5.2", of("x: a\r\n b\r\n"), Refused(400)),
        case("a value folded by a tab", "§5.2", of("x: a\r\n\tb\r\n"), Refused(400)),
        case(
            "blanks before the first field",
            "§2.2",
            format!(
                "POST /v1/completions HTTP/1.1\r\n  x: y\r\nhost: p\r\ncontent-length: 13\r\n\r\n{BODY}{HIDDEN}"
            ),
            Refused(400),
        ),
        case(
            "bare LF at every line",
            "§2.2",
            format!("POST /v1/completions HTTP/1.1\nhost: p\ncontent-length: 13\n\n{BODY}"),
            Refused(400),
        ),
        case("a bare LF at one line", "§2.2", of("x: y\n"), Refused(400)),
        case(
            "a bare LF at the request line",
            "§2.2",
            format!("POST /v1/completions HTTP/1.1\nhost: p\r\ncontent-length: 13\r\n\r\n{BODY}"),
            Refused(400),
        ),
        case(
            "a bare LF for the empty line",
            "§2.2",
            format!("POST /v1/completions HTTP/1.1\r\nhost: p\r\ncontent-length: 13\r\n\n{BODY}"),
            Refused(400),
        ),
        case("a bare CR in a value", "§2.2", of("x: a\rb\r\n"), Refused(400)),
        case("CR CR LF at a line", "§2.2", of("x: y\r\r\n"), Refused(400)),
        case("a field behind a bare CR", "§2.2", of("x: y\rcontent-length: 5\r\n"), Refused(400)),
        case("NUL in a value", "9110 §5.5", of("x: a\0b\r\n"), Refused(400)),
        case("NUL in a name", "§5.1", of("x\0: a\r\n"), Refused(400)),
        case("a control character in a value", "9110 §5.5", of("x: a\u{1}b\r\n"), Refused(400)),
        case("DEL in a value", "9110 §5.5", of("x: a\u{7f}b\r\n"), Refused(400)),
        case("bytes over 127 in a value", "9110 §5.5", plain("x: é\r\n"), Passed(BODY)),
        case("bytes over 127 in a name", "§5.1", of("é: a\r\n"), Refused(400)),
        case("a space in a name", "§5.1", of("x y: a\r\n"), Refused(400)),
        case("a space before the colon", "§5.1", of("content-length : 5\r\n"), Refused(400)),
        case("an empty name", "§5.1", of(": a\r\n"), Refused(400)),
        case("a line without a colon", "§5", of("content-length\r\n"), Refused(400)),
        case("brackets in a name", "§5.1", of("x[0]: a\r\n"), Refused(400)),
        case("no blank after the colon", "§5", plain("x:y\r\n"), Passed(BODY)),
        case("an empty value", "9110 §5.5", plain("x:\r\n"), Passed(BODY)),
        case("an underscore in a name", "9110 §5.1", plain("x_y: a\r\n"), Passed(BODY)),
    ]
}

fn targets() -> Vec<Case> {
    let to = |target: &str, host: &str| {
        format!("POST {target} HTTP/1.1\r\n{host}content-length: 13\r\n\r\n{BODY}")
    };
    let hosts = |host: &str| to("/v1/completions", host) + HIDDEN;
    vec![
        case("no host", "§3.2", hosts(""), Refused(400)),
        case("no host on HTTP/1.0", "§3.2", to("/v1/completions", "").replace("HTTP/1.1", "HTTP/1.0"), Last(BODY)),
        case("two hosts", "§3.2", hosts("host: p\r\nhost: q\r\n"), Refused(400)),
        case("two equal hosts", "§3.2", hosts("host: p\r\nhost: p\r\n"), Refused(400)),
        case("an empty host", "9110 §4.2.1", hosts("host:\r\n"), Refused(400)),
        case("a host with userinfo", "9110 §4.2.4", hosts("host: u@p\r\n"), Refused(400)),
        case("a host with a path", "§3.2", hosts("host: p/x\r\n"), Refused(400)),
        case("a host with a space", "§3.2", hosts("host: p q\r\n"), Refused(400)),
        case("a host with a comma", "§3.2", to("/v1/completions", "host: p,q\r\n"), Passed(BODY)).why("A comma is allowed in a name (RFC 3986 §3.2.2), and nothing here goes by the host."),
        case("a host with NUL", "§3.2", hosts("host: p\0q\r\n"), Refused(400)),
        case("a host with a broken port", "§3.2", hosts("host: p:1:2\r\n"), Refused(400)),
        case("a host and its port", "§3.2", to("/v1/completions", "host: p:8080\r\n"), Passed(BODY)),
        case("a host of IPv6", "§3.2", to("/v1/completions", "host: [::1]:8080\r\n"), Passed(BODY)),
        case("an absolute target", "§3.2.2", to("http://p/v1/completions", "host: p\r\n"), Passed(BODY)),
        case("an absolute target of another host", "§3.2.2", to("http://q/v1/completions", "host: p\r\n") + HIDDEN, Refused(400)),
        case("an absolute target with userinfo", "9110 §4.2.4", to("http://u@p/v1/completions", "host: u@p\r\n") + HIDDEN, Refused(400)),
        case("an absolute target with a backslash", "§3.2.2", to("http:\\\\p/v1/completions", "host: p\r\n") + HIDDEN, Refused(400)),
        case("two slashes before the path", "§3.2.1", to("//q/v1/completions", "host: p\r\n"), Answered(404)),
        case("the asterisk form", "§3.2.4", "OPTIONS * HTTP/1.1\r\nhost: p\r\n\r\n", Answered(404)),
        case("the asterisk form of a GET", "§3.2.4", "GET * HTTP/1.1\r\nhost: p\r\n\r\n", Answered(404)),
        case("CONNECT", "§3.2.3", format!("CONNECT q:443 HTTP/1.1\r\nhost: q:443\r\n\r\n{HIDDEN}"), Refused(400)),
        case("CONNECT of another host", "§3.2.3", "CONNECT q:443 HTTP/1.1\r\nhost: p\r\n\r\n", Refused(400)),
        case("a target without a slash", "§3.2", to("v1/completions", "host: p\r\n") + HIDDEN, Refused(400)),
        case("a fragment in the target", "§3.2.1", to("/v1/completions#x", "host: p\r\n"), Passed(BODY)),
        case("a NUL in the target", "§3.2", to("/v1/completions\0", "host: p\r\n") + HIDDEN, Refused(400)),
        case("a bare CR in the target", "§3.2", to("/v1/completions\rx", "host: p\r\n") + HIDDEN, Refused(400)),
        case("NUL in the target, escaped", "9110 §4.2", to("/v1/completions%00", "host: p\r\n") + HIDDEN, Refused(400)),
        case("bytes over 127 in the target", "§3.2", to("/v1/completions?é", "host: p\r\n"), Passed(BODY)),
    ]
}

fn request_lines() -> Vec<Case> {
    let odd = |text: &str| line(text) + HIDDEN;
    let escaped = "Pingora writes the blanks as %20 before we see the line. The backend gets that line in a header of ours.";
    vec![
        case(
            "two spaces before the target",
            "§3",
            odd("POST  /v1/completions HTTP/1.1"),
            Refused(400),
        ),
        case(
            "two spaces after the target",
            "§3",
            line("POST /v1/completions  HTTP/1.1"),
            Passed(BODY),
        )
        .why(escaped),
        case(
            "a space in the target",
            "§3.2",
            line("POST /v1/completions?a b HTTP/1.1"),
            Passed(BODY),
        )
        .why(escaped),
        case("a version in the target", "§3.2", odd("POST /v1/x HTTP/1.1 HTTP/1.1"), Refused(400)),
        case("a tab for a space", "§3", odd("POST\t/v1/completions\tHTTP/1.1"), Refused(400)),
        case(
            "a space before the method",
            "§3",
            odd(" POST /v1/completions HTTP/1.1"),
            Refused(400),
        ),
        case(
            "a space after the version",
            "§3",
            odd("POST /v1/completions HTTP/1.1 "),
            Refused(400),
        ),
        case(
            "a method in lower case",
            "9110 §9.1",
            line("post /v1/completions HTTP/1.1"),
            Answered(405),
        ),
        case(
            "a method nobody knows",
            "9110 §9.1",
            line("FROB /v1/completions HTTP/1.1"),
            Answered(405),
        ),
        case(
            "a method that is no word",
            "9110 §9.1",
            odd("PO(ST /v1/completions HTTP/1.1"),
            Refused(400),
        ),
        case(
            "TRACE",
            "9110 §9.3.8",
            "TRACE /v1/completions HTTP/1.1\r\nhost: p\r\n\r\n",
            Answered(405),
        ),
        case("HTTP/1.2", "9110 §2.5", odd("POST /v1/completions HTTP/1.2"), Refused(400)),
        case("HTTP/2.0", "9110 §2.5", odd("POST /v1/completions HTTP/2.0"), Refused(400)),
        case("HTTP/1", "§2.3", odd("POST /v1/completions HTTP/1"), Refused(400)),
        case("HTTP/01.1", "§2.3", odd("POST /v1/completions HTTP/01.1"), Refused(400)),
        case("HTTP in lower case", "§2.3", odd("POST /v1/completions http/1.1"), Refused(400)),
        case("HTTP/0.9", "§2.3", "GET /v1/models/m\r\n\r\n", Refused(400)),
        case("HTTP/0.9, named", "§2.3", odd("POST /v1/completions HTTP/0.9"), Refused(400)),
        case("HTTP/1.0", "§9.3", line("POST /v1/completions HTTP/1.0"), Last(BODY)),
        case(
            "empty lines before the request",
            "§2.2",
            format!("\r\n\r\n{}", plain("")),
            Passed(BODY),
        ),
        case("a bare LF before the request", "§2.2", format!("\n{}", plain("")), Refused(400)),
        case(
            "the beginning of HTTP/2",
            "9113 §3.4",
            "PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n",
            Refused(400),
        ),
        case(
            "the beginning of HTTP/2 as a path",
            "9113 §3.4",
            "PRI /v1/completions HTTP/1.1\r\nhost: p\r\n\r\n",
            Answered(405),
        ),
        case(
            "a TLS handshake",
            "9110 §4.2.2",
            b"\x16\x03\x01\x00\x05hello\r\n\r\n".to_vec(),
            Refused(400),
        ),
    ]
}

fn limits() -> Vec<Case> {
    let many =
        |count: usize| (0..count).map(|index| format!("x-{index}: y\r\n")).collect::<String>();
    let long =
        |length: usize| line(&format!("POST /v1/completions?{} HTTP/1.1", "x".repeat(length)));
    let own = "The limit is 64 KiB for the whole header; nginx's are 8 KiB a line and 32 KiB.";
    vec![
        case("a target of 7 KiB", "§3", long(7 << 10), Passed(BODY)),
        case("a target over 8 KiB", "§3", long(9 << 10) + HIDDEN, Refused(414)),
        case("a target over 64 KiB", "§3", long(100 << 10), Refused(431)),
        case(
            "a field of 7 KiB",
            "9110 §5.4",
            plain(&format!("x: {}\r\n", "y".repeat(7 << 10))),
            Passed(BODY),
        ),
        case(
            "a field of 16 KiB",
            "9110 §5.4",
            plain(&format!("x: {}\r\n", "y".repeat(16 << 10))),
            Passed(BODY),
        )
        .why(own),
        case(
            "a field over 64 KiB",
            "9110 §5.4",
            plain(&format!("x: {}\r\n", "y".repeat(70 << 10))) + HIDDEN,
            Refused(431),
        ),
        case(
            "a header over 1 MiB",
            "9110 §5.4",
            plain(&format!("x: {}\r\n", "y".repeat(2 << 20))) + HIDDEN,
            Refused(431),
        ),
        case("a hundred fields", "9110 §5.4", plain(&many(100)), Passed(BODY)),
        case("two hundred fields", "9110 §5.4", plain(&many(200)) + HIDDEN, Refused(431)),
        case("a thousand fields", "9110 §5.4", plain(&many(1_000)) + HIDDEN, Refused(431)),
    ]
}

fn pipelines() -> Vec<Case> {
    let next = "GET /v1/models/m HTTP/1.1\r\nhost: p\r\n\r\n";
    let inside = format!(r#"{{"model":"m","x":"{}"}}"#, "GET /v1/models HTTP/1.1");
    let inside: &'static str = Box::leak(inside.into_boxed_str());
    vec![
        case("the next request at once", "§9.3.2", plain("") + next, Passed(BODY)),
        case("an empty line between requests", "§2.2", plain("") + "\r\n" + next, Passed(BODY)),
        case("a request behind a chunked one", "§9.6", chunks(&chunked()) + HIDDEN, Last(BODY)),
        case(
            "a request in a body",
            "§6",
            post(&format!("content-length: {}\r\n", inside.len()), inside),
            Passed(inside),
        ),
        case(
            "a request behind one that asks to close",
            "§9.6",
            plain("connection: close\r\n") + HIDDEN,
            Last(BODY),
        ),
        case(
            "a request behind one with a body that nobody reads",
            "§9.3.2",
            format!(
                "DELETE /v1/models/m HTTP/1.1\r\nhost: p\r\ncontent-length: {}\r\n\r\n{HIDDEN}",
                HIDDEN.len()
            ),
            Answered(405),
        ),
    ]
}

fn meanings() -> Vec<Case> {
    let framing = "What is named goes no further; what backends get is framed anew.";
    vec![
        case(
            "two content types",
            "9110 §8.3",
            plain("content-type: application/json\r\ncontent-type: text/plain\r\n") + HIDDEN,
            Refused(400),
        ),
        case(
            "two authorizations",
            "9110 §11.6.2",
            plain("authorization: Bearer a\r\nauthorization: Bearer b\r\n"),
            Passed(BODY),
        )
        .why("Without API keys they are dropped; with keys two are refused with 401 (`keys.rs`)."),
        case(
            "Expect: 100-continue",
            "9110 §10.1.1",
            plain("expect: 100-continue\r\n"),
            Passed(BODY),
        ),
        case("Expect of something else", "9110 §10.1.1", plain("expect: 200-ok\r\n"), Passed(BODY)),
        case(
            "Expect, obfuscated",
            "9110 §10.1.1",
            plain("expect: y 100-continue\r\n"),
            Passed(BODY),
        ),
        case(
            "Expect twice",
            "9110 §10.1.1",
            plain("expect: 100-continue\r\nexpect: 100-continue\r\n"),
            Passed(BODY),
        )
        .why(framing),
        case(
            "Connection names content-length",
            "9110 §7.6.1",
            plain("connection: content-length\r\n"),
            Passed(BODY),
        )
        .why(framing),
        case(
            "Connection names transfer-encoding",
            "9110 §7.6.1",
            post("connection: transfer-encoding\r\ntransfer-encoding: chunked\r\n", &chunked()),
            Last(BODY),
        )
        .why(framing),
        case("Connection names host", "9110 §7.6.1", plain("connection: host\r\n"), Passed(BODY))
            .why(framing),
        case(
            "Connection names x-request-id",
            "9110 §7.6.1",
            plain("connection: x-request-id\r\n"),
            Passed(BODY),
        )
        .why(framing),
        case(
            "Upgrade: h2c",
            "9113 §3.1",
            plain(
                "connection: upgrade, http2-settings\r\nupgrade: h2c\r\nhttp2-settings: AAMAAABkAAQAoAAAAAIAAAAA\r\n",
            ),
            Answered(501),
        ),
        case(
            "Upgrade: websocket",
            "9110 §7.8",
            "GET /v1/models/m HTTP/1.1\r\nhost: p\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n",
            Answered(501),
        ),
        case("an internal field", "9110 §7.6", plain("x-inferno-token: x\r\n"), Answered(400)),
        case(
            "x-forwarded-for",
            "9110 §7.6.3",
            plain("x-forwarded-for: 127.0.0.1\r\n"),
            Passed(BODY),
        ),
        case(
            "a method in a field",
            "9110 §9",
            plain("x-http-method-override: DELETE\r\n"),
            Passed(BODY),
        ),
    ]
}
