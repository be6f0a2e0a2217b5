//! W3C Trace Context, level 1 (<https://www.w3.org/TR/trace-context-1/>): which trace a request
//! belongs to, told from header to header. Pure, but for the random ids.
//!
//! What came from outside is parsed or replaced, never repaired: an id that was made up by halves
//! would join strangers' requests.

use http::{HeaderMap, HeaderName, HeaderValue};
use std::{cell::RefCell, fmt};

/// Carries [`TraceParent`].
pub static TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
/// Carries what tracing systems want to tell each other besides.
pub static TRACESTATE: HeaderName = HeaderName::from_static("tracestate");

/// Most members of a `tracestate` (§3.3.1.5).
const STATE_MEMBERS_MAX: usize = 32;
/// Longest `tracestate` that is passed on, in bytes: as much as everyone should carry (§3.3.1.5).
const STATE_BYTES_MAX: usize = 512;
/// Longest key or value of a member, in bytes (§3.3.1.3).
const STATE_WORD_BYTES_MAX: usize = 256;
/// Longest key before and after the `@` of a vendor with tenants (§3.3.1.3.1).
const TENANT_BYTES_MAX: usize = 241;
const SYSTEM_BYTES_MAX: usize = 14;
/// Length of `00-{trace-id}-{parent-id}-{flags}`.
const LENGTH: usize = 55;
/// The only flag of level 1.
const SAMPLED: u8 = 1;

/// Names a trace: everything that one request caused anywhere. Not all zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TraceId(pub [u8; 16]);

/// Names one span of a trace: a piece of work with a beginning and an end. Not all zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SpanId(pub [u8; 8]);

/// What `traceparent` says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TraceParent {
    /// The trace.
    pub trace_id: TraceId,
    /// The span of whoever sent this.
    pub span_id: SpanId,
    /// The sender may have recorded its span, and wants the rest of the trace recorded.
    pub sampled: bool,
}

impl TraceId {
    /// A new trace.
    pub fn random() -> Self {
        Self(random())
    }
}

impl SpanId {
    /// A new span.
    pub fn random() -> Self {
        Self(random())
    }
}

impl TraceParent {
    /// Reads a header's value. `None` if it is malformed (§3.2.2), and then it counts as absent.
    ///
    /// A later version than ours is read as far as ours goes, and may be longer (§4.3).
    pub fn parse(text: &[u8]) -> Option<Self> {
        let (head, rest) = text.split_at_checked(LENGTH)?;
        let version = octet(&head[..2])?;
        let longer_is_fine = version > 0 && rest.first().is_none_or(|&byte| byte == b'-');
        let dashes = [2, 35, 52].iter().all(|&at| head[at] == b'-');
        if version == 0xff || !dashes || !(rest.is_empty() || longer_is_fine) {
            return None;
        }
        Some(Self {
            trace_id: TraceId(octets(&head[3..35])?),
            span_id: SpanId(octets(&head[36..52])?),
            sampled: octet(&head[53..])? & SAMPLED != 0,
        })
        .filter(|parent| parent.trace_id.0 != [0; 16] && parent.span_id.0 != [0; 8])
    }

    /// The trace of a request, and its `tracestate`. A `traceparent` that came twice is none, and
    /// without one there is no `tracestate` (§3.2, §3.3).
    pub fn of(headers: &HeaderMap) -> Option<(Self, Option<HeaderValue>)> {
        let mut values = headers.get_all(&TRACEPARENT).iter();
        let (value, None) = (values.next()?, values.next()) else { return None };
        let parent = Self::parse(value.as_bytes())?;
        let states = headers.get_all(&TRACESTATE).iter();
        let state = tracestate(states.map(HeaderValue::as_bytes));
        Some((parent, state.and_then(|state| HeaderValue::try_from(state).ok())))
    }

    /// The header's value, in version 00.
    pub fn to_header(self) -> HeaderValue {
        // Written here and not by `fmt`, for each request has two of them.
        let mut text = *b"00-00000000000000000000000000000000-0000000000000000-00";
        hex(&mut text[3..35], &self.trace_id.0);
        hex(&mut text[36..52], &self.span_id.0);
        hex(&mut text[53..], &[u8::from(self.sampled)]);
        // Hexadecimal digits and dashes are a header value.
        HeaderValue::from_bytes(&text).unwrap_or_else(|_| HeaderValue::from_static(""))
    }
}

/// Reads the values of all `tracestate` fields of a request as one list and gives it back clean.
/// `None` if there is nothing, or if any of it is malformed or beyond the limits: dropping all of it
/// is what §3.3.1.1 asks for where a list cannot be read.
pub fn tracestate<'a>(values: impl Iterator<Item = &'a [u8]>) -> Option<String> {
    let mut state = String::new();
    let mut keys: Vec<&str> = Vec::new();
    for member in values.flat_map(|value| value.split(|&byte| byte == b',')) {
        let member = std::str::from_utf8(member).ok()?.trim_matches([' ', '\t']);
        if member.is_empty() {
            continue;
        }
        let (key, value) = member.split_once('=')?;
        if !is_key(key) || !is_value(value) || keys.contains(&key) {
            return None;
        }
        keys.push(key);
        if !state.is_empty() {
            state.push(',');
        }
        state.push_str(member);
        if keys.len() > STATE_MEMBERS_MAX || state.len() > STATE_BYTES_MAX {
            return None;
        }
    }
    (!state.is_empty()).then_some(state)
}

fn is_key(key: &str) -> bool {
    let word = |word: &str, longest: usize, digit_first: bool| {
        let first = word.bytes().next().is_some_and(|byte| {
            byte.is_ascii_lowercase() || (digit_first && byte.is_ascii_digit())
        });
        let rest = |byte: u8| {
            byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"_-*/".contains(&byte)
        };
        first && word.len() <= longest && word.bytes().all(rest)
    };
    match key.split_once('@') {
        Some((tenant, system)) => {
            word(tenant, TENANT_BYTES_MAX, true) && word(system, SYSTEM_BYTES_MAX, false)
        }
        None => word(key, STATE_WORD_BYTES_MAX, false),
    }
}

/// Printable ASCII without comma and equals sign, not ending in a space.
fn is_value(value: &str) -> bool {
    let printable = |byte: u8| matches!(byte, b' '..=b'~') && !b",=".contains(&byte);
    (1..=STATE_WORD_BYTES_MAX).contains(&value.len())
        && value.bytes().all(printable)
        && !value.ends_with(' ')
}

/// Two lower-case hexadecimal digits.
fn octet(digits: &[u8]) -> Option<u8> {
    let digit = |digit: u8| match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        _ => None,
    };
    let &[high, low] = digits else { return None };
    Some(digit(high)? << 4 | digit(low)?)
}

fn octets<const N: usize>(digits: &[u8]) -> Option<[u8; N]> {
    let mut out = [0; N];
    for (byte, pair) in out.iter_mut().zip(digits.chunks_exact(2)) {
        *byte = octet(pair)?;
    }
    Some(out)
}

/// Random bytes that a thread has asked the system for and not used, and how many they are.
type Stock = ([u8; STOCK_BYTES], usize);

/// What a thread asks for at once: a request takes 32, and asking costs a microsecond.
const STOCK_BYTES: usize = 512;

/// Not all zero, which no generator that works ever gives.
fn random<const N: usize>() -> [u8; N] {
    thread_local! {
        static STOCK: RefCell<Stock> = const { RefCell::new(([0; STOCK_BYTES], 0)) };
    }
    let mut out = [0; N];
    STOCK.with_borrow_mut(|(bytes, left)| {
        // The kernel's generator fails only before it is seeded at boot. A name, not a secret: a
        // process that serves requests must not end for want of one.
        if *left < N && getrandom::fill(bytes).is_ok() {
            *left = STOCK_BYTES;
        }
        if let Some(rest) = left.checked_sub(N) {
            out.copy_from_slice(&bytes[rest..*left]);
            *left = rest;
        }
    });
    if out == [0; N] {
        out[N - 1] = 1;
    }
    out
}

fn write_hex(f: &mut fmt::Formatter<'_>, bytes: &[u8]) -> fmt::Result {
    let mut text = [0; 32];
    hex(&mut text, bytes);
    f.write_str(std::str::from_utf8(&text[..2 * bytes.len()]).unwrap_or_default())
}

impl fmt::Display for TraceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_hex(f, &self.0)
    }
}

impl fmt::Display for SpanId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_hex(f, &self.0)
    }
}

impl fmt::Display for TraceParent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "00-{}-{}-{:02x}", self.trace_id, self.span_id, u8::from(self.sampled))
    }
}

/// Writes each byte as two digits.
fn hex(out: &mut [u8], bytes: &[u8]) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    for (pair, byte) in out.chunks_exact_mut(2).zip(bytes) {
        pair.copy_from_slice(&[DIGITS[usize::from(byte >> 4)], DIGITS[usize::from(byte & 15)]]);
    }
}

#[cfg(test)]
mod tests;
