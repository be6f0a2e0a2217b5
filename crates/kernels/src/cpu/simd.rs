//! Sixteen floats in the registers of a level, for the kernels whose speed hangs on each instruction.
//!
//! Where [`super::lanes`] leaves the choice of instructions to the compiler, this names them: attention needs
//! half-precision loads, which no loop over bit patterns turns into. A value of a type that implements
//! [`Simd`] is the proof that its instructions exist: see [`super::level::Level`]. All do the same arithmetic.

use super::lanes::{LANES, Lanes};
use half::f16;

/// The largest number in half precision: what lies beyond is stored as this, never as infinity.
const HALF_MAX: f32 = 65_504.0;

/// The operations of a level on sixteen floats.
pub(super) trait Simd: Copy {
    /// Sixteen floats.
    type F: Copy;
    /// Whether there are registers for twenty of them and more.
    const WIDE: bool;

    fn splat(self, x: f32) -> Self::F;
    fn load(self, x: &[f32; LANES]) -> Self::F;
    /// Sixteen numbers in half precision, widened exactly.
    fn widen(self, x: &[u16; LANES]) -> Self::F;
    /// To half precision, nearest with ties to even, at most [`HALF_MAX`] in magnitude; what is not a number
    /// becomes the largest one, so that nothing written to a cache can poison its block's next user.
    fn narrow(self, x: Self::F, out: &mut [u16; LANES]);
    fn store(self, x: Self::F, out: &mut [f32; LANES]);
    /// `a · b + c` with one rounding.
    fn mul_add(self, a: Self::F, b: Self::F, c: Self::F) -> Self::F;
    /// The largest magnitude of both; infinite or not a number when any element is. (Magnitudes compare as integers
    /// do, and those of numbers are below those of the others.)
    fn largest_magnitude(self, a: Self::F, b: Self::F) -> f32;
    /// The integers nearest to `x · factor`, ties to even, as signed bytes, and their sum. All must fit.
    fn bytes(self, x: Self::F, factor: Self::F, out: &mut [u8; LANES]) -> i32;
    /// All of them, in the order of [`Lanes::sum`].
    fn sum(self, x: Self::F) -> f32;
    /// As [`Lanes::max_lane`].
    fn largest(self, x: Self::F) -> f32;
    /// Asks for a line of memory that will be read soon, into the second cache: as many as are asked for here would wait
    /// for a place in the first, at half the speed. Only a hint.
    fn prefetch(self, line: &[u16]);
}

/// Any processor.
#[derive(Clone, Copy)]
pub(super) struct Plain;

impl Simd for Plain {
    type F = Lanes;
    const WIDE: bool = false;

    #[inline(always)]
    fn splat(self, x: f32) -> Lanes {
        Lanes::splat(x)
    }

    #[inline(always)]
    fn load(self, x: &[f32; LANES]) -> Lanes {
        Lanes(*x)
    }

    #[inline(always)]
    fn widen(self, x: &[u16; LANES]) -> Lanes {
        Lanes(x.map(|bits| f16::from_bits(bits).to_f32()))
    }

    #[inline(always)]
    fn narrow(self, x: Lanes, out: &mut [u16; LANES]) {
        for (out, x) in out.iter_mut().zip(x.0) {
            // The order of comparison that the vector instructions have for what is not a number.
            let x = if x < HALF_MAX { x } else { HALF_MAX };
            let x = if x > -HALF_MAX { x } else { -HALF_MAX };
            *out = f16::from_f32(x).to_bits();
        }
    }

    #[inline(always)]
    fn store(self, x: Lanes, out: &mut [f32; LANES]) {
        *out = x.0;
    }

    #[inline(always)]
    fn mul_add(self, a: Lanes, b: Lanes, c: Lanes) -> Lanes {
        a.mul_add(b, c)
    }

    #[inline(always)]
    fn largest_magnitude(self, a: Lanes, b: Lanes) -> f32 {
        let magnitude = |x: &f32| x.to_bits() & 0x7fff_ffff;
        f32::from_bits(a.0.iter().chain(&b.0).map(magnitude).max().unwrap_or(0))
    }

    #[inline(always)]
    fn bytes(self, x: Lanes, factor: Lanes, out: &mut [u8; LANES]) -> i32 {
        let mut sum = 0;
        for (out, x) in out.iter_mut().zip(x.mul(factor).0) {
            let code = x.round_ties_even() as i8;
            sum += i32::from(code);
            *out = code.cast_unsigned();
        }
        sum
    }

    #[inline(always)]
    fn sum(self, x: Lanes) -> f32 {
        x.sum()
    }

    #[inline(always)]
    fn largest(self, x: Lanes) -> f32 {
        x.max_lane()
    }

    #[inline(always)]
    fn prefetch(self, _line: &[u16]) {}
}

#[cfg(target_arch = "x86_64")]
pub(super) use x86::{Avx2, Avx512};

#[cfg(target_arch = "x86_64")]
mod x86 {
    use super::{HALF_MAX, LANES, Simd};
    use std::arch::x86_64::*;

    /// A processor with AVX2, FMA and F16C.
    #[derive(Clone, Copy)]
    pub(in crate::cpu) struct Avx2(());

    /// A processor with AVX-512 F, BW, DQ and VL as well.
    #[derive(Clone, Copy)]
    pub(in crate::cpu) struct Avx512(());

    impl Avx2 {
        /// # Safety
        /// The processor must have AVX2, FMA and F16C.
        #[inline(always)]
        pub(in crate::cpu) unsafe fn new() -> Self {
            Self(())
        }
    }

    impl Avx512 {
        /// # Safety
        /// The processor must have AVX-512 F, BW, DQ and VL.
        #[inline(always)]
        pub(in crate::cpu) unsafe fn new() -> Self {
            Self(())
        }
    }

    /// Sixteen lanes, added by halves.
    ///
    /// # Safety
    /// The processor must have AVX2.
    #[inline(always)]
    unsafe fn sum_of_halves(low: __m256, high: __m256) -> f32 {
        // SAFETY: by the caller's promise.
        unsafe {
            let eight = _mm256_add_ps(low, high);
            let (low, high) = (_mm256_castps256_ps128(eight), _mm256_extractf128_ps::<1>(eight));
            let four = _mm_add_ps(low, high);
            let two = _mm_add_ps(four, _mm_movehl_ps(four, four));
            _mm_cvtss_f32(_mm_add_ss(two, _mm_shuffle_ps::<1>(two, two)))
        }
    }

    /// The largest of sixteen lanes. The later operand stays where a comparison is false.
    ///
    /// # Safety
    /// The processor must have AVX2.
    #[inline(always)]
    unsafe fn largest_of_halves(low: __m256, high: __m256) -> f32 {
        // SAFETY: by the caller's promise.
        unsafe {
            let eight = _mm256_max_ps(high, low);
            let (low, high) = (_mm256_castps256_ps128(eight), _mm256_extractf128_ps::<1>(eight));
            let four = _mm_max_ps(high, low);
            let two = _mm_max_ps(_mm_movehl_ps(four, four), four);
            _mm_cvtss_f32(_mm_max_ss(_mm_shuffle_ps::<1>(two, two), two))
        }
    }

    /// The largest of eight integers that are not negative, as the float of those bits.
    ///
    /// # Safety
    /// The processor must have AVX2.
    #[inline(always)]
    unsafe fn largest_of_eight(x: __m256i) -> f32 {
        // SAFETY: by the caller's promise.
        unsafe {
            let four = _mm_max_epi32(_mm256_castsi256_si128(x), _mm256_extracti128_si256::<1>(x));
            let two = _mm_max_epi32(four, _mm_shuffle_epi32::<0b11_10>(four));
            let one = _mm_max_epi32(two, _mm_shuffle_epi32::<1>(two));
            f32::from_bits(_mm_cvtsi128_si32(one).cast_unsigned())
        }
    }

    /// The sum of sixteen signed bytes: of them as unsigned ones, less what that adds.
    ///
    /// # Safety
    /// The processor must have SSE2, which belongs to x86-64.
    #[inline(always)]
    unsafe fn sum_of_bytes(x: __m128i) -> i32 {
        // SAFETY: by the caller's promise.
        unsafe {
            let unsigned = _mm_xor_si128(x, _mm_set1_epi8(i8::MIN));
            let halves = _mm_sad_epu8(unsigned, _mm_setzero_si128());
            let sum = _mm_add_epi64(halves, _mm_unpackhi_epi64(halves, halves));
            _mm_cvtsi128_si32(sum) - 16 * 128
        }
    }

    // In both implementations below:
    // SAFETY: `self` exists, so its maker promised the instructions; arrays are as long as what is read or
    // written, and the instructions used ask for no alignment.
    impl Simd for Avx2 {
        type F = [__m256; 2];
        const WIDE: bool = false;

        #[inline(always)]
        fn splat(self, x: f32) -> Self::F {
            // SAFETY: see above.
            unsafe { [_mm256_set1_ps(x); 2] }
        }

        #[inline(always)]
        fn load(self, x: &[f32; LANES]) -> Self::F {
            let x = x.as_ptr();
            // SAFETY: see above.
            unsafe { [_mm256_loadu_ps(x), _mm256_loadu_ps(x.add(8))] }
        }

        #[inline(always)]
        fn widen(self, x: &[u16; LANES]) -> Self::F {
            let x = x.as_ptr().cast::<__m128i>();
            // SAFETY: see above.
            unsafe {
                [_mm256_cvtph_ps(_mm_loadu_si128(x)), _mm256_cvtph_ps(_mm_loadu_si128(x.add(1)))]
            }
        }

        #[inline(always)]
        fn narrow(self, x: Self::F, out: &mut [u16; LANES]) {
            let out = out.as_mut_ptr().cast::<__m128i>();
            // SAFETY: see above.
            unsafe {
                let (low, high) = (_mm256_set1_ps(-HALF_MAX), _mm256_set1_ps(HALF_MAX));
                for (half, x) in x.into_iter().enumerate() {
                    let x = _mm256_max_ps(_mm256_min_ps(x, high), low);
                    let bits = _mm256_cvtps_ph::<_MM_FROUND_TO_NEAREST_INT>(x);
                    _mm_storeu_si128(out.add(half), bits);
                }
            }
        }

        #[inline(always)]
        fn store(self, x: Self::F, out: &mut [f32; LANES]) {
            let out = out.as_mut_ptr();
            // SAFETY: see above.
            unsafe {
                _mm256_storeu_ps(out, x[0]);
                _mm256_storeu_ps(out.add(8), x[1]);
            }
        }

        #[inline(always)]
        fn mul_add(self, a: Self::F, b: Self::F, c: Self::F) -> Self::F {
            // SAFETY: see above.
            unsafe { [_mm256_fmadd_ps(a[0], b[0], c[0]), _mm256_fmadd_ps(a[1], b[1], c[1])] }
        }

        #[inline(always)]
        fn largest_magnitude(self, a: Self::F, b: Self::F) -> f32 {
            // SAFETY: see above.
            unsafe {
                let sign = _mm256_set1_epi32(i32::MIN);
                let magnitude = |x| _mm256_andnot_si256(sign, _mm256_castps_si256(x));
                let of_two = |x: Self::F| _mm256_max_epi32(magnitude(x[0]), magnitude(x[1]));
                largest_of_eight(_mm256_max_epi32(of_two(a), of_two(b)))
            }
        }

        #[inline(always)]
        fn bytes(self, x: Self::F, factor: Self::F, out: &mut [u8; LANES]) -> i32 {
            // SAFETY: see above.
            unsafe {
                let [low, high] = [0, 1]
                    .map(|half: usize| _mm256_cvtps_epi32(_mm256_mul_ps(x[half], factor[half])));
                // Within each half of the register: four of the low eight, then four of the high ones.
                let words =
                    _mm256_permute4x64_epi64::<0b11_01_10_00>(_mm256_packs_epi32(low, high));
                let (low, high) =
                    (_mm256_castsi256_si128(words), _mm256_extracti128_si256::<1>(words));
                let bytes = _mm_packs_epi16(low, high);
                _mm_storeu_si128(out.as_mut_ptr().cast(), bytes);
                sum_of_bytes(bytes)
            }
        }

        #[inline(always)]
        fn sum(self, x: Self::F) -> f32 {
            // SAFETY: see above.
            unsafe { sum_of_halves(x[0], x[1]) }
        }

        #[inline(always)]
        fn largest(self, x: Self::F) -> f32 {
            // SAFETY: see above.
            unsafe { largest_of_halves(x[0], x[1]) }
        }

        #[inline(always)]
        fn prefetch(self, line: &[u16]) {
            // SAFETY: see above.
            unsafe { _mm_prefetch::<_MM_HINT_T1>(line.as_ptr().cast()) }
        }
    }

    impl Simd for Avx512 {
        type F = __m512;
        const WIDE: bool = true;

        #[inline(always)]
        fn splat(self, x: f32) -> __m512 {
            // SAFETY: see above.
            unsafe { _mm512_set1_ps(x) }
        }

        #[inline(always)]
        fn load(self, x: &[f32; LANES]) -> __m512 {
            // SAFETY: see above.
            unsafe { _mm512_loadu_ps(x.as_ptr()) }
        }

        #[inline(always)]
        fn widen(self, x: &[u16; LANES]) -> __m512 {
            // SAFETY: see above.
            unsafe { _mm512_cvtph_ps(_mm256_loadu_si256(x.as_ptr().cast())) }
        }

        #[inline(always)]
        fn narrow(self, x: __m512, out: &mut [u16; LANES]) {
            // SAFETY: see above.
            unsafe {
                let x = _mm512_min_ps(x, _mm512_set1_ps(HALF_MAX));
                let x = _mm512_max_ps(x, _mm512_set1_ps(-HALF_MAX));
                let bits = _mm512_cvtps_ph::<_MM_FROUND_TO_NEAREST_INT>(x);
                _mm256_storeu_si256(out.as_mut_ptr().cast(), bits);
            }
        }

        #[inline(always)]
        fn store(self, x: __m512, out: &mut [f32; LANES]) {
            // SAFETY: see above.
            unsafe { _mm512_storeu_ps(out.as_mut_ptr(), x) }
        }

        #[inline(always)]
        fn mul_add(self, a: __m512, b: __m512, c: __m512) -> __m512 {
            // SAFETY: see above.
            unsafe { _mm512_fmadd_ps(a, b, c) }
        }

        #[inline(always)]
        fn largest_magnitude(self, a: __m512, b: __m512) -> f32 {
            // SAFETY: see above.
            unsafe {
                let bits = |x| _mm512_castps_si512(_mm512_abs_ps(x));
                let most = _mm512_max_epi32(bits(a), bits(b));
                let (low, high) =
                    (_mm512_castsi512_si256(most), _mm512_extracti64x4_epi64::<1>(most));
                largest_of_eight(_mm256_max_epi32(low, high))
            }
        }

        #[inline(always)]
        fn bytes(self, x: __m512, factor: __m512, out: &mut [u8; LANES]) -> i32 {
            // SAFETY: see above.
            unsafe {
                let bytes = _mm512_cvtepi32_epi8(_mm512_cvtps_epi32(_mm512_mul_ps(x, factor)));
                _mm_storeu_si128(out.as_mut_ptr().cast(), bytes);
                sum_of_bytes(bytes)
            }
        }

        #[inline(always)]
        fn sum(self, x: __m512) -> f32 {
            // SAFETY: see above.
            unsafe { sum_of_halves(_mm512_castps512_ps256(x), _mm512_extractf32x8_ps::<1>(x)) }
        }

        #[inline(always)]
        fn largest(self, x: __m512) -> f32 {
            // SAFETY: see above.
            unsafe { largest_of_halves(_mm512_castps512_ps256(x), _mm512_extractf32x8_ps::<1>(x)) }
        }

        #[inline(always)]
        fn prefetch(self, line: &[u16]) {
            // SAFETY: see above.
            unsafe { _mm_prefetch::<_MM_HINT_T1>(line.as_ptr().cast()) }
        }
    }
}

/// As [`instantiate`](super::level::instantiate), for a body that is generic over [`Simd`] and takes it first.
macro_rules! instantiate_simd {
    ($(#[$meta:meta])* fn $name:ident($($arg:ident: $ty:ty),* $(,)?) = $body:ident) => {
        $(#[$meta])*
        pub(super) fn $name(level: $crate::cpu::level::Level, $($arg: $ty),*) {
            use $crate::cpu::level::Tier;
            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx2,fma,f16c")]
            $(#[$meta])*
            fn avx2(simd: $crate::cpu::simd::Avx2, $($arg: $ty),*) {
                $body(simd, $($arg),*)
            }
            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512dq,avx512vl")]
            $(#[$meta])*
            fn avx512(simd: $crate::cpu::simd::Avx512, $($arg: $ty),*) {
                $body(simd, $($arg),*)
            }
            match level.tier() {
                Tier::Plain => $body($crate::cpu::simd::Plain, $($arg),*),
                #[cfg(target_arch = "x86_64")]
                // SAFETY: a `Level` of this tier exists only after the CPU reported these features.
                Tier::Avx2 => unsafe { avx2($crate::cpu::simd::Avx2::new(), $($arg),*) },
                #[cfg(target_arch = "x86_64")]
                // SAFETY: as above.
                Tier::Avx512 => unsafe { avx512($crate::cpu::simd::Avx512::new(), $($arg),*) },
            }
        }
    };
}
pub(super) use instantiate_simd;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Level;

    fn narrow_body<S: Simd>(simd: S, x: &[f32; LANES], out: &mut [u16; LANES]) {
        simd.narrow(simd.load(x), out);
    }
    fn widen_body<S: Simd>(simd: S, x: &[u16; LANES], out: &mut [f32; LANES]) {
        simd.store(simd.widen(x), out);
    }
    instantiate_simd!(fn narrow(x: &[f32; LANES], out: &mut [u16; LANES]) = narrow_body);
    instantiate_simd!(fn widen(x: &[u16; LANES], out: &mut [f32; LANES]) = widen_body);

    /// Ties, subnormals, what is too large, and what is no number.
    const HARD: [f32; LANES] = [
        2049.0,
        2051.0,
        -2049.0,
        5.9604645e-8,
        2.9802322e-8,
        2.9802326e-8,
        6.1e-5,
        -0.0,
        65_519.0,
        65_520.0,
        1e30,
        -1e30,
        f32::INFINITY,
        f32::NEG_INFINITY,
        f32::NAN,
        1.000_488_3,
    ];

    #[test]
    fn halves_are_rounded_to_nearest_even_and_never_infinite_on_every_level() {
        let want = [
            2048.0,
            2052.0,
            -2048.0,
            5.9604645e-8,
            0.0,
            5.9604645e-8,
            6.1e-5,
            -0.0,
            65_504.0,
            65_504.0,
            65_504.0,
            -65_504.0,
            65_504.0,
            -65_504.0,
            65_504.0,
            1.0,
        ];
        for level in Level::available() {
            let mut halves = [0; LANES];
            narrow(level, &HARD, &mut halves);
            for ((half, want), x) in halves.iter().zip(want).zip(HARD) {
                let got = f16::from_bits(*half);
                assert_eq!(got, f16::from_f32(want), "{level}: {x} became {got}");
            }
        }
    }

    #[test]
    fn every_half_is_widened_exactly_on_every_level() {
        for level in Level::available() {
            for start in (0..=u16::MAX).step_by(LANES) {
                let halves: [u16; LANES] = std::array::from_fn(|lane| start + lane as u16);
                let mut wide = [0.0; LANES];
                widen(level, &halves, &mut wide);
                for (half, wide) in halves.iter().zip(wide) {
                    let want = f16::from_bits(*half).to_f32();
                    assert!(wide.to_bits() == want.to_bits() || want.is_nan(), "{level}: {half:x}");
                }
            }
        }
    }
}
