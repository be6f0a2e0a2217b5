//! Requests that two parsers could read in two ways. Whatever the bytes are, no backend may see a request that the
//! client's side of the connection did not show, and no client an answer to one.
//!
//! [`corpus`] says what must come of each; [`peer`] says each to our proxy, and to nginx where it is installed;
//! `docs/smuggling.md` is the table of both, written anew with `INFERNO_WRITE_DOCS=1`.

mod corpus;
mod http2;
mod nginx;
mod page;
mod peer;

use self::{
    corpus::{BODY, Outcome},
    peer::{Observed, Recorder, say},
};
use super::support::Proxy;
use inferno_shared::config::{ProxyConfig, ProxyTimeouts};
use std::sync::Arc;

/// A proxy in front of `recorder`, less patient than usual with what never comes.
fn proxy(recorder: &Recorder) -> Proxy {
    let timeouts =
        ProxyTimeouts { idle_ms: 5_000, request_read_ms: 3_000, ..ProxyTimeouts::default() };
    let proxy = Proxy::start(ProxyConfig { timeouts, ..ProxyConfig::default() });
    proxy.members.set(vec![Arc::clone(&recorder.node)]);
    proxy
}

/// What is wrong with `observed`, if anything is.
fn complaint(outcome: Outcome, observed: &Observed) -> Option<String> {
    let (status, kept, seen) = (observed.status, observed.next, &observed.seen);
    let fits = match outcome {
        Outcome::Refused(expected) => {
            status == Some(expected) && observed.is_closed() && seen.is_empty()
        }
        Outcome::Answered(expected) => {
            status == Some(expected) && (observed.is_closed() || kept) && seen.is_empty()
        }
        Outcome::Passed(body) => status == Some(200) && kept && observed.is_one(body),
        Outcome::Last(body) => status == Some(200) && observed.is_closed() && observed.is_one(body),
    };
    (!fits).then(|| format!("{outcome:?} expected: {observed:?}"))
}

#[tokio::test]
async fn no_request_is_smuggled_and_the_page_says_what_becomes_of_each() {
    let recorder = Recorder::start().await;
    let proxy = proxy(&recorder);
    let (mut complaints, mut rows) = (Vec::new(), Vec::new());
    for (group, cases) in corpus::corpus() {
        for case in cases {
            let observed = say(proxy.server.address(), &recorder, &case.bytes).await;
            proxy.settled().await;
            let late = recorder.take();
            if !late.is_empty() {
                complaints.push(format!("{group}, {}: afterwards {late:?}", case.name));
            }
            if let Some(complaint) = complaint(case.outcome, &observed) {
                complaints.push(format!("{group}, {}: {complaint}", case.name));
            }
            rows.push(page::Row::new(group, &case, observed.told()));
        }
    }
    assert!(complaints.is_empty(), "{}\n{}", complaints.len(), complaints.join("\n"));
    page::hold(rows).await;
}

/// A body that a chunk's end cuts short is no request, whichever way it breaks off.
#[tokio::test]
async fn a_broken_chunk_that_comes_late_ends_the_connection_too() {
    let recorder = Recorder::start().await;
    let proxy = proxy(&recorder);
    let head = "POST /v1/completions HTTP/1.1\r\nhost: p\r\ntransfer-encoding: chunked\r\n\r\n";
    let mut client = proxy.send(format!("{head}5\r\n{{\"mod").as_bytes()).await;
    client.say("\r\nxx").await;
    client.say("\r\n\r\nGET /v1/models/m HTTP/1.1\r\nhost: p\r\n\r\n").await;
    let answer = client.message().await;
    assert_eq!((answer.status(), answer.code().as_str()), (400, "malformed_request"));
    assert_eq!(answer.headers["connection"], "close");
    assert_eq!(client.rest().await, b"", "no answer to what followed");
    assert!(recorder.take().is_empty());
}

#[tokio::test]
async fn a_refused_header_is_told_in_full_to_a_client_that_goes_on_sending() {
    let recorder = Recorder::start().await;
    let proxy = proxy(&recorder);
    let head = "POST /v1/completions HTTP/1.1\r\nhost: p\r\ncontent-length: 8388608\r\ncontent-length: 8388608\r\n\r\n";
    let mut client = proxy.connect().await;
    client.say(head).await;
    // Far more than fits into socket buffers, which a reset would cost.
    client.say(vec![b'x'; 8 << 20]).await;
    let answer = client.message().await;
    assert_eq!((answer.status(), answer.code().as_str()), (400, "malformed_request"));
    let said = answer.json()["error"]["message"].to_string();
    assert!(said.contains("content-length is there twice"), "{said}");
}

#[tokio::test]
async fn what_a_backend_gets_is_framed_by_us_alone() {
    let recorder = Recorder::start().await;
    let proxy = proxy(&recorder);
    let request = format!(
        "POST /v1/completions HTTP/1.1\r\nhost: p\r\nTransfer-Encoding: chunked\r\nTE: trailers\r\n\
         trailer: x\r\nkeep-alive: 5\r\nproxy-connection: x\r\nexpect: z\r\n\r\nd;a\nb\r\n{BODY}\r\n0\r\nx: y\r\n\r\n"
    );
    let observed = say(proxy.server.address(), &recorder, request.as_bytes()).await;
    let [seen] = observed.seen.as_slice() else { panic!("{observed:?}") };
    let head = seen.head.to_ascii_lowercase();
    assert!(head.contains("\r\ncontent-length: 13\r\n"), "{head}");
    for absent in
        ["transfer-encoding", "\r\nte:", "trailer", "keep-alive", "proxy-connection", "expect"]
    {
        assert!(!head.contains(absent), "{absent}: {head}");
    }
}
