//! Makes a version visible: all objects durable, then the directory by one rename, or the new files of one that grew
//! with its entry last, then the directory synced, then the record.

use std::sync::Arc;

use avalon_protocol::{
    hash::ObjectHash,
    id::{ProjectName, VersionId},
    manifest::{FileEntry, Manifest},
    plan::Decision,
    record::{Held, Record},
};

use super::{SimNode, fetch::Stage};
use crate::{
    content::Bytes,
    env::{Env, Said},
    event::{Note, Wake},
    mutation::Mutation,
    tree::TreeFile,
};

impl SimNode {
    /// Hears that all objects of a version are durable, and starts to place it if that is still what is wanted.
    pub(super) fn gathered(&mut self, version: &VersionId, env: &mut Env) {
        let Some((manifest, Stage::Syncing)) = self.fetched(version) else { return };
        if self
            .life
            .as_ref()
            .is_some_and(|life| life.publishing.iter().any(|(recording, _)| recording == version))
        {
            // Whoever publishes has the version locked from the hashing to the record; then it is decided anew.
            env.wake(self.who, 50, Wake::Gathered(version.clone()));
            return;
        }
        if self.decide(version) != Decision::Fetch(manifest.id()) {
            self.forget_fetch(version);
            self.plan(version, env);
            return;
        }
        if self.disk.full || std::mem::take(&mut self.disk.bad_sync) {
            return self.cannot_place(version, &manifest, env);
        }
        manifest.files().iter().for_each(|file| self.disk.incoming.sync(&version.project, file.hash));
        let contents = manifest.files().iter().map(|file| self.content(version, file, env));
        let contents: Option<Vec<Bytes>> = contents.collect();
        let Some(contents) = contents else {
            // What could be copied from another version is not there any more.
            self.forget_fetch(version);
            self.plan(version, env);
            return;
        };
        let here = self.disk.tree.dir(version);
        let overwrites = env.is_wrong(Mutation::OverwritesOthers);
        if here.is_some_and(|dir| !dir.is_part_of(&manifest) && !overwrites) {
            // Somebody here saves something else under this number; its record will show the conflict.
            env.note(&Note::Blocked(self.who.node, version.clone()));
            self.forget_fetch(version);
            env.wake(self.who, 1000, Wake::Retry(version.clone()));
            return;
        }
        if here.is_some() {
            self.set_stage(version, Stage::Placing);
            // What an artist has of it is durable before anything comes beside it.
            self.disk.tree.dir_mut(version).sync_saved(&manifest);
            self.touched.versions.insert(version.clone());
            if !env.is_wrong(Mutation::PlacesUnannounced) {
                self.disk.placing.insert(version.clone(), manifest.id());
            }
            self.place_next(version, env);
            return;
        }
        let dir = self.disk.tree.dir_mut(version);
        dir.unsynced_whole = true;
        for (file, bytes) in manifest.files().iter().zip(contents) {
            dir.files.insert(file.path.clone(), TreeFile { object: file.hash, bytes });
        }
        self.seal(version, env);
    }

    /// Renames the next file of a version that grew into its directory, those that a loader resolves last.
    pub(super) fn place_next(&mut self, version: &VersionId, env: &mut Env) {
        let Some((manifest, Stage::Placing)) = self.fetched(version) else { return };
        let Some(dir) = self.disk.tree.dir(version) else { return };
        let any_order = env.is_wrong(Mutation::PlacesInAnyOrder);
        let missing = manifest.files().iter().filter(|file| !dir.has(file));
        let last = |file: &FileEntry| manifest.is_entry(file) && !any_order;
        let Some(file) = missing.min_by_key(|file| (last(file), &file.path)) else {
            self.seal(version, env);
            return;
        };
        let others = manifest.files().iter().filter(|file| !manifest.is_entry(file));
        if last(file) && others.into_iter().any(|file| !dir.is_durable(&file.path)) {
            // An entry becomes visible when all it refers to is durable.
            let dir = self.disk.tree.dir_mut(version);
            dir.sync(&manifest);
            self.touched.versions.insert(version.clone());
            let delay_ms = env.sync_ms(10);
            env.wake(self.who, delay_ms, Wake::PlaceNext(version.clone()));
            return;
        }
        if self.disk.full {
            env.note(&Note::NoRoom(self.who.node));
            env.wake(self.who, 500, Wake::PlaceNext(version.clone()));
            return;
        }
        let Some(bytes) = self.content(version, file, env) else {
            // A failed fsync took it: what came for another version is not believed either.
            self.forget_fetch(version);
            env.wake(self.who, 500, Wake::Retry(version.clone()));
            return;
        };
        let dir = self.disk.tree.dir_mut(version);
        dir.files.insert(file.path.clone(), TreeFile { object: file.hash, bytes });
        dir.unsynced.insert(file.path.clone());
        self.touched.versions.insert(version.clone());
        let delay_ms = env.between(0..=10);
        env.wake(self.who, delay_ms, Wake::PlaceNext(version.clone()));
    }

    /// There is no room, or what came could not be synced and none of it is believed again.
    fn cannot_place(&mut self, version: &VersionId, manifest: &Manifest, env: &mut Env) {
        let node = self.who.node;
        if self.disk.full {
            env.note(&Note::NoRoom(node));
        } else {
            env.note(&Note::IncomingSyncFailed(node));
            manifest.files().iter().for_each(|file| self.forget_incoming(&version.project, file.hash, env));
        }
        self.forget_fetch(version);
        env.wake(self.who, 500, Wake::Retry(version.clone()));
    }

    /// Hears that an fsync of an incoming object is done, or has failed.
    pub(super) fn incoming_synced(&mut self, project: ProjectName, object: ObjectHash, env: &mut Env) {
        if std::mem::take(&mut self.disk.bad_sync) {
            env.note(&Note::IncomingSyncFailed(self.who.node));
            self.forget_incoming(&project, object, env);
            self.pump_all(env);
            return;
        }
        self.disk.incoming.sync(&project, object);
        self.touched.objects.insert((project, object));
    }

    fn forget_incoming(&mut self, project: &ProjectName, object: ObjectHash, env: &mut Env) {
        self.disk.incoming.remove(project, object);
        env.said.push(Said::Forgot { node: self.who.node, project: project.clone(), object });
    }

    fn seal(&mut self, version: &VersionId, env: &mut Env) {
        self.set_stage(version, Stage::Sealing);
        self.touched.versions.insert(version.clone());
        let delay_ms = env.sync_ms(15);
        env.wake(self.who, delay_ms, Wake::Sealed(version.clone()));
    }

    /// Hears that the version directory is durable: now it may be said that it is here.
    pub(super) fn sealed(&mut self, version: &VersionId, env: &mut Env) {
        let Some((manifest, Stage::Sealing)) = self.fetched(version) else { return };
        if !env.is_wrong(Mutation::RecordsBeforeDirectory) {
            self.disk.tree.dir_mut(version).sync(&manifest);
        }
        manifest.files().iter().for_each(|file| self.disk.incoming.remove(&version.project, file.hash));
        self.disk.placing.remove(version);
        self.set_stage(version, Stage::Recording);
        self.touched.versions.insert(version.clone());
        env.note(&Note::Placed(self.who.node, version.clone(), manifest.id()));
        let held = Held { version: version.clone(), manifest: manifest.id() };
        self.record(&version.project, Record::Placed(held).to_raw(), None, env);
    }

    /// Forgets incoming objects that a crash caught between the rename and the record.
    pub(super) fn drop_placed_parts(&mut self) {
        let parts: Vec<_> = self.disk.incoming.keys().cloned().collect();
        for (project, object) in parts {
            if self.disk.tree.has_durable(&project, &object) {
                self.disk.incoming.remove(&project, object);
            }
        }
    }

    /// Returns the bytes of a file: fetched, or the same object in another version.
    fn content(&self, version: &VersionId, file: &FileEntry, env: &mut Env) -> Option<Bytes> {
        let fetched = self.disk.incoming.whole(&version.project, file.hash);
        fetched.or_else(|| {
            let copy = self.disk.tree.object(&version.project, &file.hash).cloned();
            if copy.is_some() {
                env.note(&Note::CopiedLocally(self.who.node, file.hash));
            }
            copy
        })
    }

    fn fetched(&self, version: &VersionId) -> Option<(Arc<Manifest>, Stage)> {
        let fetch = self.life.as_ref()?.fetches.get(version)?;
        Some((self.disk.manifests.get(&fetch.manifest)?.clone(), fetch.stage))
    }

    fn set_stage(&mut self, version: &VersionId, stage: Stage) {
        if let Some(fetch) = self.life.as_mut().and_then(|life| life.fetches.get_mut(version)) {
            fetch.stage = stage;
        }
    }

    fn forget_fetch(&mut self, version: &VersionId) {
        if let Some(life) = self.life.as_mut() {
            life.fetches.remove(version);
        }
    }
}
