//! A file behind an HTTPS address, in as many attempts as it takes.
//!
//! What came is kept in `NAME.partial`; beside it, `NAME.partial.json` says which version of which
//! address it is (RFC 9110 §8.8, validators). The next attempt, of this process or a later one,
//! asks for the rest of that same version (`Range` with `If-Range`, RFC 9110 §13.1.5, §14.2): a
//! server whose file has changed answers with all of it, and we begin again.

use std::fs;
use std::io::{ErrorKind, Read};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use http::{HeaderMap, StatusCode, Uri, header};
use serde::{Deserialize, Serialize};
use ureq::Agent;
use ureq::tls::{Certificate, RootCerts, TlsConfig};

use super::staged::CHUNK_BYTES;
use super::{Progress, PullError, Staged, StagedFile};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// From the request to the first header.
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(60);
/// Between two reads: a connection that carries nothing for so long is broken.
const STALL_TIMEOUT: Duration = Duration::from_secs(30);
const REDIRECTS_MAX: u32 = 10;
/// How often an attempt may end without a byte more than any before it.
const FRUITLESS_ATTEMPTS_MAX: u32 = 4;
/// Before the second attempt; doubled each time.
const FIRST_BACKOFF: Duration = Duration::from_millis(250);

/// Whom an HTTPS server must be vouched for by.
#[derive(Clone, Debug)]
pub enum Trust {
    /// The operating system's certificates, or those in `SSL_CERT_FILE` and `SSL_CERT_DIR`.
    System,
    /// These and no others, in DER.
    Only(Vec<Vec<u8>>),
}

/// How one attempt ended, if not well.
enum Broken {
    /// Another attempt may get further.
    Retry(String),
    /// No attempt will.
    Final(PullError),
}

impl From<PullError> for Broken {
    fn from(error: PullError) -> Self {
        Self::Final(error)
    }
}

/// What the bytes in the partial file are the beginning of.
#[derive(Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct ResumeRecord {
    url: String,
    /// A strong `ETag`, else `Last-Modified`; empty if the server gave neither: then every
    /// attempt begins again.
    validator: String,
}

/// Downloads `url` to `partial`, going on from what an earlier attempt left there.
pub(super) fn download(
    url: &str,
    expected_bytes: Option<u64>,
    trust: &Trust,
    partial: &Path,
    progress: &mut dyn Progress,
) -> Result<Staged, PullError> {
    let agent = agent(url, trust)?;
    let mut transfer = Transfer::open(&agent, url, expected_bytes, partial)?;
    let (mut furthest, mut fruitless) = (transfer.staged.bytes(), 0);
    loop {
        let reason = match transfer.attempt(progress) {
            Ok(()) => break,
            Err(Broken::Final(error)) => return Err(error),
            Err(Broken::Retry(reason)) => reason,
        };
        fruitless = if transfer.staged.bytes() > furthest { 1 } else { fruitless + 1 };
        furthest = furthest.max(transfer.staged.bytes());
        if fruitless == FRUITLESS_ATTEMPTS_MAX {
            return Err(PullError::Connection { url: url.to_owned(), reason, attempts: fruitless });
        }
        progress.note(&format!("{reason}; trying again from byte {}", transfer.staged.bytes()));
        std::thread::sleep(FIRST_BACKOFF * 2_u32.pow(fruitless - 1));
    }
    let staged = transfer.staged.finish()?;
    forget(partial);
    Ok(staged)
}

/// Drops the record beside a partial file, which is about to hold something else.
pub(super) fn forget(partial: &Path) {
    fs::remove_file(record_path(partial)).ok();
}

/// One file under way, across attempts.
struct Transfer<'a> {
    agent: &'a Agent,
    url: &'a str,
    expected_bytes: Option<u64>,
    partial: &'a Path,
    staged: StagedFile,
    record: ResumeRecord,
}

impl<'a> Transfer<'a> {
    fn open(
        agent: &'a Agent,
        url: &'a str,
        expected_bytes: Option<u64>,
        partial: &'a Path,
    ) -> Result<Self, PullError> {
        let record = read_record(partial).filter(|record| record.url == url);
        let staged = match (&record, partial.exists()) {
            (Some(_), true) => StagedFile::reopen(partial)?,
            _ => StagedFile::create(partial)?,
        };
        let record = record.unwrap_or_default();
        Ok(Self { agent, url, expected_bytes, partial, staged, record })
    }

    /// Asks for what is missing and takes it in.
    fn attempt(&mut self, progress: &mut dyn Progress) -> Result<(), Broken> {
        let response = self.ask()?;
        match response.status() {
            StatusCode::OK => self.restart(response.headers())?,
            StatusCode::PARTIAL_CONTENT => self.check_range(response.headers())?,
            StatusCode::RANGE_NOT_SATISFIABLE => return self.beyond_the_end(response.headers()),
            status => return Err(self.refused(status)),
        }
        let rest = number(response.headers(), header::CONTENT_LENGTH);
        let total = rest.map(|rest| self.staged.bytes() + rest);
        self.check_total(total)?;
        progress.begin("downloading", total.or(self.expected_bytes));
        self.take_in(response.into_body().into_reader(), total, progress)
    }

    fn ask(&self) -> Result<http::Response<ureq::Body>, Broken> {
        let mut request = self.agent.get(self.url);
        if self.staged.bytes() > 0 && !self.record.validator.is_empty() {
            request = request
                .header(header::RANGE, format!("bytes={}-", self.staged.bytes()))
                .header(header::IF_RANGE, &self.record.validator);
        }
        request.call().map_err(|error| self.not_answered(error))
    }

    /// The server sends all of it: what we have is worth nothing.
    fn restart(&mut self, headers: &HeaderMap) -> Result<(), PullError> {
        forget(self.partial);
        self.staged = StagedFile::create(self.partial)?;
        self.record = ResumeRecord { url: self.url.to_owned(), validator: String::new() };
        if let Some(validator) = validator(headers) {
            self.record.validator = validator;
            write_record(self.partial, &self.record)?;
        }
        Ok(())
    }

    /// The part sent must begin where ours ends.
    fn check_range(&mut self, headers: &HeaderMap) -> Result<(), Broken> {
        let range = text(headers, header::CONTENT_RANGE).unwrap_or_default();
        if range.starts_with(&format!("bytes {}-", self.staged.bytes())) {
            return Ok(());
        }
        self.start_over()?;
        Err(Broken::Retry(format!("the server sent another part than asked for ({range:?})")))
    }

    /// 416: either all of it is here already, or what is here is not the beginning of it.
    fn beyond_the_end(&mut self, headers: &HeaderMap) -> Result<(), Broken> {
        let range = text(headers, header::CONTENT_RANGE).unwrap_or_default();
        if range == format!("bytes */{}", self.staged.bytes()) {
            return Ok(());
        }
        self.start_over()?;
        Err(Broken::Retry("the file on the server has become shorter".to_owned()))
    }

    fn start_over(&mut self) -> Result<(), PullError> {
        forget(self.partial);
        self.record = ResumeRecord::default();
        self.staged = StagedFile::create(self.partial)?;
        Ok(())
    }

    fn check_total(&self, total: Option<u64>) -> Result<(), PullError> {
        match (self.expected_bytes, total) {
            (Some(expected), Some(found)) if expected != found => {
                Err(PullError::WrongLength { origin: self.url.to_owned(), expected, found })
            }
            _ => Ok(()),
        }
    }

    fn take_in(
        &mut self,
        mut body: impl Read,
        total: Option<u64>,
        progress: &mut dyn Progress,
    ) -> Result<(), Broken> {
        let mut buffer = vec![0; CHUNK_BYTES];
        loop {
            progress.advance_to(self.staged.bytes());
            match body.read(&mut buffer) {
                Ok(0) => break,
                Ok(read) => self.staged.write(&buffer[..read])?,
                Err(error) => return Err(Broken::Retry(error.to_string())),
            }
            // A body without a length ends when its sender likes: not later than we do.
            let bytes = self.staged.bytes();
            if self.expected_bytes.is_some_and(|expected| bytes > expected) {
                self.check_total(Some(bytes))?;
            }
        }
        match total {
            Some(total) if self.staged.bytes() < total => {
                Err(Broken::Retry("the connection ended".to_owned()))
            }
            _ => Ok(()),
        }
    }

    fn refused(&self, status: StatusCode) -> Broken {
        let passing = [StatusCode::REQUEST_TIMEOUT, StatusCode::TOO_MANY_REQUESTS];
        match status.is_server_error() || passing.contains(&status) {
            true => Broken::Retry(format!("the server answered {status}")),
            false => Broken::Final(PullError::Status { url: self.url.to_owned(), status }),
        }
    }

    fn not_answered(&self, error: ureq::Error) -> Broken {
        let url = self.url.to_owned();
        let reason = match &error {
            ureq::Error::Io(io) => io.to_string(),
            other => other.to_string(),
        };
        Broken::Final(match error {
            ureq::Error::RequireHttpsOnly(url) => PullError::NotEncrypted { url },
            ureq::Error::BadUri(_) | ureq::Error::Http(_) => PullError::BadAddress { url, reason },
            ureq::Error::HostNotFound | ureq::Error::Rustls(_) | ureq::Error::TooManyRedirects => {
                PullError::Unreachable { url, reason }
            }
            // How a certificate that does not hold comes out of the handshake.
            ureq::Error::Io(io) if io.kind() == ErrorKind::InvalidData => {
                PullError::Unreachable { url, reason }
            }
            _ => return Broken::Retry(reason),
        })
    }
}

/// A client for one address. Only HTTPS, also after a redirect; plain HTTP to this machine only,
/// and then without redirects or proxies.
fn agent(url: &str, trust: &Trust) -> Result<Agent, PullError> {
    let bad = |reason: String| PullError::BadAddress { url: url.to_owned(), reason };
    let address: Uri =
        url.parse().map_err(|error: http::uri::InvalidUri| bad(error.to_string()))?;
    let host = address.host().ok_or_else(|| bad("it has no host".to_owned()))?;
    let is_https = address.scheme_str() == Some("https");
    let is_here = is_loopback(host);
    if !is_https && !is_here {
        return Err(PullError::NotEncrypted { url: url.to_owned() });
    }
    let mut config = Agent::config_builder()
        .http_status_as_error(false)
        .https_only(is_https)
        .max_redirects(if is_https { REDIRECTS_MAX } else { 0 })
        .timeout_connect(Some(CONNECT_TIMEOUT))
        .timeout_recv_response(Some(RESPONSE_TIMEOUT))
        .timeout_per_read(Some(STALL_TIMEOUT))
        .user_agent(concat!("inferno/", env!("CARGO_PKG_VERSION")));
    if is_here {
        config = config.proxy(None);
    }
    if is_https {
        config = config.tls_config(TlsConfig::builder().root_certs(roots(trust)?).build());
    }
    Ok(config.build().new_agent())
}

fn roots(trust: &Trust) -> Result<RootCerts, PullError> {
    match trust {
        Trust::Only(certificates) => {
            Ok(certificates.iter().map(|der| Certificate::from_der(der).to_owned()).into())
        }
        Trust::System => {
            let found = rustls_native_certs::load_native_certs();
            if found.certs.is_empty() {
                let reasons: Vec<_> = found.errors.iter().map(ToString::to_string).collect();
                return Err(PullError::NoCertificates { reason: reasons.join(", ") });
            }
            Ok(found.certs.iter().map(|der| Certificate::from_der(der).to_owned()).into())
        }
    }
}

fn is_loopback(host: &str) -> bool {
    let host = host.trim_matches(['[', ']']);
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

/// What identifies this version of the file: a strong entity tag, else the time it was changed.
fn validator(headers: &HeaderMap) -> Option<String> {
    let tag = text(headers, header::ETAG).filter(|tag| !tag.starts_with("W/"));
    tag.or_else(|| text(headers, header::LAST_MODIFIED)).map(str::to_owned)
}

fn text(headers: &HeaderMap, name: header::HeaderName) -> Option<&str> {
    headers.get(name)?.to_str().ok()
}

fn number(headers: &HeaderMap, name: header::HeaderName) -> Option<u64> {
    text(headers, name)?.parse().ok()
}

fn record_path(partial: &Path) -> PathBuf {
    let mut name = partial.as_os_str().to_owned();
    name.push(".json");
    name.into()
}

/// A record that cannot be read is none: then the download begins again.
fn read_record(partial: &Path) -> Option<ResumeRecord> {
    serde_json::from_slice(&fs::read(record_path(partial)).ok()?).ok()
}

fn write_record(partial: &Path, record: &ResumeRecord) -> Result<(), PullError> {
    let path = record_path(partial);
    let text = serde_json::to_vec(record).unwrap_or_default();
    fs::write(&path, text).map_err(PullError::at("write", &path))
}
