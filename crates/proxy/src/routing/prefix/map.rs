//! Which blocks of prompts are on which backends, in memory of a fixed size.
//!
//! The map is a set-associative cache: a block's hash says in which eight places it may be, and a new block takes
//! the place that was used the longest time ago. Most blocks are on one backend or a few, which stand in the
//! place itself; what more have (the start of everybody's system prompt) is a bit for each backend.
//!
//! It believes what it was told; whether a backend still has a block, the caller judges by when it got it.

/// Places that a block may be in: their hashes are one cache line.
const WAYS: usize = 8;
/// Blocks in all. With 30 bytes each, 30 MiB, which the system gives as they are used.
const PLACES: usize = 1 << 20;
/// Backends that stand in the place itself.
const FEW: usize = 3;
/// Memory for the blocks that more backends have.
const MANY_BYTES: usize = 16 << 20;
/// In place of the first of a few: the block is on many, and the first stamp says where their bits are.
const MANY: u16 = u16::MAX;
/// Most backends: their numbers go up by one, 0 being nobody.
pub(super) const ORDINALS_MAX: usize = MANY as usize - 1;
const WORD: usize = u64::BITS as usize;

/// The blocks.
pub(super) struct PrefixMap {
    /// `[PLACES]`; 0: nothing there.
    hashes: Vec<u64>,
    /// `[PLACES]`, by [`PrefixMap::tick`].
    used: Vec<u32>,
    /// `[PLACES, FEW]`, each one more than an ordinal.
    holders: Vec<u16>,
    /// `[PLACES, FEW]`, when each of them got the block, by its own clock.
    stamps: Vec<u32>,
    /// `[sets, words]`: which backends have a block that many have.
    many: Vec<u64>,
    /// Sets that no block uses.
    free: Vec<u32>,
    /// Words of a set.
    words: usize,
    tick: u32,
    /// `[words]`: who has all blocks so far, while a prompt is looked up.
    alive: Vec<u64>,
    /// Where the blocks of the prompt looked up last are, as far as it was looked up.
    places: Vec<u32>,
}

/// Who has all blocks so far.
#[derive(Clone, Copy)]
enum Alive {
    Everyone,
    /// Those in [`PrefixMap::alive`].
    Many,
    /// One more than their ordinals, or 0.
    Few([u16; FEW]),
}

impl Default for PrefixMap {
    fn default() -> Self {
        Self::with_places(PLACES)
    }
}

impl PrefixMap {
    fn with_places(places: usize) -> Self {
        Self {
            hashes: vec![0; places],
            used: vec![0; places],
            holders: vec![0; places * FEW],
            stamps: vec![0; places * FEW],
            many: Vec::new(),
            free: Vec::new(),
            words: 1,
            tick: 0,
            alive: vec![0; 1],
            places: Vec::new(),
        }
    }

    /// Bytes it takes at most, whatever it is told.
    #[cfg(test)]
    pub(super) fn bytes_max(&self) -> usize {
        let (places, sets) = (self.hashes.len(), MANY_BYTES / (self.words * 8));
        places * (8 + 4 + FEW * (2 + 4)) + MANY_BYTES + sets * 4
    }

    /// Makes room for backends with ordinals below `count`; how many there is room for.
    pub(super) fn grow(&mut self, count: usize) -> usize {
        let words = count.div_ceil(WORD).next_power_of_two();
        if words > self.words {
            // Rare, and what is lost is known again with the next requests.
            self.many.clear();
            self.free.clear();
            for (place, holder) in self.holders.chunks_exact_mut(FEW).enumerate() {
                if holder[0] == MANY {
                    holder.fill(0);
                    self.hashes[place] = 0;
                }
            }
            self.words = words;
            self.alive = vec![0; words];
        }
        self.words * WORD
    }

    /// How many of `blocks`, from the first on, each backend has, into `matched`. `is_fresh` says of an
    /// ordinal and a stamp whether that backend still has it.
    pub(super) fn look_up(
        &mut self,
        blocks: &[u64],
        is_fresh: impl Fn(u16, u32) -> bool,
        matched: &mut [u32],
    ) {
        matched.fill(0);
        self.places.clear();
        let mut alive = Alive::Everyone;
        for (count, &hash) in (0..).zip(blocks) {
            let place = self.find(hash);
            self.places.extend(place.map(|place| place as u32));
            alive = match place {
                None => Alive::Few(self.lose(alive, [0; FEW], count, matched)),
                Some(place) if self.holders[place * FEW] == MANY => {
                    self.meet_many(alive, self.stamps[place * FEW], count, matched)
                }
                Some(place) => {
                    let mut few = [0; FEW];
                    for (at, one) in few.iter_mut().enumerate() {
                        let holder = self.holders[place * FEW + at];
                        if holder != 0 && is_fresh(holder - 1, self.stamps[place * FEW + at]) {
                            *one = holder;
                        }
                    }
                    Alive::Few(self.lose(alive, few, count, matched))
                }
            };
            if matches!(alive, Alive::Few([0, 0, 0])) {
                return;
            }
        }
        self.lose(alive, [0; FEW], blocks.len() as u32, matched);
    }

    /// Of those alive only `few` go on; the others have `count` blocks. Who goes on.
    fn lose(&self, alive: Alive, few: [u16; FEW], count: u32, matched: &mut [u32]) -> [u16; FEW] {
        let goes_on = |holder: u16| holder != 0 && few.contains(&holder);
        match alive {
            // Before the first block.
            Alive::Everyone => few,
            Alive::Few(before) => {
                for &holder in before.iter().filter(|&&holder| holder != 0 && !goes_on(holder)) {
                    matched[usize::from(holder) - 1] = count;
                }
                before.map(|holder| if goes_on(holder) { holder } else { 0 })
            }
            Alive::Many => {
                let is_alive = |holder: u16| {
                    let at = usize::from(holder) - 1;
                    self.alive[at / WORD] & (1 << (at % WORD)) != 0
                };
                fill(&self.alive, count, matched);
                few.map(|holder| if holder != 0 && is_alive(holder) { holder } else { 0 })
            }
        }
    }

    /// Of those alive only the ones of a set go on.
    fn meet_many(&mut self, alive: Alive, set: u32, count: u32, matched: &mut [u32]) -> Alive {
        let set = &self.many[set as usize * self.words..][..self.words];
        match alive {
            Alive::Everyone => {
                self.alive.copy_from_slice(set);
                Alive::Many
            }
            Alive::Many => {
                let mut left = 0;
                for (at, (word, &has)) in self.alive.iter_mut().zip(set).enumerate() {
                    let lost = *word & !has;
                    if lost != 0 {
                        fill(&[lost], count, &mut matched[at * WORD..]);
                    }
                    *word &= has;
                    left |= *word;
                }
                if left == 0 { Alive::Few([0; FEW]) } else { Alive::Many }
            }
            Alive::Few(before) => Alive::Few(before.map(|holder| {
                let Some(at) = usize::from(holder).checked_sub(1) else { return 0 };
                if set[at / WORD] & (1 << (at % WORD)) != 0 {
                    return holder;
                }
                matched[at] = count;
                0
            })),
        }
    }

    /// `ordinal` has `blocks` now; `stamp` is what its clock says. `is_fresh` as for [`Self::look_up`].
    pub(super) fn insert(
        &mut self,
        blocks: &[u64],
        ordinal: u16,
        stamp: u32,
        is_fresh: impl Fn(u16, u32) -> bool,
    ) {
        self.tick = self.tick.wrapping_add(1);
        // From the end: in a full bucket a prefix outlives what follows it.
        for (at, &hash) in blocks.iter().enumerate().rev() {
            // Mostly they were looked up a moment ago.
            let known = self.places.get(at).map(|&place| place as usize);
            let known = known.filter(|&place| self.hashes[place] == hash);
            let place = known.or_else(|| self.find(hash));
            let place = place.unwrap_or_else(|| self.take_place(hash));
            self.used[place] = self.tick;
            self.hold(place, ordinal + 1, stamp, &is_fresh);
        }
    }

    #[inline]
    fn hold(
        &mut self,
        place: usize,
        holder: u16,
        stamp: u32,
        is_fresh: &impl Fn(u16, u32) -> bool,
    ) {
        let at = place * FEW;
        let (holders, stamps) = (&mut self.holders[at..at + FEW], &mut self.stamps[at..at + FEW]);
        if holders[0] == MANY {
            let set = stamps[0];
            return self.set_bit(set, holder);
        }
        let known = holders.iter().position(|&known| known == holder);
        let room = || holders.iter().position(|&known| known == 0);
        let stale = || (0..FEW).find(|&at| !is_fresh(holders[at] - 1, stamps[at]));
        if let Some(at) = known.or_else(room).or_else(stale) {
            (holders[at], stamps[at]) = (holder, stamp);
            return;
        }
        let before: [u16; FEW] = [holders[0], holders[1], holders[2]];
        match self.take_set() {
            Some(set) => {
                before.iter().for_each(|&holder| self.set_bit(set, holder));
                self.set_bit(set, holder);
                (self.holders[at], self.stamps[at]) = (MANY, set);
            }
            // Any of them: which one, the tick decides.
            None => {
                let at = at + self.tick as usize % FEW;
                (self.holders[at], self.stamps[at]) = (holder, stamp);
            }
        }
    }

    /// Nobody has anything under `ordinal` any more that a bit would tell of.
    pub(super) fn forget(&mut self, ordinal: u16) {
        let (word, bit) = (usize::from(ordinal) / WORD, 1 << (usize::from(ordinal) % WORD));
        self.many.iter_mut().skip(word).step_by(self.words).for_each(|word| *word &= !bit);
    }

    #[inline]
    fn set_bit(&mut self, set: u32, holder: u16) {
        let ordinal = usize::from(holder) - 1;
        self.many[set as usize * self.words + ordinal / WORD] |= 1 << (ordinal % WORD);
    }

    /// A set without bits, if there is room for another.
    fn take_set(&mut self) -> Option<u32> {
        let words = self.words;
        if let Some(set) = self.free.pop() {
            self.many[set as usize * words..][..words].fill(0);
            return Some(set);
        }
        let set = self.many.len() / words;
        let fits = (self.many.len() + words) * size_of::<u64>() <= MANY_BYTES;
        fits.then(|| self.many.resize(self.many.len() + words, 0))?;
        u32::try_from(set).ok()
    }

    /// The places that a block may be in.
    #[inline]
    fn bucket(&self, hash: u64) -> usize {
        hash as usize % (self.hashes.len() / WAYS) * WAYS
    }

    #[inline]
    fn find(&self, hash: u64) -> Option<usize> {
        let start = self.bucket(hash);
        let hashes = &self.hashes[start..start + WAYS];
        Some(start + hashes.iter().position(|&known| known == hash)?)
    }

    /// A place for a block that has none: an empty one, or that of the block not used for longest.
    fn take_place(&mut self, hash: u64) -> usize {
        let start = self.bucket(hash);
        let age = |place: usize| match self.hashes[place] {
            0 => u32::MAX,
            _ => self.tick.wrapping_sub(self.used[place]),
        };
        let place = (start..start + WAYS).max_by_key(|&place| age(place)).unwrap_or(start);
        if self.holders[place * FEW] == MANY {
            self.free.push(self.stamps[place * FEW]);
        }
        self.holders[place * FEW..][..FEW].fill(0);
        self.hashes[place] = hash;
        place
    }
}

/// Writes `value` where `words` have a bit.
fn fill(words: &[u64], value: u32, out: &mut [u32]) {
    for (&word, out) in words.iter().zip(out.chunks_mut(WORD)) {
        if word == u64::MAX {
            out.fill(value);
            continue;
        }
        let mut left = word;
        while left != 0 {
            out[left.trailing_zeros() as usize] = value;
            left &= left - 1;
        }
    }
}

#[cfg(test)]
#[path = "map_tests.rs"]
mod tests;
