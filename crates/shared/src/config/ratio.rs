//! A share of something.

use serde::{Deserialize, Deserializer, Serialize, de::Error};
use std::str::FromStr;

/// From 0 to 1. Written as a number or, in a variable, as its text.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Ratio(pub f64);

impl Ratio {
    /// Everything.
    pub const ALL: Self = Self(1.0);

    fn new(ratio: f64) -> Result<Self, String> {
        if (0.0..=1.0).contains(&ratio) {
            Ok(Self(ratio))
        } else {
            Err(format!("`{ratio}` is not from 0 to 1"))
        }
    }
}

impl FromStr for Ratio {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let number = text.trim().parse();
        Self::new(number.map_err(|_| format!("`{text}` is not a number from 0 to 1"))?)
    }
}

impl<'de> Deserialize<'de> for Ratio {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged, expecting = "a number from 0 to 1")]
        enum Wire {
            Number(f64),
            Text(String),
        }
        match Wire::deserialize(deserializer)? {
            Wire::Number(number) => Self::new(number),
            Wire::Text(text) => text.parse(),
        }
        .map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ratio_is_a_number_from_0_to_1() {
        assert_eq!("0.25".parse(), Ok(Ratio(0.25)));
        assert_eq!(serde_json::from_str::<Ratio>("1").expect("a ratio"), Ratio::ALL);
        assert_eq!(serde_json::from_str::<Ratio>("\"0.5\"").expect("a ratio"), Ratio(0.5));
        for bad in ["", "x", "1.1", "-0.1", "NaN", "10%"] {
            assert!(bad.parse::<Ratio>().is_err(), "{bad}");
        }
    }
}
