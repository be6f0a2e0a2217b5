//! GPT-2's spelling of bytes as printable characters.

/// Appends the bytes that the characters of a byte-level token stand for. A character outside the alphabet
/// stands for itself.
pub(super) fn append_piece(token: &str, out: &mut Vec<u8>) {
    for character in token.chars() {
        match byte_of(character) {
            Some(byte) => out.push(byte),
            None => out.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes()),
        }
    }
}

/// Whether a byte is spelled as the character of its own number.
fn spells_itself(byte: u8) -> bool {
    matches!(byte, b'!'..=b'~' | 0xa1..=0xac | 0xae..=0xff)
}

/// The 68 bytes that are not printable are numbered in order from U+0100 (`bytes_to_unicode` of GPT-2's
/// `encoder.py`).
fn byte_of(character: char) -> Option<u8> {
    match u32::from(character) {
        code @ 0..=0xff => Some(code as u8).filter(|byte| spells_itself(*byte)),
        code @ 0x100..=0x143 => {
            (0..=u8::MAX).filter(|byte| !spells_itself(*byte)).nth(code as usize - 0x100)
        }
        _ => None,
    }
}

/// The character that spells a byte.
pub(crate) fn character_of(byte: u8) -> char {
    let nth = (0..byte).filter(|byte| !spells_itself(*byte)).count() as u32;
    let code = if spells_itself(byte) { u32::from(byte) } else { 0x100 + nth };
    char::from_u32(code).unwrap_or(char::REPLACEMENT_CHARACTER)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_has_one_spelling() {
        for byte in 0..=u8::MAX {
            assert_eq!(byte_of(character_of(byte)), Some(byte));
        }
        assert_eq!((character_of(b' '), character_of(b'\n')), ('Ġ', 'Ċ'));
    }

    #[test]
    fn a_character_outside_the_alphabet_stands_for_itself() {
        let mut out = Vec::new();
        append_piece("Ġ日", &mut out);
        assert_eq!(out, " 日".as_bytes());
    }
}
