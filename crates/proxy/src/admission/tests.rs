use super::*;
use crate::routing::tests::{Still, node};
use inferno_shared::{
    MetricsCollector,
    membership::{NodeView, ReportedLoad},
};
use std::{
    pin::pin,
    task::{Context, Poll, Waker},
};

#[tokio::test]
async fn whoever_is_called_and_leaves_before_hearing_of_it_gives_the_place_back() {
    // One backend that computes one request at a time.
    let one = NodeView { max_concurrency: Some(1), ..node(0, ReportedLoad::default()) };
    let fleet: Arc<dyn Fleet> = Arc::new(Still(Arc::new(Snapshot::new(1, vec![Arc::new(one)]))));
    let limits = ProxyLimits::default();
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
