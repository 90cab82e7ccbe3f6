//! What checks find in a version, as the policy in effect wants it checked.

use std::collections::BTreeSet;

use avalon_protocol::{
    check::{self, CheckProblem},
    id::{AssetName, ProjectName, SubsetName, VersionId, VersionSlot},
    manifest::Manifest,
    reference::{Reference, VersionSelector},
    version_fold::VersionFold,
};
use avalon_store::catalog::CatalogError;

use super::Ranks;
use crate::core::Core;

impl Core {
    /// Returns what checks find in a manifest of a version. Blocks.
    ///
    /// # Errors
    /// [`CatalogError`]; the catalog is being rebuilt then.
    pub fn problems(
        &self,
        version: &VersionId,
        fold: &VersionFold,
        manifest: &Manifest,
        ranks: &mut Ranks,
    ) -> Result<Vec<CheckProblem>, CatalogError> {
        let off = match self.policy.in_effect().filter(|policy| !policy.checks().is_empty()) {
            Some(policy) => self.with_facts(version, fold, ranks, |facts, now| {
                (policy.checks().off(facts, now.ms), facts.manifest.is_none())
            })?,
            None => None,
        };
        let is_known = |text: &str| {
            let reference: Option<Reference> = text.parse().ok();
            reference.and_then(|reference| self.knows_input(manifest.project(), &reference)) == Some(true)
        };
        Ok(check::problems(manifest, &off.unwrap_or_else(BTreeSet::new), &is_known))
    }

    /// Says whether anybody has published what a reference in a version of `own` names; `None` where this node cannot know:
    /// the project is another's, the reference has wildcards, or the catalog does not answer. Blocks.
    pub fn knows_input(&self, own: &ProjectName, reference: &Reference) -> Option<bool> {
        let project = reference.project.as_ref().unwrap_or(own);
        if !self.projects.contains_key(project) || reference.asset.is_glob() || reference.subset.is_glob() {
            return None;
        }
        let asset: AssetName = reference.asset.as_str().parse().ok()?;
        let subset: SubsetName = reference.subset.as_str().parse().ok()?;
        let id = |slot| VersionId { project: project.clone(), asset, subset, slot };
        let is_published = |fold: &VersionFold| !fold.generations().is_empty();
        match reference.version {
            VersionSelector::Slot(slot) => {
                Some(self.ledger.version(&id(slot)).ok()?.is_some_and(|f| is_published(&f)))
            }
            VersionSelector::Latest | VersionSelector::All => {
                let versions = self.ledger.subset_versions(&id(VersionSlot::Hero)).ok()?;
                Some(versions.iter().any(|(_, fold)| is_published(fold)))
            }
        }
    }
}
