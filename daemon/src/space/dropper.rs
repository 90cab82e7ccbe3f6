//! [`Dropper`]: carries out a drop, from the question whether it may to the files in the trash.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use avalon_protocol::{
    control::EventKind,
    drop::{Ask, Attempt, Counted, Doubt, GiveUp, Guard, Nonce, Proof, Prover, Step},
    hash::ManifestId,
    id::{NodeId, VersionId},
    manifest::Manifest,
    record::{Held, Record},
    wire::FetchProof,
};
use avalon_store::{
    catalog::LocalChange,
    fs::{Dir, FileStat},
    ledger::LedgerError,
    object::prove::{Names, read_version},
    trash,
};
use futures_util::{FutureExt as _, StreamExt as _, future::BoxFuture, stream::FuturesUnordered};
use rustix::rand::{GetRandomFlags, getrandom};
use tokio::sync::oneshot;

use super::{
    Entered,
    judge::{Droppable, Judging, Purpose, Stays},
    open_files::OpenFiles,
};
use crate::{
    core::{Core, blocking},
    log::ErrorChain,
    net::{Net, Vouched},
    project::Project,
    replicate::jobs::JobBoard,
    tasks::Tasks,
};

/// How often a drop is tried again when another node drops the same version, or is busy.
const TRIES: u32 = 6;
/// The longest wait before the first of these, doubled for each: of two, one is through in a moment.
const BACKOFF: Duration = Duration::from_millis(200);

/// Drops versions. Clones are the same.
#[derive(Debug, Clone)]
pub struct Dropper {
    pub(super) core: Arc<Core>,
    net: Net,
    pub(super) board: JobBoard,
    tasks: Tasks,
}

/// What a drop gave free, or would.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Freed {
    /// Bytes of files that went to the trash.
    pub bytes: u64,
    /// How many files.
    pub files: u64,
    /// The nodes that proved that they hold it, in order.
    pub proved: Vec<NodeId>,
    /// How many sites had to.
    pub min_copies: u32,
}

/// How much is asked of other nodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Depth {
    /// That they read all of it.
    Proof,
    /// What their records say.
    Records,
}

/// What came of a question, or of the own reading.
enum News {
    Answer(NodeId, Result<Vouched, Doubt>),
    Own(Result<OwnRead, String>),
}

/// What the own files came to.
#[derive(Debug)]
struct OwnRead {
    proofs: Vec<(NodeId, Proof)>,
    stats: Vec<FileStat>,
}

impl Dropper {
    /// Takes what it works with.
    pub fn new(core: &Arc<Core>, net: &Net, board: &JobBoard, tasks: &Tasks) -> Self {
        Self { core: Arc::clone(core), net: net.clone(), board: board.clone(), tasks: tasks.clone() }
    }

    /// Says whether a version would be dropped now, by what the records of other nodes say that are connected; nobody reads
    /// anything, and nothing is changed.
    ///
    /// # Errors
    /// [`Stays`] says why not.
    pub async fn would_drop(&self, version: &VersionId, purpose: Purpose) -> Result<Freed, Stays> {
        let droppable = self.judge(version, purpose).await?;
        let (counted, _) = self.ask_around(version, &droppable, Depth::Records).await.map_err(too_few)?;
        Ok(Freed {
            bytes: droppable.manifest.total_bytes(),
            files: droppable.manifest.files().len() as u64,
            proved: counted.nodes,
            min_copies: counted.min_copies,
        })
    }

    /// Drops a version for `by`: others prove that they have it, this node says that it does not hold it any more, and its
    /// files go to the trash. Goes on when the future is dropped.
    ///
    /// # Errors
    /// [`Stays`] says why not; it is as it was.
    pub async fn drop_version(
        &self,
        version: VersionId,
        purpose: Purpose,
        by: String,
    ) -> Result<Freed, Stays> {
        let (reply, answer) = oneshot::channel();
        let there = self.clone();
        self.tasks.spawn("drop", async move {
            drop(reply.send(there.try_often(&version, purpose, &by).await));
        });
        answer.await.unwrap_or_else(|_| Err(Stays::failed("the daemon is stopping")))
    }

    async fn try_often(&self, version: &VersionId, purpose: Purpose, by: &str) -> Result<Freed, Stays> {
        let mut tried = 0;
        loop {
            let stays = match self.try_once(version, purpose, by).await {
                Err(stays) => stays,
                freed => return freed,
            };
            let is_race = stays.asked.as_ref().is_some_and(GiveUp::is_race);
            tried += 1;
            if !is_race || tried >= TRIES {
                return Err(stays);
            }
            self.core.clock.sleep(random_up_to(BACKOFF * 2u32.pow(tried))).await;
        }
    }

    async fn try_once(&self, version: &VersionId, purpose: Purpose, by: &str) -> Result<Freed, Stays> {
        let droppable = self.judge(version, purpose).await?;
        let (project, dir) = self.place_of(version)?;
        self.prepare(&dir, &droppable.manifest).await?;
        let core = Arc::clone(&self.core);
        let entered = core.space.enter(version);
        let entered = entered.map_err(|error| Stays::because(Guard::Coming, error.to_string()))?;
        let asked = self.ask_around(version, &droppable, Depth::Proof).await;
        let (counted, stats) = asked.map_err(too_few)?;
        let _lock = project.lock_version(droppable.manifest.dir()).await;
        // Much can have happened meanwhile.
        let now = self.judge(version, purpose).await?;
        if now.manifest.id() != droppable.manifest.id() || now.min_copies > counted.min_copies {
            return Err(Stays::because(Guard::Coming, "it changed while others were asked"));
        }
        let (stats, dir) = unchanged(dir, Arc::clone(&now.manifest), stats).await?;
        let entered = self.record(version, &now, entered).await?;
        let (manifest, now_ms) = (Arc::clone(&now.manifest), self.core.now_ms());
        let moved = blocking(move || trash::discard(&dir, &manifest, &stats, now_ms)).await;
        drop(entered);
        self.core.space.went(&version.project, now.manifest.total_bytes());
        self.tell(version, &now.manifest, by, purpose);
        match moved {
            Ok(moved) => {
                for left in &moved.left {
                    tracing::warn!(%version, path = %left, "a file of a version that was dropped was changed in this moment and stays");
                }
                let proved = counted.nodes;
                Ok(Freed { bytes: moved.bytes, files: moved.files, proved, min_copies: counted.min_copies })
            }
            Err(error) => {
                let reason = ErrorChain(&error).to_string();
                tracing::error!(%version, error = reason, "a version that was dropped is not in the trash");
                Err(Stays::failed(format!("this node does not hold it any more, but {reason}")))
            }
        }
    }

    async fn judge(&self, version: &VersionId, purpose: Purpose) -> Result<Droppable, Stays> {
        let (there, version) = (self.clone(), version.clone());
        blocking(move || {
            let open = OpenFiles::look();
            let judging = Judging { core: &there.core, board: &there.board, open: &open, purpose };
            judging.judge(&version)
        })
        .await
    }

    fn place_of(&self, version: &VersionId) -> Result<(Arc<Project>, Dir), Stays> {
        let project = self.core.project(&version.project).cloned();
        let dir = project.as_ref().and_then(|project| project.dir());
        project.zip(dir).ok_or_else(|| Stays::failed("the project is paused"))
    }

    async fn prepare(&self, dir: &Dir, manifest: &Arc<Manifest>) -> Result<(), Stays> {
        let (dir, manifest) = (dir.clone(), Arc::clone(manifest));
        let prepared = blocking(move || trash::prepare(&dir, &manifest)).await;
        prepared.map_err(|error| Stays::failed(ErrorChain(&error).to_string()))
    }

    /// Makes it durable that this node does not hold the version any more.
    async fn record<'e>(
        &self,
        version: &VersionId,
        droppable: &Droppable,
        entered: Entered<'e>,
    ) -> Result<Entered<'e>, Stays> {
        let dropped =
            |manifest: &ManifestId| Record::Dropped(Held { version: version.clone(), manifest: *manifest });
        let records: Vec<Record> = droppable.held.iter().map(dropped).collect();
        let manifest = &droppable.manifest;
        let paths = manifest.files().iter().filter_map(|file| manifest.dir().join(&file.path).ok());
        let gone = paths.map(|path| LocalChange::Remove { project: version.project.clone(), path });
        let committed = self.core.commit(version.project.clone(), records, gone.collect()).await;
        let Err(error) = committed else { return Ok(entered) };
        let is_clean = matches!(
            &error,
            LedgerError::NoSpace { .. }
                | LedgerError::Io { .. }
                | LedgerError::RecordTooLarge { .. }
                | LedgerError::Refused { .. }
        );
        if !is_clean {
            entered.stay();
        }
        Err(Stays::failed(format!("it cannot be recorded: {}", ErrorChain(&error))))
    }

    fn tell(&self, version: &VersionId, manifest: &Manifest, by: &str, purpose: Purpose) {
        let (files, bytes) = (manifest.files().len(), manifest.total_bytes());
        tracing::info!(%version, manifest = %manifest.id(), files, bytes, by, ?purpose, "dropped");
        self.core.events.emit(EventKind::Dropped {
            reference: version.to_string(),
            manifest: manifest.id().to_string(),
            by: Some(by.to_owned()),
            bytes: Some(bytes),
        });
    }

    /// Asks other nodes as [`Attempt`] says; returns who counts, and how the own files were when they were read.
    async fn ask_around(
        &self,
        version: &VersionId,
        droppable: &Droppable,
        depth: Depth,
    ) -> Result<(Counted, Vec<FileStat>), GiveUp> {
        let drawn: Option<Vec<_>> =
            droppable.holders.iter().map(|node| Some((node.clone(), nonce()?))).collect();
        let no_random =
            || GiveUp { own: Some("the system gives no random numbers".into()), ..GiveUp::default() };
        let mut attempt = Attempt::begin(droppable.min_copies, drawn.ok_or_else(no_random)?);
        let mut waiting: FuturesUnordered<BoxFuture<'static, News>> = FuturesUnordered::new();
        let mut stats = Vec::new();
        loop {
            match attempt.step() {
                Step::Ask(asks) => {
                    for ask in &asks {
                        let question = FetchProof {
                            version: version.clone(),
                            manifest: droppable.manifest.id(),
                            nonce: ask.nonce,
                            read: depth == Depth::Proof,
                        };
                        waiting.push(ask_one(self.net.clone(), ask.node.clone(), question).boxed());
                    }
                    let dir = self.place_of(version).ok().map(|(_, dir)| dir);
                    waiting.push(read_own(dir, Arc::clone(&droppable.manifest), asks, depth).boxed());
                }
                Step::Wait => match waiting.next().await {
                    Some(News::Answer(node, Ok(vouched))) => {
                        attempt.answered(&node, vouched.proof, vouched.min_copies);
                    }
                    Some(News::Answer(node, Err(doubt))) => attempt.doubted(&node, doubt),
                    Some(News::Own(Ok(read))) => {
                        read.proofs.into_iter().for_each(|(node, proof)| attempt.own(&node, proof));
                        stats = read.stats;
                    }
                    Some(News::Own(Err(reason))) => attempt.own_doubted(reason),
                    None => attempt.own_doubted("nobody answered".to_owned()),
                },
                Step::Drop(counted) => return Ok((counted, stats)),
                Step::GiveUp(why) => return Err(why),
            }
        }
    }
}

async fn ask_one(net: Net, node: NodeId, question: FetchProof) -> News {
    let silent = |why: String| Err(Doubt::NoAnswer(why));
    let answer = match net.link(&node) {
        None => silent("it is not connected".to_owned()),
        Some(link) if !link.shares(&question.version.project) => {
            silent("it does not share the project with this node".to_owned())
        }
        Some(link) if !link.proves() => silent("its version of avalond cannot prove".to_owned()),
        Some(link) => match link.fetch_proof(question).await {
            Ok(Ok(vouched)) => Ok(vouched),
            Ok(Err(why)) => Err(Doubt::Said(why)),
            Err(error) => silent(ErrorChain(&error).to_string()),
        },
    };
    News::Answer(node, answer)
}

/// Reads the own files once for all questions; ends when the future is dropped.
async fn read_own(dir: Option<Dir>, manifest: Arc<Manifest>, asks: Vec<Ask>, depth: Depth) -> News {
    struct Unwanted(Arc<AtomicBool>);
    impl Drop for Unwanted {
        fn drop(&mut self) {
            self.0.store(true, Ordering::Relaxed);
        }
    }
    let unwanted = Unwanted(Arc::default());
    let is_unwanted = Arc::clone(&unwanted.0);
    let read = blocking(move || {
        let prover = |ask: &Ask| Prover::new(&ask.nonce, &ask.node, &manifest.id());
        let mut provers: Vec<Prover> = asks.iter().map(prover).collect();
        let stats = match (depth, dir) {
            (Depth::Records, _) => Vec::new(),
            (Depth::Proof, None) => return Err("the project is paused".to_owned()),
            (Depth::Proof, Some(dir)) => {
                let go_on = |_| !is_unwanted.load(Ordering::Relaxed);
                read_version(&dir, &manifest, &mut provers, Names::Check, &go_on)
                    .map_err(|error| ErrorChain(&error).to_string())?
            }
        };
        let proofs = asks.into_iter().zip(&provers).map(|(ask, prover)| (ask.node, prover.finish()));
        Ok(OwnRead { proofs: proofs.collect(), stats })
    });
    News::Own(read.await)
}

fn too_few(why: GiveUp) -> Stays {
    let guard = if why.own.is_some() { Guard::Changed } else { Guard::TooFewCopies };
    Stays { guard: Some(guard), reason: why.to_string(), asked: Some(why) }
}

/// Says that the files are as they were when they were read.
async fn unchanged(
    dir: Dir,
    manifest: Arc<Manifest>,
    stats: Vec<FileStat>,
) -> Result<(Vec<FileStat>, Dir), Stays> {
    blocking(move || {
        for (file, then) in manifest.files().iter().zip(&stats) {
            let Ok(path) = manifest.dir().join(&file.path) else { continue };
            let now = dir.stat(&path).ok().flatten();
            if now.is_none_or(|now| now.identity() != then.identity()) {
                let reason = format!("{path} was changed while others were asked");
                return Err(Stays::because(Guard::Changed, reason));
            }
        }
        let are_all = stats.len() == manifest.files().len();
        if are_all { Ok((stats, dir)) } else { Err(Stays::failed("its files were not read")) }
    })
    .await
}

/// Of so few bytes the system gives all or none.
fn random() -> Option<[u8; 32]> {
    let mut bytes = [0; 32];
    let drawn = getrandom(&mut bytes, GetRandomFlags::empty());
    drawn.is_ok_and(|count| count == bytes.len()).then_some(bytes)
}

fn nonce() -> Option<Nonce> {
    random().map(Nonce::from_bytes)
}

fn random_up_to(longest: Duration) -> Duration {
    let [a, b, ..] = random().unwrap_or([0x80; 32]);
    longest * u32::from(u16::from_le_bytes([a, b])) / u32::from(u16::MAX)
}

#[cfg(test)]
mod tests {
    use avalon_protocol::mode::ProjectMode;

    use super::*;
    use crate::fixture::{Studio, manifest};

    #[tokio::test]
    async fn a_peer_that_does_not_know_the_question_counts_as_no_copy_and_is_not_asked() {
        let studio = Studio::new();
        let [london, home] = ["srv@london", "ws1@home"].map(|name| studio.node(name, ProjectMode::OnDemand));
        let manifest = manifest(1, b"a robot");
        london.publishes(&manifest);
        home.core.ledger.put_manifest(&manifest).unwrap();
        home.hears(&london);
        home.writes(&manifest, b"a robot");
        home.places(&manifest);
        let tasks = Tasks::new();
        // Its greeting has no features.
        let (serving, _kept) = london.net(&tasks, &[]);
        let (net, mut events) = home.net(&tasks, &[serving.local_addr().to_string()]);
        events.recv().await.unwrap();
        let dropper = Dropper::new(&home.core, &net, &JobBoard::default(), &tasks);
        let version = manifest.version().clone();
        let stays = dropper.drop_version(version.clone(), Purpose::Command, "anna".into()).await.unwrap_err();
        assert_eq!(stays.guard, Some(Guard::TooFewCopies));
        assert!(stays.reason.contains("its version of avalond cannot prove"), "{}", stays.reason);
        assert!(!home.core.space.dropping().contains(&version), "the state is left");
        let fold = home.core.ledger.version(&version).unwrap().unwrap();
        assert!(fold.holds(&home.core.me, &manifest.id()));
    }

    #[tokio::test]
    async fn who_drops_a_version_already_does_not_begin_again() {
        let studio = Studio::new();
        let home = studio.node("ws1@home", ProjectMode::OnDemand);
        let manifest = manifest(1, b"a robot");
        home.writes(&manifest, b"a robot");
        home.publishes(&manifest);
        let tasks = Tasks::new();
        let (net, _events) = home.net(&tasks, &[]);
        let dropper = Dropper::new(&home.core, &net, &JobBoard::default(), &tasks);
        let entered = home.core.space.enter(manifest.version()).unwrap();
        let version = manifest.version().clone();
        let stays = dropper.drop_version(version.clone(), Purpose::Command, "anna".into()).await.unwrap_err();
        assert_eq!(stays.guard, Some(Guard::Coming));
        entered.stay();
        assert!(home.core.space.dropping().contains(&version), "nobody knows whether the record is durable");
    }
}
