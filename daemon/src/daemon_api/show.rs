//! `ls`, `where` and `info`.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use avalon_protocol::{
    control::{
        ApiError, ErrorCode, FileItem, HoldingState, InfoReply, ListReply, NodeHolding, Presence,
        VersionItem, WhereItem, WhereReply,
    },
    hash::{ManifestId, ObjectHash},
    id::{NodeId, VersionId},
    manifest::{FileEntry, Manifest},
    mode::ProjectMode,
    rel_path::RelPath,
    sequence::{FrameName, group},
    version_fold::{Standing, VersionFold},
};

use super::{DaemonApi, catalog_failed, find::Found, lifetime::retired_item};
use crate::{api::RefQuery, clock::time_of_ms, core::blocking};

/// How many sequences and files are named of what is here of a version.
const MOST_NAMED: usize = 20;
/// How long a version is taken for one that may still grow: no render goes on for longer without a new frame.
const GROWS_FOR_MS: u64 = 3 * 24 * 3_600_000;
/// Of how many versions of a list it is looked up.
const MOST_GROWING: usize = 500;

impl DaemonApi {
    pub(super) async fn list_reply(&self, query: RefQuery) -> Result<ListReply, ApiError> {
        let (found, next) = self.find_page(&query).await?;
        let items = found.iter().filter_map(|(version, fold)| self.list_item(version, fold));
        let mut versions: Vec<VersionItem> = items.collect();
        let growing = self.growing_of(&found).await;
        for item in &mut versions {
            item.growing = growing.get(&item.reference).cloned().unwrap_or_default();
        }
        Ok(ListReply {
            schema: "avalonctl.ls/1".into(),
            versions,
            next: next.map(|version| version.to_string()),
        })
    }

    /// Returns which representations still grow, by version. That stands in manifests, and to read one for every version of a
    /// project takes long; what grows was published lately.
    async fn growing_of(&self, found: &Found) -> BTreeMap<String, Vec<String>> {
        let since_ms = self.core.now_ms().saturating_sub(GROWS_FOR_MS);
        let heads = found.iter().filter_map(|(version, fold)| {
            let (head, _) = head_of(version, fold)?;
            let is_recent = fold.generation(&head)?.published_at_ms >= since_ms;
            is_recent.then(|| (version.to_string(), head))
        });
        let (heads, ledger): (Vec<_>, _) = (heads.take(MOST_GROWING).collect(), self.core.ledger.clone());
        blocking(move || {
            let growing = heads.into_iter().filter_map(|(version, head)| {
                let names = ledger.manifest(head).ok()??.growing().map(str::to_owned).collect::<Vec<_>>();
                (!names.is_empty()).then_some((version, names))
            });
            growing.collect()
        })
        .await
    }

    fn list_item(&self, version: &VersionId, fold: &VersionFold) -> Option<VersionItem> {
        let (head, conflict) = head_of(version, fold)?;
        let generation = fold.generation(&head)?;
        Some(VersionItem {
            reference: version.to_string(),
            representations: generation.representations.iter().map(ToString::to_string).collect(),
            files: generation.files,
            bytes: generation.bytes,
            here: self.presence(version, fold, &head),
            generation: generation.generation,
            author: generation.author.clone(),
            published: time_of_ms(generation.published_at_ms),
            conflict,
            retired: retired_item(fold),
            growing: Vec::new(),
        })
    }

    fn presence(&self, version: &VersionId, fold: &VersionFold, head: &ManifestId) -> Presence {
        if fold.holds(&self.core.me, head) {
            return Presence::Complete;
        }
        let older = fold.held_by(&self.core.me).next().is_some();
        let coming =
            self.replicator.board.of_version(version).is_some_and(|job| job.status().files_present > 0);
        if older || coming { Presence::Partial } else { Presence::None }
    }

    pub(super) async fn where_reply(&self, query: RefQuery) -> Result<WhereReply, ApiError> {
        let text = query.reference.as_deref().unwrap_or_default();
        let reference = self.parse(text)?;
        let found = self.find(&reference, query.project.as_deref()).await?;
        let mut versions = Vec::with_capacity(found.len());
        for (version, fold) in found {
            versions.extend(self.where_item(version, fold).await?);
        }
        Ok(WhereReply { schema: "avalonctl.where/1".into(), versions })
    }

    async fn where_item(&self, version: VersionId, fold: VersionFold) -> Result<Option<WhereItem>, ApiError> {
        let Some((head, conflict)) = head_of(&version, &fold) else { return Ok(None) };
        let Some(generation) = fold.generation(&head).cloned() else { return Ok(None) };
        let nodes = self.nodes_of(&version, &fold);
        let partly = self.partly_held(&fold, &head, &nodes).await?;
        let nodes = nodes.iter().map(|(node, mode)| {
            let (state, files_present) = self.holding(&version, &fold, &head, (node, *mode), &partly);
            NodeHolding {
                node: node.node.to_string(),
                site: node.site.to_string(),
                state,
                files_present: if state == HoldingState::Complete { generation.files } else { files_present },
                files_total: generation.files,
                verified: (*node == self.core.me && state == HoldingState::Complete)
                    .then(|| self.scrubber.verified_ms(&head).map(time_of_ms))
                    .flatten(),
            }
        });
        let ledger = self.core.ledger.clone();
        let manifest = blocking(move || ledger.manifest(head).ok().flatten()).await;
        Ok(Some(WhereItem {
            inputs: manifest.map(|manifest| manifest.draft().inputs.clone()).unwrap_or_default(),
            reference: version.to_string(),
            generation: generation.generation,
            manifest: head.to_string(),
            conflict,
            nodes: nodes.collect(),
        }))
    }

    /// Returns every node of the project that this node knows of, with how it takes part where that is known.
    fn nodes_of(&self, version: &VersionId, fold: &VersionFold) -> BTreeMap<NodeId, Option<ProjectMode>> {
        let mut nodes: BTreeMap<NodeId, Option<ProjectMode>> =
            fold.nodes().into_iter().map(|node| (node, None)).collect();
        let feeds = self.core.ledger.heads(&version.project);
        nodes.extend(feeds.into_iter().map(|(node, _)| (node, None)));
        for link in self.net.links() {
            let served = link.hello().projects.iter().find(|served| served.name == version.project);
            if let Some(served) = served {
                nodes.insert(link.node().clone(), Some(served.mode));
            }
        }
        let own = self.core.project(&version.project).map(|project| project.mode());
        nodes.insert(self.core.me.clone(), own);
        nodes
    }

    /// Returns how many files of the head each node has that holds only an older generation.
    async fn partly_held(
        &self,
        fold: &VersionFold,
        head: &ManifestId,
        nodes: &BTreeMap<NodeId, Option<ProjectMode>>,
    ) -> Result<BTreeMap<NodeId, u64>, ApiError> {
        let older: Vec<(NodeId, Vec<ManifestId>)> = nodes
            .keys()
            .filter(|node| !fold.holds(node, head))
            .map(|node| (node.clone(), fold.held_by(node).collect::<Vec<_>>()))
            .filter(|(_, held)| !held.is_empty())
            .collect();
        if older.is_empty() {
            return Ok(BTreeMap::new());
        }
        let (ledger, head) = (self.core.ledger.clone(), *head);
        Ok(blocking(move || {
            let manifest_of = |id: ManifestId| ledger.manifest(id).ok().flatten();
            let Some(head) = manifest_of(head) else { return BTreeMap::new() };
            let counts = older.into_iter().map(|(node, held)| {
                let present = held.into_iter().filter_map(manifest_of).map(|old| shared_files(&head, &old));
                (node, present.max().unwrap_or(0))
            });
            counts.collect()
        })
        .await)
    }

    fn holding(
        &self,
        version: &VersionId,
        fold: &VersionFold,
        head: &ManifestId,
        (node, mode): (&NodeId, Option<ProjectMode>),
        partly: &BTreeMap<NodeId, u64>,
    ) -> (HoldingState, u64) {
        if fold.holds(node, head) {
            return (HoldingState::Complete, 0);
        }
        if *node == self.core.me
            && let Some(job) = self.replicator.board.of_version(version)
        {
            let present = job.status().files_present;
            return (if present > 0 { HoldingState::Partial } else { HoldingState::Queued }, present);
        }
        match partly.get(node) {
            Some(present) => (HoldingState::Partial, *present),
            None if mode == Some(ProjectMode::Mirror) => (HoldingState::Queued, 0),
            None => (HoldingState::None, 0),
        }
    }

    pub(super) async fn info_reply(&self, query: RefQuery) -> Result<InfoReply, ApiError> {
        let text = query.reference.as_deref().unwrap_or_default();
        let reference = self.parse(text)?;
        let mut found = self.find(&reference, query.project.as_deref()).await?;
        let count = found.len();
        let (Some((version, fold)), 1) = (found.pop(), count) else {
            let message = format!("{text} names {count} versions, info shows one");
            return Err(ApiError::new(ErrorCode::BadReference, message)
                .with_hint("list them: avalonctl ls, then name one"));
        };
        let (head, _) = head_of(&version, &fold).ok_or_else(|| {
            ApiError::new(ErrorCode::NotFound, format!("nothing of {version} is published"))
        })?;
        let ledger = self.core.ledger.clone();
        let manifest = blocking(move || ledger.manifest(head)).await;
        let manifest = manifest.map_err(|error| {
            ApiError::new(ErrorCode::Internal, crate::log::ErrorChain(&error).to_string())
        })?;
        let manifest = manifest.ok_or_else(|| {
            ApiError::new(ErrorCode::NoSource, format!("the manifest of {version} has not come here yet"))
                .with_hint("it comes when a node that has it is connected: avalonctl status")
        })?;
        let here = self.presence(&version, &fold, &head);
        let node = fold.generation(&head).map(|generation| generation.node.to_string()).unwrap_or_default();
        let project = self.core.project(&version.project);
        let path = project.map(|project| project.path().join(manifest.dir().as_str()).display().to_string());
        let manifest = Arc::new(manifest);
        let problems = self.problems_of(&version, &fold, &manifest).await;
        let retired = retired_item(&fold);
        let info = info_of(&manifest, node, path, here);
        if here == Presence::Complete {
            let files_here = info.files.len() as u64;
            return Ok(InfoReply { problems, retired, files_here, ..info });
        }
        let names = self.names_here(&manifest).await;
        let here = if names.is_empty() { here } else { Presence::Partial };
        let some_here = in_short(&names);
        let files_here = names.len() as u64;
        Ok(InfoReply { problems, retired, here, files_here, some_here, ..info })
    }

    /// Returns the files of a version that is not all here and that lie in their place as the catalog knows them.
    async fn names_here(&self, manifest: &Arc<Manifest>) -> Vec<String> {
        let Some(dir) = self.core.project(manifest.project()).and_then(|project| project.dir()) else {
            return Vec::new();
        };
        let (ledger, manifest) = (self.core.ledger.clone(), Arc::clone(manifest));
        blocking(move || {
            let is_here = |file: &&FileEntry| {
                let Ok(path) = manifest.dir().join(&file.path) else { return false };
                let known = ledger.local_file(manifest.project(), &path).ok().flatten();
                let known = known.filter(|known| known.hash == file.hash);
                known.is_some_and(|known| {
                    dir.stat(&path).is_ok_and(|now| now.is_some_and(|now| now.identity() == known.identity()))
                })
            };
            manifest.files().iter().filter(is_here).map(|file| file.path.to_string()).collect()
        })
        .await
    }

    /// Returns what is known of one version.
    pub(super) async fn fold_of(&self, version: &VersionId) -> Result<VersionFold, ApiError> {
        let (ledger, version) = (self.core.ledger.clone(), version.clone());
        let fold = blocking(move || ledger.version(&version))
            .await
            .map_err(|error| catalog_failed(&self.core.ledger, &error))?;
        Ok(fold.unwrap_or_default())
    }
}

/// Says in a few words which files these are: sequences by their frames.
fn in_short(names: &[String]) -> Vec<String> {
    let is_numbered = |name: &&String| FrameName::parse(name).is_some();
    let sequences = group(names.iter().map(String::as_str));
    let others = names.iter().filter(|name| !is_numbered(name)).cloned();
    sequences.iter().map(ToString::to_string).chain(others).take(MOST_NAMED).collect()
}

/// Returns the manifest that stands for a version, and whether sites disagree about it.
pub(super) fn head_of(version: &VersionId, fold: &VersionFold) -> Option<(ManifestId, bool)> {
    match fold.standing(version.slot) {
        Standing::Unknown => None,
        Standing::Head(head) => Some((head, false)),
        Standing::Conflict(heads) => heads.first().map(|head| (*head, true)),
    }
}

fn shared_files(head: &Manifest, old: &Manifest) -> u64 {
    let known: BTreeSet<(&RelPath, &ObjectHash)> =
        old.files().iter().map(|file| (&file.path, &file.hash)).collect();
    head.files().iter().filter(|file| known.contains(&(&file.path, &file.hash))).count() as u64
}

fn info_of(manifest: &Manifest, node: String, path: Option<String>, here: Presence) -> InfoReply {
    let draft = manifest.draft();
    let representation = |index: u16| {
        let named = manifest.representations().get(usize::from(index));
        named.map(|r| r.name.to_string()).unwrap_or_default()
    };
    InfoReply {
        schema: "avalonctl.info/1".into(),
        reference: manifest.version().to_string(),
        manifest: manifest.id().to_string(),
        generation: draft.generation,
        completeness: draft.completeness,
        author: draft.author.clone(),
        node,
        comment: draft.comment.clone(),
        published: time_of_ms(draft.published_at_ms),
        retired: None,
        growing: manifest.growing().map(str::to_owned).collect(),
        path,
        dir: manifest.dir().to_string(),
        here,
        files_here: 0,
        some_here: Vec::new(),
        files: manifest
            .files()
            .iter()
            .map(|file| FileItem {
                path: file.path.to_string(),
                bytes: file.size,
                hash: file.hash.to_string(),
                representation: representation(file.representation),
            })
            .collect(),
        inputs: draft.inputs.clone(),
        metadata: draft.metadata.clone(),
        problems: Vec::new(),
    }
}
