//! Which instance of a kernel runs: plain, AVX2 or AVX-512.

use std::fmt;

/// An instruction level that this machine has. Values above the plain one are only made by asking the
/// CPU, so holding one is the proof that its instructions exist.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Level(Tier);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Tier {
    Plain,
    #[cfg(target_arch = "x86_64")]
    Avx2,
    #[cfg(target_arch = "x86_64")]
    Avx512,
}

impl Level {
    /// The levels of this machine, slowest first; the plain one is always there.
    #[must_use]
    pub fn available() -> Vec<Self> {
        #[allow(unused_mut)]
        let mut levels = vec![Self(Tier::Plain)];
        #[cfg(target_arch = "x86_64")]
        {
            use std::arch::is_x86_feature_detected as has;
            if has!("avx2") && has!("fma") && has!("f16c") {
                levels.push(Self(Tier::Avx2));
                // Without VNNI, 512 bits gain little over 256 and such a CPU may slow its clock for them.
                let wide =
                    has!("avx512f") && has!("avx512bw") && has!("avx512dq") && has!("avx512vl");
                if wide && has!("avx512vnni") {
                    levels.push(Self(Tier::Avx512));
                }
            }
        }
        levels
    }

    /// The fastest level of this machine.
    #[must_use]
    pub fn best() -> Self {
        Self::available().pop().unwrap_or(Self(Tier::Plain))
    }

    pub(super) fn tier(self) -> Tier {
        self.0
    }
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.0 {
            Tier::Plain => "plain",
            #[cfg(target_arch = "x86_64")]
            Tier::Avx2 => "avx2",
            #[cfg(target_arch = "x86_64")]
            Tier::Avx512 => "avx512",
        })
    }
}

/// Compiles one `#[inline(always)]` body for every level and makes a function that picks the instance.
///
/// `instantiate!(fn name(args…) = body)` defines `fn name(level: Level, args…)`.
macro_rules! instantiate {
    ($(#[$meta:meta])* fn $name:ident($($arg:ident: $ty:ty),* $(,)?) $(-> $ret:ty)? = $body:path) => {
        $(#[$meta])*
        pub(super) fn $name(level: $crate::cpu::level::Level, $($arg: $ty),*) $(-> $ret)? {
            use $crate::cpu::level::Tier;
            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx2,fma,f16c")]
            fn avx2($($arg: $ty),*) $(-> $ret)? {
                $body($($arg),*)
            }
            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
            fn avx512($($arg: $ty),*) $(-> $ret)? {
                $body($($arg),*)
            }
            match level.tier() {
                Tier::Plain => $body($($arg),*),
                #[cfg(target_arch = "x86_64")]
                // SAFETY: a `Level` of this tier exists only after the CPU reported these features.
                Tier::Avx2 => unsafe { avx2($($arg),*) },
                #[cfg(target_arch = "x86_64")]
                // SAFETY: as above.
                Tier::Avx512 => unsafe { avx512($($arg),*) },
            }
        }
    };
}
pub(super) use instantiate;
