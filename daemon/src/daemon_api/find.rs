//! From what somebody typed to versions: projects, references, globs, and suggestions for what is not there.

use std::time::Duration;

use avalon_protocol::{
    control::{ApiError, ErrorCode},
    id::{AssetName, ProjectName, SubsetName, VersionId, VersionSlot},
    reference::{Pattern, Reference, VersionSelector},
    version_fold::VersionFold,
};

use super::{DaemonApi, catalog_failed};
use crate::{api::RefQuery, core::blocking};

/// How many versions are read from the catalog at a time.
const PAGE: usize = 1000;

/// Whether versions that are out of use are found when their number is not named.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Hidden {
    /// They are.
    Found,
    /// They are passed over.
    Passed,
}

/// Versions with what is known of them.
pub(super) type Found = Vec<(VersionId, VersionFold)>;

/// How long a command waits for a catalog that is built anew.
const CATALOG_PATIENCE: Duration = Duration::from_secs(30);
/// How soon it notices that the catalog is there.
const CATALOG_LOOK: Duration = Duration::from_millis(100);
/// How long the catalog may lack room before who waits for it is told.
const ROOM_PATIENCE: Duration = Duration::from_secs(1);

impl DaemonApi {
    /// Reads a reference of a command that names versions.
    pub(super) fn parse(&self, text: &str) -> Result<Reference, ApiError> {
        text.parse().map_err(|error| bad_reference(&error))
    }

    /// Returns the versions that a reference names, in order; none is an error with suggestions. What is out of use is found
    /// by its own number only.
    pub(super) async fn find(&self, reference: &Reference, project: Option<&str>) -> Result<Found, ApiError> {
        self.find_also(reference, project, Hidden::Passed).await
    }

    /// The same, with or without what is out of use.
    pub(super) async fn find_also(
        &self,
        reference: &Reference,
        project: Option<&str>,
        hidden: Hidden,
    ) -> Result<Found, ApiError> {
        let project = self.project_of(reference, project)?;
        let known = self.candidates(&project, reference).await?;
        let found = select(reference, &known, hidden);
        if !found.is_empty() {
            return Ok(found);
        }
        Err(self.not_found(reference, &project).await?)
    }

    /// Reads what a reference may name, and no more than that: one version, a subset, an asset, or all of the project.
    async fn candidates(&self, project: &ProjectName, reference: &Reference) -> Result<Found, ApiError> {
        let asset = exact::<AssetName>(&reference.asset);
        let (Some(asset), Some(subset)) = (asset.clone(), exact::<SubsetName>(&reference.subset)) else {
            return self.versions(project, asset).await;
        };
        self.until_catalog().await;
        let slot = match reference.version {
            VersionSelector::Slot(slot) => Some(slot),
            VersionSelector::Latest | VersionSelector::All => None,
        };
        let (ledger, project) = (self.core.ledger.clone(), project.clone());
        let read = blocking(move || {
            let id = VersionId { project, asset, subset, slot: slot.unwrap_or(VersionSlot::Hero) };
            match slot {
                None => ledger.subset_versions(&id),
                Some(_) => Ok(ledger.version(&id)?.map(|fold| (id, fold)).into_iter().collect()),
            }
        });
        read.await.map_err(|error| catalog_failed(&self.core.ledger, &error))
    }

    /// Returns the versions for a list: all of a project, or those that a reference names, or of a lone asset.
    pub(super) async fn find_listed(&self, query: &RefQuery) -> Result<Found, ApiError> {
        let project = query.project.as_deref().filter(|project| !project.is_empty());
        let Some(text) = query.reference.as_deref().filter(|text| !text.is_empty()) else {
            let mut all = Vec::new();
            let named = project.map(|name| self.named_project(name)).transpose()?;
            for project in self.core.projects.keys().filter(|p| named.as_ref().is_none_or(|n| n == *p)) {
                all.extend(self.versions(project, None).await?);
            }
            all.retain(|(_, fold)| query.retired || fold.retired().is_none());
            return Ok(all);
        };
        let mut reference = Reference::parse_listing(text).map_err(|error| bad_reference(&error))?;
        let lists_all = !text.contains('@');
        if lists_all {
            reference.version = VersionSelector::All;
        }
        let hidden = if query.retired { Hidden::Found } else { Hidden::Passed };
        self.find_also(&reference, project, hidden).await
    }

    pub(super) fn named_project(&self, name: &str) -> Result<ProjectName, ApiError> {
        let known = name.parse().ok().filter(|name| self.core.projects.contains_key(name));
        known.ok_or_else(|| {
            let names: Vec<&str> = self.core.projects.keys().map(ProjectName::as_str).collect();
            let error =
                ApiError::new(ErrorCode::NotFound, format!("this node does not serve a project {name:?}"));
            error.with_hint(if names.is_empty() {
                "add a [[project]] to the configuration and restart avalond".to_owned()
            } else {
                format!("it serves {}", names.join(", "))
            })
        })
    }

    /// Returns the project that a reference is about: its own, the one given, or the only one.
    pub(super) fn project_of(
        &self,
        reference: &Reference,
        given: Option<&str>,
    ) -> Result<ProjectName, ApiError> {
        if let Some(project) = &reference.project {
            return self.named_project(project.as_str());
        }
        if let Some(project) = given.filter(|project| !project.is_empty()) {
            return self.named_project(project);
        }
        let mut projects = self.core.projects.keys();
        match (projects.next(), projects.next()) {
            (Some(only), None) => Ok(only.clone()),
            _ => Err(ApiError::new(ErrorCode::NoProject, format!("{reference} does not say which project"))
                .with_hint("write project:asset/subset, give --project, or set AVALON_PROJECT")),
        }
    }

    /// Waits a while for a catalog that is built anew: for whoever asks, that is better than an error. No thread waits with
    /// it: a script that asks again and again would take all of them.
    pub(super) async fn until_catalog(&self) {
        let until = self.core.clock.monotonic() + CATALOG_PATIENCE;
        while !self.core.ledger.is_ready() && self.core.clock.monotonic() < until {
            self.core.clock.sleep(CATALOG_LOOK).await;
        }
    }

    /// Returns once the catalog has lacked room for a while. Nobody knows how long that takes: who waits for it is told.
    pub(super) async fn until_room_is_lacking(&self) {
        let clock = &self.core.clock;
        let mut since = clock.monotonic();
        while clock.monotonic() < since + ROOM_PATIENCE {
            clock.sleep(CATALOG_LOOK).await;
            if !self.core.ledger.lacks_room() {
                since = clock.monotonic();
            }
        }
    }

    async fn versions(&self, project: &ProjectName, asset: Option<AssetName>) -> Result<Found, ApiError> {
        self.until_catalog().await;
        let (ledger, project) = (self.core.ledger.clone(), project.clone());
        let read = blocking(move || {
            let mut all: Found = Vec::new();
            loop {
                let after = all.last().map(|(version, _)| version.clone());
                let page = ledger.versions(&project, asset.as_ref(), after.as_ref(), PAGE)?;
                if page.is_empty() {
                    return Ok(all);
                }
                all.extend(page);
            }
        });
        read.await.map_err(|error| catalog_failed(&self.core.ledger, &error))
    }
}

pub(super) fn bad_reference(error: &(dyn std::error::Error + 'static)) -> ApiError {
    ApiError::new(ErrorCode::BadReference, crate::log::ErrorChain(error).to_string())
        .with_hint("write [project:]asset/subset[/representation][@version], such as robot/modelDefault@v002")
}

/// Returns the name that a pattern is, unless it is a glob.
pub(super) fn exact<N: std::str::FromStr>(pattern: &Pattern) -> Option<N> {
    (!pattern.is_glob()).then(|| pattern.as_str().parse().ok()).flatten()
}

/// Keeps what the reference names; a version of which nothing was published yet is not there.
fn select(reference: &Reference, known: &Found, hidden: Hidden) -> Found {
    let shown = known.iter().filter(|(_, fold)| is_shown(reference, fold, hidden));
    let shown: Vec<&(VersionId, VersionFold)> = shown.collect();
    let selected = reference.select(shown.iter().map(|(version, _)| version));
    // It is sorted: to look each up in a list as long as the catalog would take its square.
    let found = shown.into_iter().filter(|(version, _)| selected.binary_search(version).is_ok());
    found.cloned().collect()
}

/// Says whether a version may be meant by a reference that names it.
pub(super) fn is_shown(reference: &Reference, fold: &VersionFold, hidden: Hidden) -> bool {
    let is_named = matches!(reference.version, VersionSelector::Slot(_));
    !fold.generations().is_empty()
        && (hidden == Hidden::Found || is_named || fold.retired().is_none())
        && has_representation(reference, fold)
}

fn has_representation(reference: &Reference, fold: &VersionFold) -> bool {
    let Some(wanted) = &reference.representation else { return true };
    let mut names = fold.generations().values().flat_map(|generation| &generation.representations);
    names.any(|name| wanted.matches(name.as_str()))
}
