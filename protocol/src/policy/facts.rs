//! What a policy may ask of a version.

use std::{borrow::Cow, collections::BTreeMap};

use super::criteria::Field;
use crate::{
    id::{RepresentationName, SiloName, VersionId, VersionSlot},
    manifest::Manifest,
};

/// What is known of a version. All of it comes from the records, but for what stands in the manifest, which may come later.
#[derive(Debug, Clone, Copy)]
pub struct VersionFacts<'a> {
    /// Which version.
    pub version: &'a VersionId,
    /// How many versions of its subset have a higher number: 0 for the newest. Not looked at for a hero.
    pub rank: u32,
    /// The representations of its newest generation.
    pub representations: &'a [RepresentationName],
    /// Who published that generation.
    pub author: &'a str,
    /// When, in milliseconds since 1970, by the clock of the node that published. It stands in the record, so that all nodes
    /// reckon from the same time.
    pub published_at_ms: u64,
    /// What stands in that generation's manifest; `None` while the manifest has not come.
    pub manifest: Option<ManifestFacts<'a>>,
}

/// What only the manifest says.
#[derive(Debug, Clone, Copy)]
pub struct ManifestFacts<'a> {
    /// The silo, if the template has one.
    pub silo: Option<&'a SiloName>,
    /// What the pipeline wanted kept; `family` and `families` are among it.
    pub metadata: &'a BTreeMap<String, String>,
}

impl<'a> ManifestFacts<'a> {
    /// Takes them from a manifest.
    pub fn of(manifest: &'a Manifest) -> Self {
        let draft = manifest.draft();
        Self { silo: draft.silo.as_ref(), metadata: &draft.metadata }
    }
}

impl<'a> VersionFacts<'a> {
    /// Returns its age in milliseconds. A version from the future, of a node whose clock is ahead, is of age 0.
    pub fn age_ms(&self, now_ms: u64) -> u64 {
        now_ms.saturating_sub(self.published_at_ms)
    }

    /// Says whether it is the hero.
    pub fn is_hero(&self) -> bool {
        self.version.slot == VersionSlot::Hero
    }

    /// Returns what it has of a field: nothing, one value or several. `None` while that is not known.
    pub(super) fn values(&self, field: &Field) -> Option<Vec<Cow<'a, str>>> {
        let one = |text: &'a str| Some(vec![Cow::Borrowed(text)]);
        match field {
            Field::Project => one(self.version.project.as_str()),
            Field::Asset => one(self.version.asset.as_str()),
            Field::Subset => one(self.version.subset.as_str()),
            Field::Author => one(self.author),
            Field::Representation => {
                Some(self.representations.iter().map(|name| Cow::Borrowed(name.as_str())).collect())
            }
            Field::Silo => self
                .manifest
                .map(|facts| facts.silo.map(|silo| Cow::Borrowed(silo.as_str())).into_iter().collect()),
            Field::Family => self.manifest.map(|facts| families(facts.metadata)),
            Field::Metadata(key) => self
                .manifest
                .map(|facts| facts.metadata.get(key).map(|v| Cow::Borrowed(&**v)).into_iter().collect()),
        }
    }
}

/// Returns the families of a version: of the metadata `family` and `families`, each one name, several between commas, or a
/// JSON list as scripts write it.
fn families(metadata: &BTreeMap<String, String>) -> Vec<Cow<'_, str>> {
    let mut families: Vec<Cow<'_, str>> = Vec::new();
    for text in ["family", "families"].iter().filter_map(|key| metadata.get(*key)) {
        let list = text
            .trim_start()
            .starts_with('[')
            .then(|| serde_json::from_str::<Vec<String>>(text).ok())
            .flatten();
        let found: Vec<Cow<'_, str>> = match list {
            Some(list) => list.into_iter().map(Cow::Owned).collect(),
            None => text.split(',').map(|name| Cow::Borrowed(name.trim())).collect(),
        };
        for family in found {
            if !family.is_empty() && !families.contains(&family) {
                families.push(family);
            }
        }
    }
    families
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn families_are_read_as_pipelines_write_them() {
        let read = |pairs: &[(&str, &str)]| {
            let metadata =
                pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
            families(&metadata).join("|")
        };
        assert_eq!(read(&[]), "");
        assert_eq!(read(&[("family", "rig")]), "rig");
        assert_eq!(read(&[("families", "rig, model,,rig")]), "rig|model");
        assert_eq!(read(&[("family", "render"), ("families", "[\"render\", \"review\"]")]), "render|review");
        assert_eq!(read(&[("families", "[broken")]), "[broken");
    }
}
