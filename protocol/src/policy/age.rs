//! How old a version is, in words: `30d`.

use std::{fmt, str::FromStr};

const UNITS: [(&str, u64); 4] = [("w", 7 * 24 * 60), ("d", 24 * 60), ("h", 60), ("m", 1)];
const MINUTE_MS: u64 = 60_000;
/// The longest age that is accepted: ten years, longer than any production.
const MAX_MINUTES: u64 = 3650 * 24 * 60;

/// A span of time since a version was published. Reads `90m`, `12h`, `30d`, `8w`; prints as the largest unit that is even.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Age {
    minutes: u64,
}

impl Age {
    /// Returns it in milliseconds.
    pub fn as_ms(self) -> u64 {
        self.minutes * MINUTE_MS
    }

    /// Returns the whole minutes of a number of milliseconds, in the coarsest unit that is still exact to a tenth: what people
    /// say of an age that was measured.
    pub(super) fn measured(ms: u64) -> Self {
        let minutes = ms / MINUTE_MS;
        let unit = UNITS
            .iter()
            .map(|(_, unit)| *unit)
            .find(|unit| *unit <= 24 * 60 && minutes >= 10 * unit)
            .unwrap_or(1);
        Self { minutes: minutes / unit * unit }
    }
}

impl FromStr for Age {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        const RULE: &str = "write a whole number with m, h, d or w: 90m, 12h, 30d, 8w";
        let end = text.find(|c: char| !c.is_ascii_digit()).ok_or(RULE)?;
        let (number, unit) = text.split_at(end);
        let (_, unit) = UNITS.iter().find(|(name, _)| *name == unit).ok_or(RULE)?;
        if number.is_empty() {
            return Err(RULE);
        }
        let minutes = number.parse::<u64>().ok().and_then(|number| number.checked_mul(*unit));
        match minutes {
            Some(0) => Err("every version is older; write at least 1m, or remove the key"),
            Some(minutes) if minutes <= MAX_MINUTES => Ok(Self { minutes }),
            _ => Err("write at most 3650d: ten years are longer than any production"),
        }
    }
}

impl fmt::Display for Age {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let even = |unit: &u64| self.minutes >= *unit && self.minutes.is_multiple_of(*unit);
        let (name, unit) = UNITS.iter().find(|(_, unit)| even(unit)).unwrap_or(&("m", 1));
        write!(f, "{}{name}", self.minutes / unit)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_are_read_with_their_unit_and_printed_evenly() {
        for (text, minutes, shown) in
            [("90m", 90, "90m"), ("48h", 2880, "2d"), ("30d", 43_200, "30d"), ("14d", 20_160, "2w")]
        {
            let age: Age = text.parse().unwrap();
            assert_eq!((age.as_ms(), age.to_string().as_str()), (minutes * 60_000, shown));
        }
        for bad in ["", "30", "d", "1.5d", "-1d", "30 d", "30s", "0d", "3651d", "99999999999999999999w"] {
            assert!(bad.parse::<Age>().is_err(), "{bad}");
        }
    }

    #[test]
    fn an_age_that_was_measured_is_told_roughly() {
        let shown = |minutes: u64| Age::measured(minutes * 60_000 + 59_999).to_string();
        assert_eq!(
            ["5m", "599m", "10h", "10d"],
            [5, 599, 601, 10 * 1440 + 77].map(shown).each_ref().map(|s| &**s)
        );
    }
}
