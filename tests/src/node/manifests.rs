//! Brings in every manifest that a record names, from any peer that serves the project: they are part of what all nodes
//! know, like the records themselves.

use std::collections::BTreeSet;

use avalon_protocol::{
    hash::ManifestId,
    id::ProjectName,
    wire::{FetchManifests, Request as WireRequest},
};

use super::SimNode;
use crate::{
    env::Env,
    event::{NodeIndex, Wake},
    reply::Answer,
};

/// Most manifests in one request: few, so that there are several.
const MANIFESTS_PER_REQUEST: usize = 3;

impl SimNode {
    /// Returns the manifests of a project that records name and that are not here.
    pub fn missing_manifests<'a>(
        &'a self,
        project: &'a ProjectName,
    ) -> impl Iterator<Item = ManifestId> + 'a {
        let folds = self.disk.ledger.folds().iter().filter(move |(version, _)| version.project == *project);
        let named = folds.flat_map(|(_, fold)| fold.generations().keys().copied());
        named.filter(|id| !self.disk.manifests.contains_key(id))
    }

    /// Asks each peer that is free for some manifests that nobody was asked for.
    pub(super) fn ask_for_manifests(&mut self, env: &mut Env) {
        if self.disk.full {
            return;
        }
        for project in self.projects.keys().cloned().collect::<Vec<_>>() {
            let Some(life) = &self.life else { return };
            let requests = || life.links.values().flat_map(|link| link.requests.values());
            let asked: BTreeSet<ManifestId> =
                requests().flat_map(|request| request.answer.open_manifests()).collect();
            let mut wanted: Vec<ManifestId> =
                self.missing_manifests(&project).filter(|id| !asked.contains(id)).collect();
            let free = life.links.iter().filter(|(_, link)| {
                let until_ms = life.no_manifests.get(&(link.peer, project.clone()));
                let busy = link.requests.values().any(|request| request.answer.is_of_manifests());
                let shunned = until_ms.is_some_and(|until_ms| *until_ms > env.now_ms);
                link.ready && link.shares(&project) && !busy && !shunned
            });
            // Those that failed longest ago first, or a peer that has it would never get its turn.
            let failed_ms = |peer: NodeIndex| life.no_manifests.get(&(peer, project.clone())).copied();
            let mut free: Vec<_> = free.map(|(id, link)| (failed_ms(link.peer), *id)).collect();
            free.sort_unstable();
            for (_, id) in free {
                let manifests: Vec<ManifestId> =
                    wanted.split_off(wanted.len().saturating_sub(MANIFESTS_PER_REQUEST));
                if manifests.is_empty() {
                    break;
                }
                let answer = Answer::manifests(&manifests);
                let fetch = FetchManifests { project: project.clone(), manifests };
                self.ask(id, &project, None, answer, &WireRequest::Manifests(fetch), env);
            }
        }
    }

    /// Passes over a peer that did not have what was asked for, for a while.
    pub(super) fn shun_for_manifests(
        &mut self,
        peer: NodeIndex,
        project: &ProjectName,
        shun_ms: u64,
        env: &mut Env,
    ) {
        let Some(life) = self.life.as_mut() else { return };
        life.no_manifests.insert((peer, project.clone()), env.now_ms + shun_ms);
        env.wake(self.who, shun_ms, Wake::LookForManifests);
    }
}
