//! The other side of a transfer: peers get objects straight from the project tree.
//!
//! An object is served only to peers of the project that it is asked for in, only while the file is what the catalog
//! knows; a file that changed is hashed again first, and if it is another object now, it is not there.

use std::{ops::Range, sync::Arc};

use avalon_protocol::rel_path::RelPath;
use avalon_protocol::{
    block::{BLOCK_BYTES, BlockList},
    hash::ObjectHash,
    id::ProjectName,
};
use avalon_store::{catalog::LocalFile, fs::Dir, object::serve::ObjectReader};
use bytes::Bytes;
use futures_util::future::BoxFuture;

use crate::{
    core::{Core, blocking},
    log::ErrorChain,
    net::{ObjectSource, Objects, PieceSource, ReadFailed, Terms},
};

use super::encode::Encoder;

/// The project trees as sessions see them.
#[derive(Debug)]
pub struct TreeObjects(pub Arc<Core>);

impl Objects for TreeObjects {
    fn open<'a>(
        &'a self,
        project: &'a ProjectName,
        object: &'a ObjectHash,
        size: u64,
    ) -> BoxFuture<'a, Option<Arc<dyn ObjectSource>>> {
        let (core, project, object) = (Arc::clone(&self.0), project.clone(), *object);
        Box::pin(blocking(move || open(&core, &project, &object, size)))
    }
}

fn open(
    core: &Arc<Core>,
    project: &ProjectName,
    object: &ObjectHash,
    size: u64,
) -> Option<Arc<dyn ObjectSource>> {
    let reader = open_reader(core, project, object, size)?;
    Some(Arc::new(TreeObject { core: Arc::clone(core), project: project.clone(), reader: Arc::new(reader) }))
}

/// Opens an object wherever it lies in a project.
pub(super) fn open_reader(
    core: &Core,
    project: &ProjectName,
    object: &ObjectHash,
    size: u64,
) -> Option<ObjectReader> {
    let dir = core.project(project)?.dir()?;
    let places = core.ledger.locate_in(project, object).ok()?;
    let mut here = places.into_iter().filter(|(_, _, file)| file.size == size);
    here.find_map(|(_, path, file)| open_one(&dir, &path, &file))
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
    reader: Arc<ObjectReader>,
}

impl ObjectSource for TreeObject {
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

    fn read(&self, offset: u64, _bytes: usize) -> BoxFuture<'_, Result<Bytes, ReadFailed>> {
        let reader = Arc::clone(&self.reader);
        Box::pin(blocking(move || {
            let failed = |source| ReadFailed {
                what: format!("object {}", reader.object().short()),
                source: Box::new(source),
            };
            reader.read_block(offset / BLOCK_BYTES).map(Bytes::from).map_err(failed)
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
