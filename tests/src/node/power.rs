//! Starts, kills and crashes a node, and puts it back to a backup.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use avalon_protocol::{
    hash::ManifestId,
    id::ProjectName,
    own_feed::{OwnFeeds, Signs},
};
use rand::Rng as _;

use super::{Backup, Life, SimNode};
use crate::{
    env::{Env, Said},
    event::{Note, Wake},
    mutation::Mutation,
};

impl SimNode {
    /// Starts it: feeds are read, the catalog is brought up to date, every directory without a record is looked at.
    pub fn start(&mut self, env: &mut Env) {
        if self.is_up() {
            return;
        }
        self.who.boot += 1;
        self.touched.power = true;
        self.open_ledger(env);
        self.disk.incoming.reread(env.is_wrong(Mutation::TrustsTornBlocks));
        self.certificates += u32::from(env.chance(10));
        let own = self.own_feeds(env);
        self.life = Some(Life {
            instance: env.dice.random(),
            own,
            links: BTreeMap::new(),
            dialling: BTreeSet::new(),
            backoffs: BTreeMap::new(),
            fetches: BTreeMap::new(),
            wishes: BTreeSet::new(),
            outbox: BTreeMap::new(),
            came_back: BTreeMap::new(),
            publishing: BTreeSet::new(),
            compared: BTreeMap::new(),
            shunned: BTreeMap::new(),
            no_manifests: BTreeMap::new(),
        });
        for peer in self.dials.clone() {
            let delay_ms = env.between(0..=500);
            env.wake(self.who, delay_ms, Wake::Dial(peer));
        }
        for version in self.disk.tree.dirs().keys() {
            let delay_ms = env.between(100..=1500);
            env.wake(self.who, delay_ms, Wake::Settled(version.clone()));
        }
        self.drop_placed_parts();
        self.note_resumed(env);
        self.plan_all(env);
    }

    /// The catalog is there, lags behind, or is gone.
    fn open_ledger(&mut self, env: &mut Env) {
        let mut lags = false;
        let kind = env.between(0..=3);
        let dice = &mut env.dice;
        let in_catalog = |groups: usize| match kind {
            0 => 0,
            1 => {
                let applied = dice.random_range(0..=groups);
                lags |= applied < groups;
                applied
            }
            _ => groups,
        };
        self.disk.ledger.reopen(in_catalog, env.wrong);
        if lags {
            env.note(&Note::CatalogLags(self.who.node));
        }
    }

    fn own_feeds(&self, env: &Env) -> OwnFeeds {
        let signs = if self.restored {
            Signs::Restored { why: "other files".to_owned() }
        } else if self.who.boot == 1 {
            Signs::New
        } else {
            Signs::None
        };
        let records = |project: &ProjectName| self.disk.ledger.head(&self.own_feed(project)).next_seq;
        let feeds = self.projects.keys().map(|project| (project.clone(), records(project)));
        let is_alone = !(0..self.names.len()).any(|peer| env.network.has_line(self.who.node, peer));
        OwnFeeds::new(feeds, signs, is_alone, Duration::from_millis(env.now_ms))
    }

    /// Takes the power away: memory goes, and on disk what was not synced may go, each file by itself.
    pub fn crash(&mut self, env: &mut Env) {
        let was_up = self.stop(env);
        let dice = &mut env.dice;
        // What a killed process left in the page cache goes too.
        let lost = self
            .disk
            .ledger
            .crash(|bytes| if dice.random_bool(0.3) { bytes } else { dice.random_range(0..=bytes) });
        let fallen = self.disk.tree.crash(dice);
        let torn_blocks = self.disk.incoming.crash(dice);
        for manifest in std::mem::take(&mut self.disk.unsynced_manifests) {
            // A torn one does not have its name: a start does not find it.
            if dice.random_bool(0.5) {
                self.disk.manifests.remove(&manifest);
            }
        }
        self.touched.power = true;
        let node = self.who.node;
        if !was_up {
            return self.tell_lost(fallen.saved, env);
        }
        let notes = [
            (lost.groups, Note::LostTail(node)),
            (lost.torn, Note::TornGroup(node)),
            (lost.out_of_order, Note::OutOfOrder(node)),
            (torn_blocks > 0, Note::TornBlocks(node, torn_blocks)),
        ];
        notes.iter().filter(|(happened, _)| *happened).for_each(|(_, note)| env.note(note));
        for version in fallen.interrupted {
            self.touched.versions.insert(version.clone());
            env.note(&Note::CrashedWhilePlacing(node, version));
        }
        self.tell_lost(fallen.saved, env);
    }

    fn tell_lost(&self, saved: Vec<super::LostFile>, env: &mut Env) {
        let node = self.who.node;
        for (version, path, torn) in saved {
            env.note(&Note::LostSaved(node, version.clone()));
            env.said.push(Said::Lost { node, version, path, torn });
        }
    }

    /// Kills the process: memory goes, what was written stays with the system.
    pub fn kill(&mut self, env: &mut Env) {
        if self.stop(env) {
            self.touched.power = true;
            env.note(&Note::Killed(self.who.node));
        }
    }

    fn stop(&mut self, env: &mut Env) -> bool {
        let was_up = self.life.take().is_some();
        if was_up {
            env.cut_all(self.who.node);
        }
        was_up
    }

    /// Hears that there is room again.
    pub fn has_room(&mut self, env: &mut Env) {
        if !std::mem::take(&mut self.disk.full) {
            return;
        }
        self.ask_for_manifests(env);
        self.pump_all(env);
    }

    /// Makes a backup of what is durable of its state.
    pub fn back_up(&mut self) {
        let unsynced = &self.disk.unsynced_manifests;
        let manifests = self.disk.manifests.iter().filter(|(id, _)| !unsynced.contains(id));
        let manifests = manifests.map(|(id, manifest)| (*id, manifest.clone())).collect();
        self.backup = Some(Backup { ledger: self.disk.ledger.backup(), manifests });
    }

    /// Says whether its backup has a manifest.
    pub fn is_backed_up(&self, manifest: &ManifestId) -> bool {
        self.backup.as_ref().is_some_and(|backup| backup.manifests.contains_key(manifest))
    }

    /// Puts its state back to the backup, if there is one; it is off.
    pub fn restore(&mut self, env: &mut Env) {
        let Some(backup) = self.backup.take() else { return };
        let node = self.who.node;
        let records = |ledger: &crate::ledger::Ledger| -> u64 {
            self.projects.keys().map(|project| ledger.head(&self.own_feed(project)).next_seq).sum()
        };
        if records(&backup.ledger) < records(&self.disk.ledger) {
            env.note(&Note::Restored(node));
        }
        self.disk.ledger = backup.ledger;
        self.disk.manifests = backup.manifests;
        self.disk.unsynced_manifests.clear();
        self.restored = true;
        self.touched.power = true;
        env.said.push(Said::Restored { node });
    }
}
