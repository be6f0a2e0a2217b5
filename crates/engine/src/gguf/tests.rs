//! Files that lie. Each is built by hand, so that one lie at a time can be told; the real writer's files are
//! read by the tests of the engine.
#![allow(clippy::unwrap_used)]
use super::*;

/// A GGUF file in the making.
struct Builder {
    version: u32,
    keys: Option<u64>,
    tensors: Option<u64>,
    metadata: Vec<Vec<u8>>,
    infos: Vec<Vec<u8>>,
    data: usize,
}

fn text(text: &[u8]) -> Vec<u8> {
    [&(text.len() as u64).to_le_bytes(), text].concat()
}

/// Type and value of a metadata value.
fn typed(code: u32, value: &[u8]) -> Vec<u8> {
    [&code.to_le_bytes(), value].concat()
}

/// A list of as many entries as it says, or not.
fn list(code: u32, len: u64, entries: &[u8]) -> Vec<u8> {
    typed(9, &[&code.to_le_bytes()[..], &len.to_le_bytes(), entries].concat())
}

impl Builder {
    fn new() -> Self {
        Self { version: 3, keys: None, tensors: None, metadata: vec![], infos: vec![], data: 4096 }
    }

    fn key(mut self, key: &str, value: Vec<u8>) -> Self {
        self.metadata.push([text(key.as_bytes()), value].concat());
        self
    }

    /// Shape with the fastest dimension first, as in the file.
    fn tensor(mut self, name: &str, shape: &[u64], code: u32, start: u64) -> Self {
        let mut info = text(name.as_bytes());
        info.extend((shape.len() as u32).to_le_bytes());
        shape.iter().for_each(|size| info.extend(size.to_le_bytes()));
        info.extend(code.to_le_bytes());
        info.extend(start.to_le_bytes());
        self.infos.push(info);
        self
    }

    fn bytes(&self) -> Vec<u8> {
        let mut file = b"GGUF".to_vec();
        file.extend(self.version.to_le_bytes());
        file.extend(self.tensors.unwrap_or(self.infos.len() as u64).to_le_bytes());
        file.extend(self.keys.unwrap_or(self.metadata.len() as u64).to_le_bytes());
        file.extend(self.metadata.concat());
        file.extend(self.infos.concat());
        file.resize(file.len().next_multiple_of(32) + self.data, 0);
        file
    }

    fn open(&self) -> Result<GgufFile, GgufError> {
        open(&self.bytes())
    }

    fn refused(&self) -> String {
        self.open().err().expect("a lie").to_string()
    }
}

fn open(bytes: &[u8]) -> Result<GgufFile, GgufError> {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), bytes).unwrap();
    GgufFile::open(file.path()).unwrap()
}

#[test]
fn an_honest_file_is_read() {
    let names = list(8, 2, &[text(b"a"), text("日".as_bytes())].concat());
    let builder = Builder::new()
        .key("general.architecture", typed(8, &text(b"llama\0\0")))
        .key("a.count", typed(0, &[7]))
        .key("a.large", typed(10, &(1u64 << 40).to_le_bytes()))
        .key("a.negative", typed(5, &(-3i32).to_le_bytes()))
        .key("a.float", typed(6, &1.5f32.to_le_bytes()))
        .key("a.flag", typed(7, &[1]))
        .key("a.names", names)
        .key(
            "a.nested",
            list(9, 1, &[&4u32.to_le_bytes()[..], &1u64.to_le_bytes(), &[9, 0, 0, 0]].concat()),
        )
        .tensor("m", &[32, 2], 2, 0)
        .tensor("v", &[4], 0, 64);
    for version in [2, 3] {
        let mut file = Builder {
            version,
            ..Builder {
                metadata: builder.metadata.clone(),
                infos: builder.infos.clone(),
                ..Builder::new()
            }
        }
        .open()
        .unwrap();
        assert_eq!(file.text("general.architecture").unwrap(), Some("llama"));
        assert_eq!((file.count("a.count").unwrap(), file.count("a.large").unwrap()), (7, 1 << 40));
        assert_eq!(file.get("a.negative").unwrap().to_i64(), Ok(-3));
        assert_eq!(file.float("a.float").unwrap(), Some(1.5));
        assert_eq!(file.flag("a.flag").unwrap(), Some(true));
        assert_eq!(file.texts("a.names").unwrap(), ["a", "日"]);
        assert_eq!(file.integer("absent").unwrap(), None);
        assert_eq!(file.parameters(), 68);
        assert_eq!(file.unused(), ["m", "v"]);
        assert_eq!(file.tall_weight("m", 32).unwrap().rows(), 2);
        assert_eq!(file.vector("v", 4).unwrap(), [0.0; 4]);
        assert!(file.unused().is_empty() && file.has("m") && !file.has("w"));
    }
}

#[test]
fn another_kind_of_file_is_told_apart() {
    assert!(open(b"").is_err(), "an empty file");
    let version = |version| Builder { version, ..Builder::new() }.refused();
    assert!(version(1).contains("byte 4: version 1"), "{}", version(1));
    assert!(version(4).contains("2 and 3 are supported"));
    assert!(version(3u32.swap_bytes()).contains("big-endian"));
    let mut bytes = Builder::new().bytes();
    bytes[..4].copy_from_slice(b"GGML");
    let error = open(&bytes).err().unwrap().to_string();
    assert!(error.contains("byte 0: the file does not begin with GGUF"), "{error}");
}

#[test]
fn counts_and_lengths_are_not_taken_on_the_files_word() {
    let lie = |refused: String, said: &str| assert!(refused.contains(said), "{refused}");
    lie(
        Builder { tensors: Some(u64::MAX), ..Builder::new() }.refused(),
        "byte 8: 18446744073709551615 tensors; at most 65536",
    );
    lie(
        Builder { keys: Some(1 << 40), ..Builder::new() }.refused(),
        "byte 16: 1099511627776 metadata keys; at most 16384",
    );
    // Within the limit, but the file ends.
    lie(
        Builder { keys: Some(16_384), data: 8, ..Builder::new() }.refused(),
        "byte 37: a metadata key takes 8 bytes, and 3 are left",
    );
    let long = |len: u64| typed(8, &len.to_le_bytes());
    for len in [u64::MAX, u64::MAX - 7, 1 << 62, 10_000] {
        lie(Builder::new().key("k", long(len)).refused(), &format!("a string takes {len} bytes"));
    }
    for code in [0, 4, 10, 12] {
        lie(
            Builder::new().key("k", list(code, u64::MAX, &[])).refused(),
            "a list takes 18446744073709551615 bytes",
        );
        lie(Builder::new().key("k", list(code, 1 << 61, &[])).refused(), "a list takes");
    }
    for code in [7, 8, 9] {
        assert!(
            Builder::new().key("k", list(code, u64::MAX, &[])).open().is_err(),
            "a list of {code}"
        );
    }
    let name = "n".repeat(TENSOR_NAME_BYTES_MAX + 1);
    lie(Builder::new().tensor(&name, &[4], 0, 0).refused(), "at most 256 are taken");
    let key = "k".repeat(KEY_BYTES_MAX + 1);
    lie(Builder::new().key(&key, typed(0, &[1])).refused(), "at most 1024 are taken");
}

#[test]
fn lists_of_lists_end_somewhere() {
    let mut value = list(0, 0, &[]);
    for depth in 1..200 {
        let refused = Builder::new().key("k", value.clone()).open().is_err();
        assert_eq!(refused, depth > LIST_DEPTH_MAX, "{depth} levels");
        value = list(9, 1, &value[4..]);
    }
}

#[test]
fn what_is_no_value_is_refused_where_it_stands() {
    let refused = |value| Builder::new().key("k", value).refused();
    assert!(refused(typed(13, &[0; 8])).contains("byte 33: 13 is not a type of values"));
    assert!(refused(typed(7, &[2])).contains("byte 37: 2 is not a flag"));
    assert!(refused(list(7, 3, &[0, 1, 7])).contains("7 is not a flag"));
    let mut file = Builder::new().key("k", typed(0, &[1])).bytes();
    file[32] = 0xff;
    assert!(open(&file).err().unwrap().to_string().contains("a metadata key is not UTF-8"));
    let twice = Builder::new().key("k", typed(0, &[1])).key("k", typed(0, &[1])).refused();
    assert!(twice.contains("the metadata key k occurs twice"), "{twice}");
}

#[test]
fn values_of_another_kind_are_named_with_their_place() {
    let names = list(8, 2, &[text(b"fine"), text(b"\xff\xfe")].concat());
    let file = Builder::new()
        .key("k", typed(6, &f32::NAN.to_le_bytes()))
        .key("b", typed(8, &text(b"\xff")))
        .key("n", names)
        .open()
        .unwrap();
    let error = file.float("k").unwrap_err().to_string();
    assert_eq!(error, "the metadata key k (byte 37) is not a finite 32-bit float");
    assert!(file.integer("k").is_err() && file.text("k").is_err() && file.flag("k").is_err());
    assert!(file.text("b").unwrap_err().to_string().contains("not a string in UTF-8"));
    let error = file.texts("n").unwrap_err().to_string();
    assert!(error.contains("entry 1 is not a string in UTF-8"), "{error}");
    assert!(matches!(file.count("absent"), Err(GgufError::MissingKey(_))));
}

#[test]
fn an_alignment_that_is_none_is_refused() {
    for alignment in [0u32, 3, 48, u32::MAX] {
        let builder = Builder::new().key("general.alignment", typed(4, &alignment.to_le_bytes()));
        assert!(builder.refused().contains("not a power of two"), "{alignment}");
    }
    let text_value = Builder::new().key("general.alignment", typed(8, &text(b"32")));
    assert!(text_value.refused().contains("not a power of two"));
    let wide = Builder::new().key("general.alignment", typed(4, &64u32.to_le_bytes()));
    assert!(
        wide.tensor("t", &[4], 0, 32).refused().contains("its place 32 is not a multiple of 64")
    );
}

#[test]
fn tensors_lie_within_the_file_and_apart() {
    let tensor =
        |shape: &[u64], code, start| Builder::new().tensor("t", shape, code, start).refused();
    assert!(tensor(&[4], 0, 8).contains("not a multiple of 32"));
    assert!(tensor(&[1025], 0, 0).contains("reach past the end of the file"));
    assert!(tensor(&[4], 0, 4096).contains("reach past the end of the file"));
    assert!(tensor(&[4], 0, u64::MAX - 31).contains("reach past the end of the file"));
    assert!(tensor(&[1 << 62], 0, 0).contains("more elements than can be counted"));
    assert!(tensor(&[1 << 32, 1 << 32], 24, 0).contains("more elements than can be counted"));
    assert!(tensor(&[1 << 32, 1 << 31], 24, 0).contains("reach past the end of the file"));
    assert!(tensor(&[0, 4], 0, 0).contains("no elements"));
    assert!(tensor(&[16], 2, 0).contains("not whole blocks of 32 (Q4_0)"));
    assert!(tensor(&[], 0, 0).contains("0 dimensions; 1 to 4"));
    assert!(tensor(&[1, 1, 1, 1, 1], 0, 0).contains("5 dimensions"));
    assert!(tensor(&[4], 4, 0).contains("4 is not a type of tensors"));
    let overlap = Builder::new().tensor("a", &[16], 0, 0).tensor("b", &[16], 0, 32).refused();
    assert!(overlap.contains("the tensors a and b overlap at byte"), "{overlap}");
    let twice = Builder::new().tensor("a", &[4], 0, 0).tensor("a", &[4], 0, 32).refused();
    assert!(twice.contains("the tensor a occurs twice"), "{twice}");
}

#[test]
fn a_type_without_kernels_is_named() {
    let mut file = Builder::new().tensor("t", &[256, 1], 23, 0).open().unwrap();
    let error = file.weight("t", 1, 256).unwrap_err().to_string();
    assert_eq!(error, "the tensor t is of the type IQ4_XS, which is not supported");
}

#[test]
fn a_vector_with_a_number_that_is_none_is_refused() {
    let builder = Builder::new().tensor("v", &[4], 0, 0);
    let mut bytes = builder.bytes();
    let data = bytes.len() - 4096;
    bytes[data + 8..][..4].copy_from_slice(&f32::NAN.to_le_bytes());
    let error = open(&bytes).unwrap().vector("v", 4).unwrap_err().to_string();
    assert_eq!(error, format!("the tensor v (byte {data}): element 2 is NaN, not a finite number"));
}

#[test]
fn every_prefix_of_a_header_is_refused() {
    let builder = Builder::new().key("k", list(8, 2, &[text(b"a"), text(b"b")].concat())).tensor(
        "t",
        &[4],
        0,
        0,
    );
    let whole = Builder { data: 16, ..builder }.bytes();
    assert!(open(&whole).is_ok());
    for cut in 0..whole.len() {
        assert!(open(&whole[..cut]).is_err(), "cut at {cut} of {}", whole.len());
    }
}

#[test]
fn stacked_matrices_lie_one_after_the_other() {
    let builder = Builder::new().tensor("t", &[4, 2, 3], 0, 0).tensor("row", &[4], 0, 96);
    let mut bytes = builder.bytes();
    let data = bytes.len() - 4096;
    bytes[data + 32..][..4].copy_from_slice(&1.5f32.to_le_bytes());
    let mut file = open(&bytes).unwrap();
    let stacked = file.stacked_weights("t", 3, 2, 4).unwrap();
    let first = |weight: &Weight| {
        let mut row = [0.0; 4];
        weight.row_into(0, &mut row);
        row[0]
    };
    assert_eq!(stacked.iter().map(first).collect::<Vec<_>>(), [0.0, 1.5, 0.0]);
    assert!(file.stacked_weights("t", 2, 3, 4).is_err(), "another shape");
    assert_eq!(file.row_weight("row", 4).unwrap().rows(), 1);
}
