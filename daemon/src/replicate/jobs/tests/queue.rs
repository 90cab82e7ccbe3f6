//! Jobs of which people said something, and a queue that is long.

use avalon_protocol::{control::Prio, frames::FrameWish};

use super::*;
use crate::replicate::jobs::{Order, Paused, queue::Queue};

impl Bench {
    /// Says something about a version, or about all of the queue.
    async fn order(&self, number: Option<u32>, say: impl FnOnce(&mut Order)) {
        let orders = &self.montreal.core.orders;
        let change = orders.change(|book| match number {
            Some(number) => say(book.versions.entry(version(number)).or_default()),
            None => {
                let mut all = Order { paused: book.paused.take(), ..Order::default() };
                say(&mut all);
                book.paused = all.paused;
            }
        });
        change.unwrap();
        self.replicator.ordered(number.map(|number| vec![version(number)])).await.unwrap();
        self.done().await;
    }

    /// Waits until a job is in a state.
    async fn until(&self, job: &Job, state: JobState) {
        let reached = async {
            while job.state() != state {
                self.done().await;
            }
        };
        tokio::time::timeout(PATIENCE, reached).await.expect("it comes into the state");
    }
}

fn paused() -> Paused {
    Paused { by: "anna".into(), at_ms: 1_763_800_000_000 }
}

#[tokio::test]
async fn what_is_paused_stops_keeps_what_came_and_goes_on_when_it_is_resumed() {
    let mut bench = Bench::new(ProjectMode::OnDemand);
    let manifest = bench.publish(1);
    bench.pull(1).await;
    let work = bench.work(1).await;
    let area = bench.area(manifest.id());
    bench.order(Some(1), |order| order.paused = Some(paused())).await;
    bench.until(&work.job, JobState::Paused).await;
    assert!(!work.job.cancel.is_cancelled() && area.exists());
    assert!(work.job.status().reason.unwrap().starts_with("paused by anna"));
    bench.peer_came().await;
    bench.touched(&[1]).await;
    bench.pull(1).await;
    bench.advance(3600 * SECOND).await;
    assert!(bench.running().is_empty(), "it stays so");
    bench.order(Some(1), |order| order.paused = None).await;
    let again = bench.work(1).await;
    assert_eq!(again.job.id, work.job.id, "the same job");
    bench.placed(again, &manifest).await;
    assert_eq!(work.job.state(), JobState::Done);
}

#[tokio::test]
async fn a_node_that_is_paused_starts_nothing_also_not_what_comes_later() {
    let (mut bench, work) = Bench::with_work().await;
    bench.publish(2);
    bench.order(None, |order| order.paused = Some(paused())).await;
    bench.until(&work.job, JobState::Paused).await;
    bench.touched(&[2]).await;
    let pulled = bench.pull(3).await;
    assert!(pulled.job.is_none(), "it is not known");
    assert_eq!(bench.in_state(JobState::Paused), names(&[1, 2]));
    bench.order(None, |order| order.paused = None).await;
    bench.work(1).await;
    bench.work(2).await;
}

#[tokio::test]
async fn a_job_that_is_resumed_while_it_stops_runs_again() {
    let (mut bench, work) = Bench::with_work().await;
    let ending = Arc::clone(&bench.ending).lock_owned().await;
    bench.order(Some(1), |order| order.paused = Some(paused())).await;
    bench.order(Some(1), |order| order.paused = None).await;
    assert_eq!(work.job.state(), JobState::Running, "it takes a while to stop");
    drop(ending);
    assert_eq!(bench.work(1).await.job.id, work.job.id);
}

#[tokio::test]
async fn a_job_that_is_cancelled_while_it_is_paused_ends() {
    let (bench, work) = Bench::with_work().await;
    bench.order(Some(1), |order| order.paused = Some(paused())).await;
    bench.until(&work.job, JobState::Paused).await;
    bench.replicator.cancel(&work.job.id).await.unwrap().unwrap();
    assert_eq!(work.job.state(), JobState::Cancelled);
    while bench.montreal.core.orders.has(&version(1)) {
        bench.done().await;
    }
}

#[tokio::test]
async fn what_somebody_says_about_the_order_comes_before_what_the_policy_says() {
    let mut bench = Bench::new(ProjectMode::Mirror);
    (1..=9).for_each(|number| drop(bench.publish(number)));
    bench.look().await;
    let mut works = Vec::new();
    for number in 1..=4 {
        works.push(bench.work(number).await);
    }
    bench.order(Some(5), |order| order.prio = Some(Prio::Low)).await;
    bench.order(Some(8), |order| order.prio = Some(Prio::High)).await;
    let places: Vec<(String, Option<u64>)> =
        bench.replicator.board.queue().into_iter().map(|job| (job.reference, job.position)).collect();
    let expected = [
        (1, None),
        (2, None),
        (3, None),
        (4, None),
        (8, Some(1)),
        (6, Some(2)),
        (7, Some(3)),
        (9, Some(4)),
        (5, Some(5)),
    ];
    let expected = expected.map(|(number, place)| (version(number).to_string(), place));
    assert_eq!(places, expected);
    let position = |number| {
        let job = bench.replicator.board.of_version(&version(number)).unwrap();
        bench.replicator.board.position(&job)
    };
    assert_eq!([8, 9, 5, 1].map(position), [Some(1), Some(4), Some(5), None]);
    bench.order(Some(9), |order| order.prio = Some(Prio::Now)).await;
    let ninth = bench.work(9).await;
    assert_eq!(ninth.job.priority(), Priority::Waiting, "somebody waits, so it runs besides the others");
    for work in works.drain(..2) {
        bench.end(work, Outcome::Failed { reason: "x".into(), code: ErrorCode::Damaged }).await;
    }
    bench.work(8).await;
}

#[test]
fn a_queue_of_a_hundred_thousand_gives_each_its_turn() {
    let studio = Studio::new();
    let node = studio.node("srv@montreal", ProjectMode::Mirror);
    let core = &node.core;
    let mut queue = Queue::default();
    for number in 0..100_000u32 {
        let wish = (JobKind::Mirror, if number % 10 == 0 { Priority::Publish } else { Priority::Backfill });
        let job = Job::new(
            format!("t-{number:x}"),
            version(number),
            manifest(1, b"one").id(),
            wish,
            Arc::clone(&core.clock),
            core.events.clone(),
        );
        queue.add(u64::from(number), Arc::new(job));
    }
    let mut order = Vec::new();
    while let Some((number, _)) = queue.start() {
        queue.stopped(number);
        queue.remove(number);
        order.push(number);
    }
    assert_eq!((order.len(), queue.len()), (100_000, 0));
    assert!(order[..10_000].iter().all(|number| number % 10 == 0));
    assert!(order[..10_000].is_sorted() && order[10_000..].is_sorted());
}

fn wish(frames: &str) -> FrameWish {
    FrameWish { frames: frames.parse().unwrap(), representation: None }
}

impl Bench {
    async fn pull_frames(&self, number: u32, frames: &str) -> Pulled {
        self.order(Some(number), |order| order.frames = Some(wish(frames))).await;
        let mut answer = self.replicator.pull_frames(vec![version(number)]).await.unwrap();
        self.done().await;
        answer.pop().unwrap()
    }
}

#[tokio::test]
async fn who_wants_frames_gets_a_job_for_them_once_and_whoever_wants_all_gets_all() {
    let mut bench = Bench::new(ProjectMode::OnDemand);
    let manifest = bench.publish(1);
    bench.pull_frames(1, "1-9x2").await;
    let some = bench.work(1).await;
    assert_eq!(some.job.frames(), Some(&wish("1-9x2")));
    assert_eq!((some.job.kind(), some.job.priority()), (JobKind::Pull, Priority::Waiting));
    bench.touched(&[1]).await;
    assert_eq!(bench.pull_frames(1, "1-9x2").await.job.unwrap().id, some.job.id);
    let more = bench.pull_frames(1, "1-9").await.job.unwrap();
    let work = bench.work(1).await;
    assert_eq!((&work.job.id, some.job.state()), (&more.id, JobState::Cancelled));
    bench.end(work, Outcome::Placed).await;
    assert!(bench.running().is_empty() && !bench.montreal.core.orders.has(&version(1)), "once");
    bench.pull_frames(1, "1-9").await;
    let some = bench.work(1).await;
    bench.pull(1).await;
    let all = bench.work(1).await;
    assert!(all.job.frames().is_none() && some.job.state() == JobState::Cancelled);
    assert_eq!(bench.pull_frames(1, "3").await.job.unwrap().id, all.job.id, "they come with all");
    bench.placed(all, &manifest).await;
    assert!(bench.running().is_empty() && !bench.montreal.core.orders.has(&version(1)));
}

#[tokio::test]
async fn frames_that_were_wanted_before_a_restart_are_wanted_after_it_and_a_mirror_brings_all() {
    let mut bench = Bench::new(ProjectMode::OnDemand);
    bench.publish(1);
    let orders = &bench.montreal.core.orders;
    orders.change(|book| book.versions.entry(version(1)).or_default().frames = Some(wish("1-9"))).unwrap();
    bench.look().await;
    let some = bench.work(1).await;
    assert!(some.job.frames().is_some());
    bench.replicator.cancel(&some.job.id).await.unwrap().unwrap();
    bench.until(&some.job, JobState::Cancelled).await;
    // It is forgotten right after that is told.
    while bench.montreal.core.orders.has(&version(1)) {
        tokio::task::yield_now().await;
    }
    let (bench, work) = Bench::with_work().await;
    assert_eq!(bench.pull_frames(1, "3").await.job.unwrap().id, work.job.id);
    assert_eq!(work.job.kind(), JobKind::Pull, "it is put first");
}

#[tokio::test]
async fn what_was_said_about_a_version_holds_when_it_grows() {
    let mut bench = Bench::new(ProjectMode::Mirror);
    let first = bench.publish(1);
    bench.order(Some(1), |order| order.paused = Some(paused())).await;
    bench.touched(&[1]).await;
    assert_eq!(bench.in_state(JobState::Paused), names(&[1]));
    let mut grown = draft(1, b"grown");
    (grown.generation, grown.predecessor) = (2, Some(first.id()));
    bench.london.publishes(&grown.finish().unwrap());
    bench.montreal.hears(&bench.london);
    bench.touched(&[1]).await;
    assert_eq!(bench.in_state(JobState::Paused), names(&[1]));
    assert!(bench.started.try_recv().is_err());
}
