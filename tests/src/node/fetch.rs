//! Brings in what a version lacks: its manifest, then its objects, from several sources, over and over until it is whole.

use std::collections::BTreeSet;

use avalon_protocol::{
    close_code::CloseCode,
    hash::{ManifestId, ObjectHash},
    id::{ProjectName, VersionId},
    plan::{Decision, Missing, batches, rank_sources},
    wire::{FetchObjects, Framed, Request as WireRequest, Want},
};

use super::SimNode;
use crate::{
    env::{Env, Said},
    event::{ConnectionId, Note, StreamId, Wake},
    incoming::join,
    mutation::Mutation,
    reply::{Answer, Got},
};

/// Longer than any story.
const FOREVER_MS: u64 = 10_000_000;
/// Most requests under way on one connection.
const REQUESTS_PER_LINK: usize = 2;

/// A version that is on its way.
#[derive(Debug)]
pub(super) struct Fetch {
    /// The generation that was decided on.
    pub(super) manifest: ManifestId,
    /// How far it is.
    pub(super) stage: Stage,
}

/// The stages of a fetch, in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Stage {
    /// Manifest and objects are being asked for.
    Gathering,
    /// Everything is here and is being synced.
    Syncing,
    /// Files are being renamed in, one after the other.
    Placing,
    /// The directory is being synced.
    Sealing,
    /// The record is being written.
    Recording,
}

/// A request without its whole answer.
#[derive(Debug)]
pub(super) struct Request {
    pub(super) project: ProjectName,
    /// For which version; none for manifests.
    version: Option<VersionId>,
    pub(super) answer: Answer,
}

impl SimNode {
    pub(super) fn plan_all(&mut self, env: &mut Env) {
        let versions: Vec<VersionId> = self.disk.ledger.folds().keys().cloned().collect();
        versions.iter().for_each(|version| self.plan(version, env));
    }

    /// Decides about a version again, and starts, changes or ends its fetch.
    pub(super) fn plan(&mut self, version: &VersionId, env: &mut Env) {
        let decision = self.decide(version);
        let Some(life) = self.life.as_mut() else { return };
        let fetch = life.fetches.get(version);
        if fetch.is_some_and(|fetch| matches!(fetch.stage, Stage::Placing | Stage::Sealing)) {
            return;
        }
        match decision {
            Decision::Fetch(manifest) => {
                if fetch.is_none_or(|fetch| fetch.manifest != manifest) {
                    life.fetches.insert(version.clone(), Fetch { manifest, stage: Stage::Gathering });
                }
                self.pump(version, env);
            }
            other => {
                life.fetches.remove(version);
                if matches!(other, Decision::Conflict(_)) {
                    env.note(&Note::Conflict(self.who.node, version.clone()));
                }
            }
        }
    }

    /// Says whether files of a version are being renamed in.
    pub fn is_placing(&self, version: &VersionId) -> bool {
        let fetch = self.life.as_ref().and_then(|life| life.fetches.get(version));
        fetch.is_some_and(|fetch| fetch.stage >= Stage::Placing)
    }

    pub(super) fn pump_all(&mut self, env: &mut Env) {
        let fetches: Vec<VersionId> =
            self.life.iter().flat_map(|life| life.fetches.keys().cloned()).collect();
        fetches.iter().for_each(|version| self.pump(version, env));
    }

    /// Asks for what a fetch lacks and nobody was asked for, or goes on when it lacks nothing.
    fn pump(&mut self, version: &VersionId, env: &mut Env) {
        let Some(life) = self.life.as_mut() else { return };
        let Some(fetch) = life.fetches.get_mut(version).filter(|f| f.stage == Stage::Gathering) else {
            return;
        };
        let id = fetch.manifest;
        // A manifest that is not here is on its way, as all are that records name.
        let Some(manifest) = self.disk.manifests.get(&id).cloned() else { return };
        let objects: BTreeSet<(ObjectHash, u64)> =
            manifest.files().iter().map(|file| (file.hash, file.size)).collect();
        let (project, disk) = (&version.project, &self.disk);
        let absent = objects.iter().filter(|(object, _)| disk.tree.object(project, object).is_none());
        let missing: Vec<Missing> =
            absent.filter_map(|(object, size)| disk.incoming.missing(project, *object, *size)).collect();
        if missing.is_empty() {
            fetch.stage = Stage::Syncing;
            let delay_ms = env.sync_ms(15);
            env.wake(self.who, delay_ms, Wake::Gathered(version.clone()));
            return;
        }
        if self.disk.full {
            env.note(&Note::NoRoom(self.who.node));
            return;
        }
        self.ask_for_objects(version, id, missing, env);
    }

    /// Returns the connections to holders, best first, that have room for a request.
    fn sources(&self, version: &VersionId, manifest: &ManifestId, env: &Env) -> Vec<ConnectionId> {
        let Some(life) = &self.life else { return vec![] };
        let Some(fold) = self.disk.ledger.folds().get(version) else { return vec![] };
        let ranked = rank_sources(&self.id, &fold.holders(manifest));
        let link_to = |node| {
            life.links.iter().find(|(_, link)| {
                let shunned = life.shunned.get(&(link.peer, version.clone()));
                link.ready
                    && self.names[link.peer] == node
                    && link.shares(&version.project)
                    && link.requests.len() < REQUESTS_PER_LINK
                    && shunned.is_none_or(|until_ms| *until_ms <= env.now_ms)
            })
        };
        ranked.into_iter().filter_map(link_to).map(|(id, _)| *id).collect()
    }

    fn ask_for_objects(
        &mut self,
        version: &VersionId,
        id: ManifestId,
        mut missing: Vec<Missing>,
        env: &mut Env,
    ) {
        let Some(life) = &self.life else { return };
        let requests = life.links.values().flat_map(|link| link.requests.values());
        let requests = requests.filter(|request| request.project == version.project);
        let under_way: Vec<Want> = requests.flat_map(|request| request.answer.open_wants()).collect();
        missing.retain_mut(|missing| {
            let asked = under_way.iter().filter(|want| want.object == missing.object);
            let asked: Vec<Want> = asked.copied().collect();
            // Whoever brings the block list brings some blocks; the others follow once the list is here.
            let list_first = asked.iter().any(|want| want.with_list) && !missing.list_known;
            let is_asked = |block: &u64| {
                asked.iter().any(|want| (want.first_block..want.first_block + want.blocks).contains(block))
            };
            let blocks = missing.blocks.iter().cloned().flatten();
            missing.blocks = join(blocks.filter(|block| !list_first && !is_asked(block)));
            !missing.blocks.is_empty()
        });
        let mut sources = self.sources(version, &id, env);
        if missing.is_empty() || sources.is_empty() {
            return;
        }
        if env.chance(50) {
            sources.truncate(1);
        }
        // A share of the objects for each source.
        for (index, source) in sources.iter().enumerate() {
            let share: Vec<Missing> = missing.iter().skip(index).step_by(sources.len()).cloned().collect();
            for wants in batches(&share).into_iter().take(1) {
                let said = |want: &Want| Said::Want {
                    from: self.who.node,
                    project: version.project.clone(),
                    want: *want,
                };
                env.said.extend(wants.iter().map(said));
                let answer = Answer::objects(&wants);
                let fetch = FetchObjects { project: version.project.clone(), wants };
                let request = WireRequest::Objects(fetch);
                self.ask(*source, &version.project, Some(version), answer, &request, env);
            }
        }
    }

    pub(super) fn ask(
        &mut self,
        source: ConnectionId,
        project: &ProjectName,
        version: Option<&VersionId>,
        answer: Answer,
        request: &WireRequest,
        env: &mut Env,
    ) {
        let stream = env.network.open_stream();
        let (node, to) = (self.who.node, self.life.as_mut().and_then(|life| life.links.get_mut(&source)));
        let Some(link) = to else { return };
        env.said.push(Said::Project { from: node, to: link.peer, project: project.clone() });
        link.requests.insert(stream, Request { project: project.clone(), version: version.cloned(), answer });
        env.send(source, node, StreamId::Request(stream), request.to_frame(), true);
    }

    pub(super) fn asked_on(&self, id: ConnectionId, stream: u64) -> bool {
        let link = self.life.as_ref().and_then(|life| life.links.get(&id));
        link.is_some_and(|link| link.requests.contains_key(&stream))
    }

    /// Takes a piece of an answer: what is verified stays, whatever becomes of the rest.
    pub(super) fn answer_arrived(
        &mut self,
        id: ConnectionId,
        stream: u64,
        piece: &[u8],
        last: bool,
        env: &mut Env,
    ) {
        let Some(link) = self.life.as_mut().and_then(|life| life.links.get_mut(&id)) else { return };
        let peer = link.peer;
        let Some(request) = link.requests.get_mut(&stream) else { return };
        let (project, version) = (request.project.clone(), request.version.clone());
        let all = request.answer.take(piece);
        let unanswered = last && !request.answer.is_complete();
        if last {
            link.requests.remove(&stream);
        }
        let nothing = all.contains(&Got::Nothing) || unanswered;
        let refused = all.into_iter().filter(|got| !self.keep(&project, got, env)).count() > 0;
        if nothing || refused {
            let (note, shun_ms) = if refused {
                let reason = "the bytes do not have the name that was asked for".to_owned();
                env.said.push(Said::Accused { from: self.who.node, peer, reason });
                (Note::Refused(self.who.node, peer), env.between(500..=4000))
            } else {
                (Note::Unanswered(self.who.node, peer), env.between(50..=500))
            };
            env.note(&note);
            match version {
                Some(version) => self.shun(peer, &version, shun_ms, env),
                None => self.shun_for_manifests(peer, &project, shun_ms, env),
            }
        }
        if refused && env.chance(50) {
            self.close(id, CloseCode::Content, env);
        }
        if last {
            self.ask_for_manifests(env);
            self.pump_all(env);
        }
    }

    /// Keeps what has come in, if it is what it should be.
    fn keep(&mut self, project: &ProjectName, got: &Got, env: &mut Env) -> bool {
        match got {
            Got::Nothing => true,
            Got::Nonsense => false,
            Got::Manifest(id, bytes) => {
                let matches = ManifestId::from_bytes(*blake3::hash(bytes).as_bytes()) == *id;
                matches && self.keep_manifest(project, bytes)
            }
            Got::List(want, values) => {
                self.disk.incoming.take_list(project, want.object, want.size, values.clone()).is_ok()
            }
            Got::Block(want, index, bytes) => {
                if self.disk.full || self.disk.tree.object(project, &want.object).is_some() {
                    return true;
                }
                let trusting = env.is_wrong(Mutation::TrustsBytes);
                let incoming = &mut self.disk.incoming;
                let taken =
                    incoming.take_block(project, (want.object, want.size), (*index, bytes), trusting).is_ok();
                if taken {
                    let delay_ms = env.sync_ms(60);
                    let (project, object) = (project.clone(), want.object);
                    env.wake(self.who, delay_ms, Wake::IncomingSynced { project, object });
                }
                taken
            }
        }
    }

    fn shun(&mut self, peer: usize, version: &VersionId, mut shun_ms: u64, env: &mut Env) {
        let Some(life) = self.life.as_mut() else { return };
        if env.is_wrong(Mutation::NeverAsksAgain) {
            shun_ms = FOREVER_MS;
        }
        life.shunned.insert((peer, version.clone()), env.now_ms + shun_ms);
        env.wake(self.who, shun_ms, Wake::Retry(version.clone()));
    }

    /// Notes which fetches go on with what an earlier start left.
    pub(super) fn note_resumed(&self, env: &mut Env) {
        for version in self.disk.ledger.folds().keys() {
            let Decision::Fetch(id) = self.decide(version) else { continue };
            let files = self.disk.manifests.get(&id).into_iter().flat_map(|manifest| manifest.files());
            if files.into_iter().any(|file| self.disk.incoming.has_some(&version.project, file.hash)) {
                env.note(&Note::Resumed(self.who.node, version.clone()));
            }
        }
    }
}
