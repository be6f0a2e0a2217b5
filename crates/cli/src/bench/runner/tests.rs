//! Both loops against targets with the clock in their hands: tokio's time stands still until everything
//! waits, then jumps. Every latency here is exact to the histogram's three digits.

use std::sync::Mutex;
use std::sync::atomic::AtomicUsize;

use super::*;
use crate::bench::failure::ErrorKind;
use crate::bench::figures::Figures;
use crate::bench::watch::Answer;

const MS: Duration = Duration::from_millis(1);

/// Answers after 1 ms, but stands still from second 1 to second 3.
struct Stalling {
    started: Instant,
}

impl Target for Stalling {
    async fn ask(&self, _: Bytes, watch: &mut Watch) -> Result<Answer, Failure> {
        sleep(MS).await;
        let at = self.started.elapsed();
        if (1000 * MS..3000 * MS).contains(&at) {
            sleep(3000 * MS - at).await;
        }
        watch.content();
        Ok(Answer::default())
    }
}

/// Takes 100 ms, and counts how many requests it has at once.
#[derive(Default)]
struct Counting {
    now: AtomicUsize,
    most: AtomicUsize,
    bodies: Mutex<Vec<Bytes>>,
}

impl Target for Counting {
    async fn ask(&self, body: Bytes, watch: &mut Watch) -> Result<Answer, Failure> {
        let now = self.now.fetch_add(1, Ordering::SeqCst) + 1;
        self.most.fetch_max(now, Ordering::SeqCst);
        self.bodies.lock().expect("bodies").push(body);
        sleep(100 * MS).await;
        watch.content();
        self.now.fetch_sub(1, Ordering::SeqCst);
        Ok(Answer::default())
    }
}

/// Its first event after 50 ms, four more 10 ms apart, the end 5 ms later.
struct Streaming;

impl Target for Streaming {
    async fn ask(&self, _: Bytes, watch: &mut Watch) -> Result<Answer, Failure> {
        sleep(50 * MS).await;
        watch.content();
        for _ in 0..4 {
            sleep(10 * MS).await;
            watch.content();
        }
        sleep(5 * MS).await;
        Ok(Answer { usage: None, finish_reason: Some("length".into()) })
    }
}

/// Never answers, or only that it is not there.
enum Hopeless {
    Silent,
    Absent,
}

impl Target for Hopeless {
    async fn ask(&self, _: Bytes, _: &mut Watch) -> Result<Answer, Failure> {
        match self {
            Self::Silent => std::future::pending().await,
            Self::Absent => Err(Failure {
                kind: ErrorKind::Connect,
                status: None,
                message: "connection refused".into(),
            }),
        }
    }
}

fn loader<T>(target: T) -> Loader<T> {
    Loader {
        target: Arc::new(target),
        recorder: Recorder::new(Figures::default()),
        timeout: 60_000 * MS,
    }
}

fn numbered(index: u64) -> Prepared {
    Prepared { body: index.to_string().into(), prompt_tokens: Some(7) }
}

/// Arrivals at these times from now.
fn arrivals(times: impl IntoIterator<Item = Duration>) -> mpsc::Receiver<Arrival> {
    let times: Vec<Duration> = times.into_iter().collect();
    let (sender, receiver) = mpsc::channel(1);
    let started = Instant::now();
    tokio::spawn(async move {
        for (index, at) in (0..).zip(times) {
            let scheduled = started + at;
            tokio::time::sleep_until(scheduled).await;
            sender.send(Arrival { scheduled, request: numbered(index) }).await.ok();
        }
    });
    receiver
}

fn assert_ms(found: f64, wanted: f64) {
    assert!((found - wanted).abs() <= wanted / 500.0, "{found} ms, not {wanted}");
}

#[tokio::test(start_paused = true)]
async fn an_open_loop_sees_a_stall_in_every_request_it_delays() {
    let loader = loader(Stalling { started: Instant::now() });
    // 100 requests a second for 4 seconds, of which 2 are lost.
    loader.open_loop(1000, arrivals((0..400).map(|n| n * 10 * MS))).await;
    let figures = loader.recorder.figures();
    let told = figures.end_to_end.summary().expect("latencies");
    assert_eq!((told.count, figures.held), (400, 0));
    // Those of seconds 1 and 2 waited for the end of second 3: 200 in 10 ms steps from 2 s down.
    assert_ms(told.max, 2000.0);
    assert_ms(told.p99, 1960.0);
    assert_ms(told.p90, 1600.0);
    assert_ms(told.p50, 1.0);
    assert_ms(told.mean, (200.0 + (1..=200).map(|n| f64::from(n) * 10.0).sum::<f64>()) / 400.0);
    assert_eq!(figures.ttft.summary().map(|ttft| ttft.p99), Some(told.p99));
    assert_ms(figures.lateness.summary().expect("lateness").max, 0.0);
}

#[tokio::test(start_paused = true)]
async fn a_closed_loop_asks_less_of_a_server_that_stalls_and_omits_the_rest() {
    let started = Instant::now();
    let loader = loader(Stalling { started });
    let stop = Stop { requests: None, at: Some(started + 4000 * MS) };
    loader.closed_loop(1, stop, numbered).await;
    let told = loader.recorder.figures().end_to_end.summary().expect("latencies");
    // One request met the stall; the 200 that users would have made meanwhile were never sent.
    assert_ms(told.max, 2001.0);
    assert_ms(told.p99, 1.0);
    assert_eq!(told.count, 2000);
}

#[tokio::test(start_paused = true)]
async fn what_waits_for_a_place_is_told_and_measured_from_its_time() {
    let loader = loader(Counting::default());
    loader.open_loop(2, arrivals([Duration::ZERO; 5])).await;
    let figures = loader.recorder.figures();
    assert_eq!(loader.target.most.load(Ordering::SeqCst), 2);
    assert_eq!((figures.held, figures.completed), (3, 5));
    let (total, late) = (figures.end_to_end.summary(), figures.lateness.summary());
    // Two at once, two 100 ms later, one 200 ms later; each takes 100 ms.
    assert_ms(total.expect("latencies").mean, (100.0 + 100.0 + 200.0 + 200.0 + 300.0) / 5.0);
    assert_eq!(figures.ttft.summary(), total, "the first token, too, counts from the schedule");
    assert_ms(late.expect("lateness").mean, (100.0 + 100.0 + 200.0) / 5.0);
    assert_eq!(figures.tokens.prompt_asked, 5 * 7);
}

#[tokio::test(start_paused = true)]
async fn a_closed_loop_has_so_many_in_flight_and_sends_each_request_once() {
    let loader = loader(Counting::default());
    let stop = Stop { requests: Some(10), at: None };
    let started = Instant::now();
    loader.closed_loop(4, stop, numbered).await;
    assert_eq!(started.elapsed(), 300 * MS, "three rounds of four");
    assert_eq!(loader.target.most.load(Ordering::SeqCst), 4);
    let mut bodies = loader.target.bodies.lock().expect("bodies").clone();
    bodies.sort();
    let wanted: Vec<Bytes> = (0..10).map(|index| numbered(index).body).collect();
    assert_eq!(bodies, wanted);
}

#[tokio::test(start_paused = true)]
async fn the_events_of_a_stream_are_timed() {
    let loader = loader(Streaming);
    loader.open_loop(8, arrivals([3 * MS, 40 * MS])).await;
    let figures = loader.recorder.figures();
    let of = |latencies: &crate::bench::latency::Latencies| latencies.summary().expect("samples");
    assert_ms(of(&figures.ttft).max, 50.0);
    assert_eq!(of(&figures.inter_token).count, 8);
    assert_ms(of(&figures.inter_token).max, 10.0);
    assert_ms(of(&figures.tpot).p50, 10.0);
    assert_ms(of(&figures.end_to_end).max, 95.0);
    assert_eq!((figures.tokens.completion, figures.tokens.without_usage), (10, 2));
    assert_eq!(figures.finish_reasons["length"], 2);
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_does_not_come_is_a_timeout() {
    let loader = Loader { timeout: 5000 * MS, ..loader(Hopeless::Silent) };
    let started = Instant::now();
    loader.closed_loop(3, Stop { requests: Some(3), at: None }, numbered).await;
    assert_eq!(started.elapsed(), 5000 * MS);
    let figures = loader.recorder.figures();
    assert_eq!((figures.failed, figures.errors[&ErrorKind::Timeout].count), (3, 3));
    assert_eq!(figures.end_to_end.count(), 0, "a failure has no latency");
}

#[tokio::test(start_paused = true)]
async fn nobody_there_is_not_hammered() {
    let loader = loader(Hopeless::Absent);
    let stop = Stop { requests: None, at: Some(Instant::now() + 1000 * MS) };
    loader.closed_loop(2, stop, numbered).await;
    assert_eq!(loader.recorder.figures().failed, 20);
}

#[tokio::test]
async fn the_pacer_hands_over_everything_in_order_and_at_its_time() {
    use crate::bench::pacer::{Due, start};
    let times: Vec<_> = (0..50).map(|n| n * MS / 10).collect();
    let dues = times.clone().into_iter().zip(0..);
    let dues = dues.map(|(at, index)| Due { at, request: numbered(index) });
    let mut arrivals = start(dues).expect("a thread");
    let mut heard = Vec::new();
    while let Some(arrival) = arrivals.recv().await {
        assert!(Instant::now() >= arrival.scheduled, "early");
        heard.push(arrival);
    }
    let first = heard[0].scheduled;
    let scheduled: Vec<_> = heard.iter().map(|arrival| arrival.scheduled - first).collect();
    assert_eq!(scheduled, times);
    assert!((0..).zip(&heard).all(|(index, arrival)| arrival.request == numbered(index)));
}
