//! A list in pages: what is read for one depends on its length and not on that of the catalog.

use avalon_protocol::{
    control::{ApiError, ErrorCode, MAX_LISTED},
    id::{AssetName, ProjectName, VersionId},
    reference::{Reference, VersionSelector},
};
use avalon_store::{catalog::CatalogError, ledger::Ledger};

use super::{
    DaemonApi, catalog_failed,
    find::{Found, Hidden, bad_reference, exact, is_shown},
};
use crate::{api::RefQuery, core::blocking};

/// How many versions are read from the catalog at a time.
const PAGE: usize = 1000;

/// A list that is made, in the order of the versions.
struct Page {
    projects: Vec<ProjectName>,
    /// What is listed of them; everything without one.
    reference: Option<Reference>,
    hidden: Hidden,
    after: Option<VersionId>,
    limit: usize,
}

impl DaemonApi {
    /// Returns one page of a list, and behind which version the next one begins.
    pub(super) async fn find_page(&self, query: &RefQuery) -> Result<(Found, Option<VersionId>), ApiError> {
        let text = query.reference.as_deref().filter(|text| !text.is_empty());
        let mut reference =
            text.map(Reference::parse_listing).transpose().map_err(|error| bad_reference(&error))?;
        if let (Some(reference), Some(text)) = (&mut reference, text)
            && !text.contains('@')
        {
            reference.version = VersionSelector::All;
        }
        let page = Page {
            projects: self.listed_projects(reference.as_ref(), query.project.as_deref())?,
            hidden: if query.retired { Hidden::Found } else { Hidden::Passed },
            after: query.after.as_deref().filter(|text| !text.is_empty()).map(exact_version).transpose()?,
            limit: query.limit.unwrap_or(MAX_LISTED).clamp(1, MAX_LISTED),
            reference,
        };
        match page.reference.clone() {
            Some(latest) if latest.version == VersionSelector::Latest => {
                let found = self.find_also(&latest, query.project.as_deref(), page.hidden).await?;
                Ok(page.of(found))
            }
            named => {
                let (is_first, project) = (page.after.is_none(), page.projects.first().cloned());
                self.until_catalog().await;
                let ledger = self.core.ledger.clone();
                let read = blocking(move || page.read(&ledger)).await;
                let listed = read.map_err(|error| catalog_failed(&self.core.ledger, &error))?;
                match (named, project) {
                    (Some(reference), Some(project)) if listed.0.is_empty() && is_first => {
                        Err(self.not_found(&reference, &project).await?)
                    }
                    _ => Ok(listed),
                }
            }
        }
    }

    fn listed_projects(
        &self,
        reference: Option<&Reference>,
        given: Option<&str>,
    ) -> Result<Vec<ProjectName>, ApiError> {
        if let Some(reference) = reference {
            return Ok(vec![self.project_of(reference, given)?]);
        }
        match given.filter(|project| !project.is_empty()) {
            Some(name) => Ok(vec![self.named_project(name)?]),
            None => Ok(self.core.projects.keys().cloned().collect()),
        }
    }
}

fn exact_version(text: &str) -> Result<VersionId, ApiError> {
    let reference: Reference = text.parse().map_err(|error| bad_reference(&error))?;
    let names = exact(&reference.asset).zip(exact(&reference.subset));
    match (reference.project, names, reference.version) {
        (Some(project), Some((asset, subset)), VersionSelector::Slot(slot)) => {
            Ok(VersionId { project, asset, subset, slot })
        }
        _ => Err(ApiError::new(
            ErrorCode::BadReference,
            format!("{text:?} is no version that a list can go on behind"),
        )
        .with_hint("give what the answer before has as next")),
    }
}

impl Page {
    /// Reads it; blocks.
    fn read(&self, ledger: &Ledger) -> Result<(Found, Option<VersionId>), CatalogError> {
        let asset = self.reference.as_ref().and_then(|reference| exact::<AssetName>(&reference.asset));
        let mut found = Found::new();
        for project in &self.projects {
            let mut after = match &self.after {
                Some(after) if after.project > *project => continue,
                Some(after) if after.project == *project => Some(after.clone()),
                _ => None,
            };
            loop {
                let rows = PAGE.min(self.limit + 1);
                let page = ledger.versions(project, asset.as_ref(), after.as_ref(), rows)?;
                let Some((last, _)) = page.last() else { break };
                after = Some(last.clone());
                found.extend(page.into_iter().filter(|(version, fold)| match &self.reference {
                    Some(reference) => names(reference, version) && is_shown(reference, fold, self.hidden),
                    None => self.hidden == Hidden::Found || fold.retired().is_none(),
                }));
                // One more shows that there is another page.
                if found.len() > self.limit {
                    return Ok(self.cut(found));
                }
            }
        }
        Ok((found, None))
    }

    /// Returns the page of all that there is.
    fn of(&self, mut found: Found) -> (Found, Option<VersionId>) {
        found.retain(|(version, _)| self.after.as_ref().is_none_or(|after| version > after));
        self.cut(found)
    }

    fn cut(&self, mut found: Found) -> (Found, Option<VersionId>) {
        let has_more = found.len() > self.limit;
        found.truncate(self.limit);
        let last = found.last().map(|(version, _)| version.clone());
        (found, last.filter(|_| has_more))
    }
}

fn names(reference: &Reference, version: &VersionId) -> bool {
    let is_slot = match reference.version {
        VersionSelector::Slot(slot) => version.slot == slot,
        VersionSelector::All | VersionSelector::Latest => true,
    };
    is_slot && reference.matches(version)
}
