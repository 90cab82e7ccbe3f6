//! Artists save files; once they are quiet the daemon hashes them, writes the manifest and records the version.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use avalon_protocol::{
    hash::{ManifestId, ObjectHash},
    id::{ProjectName, VersionId},
    manifest::Manifest,
    own_feed::Writing,
    record::{Held, Published, Record},
    version_fold::VersionFold,
};

use super::{Concluded, SimNode, Waiting};
use crate::{
    content::{Publish, SavedFile, draft},
    env::{Env, Said},
    event::{Note, Wake},
    mutation::Mutation,
    tree::TreeFile,
};

impl SimNode {
    /// Saves the files of a new version; does nothing when the version is here.
    pub(super) fn save(&mut self, version: &VersionId, files: &[SavedFile], env: &mut Env) -> bool {
        let serves = self.projects.contains_key(&version.project);
        if !serves || self.disk.full || self.disk.tree.dir(version).is_some() {
            return false;
        }
        files.iter().for_each(|file| self.write(version, file, env));
        self.settle_later(version, env);
        true
    }

    /// Adds a file to a version that is here and is not being placed.
    pub(super) fn add(&mut self, version: &VersionId, file: &SavedFile, env: &mut Env) -> bool {
        let free = self.disk.tree.dir(version).is_some_and(|dir| !dir.files.contains_key(&file.path));
        if !free || self.disk.full || self.is_placing(version) {
            return false;
        }
        self.write(version, file, env);
        self.settle_later(version, env);
        true
    }

    /// The artist's application has closed the file before anybody looks at it, and not synced it.
    fn write(&mut self, version: &VersionId, file: &SavedFile, env: &mut Env) {
        let bytes = file.bytes();
        let object = ObjectHash::of(&bytes);
        let (node, path) = (self.who.node, file.path.clone());
        env.said.push(Said::Saved { node, version: version.clone(), path: path.clone(), object });
        let dir = self.disk.tree.dir_mut(version);
        dir.unsaved.insert(path.clone());
        dir.files.insert(path, TreeFile { object, bytes });
        self.touched.versions.insert(version.clone());
    }

    fn settle_later(&mut self, version: &VersionId, env: &mut Env) {
        let delay_ms = env.between(50..=1500);
        env.wake(self.who, delay_ms, Wake::Settled(version.clone()));
    }

    /// Asks for a version.
    pub(super) fn pull(&mut self, version: VersionId, env: &mut Env) -> bool {
        let Some(life) = self.life.as_mut() else { return false };
        life.wishes.insert(version.clone());
        env.said.push(Said::Pulled { node: self.who.node, version: version.clone() });
        self.plan(&version, env);
        true
    }

    /// Looks at a version directory in which nothing moves: is there something that no record of ours says?
    pub(super) fn settled(&mut self, version: &VersionId, env: &mut Env) {
        let Some(life) = self.life.as_ref() else { return };
        let now = Duration::from_millis(env.now_ms);
        if life.own.writing(&version.project, now) == Writing::Waits
            && !env.is_wrong(Mutation::WritesAfterRestore)
        {
            // What this node recorded is about to be known. Where nobody can say it for now, it is refused when it is written.
            env.wake(self.who, 300, Wake::Settled(version.clone()));
            return;
        }
        let recording = life.publishing.iter().any(|(publishing, _)| publishing == version);
        if recording || self.is_placing(version) {
            // What is here is about to get its record; the next look starts from that.
            env.wake(self.who, 50, Wake::Settled(version.clone()));
            return;
        }
        let Some(dir) = self.disk.tree.dir(version) else { return };
        let empty = VersionFold::default();
        let fold = self.disk.ledger.folds().get(version).unwrap_or(&empty);
        // What it grew from is what this node held last, by its own records, and not a twin that another node published. Whose
        // manifest has to be at hand: a node that was put back hears of its records before their manifests come.
        let number = |id: &ManifestId| fold.generation(id).map(|generation| generation.generation);
        let held = fold.ever_held_by(&self.id).max_by_key(number);
        if held.is_some_and(|held| !self.disk.manifests.contains_key(&held)) {
            env.note(&Note::NotAtHand(self.who.node, version.clone()));
            env.wake(self.who, 300, Wake::Settled(version.clone()));
            return;
        }
        // Nor is what was being placed, when the state was put back to before anything was known of that generation.
        if self.disk.placing.get(version).is_some_and(|coming| !self.disk.manifests.contains_key(coming)) {
            env.note(&Note::NotAtHand(self.who.node, version.clone()));
            env.wake(self.who, 300, Wake::Settled(version.clone()));
            return;
        }
        let known: Vec<&Arc<Manifest>> =
            fold.generations().keys().filter_map(|id| self.disk.manifests.get(id)).collect();
        if let Some(same) = known.iter().find(|manifest| dir.is(manifest)) {
            let (manifest, content) = (same.id(), same.content());
            if !fold.holds(&self.id, &manifest) {
                let same = (*same).clone();
                self.compare(version);
                self.disk.tree.dir_mut(version).sync(&same);
                self.touched.versions.insert(version.clone());
                env.note(&Note::Found(self.who.node, version.clone()));
                let held = Record::Placed(Held { version: version.clone(), manifest });
                self.record_publish((version, manifest), content, &held, env);
            }
            return;
        }
        let started = known.iter().any(|manifest| dir.has_all(manifest));
        if started && known.iter().any(|manifest| dir.is_part_of(manifest)) {
            // A growth that was interrupted while it was placed: not an artist's work.
            return;
        }
        // What this node holds is what grew; a candidate of somebody else may happen to be a part of it.
        let before = known.iter().filter(|manifest| dir.has_all(manifest));
        let before = before.max_by_key(|manifest| {
            let id = manifest.id();
            (held == Some(id), fold.holds(&self.id, &id), manifest.draft().generation, id)
        });
        if self.disk.full {
            env.note(&Note::NoRoom(self.who.node));
            env.wake(self.who, 500, Wake::Settled(version.clone()));
            return;
        }
        let publish = Publish {
            version: version.clone(),
            predecessor: before.map(|manifest| (manifest.id(), manifest.draft().generation)),
            author: self.id.to_string(),
            published_at_ms: env.clock_ms(self.ahead_ms),
        };
        let files = dir.files.iter().map(|(path, file)| (path.clone(), file.bytes.len() as u64, file.object));
        let manifest = draft(publish, files).finish().expect("simulated artists keep the rules");
        let (id, content) = (manifest.id(), manifest.content());
        if self.disk.manifests.insert(id, manifest.into()).is_none() {
            self.disk.unsynced_manifests.insert(id);
        }
        self.compare(version);
        if let Some(life) = self.life.as_mut() {
            life.publishing.insert((version.clone(), content));
        }
        let delay_ms = env.sync_ms(15);
        env.wake(self.who, delay_ms, Wake::ManifestSynced { version: version.clone(), manifest: id });
    }

    pub(super) fn manifest_synced(&mut self, version: &VersionId, id: ManifestId, env: &mut Env) {
        let Some(manifest) = self.disk.manifests.get(&id).cloned() else { return };
        if std::mem::take(&mut self.disk.bad_sync) {
            // The artist hears of it and writes the files again.
            env.note(&Note::PublishSyncFailed(self.who.node));
            if let Some(life) = self.life.as_mut() {
                life.publishing.retain(|(publishing, _)| publishing != version);
            }
            env.wake(self.who, 1000, Wake::Settled(version.clone()));
            return;
        }
        self.disk.unsynced_manifests.remove(&id);
        if !env.is_wrong(Mutation::PublishesUnsynced) {
            self.disk.tree.dir_mut(version).sync(&manifest);
        }
        self.touched.versions.insert(version.clone());
        let published = Published {
            version: version.clone(),
            manifest: id,
            content: manifest.content(),
            generation: manifest.draft().generation,
            predecessor: manifest.draft().predecessor,
            files: manifest.files().len() as u64,
            bytes: manifest.total_bytes(),
            representations: manifest.representations().iter().map(|r| r.name.clone()).collect(),
            author: manifest.draft().author.clone(),
            published_at_ms: manifest.draft().published_at_ms,
        };
        let note = if published.predecessor.is_none() { Note::Published } else { Note::Grew };
        env.note(&note(self.who.node, version.clone()));
        self.record_publish((version, id), manifest.content(), &Record::Published(published), env);
    }

    /// Remembers how often own records had come back when a version was compared with the catalog.
    fn compare(&mut self, version: &VersionId) {
        let Some(life) = self.life.as_mut() else { return };
        let came_back = life.came_back.get(&version.project).copied().unwrap_or_default();
        life.compared.insert(version.clone(), came_back);
    }

    /// Takes back publishes that may not be written, or that were concluded before own records came back: they are looked at again.
    pub(super) fn take_publishes_back(&mut self, project: &ProjectName, refused: bool, env: &mut Env) {
        let Some(life) = self.life.as_mut() else { return };
        let came_back = life.came_back.get(project).copied().unwrap_or_default();
        let believes = env.is_wrong(Mutation::WritesWhatItConcluded);
        let is_bad = |concluded: &Concluded| refused || (concluded.came_back != came_back && !believes);
        let Some(waiting) = life.outbox.get_mut(project) else { return };
        let bad: Vec<Waiting> =
            waiting.extract_if(.., |waiting| waiting.concluded.as_ref().is_some_and(is_bad)).collect();
        if waiting.is_empty() {
            life.outbox.remove(project);
        }
        for Concluded { version, manifest, .. } in bad.into_iter().filter_map(|waiting| waiting.concluded) {
            life.publishing.retain(|(publishing, _)| *publishing != version);
            // A draft that nothing names explains nothing.
            let fold = self.disk.ledger.folds().get(&version);
            if fold.is_none_or(|fold| fold.generation(&manifest).is_none()) {
                self.disk.manifests.remove(&manifest);
            }
            env.note(&if refused { Note::WriteWaits(self.who.node) } else { Note::Overtaken(self.who.node) });
            env.wake(self.who, if refused { 500 } else { 50 }, Wake::Settled(version));
        }
    }

    fn record_publish(
        &mut self,
        (version, manifest): (&VersionId, ManifestId),
        content: avalon_protocol::hash::ContentId,
        record: &Record,
        env: &mut Env,
    ) {
        let Some(life) = self.life.as_mut() else { return };
        life.publishing.insert((version.clone(), content));
        let came_back = life.compared.remove(version).unwrap_or_default();
        let concluded = Concluded { version: version.clone(), manifest, came_back };
        self.record(&version.project, record.to_raw(), Some(concluded), env);
    }

    /// Hears that records about these versions are durable: publishes of them may be among those, and whoever saved them is told.
    pub(super) fn publishes_recorded(&mut self, versions: &BTreeSet<VersionId>, env: &mut Env) {
        let Some(life) = self.life.as_mut() else { return };
        let (folds, me) = (self.disk.ledger.folds(), &self.id);
        let (node, said) = (self.who.node, &mut env.said);
        let mut acknowledged = Vec::new();
        life.publishing.retain(|(version, content)| {
            let fold = folds.get(version).filter(|_| versions.contains(version));
            let mut generations = fold.into_iter().flat_map(|fold| fold.generations());
            let is_recorded = generations.any(|(id, generation)| {
                generation.content == *content && fold.is_some_and(|fold| fold.holds(me, id))
            });
            if is_recorded {
                said.push(Said::Acknowledged { node, version: version.clone(), content: *content });
                acknowledged.push(Note::Acknowledged(node, version.clone()));
            }
            !is_recorded
        });
        acknowledged.iter().for_each(|note| env.note(note));
    }

    /// What a node does that does not wait for the fsync.
    pub(super) fn acknowledge_all(&mut self, env: &mut Env) {
        let Some(life) = self.life.as_ref() else { return };
        for (version, content) in &life.publishing {
            let (node, version, content) = (self.who.node, version.clone(), *content);
            env.said.push(Said::Acknowledged { node, version, content });
        }
    }
}
