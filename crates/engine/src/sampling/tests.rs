//! Sampling against the definitions, spelled out the slow way.

use super::*;
use proptest::prelude::*;

const KEY: Key = Key { seed: 7, prompt_index: 0, choice: 0 };

fn sample(logits: &[f32], params: &SamplingParams, position: usize) -> u32 {
    let sampler = Sampler::new(params.clone(), KEY, Level::best());
    sample_within(&sampler, logits, Restrictions::default(), position).expect("finite")
}

fn sample_within(
    sampler: &Sampler,
    logits: &[f32],
    restrictions: Restrictions<'_>,
    position: usize,
) -> Result<u32, SamplingError> {
    sampler.sample(logits, &History::default(), restrictions, position, &mut Scratch::default())
}

/// Ids that the definitions of top-k, top-p and min-p keep, likeliest first, from a full sort in double
/// precision.
fn kept(logits: &[f32], params: &SamplingParams) -> Vec<u32> {
    let mut ids: Vec<u32> = (0..logits.len() as u32).collect();
    ids.sort_by(|a, b| logits[*b as usize].total_cmp(&logits[*a as usize]).then(a.cmp(b)));
    let largest = f64::from(logits[ids[0] as usize]);
    let chance = |id: u32| (f64::from(logits[id as usize]) - largest).exp();
    if params.top_k > 0 {
        ids.truncate(params.top_k);
    }
    let total: f64 = ids.iter().map(|id| chance(*id)).sum();
    ids.retain(|id| chance(*id) >= f64::from(params.min_p));
    let mut sum = 0.0;
    let nucleus = ids.iter().position(|id| {
        sum += chance(*id);
        sum >= f64::from(params.top_p) * total
    });
    ids.truncate(nucleus.map_or(ids.len(), |index| index + 1));
    ids
}

#[test]
fn temperature_zero_takes_the_lowest_of_the_likeliest() {
    let params = SamplingParams { temperature: 0.0, ..Default::default() };
    assert_eq!(sample(&[1.0, 3.0, 3.0, 2.0], &params, 0), 1);
}

#[test]
fn bias_moves_the_choice() {
    let params =
        SamplingParams { temperature: 0.0, logit_bias: vec![(0, 5.0)], ..Default::default() };
    assert_eq!(sample(&[1.0, 3.0], &params, 0), 0);
}

#[test]
fn logits_that_are_not_numbers_are_an_error() {
    for logits in [[f32::NAN, 1.0], [f32::NEG_INFINITY; 2]] {
        let sampler = Sampler::new(SamplingParams::default(), KEY, Level::best());
        let outcome = sample_within(&sampler, &logits, Restrictions::default(), 0);
        assert_eq!(outcome, Err(SamplingError::NotFinite));
    }
}

#[test]
fn what_is_restricted_is_never_drawn() {
    let logits: Vec<f32> = (0..100).map(|id| (id % 7) as f32).collect();
    let allowed: [u32; 3] = [0x8000_0001, 0, 0b100];
    let restrictions = Restrictions { allowed: Some(&allowed), banned: &[31] };
    for (temperature, top_p) in [(0.0, 1.0), (1.5, 1.0), (1.5, 0.9)] {
        let params = SamplingParams { temperature, top_p, ..Default::default() };
        let sampler = Sampler::new(params, KEY, Level::best());
        for position in 0..50 {
            let token = sample_within(&sampler, &logits, restrictions, position).expect("finite");
            assert!([0, 66].contains(&token) && restrictions.allow(token), "{token}");
        }
    }
    assert!(!restrictions.allow(31) && !restrictions.allow(1) && !restrictions.allow(99));
    let nothing = Restrictions { allowed: Some(&[1]), banned: &[0] };
    let sampler = Sampler::new(SamplingParams::default(), KEY, Level::best());
    assert_eq!(sample_within(&sampler, &logits, nothing, 0), Err(SamplingError::NotFinite));
}

/// Half of the vocabulary is in the nucleus: the case in which sorting what passes the bound would be slow.
#[test]
fn a_flat_distribution_is_cut_exactly() {
    let logits: Vec<f32> = (0..20_000).map(|id| -(id as f32) * 1e-5).collect();
    let params = SamplingParams { top_p: 0.5, ..Default::default() };
    let want = kept(&logits, &params);
    let last = *want.last().expect("some");
    let mut scratch = Scratch::of(logits);
    let mut draw = |uniform| candidates::draw(&mut scratch, &params, uniform, Level::best());
    assert_eq!(draw(0.0), 0);
    // The reference adds in another order and precision: it may differ by one in ten thousand.
    assert!(draw(1.0 - 1e-12).abs_diff(last) <= 1, "{} instead of {last}", draw(1.0 - 1e-12));
}

#[test]
fn every_level_draws_the_same() {
    let logits: Vec<f32> = (0..5_000).map(|id| ((id * 7919) % 1000) as f32 / 90.0).collect();
    for (top_k, top_p, min_p) in [(0, 1.0, 0.0), (0, 0.9, 0.0), (50, 0.7, 0.0), (0, 1.0, 0.05)] {
        let params = SamplingParams { top_k, top_p, min_p, ..Default::default() };
        for position in 0..20 {
            let drawn = Level::available().into_iter().map(|level| {
                let sampler = Sampler::new(params.clone(), KEY, level);
                sample_within(&sampler, &logits, Restrictions::default(), position).expect("finite")
            });
            let drawn: Vec<u32> = drawn.collect();
            assert!(drawn.iter().all(|token| *token == drawn[0]), "{params:?}: {drawn:?}");
        }
    }
}

#[test]
fn draws_follow_the_distribution() {
    let logits = [0.0f32, (3.0f32).ln(), f32::NEG_INFINITY];
    let draws = 20_000;
    let ones = (0..draws).filter(|p| sample(&logits, &SamplingParams::default(), *p) == 1).count();
    let share = ones as f64 / draws as f64;
    assert!((share - 0.75).abs() < 0.015, "{share}");
}

#[test]
fn a_tiny_temperature_is_as_good_as_zero() {
    let params = SamplingParams { temperature: 1e-30, ..Default::default() };
    assert!((0..100).all(|position| sample(&[1.0, 1.5, 1.4], &params, position) == 1));
}

proptest! {
    #[test]
    fn the_likeliest_are_found_without_sorting_all(
        logits in prop::collection::vec((-40i32..40).prop_map(|x| x as f32 / 4.0), 1..700),
        count in 0..800usize,
    ) {
        let params = SamplingParams { top_k: count, ..Default::default() };
        let want = if count == 0 { Vec::new() } else { kept(&logits, &params) };
        prop_assert_eq!(candidates::top(&logits, count, Level::best()), want);
    }

    #[test]
    fn what_the_cuts_keep_is_drawn_each_by_its_share_and_nothing_else(
        logits in prop::collection::vec(-6.0f32..6.0, 1..400),
        top_k in 0..20usize,
        top_p in 0.05f32..1.0,
        min_p in 0.0f32..0.3,
    ) {
        let params = SamplingParams { top_k, top_p, min_p, ..Default::default() };
        let want = kept(&logits, &params);
        for position in 0..30 {
            prop_assert!(want.contains(&sample(&logits, &params, position)));
        }
        let largest = Level::best().max(&logits);
        let adjusted: Vec<f32> = logits.iter().map(|logit| logit - largest).collect();
        let mut want = want;
        want.sort_unstable();
        let kept: Vec<f32> = want.iter().map(|id| adjusted[*id as usize]).collect();
        let mut chances = vec![0.0; kept.len()];
        Level::best().exp_into(&kept, 0.0, &mut chances);
        let total: f64 = chances.iter().copied().map(f64::from).sum();
        let mut scratch = Scratch::of(adjusted);
        let mut before = 0.0;
        for (id, chance) in want.iter().zip(chances) {
            let middle = (before + f64::from(chance) / 2.0) / total;
            let drawn = candidates::draw(&mut scratch, &params, middle, Level::best());
            prop_assert_eq!(drawn, *id);
            before += f64::from(chance);
        }
    }

    #[test]
    fn without_cuts_each_is_drawn_by_its_share(
        logits in prop::collection::vec(-6.0f32..6.0, 1..1500),
        uniform in 0.0..1.0_f64,
    ) {
        let largest = Level::best().max(&logits);
        let adjusted: Vec<f32> = logits.iter().map(|logit| logit - largest).collect();
        let chances: Vec<f64> = adjusted.iter().map(|logit| f64::from(*logit).exp()).collect();
        let total: f64 = chances.iter().sum();
        let mut scratch = Scratch::of(adjusted);
        let params = SamplingParams::default();
        let drawn = candidates::draw(&mut scratch, &params, uniform, Level::best()) as usize;
        let before: f64 = chances[..drawn].iter().sum();
        prop_assert!(before / total <= uniform + 1e-6);
        prop_assert!((before + chances[drawn]) / total >= uniform - 1e-6);
    }
}
