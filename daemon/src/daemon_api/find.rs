//! From what somebody typed to versions: projects, references, globs, and suggestions for what is not there.

use std::time::Duration;

use avalon_protocol::{
    control::{ApiError, ErrorCode},
    id::{AssetName, ProjectName, VersionId},
    reference::{Reference, VersionSelector},
    version_fold::VersionFold,
};

use super::{DaemonApi, catalog_failed};
use crate::{api::RefQuery, core::blocking};

/// How many versions are read from the catalog at a time.
const PAGE: usize = 1000;
/// How many suggestions an error makes.
const SUGGESTIONS: usize = 3;

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
        let asset = (!reference.asset.is_glob()).then(|| reference.asset.as_str().parse::<AssetName>().ok());
        let known = self.versions(&project, asset.flatten()).await?;
        let found = select(reference, known, hidden);
        if !found.is_empty() {
            return Ok(found);
        }
        let all = self.versions(&project, None).await?;
        Err(not_found(reference, &project, &all))
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

    fn named_project(&self, name: &str) -> Result<ProjectName, ApiError> {
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

fn bad_reference(error: &(dyn std::error::Error + 'static)) -> ApiError {
    ApiError::new(ErrorCode::BadReference, crate::log::ErrorChain(error).to_string())
        .with_hint("write [project:]asset/subset[/representation][@version], such as robot/modelDefault@v002")
}

/// Keeps what the reference names; a version of which nothing was published yet is not there.
fn select(reference: &Reference, known: Found, hidden: Hidden) -> Found {
    let is_named = matches!(reference.version, VersionSelector::Slot(_));
    let is_shown = |fold: &VersionFold| hidden == Hidden::Found || is_named || fold.retired().is_none();
    let published = known.into_iter().filter(|(_, fold)| !fold.generations().is_empty() && is_shown(fold));
    let published = published.filter(|(_, fold)| has_representation(reference, fold));
    let published: Found = published.collect();
    let selected = reference.select(published.iter().map(|(version, _)| version));
    published.into_iter().filter(|(version, _)| selected.contains(version)).collect()
}

fn has_representation(reference: &Reference, fold: &VersionFold) -> bool {
    let Some(wanted) = &reference.representation else { return true };
    let mut names = fold.generations().values().flat_map(|generation| &generation.representations);
    names.any(|name| wanted.matches(name.as_str()))
}

fn not_found(reference: &Reference, project: &ProjectName, all: &Found) -> ApiError {
    let wanted = format!("{}/{}", reference.asset.as_str(), reference.subset.as_str());
    let message = format!("nothing named {:?} in project {project}", reference.to_string());
    let error = ApiError::new(ErrorCode::NotFound, message);
    let mut names: Vec<String> =
        all.iter().map(|(version, _)| format!("{}/{}", version.asset, version.subset)).collect();
    names.dedup();
    if names.contains(&wanted) {
        let same =
            all.iter().filter(|(version, _)| format!("{}/{}", version.asset, version.subset) == wanted);
        let slots: Vec<String> = same
            .map(|(version, fold)| match fold.retired() {
                Some(_) => format!("{} (retired)", version.slot),
                None => version.slot.to_string(),
            })
            .collect();
        let shown = slots.iter().rev().take(8).rev().cloned().collect::<Vec<_>>().join(", ");
        return error.with_hint(format!("{wanted} has {shown}"));
    }
    let nearest = nearest(&wanted, &names);
    error.with_hint(if nearest.is_empty() {
        "list what exists: avalonctl ls".to_owned()
    } else {
        format!(
            "did you mean {}? list what exists: avalonctl ls {}",
            nearest.join(" or "),
            reference.asset.as_str()
        )
    })
}

fn nearest(wanted: &str, names: &[String]) -> Vec<String> {
    let mut scored: Vec<(f64, &String)> =
        names.iter().map(|name| (strsim::jaro_winkler(wanted, name), name)).collect();
    scored.retain(|(score, _)| *score > 0.75);
    scored.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(b.1)));
    scored.into_iter().take(SUGGESTIONS).map(|(_, name)| name.clone()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn suggests_what_is_nearly_that_and_nothing_else() {
        let names = ["robot/modelDefault", "robot/rigDefault", "sh010/beauty"].map(String::from);
        assert_eq!(nearest("robto/modelDefault", &names)[0], "robot/modelDefault");
        assert!(nearest("zzz/qqq", &names).is_empty());
    }
}
