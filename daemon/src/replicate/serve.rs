//! The other side of a transfer: peers get objects straight from the project tree.
//!
//! An object is served only to peers of the project that it is asked for in, only while the file is what the catalog
//! knows; a file that changed is hashed again first, and if it is another object now, it is not there.

use std::{
    ops::Range,
    sync::{Arc, atomic::AtomicU64},
};

use avalon_protocol::rel_path::RelPath;
use avalon_protocol::{
    audit::{AuditAction, AuditActor, AuditOutcome},
    block::BlockList,
    drop::NotCounted,
    hash::{ManifestId, ObjectHash},
    id::{NodeId, ProjectName},
    numbers::Answer,
    wire::{AskNumber, FetchProof},
};
use avalon_store::{catalog::LocalFile, fs::Dir, object::serve::ObjectReader};
use bytes::Bytes;
use futures_util::future::BoxFuture;

use crate::{
    audit::Sum,
    buffers::Shelf,
    core::{Core, blocking},
    log::ErrorChain,
    net::{ObjectSource, Objects, OpenObject, PieceSource, ReadFailed, Small, Terms, Vouched},
    space,
};

use super::encode::{Encoder, plain};

/// The project trees as sessions see them.
#[derive(Debug)]
pub struct TreeObjects(pub Arc<Core>);

impl Objects for TreeObjects {
    fn open<'a>(
        &'a self,
        project: &'a ProjectName,
        object: &'a ObjectHash,
        size: u64,
        small: Small,
    ) -> BoxFuture<'a, Result<Option<OpenObject>, ReadFailed>> {
        let (core, project, object) = (Arc::clone(&self.0), project.clone(), *object);
        Box::pin(blocking(move || open(&core, &project, &object, (size, small))))
    }

    fn prove<'a>(
        &'a self,
        ask: &'a FetchProof,
        read: Arc<AtomicU64>,
    ) -> BoxFuture<'a, Result<Vouched, NotCounted>> {
        Box::pin(space::vouch(Arc::clone(&self.0), ask.clone(), read))
    }

    fn served(&self, to: &NodeId, project: &ProjectName, manifest: Option<ManifestId>, bytes: u64) {
        let about = manifest.map(|manifest| manifest.to_string());
        self.0.audit.add(sum(to, project, AuditOutcome::Done, about), bytes);
    }

    fn refused(&self, to: &NodeId, project: &ProjectName) {
        self.0.audit.add(sum(to, project, AuditOutcome::Denied, None), 0);
    }

    fn promise<'a>(&'a self, ask: &'a AskNumber, by: &'a NodeId) -> BoxFuture<'a, Answer> {
        let (core, ask, by) = (Arc::clone(&self.0), ask.clone(), by.clone());
        Box::pin(blocking(move || core.vote(&ask, &by)))
    }
}

/// Serving is written once a minute for each peer and version.
fn sum(to: &NodeId, project: &ProjectName, outcome: AuditOutcome, about: Option<String>) -> Sum {
    let actor = AuditActor::Peer { node: to.to_string() };
    Sum { actor, action: AuditAction::Serve, outcome, project: Some(project.to_string()), about }
}

fn open(
    core: &Arc<Core>,
    project: &ProjectName,
    object: &ObjectHash,
    (size, small): (u64, Small),
) -> Result<Option<OpenObject>, ReadFailed> {
    let Some((reader, manifest)) = open_with_manifest(core, project, object, size)? else { return Ok(None) };
    let small = match small {
        Small::No => None,
        Small::Read | Small::Compress => match plain(&reader, 0, small == Small::Compress) {
            Ok(piece) => Some(piece),
            Err(error) => {
                tracing::warn!(object = %object.short(), error = %ErrorChain(&error), "a file cannot be served");
                return Ok(None);
            }
        },
    };
    let (core, project, shelf) = (Arc::clone(core), project.clone(), core.buffers.shelf());
    let source = Arc::new(TreeObject { core, project, shelf, reader: Arc::new(reader), manifest });
    Ok(Some(OpenObject { source, small }))
}

/// Opens an object wherever it lies in a project. An error means that nobody knows: the catalog is being rebuilt, and what
/// it knows of by now is served already.
pub(super) fn open_reader(
    core: &Core,
    project: &ProjectName,
    object: &ObjectHash,
    size: u64,
) -> Result<Option<ObjectReader>, ReadFailed> {
    Ok(open_with_manifest(core, project, object, size)?.map(|(reader, _)| reader))
}

fn open_with_manifest(
    core: &Core,
    project: &ProjectName,
    object: &ObjectHash,
    size: u64,
) -> Result<Option<(ObjectReader, ManifestId)>, ReadFailed> {
    let Some(dir) = core.project(project).and_then(|project| project.dir()) else { return Ok(None) };
    let failed = |source| ReadFailed { what: format!("object {}", object.short()), source: Box::new(source) };
    let places = core.ledger.locate_meanwhile(project, object).map_err(failed)?;
    let mut here = places.into_iter().filter(|(_, _, file)| file.size == size);
    Ok(here.find_map(|(_, path, file)| Some((open_one(&dir, &path, &file)?, file.manifest))))
}

fn open_one(dir: &Dir, path: &RelPath, file: &LocalFile) -> Option<ObjectReader> {
    match ObjectReader::open(dir, path, &file.hash, &file.identity()) {
        Ok(reader) => Some(reader),
        Err(error) => {
            tracing::warn!(%path, object = %file.hash.short(), error = %ErrorChain(&error), "a file cannot be served");
            None
        }
    }
}

struct TreeObject {
    core: Arc<Core>,
    project: ProjectName,
    shelf: Arc<Shelf>,
    reader: Arc<ObjectReader>,
    manifest: ManifestId,
}

impl ObjectSource for TreeObject {
    fn manifest(&self) -> Option<ManifestId> {
        Some(self.manifest)
    }

    fn list(&self) -> BoxFuture<'_, Option<BlockList>> {
        let (core, reader) = (Arc::clone(&self.core), Arc::clone(&self.reader));
        Box::pin(blocking(move || match core.hasher.run(|| core.blocks.get_or_compute(&reader)) {
            Ok(list) => Some(list),
            Err(error) => {
                tracing::warn!(error = %ErrorChain(&error), "a block list cannot be made");
                None
            }
        }))
    }

    fn read(&self, offset: u64, bytes: usize) -> BoxFuture<'_, Result<Bytes, ReadFailed>> {
        let (reader, mut buffer) = (Arc::clone(&self.reader), self.shelf.take(bytes));
        Box::pin(blocking(move || {
            let failed = |source| ReadFailed {
                what: format!("object {}", reader.object().short()),
                source: Box::new(source),
            };
            reader.read_into(offset, buffer.bytes_mut()).map_err(failed)?;
            Ok(buffer.freeze())
        }))
    }

    fn encode(&self, blocks: Range<u64>, terms: Terms) -> BoxFuture<'_, Option<Box<dyn PieceSource>>> {
        Box::pin(async move {
            let base = match terms.base {
                // Asked for by hash: a base that a peer may not have is not found here either.
                Some(base) => {
                    let (core, project) = (Arc::clone(&self.core), self.project.clone());
                    blocking(move || open_reader(&core, &project, &base.object, base.size))
                        .await
                        .ok()
                        .flatten()
                        .map(Arc::new)
                }
                None => None,
            };
            if base.is_none() && !terms.compress {
                return None;
            }
            let (deltas, reader) = (Arc::clone(&self.core.deltas), Arc::clone(&self.reader));
            Encoder::begin(deltas, reader, base, terms.compress, blocks).await
        })
    }
}

#[cfg(test)]
mod tests {
    use avalon_protocol::{close_code::CloseCode, mode::ProjectMode, wire::Want};
    use avalon_store::{catalog::LocalChange, fs::WriteMode};

    use super::*;
    use crate::{
        fixture::{Node, Studio, manifest, project},
        net::{BlockSink, FetchError, SinkStopped},
        tasks::Tasks,
    };

    const CONTENT: &[u8] = b"a robot";

    /// Publishes a file that lies in the node's tree.
    fn publish(node: &Node) -> avalon_protocol::manifest::Manifest {
        let manifest = manifest(1, CONTENT);
        let path = manifest.dir().join(&manifest.files()[0].path).unwrap();
        let dir = node.project().dir().unwrap();
        dir.create_dirs(manifest.dir()).unwrap();
        dir.write_atomic(&path, CONTENT, WriteMode::Replace).unwrap();
        dir.set_mtime(&path, manifest.files()[0].mtime_ns).unwrap();
        node.publishes(&manifest);
        let file =
            LocalFile::new(manifest.files()[0].hash, &dir.stat(&path).unwrap().unwrap(), manifest.id());
        let put = LocalChange::Put { project: project(), path, file };
        node.core.ledger.update_local_wait(vec![put]).unwrap();
        manifest
    }

    #[derive(Debug, Default)]
    struct Kept(Vec<u8>, usize);

    impl BlockSink for Kept {
        fn list<'a>(
            &'a mut self,
            _: ObjectHash,
            _: u64,
            _: Vec<avalon_protocol::block::BlockValue>,
        ) -> BoxFuture<'a, Result<(), SinkStopped>> {
            Box::pin(async { Ok(()) })
        }

        fn block<'a>(
            &'a mut self,
            _: ObjectHash,
            _: u64,
            bytes: Bytes,
        ) -> BoxFuture<'a, Result<(), SinkStopped>> {
            self.0.extend_from_slice(&bytes);
            Box::pin(async { Ok(()) })
        }

        fn not_found<'a>(&'a mut self, _: ObjectHash) -> BoxFuture<'a, Result<(), SinkStopped>> {
            self.1 += 1;
            Box::pin(async { Ok(()) })
        }
    }

    #[tokio::test]
    async fn while_the_catalog_is_built_anew_peers_are_told_to_come_back_and_then_served() {
        let studio = Studio::new();
        let london = studio.node("srv@london", ProjectMode::OnDemand);
        let manifest = publish(&london);
        let (london, gate) = studio.without_catalog(london);
        let montreal = studio.node("srv@montreal", ProjectMode::OnDemand);
        let tasks = Tasks::new();
        let (serving, _events) = london.net(&tasks, &[]);
        let (net, mut events) = montreal.net(&tasks, &[serving.local_addr().to_string()]);
        events.recv().await.unwrap();
        let link = net.link(&london.core.me).unwrap();
        let file = &manifest.files()[0];
        let want = Want { object: file.hash, size: file.size, first_block: 0, blocks: 1, with_list: false };

        let manifests = link.fetch_manifests(&project(), vec![manifest.id()]).await.unwrap();
        assert!(manifests[0].is_some(), "manifests need no catalog");
        let mut kept = Kept::default();
        let refused = link.fetch_objects(&project(), vec![want], &mut kept).await.unwrap_err();
        let is_busy = matches!(&refused, FetchError::GivenUp { code: Some(CloseCode::Busy), .. });
        assert!(is_busy && kept.1 == 0, "{refused:?}: not here and not known are two things");

        gate.open();
        assert!(london.core.until_catalog(&tasks.token()).await);
        link.fetch_objects(&project(), vec![want], &mut kept).await.unwrap();
        assert_eq!(kept.0, CONTENT);
    }
}
