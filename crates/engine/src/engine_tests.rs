//! The whole engine over the tiny model.

#![allow(clippy::unwrap_used)]
use super::*;
use crate::life::Life;
use crate::request::{FinishReason, GenerationEvent, SamplingParams, TokenLogprob};
use crate::testing::TinyModel;
use crate::{GenerationError, Message};
use candle_core::quantized::GgmlDType;
use proptest::prelude::*;
use sha2::{Digest, Sha256};

#[path = "engine_answer_tests.rs"]
mod answers;
#[path = "engine_load_tests.rs"]
mod loading;
#[path = "engine_patience_tests.rs"]
mod patience;

/// Bytes of one block of the tiny model's cache: layers, heads, keys and values, head, tokens, f16.
const BLOCK_BYTES: u64 = 2 * 2 * 2 * 16 * 32 * 2;

fn options() -> EngineOptions {
    EngineOptions { threads: 2, kv_bytes: Some(64 * BLOCK_BYTES), ..EngineOptions::default() }
}

fn start(model: &TinyModel, options: EngineOptions) -> Result<Engine, LoadError> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tiny.gguf");
    model.write(&path).unwrap();
    Engine::load(ModelSource { id: "tiny".into(), path, sha256: Some("ab".repeat(32)) }, options)
}

/// Polls a future once.
fn now<T>(future: impl Future<Output = T>) -> Option<T> {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(async {
        tokio::select! {
            biased;
            output = future => Some(output),
            () = std::future::ready(()) => None,
        }
    })
}

fn engine(options: EngineOptions) -> Engine {
    start(&TinyModel::default(), options).unwrap()
}

fn request(prompt: &[u32], max_tokens: usize) -> GenerationRequest {
    GenerationRequest {
        prompt: prompt.to_vec(),
        max_tokens: Some(max_tokens),
        logprobs: Some(3),
        ignore_eos: true,
        ..GenerationRequest::default()
    }
}

/// Everything a client sees of a generation.
#[derive(Clone, Debug, Default, PartialEq)]
struct Answer {
    prompt: Vec<TokenLogprob>,
    ids: Vec<u32>,
    text: String,
    logprobs: Vec<TokenLogprob>,
    reason: Option<FinishReason>,
}

fn collect(mut generation: Generation) -> Result<Answer, GenerationError> {
    let mut answer = Answer::default();
    while let Some(event) = generation.blocking_next() {
        match event {
            GenerationEvent::Prompt(logprobs) => answer.prompt = logprobs,
            GenerationEvent::Token(event) => {
                answer.ids.extend(event.token_ids);
                answer.text += &event.text;
                answer.logprobs.extend(event.logprobs);
            }
            GenerationEvent::Finished(finish) => answer.reason = Some(finish.reason),
            GenerationEvent::Failed(error) => return Err(error),
        }
    }
    Ok(answer)
}

/// Waits for something that the engine thread does in its own time.
fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while !condition() {
        assert!(Instant::now() < deadline, "waited in vain until {what}");
        thread::yield_now();
    }
}

fn idle(engine: &Engine) -> bool {
    let stats = engine.stats();
    stats.running() + stats.waiting() + stats.kv_blocks_used() == 0
}

#[test]
fn a_generation_has_every_token_once_and_ends() {
    let engine = engine(options());
    let answer = collect(engine.submit(request(&[10, 11, 12], 20)).unwrap()).unwrap();
    assert_eq!((answer.ids.len(), answer.logprobs.len()), (20, 20));
    assert_eq!(answer.reason, Some(FinishReason::Length));
    assert!(answer.logprobs.iter().all(|logprob| logprob.top.len() == 3));
    until("nothing is held", || idle(&engine));
    assert_eq!(engine.stats().generation_tokens_total(), 20);
    assert_eq!(engine.stats().prompt_tokens_total(), 3);
}

#[test]
fn the_text_is_that_of_the_tokens_less_marks() {
    let engine = engine(options());
    let answer = collect(engine.submit(request(&[10, 11], 60)).unwrap()).unwrap();
    let bytes: Vec<u8> = answer
        .ids
        .iter()
        .filter(|id| **id > 2)
        .flat_map(|id| engine.inner.tokenizer.bytes(*id).to_vec())
        .collect();
    assert_eq!(answer.text, String::from_utf8_lossy(&bytes));
}

#[test]
fn a_stop_string_ends_the_answer_before_it() {
    let engine = engine(options());
    let mut greedy = request(&[20, 30, 40], 60);
    greedy.sampling.temperature = 0.0;
    let whole = collect(engine.submit(greedy.clone()).unwrap()).unwrap();
    let stop: String = whole.text.chars().skip(3).take(2).collect();
    greedy.stop = vec![stop.clone()];
    let stopped = collect(engine.submit(greedy).unwrap()).unwrap();
    assert_eq!(stopped.text, whole.text[..whole.text.find(&stop).unwrap()]);
    assert_eq!(stopped.reason, Some(FinishReason::Stop));
    assert!(whole.ids.starts_with(&stopped.ids), "the tokens of the stop string are reported");
}

#[test]
fn an_end_token_ends_the_answer_and_counts() {
    let engine = engine(options());
    let mut forced = request(&[5], 10);
    forced.ignore_eos = false;
    forced.sampling =
        SamplingParams { temperature: 0.0, logit_bias: vec![(2, 100.0)], ..Default::default() };
    let answer = collect(engine.submit(forced.clone()).unwrap()).unwrap();
    assert_eq!(
        (answer.ids, answer.text, answer.reason),
        (vec![2], String::new(), Some(FinishReason::Stop))
    );
    forced.ignore_eos = true;
    let answer = collect(engine.submit(forced).unwrap()).unwrap();
    assert_eq!((answer.ids, answer.reason), (vec![2; 10], Some(FinishReason::Length)));
}

#[test]
fn a_dropped_generation_frees_its_slot_and_blocks() {
    let engine = engine(EngineOptions { max_concurrency: 1, ..options() });
    let mut running = engine.submit(request(&[7; 100], 150)).unwrap();
    let waiting: Vec<_> = (0..20).map(|_| engine.submit(request(&[8], 150)).unwrap()).collect();
    assert!(matches!(running.blocking_next(), Some(GenerationEvent::Token(_))));
    drop(waiting);
    drop(running);
    until("nothing is held", || idle(&engine));
    assert!(engine.stats().generation_tokens_total() < 10 * 150, "most were never computed");
    assert!(collect(engine.submit(request(&[9], 5)).unwrap()).is_ok());
}

#[test]
fn requests_that_cannot_be_served_are_refused_with_numbers() {
    let engine = engine(EngineOptions { queue_max: 0, ..options() });
    let context =
        |prompt, max_tokens| SubmitError::ContextLength { prompt, max_tokens, context: 256 };
    assert_eq!(engine.submit(request(&[1; 200], 57)).unwrap_err(), context(200, 57));
    let open = GenerationRequest { max_tokens: None, ..request(&[1; 256], 1) };
    assert_eq!(engine.submit(open).unwrap_err(), context(256, 1));
    assert!(matches!(
        engine.submit(request(&[], 1)),
        Err(SubmitError::Parameter { parameter: "prompt", .. })
    ));
    assert!(matches!(engine.submit(request(&[70_000], 1)), Err(SubmitError::Parameter { .. })));
    let mut hot = request(&[1], 1);
    hot.sampling.temperature = f32::NAN;
    assert!(matches!(
        engine.submit(hot),
        Err(SubmitError::Parameter { parameter: "temperature", .. })
    ));
    assert_eq!(engine.submit(request(&[1], 1)).unwrap_err(), SubmitError::QueueFull { limit: 0 });
}

#[test]
fn a_repeated_prompt_is_found_and_its_answer_is_the_same() {
    let engine = engine(options());
    let asked = request(&(3..100).collect::<Vec<_>>(), 10);
    let run = |request: GenerationRequest| {
        let mut finish = None;
        let mut generation = engine.submit(request).unwrap();
        let mut ids = Vec::new();
        while let Some(event) = generation.blocking_next() {
            match event {
                GenerationEvent::Prompt(_) => {}
                GenerationEvent::Token(event) => ids.extend(event.token_ids),
                GenerationEvent::Finished(end) => finish = Some(end.cached_tokens),
                GenerationEvent::Failed(error) => panic!("{error}"),
            }
        }
        (ids, finish.unwrap())
    };
    let (first, none) = run(asked.clone());
    let (again, cached) = run(asked.clone());
    assert_eq!((none, cached), (0, 96));
    assert_eq!(first, again);
    let salt = Some(crate::CacheSalt::of(b"another key"));
    assert_eq!(run(GenerationRequest { cache_salt: salt, ..asked }).1, 0, "not from another's");
    let stats = engine.stats();
    assert_eq!(stats.prefix_hit_tokens_total(), 96);
    let missed = crate::Miss::ALL.map(|why| stats.prefix_missed_tokens_total(why));
    assert_eq!(missed, [96, 0, 96, 0, 0, 3]);
    until("nothing is held", || idle(&engine));
    assert!(stats.kv_blocks_kept() >= 6, "{} blocks", stats.kv_blocks_kept());
}

#[test]
fn shutdown_ends_what_runs_and_takes_nothing_more() {
    let engine = engine(EngineOptions { max_concurrency: 1, ..options() });
    let submit = |_| engine.submit(request(&[7; 50], 200)).unwrap();
    let mut generations: Vec<_> = (0..40).map(submit).collect();
    assert!(generations[0].blocking_next().is_some());
    engine.shutdown();
    // The first may have been quicker; not all of them can.
    let last = generations.pop().unwrap();
    assert_eq!(collect(last), Err(GenerationError::Stopped));
    assert_eq!(engine.submit(request(&[7], 2)).unwrap_err(), SubmitError::Stopped);
    assert!(idle(&engine));
    assert_eq!(now(engine.failed()), None, "an end that was asked for is no failure");
}

#[test]
fn a_thread_that_dies_without_a_word_is_a_failure() {
    let mut engine = engine(options());
    Arc::get_mut(&mut engine.inner).unwrap().thread.life =
        tokio::sync::watch::channel(Life::Running).1;
    assert!(now(engine.failed()).is_some_and(|message| message.contains("died")));
}

#[test]
fn a_request_that_the_ending_engine_never_saw_is_told_so_once() {
    let stats = Arc::new(EngineStats::new(1));
    let (inbox, commands) = mpsc::channel();
    let (sender, events) = events::channel(inbox.clone());
    let (active, prompt) = Active::new(request(&[1], 1), 1, sender, Instant::now(), Level::best());
    let place = stats.enqueue(1, QueueLimits { requests: 1, tokens: 1 }).unwrap();
    let command = Command::Generate(Box::new(active), prompt, Terms::default(), place);
    inbox.send(command).unwrap();
    drop(commands);
    let mut generation = Generation::new(events);
    let stopped = GenerationError::Stopped;
    assert!(matches!(generation.blocking_next(), Some(GenerationEvent::Failed(e)) if e == stopped));
    assert!(generation.blocking_next().is_none());
    assert_eq!(stats.waiting(), 0, "its place is free");
}

#[test]
fn a_failed_shared_step_ends_the_engine_and_says_so() {
    let engine = engine(options());
    // Past the checks, straight to the thread: a token that the embedding does not have.
    let (sender, events) = events::channel(engine.inner.thread.inbox.clone());
    let (active, _) = Active::new(request(&[1], 1), 1, sender, Instant::now(), engine.inner.level);
    let place = engine.inner.stats.enqueue(1, engine.inner.queue).unwrap();
    let command = Command::Generate(Box::new(active), vec![u32::MAX], Terms::default(), place);
    engine.inner.thread.inbox.send(command).unwrap();
    assert_eq!(collect(Generation::new(events)), Err(GenerationError::Stopped));
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    // The panic's own text holds a number of the request: it stays out of what is told and logged.
    let told = runtime.block_on(engine.failed());
    assert!(told.contains("a panic") && !told.contains("4294967295"), "{told}");
}

#[test]
fn more_requests_than_a_step_has_rows_take_turns() {
    let kv_bytes = Some(600 * BLOCK_BYTES);
    let engine = engine(EngineOptions { max_concurrency: 1_000, kv_bytes, ..options() });
    let count = STEP_TOKENS_MAX + 8;
    let generations: Vec<Generation> =
        (0..count).map(|_| engine.submit(request(&[9], 20)).unwrap()).collect();
    let mut most = 0;
    until("all tokens are there", || {
        most = most.max(engine.stats().running());
        engine.stats().generation_tokens_total() == 20 * count as u64
    });
    assert_eq!(most, STEP_TOKENS_MAX as u64);
    assert!(generations.into_iter().all(|generation| collect(generation).is_ok()));
}

#[test]
fn chats_need_a_template() {
    let chat = Chat {
        messages: vec![Message { role: "user".into(), content: "hello".into(), name: None }],
        add_generation_prompt: true,
        created_unix_s: 0,
    };
    let with = engine(options());
    let prompt = with.decode(&with.render_chat(&chat).unwrap());
    assert_eq!(prompt, "<|im_start|>user\nhello<|im_end|>\n<|im_start|>assistant\n");
    let without =
        start(&TinyModel { chat_template: None, ..TinyModel::default() }, options()).unwrap();
    assert!(matches!(without.render_chat(&chat), Err(PromptError::NoTemplate)));
    assert!(!without.info().has_chat_template);
}

/// Fails when any bit of any logit changes: then raise [`crate::NUMERICS_VERSION`] and put the new value here.
#[test]
fn golden_logits() {
    assert_eq!(crate::NUMERICS_VERSION, 3);
    let golden = [
        (GgmlDType::Q4_0, "c680f921a4dc75e6"),
        (GgmlDType::Q4_1, "fa4072553d29eaf0"),
        (GgmlDType::Q5_0, "8ee94a32bbf2fc95"),
        (GgmlDType::Q5_1, "9f2e9523fe7b8e5b"),
        (GgmlDType::Q8_0, "f11b85c0d033b8ca"),
        (GgmlDType::F16, "79ac82fda177ba81"),
        (GgmlDType::F32, "f7c032c7bbdd7acd"),
    ];
    assert_eq!(
        golden.map(|(dtype, _)| (dtype, logits_of(dtype))),
        golden.map(|(dtype, hash)| (dtype, hash.to_owned()))
    );
}

/// The beginning of a hash of the log-probabilities of a greedy answer, by a model of this type.
fn logits_of(dtype: GgmlDType) -> String {
    let model = TinyModel { dtype, context_length: 512, ..TinyModel::default() };
    let engine =
        start(&model, EngineOptions { kv_bytes: Some(32 * BLOCK_BYTES), ..options() }).unwrap();
    // More than a span of attention.
    let prompt: Vec<u32> = (0..270).map(|n| 100 + n * 7 % 90).collect();
    let mut greedy = request(&prompt, 40);
    greedy.sampling.temperature = 0.0;
    let answer = collect(engine.submit(greedy).unwrap()).unwrap();
    let mut hash = Sha256::new();
    for logprob in &answer.logprobs {
        for chance in std::iter::once(&logprob.token).chain(&logprob.top) {
            hash.update(chance.id.to_le_bytes());
            hash.update(chance.logprob.to_bits().to_le_bytes());
        }
    }
    let digest: [u8; 32] = hash.finalize().into();
    digest[..8].iter().map(|byte| format!("{byte:02x}")).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]

    /// The same request gives the same tokens and the same bits of probability, alone on one thread or among
    /// neighbours on several, in chunks, with too few blocks for all (so that some are preempted).
    #[test]
    fn answers_do_not_depend_on_company(
        prompts in prop::collection::vec((prop::collection::vec(3u32..260, 1..120), 1..60usize, any::<u64>()), 2..7),
        threads in 1..4usize,
        blocks in 8..20u64,
        max_concurrency in 1..8usize,
    ) {
        let requests: Vec<GenerationRequest> = prompts.iter().map(|(prompt, max_tokens, seed)| {
            let mut request = request(prompt, *max_tokens);
            request.sampling = SamplingParams { seed: *seed, top_p: 0.9, frequency_penalty: 0.1, ..Default::default() };
            request
        }).collect();
        let alone = engine(EngineOptions { threads: 1, ..options() });
        let want: Vec<Answer> = requests.iter().map(|request| {
            collect(alone.submit(request.clone()).unwrap()).unwrap()
        }).collect();
        let crowd = engine(EngineOptions { threads, max_concurrency, kv_bytes: Some(blocks * BLOCK_BYTES), ..options() });
        let generations: Vec<Generation> = requests.iter().map(|request| {
            crowd.submit(request.clone()).unwrap()
        }).collect();
        for (generation, want) in generations.into_iter().zip(want) {
            prop_assert_eq!(collect(generation).unwrap(), want);
        }
        until("nothing is held", || idle(&crowd));
    }
}

#[test]
fn too_few_blocks_for_all_preempt_and_everybody_still_finishes() {
    let engine = engine(EngineOptions { kv_bytes: Some(8 * BLOCK_BYTES), ..options() });
    let generations: Vec<_> =
        (0..6).map(|n| engine.submit(request(&[10 + n; 30], 100)).unwrap()).collect();
    for generation in generations {
        assert_eq!(collect(generation).unwrap().ids.len(), 100);
    }
    assert!(engine.stats().preemptions_total() > 0);
}
