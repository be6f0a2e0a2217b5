use super::*;
use crate::{
    MetricsCollector, OperationsServer,
    config::OperationsConfig,
    endpoint::Endpoint,
    operations_client::{ClientError, OperationsClient, healthcheck},
};
use std::{net::SocketAddr, time::Duration};

/// A folder with a certificate for `name`, its key, and no authority but itself.
struct Identity {
    folder: tempfile::TempDir,
}

impl Identity {
    fn of(name: &str) -> Self {
        let identity = Self { folder: tempfile::tempdir().expect("a folder") };
        identity.renew(name);
        identity
    }

    fn renew(&self, name: &str) {
        let made = rcgen::generate_simple_self_signed([name.to_owned()]).expect("made");
        std::fs::write(self.folder.path().join("cert.pem"), made.cert.pem()).expect("written");
        let key = made.signing_key.serialize_pem();
        std::fs::write(self.folder.path().join("key.pem"), key).expect("written");
    }

    fn config(&self) -> TlsConfig {
        let file = |name: &str| Some(self.folder.path().join(name));
        TlsConfig {
            cert_file: file("cert.pem"),
            key_file: file("key.pem"),
            ca_file: file("cert.pem"),
        }
    }

    async fn serve(&self) -> (OperationsServer, ServerTls) {
        let tls = ServerTls::load(&self.config()).expect("usable").expect("given");
        let server = OperationsServer::new(MetricsCollector::new(), ([127, 0, 0, 1], 0).into())
            .with_tls(Some(tls.clone()));
        (server.start().await.expect("starts"), tls)
    }
}

fn client(trust: ClientTls) -> OperationsClient {
    OperationsClient::new(Duration::from_secs(5)).with_tls(trust)
}

fn trust(identity: &Identity) -> ClientTls {
    ClientTls::load(&identity.config()).expect("usable")
}

/// What asking `at` as `host` fails with.
async fn failure(trust: ClientTls, at: SocketAddr, host: Option<&str>) -> String {
    let endpoint = Endpoint { address: at, tls: host.map(String::from) };
    client(trust).live(endpoint).await.expect_err("must not work").to_string()
}

#[tokio::test]
async fn a_trusted_certificate_for_the_right_name_is_believed() {
    let node = Identity::of("node.internal");
    let (server, _) = node.serve().await;
    let client = client(trust(&node));
    for _ in 0..2 {
        client.live(Endpoint::tls(server.bind_addr(), "node.internal")).await.expect("alive");
    }
    let address = Identity::of("127.0.0.1");
    let (server, _) = address.serve().await;
    let client = self::client(trust(&address));
    client.vitals(Endpoint::tls(server.bind_addr(), "127.0.0.1")).await.expect("an address too");
}

#[tokio::test]
async fn everything_else_is_refused_with_a_reason() {
    let (node, stranger) = (Identity::of("node.internal"), Identity::of("node.internal"));
    let (server, _) = node.serve().await;
    let at = server.bind_addr();
    let wrong_name = failure(trust(&node), at, Some("other.internal")).await;
    assert!(wrong_name.contains("not valid for name"), "{wrong_name}");
    let wrong_issuer = failure(trust(&stranger), at, Some("node.internal")).await;
    assert!(wrong_issuer.contains("TLS: invalid peer certificate"), "{wrong_issuer}");
    let plain = failure(trust(&node), at, None).await;
    assert!(plain.contains("write https://"), "{plain}");
    let server = OperationsServer::new(MetricsCollector::new(), ([127, 0, 0, 1], 0).into());
    let server = server.start().await.expect("starts");
    let no_tls = failure(trust(&node), server.bind_addr(), Some("node.internal")).await;
    assert!(no_tls.contains("it does not speak TLS"), "{no_tls}");
}

#[tokio::test]
async fn a_renewed_certificate_is_shown_once_it_is_read_again() {
    let node = Identity::of("node.internal");
    let (server, tls) = node.serve().await;
    let endpoint = Endpoint::tls(server.bind_addr(), "node.internal");
    let (before, after) = (trust(&node), trust(&node));
    node.renew("node.internal");
    after.reload().expect("usable");
    assert!(client(after.clone()).live(endpoint.clone()).await.is_err(), "not before");
    tls.reload().expect("usable");
    client(after).live(endpoint.clone()).await.expect("the new one");
    let old = client(before).live(endpoint.clone()).await;
    assert!(matches!(old, Err(ClientError::Tls(_))), "{old:?}");
    std::fs::write(node.folder.path().join("cert.pem"), "nonsense").expect("written");
    let error = tls.reload().expect_err("unusable").to_string();
    assert!(error.contains("operations.tls.cert_file") && error.contains("cert.pem"), "{error}");
    node.renew("other");
    client(trust(&node)).live(endpoint).await.expect_err("the former one is still shown");
}

#[test]
fn what_cannot_be_used_is_named() {
    let node = Identity::of("node.internal");
    let error = |config: TlsConfig| ServerTls::load(&config).expect_err("unusable").to_string();
    let whole = node.config();
    let missing = TlsConfig { key_file: Some("/nonexistent.pem".into()), ..whole.clone() };
    assert!(error(missing).contains("operations.tls.key_file: /nonexistent.pem"));
    let other = Identity::of("other");
    let mismatch = TlsConfig { key_file: other.config().key_file, ..whole.clone() };
    assert!(error(mismatch).contains("operations.tls.key_file"));
    let no_certificate = TlsConfig { cert_file: whole.key_file.clone(), ..whole };
    assert!(error(no_certificate).contains("holds no certificate"));
    assert!(ServerTls::load(&TlsConfig::default()).expect("none").is_none());
}

#[tokio::test]
async fn a_process_knows_itself_whatever_its_certificate_is_called() {
    let node = Identity::of("node.internal");
    let (server, _) = node.serve().await;
    let config = OperationsConfig {
        addr: server.bind_addr(),
        tls: TlsConfig { ca_file: None, ..node.config() },
        ..OperationsConfig::default()
    };
    healthcheck(&config).await.expect("alive");
    let stranger = Identity::of("node.internal");
    let other = OperationsConfig { tls: stranger.config(), ..config };
    let error = healthcheck(&other).await.expect_err("another process").to_string();
    assert!(error.contains("not our own certificate"), "{error}");
}
