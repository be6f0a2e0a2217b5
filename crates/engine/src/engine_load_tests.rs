//! What loads, what is refused, and what is said of it.

use super::*;
use candle_core::quantized::gguf_file::{Content, Value};

#[test]
fn files_that_cannot_be_served_are_refused_by_name() {
    let refused = |model: &TinyModel| start(model, options()).err().unwrap().to_string();
    let bert = TinyModel { architecture: "bert".into(), ..TinyModel::default() };
    assert!(refused(&bert).contains("\"bert\" is not supported"));
    let partial = TinyModel { without: Some("blk.1.ffn_up.weight".into()), ..TinyModel::default() };
    assert!(refused(&partial).contains("blk.1.ffn_up.weight is missing"));
    let missing = ModelSource { id: "x".into(), path: "/nonexistent.gguf".into(), sha256: None };
    assert!(matches!(Engine::load(missing, options()), Err(LoadError::File { .. })));
}

/// Lies about sizes and places.
#[test]
fn hostile_files_are_refused_by_name() {
    let refused = |model: &TinyModel| start(model, options()).err().unwrap().to_string();
    let with = |key: &str, value: Value| {
        refused(&TinyModel { metadata: vec![(key.into(), value)], ..TinyModel::default() })
    };
    assert!(with("general.alignment", Value::U32(0)).contains("is not a power of two"));
    let huge = with("llama.attention.key_length", Value::U64(1 << 63));
    assert!(huge.contains("a head of 9223372036854775808 elements"), "{huge}");
    assert!(with("llama.block_count", Value::U32(u32::MAX)).contains("llama.block_count"));

    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("empty.gguf");
    TinyModel::default().write(&path).unwrap();
    let mut bytes = std::fs::read(&path).unwrap();
    // After the name: the number of dimensions, the columns, the rows.
    let name = b"token_embd.weight";
    let at = bytes.windows(name.len()).position(|window| window == name).unwrap();
    bytes[at + name.len() + 12..][..8].fill(0);
    let path = folder.path().join("hostile.gguf");
    std::fs::write(&path, bytes).unwrap();
    let source = ModelSource { id: "m".into(), path, sha256: None };
    let error = Engine::load(source, options()).err().unwrap().to_string();
    assert!(
        error.contains("the tensor token_embd.weight: the shape [0, 64] has no elements"),
        "{error}"
    );
}

#[test]
fn a_scale_that_is_no_number_is_refused_by_tensor_and_place() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.gguf");
    TinyModel::default().write(&path).unwrap();
    let mut bytes = std::fs::read(&path).unwrap();
    let content = Content::read(&mut std::io::Cursor::new(&bytes)).unwrap();
    let name = "blk.1.ffn_up.weight";
    let at = (content.tensor_data_offset + content.tensor_infos[name].offset) as usize;
    bytes[at..][..2].fill(0xff);
    let path = folder.path().join("odd.gguf");
    std::fs::write(&path, bytes).unwrap();
    let source = ModelSource { id: "m".into(), path, sha256: None };
    let error = Engine::load(source, options()).err().unwrap().to_string();
    let want =
        format!("the tensor {name}: the block at byte {at} holds what is not a finite number");
    assert!(error.contains(&want), "{error}");
}

#[test]
fn damaged_files_are_refused_in_one_line() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("damaged.gguf");
    TinyModel::default().write(&path).unwrap();
    let whole = std::fs::read(&path).unwrap();
    let mut number = 0;
    // A file of its own each time: a file that is mapped must not change.
    let mut refused = |bytes: &[u8]| {
        number += 1;
        let path = folder.path().join(format!("{number}.gguf"));
        std::fs::write(&path, bytes).unwrap();
        let source = ModelSource { id: "m".into(), path, sha256: None };
        let error = Engine::load(source, options()).err().map(|error| error.to_string());
        assert!(error.as_ref().is_none_or(|error| !error.contains('\n')), "{error:?}");
        error.is_some()
    };
    assert!(refused(b"") && refused(b"GGUF") && refused(&[0xff; 4096]));
    for cut in (1..whole.len()).step_by(whole.len() / 40) {
        assert!(refused(&whole[..cut]), "cut at {cut} of {}", whole.len());
    }
    // A header full of lies: whatever comes of it, it is an answer and no panic.
    for at in (8..whole.len().min(4_096)).step_by(61) {
        let mut lies = whole.clone();
        lies[at] ^= 0xff;
        refused(&lies);
    }
}

#[test]
fn a_cache_too_small_for_one_sequence_is_refused_with_numbers() {
    let small = EngineOptions { kv_bytes: Some(7 * BLOCK_BYTES), ..options() };
    let error = start(&TinyModel::default(), small.clone()).err().unwrap();
    let LoadError::Memory { needed, available, context, .. } = error else { panic!("{error}") };
    assert_eq!((needed, available, context), (8 * BLOCK_BYTES, 7 * BLOCK_BYTES, 256));
    let shorter = EngineOptions { context_max: Some(200), ..small };
    assert_eq!(start(&TinyModel::default(), shorter).unwrap().info().context_length, 200);
}

#[test]
fn a_cache_larger_than_the_memory_is_refused() {
    let vast = EngineOptions { kv_bytes: Some(u64::MAX), ..options() };
    let error = start(&TinyModel::default(), vast).err().unwrap();
    assert!(matches!(error, LoadError::Overcommitted { configured: u64::MAX, .. }), "{error}");
}

#[test]
fn a_survey_says_what_loading_would() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tiny.gguf");
    TinyModel::default().write(&path).unwrap();
    let surveyed = crate::survey(&path, &options()).unwrap();
    let source = ModelSource { id: "m".into(), path: path.clone(), sha256: None };
    let loaded = Engine::load(source, options()).unwrap();
    let info = loaded.info();
    assert_eq!((&surveyed.budget, surveyed.context_length), (&info.budget, info.context_length));
    assert!(surveyed.available_bytes > 0);
    let small = EngineOptions { kv_bytes: Some(7 * BLOCK_BYTES), ..options() };
    assert!(matches!(crate::survey(&path, &small), Err(LoadError::Memory { .. })));
}

#[test]
fn the_fingerprint_comes_from_the_manifest_or_from_the_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tiny.gguf");
    TinyModel::default().write(&path).unwrap();
    let hash: [u8; 32] = Sha256::digest(std::fs::read(&path).unwrap()).into();
    let hex: String = hash.iter().map(|byte| format!("{byte:02x}")).collect();
    let source = |sha256| ModelSource { id: "tiny".into(), path: path.clone(), sha256 };
    let given = Engine::load(source(Some(hex)), options()).unwrap();
    let hashed = Engine::load(source(None), options()).unwrap();
    until("the file is hashed", || hashed.fingerprint().is_some());
    assert_eq!(given.fingerprint(), hashed.fingerprint());
    let broken = Engine::load(source(Some("123".into())), options());
    assert!(matches!(broken, Err(LoadError::Hash(_))));
}
