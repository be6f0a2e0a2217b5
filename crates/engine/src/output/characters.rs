//! Bytes to whole characters.

/// Releases UTF-8 as soon as it is whole. A token may end inside a character; its bytes wait for the rest.
#[derive(Debug, Default)]
pub struct Characters {
    held: Vec<u8>,
}

impl Characters {
    /// Takes bytes; returns every character that is whole now. Bytes that can never become one are
    /// released as U+FFFD, one for each maximal broken sequence.
    pub fn push(&mut self, bytes: &[u8]) -> String {
        self.held.extend_from_slice(bytes);
        let whole = self.held.len() - unfinished(&self.held);
        let rest = self.held.split_off(whole);
        let released = std::mem::replace(&mut self.held, rest);
        String::from_utf8(released)
            .unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned())
    }

    /// What never became whole, as U+FFFD.
    pub fn finish(&mut self) -> String {
        String::from_utf8_lossy(&std::mem::take(&mut self.held)).into_owned()
    }
}

/// How many bytes at the end are the valid beginning of a character: invalid only because they end, where
/// a broken one is invalid whatever follows.
fn unfinished(bytes: &[u8]) -> usize {
    let tail = bytes.utf8_chunks().last().map_or(&[][..], |chunk| chunk.invalid());
    let ends_early = std::str::from_utf8(tail).is_err_and(|error| error.error_len().is_none());
    if ends_early { tail.len() } else { 0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_character_waits_for_its_last_byte() {
        let mut characters = Characters::default();
        let crab = "🦀".as_bytes();
        assert_eq!(characters.push(&crab[..1]), "");
        assert_eq!(characters.push(&crab[1..3]), "");
        assert_eq!(characters.push(&[crab[3], b'!']), "🦀!");
        assert_eq!(characters.finish(), "");
    }

    #[test]
    fn bytes_that_cannot_become_a_character_do_not_wait() {
        let mut characters = Characters::default();
        assert_eq!(characters.push(b"a\xffb"), "a\u{fffd}b");
        assert_eq!(characters.push(b"\xe6\x97"), "");
        assert_eq!(characters.push(b"x"), "\u{fffd}x");
    }

    #[test]
    fn an_answer_that_ends_inside_a_character_says_so() {
        let mut characters = Characters::default();
        assert_eq!(characters.push(&"日".as_bytes()[..2]), "");
        assert_eq!(characters.finish(), "\u{fffd}");
    }
}
