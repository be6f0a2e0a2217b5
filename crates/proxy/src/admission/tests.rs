use super::*;
use inferno_shared::{
    MetricsCollector,
    membership::{Generation, ModelRef, NodeLoad, NodeState, NodeType, NodeView, ReportedLoad},
};
use std::{
    pin::pin,
    task::{Context, Poll, Waker},
};
use tokio::sync::watch;

/// One backend that computes one request at a time.
struct One(Arc<Snapshot>);

impl One {
    fn fleet() -> Arc<dyn Fleet> {
        let address = std::net::SocketAddr::from(([127, 0, 0, 1], 1));
        let node = NodeView {
            id: "n".into(),
            ordinal: 0,
            key: 0,
            node_type: NodeType::Backend,
            generation: Generation(1),
            address,
            operations: address.into(),
            state: NodeState::Ready,
            models: vec![ModelRef { id: "m".into(), sha256: None }],
            capabilities: Vec::new(),
            fingerprint: None,
            max_concurrency: Some(1),
            token: None,
            reported: ReportedLoad::default(),
            load: Arc::new(NodeLoad::default()),
        };
        Arc::new(Self(Arc::new(Snapshot::new(1, vec![Arc::new(node)]))))
    }
}

impl Fleet for One {
    fn snapshot(&self) -> Arc<Snapshot> {
        Arc::clone(&self.0)
    }

    fn changes(&self) -> watch::Receiver<u64> {
        watch::Sender::new(0).subscribe()
    }

    fn report_connect_refused(&self, _: &str, _: Generation) {}
}

#[tokio::test]
async fn whoever_is_called_and_leaves_before_hearing_of_it_gives_the_place_back() {
    let (fleet, limits) = (One::fleet(), ProxyLimits::default());
    let lobby = Lobby::new(&limits);
    let metrics = ProxyMetrics::new(&MetricsCollector::new(), Arc::clone(&fleet), &lobby);
    let metrics = metrics.expect("new");
    let admission = Admission::start(lobby.clone(), fleet, &limits, &KeyLimits::default(), metrics);
    let enter = || admission.enter(&Caller::default()).expect("no limit");
    let (mut first, mut second, mut third) = (enter(), enter(), enter());
    first.wait("m", 0, None).await.expect("a place");
    let mut context = Context::from_waker(Waker::noop());
    {
        let mut waits = pin!(second.wait("m", 0, None));
        assert!(waits.as_mut().poll(&mut context).is_pending());
        drop(first);
        // It has been called by now, and is not asked again.
    }
    let mut waits = pin!(third.wait("m", 0, None));
    assert!(waits.as_mut().poll(&mut context).is_pending(), "the place is the second's");
    drop(second);
    assert!(matches!(waits.as_mut().poll(&mut context), Poll::Ready(Ok(_))));
    drop(enter());
    assert_eq!(lobby.waiting(), 0);
}
