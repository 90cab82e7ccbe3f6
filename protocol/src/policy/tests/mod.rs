//! The policy from outside: refusals, rulings, and what holds for all of them.

mod model;
mod refusals;
mod rulings;
mod properties;
mod diff;
mod extract;

use std::collections::BTreeMap;

use super::{ManifestFacts, Now, VersionFacts};
use crate::{
    id::{RepresentationName, SiloName, VersionId},
    limit::Moment,
};

const DAY_MS: u64 = 24 * 60 * 60 * 1000;

/// A version as a test writes it down; [`Self::facts`] lends it.
#[derive(Debug, Clone)]
struct Version {
    id: VersionId,
    rank: u32,
    representations: Vec<RepresentationName>,
    author: String,
    published_at_ms: u64,
    silo: Option<SiloName>,
    metadata: BTreeMap<String, String>,
    manifest_is_here: bool,
}

impl Version {
    fn facts(&self) -> VersionFacts<'_> {
        let manifest = ManifestFacts { silo: self.silo.as_ref(), metadata: &self.metadata };
        VersionFacts {
            version: &self.id,
            rank: self.rank,
            representations: &self.representations,
            author: &self.author,
            published_at_ms: self.published_at_ms,
            manifest: self.manifest_is_here.then_some(manifest),
        }
    }
}

/// A time in a place whose clocks show UTC.
fn at(ms: u64) -> Now {
    let minutes = ms / 60_000;
    // 1970 began on a Thursday.
    let day = u8::try_from((minutes / 1440 + 3) % 7).unwrap();
    Now { ms, moment: Moment { day, minute: u16::try_from(minutes % 1440).unwrap() } }
}
