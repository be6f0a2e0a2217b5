//! The name of a request, the same in the client's log, in the proxy's and in the backend's.

use crate::identity::random_hex;
use http::HeaderValue;
use std::sync::{
    LazyLock,
    atomic::{AtomicU64, Ordering::Relaxed},
};

/// Longest id taken from a client, bytes.
const LENGTH_MAX: usize = 128;

/// The id that came with a request, if it is harmless in a log line, else a new one.
pub fn choose(given: Option<&HeaderValue>) -> HeaderValue {
    given.filter(|value| is_sane(value.as_bytes())).cloned().unwrap_or_else(mint)
}

fn is_sane(id: &[u8]) -> bool {
    let sane = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
    (1..=LENGTH_MAX).contains(&id.len()) && id.iter().all(sane)
}

/// 64 random bits of this process, and a count: unique without asking the system each time, and
/// a name, not a secret.
fn mint() -> HeaderValue {
    static PROCESS: LazyLock<String> = LazyLock::new(|| random_hex(8));
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let id = format!("req-{}-{:x}", *PROCESS, COUNT.fetch_add(1, Relaxed));
    // Hexadecimal digits are a header value; were they not, a common name would still serve.
    HeaderValue::try_from(id).unwrap_or_else(|_| HeaderValue::from_static("req"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sane_id_is_kept_and_any_other_replaced() {
        let longest = "x".repeat(LENGTH_MAX);
        for id in ["a", "A-1_b.c", longest.as_str()] {
            assert_eq!(choose(HeaderValue::from_str(id).ok().as_ref()), id);
        }
        for id in ["", "a b", "a\"b", "é", &"x".repeat(LENGTH_MAX + 1)] {
            let given = HeaderValue::from_bytes(id.as_bytes()).expect("a header value");
            assert_ne!(choose(Some(&given)), given);
        }
        assert_ne!(choose(None), choose(None));
    }
}
