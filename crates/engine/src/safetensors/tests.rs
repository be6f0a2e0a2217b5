#![allow(clippy::unwrap_used)]

use super::*;
use proptest::prelude::*;
use std::io::Write;

/// A file of this header and so many bytes of data, all 0.
fn bytes(header: &str, data: usize) -> Vec<u8> {
    let mut file = (header.len() as u64).to_le_bytes().to_vec();
    file.extend_from_slice(header.as_bytes());
    file.extend(std::iter::repeat_n(0, data));
    file
}

fn refusal(file: &[u8]) -> String {
    parse_header(file).unwrap_err().to_string()
}

fn written(file: &[u8]) -> (tempfile::NamedTempFile, SafetensorsFile) {
    let mut target = tempfile::NamedTempFile::new().unwrap();
    target.write_all(file).unwrap();
    let opened = SafetensorsFile::open(target.path()).unwrap().unwrap();
    (target, opened)
}

/// Pads a header with spaces, as writers do, so that the data begins at a multiple of 8 and `past` more.
fn padded(header: &str, past: usize) -> String {
    let spaces = (8 - (8 + header.len()) % 8) % 8 + past;
    format!("{header}{}", " ".repeat(spaces))
}

#[test]
fn tensors_are_found_by_name() {
    let header = r#"{"__metadata__":{"format":"pt"},"b":{"dtype":"F32","shape":[2,3],"data_offsets":[8,32]},
        "a":{"dtype":"I64","shape":[],"data_offsets":[0,8]}}"#;
    let (data, tensors) = parse_header(&bytes(header, 32)).unwrap();
    assert_eq!(data, 8 + header.len());
    let place = &tensors["b"];
    assert_eq!((place.dtype, &place.shape[..]), (Dtype::F32, &[2, 3][..]));
    assert_eq!((place.start, place.end), (data + 8, data + 32));
    assert_eq!(tensors.len(), 2);
}

#[test]
fn each_type_of_float_is_read_at_any_place() {
    let header = r#"{"f":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},
        "h":{"dtype":"F16","shape":[2],"data_offsets":[8,12]},
        "b":{"dtype":"BF16","shape":[2],"data_offsets":[12,16]},
        "i":{"dtype":"I32","shape":[1],"data_offsets":[16,20]}}"#;
    for past in 0..8 {
        let mut file = bytes(&padded(header, past), 0);
        file.extend([0.5f32, -3.0].iter().flat_map(|x| x.to_le_bytes()));
        file.extend([0x3c00u16, 0xc000].iter().flat_map(|x| x.to_le_bytes()));
        file.extend([0x4040u16, 0xbf80].iter().flat_map(|x| x.to_le_bytes()));
        file.extend(7u32.to_le_bytes());
        let (_target, mut file) = written(&file);
        assert_eq!(file.vector("f", 2).unwrap(), [0.5, -3.0], "{past}");
        assert_eq!(file.vector("h", 2).unwrap(), [1.0, -2.0], "{past}");
        assert_eq!(file.vector("b", 2).unwrap(), [3.0, -1.0], "{past}");
        assert_eq!(file.unused(), ["i"]);
        assert_eq!(file.parameters(), 6);
        let refused = file.vector("i", 1).unwrap_err().to_string();
        assert!(refused.contains("its type I32 is no weight's"), "{refused}");
    }
}

#[test]
fn what_a_model_does_not_find_is_named() {
    let header = padded(r#"{"m":{"dtype":"F32","shape":[2,3],"data_offsets":[0,24]}}"#, 0);
    let (_target, mut file) = written(&bytes(&header, 24));
    assert_eq!(file.matrix("m", 2, 3).map(|m| (m.rows(), m.cols())).unwrap(), (2, 3));
    let missing = file.vector("n", 3).unwrap_err().to_string();
    assert_eq!(missing, r#"the tensor "n" is missing"#);
    let shape = file.matrix("m", 3, 2).unwrap_err().to_string();
    assert_eq!(shape, r#"the tensor "m" has the shape [2, 3], and config.json calls for [3, 2]"#);
}

#[test]
fn a_number_that_is_none_is_found_where_it_is() {
    let header = padded(r#"{"v":{"dtype":"F32","shape":[4],"data_offsets":[0,16]}}"#, 0);
    for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        let mut file = bytes(&header, 16);
        let at = 8 + header.len() + 8;
        file[at..at + 4].copy_from_slice(&bad.to_le_bytes());
        let (_target, mut file) = written(&file);
        let refused = file.vector("v", 4).unwrap_err().to_string();
        assert!(refused.contains(&format!("the number at byte {at} is not finite")), "{refused}");
    }
}

#[test]
fn a_header_that_lies_about_its_length_is_refused() {
    assert_eq!(refusal(b"abc"), "it has 3 bytes, and the length of its header alone takes 8");
    for length in [3, 1 << 24, u64::MAX] {
        let mut file = length.to_le_bytes().to_vec();
        file.extend(b"{}");
        let refused = refusal(&file);
        assert!(
            refused.starts_with(&format!("byte 0: the header is said to have {length} bytes")),
            "{refused}"
        );
    }
    // Longer than the limit, and there.
    let long = format!("{{{}}}", " ".repeat(HEADER_BYTES_MAX));
    assert!(refusal(&bytes(&long, 0)).contains("is the limit"));
}

#[test]
fn a_header_that_is_none_is_refused_at_its_byte() {
    for (header, offset, reason) in [
        ("[]", 8, "invalid type: sequence, expected an object of tensors"),
        ("{\"a\":\n{\"dtype\":7}}", 8 + 6 + 9, "invalid type: integer `7`, expected a string"),
        (r#"{"a":{"dtype":"F32","shape":[1]}}"#, 8 + 31, "missing field `data_offsets`"),
        (r#"{"a":{"shape":[-1]}}"#, 8 + 16, "invalid value: integer `-1`, expected u64"),
        (r#"{"a":{"extra":1}}"#, 8 + 12, "unknown field `extra`"),
        ("{", 8, "EOF while parsing an object"),
        ("{}\0", 8 + 2, "trailing characters"),
    ] {
        let refused = refusal(&bytes(header, 0));
        let expected = format!("byte {offset}: the header is wrong: {reason}");
        assert!(refused.starts_with(&expected), "{header}: {refused}");
    }
}

#[test]
fn impossible_tensors_are_refused_by_name_and_place() {
    let tensor = |name: &str, dtype: &str, shape: &str, offsets: &str| {
        format!(r#""{name}":{{"dtype":"{dtype}","shape":{shape},"data_offsets":{offsets}}}"#)
    };
    let four = tensor("a", "F32", "[1]", "[0,4]");
    for (tensors, data, reason) in [
        (tensor("t", "F31", "[1]", "[0,4]"), 4, "its type \"F31\" is unknown"),
        (tensor("t", "F32", "[1]", "[0,4]"), 3, "it ends at byte"),
        (tensor("t", "F32", "[1]", "[4,0]"), 4, "it ends at byte"),
        (tensor("t", "F32", "[2]", "[0,4]"), 4, "[2] of F32 takes 8 bytes, and it has 4"),
        (tensor("t", "F32", "[4611686018427387904,4]", "[0,4]"), 4, "is larger than memory"),
        (tensor("t", "F32", "[1,1,1,1,1,1,1,1,1]", "[0,4]"), 4, "more than 8 dimensions"),
        (
            tensor("t", "F32", "[1]", "[18446744073709551612,18446744073709551615]"),
            4,
            "it ends at byte",
        ),
        (format!("{four},{}", tensor("t", "F32", "[1]", "[2,6]")), 6, "it overlaps another"),
        (format!("{four},{}", tensor("t", "F32", "[1]", "[0,4]")), 4, "it overlaps another"),
        (format!("{four},{}", tensor("t", "F32", "[1]", "[8,12]")), 12, "on are no tensor's"),
        (
            format!(
                "{},{}",
                tensor("t", "F32", "[1]", "[0,4]"),
                tensor("t", "F32", "[1]", "[4,8]")
            ),
            8,
            "two tensors have this name",
        ),
    ] {
        let refused = refusal(&bytes(&format!("{{{tensors}}}"), data));
        assert!(refused.starts_with("the tensor \"t\" at byte "), "{tensors}: {refused}");
        assert!(refused.contains(reason), "{tensors}: {refused}");
    }
    let refused = refusal(&bytes(&format!("{{{four}}}"), 9));
    assert!(refused.contains("goes on to byte"), "{refused}");
}

#[test]
fn a_hostile_name_is_shown_without_its_length_and_its_controls() {
    let name = format!("\\u001b[31m{}", "x".repeat(10_000));
    let header = format!(r#"{{"{name}":{{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}}}"#);
    let refused = refusal(&bytes(&header, 3));
    assert!(refused.len() < 400 && !refused.contains('\u{1b}'), "{refused}");
}

proptest! {
    #[test]
    fn no_bytes_break_it(file in prop::collection::vec(any::<u8>(), 0..200)) {
        drop(parse_header(&file));
    }

    #[test]
    fn no_damage_breaks_it(at in 0..200usize, byte: u8, cut in 0..200usize) {
        let header = r#"{"b":{"dtype":"F32","shape":[2,3],"data_offsets":[8,32]},"a":{"dtype":"I64","shape":[],"data_offsets":[0,8]}}"#;
        let mut file = bytes(header, 32);
        let len = file.len();
        file[at % len] = byte;
        if let Ok((data, tensors)) = parse_header(&file[..len - cut % len]) {
            prop_assert!(tensors.values().all(|place| data <= place.start && place.end <= len));
        }
    }
}
