//! `docs/smuggling.md`: what becomes of each case, here and behind nginx.
//!
//! Our column is held against the code by every run. nginx's is written where nginx is, with `INFERNO_WRITE_DOCS=1`,
//! and otherwise stays as it stands: another version of it may answer otherwise.

use super::{
    corpus::Case,
    nginx::{self, Nginx},
    peer::{Recorder, say},
};
use std::{collections::HashMap, fmt::Write, path::PathBuf};

const HEAD: &str = "\
# What becomes of ambiguous requests

Made by the test `smuggling` of the proxy (`INFERNO_WRITE_DOCS=1 cargo test -p inferno-proxy --test proxy smuggling`),
which says each of these requests to a proxy, byte by byte, and fails when something else comes of it than stands
here, when a backend gets a request that was hidden in another, or a client an answer to it.

A request is smuggled when two servers on its way see two different ends of it. Behind Inferno nobody can: a request
is read whole, and what a backend gets is written anew, with one `content-length` and nothing of what framed it before.
In front of Inferno another proxy may stand that reads the same bytes otherwise. So what could be read in two ways is
refused and its connection closed, although the RFCs would let a server choose: two lengths even if they are equal, a
length beside `transfer-encoding`, any coding but `chunked`, a bare LF for the end of a line.

Two things Pingora, which parses for us, has resolved before we see them:

- *Blanks in a request's target* are written as `%20`. Who reads the line otherwise sees another path, but no other end
  of the request: that is told by fields, and they are read from the text as it came.
- *What stands in a chunk's extension*, a bare LF among it, is skipped, and a chunk without a size is the last one. A
  server in front of us that reads either otherwise sees other chunks, and another end. Therefore a chunked request is the last one of its connection: the answer says
  `connection: close`, and what follows is never looked at. Clients of the OpenAI API send a `content-length`.

`400, closed`: refused with that status, connection closed, no backend heard of it. `passes 13 bytes`: a backend got one
request with that body, and the next request on the connection was answered as its own. Behind some requests stands a
second one, for whoever finds an end of the first there: `passes 2 requests` is a server to which the first was sound,
which is no fault of its own as long as nobody before it sees another end. Sections are of RFC 9112 where no
other number stands before them. HTTP/2 has the same test (`smuggling/http2.rs`): what RFC 9113 §8.2 forbids resets its
stream there, and the other streams of the connection go on.
";

/// A case and what came of it.
pub struct Row {
    group: &'static str,
    name: &'static str,
    section: &'static str,
    why: &'static str,
    bytes: Vec<u8>,
    ours: String,
}

impl Row {
    pub fn new(group: &'static str, case: &Case, ours: String) -> Self {
        let Case { name, section, why, bytes, .. } = case;
        Self { group, name, section, why, bytes: bytes.clone(), ours }
    }

    /// Names are unique within their group.
    fn key(&self) -> (String, String) {
        (self.group.into(), self.name.into())
    }
}

/// What nginx made of the rows, by group and name, and its version.
struct Theirs {
    version: String,
    told: HashMap<(String, String), String>,
}

/// Fails if the page is not what `rows` make it, or writes it. That nginx now answers otherwise is told, and no failure.
#[allow(clippy::print_stdout)]
pub async fn hold(rows: Vec<Row>) {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../docs/smuggling.md");
    if std::env::var_os("INFERNO_WRITE_DOCS").is_some() {
        let theirs = ask_nginx(&rows).await.expect("nginx, to write the page (nginx-light)");
        std::fs::write(&path, page(&rows, &theirs)).unwrap();
        return;
    }
    let text = std::fs::read_to_string(&path).unwrap();
    let noted = noted(&text);
    assert_eq!(text, page(&rows, &noted), "docs/smuggling.md is not current");
    match ask_nginx(&rows).await {
        None => println!("nginx is not installed: its column was not tried"),
        Some(theirs) => {
            for row in &rows {
                let (now, then) = (theirs.told.get(&row.key()), noted.told.get(&row.key()));
                if now != then {
                    println!(
                        "{}, {}: {now:?} of {}, {then:?} noted",
                        row.group, row.name, theirs.version
                    );
                }
            }
        }
    }
}

/// The same requests behind nginx; none, where it is not installed.
async fn ask_nginx(rows: &[Row]) -> Option<Theirs> {
    let recorder = Recorder::start().await;
    let nginx = Nginx::start(recorder.node.address).await?;
    let mut told = HashMap::new();
    for row in rows {
        told.insert(row.key(), say(nginx.address, &recorder, &row.bytes).await.told());
    }
    Some(Theirs { version: nginx::version()?, told })
}

/// nginx's column as the page has it.
fn noted(text: &str) -> Theirs {
    let (mut told, mut group, mut version) = (HashMap::new(), String::new(), String::new());
    for line in text.lines() {
        if let Some(title) = line.strip_prefix("## ") {
            group = title.into();
        }
        let cells: Vec<_> = line.split('|').map(str::trim).collect();
        match cells.as_slice() {
            ["", "request", "RFC", "Inferno", named, ..] => version = (*named).into(),
            ["", name, _, _, theirs, _, ""] => {
                told.insert((group.clone(), (*name).into()), (*theirs).into());
            }
            _ => {}
        }
    }
    Theirs { version, told }
}

fn page(rows: &[Row], theirs: &Theirs) -> String {
    let (mut page, mut group, mut unexplained) = (HEAD.to_owned(), "", Vec::new());
    for row in rows {
        // Writing to a string cannot fail.
        if row.group != group {
            group = row.group;
            let version = &theirs.version;
            let _ = write!(
                page,
                "\n## {group}\n\n| request | RFC | Inferno | {version} | why we let it pass |\n|---|---|---|---|---|\n"
            );
        }
        let other = theirs.told.get(&row.key()).map_or("", String::as_str);
        let is_laxer = row.ours.starts_with("passes") && !other.starts_with("passes");
        if is_laxer && row.why.is_empty() {
            unexplained.push(format!("{}, {}: {other}", row.group, row.name));
        }
        let why = if is_laxer { row.why } else { "" };
        let _ =
            writeln!(page, "| {} | {} | {} | {other} | {why} |", row.name, row.section, row.ours);
    }
    assert!(unexplained.is_empty(), "why are we laxer? {unexplained:#?}");
    page
}
