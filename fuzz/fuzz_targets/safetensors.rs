//! The header of a safetensors file: whatever the bytes, an error or tensors that lie within the file.
#![no_main]

use inferno_engine::safetensors::parse_header;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|file: &[u8]| {
    let Ok((data, tensors)) = parse_header(file) else { return };
    let mut covered = 0;
    for (name, place) in &tensors {
        assert!(
            data <= place.start && place.start <= place.end && place.end <= file.len(),
            "{name:?}"
        );
        let numbers: usize = place.shape.iter().product();
        assert_eq!(numbers * place.dtype.bytes(), place.end - place.start, "{name:?}");
        covered += place.end - place.start;
    }
    assert_eq!(covered, file.len() - data, "each byte of the data is one tensor's");
});
