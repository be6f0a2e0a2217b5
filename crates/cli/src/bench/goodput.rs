//! Goodput: requests a second that were served as well as promised (DistServe, OSDI '24).

use std::time::Duration;

use serde::{Serialize, Serializer};

/// The longest that a good request may take, where a limit is set.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Objectives {
    #[serde(rename = "ttft_ms", serialize_with = "in_ms")]
    ttft: Option<Duration>,
    #[serde(rename = "tpot_ms", serialize_with = "in_ms")]
    tpot: Option<Duration>,
    #[serde(rename = "e2e_ms", serialize_with = "in_ms")]
    end_to_end: Option<Duration>,
}

impl Objectives {
    pub(super) fn is_set(&self) -> bool {
        *self != Self::default()
    }

    /// Whether some of them can only be measured on streams.
    pub(crate) fn need_streams(&self) -> bool {
        self.ttft.is_some() || self.tpot.is_some()
    }

    /// Whether a completed request was good. What was not measured (an answer of one token has no time
    /// per output token) breaks no promise.
    pub(super) fn are_met(
        &self,
        ttft: Option<Duration>,
        tpot: Option<Duration>,
        end_to_end: Duration,
    ) -> bool {
        let within = |limit: Option<Duration>, found: Option<Duration>| {
            limit.zip(found).is_none_or(|(limit, found)| found <= limit)
        };
        within(self.ttft, ttft)
            && within(self.tpot, tpot)
            && within(self.end_to_end, Some(end_to_end))
    }
}

impl std::str::FromStr for Objectives {
    type Err = String;

    /// `ttft:500,tpot:50,e2e:5000`, in milliseconds, any of them.
    fn from_str(text: &str) -> Result<Self, String> {
        let mut objectives = Self::default();
        for objective in text.split(',') {
            let (name, ms) = objective.split_once(':').ok_or("NAME:MILLISECONDS expected")?;
            let limit = ms.parse::<f64>().ok().filter(|ms| *ms > 0.0).map(|ms| ms / 1000.0);
            let limit = limit.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
            let limit = limit.ok_or_else(|| format!("`{ms}` is not a time in milliseconds"))?;
            let slot = match name {
                "ttft" => &mut objectives.ttft,
                "tpot" => &mut objectives.tpot,
                "e2e" => &mut objectives.end_to_end,
                _ => return Err(format!("`{name}` is none of ttft, tpot, e2e")),
            };
            if slot.replace(limit).is_some() {
                return Err(format!("{name} is given twice"));
            }
        }
        Ok(objectives)
    }
}

fn in_ms<S: Serializer>(limit: &Option<Duration>, serializer: S) -> Result<S::Ok, S::Error> {
    limit.map(|limit| limit.as_secs_f64() * 1000.0).serialize(serializer)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_objective_can_be_missed() {
        let objectives: Objectives = "ttft:500,tpot:50,e2e:5000".parse().expect("objectives");
        let ms = Duration::from_millis;
        let met = |ttft, tpot, end| objectives.are_met(Some(ms(ttft)), Some(ms(tpot)), ms(end));
        assert!(met(500, 50, 5000));
        assert!(!met(501, 50, 5000) && !met(500, 51, 5000) && !met(500, 50, 5001));
        assert!(objectives.are_met(None, None, ms(1)));
        assert!(Objectives::default().are_met(Some(ms(9999)), Some(ms(9999)), ms(9999)));
    }

    #[test]
    fn mistakes_are_named() {
        for (text, expected) in [
            ("ttft", "NAME:MILLISECONDS"),
            ("", "NAME:MILLISECONDS"),
            ("ttft:x", "`x` is not a time"),
            ("ttft:0", "`0` is not a time"),
            ("itl:5", "`itl` is none of"),
            ("e2e:5,e2e:6", "e2e is given twice"),
        ] {
            let error = text.parse::<Objectives>().expect_err(text);
            assert!(error.contains(expected), "{text}: {error}");
        }
    }
}
