//! Which blocks were not used for how long: a list through an array, so that every operation is O(1).

const NONE: u32 = u32::MAX;

/// Some of the numbers `0..capacity`, the least recently added first.
#[derive(Debug)]
pub(super) struct Lru {
    /// `(older, newer)` neighbours of each number that is in it.
    links: Vec<(u32, u32)>,
    oldest: u32,
    newest: u32,
    len: usize,
}

impl Lru {
    pub(super) fn new(capacity: usize) -> Self {
        Self { links: vec![(NONE, NONE); capacity], oldest: NONE, newest: NONE, len: 0 }
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// Adds a number that is not in it.
    pub(super) fn push(&mut self, number: u32) {
        self.links[number as usize] = (self.newest, NONE);
        match self.newest {
            NONE => self.oldest = number,
            newest => self.links[newest as usize].1 = number,
        }
        self.newest = number;
        self.len += 1;
    }

    /// Takes out a number that is in it.
    pub(super) fn remove(&mut self, number: u32) {
        let (older, newer) = self.links[number as usize];
        match older {
            NONE => self.oldest = newer,
            older => self.links[older as usize].1 = newer,
        }
        match newer {
            NONE => self.newest = older,
            newer => self.links[newer as usize].0 = older,
        }
        self.len -= 1;
    }

    /// Takes out the oldest.
    pub(super) fn pop(&mut self) -> Option<u32> {
        let oldest = (self.oldest != NONE).then_some(self.oldest)?;
        self.remove(oldest);
        Some(oldest)
    }

    /// All, oldest first.
    #[cfg(test)]
    pub(super) fn iter(&self) -> impl Iterator<Item = u32> {
        let some = |number: u32| (number != NONE).then_some(number);
        std::iter::successors(some(self.oldest), move |last| some(self.links[*last as usize].1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_order_is_that_of_adding() {
        let mut lru = Lru::new(5);
        (0..5).for_each(|number| lru.push(number));
        for middle_first_last in [2, 0, 4] {
            lru.remove(middle_first_last);
        }
        lru.push(2);
        assert_eq!(lru.iter().collect::<Vec<_>>(), [1, 3, 2]);
        assert_eq!((lru.pop(), lru.pop(), lru.pop(), lru.pop()), (Some(1), Some(3), Some(2), None));
        assert_eq!(lru.len(), 0);
    }
}
