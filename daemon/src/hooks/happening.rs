//! What happened, as hooks are told.

use std::{collections::BTreeMap, sync::Arc};

use avalon_protocol::{
    control::{Event, EventKind},
    hash::ManifestId,
    id::VersionId,
    reference::{Reference, VersionSelector},
    version_fold::Standing,
};
use serde::Serialize;

use super::{Hook, HookEvent, Matching};
use crate::core::Core;

/// One event with what hooks want to know of its version.
#[derive(Debug, Clone)]
pub(super) struct Happening {
    pub(super) event: HookEvent,
    /// By the names of the placeholders; what is not known is empty.
    pub(super) values: BTreeMap<&'static str, String>,
    representations: Vec<String>,
    /// What stands on the program's standard input.
    pub(super) json: Arc<Vec<u8>>,
}

#[derive(Serialize)]
struct Told<'a> {
    schema: &'static str,
    hook: String,
    #[serde(flatten)]
    values: &'a BTreeMap<&'static str, String>,
    representations: &'a [String],
    detail: &'a Event,
}

impl Happening {
    /// Gathers what is known. Blocks.
    pub(super) fn of(core: &Core, kind: HookEvent, event: &Event) -> Self {
        let (reference, manifest, files, bytes) = match &event.kind {
            EventKind::Published { reference, manifest, files, bytes, .. }
            | EventKind::Placed { reference, manifest, files, bytes, .. } => {
                (reference.clone(), Some(manifest.clone()), Some(*files), Some(*bytes))
            }
            EventKind::Job { job } => (
                job.reference.clone(),
                Some(job.manifest.clone()),
                Some(job.files_total),
                Some(job.bytes_total),
            ),
            EventKind::Refused { reference, .. } | EventKind::Conflict { reference, .. } => {
                (reference.clone(), None, None, None)
            }
            _ => (String::new(), None, None, None),
        };
        let version = version_of(&reference);
        let known =
            version.as_ref().map(|version| Known::of(core, version, manifest.as_deref())).unwrap_or_default();
        let name = |of: fn(&VersionId) -> String| version.as_ref().map(of).unwrap_or_default();
        let number = |number: Option<u64>| number.map(|number| number.to_string()).unwrap_or_default();
        let values: BTreeMap<&'static str, String> = [
            ("event", kind.to_string()),
            // A directory that is no version has no reference; it stays out of arguments.
            ("ref", version.as_ref().map(ToString::to_string).unwrap_or_default()),
            ("project", name(|v| v.project.to_string())),
            ("asset", name(|v| v.asset.to_string())),
            ("subset", name(|v| v.subset.to_string())),
            ("version", name(|v| v.slot.to_string())),
            ("path", known.path),
            ("manifest", manifest.unwrap_or_default()),
            ("files", number(files)),
            ("bytes", number(bytes)),
            ("node", core.me.node.to_string()),
            ("site", core.me.site.to_string()),
        ]
        .into();
        let told = Told {
            schema: "avalond.hook/1",
            hook: kind.to_string(),
            values: &values,
            representations: &known.representations,
            detail: event,
        };
        let json = serde_json::to_vec(&told).unwrap_or_default();
        Self { event: kind, values, representations: known.representations, json: Arc::new(json) }
    }

    pub(super) fn reference(&self) -> String {
        self.values.get("ref").cloned().unwrap_or_default()
    }

    /// Says whether a hook is about it.
    pub(super) fn concerns(&self, hook: &Hook) -> bool {
        let one = |name: &str| self.values.get(name).map(String::as_str).into_iter();
        let matching = &hook.matching;
        hook.on.contains(&self.event)
            && Matching::holds(&matching.project, one("project"))
            && Matching::holds(&matching.asset, one("asset"))
            && Matching::holds(&matching.subset, one("subset"))
            && Matching::holds(&matching.representation, self.representations.iter().map(String::as_str))
    }
}

fn version_of(text: &str) -> Option<VersionId> {
    let reference: Reference = text.parse().ok()?;
    let VersionSelector::Slot(slot) = reference.version else { return None };
    Some(VersionId {
        project: reference.project?,
        asset: reference.asset.as_str().parse().ok()?,
        subset: reference.subset.as_str().parse().ok()?,
        slot,
    })
}

#[derive(Default)]
struct Known {
    path: String,
    representations: Vec<String>,
}

impl Known {
    fn of(core: &Core, version: &VersionId, manifest: Option<&str>) -> Self {
        let Some(fold) = core.ledger.version(version).ok().flatten() else { return Self::default() };
        let given: Option<ManifestId> = manifest.and_then(|manifest| manifest.parse().ok());
        let head = given.or(match fold.standing(version.slot) {
            Standing::Head(head) => Some(head),
            Standing::Conflict(heads) => heads.first().copied(),
            Standing::Unknown => None,
        });
        let Some(head) = head else { return Self::default() };
        let generation = fold.generation(&head);
        let representations = generation.map(|g| g.representations.iter().map(ToString::to_string).collect());
        let dir = core.ledger.manifest(head).ok().flatten().map(|manifest| manifest.dir().clone());
        let project = core.project(&version.project);
        let path =
            project.zip(dir).map(|(project, dir)| project.path().join(dir.as_str()).display().to_string());
        Self { path: path.unwrap_or_default(), representations: representations.unwrap_or_default() }
    }
}
