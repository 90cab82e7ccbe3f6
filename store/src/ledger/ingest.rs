//! Taking what a peer sent: checked as a whole, then manifests, then groups, then the catalog.

use std::{collections::BTreeMap, sync::Arc};

use avalon_protocol::{
    access::Role,
    feed::{FeedHead, FeedId, FeedReader, Group, SealedGroup},
    hash::ManifestId,
    id::VersionId,
    limits::MAX_FEEDS,
    manifest::Manifest,
    record::Record,
};

use super::{
    IngestError, Ingested, LedgerError,
    replay::{relearn_versions, versions_of},
    writer::{Ingest, Writer},
};
use crate::{
    catalog::Judge,
    feed::{FeedFile, FeedFileError, Staged, peek},
};

impl Writer {
    pub(super) fn ingest(&mut self, ingest: Ingest) {
        let Ingest { feed, groups, manifests, reply } = ingest;
        let result = self.take(&feed, &groups, &manifests);
        if let Err(error) = &result {
            tracing::warn!(%feed, error = %crate::error_chain::ErrorChain(error), "records of a peer not taken");
        }
        reply(result);
    }

    fn take(
        &mut self,
        feed: &FeedId,
        groups: &[SealedGroup],
        manifests: &[Vec<u8>],
    ) -> Result<Ingested, IngestError> {
        let (staged, bodies) = self.accept(feed, groups)?;
        let wanted = self.wanted(feed, (&staged, &bodies), manifests)?;
        let manifests: Vec<(ManifestId, &[u8])> =
            wanted.iter().map(|(manifest, bytes)| (manifest.id(), *bytes)).collect();
        let stored = self.shared.manifests.put_all(&manifests);
        stored.map_err(|source| IngestError::ManifestFile { feed: feed.clone(), source })?;
        wanted.iter().for_each(|(manifest, _)| self.shared.note_stored(manifest.id(), manifest.project()));
        let manifests_stored = manifests.into_iter().map(|(id, _)| id).collect();
        let appended = self.append(feed, staged.clone());
        let groups: Vec<SealedGroup> = staged.into_iter().map(|staged| staged.group).collect();
        let applied = self.durable(feed, &groups);
        let mut touched: Vec<VersionId> = applied.iter().flat_map(|(body, _)| versions_of(body)).collect();
        touched.sort();
        touched.dedup();
        // A catalog that fails is noted and rebuilt; the records are durable all the same.
        if !applied.is_empty() && self.index(&applied, &[]).is_ok() {
            tracing::debug!(%feed, groups = applied.len(), "records of a peer applied");
            self.relearn_own(feed, &touched);
        }
        if !applied.is_empty() && feed.node == self.shared.me {
            self.shared.came_back.note(&feed.project);
        }
        self.announce(&applied, |feed| !feed.is_of_studio());
        appended.map_err(IngestError::Ledger)?;
        let head = self.feeds.get(feed).map_or(FeedHead::EMPTY, FeedFile::head);
        Ok(Ingested { head, is_new: !applied.is_empty(), touched, manifests_stored })
    }

    /// A node that gets its own feed back still has the files that it is about.
    fn relearn_own(&self, feed: &FeedId, touched: &[VersionId]) {
        let store = self.shared.store();
        if feed.node == self.shared.me
            && let Err(error) = relearn_versions(&self.shared, &*store, touched, &mut |_| {})
        {
            self.shared.note_damage(&error);
        }
    }

    /// Checks groups in a row against what is here; those that are here already are passed over.
    fn accept(
        &self,
        feed: &FeedId,
        groups: &[SealedGroup],
    ) -> Result<(Vec<Staged>, Vec<Group>), IngestError> {
        let file = self.feeds.get(feed);
        if file.is_none() && self.shared.heads(&feed.project).len() >= MAX_FEEDS {
            return Err(IngestError::TooManyFeeds { project: feed.project.clone() });
        }
        let mut reader = file.map_or_else(|| FeedReader::new(feed.clone()), |file| file.reader().clone());
        let durable = reader.head().next_seq;
        let (mut staged, mut bodies) = (Vec::new(), Vec::new());
        let mut added = 0;
        for group in groups {
            // Whether another group in the place of a known one is a second history, the reader says: it has to be signed.
            if let Some(file) = file
                && is_known(file, group, durable)?
            {
                continue;
            }
            if self.shared.fork(feed).is_some() {
                return Err(IngestError::Frozen { feed: feed.clone() });
            }
            let accepted = reader.accept(group, &*self.trust);
            bodies.push(accepted.map_err(|error| self.refuse(feed, group, error))?);
            added += group.body.len() as u64;
            staged.push(Staged { group: group.clone(), after: reader.clone() });
        }
        let role = staged.last().and_then(|staged: &Staged| staged.after.role());
        self.check_length(feed, file, added, role)?;
        Ok((staged, bodies))
    }

    /// Refuses what would make a peer's feed longer than is taken here. An admin's feed in the studio's project has no limit, while it is
    /// trusted: what it says of rights must come through.
    fn check_length(
        &self,
        feed: &FeedId,
        file: Option<&FeedFile>,
        added: u64,
        role: Option<Role>,
    ) -> Result<(), IngestError> {
        let limit = self.max_feed_bytes;
        let bytes = file.map_or(0, |file| file.index().bytes());
        let is_admins = role == Some(Role::Admin) && !self.shared.admission().is_revoked(&feed.node);
        if bytes.saturating_add(added) <= limit
            || added == 0
            || feed.node == self.shared.me
            || feed.project.is_studio() && is_admins
        {
            return Ok(());
        }
        Err(IngestError::FeedTooLong { feed: feed.clone(), bytes, limit })
    }

    /// Returns the manifests among `manifests` that these groups publish or that have been missed, each of the version
    /// that the record says. Others are not taken: a peer could fill the disk with them.
    fn wanted<'a>(
        &self,
        feed: &FeedId,
        (staged, bodies): (&[Staged], &[Group]),
        manifests: &'a [Vec<u8>],
    ) -> Result<Vec<(Manifest, &'a [u8])>, IngestError> {
        let admission = self.shared.admission();
        let mut published: BTreeMap<ManifestId, VersionId> = BTreeMap::new();
        for (staged, body) in staged.iter().zip(bodies) {
            let Some(signer) = staged.after.signer() else { continue };
            let judge = Judge { admission: &admission, signer };
            for (seq, raw) in (body.first_seq..).zip(&body.records) {
                if let Ok(record) = Record::in_feed(raw, &feed.project)
                    && judge.admits(feed, seq, &record).is_ok()
                    && let Record::Published(said) = record
                {
                    published.insert(said.manifest, said.version);
                }
            }
        }
        let mut wanted = Vec::new();
        for bytes in manifests {
            let manifest = Manifest::decode(bytes);
            let manifest = manifest.map_err(|source| IngestError::Manifest { feed: feed.clone(), source })?;
            let missing = || self.shared.missing_version(&feed.project, &manifest.id());
            let version = published.get(&manifest.id()).cloned().or_else(missing);
            if version.as_ref() == Some(manifest.version()) {
                wanted.push((manifest, bytes.as_slice()));
            } else {
                tracing::debug!(%feed, manifest = %manifest.id(), "manifest that nobody published passed over");
            }
        }
        Ok(wanted)
    }

    fn append(&mut self, feed: &FeedId, staged: Vec<Staged>) -> Result<(), LedgerError> {
        if staged.is_empty() {
            return Ok(());
        }
        let own = feed.node == self.shared.me;
        let file = self.feed_mut(feed)?;
        if own {
            // As in `write_own`: the end of an own feed is never torn in more than one frame.
            for staged in staged {
                file.append(vec![staged]).map_err(LedgerError::append)?;
            }
            return Ok(());
        }
        file.append(staged).map(|_| ()).map_err(LedgerError::append)
    }
}

/// Says whether a group stands in the feed already.
fn is_known(file: &FeedFile, group: &SealedGroup, durable: u64) -> Result<bool, IngestError> {
    let feed = file.reader().feed();
    let Some((_, seq)) = peek(group).filter(|(named, seq)| named == feed && *seq < durable) else {
        return Ok(false);
    };
    match file.index().read(seq, 1) {
        Ok(known) => Ok(known.first().is_some_and(|known| known.chain() == group.chain())),
        Err(FeedFileError::NotABoundary { .. }) => Ok(false),
        Err(source) => {
            let source = Arc::new(source);
            Err(IngestError::Ledger(LedgerError::Feed { feed: feed.clone(), source }))
        }
    }
}
