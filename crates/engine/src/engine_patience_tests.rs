//! Clients that do not read, answers that come too late, and an engine with nothing to do.

use super::*;

/// Long enough for an answer to fill its channel.
fn long_model() -> TinyModel {
    TinyModel { context_length: 4_096, ..TinyModel::default() }
}

fn long_options() -> EngineOptions {
    EngineOptions { kv_bytes: Some(256 * BLOCK_BYTES), ..options() }
}

/// An engine, and a generation of 2,000 tokens whose client does not read.
fn with_stalled_reader(options: EngineOptions) -> (Engine, Generation) {
    let engine = start(&long_model(), options).unwrap();
    let unread = engine.submit(request(&[40, 41, 42], 2_000)).unwrap();
    until("it stands still", || engine.stats().paused() == 1);
    (engine, unread)
}

#[test]
fn a_stalled_reader_delays_nobody_and_loses_nothing() {
    let reference = start(&long_model(), long_options()).unwrap();
    let want = collect(reference.submit(request(&[40, 41, 42], 2_000)).unwrap()).unwrap();
    // One slot: a sequence that stands still does not keep it.
    let (engine, unread) =
        with_stalled_reader(EngineOptions { max_concurrency: 1, ..long_options() });
    let stats = engine.stats();
    let (steps, tokens) = (stats.steps_total(), stats.generation_tokens_total());
    let neighbour = collect(engine.submit(request(&[9], 100)).unwrap()).unwrap();
    assert_eq!(neighbour.ids.len(), 100);
    assert_eq!(stats.generation_tokens_total(), tokens + 100, "only the neighbour's");
    until("its last step is counted", || stats.steps_total() == steps + 100);
    assert_eq!((stats.paused(), stats.running(), stats.waiting()), (1, 0, 0));
    assert!(stats.kv_blocks_used() > 0, "it keeps its blocks");
    assert!(!engine.is_stalled(Duration::ZERO), "standing still is no stall");
    assert_eq!(collect(unread).unwrap(), want);
    until("nothing is held", || idle(&engine));
}

#[test]
fn a_stalled_reader_gives_its_blocks_to_whoever_needs_them() {
    let blocks = 4_096 / crate::cache::BLOCK_TOKENS as u64;
    let (engine, unread) = with_stalled_reader(EngineOptions {
        kv_bytes: Some(blocks * BLOCK_BYTES),
        ..long_options()
    });
    let long: Vec<u32> = (0..4_000).map(|n| 3 + n % 250).collect();
    let neighbour = collect(engine.submit(request(&long, 90)).unwrap()).unwrap();
    assert_eq!(neighbour.ids.len(), 90);
    assert!(engine.stats().preemptions_total() > 0);
    let reference = start(&long_model(), long_options()).unwrap();
    let want = collect(reference.submit(request(&[40, 41, 42], 2_000)).unwrap()).unwrap();
    assert_eq!(collect(unread).unwrap(), want, "computed again");
}

#[test]
fn a_reader_that_never_reads_is_given_up() {
    let reader_timeout = Duration::from_millis(1);
    let options = EngineOptions { reader_timeout, ..long_options() };
    let engine = start(&long_model(), options).unwrap();
    let unread = engine.submit(request(&[40, 41, 42], 2_000)).unwrap();
    until("it is given up", || engine.stats().slow_readers_total() == 1);
    until("nothing is held", || idle(&engine) && engine.stats().paused() == 0);
    assert_eq!(collect(unread), Err(GenerationError::SlowReader(reader_timeout)));
}

#[test]
fn a_stalled_reader_that_leaves_is_gone_at_once() {
    // Its leaving wakes the engine, for nothing else would in time.
    let reader_timeout = Duration::from_secs(3_600);
    let (engine, unread) = with_stalled_reader(EngineOptions { reader_timeout, ..long_options() });
    drop(unread);
    until("nothing is held", || idle(&engine) && engine.stats().paused() == 0);
    assert_eq!(engine.stats().slow_readers_total(), 0);
}

#[test]
fn a_deadline_ends_what_waits_and_what_stands_still() {
    let engine =
        start(&long_model(), EngineOptions { max_concurrency: 1, ..long_options() }).unwrap();
    let late = GenerationRequest { deadline: Some(Instant::now()), ..request(&[1], 5) };
    assert_eq!(collect(engine.submit(late).unwrap()), Err(GenerationError::DeadlineExceeded));
    let deadline = Some(Instant::now() + Duration::from_millis(300));
    let unread = GenerationRequest { deadline, ..request(&[2], 2_000) };
    let unread = engine.submit(unread).unwrap();
    until("its deadline is over", || engine.stats().deadlines_exceeded_total() == 2);
    until("nothing is held", || idle(&engine) && engine.stats().paused() == 0);
    assert_eq!(collect(unread), Err(GenerationError::DeadlineExceeded));
    let early = Some(Instant::now() + Duration::from_secs(3_600));
    let answer =
        collect(engine.submit(GenerationRequest { deadline: early, ..request(&[3], 5) }).unwrap());
    assert_eq!(answer.unwrap().ids.len(), 5);
}

#[test]
fn too_many_tokens_in_the_queue_are_refused_with_numbers() {
    let options = EngineOptions { queue_tokens_max: 8, max_concurrency: 1, ..long_options() };
    let (engine, _unread) = with_stalled_reader(EngineOptions { queue_max: 8, ..options });
    // It runs until it stands still too; what comes behind it waits.
    let _running = engine.submit(request(&[5; 100], 2_000)).unwrap();
    let stats = engine.stats();
    // Its place in the queue is given back after its slot was counted.
    until("it runs", || {
        (stats.running() == 1 || stats.paused() == 2) && stats.waiting_tokens() == 0
    });
    let limits = QueueLimits { requests: 8, tokens: 8 };
    let place = engine.inner.stats.enqueue(6, limits).unwrap();
    let refused = engine.submit(request(&[6; 3], 1)).unwrap_err();
    assert_eq!(refused, SubmitError::QueueTokens { prompt: 3, waiting: 6, limit: 8 });
    drop(place);
    assert!(engine.submit(request(&[6; 3], 1)).is_ok());
}

/// The nanoseconds that a thread of this process has had a core, and whether it sleeps.
#[cfg(target_os = "linux")]
fn thread_time(name: &str) -> Option<(u64, bool)> {
    let tasks = std::fs::read_dir("/proc/self/task").unwrap();
    let named = |path: &std::path::Path| {
        std::fs::read_to_string(path.join("comm")).is_ok_and(|comm| comm.trim_end() == name)
    };
    let task = tasks.map(|task| task.unwrap().path()).find(|path| named(path))?;
    let read = |file: &str| std::fs::read_to_string(task.join(file)).unwrap();
    let ran = read("schedstat").split(' ').next().unwrap().parse().unwrap();
    Some((ran, read("stat").rsplit(')').next().unwrap().trim_start().starts_with('S')))
}

#[cfg(target_os = "linux")]
#[test]
fn idling_takes_no_time_of_a_core() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tiny.gguf");
    long_model().write(&path).unwrap();
    let sha256 = Some("ab".repeat(32));
    let source = ModelSource { id: "idle-cpu".into(), path, sha256 };
    let engine = Engine::load(source, long_options()).unwrap();
    let name = "engine idle-cpu";
    let idles = |when: &str| {
        // A thread names itself once it runs.
        until("it sleeps", || thread_time(name).is_some_and(|(_, sleeps)| sleeps));
        let before = thread_time(name);
        // What is observed, not what is waited for.
        thread::sleep(Duration::from_millis(200));
        assert_eq!(thread_time(name), before, "{when}");
    };
    idles("without a request");
    let unread = engine.submit(request(&[40, 41, 42], 2_000)).unwrap();
    until("it stands still", || engine.stats().paused() == 1);
    idles("with a client that does not read");
    drop(unread);
    until("nothing is held", || idle(&engine));
    idles("after its last request");
}
