//! [`Versions`], the version directories that a settler has an eye on: which to look at next, and what follows from a look.
//!
//! No IO and no waiting: time comes in as a number, and looking is done by whoever takes a [`Look`].

use std::{
    collections::{BTreeMap, BTreeSet},
    hash::{DefaultHasher, Hash as _, Hasher as _},
    mem,
    time::SystemTime,
};

use avalon_protocol::{
    control::ErrorCode,
    manifest::Completeness,
    rel_path::RelPath,
    settle::{SeenFile, Settle, SettleConfig, Verdict, WaitReason, Warning},
    template::{TemplateSet, VersionDir, VersionFields},
};
use tokio::sync::oneshot;

use super::{
    super::{record::Purpose, scan::ScanReport},
    words::{PendingVersion, PublishDetails, PublishOutcome, Settled, SettledFile},
};

/// How long after an event a directory is looked at, at least: a burst of events is one look.
const DEBOUNCE_MS: u64 = 250;
/// The same while it settles anyway: events come all the time then.
const SETTLING_DEBOUNCE_MS: u64 = 1_000;
/// How many files more make a look a millisecond rarer; a look at a hundred thousand takes about a second.
const FILES_PER_DEBOUNCE_MS: u64 = 20;
/// How many version directories found by a scan are on their way through the quiet period at once. The others wait
/// their turn, so that the first scan of a large project does not keep all its files in memory.
const MAX_SETTLING: usize = 256;
/// When a directory that could not be read is tried again.
const RETRY_MS: u64 = 30_000;

/// The version directories of one project that are not simply known.
#[derive(Debug)]
pub(super) struct Versions {
    config: SettleConfig,
    entries: BTreeMap<RelPath, Entry>,
    /// When to look at which; an entry stands in it at most once.
    queue: BTreeSet<(u64, RelPath)>,
    /// Found by a scan and not looked at yet.
    backlog: BTreeSet<RelPath>,
    /// Those of which there is something to tell: of a new project's many entries few wait at a time.
    told: BTreeSet<RelPath>,
    settling: usize,
}

#[derive(Debug)]
struct Entry {
    fields: VersionFields,
    since: SystemTime,
    look_at_ms: Option<u64>,
    why: Vec<String>,
    stage: Stage,
    /// Touched while somebody looks.
    touched_ms: Option<u64>,
    asked: Option<PublishDetails>,
    replies: Vec<oneshot::Sender<PublishOutcome>>,
    /// What was handed to the next stage last, as a hash over its files.
    handed_over: Option<u64>,
    /// Why the next stage could not record it, the last time.
    failed: Option<String>,
}

#[derive(Debug)]
enum Stage {
    /// Nothing is known of it, or nothing but that it was handed over.
    Rest,
    /// Time alone makes it whole.
    Settling(Box<Settle>),
    /// Something has to happen first.
    Waiting(Box<Settle>),
    /// Somebody looks at it.
    Looking,
}

impl Stage {
    fn debounce_ms(&self) -> u64 {
        let rarer_ms = |settle: &Settle| settle.files().len() as u64 / FILES_PER_DEBOUNCE_MS;
        match self {
            Self::Settling(settle) => SETTLING_DEBOUNCE_MS + rarer_ms(settle),
            Self::Waiting(settle) => DEBOUNCE_MS + rarer_ms(settle),
            Self::Rest | Self::Looking => DEBOUNCE_MS,
        }
    }
}

/// An order to look at a version directory.
#[derive(Debug)]
pub(super) struct Look {
    pub(super) dir: RelPath,
    pub(super) settle: Box<Settle>,
    pub(super) asked: Asked,
}

/// Whether somebody published the version explicitly.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Asked {
    Yes,
    No,
}

/// What a look saw.
#[derive(Debug)]
pub(super) struct Looked {
    pub(super) dir: RelPath,
    pub(super) settle: Box<Settle>,
    pub(super) asked: Asked,
    pub(super) seen: Seen,
}

#[derive(Debug)]
pub(super) enum Seen {
    /// The directory is not there.
    Gone,
    /// The catalog knows every file as it is.
    Known,
    /// It could not be looked at.
    Failed { why: String },
    /// What the pure machine decided.
    Decided(Verdict),
    /// It waits for frames or the end of a file, and a file that was recorded is not as it was: that is compared without
    /// waiting.
    Rewritten { until_ms: u64, why: Vec<WaitReason> },
}

impl Versions {
    /// Is as patient as `config` says with versions that are looked at from now on.
    pub(super) fn configure(&mut self, config: SettleConfig) {
        self.config = config;
    }

    pub(super) fn new(config: SettleConfig) -> Self {
        Self {
            config,
            entries: BTreeMap::new(),
            queue: BTreeSet::new(),
            backlog: BTreeSet::new(),
            told: BTreeSet::new(),
            settling: 0,
        }
    }

    /// Notes that something happened in a version directory.
    pub(super) fn touched(&mut self, version: VersionDir, now_ms: u64, now: SystemTime) {
        let dir = version.dir.clone();
        let entry = self.entry(version, now);
        let pause_ms = entry.stage.debounce_ms();
        match &mut entry.stage {
            Stage::Settling(settle) | Stage::Waiting(settle) => settle.touched(now_ms),
            Stage::Looking => entry.touched_ms = Some(now_ms),
            Stage::Rest => {}
        }
        self.backlog.remove(&dir);
        self.schedule(&dir, now_ms + pause_ms);
    }

    /// Notes that somebody says that a version is whole.
    pub(super) fn asked(
        &mut self,
        version: VersionDir,
        details: PublishDetails,
        reply: oneshot::Sender<PublishOutcome>,
        (now_ms, now): (u64, SystemTime),
    ) {
        let dir = version.dir.clone();
        let entry = self.entry(version, now);
        entry.asked = Some(details);
        entry.replies.push(reply);
        self.backlog.remove(&dir);
        self.schedule(&dir, now_ms);
    }

    /// Forgets what was handed over of a version and looks at it again.
    pub(super) fn reconsider(&mut self, version: VersionDir, now_ms: u64, now: SystemTime) {
        let dir = version.dir.clone();
        self.entry(version, now).handed_over = None;
        self.schedule(&dir, now_ms);
    }

    /// Notes whether the next stage could record a version.
    pub(super) fn attempted(&mut self, version: VersionDir, failed: Option<String>, now: SystemTime) {
        let dir = version.dir.clone();
        if failed.is_some() {
            self.entry(version, now).failed = failed;
        } else if let Some(entry) = self.entries.get_mut(&version.dir) {
            entry.failed = None;
        }
        self.note_told(&dir);
    }

    /// Takes the versions of a scan in that hold something unknown, and lets go of those that are recorded now.
    pub(super) fn scanned(
        &mut self,
        report: &ScanReport,
        templates: &TemplateSet,
        now_ms: u64,
        now: SystemTime,
    ) {
        self.look_for_gone(report, now_ms);
        for found in &report.versions {
            let dir = &found.dir;
            let is_changed = found.files_changed > 0;
            match self.entries.get(dir).map(|entry| (&entry.stage, entry.asked.is_some())) {
                None if is_changed => {
                    if let Some(version) = templates.invert_dir(dir) {
                        self.entry(version, now);
                        self.backlog.insert(dir.clone());
                    }
                }
                Some((Stage::Rest, false)) if !is_changed => self.remove(dir),
                // What no watcher told of may have come; one that settles has its time anyway.
                Some((Stage::Rest | Stage::Waiting(_), _)) if !self.backlog.contains(dir) => {
                    self.schedule(dir, now_ms);
                }
                _ => {}
            }
        }
    }

    /// Looks at what a scan did not find: when a directory above is renamed, no event names the version.
    fn look_for_gone(&mut self, report: &ScanReport, now_ms: u64) {
        let found: BTreeSet<&RelPath> = report.versions.iter().map(|version| &version.dir).collect();
        let is_quiet = |entry: &Entry| matches!(entry.stage, Stage::Rest | Stage::Waiting(_));
        let unseen = self.entries.iter().filter(|(dir, entry)| is_quiet(entry) && !found.contains(dir));
        let unseen = unseen.map(|(dir, _)| dir.clone()).filter(|dir| !self.backlog.contains(dir));
        for dir in unseen.collect::<Vec<_>>() {
            self.schedule(&dir, now_ms);
        }
    }

    /// Looks at everything again, as if it had just been touched: another file system may be there.
    pub(super) fn touch_all(&mut self, now_ms: u64) {
        let dirs: Vec<RelPath> = self.entries.keys().cloned().collect();
        for dir in dirs {
            if let Some(Entry { stage: Stage::Settling(settle) | Stage::Waiting(settle), .. }) =
                self.entries.get_mut(&dir)
            {
                settle.touched(now_ms);
            }
            if !self.backlog.contains(&dir) {
                self.schedule(&dir, now_ms + DEBOUNCE_MS);
            }
        }
    }

    /// Answers everybody who waits for an explicit publish.
    pub(super) fn answer_all(&mut self, outcome: &PublishOutcome) {
        for entry in self.entries.values_mut() {
            answer(&mut entry.replies, outcome);
        }
    }

    /// Returns when the next look is due.
    pub(super) fn next_look_ms(&self) -> Option<u64> {
        if !self.backlog.is_empty() && self.settling < MAX_SETTLING {
            return Some(0);
        }
        self.queue.first().map(|(at_ms, _)| *at_ms)
    }

    /// Takes the order for a look that is due.
    pub(super) fn take_look(&mut self, now_ms: u64) -> Option<Look> {
        let dir = match self.queue.first() {
            Some((at_ms, dir)) if *at_ms <= now_ms => dir.clone(),
            _ if self.settling < MAX_SETTLING => self.backlog.pop_first()?,
            _ => return None,
        };
        self.unschedule(&dir);
        let config = self.config;
        let entry = self.entries.get_mut(&dir)?;
        let (mut settle, was_settling) = match mem::replace(&mut entry.stage, Stage::Looking) {
            Stage::Settling(settle) => (settle, 1),
            Stage::Waiting(settle) => (settle, 0),
            Stage::Rest | Stage::Looking => (Box::new(Settle::new(config)), 0),
        };
        self.settling -= was_settling;
        let asked = if entry.asked.is_some() { Asked::Yes } else { Asked::No };
        if asked == Asked::Yes {
            settle.request_explicit();
        }
        Some(Look { dir, settle, asked })
    }

    /// Draws the conclusion of a look; returns what is to be handed on.
    pub(super) fn looked(&mut self, looked: Looked, templates: &TemplateSet, now_ms: u64) -> Option<Settled> {
        let dir = looked.dir.clone();
        let settled = self.conclude(looked, templates, now_ms);
        self.note_told(&dir);
        settled
    }

    fn conclude(&mut self, looked: Looked, templates: &TemplateSet, now_ms: u64) -> Option<Settled> {
        let Looked { dir, mut settle, asked, seen } = looked;
        let entry = self.entries.get_mut(&dir)?;
        entry.stage = Stage::Rest;
        let touched_ms = entry.touched_ms.take();
        if let Some(touched_ms) = touched_ms {
            settle.touched(touched_ms);
        }
        let is_whole = matches!(seen, Seen::Decided(Verdict::Whole { .. }));
        if asked == Asked::No && (entry.asked.is_some() || is_whole && touched_ms.is_some()) {
            // Asked while somebody looked: this look does not answer it. Touched meanwhile: it is not quiet.
            self.keep(&dir, settle, Helps::Time, now_ms + DEBOUNCE_MS);
            return None;
        }
        match seen {
            Seen::Gone | Seen::Known | Seen::Decided(Verdict::Empty) => {
                entry.asked = None;
                // The same files may come back, as by a directory that is renamed away and back.
                entry.handed_over = None;
                entry.failed = None;
                answer(&mut entry.replies, &PublishOutcome::Empty { dir: dir.clone() });
                entry.why.clear();
                // What touched it meanwhile may have brought something.
                if touched_ms.is_none() {
                    self.remove(&dir);
                }
                None
            }
            Seen::Failed { why } => {
                self.refused(&dir, vec![why]);
                self.schedule(&dir, now_ms + RETRY_MS);
                None
            }
            Seen::Decided(Verdict::Refused { problems }) => {
                self.refused(&dir, problems.iter().map(ToString::to_string).collect());
                None
            }
            Seen::Decided(Verdict::Wait { until_ms, why }) => {
                self.waits(&dir, settle, until_ms, &why);
                None
            }
            Seen::Decided(Verdict::Grows { until_ms, why, files }) => {
                let (purpose, warnings) = (Purpose::Grow, Vec::new());
                let whole = Whole { completeness: Completeness::Quiet, purpose, files, warnings };
                self.waits(&dir, settle, until_ms, &why);
                self.whole(&dir, whole, templates, asked)
            }
            Seen::Rewritten { until_ms, why } => {
                let whole = Whole {
                    completeness: Completeness::Quiet,
                    purpose: Purpose::Compare,
                    files: settle.files().to_vec(),
                    warnings: Vec::new(),
                };
                self.waits(&dir, settle, until_ms, &why);
                self.whole(&dir, whole, templates, asked)
            }
            Seen::Decided(Verdict::Whole { completeness, files, warnings }) => {
                if let Some(entry) = self.entries.get_mut(&dir) {
                    entry.why.clear();
                }
                let whole = Whole { completeness, purpose: Purpose::Publish, files, warnings };
                self.whole(&dir, whole, templates, asked)
            }
        }
    }

    fn waits(&mut self, dir: &RelPath, settle: Box<Settle>, until_ms: u64, why: &[WaitReason]) {
        let Some(entry) = self.entries.get_mut(dir) else { return };
        if entry.asked.is_none() && entry.handed_over == Some(fingerprint(settle.files())) {
            // It was whole just so before; the next stage has it.
            return;
        }
        entry.why = why.iter().map(ToString::to_string).collect();
        let outcome = PublishOutcome::NotWhole { dir: dir.clone(), why: entry.why.clone() };
        answer(&mut entry.replies, &outcome);
        let is_time = |reason: &WaitReason| {
            matches!(reason, WaitReason::Changing { .. } | WaitReason::EmptyFile { .. })
        };
        let helps = if why.iter().all(is_time) { Helps::Time } else { Helps::Somebody };
        self.keep(dir, settle, helps, until_ms);
    }

    fn keep(&mut self, dir: &RelPath, settle: Box<Settle>, helps: Helps, look_at_ms: u64) {
        let Some(entry) = self.entries.get_mut(dir) else { return };
        entry.stage = match helps {
            Helps::Time => {
                self.settling += 1;
                Stage::Settling(settle)
            }
            Helps::Somebody => Stage::Waiting(settle),
        };
        self.schedule(dir, look_at_ms);
    }

    fn refused(&mut self, dir: &RelPath, messages: Vec<String>) {
        let Some(entry) = self.entries.get_mut(dir) else { return };
        entry.asked = None;
        answer(
            &mut entry.replies,
            &PublishOutcome::Refused {
                dir: dir.clone(),
                messages: messages.clone(),
                code: ErrorCode::BadPath,
            },
        );
        if entry.why != messages {
            tracing::warn!(dir = %dir, why = ?messages, "a version cannot be published");
            entry.why = messages;
        }
    }

    fn whole(
        &mut self,
        dir: &RelPath,
        whole: Whole,
        templates: &TemplateSet,
        asked: Asked,
    ) -> Option<Settled> {
        let entry = self.entries.get_mut(dir)?;
        let handed_over = fingerprint_for(whole.purpose, &whole.files);
        if asked == Asked::No && entry.handed_over == Some(handed_over) {
            return None;
        }
        let files: Vec<SettledFile> =
            whole.files.iter().filter_map(|file| settled_file(dir, file, templates)).collect();
        if files.len() != whole.files.len() {
            self.refused(dir, vec!["the template does not say what its files are; check it".to_owned()]);
            return None;
        }
        entry.handed_over = Some(handed_over);
        Some(Settled {
            dir: dir.clone(),
            fields: entry.fields.clone(),
            completeness: whole.completeness,
            purpose: whole.purpose,
            files,
            warnings: whole.warnings,
            details: entry.asked.take(),
            replies: mem::take(&mut entry.replies),
        })
    }

    /// Returns what is waited for, in order.
    pub(super) fn pending(&self) -> Vec<PendingVersion> {
        let waiting = self.told.iter().filter_map(|dir| Some((dir, self.entries.get(dir)?)));
        waiting
            .map(|(dir, entry)| PendingVersion {
                dir: dir.clone(),
                why: entry.why.iter().chain(&entry.failed).cloned().collect(),
                since: entry.since,
                failed: entry.failed.clone(),
            })
            .collect()
    }

    /// Notes whether there is something to tell of a version, after it may have changed.
    fn note_told(&mut self, dir: &RelPath) {
        let is_told =
            self.entries.get(dir).is_some_and(|entry| !entry.why.is_empty() || entry.failed.is_some());
        if !is_told {
            self.told.remove(dir);
        } else if !self.told.contains(dir) {
            self.told.insert(dir.clone());
        }
    }

    fn entry(&mut self, version: VersionDir, now: SystemTime) -> &mut Entry {
        self.entries.entry(version.dir).or_insert_with(|| Entry {
            fields: version.fields,
            since: now,
            look_at_ms: None,
            why: Vec::new(),
            stage: Stage::Rest,
            touched_ms: None,
            asked: None,
            replies: Vec::new(),
            handed_over: None,
            failed: None,
        })
    }

    /// Looks at a version no later than `at_ms`; one that is being looked at, after that.
    fn schedule(&mut self, dir: &RelPath, at_ms: u64) {
        let Some(entry) = self.entries.get_mut(dir) else { return };
        let before = entry.look_at_ms;
        if before.is_some_and(|before| before <= at_ms) {
            return;
        }
        entry.look_at_ms = Some(at_ms);
        if let Some(before) = before {
            self.queue.remove(&(before, dir.clone()));
        }
        self.queue.insert((at_ms, dir.clone()));
    }

    fn unschedule(&mut self, dir: &RelPath) {
        let before = self.entries.get_mut(dir).and_then(|entry| entry.look_at_ms.take());
        if let Some(before) = before {
            self.queue.remove(&(before, dir.clone()));
        }
    }

    fn remove(&mut self, dir: &RelPath) {
        self.unschedule(dir);
        self.backlog.remove(dir);
        self.told.remove(dir);
        if let Some(Entry { stage: Stage::Settling(_), .. }) = self.entries.remove(dir) {
            self.settling -= 1;
        }
    }
}

/// What ends a wait.
enum Helps {
    Time,
    Somebody,
}

struct Whole {
    completeness: Completeness,
    purpose: Purpose,
    files: Vec<SeenFile>,
    warnings: Vec<Warning>,
}

fn settled_file(dir: &RelPath, file: &SeenFile, templates: &TemplateSet) -> Option<SettledFile> {
    let read = templates.invert(&dir.join(&file.path).ok()?)?;
    let is_here = read.dir == *dir;
    is_here.then(|| SettledFile { file: file.clone(), representation: read.representation, role: read.role })
}

/// Hashes what tells one state of a version from another, for one run of the daemon.
fn fingerprint(files: &[SeenFile]) -> u64 {
    let mut hasher = DefaultHasher::new();
    for file in files {
        (&file.path, file.size, file.mtime_ns, file.ctime_ns, file.inode).hash(&mut hasher);
    }
    hasher.finish()
}

/// What is handed over while it grows is handed over again, when it does not grow any more.
fn fingerprint_for(purpose: Purpose, files: &[SeenFile]) -> u64 {
    let of_files = fingerprint(files);
    if purpose == Purpose::Grow { !of_files } else { of_files }
}

fn answer(replies: &mut Vec<oneshot::Sender<PublishOutcome>>, outcome: &PublishOutcome) {
    for reply in replies.drain(..) {
        // Who asked may have gone.
        reply.send(outcome.clone()).ok();
    }
}

#[cfg(test)]
mod tests;
