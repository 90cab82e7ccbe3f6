//! Limits in words.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};
use thiserror::Error;
use utoipa::ToSchema;

use super::{Moment, When};
use crate::{
    id::{NodeId, SiteName},
    plan::Priority,
};

/// Why a limit is not one.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum InvalidLimit {
    /// Not a rate.
    #[error("{text:?} is not a rate; write it like 200Mbit/s, 25MB/s or 24MiB/s, and 0 for nothing at all")]
    Rate {
        /// What it says.
        text: String,
    },
    /// Not a time of the week.
    #[error(
        "{text:?} is not a time of the week; write it like `mon-fri 09:00-19:00`, `sat,sun`, `22:00-06:00` or `always`"
    )]
    When {
        /// What it says.
        text: String,
    },
}

/// Bytes per second. Reads `200Mbit/s`, `25MB/s` and `24MiB/s` (also without `/s`), and prints as the first that is even.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Rate {
    /// How many; 0 lets nothing through.
    pub bytes_per_second: u64,
}

/// Units by their name, in bits.
const UNITS: [(&str, u64); 9] = [
    ("kbit", 1_000),
    ("Mbit", 1_000_000),
    ("Gbit", 1_000_000_000),
    ("kB", 8_000),
    ("MB", 8_000_000),
    ("GB", 8_000_000_000),
    ("KiB", 8 << 10),
    ("MiB", 8 << 20),
    ("GiB", 8 << 30),
];

impl FromStr for Rate {
    type Err = InvalidLimit;

    fn from_str(text: &str) -> Result<Self, InvalidLimit> {
        let invalid = || InvalidLimit::Rate { text: text.to_owned() };
        let bare = text.trim().trim_end_matches("/s").trim_end();
        if bare == "0" {
            return Ok(Self { bytes_per_second: 0 });
        }
        let end = bare.find(|c: char| !(c.is_ascii_digit() || c == '.')).ok_or_else(invalid)?;
        let (number, unit) = bare.split_at(end);
        let number: f64 = number.parse().map_err(|_| invalid())?;
        let unit = unit.trim_start();
        let known = UNITS.iter().find(|(name, _)| name.eq_ignore_ascii_case(unit)).ok_or_else(invalid)?;
        #[expect(clippy::cast_precision_loss, reason = "units are far below 2^53")]
        let bytes = number * known.1 as f64 / 8.0;
        // A byte in a second is surely meant to be more; beyond a petabyte it is no limit.
        if !(1.0..=1e15).contains(&bytes) {
            return Err(invalid());
        }
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "it is within 1 and 1e15"
        )]
        Ok(Self { bytes_per_second: bytes.round() as u64 })
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bits = self.bytes_per_second.saturating_mul(8);
        let units = ["GiB", "MiB", "KiB", "Gbit", "Mbit", "kbit"];
        let even = units.iter().find_map(|name| {
            let (_, unit) = UNITS.iter().find(|(known, _)| known == name)?;
            (bits >= *unit && bits.is_multiple_of(*unit)).then(|| (bits / unit, *name))
        });
        match even {
            _ if bits == 0 => f.write_str("0"),
            Some((number, unit)) => write!(f, "{number}{unit}/s"),
            None => {
                #[expect(clippy::cast_precision_loss, reason = "three digits are for people")]
                let megabits = bits as f64 / 1e6;
                write!(f, "{megabits:.3}Mbit/s")
            }
        }
    }
}

/// Which way content goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Direction {
    /// To peers.
    Send,
    /// From peers.
    Receive,
}

impl Direction {
    /// Both ways.
    pub const ALL: [Self; 2] = [Self::Send, Self::Receive];
}

impl fmt::Display for Direction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Send => "send",
            Self::Receive => "receive",
        })
    }
}

/// An urgency as it is written in limits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Class {
    /// [`Priority::Waiting`].
    Waiting,
    /// [`Priority::Publish`].
    Publish,
    /// [`Priority::Backfill`].
    Backfill,
}

impl From<Class> for Priority {
    fn from(class: Class) -> Self {
        match class {
            Class::Waiting => Self::Waiting,
            Class::Publish => Self::Publish,
            Class::Backfill => Self::Backfill,
        }
    }
}

impl From<Priority> for Class {
    fn from(priority: Priority) -> Self {
        match priority {
            Priority::Waiting => Self::Waiting,
            Priority::Publish => Self::Publish,
            Priority::Backfill => Self::Backfill,
        }
    }
}

impl fmt::Display for Class {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Waiting => "waiting",
            Self::Publish => "publish",
            Self::Backfill => "backfill",
        })
    }
}

/// One limit on the content that this node sends or receives. All limits that match hold at once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limit {
    /// How much.
    pub rate: Rate,
    /// Which way.
    pub direction: Direction,
    /// With which site; every other site when none is named. This node's own site is exempt unless it is named.
    pub site: Option<SiteName>,
    /// Of what urgency; of any when none is named.
    pub class: Option<Priority>,
    /// When.
    pub when: When,
}

impl Limit {
    /// Says whether content of `class` between `me` and `peer` counts towards it at a moment.
    pub fn applies(
        &self,
        direction: Direction,
        me: &NodeId,
        peer: &NodeId,
        class: Priority,
        now: Moment,
    ) -> bool {
        let site = match &self.site {
            Some(site) => *site == peer.site,
            None => peer.site != me.site,
        };
        site && direction == self.direction
            && self.class.is_none_or(|wanted| wanted == class)
            && self.when.contains(now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_read_in_bits_and_bytes_and_printed_as_they_were() {
        let rate = |text: &str| text.parse::<Rate>().unwrap().bytes_per_second;
        assert_eq!(rate("200Mbit/s"), 25_000_000);
        assert_eq!(rate("25 MB/s"), 25_000_000);
        assert_eq!(rate("24mib"), 24 << 20);
        assert_eq!(rate("1.5Gbit/s"), 187_500_000);
        assert_eq!(rate("0"), 0);
        for text in ["200Mbit/s", "24MiB/s", "1500kbit/s", "0", "3GiB/s"] {
            let read: Rate = text.parse().unwrap();
            assert_eq!(read.to_string().parse::<Rate>().unwrap(), read);
        }
        assert_eq!("200Mbit/s".parse::<Rate>().unwrap().to_string(), "200Mbit/s");
        for bad in [
            "",
            "fast",
            "200",
            "-1Mbit",
            "1e9Mbit",
            "0.0001kbit",
            "NaNMbit",
            "99999999999GB",
            "10 Mbit per second",
        ] {
            assert!(bad.parse::<Rate>().is_err(), "{bad}");
        }
    }

    #[test]
    fn the_own_site_is_exempt_unless_it_is_named() {
        let (me, near, far): (NodeId, NodeId, NodeId) =
            ("a@london".parse().unwrap(), "b@london".parse().unwrap(), "c@montreal".parse().unwrap());
        let noon = Moment { day: 0, minute: 720 };
        let all = Limit {
            rate: Rate { bytes_per_second: 1 },
            direction: Direction::Send,
            site: None,
            class: None,
            when: When::ALWAYS,
        };
        let applies =
            |limit: &Limit, peer| limit.applies(Direction::Send, &me, peer, Priority::Publish, noon);
        assert!(applies(&all, &far) && !applies(&all, &near));
        assert!(applies(&Limit { site: Some(me.site.clone()), ..all.clone() }, &near));
        assert!(!applies(&Limit { site: Some(me.site.clone()), ..all.clone() }, &far));
        assert!(!applies(&Limit { class: Some(Priority::Backfill), ..all.clone() }, &far));
        assert!(!applies(&Limit { direction: Direction::Receive, ..all.clone() }, &far));
        assert!(!applies(&Limit { when: "tue".parse().unwrap(), ..all }, &far));
    }
}
