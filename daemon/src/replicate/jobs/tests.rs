//! The task that makes, starts and ends jobs, with work that a test ends as it likes.

use std::{path::PathBuf, sync::Arc, time::Duration};

use avalon_protocol::{
    control::{ErrorCode, JobKind, JobState},
    hash::ManifestId,
    manifest::Manifest,
    mode::ProjectMode,
    plan::{Decision, Priority},
};
use futures_util::FutureExt as _;
use tokio::sync::{Mutex, mpsc, oneshot};

use super::{Job, Outcome, Pulled, Replicator, ReplicatorHandle, RetryWhen, Run};
use crate::{
    clock::RealClock,
    fixture::{Node, Studio, draft, manifest, project, version},
    tasks::Tasks,
};

mod policy;
mod queue;

/// Only a test that fails waits for it.
const PATIENCE: Duration = Duration::from_secs(30);
const SECOND: Duration = Duration::from_secs(1);

/// The work of one job; it goes on until the test ends it or the job is cancelled.
struct Work {
    job: Arc<Job>,
    end: oneshot::Sender<Outcome>,
}

/// Montreal, whose jobs are the test's, and london that publishes.
struct Bench {
    montreal: Node,
    london: Node,
    replicator: ReplicatorHandle,
    started: mpsc::Receiver<Work>,
    /// Held by a test whose work takes a while to end when it is cancelled.
    ending: Arc<Mutex<()>>,
    tasks: Tasks,
    _studio: Studio,
}

impl Bench {
    fn new(mode: ProjectMode) -> Self {
        let studio = Studio::new();
        let montreal = studio.node("srv@montreal", mode);
        let london = studio.node("srv@london", ProjectMode::OnDemand);
        let (starts, started) = mpsc::channel(64);
        let ending: Arc<Mutex<()>> = Arc::default();
        let ending_there = Arc::clone(&ending);
        let run: Run = Arc::new(move |job: Arc<Job>| {
            let (starts, ending) = (starts.clone(), Arc::clone(&ending_there));
            async move {
                let (end, ended) = oneshot::channel();
                let stop = job.stop();
                starts.send(Work { job: Arc::clone(&job), end }).await.unwrap();
                tokio::select! {
                    () = stop.cancelled() => {
                        drop(ending.lock().await);
                        Outcome::Cancelled
                    }
                    outcome = ended => outcome.expect("a test that ends without an outcome panics in the work"),
                }
            }
            .boxed()
        });
        let tasks = Tasks::new();
        let core = Arc::clone(&montreal.core);
        let (replicator_task, replicator) = Replicator::new(core, tasks.clone(), "t".into(), run);
        tasks.spawn("replicator", replicator_task.run());
        Self { montreal, london, replicator, started, ending, tasks, _studio: studio }
    }

    /// Mirrors, and has a version of london under way.
    async fn with_work() -> (Self, Work) {
        let mut bench = Self::new(ProjectMode::Mirror);
        bench.publish(1);
        bench.touched(&[1]).await;
        let work = bench.work(1).await;
        (bench, work)
    }

    fn publish(&self, number: u32) -> Manifest {
        let manifest = manifest(number, &number.to_le_bytes());
        self.london.publishes(&manifest);
        self.montreal.hears(&self.london);
        manifest
    }

    async fn touched(&self, numbers: &[u32]) {
        self.replicator.touched(numbers.iter().map(|number| version(*number)).collect()).await;
        self.done().await;
    }

    async fn look(&self) {
        self.replicator.look_at(project()).await;
        self.done().await;
    }

    async fn pull(&self, number: u32) -> Pulled {
        let mut answer = self.replicator.pull(vec![version(number)]).await.unwrap();
        self.done().await;
        answer.pop().unwrap()
    }

    async fn peer_came(&self) {
        self.replicator.peer_came().await;
        self.done().await;
    }

    /// Lets time go on, and waits for what that brings about.
    async fn advance(&self, time: Duration) {
        self.montreal.clock.advance(time);
        self.done().await;
    }

    /// Waits until everything sent so far has been acted on: messages are taken in turn, and one wakes no later than the
    /// tasks that were woken before it.
    async fn done(&self) {
        for _ in 0..3 {
            self.replicator.pull(Vec::new()).await.unwrap();
        }
    }

    /// Waits for the next work that starts, which must be that of a version.
    async fn work(&mut self, number: u32) -> Work {
        let started = tokio::time::timeout(PATIENCE, self.started.recv()).await;
        let work = started.expect("work starts").unwrap();
        assert_eq!(work.job.version, version(number));
        work
    }

    async fn end(&self, work: Work, outcome: Outcome) -> Arc<Job> {
        work.end.send(outcome).unwrap();
        self.done().await;
        work.job
    }

    /// Ends work as placing does: with the record first.
    async fn placed(&self, work: Work, manifest: &Manifest) {
        self.montreal.places(manifest);
        self.end(work, Outcome::Placed).await;
    }

    fn in_state(&self, state: JobState) -> Vec<String> {
        let jobs = self.replicator.board.all().into_iter();
        jobs.filter(|job| job.state == state).map(|job| job.reference).collect()
    }

    fn running(&self) -> Vec<String> {
        self.in_state(JobState::Running)
    }

    /// Makes the incoming area that a run of a job leaves.
    fn area(&self, manifest: ManifestId) -> PathBuf {
        let area = self.montreal.dir.join(format!(".avalon/incoming/{manifest}"));
        std::fs::create_dir_all(area.join("parts")).unwrap();
        area
    }

    fn has_health(&self, code: &str) -> bool {
        self.montreal.core.health.items().iter().any(|item| item.code == code)
    }
}

fn names(numbers: &[u32]) -> Vec<String> {
    numbers.iter().map(|number| version(*number).to_string()).collect()
}

fn waiting(when: RetryWhen) -> Outcome {
    Outcome::Waiting { reason: "not now".into(), code: ErrorCode::NoSource, when }
}

#[tokio::test]
async fn a_second_pull_of_a_version_joins_the_job_that_runs() {
    let mut bench = Bench::new(ProjectMode::OnDemand);
    bench.publish(1);
    let first = bench.pull(1).await.job.unwrap();
    let work = bench.work(1).await;
    let second = bench.pull(1).await.job.unwrap();
    assert_eq!(first.id, second.id);
    assert_eq!(bench.replicator.board.all().len(), 1);
    assert_eq!(bench.running(), names(&[1]));
    assert!(bench.started.try_recv().is_err(), "one run");
    assert!(!work.job.cancel.is_cancelled());
}

#[tokio::test]
async fn a_pull_joins_the_job_of_a_mirror_and_makes_it_urgent() {
    let (bench, work) = Bench::with_work().await;
    assert_eq!((work.job.kind(), work.job.priority()), (JobKind::Mirror, Priority::Publish));
    let pulled = bench.pull(1).await.job.unwrap();
    assert_eq!(pulled.id, work.job.id);
    assert_eq!((work.job.kind(), work.job.priority()), (JobKind::Pull, Priority::Waiting));
    assert_eq!(bench.running(), names(&[1]));
}

#[tokio::test]
async fn the_more_urgent_goes_first_then_the_older() {
    let mut bench = Bench::new(ProjectMode::Mirror);
    let manifests: Vec<Manifest> = (1..=8).map(|number| bench.publish(number)).collect();
    bench.look().await;
    assert_eq!(bench.running(), names(&[1, 2, 3, 4]), "so many at once");
    assert_eq!(bench.in_state(JobState::Queued), names(&[5, 6, 7, 8]));
    let mut works = Vec::new();
    for number in 1..=4 {
        works.push(bench.work(number).await);
    }
    bench.touched(&[7]).await;
    bench.pull(8).await;
    works.push(bench.work(8).await);
    assert_eq!(bench.running(), names(&[1, 2, 3, 4, 8]), "who waits is not kept by others");
    for (number, next) in [(8, None), (1, Some(7)), (2, Some(5)), (3, Some(6))] {
        let index = works.iter().position(|work| work.job.version == version(number)).unwrap();
        bench.placed(works.remove(index), &manifests[number as usize - 1]).await;
        if let Some(next) = next {
            works.push(bench.work(next).await);
        }
        assert!(bench.started.try_recv().is_err(), "after {number}");
    }
}

#[tokio::test]
async fn a_job_that_waits_is_tried_again_after_its_time_and_not_before() {
    let (mut bench, work) = Bench::with_work().await;
    let job = bench.end(work, waiting(RetryWhen::After(5 * SECOND))).await;
    assert_eq!(job.state(), JobState::Waiting);
    assert_eq!(job.status().reason.as_deref(), Some("not now"));
    bench.advance(4 * SECOND).await;
    assert_eq!(job.state(), JobState::Waiting);
    bench.advance(SECOND).await;
    let again = bench.work(1).await;
    assert_eq!(again.job.id, job.id);
    assert_eq!((job.state(), job.status().reason), (JobState::Running, None));
}

#[tokio::test]
async fn a_job_without_a_source_is_tried_when_a_peer_comes_and_within_a_minute_anyway() {
    let (mut bench, work) = Bench::with_work().await;
    let job = bench.end(work, waiting(RetryWhen::PeerCame)).await;
    assert_eq!(job.state(), JobState::Waiting);
    bench.peer_came().await;
    let work = bench.work(1).await;
    let job = bench.end(work, waiting(RetryWhen::PeerCame)).await;
    assert_eq!(job.state(), JobState::Waiting);
    bench.advance(60 * SECOND).await;
    bench.work(1).await;
}

#[tokio::test]
async fn a_peer_that_comes_while_a_job_looks_for_one_is_not_missed() {
    let (mut bench, work) = Bench::with_work().await;
    bench.peer_came().await;
    bench.end(work, waiting(RetryWhen::PeerCame)).await;
    bench.work(1).await;
}

#[tokio::test]
async fn a_job_that_is_cancelled_leaves_nothing_and_comes_back_only_when_asked_for() {
    let mut bench = Bench::new(ProjectMode::OnDemand);
    let manifest = bench.publish(1);
    bench.pull(1).await;
    let work = bench.work(1).await;
    let area = bench.area(manifest.id());
    let cancelled = bench.replicator.cancel(&work.job.id).await.unwrap().unwrap();
    bench.done().await;
    assert_eq!((&cancelled.id, cancelled.state()), (&work.job.id, JobState::Cancelled));
    assert!(!area.exists(), "what was fetched is gone");
    assert!(bench.replicator.cancel(&cancelled.id).await.unwrap().is_none(), "it is not under way any more");
    bench.touched(&[1]).await;
    bench.look().await;
    bench.peer_came().await;
    bench.advance(3600 * SECOND).await;
    assert!(bench.running().is_empty());
    let again = bench.pull(1).await.job.unwrap();
    assert_ne!(again.id, cancelled.id);
    assert_eq!(bench.work(1).await.job.id, again.id);
}

#[tokio::test]
async fn a_job_that_waits_is_cancelled_at_once_with_all_that_it_has() {
    let mut bench = Bench::new(ProjectMode::OnDemand);
    let manifest = bench.publish(1);
    bench.pull(1).await;
    let work = bench.work(1).await;
    let job = bench.end(work, waiting(RetryWhen::After(SECOND))).await;
    let area = bench.area(manifest.id());
    bench.replicator.cancel(&job.id).await.unwrap().unwrap();
    assert_eq!(job.state(), JobState::Cancelled);
    bench.advance(SECOND).await;
    assert!(bench.running().is_empty() && !area.exists());
}

#[tokio::test]
async fn a_cancelled_job_leaves_nothing_even_when_the_daemon_stops_at_that_moment() {
    let mut bench = Bench::new(ProjectMode::OnDemand);
    let (first, second) = (bench.publish(1), bench.publish(2));
    bench.pull(1).await;
    bench.pull(2).await;
    let (work, _other) = (bench.work(1).await, bench.work(2).await);
    let (cancelled, kept) = (bench.area(first.id()), bench.area(second.id()));
    let ending = Arc::clone(&bench.ending).lock_owned().await;
    bench.replicator.cancel(&work.job.id).await.unwrap().unwrap();
    assert!(bench.running().contains(&version(1).to_string()), "it takes a while");
    bench.tasks.cancel();
    let clock = RealClock::new();
    let release = async {
        for _ in 0..100 {
            tokio::task::yield_now().await;
        }
        drop(ending);
    };
    let (hung, ()) = tokio::join!(bench.tasks.shutdown(PATIENCE, &clock), release);
    assert!(hung.is_empty(), "{hung:?}");
    assert!(!cancelled.exists(), "the next start would go on with it");
    assert!(kept.exists(), "nobody cancelled that one");
}

#[tokio::test]
async fn a_conflict_ends_the_job_that_runs() {
    let (bench, work) = Bench::with_work().await;
    let other = manifest(1, b"another");
    bench.montreal.publishes(&other);
    bench.touched(&[1]).await;
    assert_eq!(work.job.state(), JobState::Cancelled);
    assert!(bench.has_health("conflict"));
    assert!(bench.running().is_empty());
    let pulled = bench.pull(1).await;
    assert!(matches!(pulled.decision, Decision::Conflict(_)) && pulled.job.is_none(), "{pulled:?}");
}

#[tokio::test]
async fn a_project_that_is_not_mirrored_any_more_ends_what_nobody_pulled() {
    let (mut bench, mirrored) = Bench::with_work().await;
    bench.publish(2);
    bench.touched(&[2]).await;
    let pulled = bench.work(2).await;
    bench.pull(2).await;
    bench.montreal.project().set_mode(ProjectMode::OnDemand);
    bench.look().await;
    assert_eq!(mirrored.job.state(), JobState::Cancelled);
    assert_eq!(pulled.job.state(), JobState::Running);
    bench.montreal.project().set_mode(ProjectMode::Mirror);
    bench.look().await;
    let again = bench.work(1).await;
    assert_ne!(again.job.id, mirrored.job.id);
}

#[tokio::test]
async fn a_version_that_is_here_is_not_fetched_again() {
    let (bench, work) = Bench::with_work().await;
    let job = Arc::clone(&work.job);
    let manifest = manifest(1, &1u32.to_le_bytes());
    bench.placed(work, &manifest).await;
    assert_eq!(job.state(), JobState::Done);
    bench.touched(&[1]).await;
    bench.look().await;
    bench.peer_came().await;
    let pulled = bench.pull(1).await;
    assert_eq!((pulled.decision, pulled.job.is_none()), (Decision::Have(manifest.id()), true));
    assert_eq!(bench.replicator.board.all().len(), 1, "no second job");
}

#[tokio::test]
async fn a_version_that_grows_gets_a_new_job_that_starts_when_the_old_one_has_ended() {
    let (mut bench, work) = Bench::with_work().await;
    let mut grown = draft(1, b"grown");
    grown.generation = 2;
    grown.predecessor = Some(work.job.manifest);
    let grown = grown.finish().unwrap();
    bench.london.publishes(&grown);
    bench.montreal.hears(&bench.london);
    let ending = Arc::clone(&bench.ending).lock_owned().await;
    bench.touched(&[1]).await;
    assert!(work.job.cancel.is_cancelled());
    assert_eq!((bench.running().len(), bench.in_state(JobState::Queued)), (1, names(&[1])), "one at a time");
    drop(ending);
    let next = bench.work(1).await;
    assert_eq!(work.job.state(), JobState::Cancelled);
    assert_eq!(next.job.manifest, grown.id());
    assert_eq!(bench.running(), names(&[1]));
}

#[tokio::test]
async fn what_a_mirror_cannot_get_is_told_until_it_is_here() {
    let (mut bench, work) = Bench::with_work().await;
    let failed = Outcome::Failed { reason: "broken".into(), code: ErrorCode::Damaged };
    let job = bench.end(work, failed).await;
    assert_eq!((job.state(), job.status().error), (JobState::Failed, Some(ErrorCode::Damaged)));
    assert!(bench.has_health("fetch-failed"));
    assert!(bench.running().is_empty(), "it is not tried again in a circle");
    let manifest = manifest(1, &1u32.to_le_bytes());
    bench.pull(1).await;
    let again = bench.work(1).await;
    bench.placed(again, &manifest).await;
    assert!(!bench.has_health("fetch-failed"));
}

#[tokio::test]
async fn work_that_panics_ends_its_job_and_nothing_else() {
    let (mut bench, work) = Bench::with_work().await;
    let job = Arc::clone(&work.job);
    drop(work.end);
    let until_ended = async {
        while !job.state().is_final() {
            bench.done().await;
        }
    };
    tokio::time::timeout(PATIENCE, until_ended).await.expect("the job ends");
    assert_eq!((job.state(), job.status().error), (JobState::Failed, Some(ErrorCode::Internal)));
    bench.publish(2);
    bench.touched(&[2]).await;
    bench.work(2).await;
}
