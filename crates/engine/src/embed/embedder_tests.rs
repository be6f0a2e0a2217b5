//! The embedder on a tiny model: what it computes, what it refuses, how it ends.

#![allow(clippy::unwrap_used)]
use super::*;
use crate::embed::load_encoder;
use crate::embed::testing::TinyEncoder;
use proptest::prelude::*;
use serde_json::{Value, json};
use std::path::Path;

struct Room {
    folder: tempfile::TempDir,
}

fn room(model: &TinyEncoder) -> Room {
    let folder = tempfile::tempdir().unwrap();
    model.write(folder.path()).unwrap();
    Room { folder }
}

impl Room {
    fn source(&self) -> ModelSource {
        ModelSource { id: "tiny".into(), path: self.folder.path().into(), sha256: None }
    }

    fn load_with(&self, options: EngineOptions) -> Result<Embedder, LoadError> {
        Embedder::load(self.source(), options)
    }

    fn load(&self) -> Embedder {
        self.load_with(EngineOptions { threads: 2, ..EngineOptions::default() }).unwrap()
    }

    fn refusal(&self) -> String {
        self.load_with(EngineOptions { threads: 1, ..EngineOptions::default() })
            .err()
            .unwrap()
            .to_string()
    }
}

fn tiny() -> Embedder {
    room(&TinyEncoder::default()).load()
}

fn strings(texts: &[&str]) -> Vec<String> {
    texts.iter().map(|text| (*text).to_owned()).collect()
}

/// Enough work for whatever a test does meanwhile: 160 steps.
fn much() -> Vec<Vec<u32>> {
    vec![vec![7; 40]; INPUTS_MAX]
}

fn bits(vector: &[f32]) -> Vec<u32> {
    vector.iter().map(|x| x.to_bits()).collect()
}

/// Until nothing is under way.
fn idle(embedder: &Embedder) {
    while embedder.stats().running() + embedder.stats().waiting() > 0 {
        thread::yield_now();
    }
}

#[test]
fn texts_become_unit_vectors_in_their_order() {
    let embedder = tiny();
    let ids = embedder.encode(&strings(&["Hello", "a b", "hello"])).unwrap();
    assert_eq!(ids[1], [2, 5, 6, 3], "no padding, no truncation, marks around it");
    assert_eq!(ids[0].len(), 7);
    let embedded = embedder.submit(ids).unwrap().blocking_finished().unwrap();
    let [first, other, again] = &embedded.vectors[..] else { panic!("three") };
    assert_eq!(bits(first), bits(again));
    assert_ne!(bits(first), bits(other));
    assert_eq!((embedder.dimensions(), first.len(), embedded.prompt_tokens), (48, 48, 7 + 4 + 7));
    for vector in &embedded.vectors {
        let length: f32 = vector.iter().map(|x| x * x).sum();
        assert!((length - 1.0).abs() < 1e-5, "{length}");
    }
    assert_eq!(embedder.stats().prompt_tokens_total(), 18);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// Random texts in random company and order, on any number of threads and at any level, through the thread
    /// and without it: the same bits as alone.
    #[test]
    fn a_vector_depends_on_its_text_alone(
        texts in prop::collection::vec(prop::collection::vec(0..57u32, 1..40), 1..40),
        threads in 1..4usize,
    ) {
        let room = room(&TinyEncoder::default());
        let encoder = load_encoder(room.folder.path()).unwrap();
        let plain = Cpu::with_level(1, Level::available()[0]).unwrap();
        let alone = |text: &Vec<u32>| {
            encoder.forward(&plain, &[&text[..]], &mut Scratch::default()).remove(0)
        };
        let expected: Vec<_> = texts.iter().map(|text| bits(&alone(text))).collect();
        let slices: Vec<&[u32]> = texts.iter().map(|text| &text[..]).collect();
        let mut scratch = Scratch::default();
        for level in Level::available() {
            let cpu = Cpu::with_level(threads, level).unwrap();
            let together = encoder.forward(&cpu, &slices, &mut scratch);
            let together: Vec<_> = together.iter().map(|vector| bits(vector)).collect();
            prop_assert_eq!(&together, &expected, "{} threads at {}", threads, level);
        }
        let embedder = room.load();
        let (front, back) = texts.split_at(texts.len() / 2);
        let other = (!front.is_empty()).then(|| embedder.submit(front.to_vec()).unwrap());
        let late = embedder.submit(back.to_vec()).unwrap().blocking_finished().unwrap();
        let early = other.map(|other| other.blocking_finished().unwrap().vectors).unwrap_or_default();
        let served: Vec<_> = early.iter().chain(&late.vectors).map(|vector| bits(vector)).collect();
        prop_assert_eq!(&served, &expected);
    }
}

#[test]
fn what_does_not_fit_is_refused_with_its_number() {
    let embedder = tiny();
    let text = |text: &str| embedder.encode(&strings(&["a", text])).unwrap_err();
    assert_eq!(text(""), EmbedError::Empty { index: 1 });
    let limit = 40 * BYTES_PER_TOKEN;
    let bytes = EmbedError::TooManyBytes { index: 1, bytes: limit + 1, limit };
    assert_eq!(text(&" ".repeat(limit + 1)), bytes);
    assert!(embedder.encode(&strings(&[&" ".repeat(limit)])).is_ok());
    let ids = |texts: Vec<Vec<u32>>| embedder.submit(texts).unwrap_err();
    assert_eq!(ids(vec![]), EmbedError::Count { inputs: 0, limit: 2048 });
    assert_eq!(ids(vec![vec![1]; 2049]), EmbedError::Count { inputs: 2049, limit: 2048 });
    assert_eq!(ids(vec![vec![1], vec![]]), EmbedError::Empty { index: 1 });
    let long = EmbedError::TooLong { index: 0, tokens: 41, limit: 40 };
    assert_eq!(ids(vec![vec![1; 41]]), long);
    assert_eq!(long.to_string(), "this model takes at most 40 tokens an input; input 0 has 41");
    assert_eq!(ids(vec![vec![57]]), EmbedError::UnknownToken { index: 0, id: 57, vocab: 57 });
    assert!(embedder.submit(vec![vec![1; 40]]).is_ok());
    let short = EngineOptions { context_max: Some(5), threads: 1, ..EngineOptions::default() };
    let short = room(&TinyEncoder::default()).load_with(short).unwrap();
    assert_eq!(short.info().context_length, 5);
    assert!(matches!(short.submit(vec![vec![1; 6]]), Err(EmbedError::TooLong { limit: 5, .. })));
}

#[test]
fn the_backlog_has_an_end_in_texts() {
    let backlog = Arc::new(AtomicUsize::new(0));
    let first = Claim::take(&backlog, 2048, 10).expect("nobody waits");
    assert!(Claim::take(&backlog, 1, 10).is_none());
    drop(first);
    let claims: Vec<_> = (0..20).map_while(|_| Claim::take(&backlog, 1, 10)).collect();
    assert_eq!(claims.len(), 10);
    // One request of the largest size does not fill the queue that is the default.
    let default = EngineOptions::default().queue_max * TEXTS_PER_PLACE;
    assert!(default > INPUTS_MAX);
    let none = EngineOptions { queue_max: 0, threads: 1, ..EngineOptions::default() };
    let none = room(&TinyEncoder::default()).load_with(none).unwrap();
    let full = EmbedError::Submit(SubmitError::QueueFull { limit: 0 });
    assert_eq!(none.submit(vec![vec![1]]).unwrap_err(), full);
    let one = EngineOptions { queue_max: 1, threads: 1, ..EngineOptions::default() };
    let one = room(&TinyEncoder::default()).load_with(one).unwrap();
    let _large = one.submit(much()).unwrap();
    while one.stats().waiting() > 0 {
        thread::yield_now();
    }
    let full = EmbedError::Backlog { limit: TEXTS_PER_PLACE };
    assert_eq!(one.submit(vec![vec![1]]).unwrap_err(), full);
}

#[test]
fn whoever_leaves_is_not_computed() {
    let embedder = tiny();
    drop(embedder.submit(much()).unwrap());
    embedder.submit(vec![vec![1]]).unwrap().blocking_finished().unwrap();
    idle(&embedder);
    let steps = embedder.stats().steps_total();
    assert!(steps < 100, "{steps} steps were made for nobody");
    assert_eq!(embedder.inner.backlog.load(std::sync::atomic::Ordering::Relaxed), 0);
}

#[test]
fn a_small_request_passes_a_large_one() {
    let embedder = tiny();
    let large = embedder.submit(much()).unwrap();
    embedder.submit(vec![vec![1]]).unwrap().blocking_finished().unwrap();
    let steps = embedder.stats().steps_total();
    assert!(steps < 100, "it waited for {steps} steps of the other's 160");
    assert_eq!(large.blocking_finished().unwrap().vectors.len(), INPUTS_MAX);
    assert_eq!(embedder.stats().prompt_tokens_total(), 40 * 2048 + 1);
}

#[test]
fn shutting_down_tells_those_under_way() {
    let embedder = tiny();
    let large = embedder.submit(much()).unwrap();
    embedder.shutdown();
    assert_eq!(large.blocking_finished().unwrap_err(), GenerationError::Stopped);
    let stopped = EmbedError::Submit(SubmitError::Stopped);
    assert_eq!(embedder.submit(vec![vec![1]]).unwrap_err(), stopped);
    assert_eq!(embedder.stats().running() + embedder.stats().waiting(), 0);
}

#[tokio::test]
async fn a_step_that_fails_ends_it_and_says_so() {
    let embedder = tiny();
    let (reply, outcome) = oneshot::channel();
    let claim = Claim::take(&embedder.inner.backlog, 1, 1).unwrap();
    // Past the check that no request passes.
    let texts = vec![vec![4_000]];
    let (submitted, started) = (Instant::now(), None);
    let vectors = vec![Vec::new()];
    let job = Job { texts, vectors, missing: 1, reply, submitted, started, _claim: claim };
    let place = embedder.inner.stats.enqueue(1, QueueLimits { requests: 1, tokens: 1 }).unwrap();
    embedder.inner.thread.inbox.send(Command::Embed(Box::new(job), place)).unwrap();
    embedder.failed().await;
    assert_eq!(Embedding(outcome).finished().await.unwrap_err(), GenerationError::Stopped);
}

#[test]
fn the_fingerprint_is_of_the_files() {
    let fingerprint = |room: &Room| {
        let embedder = room.load();
        loop {
            match embedder.fingerprint() {
                Some(fingerprint) => break fingerprint,
                None => thread::yield_now(),
            }
        }
    };
    let (first, other) =
        (room(&TinyEncoder::default()), room(&TinyEncoder { seed: 2, ..TinyEncoder::default() }));
    let hashed = fingerprint(&first);
    assert_eq!(hashed, fingerprint(&room(&TinyEncoder::default())));
    assert_ne!(hashed, fingerprint(&other));
    let sha256 = store::sha256_of(first.folder.path(), &mut |_| {}).unwrap();
    let known = ModelSource { sha256: Some(sha256), ..first.source() };
    let known = Embedder::load(known, EngineOptions::default()).unwrap();
    assert_eq!(known.fingerprint(), Some(hashed));
}

/// The vector of a text by the model in `folder`.
fn vector(folder: &Path, text: &[u32]) -> Vec<f32> {
    let encoder = load_encoder(folder).unwrap();
    encoder.forward(&Cpu::new(1).unwrap(), &[text], &mut Scratch::default()).remove(0)
}

#[test]
fn weights_are_read_under_other_names_at_other_places_and_in_half() {
    let text = [2, 9, 33, 3];
    let plain = vector(room(&TinyEncoder::default()).folder.path(), &text);
    let prefixed = TinyEncoder { prefix: "bert.".into(), ..TinyEncoder::default() };
    assert_eq!(bits(&vector(room(&prefixed).folder.path(), &text)), bits(&plain));
    let shifted = TinyEncoder { shift: 3, ..TinyEncoder::default() };
    assert_eq!(bits(&vector(room(&shifted).folder.path(), &text)), bits(&plain));
    let half = TinyEncoder { half: true, ..TinyEncoder::default() };
    let half = vector(room(&half).folder.path(), &text);
    let cosine: f32 = half.iter().zip(&plain).map(|(a, b)| a * b).sum();
    assert!(cosine > 0.999 && bits(&half) != bits(&plain), "{cosine}");
}

#[test]
fn pooling_and_normalisation_are_the_directorys() {
    let module = |kind: &str, path: &str| json!({ "type": format!("sentence_transformers.models.{kind}"), "path": path });
    let with = |modules: &[Value], pooling: &Value| {
        let files = vec![
            ("modules.json".into(), json!(modules)),
            ("1_Pooling/config.json".into(), pooling.clone()),
        ];
        room(&TinyEncoder { files, ..TinyEncoder::default() })
    };
    let (transformer, pooling) = (module("Transformer", ""), module("Pooling", "1_Pooling"));
    let mean = json!({ "pooling_mode_mean_tokens": true, "pooling_mode_cls_token": false });
    let cls = json!({ "pooling_mode_mean_tokens": false, "pooling_mode_cls_token": true });
    let text = [2, 9, 33, 3];
    let length = |vector: &[f32]| vector.iter().map(|x| x * x).sum::<f32>().sqrt();
    let usual = vector(room(&TinyEncoder::default()).folder.path(), &text);
    let raw = vector(with(&[transformer.clone(), pooling.clone()], &mean).folder.path(), &text);
    let norm = length(&raw);
    assert!((norm - 1.0).abs() > 0.01, "{norm}");
    assert!(raw.iter().zip(&usual).all(|(raw, usual)| (raw / norm - usual).abs() < 1e-6));
    let first = vector(
        with(&[transformer.clone(), pooling.clone(), module("Normalize", "2_Normalize")], &cls)
            .folder
            .path(),
        &text,
    );
    assert!((length(&first) - 1.0).abs() < 1e-5 && bits(&first) != bits(&usual));
    // A text of one token is its own mean.
    let single = vector(with(&[transformer.clone(), pooling.clone()], &cls).folder.path(), &[5]);
    assert_eq!(
        bits(&single),
        bits(&vector(with(&[transformer.clone(), pooling.clone()], &mean).folder.path(), &[5]))
    );

    let max = json!({ "pooling_mode_mean_tokens": true, "pooling_mode_max_tokens": true });
    let refused = with(&[transformer.clone(), pooling.clone()], &max).refusal();
    assert!(refused.contains("1_Pooling/config.json: pooling by"), "{refused}");
    for modules in [
        vec![transformer.clone()],
        vec![transformer.clone(), pooling.clone(), module("Dense", "2_Dense")],
        vec![module("Transformer", "0_Transformer"), pooling],
        vec![transformer, module("Pooling", "../elsewhere")],
    ] {
        let refused = with(&modules, &mean).refusal();
        assert!(
            refused.contains("modules.json: ") && refused.contains("is not supported"),
            "{refused}"
        );
    }
}

#[test]
fn other_models_are_refused_by_name() {
    for (change, reason) in [
        (
            json!({ "model_type": "roberta" }),
            r#"config.json: model_type "roberta" is not supported; supported: "bert""#,
        ),
        (json!({ "hidden_act": "gelu_new" }), r#"hidden_act "gelu_new" is not supported"#),
        (json!({ "position_embedding_type": "relative_key" }), "position_embedding_type"),
        (json!({ "is_decoder": true }), "is_decoder"),
        (json!({ "num_attention_heads": 5 }), "hidden_size 48 over 5 heads"),
        (json!({ "num_attention_heads": 0 }), "num_attention_heads 0"),
        (json!({ "layer_norm_eps": -1.0 }), "layer_norm_eps -1"),
        (json!({ "hidden_size": 1u64 << 40 }), "hidden_size 1099511627776"),
        (
            json!({ "vocab_size": "many" }),
            "config.json: invalid type: string \"many\", expected usize at line",
        ),
        (
            json!({ "num_hidden_layers": 3 }),
            "\"encoder.layer.2.attention.self.query.bias\" is missing",
        ),
        (json!({ "num_hidden_layers": 1 }), "the tensor \"encoder.layer.1."),
        (
            json!({ "intermediate_size": 81 }),
            "has the shape [80, 48], and config.json calls for [81, 48]",
        ),
        (json!({ "max_position_embeddings": 4096 }), "config.json calls for [4096, 48]"),
    ] {
        let files = vec![("config.json".into(), TinyEncoder::config(&change))];
        let refused = room(&TinyEncoder { files, ..TinyEncoder::default() }).refusal();
        assert!(refused.contains(reason), "{change}: {refused}");
    }
    for (name, content, reason) in [
        (
            "sentence_bert_config.json",
            json!({ "do_lower_case": true }),
            "do_lower_case is not supported",
        ),
        (
            "config_sentence_transformers.json",
            json!({ "default_prompt_name": "query" }),
            "a default prompt",
        ),
        ("tokenizer.json", json!({}), "tokenizer.json: "),
    ] {
        let files = vec![(name.into(), content)];
        let refused = room(&TinyEncoder { files, ..TinyEncoder::default() }).refusal();
        assert!(refused.contains(reason), "{refused}");
    }
}

#[test]
fn damaged_directories_are_refused_by_file_and_tensor() {
    let without =
        TinyEncoder { without: Some("embeddings.LayerNorm.bias".into()), ..TinyEncoder::default() };
    let refused = room(&without).refusal();
    assert!(
        refused.ends_with("model.safetensors: the tensor \"embeddings.LayerNorm.bias\" is missing"),
        "{refused}"
    );
    let extra = TinyEncoder {
        extra: Some("encoder.layer.0.crossattention.bias".into()),
        ..TinyEncoder::default()
    };
    let refused = room(&extra).refusal();
    assert!(
        refused.contains("the tensor \"encoder.layer.0.crossattention.bias\" is not supported"),
        "{refused}"
    );

    let cut = room(&TinyEncoder::default());
    let weights = cut.folder.path().join("model.safetensors");
    let bytes = std::fs::read(&weights).unwrap();
    std::fs::write(&weights, &bytes[..bytes.len() - 1]).unwrap();
    let refused = cut.refusal();
    assert!(
        refused.contains("model.safetensors: the tensor ") && refused.contains("cut short"),
        "{refused}"
    );
    let mut bad = bytes;
    let at = bad.len() - 4;
    bad[at..].copy_from_slice(&f32::NAN.to_le_bytes());
    std::fs::write(&weights, &bad).unwrap();
    assert!(
        cut.refusal().contains(&format!("the number at byte {at} is not finite")),
        "{}",
        cut.refusal()
    );
    std::fs::remove_file(&weights).unwrap();
    assert!(cut.refusal().contains("model.safetensors: No such file"), "{}", cut.refusal());
    std::fs::File::create(cut.folder.path().join("tokenizer.json"))
        .unwrap()
        .set_len(65 << 20)
        .unwrap();
    std::fs::write(&weights, TinyEncoder::default().weights()).unwrap();
    assert!(cut.refusal().contains("67108864 is the limit"), "{}", cut.refusal());
}

#[test]
fn a_survey_tells_what_it_would_take() {
    let room = room(&TinyEncoder::default());
    let survey = crate::survey(room.folder.path(), &EngineOptions::default()).unwrap();
    assert_eq!((survey.architecture.as_str(), survey.context_length), ("bert", 40));
    assert_eq!(survey.budget, room.load().info().budget);
    assert_eq!(survey.budget[0].bytes, 57 * 48 * 4, "the words' embeddings");
    let products = 2 * (4 * 48 * 48 + 2 * 48 * 80) * 4;
    assert!((products..products * 11 / 10).contains(&survey.budget[1].bytes), "{survey:?}");
}

/// The bits of a vector, in one number (FNV-1a).
fn digest(vector: &[f32]) -> u64 {
    let bytes = vector.iter().flat_map(|x| x.to_le_bytes());
    bytes.fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3)
    })
}

/// When this fails, vectors have changed: raise `NUMERICS_VERSION`, and only then put the new number here.
#[test]
fn the_numerics_version_stands_for_these_bits() {
    let text: Vec<u32> = (0..40).map(|n| n * 31 % 57).collect();
    let vector = vector(room(&TinyEncoder::default()).folder.path(), &text);
    assert_eq!((crate::NUMERICS_VERSION, digest(&vector)), (3, 17_080_805_689_351_935_722));
}
