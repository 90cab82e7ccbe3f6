//! `inputs`, and the closure of a pull: what versions were made from, as this node knows it.

use std::sync::Arc;

use avalon_protocol::{
    closure::{
        Closure, KnownVersion, KnownVersions, Lack, MAX_CLOSURE_DEPTH, Member, Missing, Named, closure,
    },
    control::{ApiError, InputVersion, InputsReply, MissingInput, MissingReason, Presence},
    id::{AssetName, ProjectName, SubsetName, VersionId},
    reference::{Reference, VersionSelector},
};
use avalon_store::catalog::CatalogError;

use super::{DaemonApi, catalog_failed, pull::bytes_on_machine, show::head_of};
use crate::{
    api::InputsQuery,
    core::{Core, blocking},
};

/// How many versions are read from the catalog at a time.
const PAGE: usize = 1000;

impl DaemonApi {
    pub(super) async fn inputs_reply(&self, query: InputsQuery) -> Result<InputsReply, ApiError> {
        let reference = self.parse(&query.reference)?;
        let found = self.find(&reference, query.project.as_deref()).await?;
        let roots = found.into_iter().map(|(version, _)| version).collect();
        let depth = if query.recursive { MAX_CLOSURE_DEPTH } else { 1 };
        let closure = self.closure_of(roots, depth).await?;
        let (files, bytes, bytes_here) = closure.totals();
        Ok(InputsReply {
            schema: "avalonctl.inputs/1".into(),
            missing: missing_of(&closure),
            missing_more: closure.missing_more,
            versions: closure.members.into_iter().map(input_version).collect(),
            files,
            bytes,
            bytes_here,
        })
    }

    /// Returns the closure of versions, each version after its inputs.
    pub(super) async fn closure_of(&self, roots: Vec<VersionId>, depth: u32) -> Result<Closure, ApiError> {
        let core = Arc::clone(&self.core);
        let found = blocking(move || closure(&roots, depth, &mut LedgerVersions { core: &core }));
        found.await.map_err(|error| catalog_failed(&self.core.ledger, &error))
    }
}

/// Returns what a closure lacks, in the words of the API.
pub(super) fn missing_of(closure: &Closure) -> Vec<MissingInput> {
    let missing = |missing: &Missing| MissingInput {
        input: missing.input.clone(),
        needed_by: missing.needed_by.to_string(),
        why: match missing.why {
            Lack::NotPublished => MissingReason::NotPublished,
            Lack::Unknown => MissingReason::Unknown,
            Lack::OtherProject => MissingReason::OtherProject,
            Lack::NoManifest => MissingReason::NoManifest,
            Lack::TooMany => MissingReason::TooMany,
        },
    };
    closure.missing.iter().map(missing).collect()
}

fn input_version(member: Member) -> InputVersion {
    let known = member.known;
    InputVersion {
        reference: member.version.to_string(),
        depth: member.depth,
        needed_by: member.needed_by.map(|version| version.to_string()),
        files: known.files,
        bytes: known.bytes,
        bytes_here: known.bytes_here,
        here: match (known.is_here, known.bytes_here) {
            (true, _) => Presence::Complete,
            (false, 0) => Presence::None,
            (false, _) => Presence::Partial,
        },
    }
}

/// What the ledger knows. Blocks.
struct LedgerVersions<'a> {
    core: &'a Core,
}

impl KnownVersions for LedgerVersions<'_> {
    type Error = CatalogError;

    fn named(&mut self, reference: &Reference) -> Result<Named, CatalogError> {
        let Some(project) = reference.project.as_ref().filter(|name| self.core.projects.contains_key(*name))
        else {
            return Ok(Named::OtherProject);
        };
        if let Some(version) = exactly(project, reference) {
            let fold = self.core.ledger.version(&version)?;
            let is_published = fold.is_some_and(|fold| !fold.generations().is_empty());
            return Ok(Named::Versions(is_published.then_some(version).into_iter().collect()));
        }
        let asset: Option<AssetName> = reference.asset.as_str().parse().ok();
        let asset = asset.filter(|_| !reference.asset.is_glob());
        let mut published: Vec<VersionId> = Vec::new();
        let mut after: Option<VersionId> = None;
        loop {
            let page = self.core.ledger.versions(project, asset.as_ref(), after.as_ref(), PAGE)?;
            let Some((last, _)) = page.last() else { break };
            after = Some(last.clone());
            let there = page
                .into_iter()
                .filter(|(version, fold)| reference.matches(version) && !fold.generations().is_empty());
            published.extend(there.map(|(version, _)| version));
        }
        Ok(Named::Versions(reference.select(published.iter())))
    }

    fn known(&mut self, version: &VersionId) -> Result<KnownVersion, CatalogError> {
        let ledger = &self.core.ledger;
        let fold = ledger.version(version)?.unwrap_or_default();
        let Some((head, _)) = head_of(version, &fold) else { return Ok(KnownVersion::default()) };
        let (files, bytes) = fold.generation(&head).map_or((0, 0), |known| (known.files, known.bytes));
        let is_here = fold.holds(&self.core.me, &head);
        let manifest = ledger.manifest(head).ok().flatten();
        let bytes_here = match &manifest {
            _ if is_here => bytes,
            Some(manifest) => bytes_on_machine(ledger, manifest),
            None => 0,
        };
        let inputs = manifest.map(|manifest| manifest.draft().inputs.clone());
        Ok(KnownVersion { files, bytes, bytes_here, is_here, inputs })
    }
}

/// Returns the one version that a reference can name, whose fate is asked without reading a list.
fn exactly(project: &ProjectName, reference: &Reference) -> Option<VersionId> {
    let VersionSelector::Slot(slot) = reference.version else { return None };
    if !reference.is_exact() {
        return None;
    }
    let asset: AssetName = reference.asset.as_str().parse().ok()?;
    let subset: SubsetName = reference.subset.as_str().parse().ok()?;
    Some(VersionId { project: project.clone(), asset, subset, slot })
}
