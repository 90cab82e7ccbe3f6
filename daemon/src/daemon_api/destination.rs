//! `destination`: where the template puts a version that is to be made, for who brings material in from outside.

use std::sync::Arc;

use avalon_protocol::{
    control::{ApiError, DestinationReply, ErrorCode},
    id::{AssetName, RepresentationName, SiloName, SubsetName, VersionId, VersionSlot},
    reference::{Reference, VersionSelector},
    rel_path::RelPath,
    template::{Fields, Template},
    version_fold::VersionFold,
};
use avalon_store::fs::Dir;

use super::{DaemonApi, catalog_failed, show::head_of};
use crate::{
    api::DestinationQuery,
    core::{Core, blocking},
    log::ErrorChain,
    project::Project,
    publish::area::version_dir_of,
};

/// How many versions of an asset are looked at for its silo.
const LOOKED_AT: usize = 100;

impl DaemonApi {
    pub(super) async fn destination_reply(
        &self,
        query: DestinationQuery,
    ) -> Result<DestinationReply, ApiError> {
        let reference = self.parse(&query.reference)?;
        let name = self.project_of(&reference, query.project.as_deref())?;
        let project = Arc::clone(self.core.project(&name).ok_or_else(|| no_such_project(&reference))?);
        let root = project.dir().ok_or_else(|| {
            ApiError::new(
                ErrorCode::ProjectPaused,
                format!("project {name} is paused, its directory is missing"),
            )
            .with_hint(format!("mount or create {}", project.path().display()))
        })?;
        let wanted = Wanted::of(&reference, &query)?;
        self.until_catalog().await;
        let core = Arc::clone(&self.core);
        blocking(move || find(&core, &project, &root, &wanted)).await
    }
}

fn no_such_project(reference: &Reference) -> ApiError {
    ApiError::new(ErrorCode::NotFound, format!("{reference} is of a project that this node does not serve"))
}

fn bad(message: impl Into<String>, hint: &str) -> ApiError {
    ApiError::new(ErrorCode::BadReference, message).with_hint(hint)
}

/// What is to be made.
struct Wanted {
    asset: AssetName,
    subset: SubsetName,
    /// The next one without.
    number: Option<u32>,
    silo: Option<SiloName>,
    representation: Option<RepresentationName>,
}

impl Wanted {
    fn of(reference: &Reference, query: &DestinationQuery) -> Result<Self, ApiError> {
        let exact = || {
            bad(
                format!("{reference} names no single version to make"),
                "write asset/subset, or asset/subset@v012",
            )
        };
        let number = match reference.version {
            VersionSelector::Latest => None,
            VersionSelector::Slot(VersionSlot::Number(number)) => Some(number),
            VersionSelector::Slot(VersionSlot::Hero) | VersionSelector::All => return Err(exact()),
        };
        let name = |kind: &str, error: String| {
            bad(format!("the {kind} cannot be so: {error}"), "write it as Avalon does")
        };
        let given = |text: &Option<String>| text.clone().filter(|text| !text.is_empty());
        let of_reference = reference.representation.as_ref().map(|name| name.as_str().to_owned());
        Ok(Self {
            asset: reference.asset.as_str().parse().map_err(|_| exact())?,
            subset: reference.subset.as_str().parse().map_err(|_| exact())?,
            number,
            silo: given(&query.silo)
                .map(|text| text.parse().map_err(|error| name("silo", format!("{error}"))))
                .transpose()?,
            representation: given(&query.representation)
                .or(of_reference)
                .map(|text| text.parse().map_err(|error| name("representation", format!("{error}"))))
                .transpose()?,
        })
    }

    fn id(&self, project: &Project, number: u32) -> VersionId {
        VersionId {
            project: project.name().clone(),
            asset: self.asset.clone(),
            subset: self.subset.clone(),
            slot: VersionSlot::Number(number),
        }
    }
}

fn find(core: &Core, project: &Project, root: &Dir, wanted: &Wanted) -> Result<DestinationReply, ApiError> {
    let failed = |error| catalog_failed(&core.ledger, &error);
    let same = core.ledger.subset_versions(&wanted.id(project, 0)).map_err(failed)?;
    let published: Vec<u32> = same
        .iter()
        .filter(|(_, fold)| !fold.generations().is_empty())
        .filter_map(|(id, _)| match id.slot {
            VersionSlot::Number(number) => Some(number),
            VersionSlot::Hero => None,
        })
        .collect();
    let given: Vec<u32> = same.iter().flat_map(|(_, fold)| fold.given_numbers()).collect();
    let of_asset =
        core.ledger.versions(project.name(), Some(&wanted.asset), None, LOOKED_AT).map_err(failed)?;
    let alike = same.iter().chain(&of_asset).find_map(|(id, fold)| fields_of(core, project, id, fold));
    let place = Place { project, root, wanted, alike };
    if let Some(number) = wanted.number {
        let id = wanted.id(project, number);
        if published.contains(&number) {
            let hint = "leave the number out for the next one";
            return Err(
                ApiError::new(ErrorCode::BadPath, format!("{id} is published already")).with_hint(hint)
            );
        }
        if given.contains(&number) {
            let message = format!("{id} is the number that something else got when a conflict was resolved");
            return Err(
                ApiError::new(ErrorCode::BadPath, message).with_hint("leave the number out for the next one")
            );
        }
        let taken = format!("the directory of {id} is there already");
        return place.at(number)?.ok_or_else(|| {
            ApiError::new(ErrorCode::BadPath, taken).with_hint("leave the number out for the next one")
        });
    }
    let mut number = published.into_iter().chain(given).max().map_or(1, |newest| newest + 1);
    loop {
        if number > VersionSlot::MAX_NUMBER {
            return Err(bad("there is no number left", "choose another subset"));
        }
        match place.at(number)? {
            Some(reply) => return Ok(reply),
            // Somebody is about to publish it.
            None => number += 1,
        }
    }
}

/// Returns the names in the path of a version, from which those of another one are taken that a reference does not say.
fn fields_of(core: &Core, project: &Project, id: &VersionId, fold: &VersionFold) -> Option<Fields> {
    let (head, _) = head_of(id, fold)?;
    let manifest = core.ledger.manifest(head).ok().flatten()?;
    let version = version_dir_of(project.templates(), manifest.dir())?;
    Some(version.fields.to_fields(project.name().clone()))
}

struct Place<'a> {
    project: &'a Project,
    root: &'a Dir,
    wanted: &'a Wanted,
    alike: Option<Fields>,
}

impl Place<'_> {
    /// Returns where a number lies; nothing when something lies there.
    fn at(&self, number: u32) -> Result<Option<DestinationReply>, ApiError> {
        let id = self.wanted.id(self.project, number);
        let own = Fields::from(&id);
        let known = self.alike.clone().unwrap_or_else(|| own.clone());
        let silo = self.wanted.silo.clone().or(known.silo);
        let fields = Fields { silo, hierarchy: known.hierarchy, others: known.others, ..own };
        let mut refused = None;
        for template in self.project.templates().iter() {
            let dir = match template.version_dir(&fields) {
                Ok(dir) => dir,
                Err(error) => {
                    refused.get_or_insert(error);
                    continue;
                }
            };
            let there = self
                .root
                .stat(&dir)
                .map_err(|error| ApiError::new(ErrorCode::Internal, ErrorChain(&error).to_string()))?;
            if there.is_some() {
                return Ok(None);
            }
            return Ok(Some(DestinationReply {
                schema: "avalonctl.destination/1".into(),
                reference: id.to_string(),
                path: self.project.path().join(dir.as_str()).display().to_string(),
                entry: self.entry(template, &fields, &dir)?,
            }));
        }
        let why =
            refused.map_or_else(|| "there is no template".to_owned(), |error| ErrorChain(&error).to_string());
        Err(bad(
            format!("the project's template does not say where {id} lies: {why}"),
            "of an asset of which nothing is published yet give --silo",
        ))
    }

    fn entry(&self, template: &Template, fields: &Fields, dir: &RelPath) -> Result<Option<String>, ApiError> {
        let Some(representation) = self.wanted.representation.clone() else { return Ok(None) };
        let fields = Fields { representation: Some(representation), ..fields.clone() };
        let path = template.render(&fields).map_err(|error| {
            bad(ErrorChain(&error).to_string(), "choose another name for the representation")
        })?;
        Ok(path.strip_prefix(dir).map(|inside| inside.to_string()))
    }
}
