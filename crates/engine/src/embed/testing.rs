//! A tiny encoder with random weights, written as a real model directory. Its vectors mean nothing.

use serde_json::{Value, json};
use std::fs;
use std::io;
use std::path::Path;

const HIDDEN: usize = 48;
const HEADS: usize = 3;
const LAYERS: usize = 2;
const FEED_FORWARD: usize = 80;
const POSITIONS: usize = 40;
/// Marks, then letters at the beginning of a word and inside one.
const MARKS: [&str; 5] = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"];

/// What can be chosen about the model.
#[derive(Clone, Debug)]
pub struct TinyEncoder {
    /// Chooses the weights.
    pub seed: u64,
    /// A tensor that is left out.
    pub without: Option<String>,
    /// A tensor on top.
    pub extra: Option<String>,
    /// What all names begin with.
    pub prefix: String,
    /// Whether the weights are BF16, F32 otherwise.
    pub half: bool,
    /// Spaces after the header, which shift the data.
    pub shift: usize,
    /// Files to write, also in place of the usual ones: name and content.
    pub files: Vec<(String, Value)>,
}

impl Default for TinyEncoder {
    fn default() -> Self {
        Self {
            seed: 1,
            without: None,
            extra: None,
            prefix: String::new(),
            half: false,
            shift: 0,
            files: Vec::new(),
        }
    }
}

impl TinyEncoder {
    /// The usual `config.json`, with `changes` on top.
    #[must_use]
    pub fn config(changes: &Value) -> Value {
        let mut config = json!({
            "architectures": ["BertModel"], "model_type": "bert", "hidden_act": "gelu", "hidden_size": HIDDEN,
            "num_hidden_layers": LAYERS, "num_attention_heads": HEADS, "intermediate_size": FEED_FORWARD,
            "vocab_size": vocabulary().len(), "max_position_embeddings": POSITIONS, "type_vocab_size": 2,
            "layer_norm_eps": 1e-12, "position_embedding_type": "absolute",
        });
        if let (Some(config), Some(changes)) = (config.as_object_mut(), changes.as_object()) {
            config.extend(changes.clone());
        }
        config
    }

    /// Writes the model into `folder`, which is there.
    ///
    /// # Errors
    /// What the operating system says.
    pub fn write(&self, folder: &Path) -> io::Result<()> {
        fs::write(folder.join("config.json"), Self::config(&json!({})).to_string())?;
        fs::write(folder.join("tokenizer.json"), tokenizer().to_string())?;
        fs::write(folder.join("model.safetensors"), self.weights())?;
        for (name, content) in &self.files {
            let path = folder.join(name);
            path.parent().map_or(Ok(()), fs::create_dir_all)?;
            fs::write(path, content.to_string())?;
        }
        Ok(())
    }

    /// The bytes of `model.safetensors`.
    #[must_use]
    pub fn weights(&self) -> Vec<u8> {
        let (mut header, mut data) = (serde_json::Map::new(), Vec::new());
        let mut noise = Noise(self.seed);
        for (name, shape) in
            shapes().into_iter().chain(self.extra.clone().map(|name| (name, vec![1])))
        {
            let begin = data.len();
            let (base, spread) =
                if name.ends_with("LayerNorm.weight") { (1.0, 0.2) } else { (0.0, 0.4) };
            for _ in 0..shape.iter().product() {
                let number: f32 = base + spread * noise.next();
                match self.half {
                    true => data.extend(&number.to_le_bytes()[2..]),
                    false => data.extend(number.to_le_bytes()),
                }
            }
            let place = json!({
                "dtype": if self.half { "BF16" } else { "F32" }, "shape": shape,
                "data_offsets": [begin, data.len()],
            });
            if self.without.as_ref() == Some(&name) {
                data.truncate(begin);
            } else {
                header.insert(format!("{}{name}", self.prefix), place);
            }
        }
        let mut header = Value::Object(header).to_string();
        while !header.len().is_multiple_of(8) {
            header.push(' ');
        }
        header.extend(std::iter::repeat_n(' ', self.shift));
        [&(header.len() as u64).to_le_bytes(), header.as_bytes(), &data].concat()
    }
}

fn shapes() -> Vec<(String, Vec<usize>)> {
    let mut shapes = vec![
        ("embeddings.word_embeddings.weight".to_owned(), vec![vocabulary().len(), HIDDEN]),
        ("embeddings.position_embeddings.weight".to_owned(), vec![POSITIONS, HIDDEN]),
        ("embeddings.token_type_embeddings.weight".to_owned(), vec![2, HIDDEN]),
        ("embeddings.LayerNorm.weight".to_owned(), vec![HIDDEN]),
        ("embeddings.LayerNorm.bias".to_owned(), vec![HIDDEN]),
        ("pooler.dense.weight".to_owned(), vec![HIDDEN, HIDDEN]),
    ];
    for layer in 0..LAYERS {
        let parts = [
            ("attention.self.query", HIDDEN, HIDDEN),
            ("attention.self.key", HIDDEN, HIDDEN),
            ("attention.self.value", HIDDEN, HIDDEN),
            ("attention.output.dense", HIDDEN, HIDDEN),
            ("attention.output.LayerNorm", HIDDEN, 0),
            ("intermediate.dense", FEED_FORWARD, HIDDEN),
            ("output.dense", HIDDEN, FEED_FORWARD),
            ("output.LayerNorm", HIDDEN, 0),
        ];
        for (part, rows, cols) in parts {
            let name = |kind: &str| format!("encoder.layer.{layer}.{part}.{kind}");
            shapes.push((name("weight"), if cols == 0 { vec![rows] } else { vec![rows, cols] }));
            shapes.push((name("bias"), vec![rows]));
        }
    }
    shapes
}

fn vocabulary() -> Vec<String> {
    let first = ('a'..='z').map(String::from);
    let inside = ('a'..='z').map(|letter| format!("##{letter}"));
    MARKS.iter().map(|mark| (*mark).to_owned()).chain(first).chain(inside).collect()
}

/// A letter a token; padding and truncation as such files carry them, which must not matter.
fn tokenizer() -> Value {
    let vocabulary: serde_json::Map<_, _> =
        vocabulary().into_iter().zip(0..).map(|(token, id)| (token, json!(id))).collect();
    let added = MARKS.iter().enumerate().map(|(id, mark)| {
        json!({ "id": id, "content": mark, "special": true, "single_word": false, "lstrip": false,
            "rstrip": false, "normalized": false })
    });
    let special = |name: &str, id: u32| json!({ "id": name, "ids": [id], "tokens": [name] });
    let single = json!([
        { "SpecialToken": { "id": "[CLS]", "type_id": 0 } }, { "Sequence": { "id": "A", "type_id": 0 } },
        { "SpecialToken": { "id": "[SEP]", "type_id": 0 } },
    ]);
    let mut pair = single.as_array().cloned().unwrap_or_default();
    pair.push(json!({ "Sequence": { "id": "B", "type_id": 1 } }));
    json!({
        "version": "1.0",
        "truncation": { "max_length": 7, "strategy": "LongestFirst", "stride": 0, "direction": "Right" },
        "padding": { "strategy": { "Fixed": 7 }, "direction": "Right", "pad_to_multiple_of": null, "pad_id": 0,
            "pad_type_id": 0, "pad_token": "[PAD]" },
        "added_tokens": added.collect::<Vec<_>>(),
        "normalizer": { "type": "BertNormalizer", "clean_text": true, "handle_chinese_chars": true,
            "strip_accents": null, "lowercase": true },
        "pre_tokenizer": { "type": "BertPreTokenizer" },
        "post_processor": { "type": "TemplateProcessing", "single": single, "pair": pair,
            "special_tokens": { "[CLS]": special("[CLS]", 2), "[SEP]": special("[SEP]", 3) } },
        "decoder": null,
        "model": { "type": "WordPiece", "unk_token": "[UNK]", "continuing_subword_prefix": "##",
            "max_input_chars_per_word": 100, "vocab": vocabulary },
    })
}

/// A multiplicative generator (Lehmer), good enough to make weights differ.
struct Noise(u64);

impl Noise {
    /// In [-1, 1).
    fn next(&mut self) -> f32 {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    }
}
