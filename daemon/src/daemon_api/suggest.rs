//! What is said where nothing has the name that somebody typed.
//!
//! Of a large project not every name is looked at: those of assets that begin as the one that was typed, and some others.

use avalon_protocol::{
    control::{ApiError, ErrorCode},
    id::{AssetName, ProjectName, SubsetName, VersionId, VersionSlot},
    reference::Reference,
    version_fold::VersionFold,
};
use avalon_store::{catalog::CatalogError, ledger::Ledger};

use super::{DaemonApi, catalog_failed, find::exact};
use crate::core::blocking;

/// How many suggestions an error makes.
const SUGGESTIONS: usize = 3;
/// How many assets are looked at for that, each time; each is a row of the catalog.
const MOST_ASSETS: usize = 500;
/// Of how many assets, those with the nearest names, the subsets are.
const NEAR_ASSETS: usize = 20;
/// How many subsets of one.
const MOST_SUBSETS: usize = 100;
/// How alike two names are at least, of 1.
const ALIKE: f64 = 0.75;

impl DaemonApi {
    /// Makes the error that names what there is instead.
    pub(super) async fn not_found(
        &self,
        reference: &Reference,
        project: &ProjectName,
    ) -> Result<ApiError, ApiError> {
        let (ledger, asked, within) = (self.core.ledger.clone(), reference.clone(), project.clone());
        let hint = blocking(move || hint(&ledger, &asked, &within)).await;
        let hint = hint.map_err(|error| catalog_failed(&self.core.ledger, &error))?;
        let message = format!("nothing named {:?} in project {project}", reference.to_string());
        Ok(ApiError::new(ErrorCode::NotFound, message).with_hint(hint))
    }
}

fn hint(ledger: &Ledger, reference: &Reference, project: &ProjectName) -> Result<String, CatalogError> {
    let wanted = format!("{}/{}", reference.asset.as_str(), reference.subset.as_str());
    let names = exact::<AssetName>(&reference.asset).zip(exact::<SubsetName>(&reference.subset));
    if let Some((asset, subset)) = names {
        let of = VersionId { project: project.clone(), asset, subset, slot: VersionSlot::Hero };
        let same = ledger.subset_versions(&of)?;
        if !same.is_empty() {
            return Ok(format!("{wanted} has {}", slots(&same)));
        }
    }
    let nearest = nearest(&wanted, &known_names(ledger, reference.asset.as_str(), project)?);
    Ok(if nearest.is_empty() {
        "list what exists: avalonctl ls".to_owned()
    } else {
        format!(
            "did you mean {}? list what exists: avalonctl ls {}",
            nearest.join(" or "),
            reference.asset.as_str()
        )
    })
}

fn slots(same: &[(VersionId, VersionFold)]) -> String {
    let newest = same.iter().rev().take(8).rev();
    let shown = newest.map(|(version, fold)| match fold.retired() {
        Some(_) => format!("{} (retired)", version.slot),
        None => version.slot.to_string(),
    });
    shown.collect::<Vec<_>>().join(", ")
}

/// Returns names of subsets that may be meant.
fn known_names(ledger: &Ledger, asset: &str, project: &ProjectName) -> Result<Vec<String>, CatalogError> {
    let start: String = asset.chars().take(3).collect();
    let mut assets = ledger.assets(project, &start, MOST_ASSETS)?;
    assets.extend(ledger.assets(project, "", MOST_ASSETS)?);
    assets.sort();
    assets.dedup();
    let mut scored: Vec<(f64, AssetName)> =
        assets.into_iter().map(|name| (strsim::jaro_winkler(asset, name.as_str()), name)).collect();
    scored.sort_by(|a, b| b.0.total_cmp(&a.0).then_with(|| a.1.cmp(&b.1)));
    let mut names = Vec::new();
    for (_, asset) in scored.into_iter().take(NEAR_ASSETS) {
        let subsets = ledger.subsets(project, &asset, MOST_SUBSETS)?;
        names.extend(subsets.into_iter().map(|subset| format!("{asset}/{subset}")));
    }
    Ok(names)
}

fn nearest(wanted: &str, names: &[String]) -> Vec<String> {
    let mut scored: Vec<(f64, &String)> =
        names.iter().map(|name| (strsim::jaro_winkler(wanted, name), name)).collect();
    scored.retain(|(score, _)| *score > ALIKE);
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
