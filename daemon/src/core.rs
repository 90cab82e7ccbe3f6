//! What every part of the daemon shares: who this node is, its ledger, its projects, and where to say what happens.

use std::{collections::BTreeMap, sync::Arc};

use avalon_certs::Revocations;
use avalon_protocol::{
    access::Role,
    id::{NodeId, ProjectName, StudioName},
    record::Record,
};
use avalon_store::{
    catalog::LocalChange,
    ledger::{Committed, Ledger, LedgerError},
    object::{hash::Hasher, serve::BlockCache},
};

use tokio_util::sync::CancellationToken;

pub use crate::tasks::blocking;
use crate::{
    audit::Audit,
    buffers::Buffers,
    clock::Clock,
    events::EventBus,
    health::HealthBoard,
    knowledge::Knowledge,
    limits::Limits,
    numbers::Numbers,
    own_feeds::OwnWriting,
    policy::StudioPolicy,
    project::Project,
    replicate::{encode::Deltas, jobs::Orders},
    scrub::FoundDamaged,
    space::Space,
    transfers::TransferLog,
};

/// Shared by all tasks; holds no task itself.
#[derive(Debug)]
pub struct Core {
    /// This node.
    pub me: NodeId,
    /// What its certificate says that it is.
    pub role: Role,
    /// Its studio.
    pub studio: StudioName,
    /// Feeds, manifests and catalog.
    pub ledger: Ledger,
    /// The pool that hashes.
    pub hasher: Hasher,
    /// Block lists of local files.
    pub blocks: BlockCache,
    /// What encoding for peers shares.
    pub deltas: Arc<Deltas>,
    /// What makes room, and keeps what is to stay.
    pub space: Space,
    /// The numbers that this node promised to others.
    pub numbers: Numbers,
    /// What blocks are read into on their way to peers.
    pub buffers: Buffers,
    /// The projects that it serves. The studio's own is none of them: it has feeds and nothing else.
    pub projects: BTreeMap<ProjectName, Arc<Project>>,
    /// The studio's policy.
    pub policy: StudioPolicy,
    /// What happens.
    pub events: EventBus,
    /// What somebody has to look at.
    pub health: HealthBoard,
    /// Who is revoked, as every handshake asks it. Whoever learns more exchanges the set and closes connections.
    pub revocations: Revocations,
    /// How old the knowledge of the studio's rights is.
    pub knowledge: Knowledge,
    /// How much of the line content may take.
    pub limits: Limits,
    /// When its own feeds may be written.
    pub own: OwnWriting,
    /// What people said about the queue of jobs.
    pub orders: Orders,
    /// Who did what at this node.
    pub audit: Audit,
    /// What was found damaged, for whoever repairs it.
    pub damaged: FoundDamaged,
    /// What came to this node.
    pub transfers: TransferLog,
    /// Time.
    pub clock: Arc<dyn Clock>,
}

impl Core {
    /// Returns a project that this node serves.
    pub fn project(&self, name: &ProjectName) -> Option<&Arc<Project>> {
        self.projects.get(name)
    }

    /// Returns every project whose feeds are kept here and exchanged with peers: those that it serves, and the studio's own.
    pub fn feed_projects(&self) -> impl Iterator<Item = ProjectName> {
        self.projects.keys().cloned().chain([ProjectName::studio()])
    }

    /// Returns the time in milliseconds since 1970, for display.
    pub fn now_ms(&self) -> u64 {
        let since = self.clock.now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
    }
}

impl Core {
    /// Waits until the catalog can be asked: a start does not wait for one that is built anew. False when the daemon stops
    /// before.
    pub async fn until_catalog(&self, stop: &CancellationToken) -> bool {
        let ledger = self.ledger.clone();
        tokio::select! {
            () = stop.cancelled() => false,
            is_ready = blocking(move || ledger.wait_ready()) => is_ready,
        }
    }

    /// Records facts about a project, with what changed on disk; returns when they are durable.
    ///
    /// # Errors
    /// [`LedgerError`]; nothing was recorded.
    pub async fn commit(
        &self,
        project: ProjectName,
        records: Vec<Record>,
        local: Vec<LocalChange>,
    ) -> Result<Committed, LedgerError> {
        let (reply, answer) = tokio::sync::oneshot::channel();
        let (ledger, now_ms) = (self.ledger.clone(), self.now_ms());
        blocking(move || {
            ledger.commit(&project, records, local, now_ms, Box::new(move |r| drop(reply.send(r))))
        })
        .await;
        answer.await.unwrap_or(Err(LedgerError::Closed))
    }

    /// As [`Core::commit`], for what was concluded from the catalog after the ledger said that own records had come back `came_back`
    /// times.
    ///
    /// # Errors
    /// [`LedgerError`]; nothing was recorded. [`LedgerError::CameBack`] where it has to be concluded anew.
    pub async fn commit_concluded(
        &self,
        (project, came_back): (ProjectName, u64),
        records: Vec<Record>,
        local: Vec<LocalChange>,
    ) -> Result<Committed, LedgerError> {
        let (reply, answer) = tokio::sync::oneshot::channel();
        let (ledger, now_ms) = (self.ledger.clone(), self.now_ms());
        blocking(move || {
            let reply = Box::new(move |r| drop(reply.send(r)));
            ledger.commit_concluded((&project, came_back), records, local, now_ms, reply);
        })
        .await;
        answer.await.unwrap_or(Err(LedgerError::Closed))
    }
}
