//! The other side of a transfer: peers get objects straight from the project tree.
//!
//! An object is served only to peers of the project that it is asked for in, only while the file is what the catalog
//! knows; a file that changed is hashed again first, and if it is another object now, it is not there.

use std::sync::Arc;

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
    net::{ObjectSource, Objects, ReadFailed},
};

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
    let dir = core.project(project)?.dir()?;
    let places = core.ledger.locate_in(project, object).ok()?;
    let here = places.into_iter().filter(|(_, _, file)| file.size == size);
    for (_, path, file) in here {
        if let Some(reader) = open_one(&dir, &path, &file) {
            return Some(Arc::new(TreeObject { core: Arc::clone(core), reader: Arc::new(reader) }));
        }
    }
    None
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
}
