//! Readings that people ask for. They go on when whoever asked has gone; they end with the daemon.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError, atomic::Ordering},
    time::Duration,
};

use avalon_protocol::{
    control::{DamageKind, DamagedFile, RepairState, VerifyState, VerifyStatus},
    id::{ProjectName, VersionId},
    rel_path::RelPath,
    version_fold::VersionFold,
};
use tokio_util::sync::CancellationToken;

use super::{
    Reader, Scrubber, Target,
    check::{Bad, Checked},
    damage,
};
use crate::{
    core::{Core, blocking},
    log::ErrorChain,
    project::Project,
    publish::lost,
};

/// How many that have ended are remembered.
const KEPT: usize = 100;
/// How many files, and how many versions that cannot be read, one names.
const MOST_NAMED: usize = 1000;

/// All that are known, the oldest first.
#[derive(Debug, Default)]
pub(super) struct Runs {
    last: u64,
    runs: BTreeMap<u64, Arc<Run>>,
}

/// One of them.
#[derive(Debug)]
pub(super) struct Run {
    status: Mutex<VerifyStatus>,
    began: Duration,
    cancelled: CancellationToken,
}

impl Run {
    fn status(&self) -> MutexGuard<'_, VerifyStatus> {
        // Every change under the lock is of plain values.
        self.status.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What somebody wants to have read.
#[derive(Debug, Clone)]
pub struct Wanted {
    /// The versions.
    pub versions: Vec<(VersionId, VersionFold)>,
    /// Whether what is damaged is fetched again.
    pub repair: bool,
}

impl Scrubber {
    /// Begins to read versions, and returns how that stands.
    pub async fn verify(&self, wanted: Wanted) -> VerifyStatus {
        let (core, repair) = (Arc::clone(&self.0.core), wanted.repair);
        let (targets, unread) = blocking(move || {
            let (mut targets, mut unread) = (Vec::new(), Vec::new());
            let damaged = with_damaged(&core, wanted.versions.iter().map(|(version, _)| &version.project));
            for (version, fold) in &wanted.versions {
                match Target::of(&core, version, fold) {
                    Some(target) => targets.push(target),
                    None if fold.held_by(&core.me).next().is_some() && unread.len() < MOST_NAMED => {
                        unread.push(format!(
                            "{version}: its manifest cannot be read now; it comes from a node that has it"
                        ));
                    }
                    // It is not held since it was found damaged; what it should be like is not known now.
                    None if damaged.contains(version) && unread.len() < MOST_NAMED => {
                        unread.push(format!(
                            "{version}: files of it are damaged, and the manifest of what was held cannot be read now; it comes from \
                             a node that has it, and where nobody has it: avalonctl accept {version}"
                        ));
                    }
                    None => {}
                }
            }
            (targets, unread)
        })
        .await;
        let run = self.begin(&targets, repair);
        run.status().unread = unread;
        let (scrubber, there) = (self.clone(), Arc::clone(&run));
        self.0.people.fetch_add(1, Ordering::Relaxed);
        self.0.tasks.spawn("verify", async move {
            let people = Leaving(scrubber.clone());
            scrubber.read_all(&there, targets).await;
            drop(people);
        });
        self.told(&run)
    }

    fn begin(&self, targets: &[Target], repair: bool) -> Arc<Run> {
        let mut runs = self.runs();
        runs.last += 1;
        let number = runs.last;
        let run = Arc::new(Run {
            status: Mutex::new(VerifyStatus {
                schema: "avalonctl.verify/1".into(),
                id: number.to_string(),
                state: VerifyState::Running,
                repair,
                versions_total: targets.len() as u64,
                versions_done: 0,
                bytes_total: targets.iter().map(|target| target.manifest.total_bytes()).sum(),
                bytes_done: 0,
                seconds: 0.0,
                current: None,
                damaged: Vec::new(),
                damaged_more: 0,
                unread: Vec::new(),
            }),
            began: self.0.core.clock.monotonic(),
            cancelled: CancellationToken::new(),
        });
        let ended = |run: &Run| run.status().state != VerifyState::Running;
        while runs.runs.len() >= KEPT {
            let Some(oldest) = runs.runs.iter().find(|(_, run)| ended(run)).map(|(number, _)| *number) else {
                break;
            };
            runs.runs.remove(&oldest);
        }
        runs.runs.insert(number, Arc::clone(&run));
        run
    }

    /// Says how a reading stands; nothing when it is not known.
    pub fn run(&self, id: &str) -> Option<VerifyStatus> {
        let run = self.find(id)?;
        Some(self.told(&run))
    }

    /// Ends a reading after the piece that is being read; what was found stays recorded. Nothing when it is not known.
    pub fn cancel(&self, id: &str) -> Option<VerifyStatus> {
        let run = self.find(id)?;
        run.cancelled.cancel();
        let mut status = run.status();
        if status.state == VerifyState::Running {
            self.end(&run, &mut status, VerifyState::Cancelled);
        }
        Some(status.clone())
    }

    fn find(&self, id: &str) -> Option<Arc<Run>> {
        let number: u64 = id.parse().ok()?;
        self.runs().runs.get(&number).cloned()
    }

    fn runs(&self) -> MutexGuard<'_, Runs> {
        // Every change under the lock is one insertion or removal.
        self.0.runs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn told(&self, run: &Run) -> VerifyStatus {
        let mut status = run.status();
        if status.state == VerifyState::Running {
            status.seconds = self.seconds_since(run.began);
        }
        status.clone()
    }

    fn seconds_since(&self, began: Duration) -> f64 {
        self.0.core.clock.monotonic().saturating_sub(began).as_secs_f64()
    }

    fn end(&self, run: &Run, status: &mut VerifyStatus, state: VerifyState) {
        status.state = state;
        status.current = None;
        status.seconds = self.seconds_since(run.began);
    }

    async fn read_all(&self, run: &Arc<Run>, targets: Vec<Target>) {
        for target in targets {
            if run.cancelled.is_cancelled() {
                return;
            }
            run.status().current = Some(target.version.to_string());
            let bytes_before = run.status().bytes_done;
            let count = |bytes| run.status().bytes_done += bytes;
            let reader = Reader::Person(&run.cancelled);
            match self.read_one(&target, reader, &count).await {
                Checked::Read(bad) => self.found(run, &target, bad).await,
                Checked::Unread(why) => {
                    let mut status = run.status();
                    if status.unread.len() < MOST_NAMED {
                        status.unread.push(format!("{}: {why}", target.version));
                    }
                }
                Checked::Stopped => return,
            }
            let mut status = run.status();
            status.bytes_done = bytes_before + target.manifest.total_bytes();
            status.versions_done += 1;
        }
        let mut status = run.status();
        if status.state == VerifyState::Running {
            self.end(run, &mut status, VerifyState::Done);
        }
    }

    /// Reads a version when it is its turn, and notes what was found: when, or what is damaged.
    pub(super) async fn read_one(
        &self,
        target: &Target,
        reader: Reader<'_>,
        count: &(dyn Fn(u64) + Send + Sync),
    ) -> Checked {
        let stop = self.0.tasks.token();
        let nobody = CancellationToken::new();
        let cancelled = match reader {
            Reader::Person(cancelled) => cancelled,
            Reader::Itself => &nobody,
        };
        let _turn = tokio::select! {
            turn = self.0.turn.acquire() => match turn {
                Ok(turn) => turn,
                Err(_) => return Checked::Stopped,
            },
            () = stop.cancelled() => return Checked::Stopped,
            () = cancelled.cancelled() => return Checked::Stopped,
        };
        let core = &self.0.core;
        let bad = match self.check(target, reader, count).await {
            Checked::Read(bad) => bad,
            unread => return unread,
        };
        {
            let mut totals = self.totals();
            totals.versions += 1;
            totals.bytes += target.manifest.total_bytes();
        }
        if bad.is_empty() {
            let (scrubber, manifest, now_ms) = (self.clone(), target.manifest.id(), core.now_ms());
            blocking(move || scrubber.0.verified.note(&manifest, now_ms)).await;
            self.found_whole(target).await;
            return Checked::Read(bad);
        }
        let (lost, others): (Vec<Bad>, Vec<Bad>) = bad.into_iter().partition(|bad| bad.is_lost);
        self.totals().damaged += lost.len() as u64;
        let mut all = match damage::note(core, target, lost).await {
            Ok(lost) => lost,
            Err(error) => {
                let why = ErrorChain(&error).to_string();
                tracing::error!(version = %target.version, error = why, "files are damaged, and that cannot be recorded");
                if error.is_held()
                    && let Some(settler) = self.settler(&target.version.project)
                {
                    // It reads them for itself, tells them, and tries until that can be recorded.
                    settler.reconsider(target.manifest.dir().clone()).await.ok();
                }
                return Checked::Unread(format!("files are damaged, and that cannot be recorded: {why}"));
            }
        };
        if others.iter().any(|bad| bad.damage == DamageKind::Changed)
            && let Some(settler) = self.settler(&target.version.project)
        {
            // What people change is the settler's to find out and to tell. It ends only when the daemon does.
            settler.reconsider(target.manifest.dir().clone()).await.ok();
        }
        all.extend(others);
        all.sort_by(|a, b| a.path.cmp(&b.path));
        Checked::Read(all)
    }

    /// What was damaged may have been put right by somebody: the settler finds that it is held.
    async fn found_whole(&self, target: &Target) {
        let (core, id, manifest) = (Arc::clone(&self.0.core), target.version.clone(), target.manifest.id());
        let is_held = blocking(move || {
            let fold = core.ledger.version(&id).ok().flatten().unwrap_or_default();
            fold.held_by(&core.me).any(|held| held == manifest)
        });
        if !is_held.await
            && let Some(settler) = self.settler(&target.version.project)
        {
            settler.reconsider(target.manifest.dir().clone()).await.ok();
        }
    }

    async fn found(&self, run: &Arc<Run>, target: &Target, bad: Vec<Bad>) {
        if bad.is_empty() {
            return;
        }
        let first = {
            let mut status = run.status();
            let first = status.damaged.len();
            for bad in &bad {
                if status.damaged.len() < MOST_NAMED {
                    status.damaged.push(damaged_file(target, bad));
                } else {
                    status.damaged_more += 1;
                }
            }
            first
        };
        let can_be_repaired = |bad: &Bad| bad.is_lost || bad.damage == DamageKind::Missing;
        if !run.status().repair || !bad.iter().any(can_be_repaired) {
            return;
        }
        if bad.iter().any(|bad| bad.damage == DamageKind::Missing)
            && let Some(settler) = self.settler(&target.version.project)
        {
            // What is held is not fetched.
            lost::look_at(&self.0.core, settler, &target.version).await;
        }
        let (repair, reason) = self.repair(&target.version, &run.cancelled).await;
        let mut status = run.status();
        for (file, _) in
            status.damaged.iter_mut().skip(first).zip(&bad).filter(|(_, bad)| can_be_repaired(bad))
        {
            (file.repair, file.reason) = (repair, reason.clone());
        }
    }
}

/// Returns the versions of projects of which files are known to be damaged. Blocks.
fn with_damaged<'a>(core: &Core, projects: impl Iterator<Item = &'a ProjectName>) -> BTreeSet<VersionId> {
    let projects = projects.collect::<BTreeSet<_>>().into_iter().filter_map(|name| core.project(name));
    let version_of = |project: &Project, file: &RelPath| {
        let mut dirs = std::iter::successors(file.parent(), RelPath::parent);
        dirs.find_map(|dir| project.templates().invert_dir(&dir))
            .map(|dir| dir.fields.version_id(project.name()))
    };
    projects
        .flat_map(|project| {
            core.damaged.of(project.name()).into_keys().filter_map(|file| version_of(project, &file))
        })
        .collect()
}

fn damaged_file(target: &Target, bad: &Bad) -> DamagedFile {
    DamagedFile {
        reference: target.version.to_string(),
        manifest: target.manifest.id().to_string(),
        path: bad.path.to_string(),
        damage: bad.damage,
        detail: bad.detail.clone(),
        repair: RepairState::None,
        reason: match bad.damage {
            DamageKind::Changed => Some(format!(
                "a person decides: avalonctl restore {0} or avalonctl accept {0}",
                target.version
            )),
            _ => None,
        },
    }
}

/// Lets what happens by itself go on when a reading ends, however it ends.
struct Leaving(Scrubber);

impl Drop for Leaving {
    fn drop(&mut self) {
        self.0.0.people.fetch_sub(1, Ordering::Relaxed);
    }
}
