use super::*;
use crate::{
    MetricsCollector, OperationsServer,
    config::{Config, RegistrationConfig},
    identity::NodeIdentity,
    membership::{ModelRef, NodeType},
    operations_server::Registrations,
    registration::{registry::Registry, secrets::Secrets},
};

fn announcer(identity: &Arc<NodeIdentity>) -> Announcer {
    Announcer {
        identity: Arc::clone(identity),
        node_type: NodeType::Backend,
        traffic: ([127, 0, 0, 1], 9).into(),
        operations: ([127, 0, 0, 1], 6100).into(),
        advertise: None,
        capabilities: Vec::new(),
        models: Box::new(Vec::new),
        fingerprint: Box::new(|| None),
        max_concurrency: None,
        token: None,
        secrets: Secrets::default(),
    }
}

fn identity() -> Arc<NodeIdentity> {
    Arc::new(NodeIdentity::new(&Config::default()))
}

fn proxies(configured: &[SocketAddr]) -> Proxies {
    Proxies {
        configured: configured
            .iter()
            .map(|at| Location { host_port: at.to_string(), tls: None })
            .collect(),
        allowed_networks: RegistrationConfig::default().allowed_networks,
        loopback_only: true,
        tls: ClientTls::default(),
        default_tls: false,
    }
}

/// A proxy that takes registrations.
async fn proxy() -> (OperationsServer, Arc<Registry>) {
    let any = ([127, 0, 0, 1], 0).into();
    let server = OperationsServer::new(MetricsCollector::new(), any);
    let own = identity();
    let trust = ClientTls::default();
    let (introductions, _) = introductions();
    let registry =
        Registry::new(&Config::default(), &own, trust, introductions, server.connected_peers());
    let server = server.with_identity(own);
    let server = server.with_registrations(Registrations::Taken(Arc::clone(&registry)));
    (server.start().await.expect("starts"), registry)
}

/// Waits until `connected` is `count`; the test runner's patience is the limit.
async fn wait_for(connected: &AtomicU32, count: u32) {
    while connected.load(Relaxed) != count {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_proxy_that_does_not_answer_delays_no_other() {
    let (healthy, registry) = proxy().await;
    // It accepts, by the kernel's queue, and never says a word.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let silent = silent.local_addr().expect("bound");
    let connected = Arc::<AtomicU32>::default();
    let identity = identity();
    let known = proxies(&[silent, healthy.bind_addr()]);
    let (introductions, introduced) = introductions();
    let leases = Leases::start(announcer(&identity), known, introduced, Arc::clone(&connected));
    wait_for(&connected, 1).await;
    assert_eq!(registry.peers().peers[0].id, identity.id);
    let shown = introductions.shown();
    let held = |at: SocketAddr| {
        shown.iter().find(|proxy| proxy.operations == at.to_string()).expect("known").held
    };
    assert!(held(healthy.bind_addr()) && !held(silent));
    leases.leave().await;
    assert_eq!(registry.peers().peers[0].state.as_str(), "gone");
}

#[tokio::test]
async fn what_changes_is_told_at_once_and_so_is_the_end() {
    let (server, registry) = proxy().await;
    let identity = identity();
    let models = Arc::<std::sync::Mutex<Vec<ModelRef>>>::default();
    let read = Arc::clone(&models);
    let announcer = Announcer {
        models: Box::new(move || read.lock().expect("models").clone()),
        ..announcer(&identity)
    };
    let connected = Arc::<AtomicU32>::default();
    let (_introductions, told) = introductions();
    let known = proxies(&[server.bind_addr()]);
    let leases = Leases::start(announcer, known, told, Arc::clone(&connected));
    wait_for(&connected, 1).await;
    let before = Instant::now();
    models.lock().expect("models").push(ModelRef { id: "m".into(), sha256: None });
    leases.announce_anew();
    while registry.peers().peers[0].models.is_empty() {
        tokio::task::yield_now().await;
    }
    assert!(before.elapsed() < Duration::from_secs(2), "not at the next renewal");
    leases.drain();
    leases.drained().await;
    assert_eq!(registry.peers().peers[0].state.as_str(), "draining");
    leases.leave().await;
}

#[tokio::test]
async fn an_introduced_proxy_is_registered_with_and_a_foreign_network_is_not() {
    let (introduced, _) = proxy().await;
    let connected = Arc::<AtomicU32>::default();
    let (introductions, told) = introductions();
    let known = proxies(&[]);
    let _leases = Leases::start(announcer(&identity()), known, told, Arc::clone(&connected));
    introductions.introduce(Endpoint::plain(([8, 8, 8, 8], 6100).into()));
    introductions.introduce(introduced.bind_addr().into());
    wait_for(&connected, 1).await;
    let shown = introductions.shown();
    assert_eq!(shown.len(), 1, "{shown:?}");
    assert!(shown[0].learned && shown[0].held);
}
