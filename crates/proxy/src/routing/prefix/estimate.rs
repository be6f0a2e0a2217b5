//! What one backend still has to prefill, how fast it does, and how old its blocks are, pure.

use inferno_shared::membership::Generation;

/// Seconds a token of prefill is believed to take before anything was seen.
const SECONDS_PER_TOKEN: f64 = 1.0 / 4000.0;
/// Prompts with fewer uncached tokens say nothing of the speed: other things take longer.
const TELLING_TOKENS: u32 = 256;
/// The shortest prefill there is.
const SERVICE_MIN_S: f64 = 1e-6;
/// How much a new sight changes what is believed.
const LEARNING: f64 = 0.1;
/// The same for streams, of which many end.
const STREAM_LEARNING: f64 = 0.02;
/// How much the number of streams has to vary (its variance) before it is told what another costs.
const SPREAD_MIN: f64 = 0.5;
/// One sight is at most so many times what is believed, or a part of it.
const SURPRISE_MAX: f64 = 4.0;
/// A backend that is not so many times faster or slower than all together counts as they do: who had one good or
/// bad moment would be preferred or shunned, and never looked at again.
const TELLING_RATIO: f64 = 1.5;

/// A prefill that a backend was sent.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Expected {
    /// The backend's.
    pub(super) ordinal: u32,
    /// What was asked for.
    pub(super) model: u64,
    generation: Generation,
    sent_s: f64,
    /// When it should end, if [`Backend::delay_s`] stays as it was.
    end_s: f64,
    delay_s: f64,
    /// How long it should take.
    service_s: f64,
    tokens: u32,
}

/// A request as a backend gets it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sent {
    pub(super) ordinal: u32,
    pub(super) model: u64,
    pub(super) now_s: f64,
    /// Tokens to be computed.
    pub(super) tokens: u32,
}

/// How busy and how fast one backend is: what is read for each decision, and so kept small. It is thought of as
/// computing one prefill after another: whatever it does, the sum is the same.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Pace {
    /// When everything it was sent should be done.
    free_s: f64,
    /// 0: what all together take.
    seconds_per_token: f32,
    /// Work that it was given, by a unit that grows.
    pub(super) work: f32,
}

impl Pace {
    #[inline]
    pub(super) fn waiting_s(&self, now_s: f64) -> f64 {
        (self.free_s - now_s).max(0.0)
    }

    /// What `tokens` take, where all together take so many seconds for one.
    #[inline]
    pub(super) fn prefill_s(&self, tokens: u32, seconds_per_token: f64) -> f64 {
        let own = f64::from(self.seconds_per_token);
        f64::from(tokens) * if own > 0.0 { own } else { seconds_per_token }
    }
}

/// What else is known of one backend.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Backend {
    generation: Generation,
    /// Any incarnation was met.
    is_known: bool,
    /// How much later than expected it has been, in all.
    delay_s: f64,
    /// What a token takes by what was seen; none before.
    seconds_per_token: Option<f64>,
    /// Counts blocks that it was sent and did not have, and half of those it had, for they too grow younger.
    clock: u32,
    /// What the clock said when it started.
    born: u32,
    /// Blocks that its cache holds.
    capacity: u32,
}

/// What is known of all backends of a model together.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Fleet {
    seconds_per_token: Option<f64>,
    service_s: f64,
    streams: Option<Streams>,
}

/// A stream that came to its end, from its first token on.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct StreamSeen {
    /// Tokens after the first.
    pub tokens: u32,
    /// How long they took.
    pub seconds: f64,
    /// Requests on its backend meanwhile, itself among them, in the mean.
    pub in_flight: f64,
}

/// How streams of one backend slow one another: means, the latest counting most, for a line through what the time
/// between tokens was at how many streams.
#[derive(Clone, Copy, Debug)]
struct Streams {
    tokens: f64,
    in_flight: f64,
    gap_s: f64,
    in_flight_squared: f64,
    product: f64,
}

impl Streams {
    fn of(seen: &StreamSeen) -> Self {
        let (tokens, in_flight) = (f64::from(seen.tokens), seen.in_flight);
        let gap_s = seen.seconds / tokens;
        let (in_flight_squared, product) = (in_flight * in_flight, in_flight * gap_s);
        Self { tokens, in_flight, gap_s, in_flight_squared, product }
    }

    fn learn(&mut self, seen: &Self) {
        let learn = |known: &mut f64, seen: f64| *known += STREAM_LEARNING * (seen - *known);
        learn(&mut self.tokens, seen.tokens);
        learn(&mut self.in_flight, seen.in_flight);
        learn(&mut self.gap_s, seen.gap_s);
        learn(&mut self.in_flight_squared, seen.in_flight_squared);
        learn(&mut self.product, seen.product);
    }

    /// Seconds that one stream more costs another over its whole length. Where all saw about the same number, nobody
    /// knows.
    fn cost_s(&self) -> f64 {
        let spread = self.in_flight_squared - self.in_flight * self.in_flight;
        if spread < SPREAD_MIN {
            return 0.0;
        }
        let slope = (self.product - self.in_flight * self.gap_s) / spread;
        slope.clamp(0.0, self.gap_s / self.in_flight) * self.tokens
    }
}

impl Fleet {
    /// Seconds that a token of prefill takes, in the mean of what was seen last.
    pub(super) fn seconds_per_token(&self) -> f64 {
        self.seconds_per_token.unwrap_or(SECONDS_PER_TOKEN)
    }

    /// Seconds that each stream on a backend costs another, as far as it was seen.
    pub(super) fn stream_s(&self) -> f64 {
        self.streams.map_or(0.0, |streams| streams.cost_s())
    }

    pub(super) fn streamed(&mut self, seen: &StreamSeen) {
        if seen.tokens == 0 || !(seen.seconds.is_finite() && seen.in_flight >= 1.0) {
            return;
        }
        let seen = Streams::of(seen);
        self.streams.get_or_insert(seen).learn(&seen);
    }

    /// What one request takes to prefill, in the mean of the latest.
    pub(super) fn service_s(&self) -> f64 {
        self.service_s
    }

    pub(super) fn sent(&mut self, service_s: f64) {
        // A fleet that has everything cached would bring it below what a processor multiplies swiftly.
        self.service_s += LEARNING * (service_s.max(SERVICE_MIN_S) - self.service_s);
    }
}

impl Backend {
    pub(super) fn is(&self, generation: Generation) -> bool {
        self.is_known && self.generation == generation
    }

    /// Another incarnation: what the one before had is lost.
    pub(super) fn restart(&mut self, generation: Generation, pace: &mut Pace) {
        let clock = self.clock.wrapping_add(1);
        *self = Self { generation, is_known: true, clock, born: clock, ..Self::default() };
        *pace = Pace { work: pace.work, ..Pace::default() };
    }

    /// Its cache holds so many tokens, 0 if it does not say: then everything it ever had.
    pub(super) fn limit(&mut self, tokens: u64, block_tokens: u32) {
        let blocks = tokens.checked_div(u64::from(block_tokens)).filter(|&blocks| blocks > 0);
        self.capacity = blocks.map_or(u32::MAX, |blocks| blocks.min(u64::from(u32::MAX)) as u32);
    }

    /// Whether it still has a block it got when its clock said `stamp`.
    pub(super) fn has(&self, stamp: u32) -> bool {
        let age = self.clock.wrapping_sub(stamp);
        age <= self.capacity && age <= self.clock.wrapping_sub(self.born)
    }

    /// It gets a prompt of so many blocks, of which it has `cached`. What its clock says then.
    pub(super) fn add(&mut self, blocks: u32, cached: u32) -> u32 {
        self.clock = self.clock.wrapping_add(blocks - cached / 2);
        self.clock
    }

    pub(super) fn send(&self, pace: &mut Pace, sent: Sent, service_s: f64) -> Expected {
        let Sent { ordinal, model, now_s, tokens } = sent;
        pace.free_s = pace.free_s.max(now_s) + service_s;
        Expected {
            ordinal,
            model,
            generation: self.generation,
            sent_s: now_s,
            end_s: pace.free_s,
            delay_s: self.delay_s,
            service_s,
            tokens,
        }
    }

    /// The first token came: all that waits behind it is late, or early, by as much as it was.
    pub(super) fn answered(
        &mut self,
        pace: &mut Pace,
        expected: &Expected,
        now_s: f64,
        fleet: &mut Fleet,
    ) {
        if expected.generation != self.generation {
            return;
        }
        let end_s = expected.end_s + self.delay_s - expected.delay_s;
        let late_s = now_s - end_s;
        self.delay_s += late_s;
        pace.free_s += late_s;
        if expected.tokens < TELLING_TOKENS {
            return;
        }
        let begun_s = expected.sent_s.max(end_s - expected.service_s);
        let seen = (now_s - begun_s) / f64::from(expected.tokens);
        let all_s = fleet.seconds_per_token();
        let known = self.seconds_per_token.unwrap_or(all_s);
        let known =
            known + LEARNING * (seen.clamp(known / SURPRISE_MAX, known * SURPRISE_MAX) - known);
        let all_s = all_s + LEARNING * (known - all_s);
        (self.seconds_per_token, fleet.seconds_per_token) = (Some(known), Some(all_s));
        let is_usual = (1.0 / TELLING_RATIO..TELLING_RATIO).contains(&(known / all_s));
        pace.seconds_per_token = if is_usual { 0.0 } else { known as f32 };
    }

    /// It will not be computed, or is not waited for any more.
    pub(super) fn abandoned(&mut self, pace: &mut Pace, expected: &Expected) {
        if expected.generation == self.generation {
            pace.free_s -= expected.service_s;
            self.delay_s -= expected.service_s;
        }
    }
}
