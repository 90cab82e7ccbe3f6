//! Where the blocks of one stream go: checked, written and counted one by one.

use std::{collections::BTreeSet, sync::Arc};

use avalon_protocol::{
    block::{BlockList, BlockListError, BlockValue},
    hash::ObjectHash,
};
use avalon_store::object::incoming::{Incoming, IncomingError};
use bytes::Bytes;
use futures_util::future::BoxFuture;
use thiserror::Error;

use super::tell_progress;
use crate::{
    core::blocking,
    net::{BlockSink, SinkStopped},
    replicate::jobs::Job,
};

/// Why the stream's bytes were not taken.
#[derive(Debug, Error)]
pub(super) enum SinkError {
    /// The peer's block list is not that of the object.
    #[error("the peer's block list is refused")]
    List(#[source] BlockListError),
    /// The block does not verify, or cannot be written.
    #[error("a block is refused")]
    Block(#[source] IncomingError),
}

impl SinkError {
    /// Says whether the peer is to blame.
    pub(super) fn is_senders_fault(&self) -> bool {
        match self {
            Self::List(_) => true,
            Self::Block(error) => error.is_senders_fault(),
        }
    }
}

/// Takes what one stream brings.
#[derive(Debug)]
pub(super) struct JobSink {
    incoming: Arc<Incoming>,
    job: Arc<Job>,
    /// Objects that the peer does not have.
    pub(super) not_found: BTreeSet<ObjectHash>,
    /// Why the last call failed.
    pub(super) error: Option<SinkError>,
}

impl JobSink {
    pub(super) fn new(incoming: Arc<Incoming>, job: Arc<Job>) -> Self {
        Self { incoming, job, not_found: BTreeSet::new(), error: None }
    }

    fn fail(&mut self, error: SinkError) -> Result<(), SinkStopped> {
        self.error = Some(error);
        Err(SinkStopped)
    }
}

impl BlockSink for JobSink {
    fn list(
        &mut self,
        object: ObjectHash,
        size: u64,
        values: Vec<BlockValue>,
    ) -> BoxFuture<'_, Result<(), SinkStopped>> {
        Box::pin(async move {
            self.job.add_received(values.len() as u64 * size_of::<BlockValue>() as u64);
            let list = match BlockList::verified(object, size, values) {
                Ok(list) => list,
                Err(error) => return self.fail(SinkError::List(error)),
            };
            let incoming = Arc::clone(&self.incoming);
            match blocking(move || incoming.set_blocks(list)).await {
                Ok(()) | Err(IncomingError::NotNeeded { .. }) => Ok(()),
                Err(error) => self.fail(SinkError::Block(error)),
            }
        })
    }

    fn block(
        &mut self,
        object: ObjectHash,
        index: u64,
        bytes: Bytes,
    ) -> BoxFuture<'_, Result<(), SinkStopped>> {
        Box::pin(async move {
            self.job.add_received(bytes.len() as u64);
            let incoming = Arc::clone(&self.incoming);
            let written = blocking(move || incoming.write_block(&object, index, &bytes)).await;
            match written {
                Ok(_) | Err(IncomingError::NotNeeded { .. }) => {
                    if self.job.progress_is_due() {
                        tell_progress(&self.job, &self.incoming);
                    }
                    Ok(())
                }
                Err(error) => self.fail(SinkError::Block(error)),
            }
        })
    }

    fn not_found(&mut self, object: ObjectHash) -> BoxFuture<'_, Result<(), SinkStopped>> {
        self.not_found.insert(object);
        Box::pin(std::future::ready(Ok(())))
    }
}
