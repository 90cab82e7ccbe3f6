//! When manifests are asked for again, and what is told of peers.

use std::{
    sync::atomic::{AtomicUsize, Ordering},
    task::Poll,
};

use avalon_protocol::mode::ProjectMode;

use super::*;
use crate::{
    clock::ManualClock,
    fixture::{Node, Studio, draft, manifest, project, published},
    tasks::Tasks,
};

/// Fetches that all end the same way, counted.
struct Bench {
    clock: ManualClock,
    wake: Arc<Notify>,
    fetches: Arc<AtomicUsize>,
    tasks: Tasks,
}

impl Bench {
    fn new(round: Round) -> Self {
        let (clock, wake, tasks) = (ManualClock::new(), Arc::new(Notify::new()), Tasks::new());
        let fetches = Arc::new(AtomicUsize::new(0));
        let (clock_, wake_, fetches_, stop) =
            (clock.clone(), Arc::clone(&wake), Arc::clone(&fetches), tasks.token());
        tasks.spawn("manifests", async move {
            let fetch = || {
                fetches_.fetch_add(1, Ordering::Relaxed);
                std::future::ready(round)
            };
            whenever_woken(&clock_, &wake_, &stop, fetch).await;
        });
        Self { clock, wake, fetches, tasks }
    }

    /// Lets the task do all that it can, and returns how often it has fetched.
    async fn fetches(&self) -> usize {
        for _ in 0..20 {
            tokio::task::yield_now().await;
        }
        self.fetches.load(Ordering::Relaxed)
    }

    async fn after(&self, wait: Duration) -> usize {
        self.clock.advance(wait);
        self.fetches().await
    }

    async fn woken(&self) -> usize {
        self.wake.notify_one();
        self.fetches().await
    }
}

#[tokio::test]
async fn manifests_that_did_not_come_are_asked_for_again_after_waits_that_grow() {
    let bench = Bench::new(Round::Nothing);
    assert_eq!(bench.fetches().await, 0);
    assert_eq!(bench.woken().await, 1);
    for (fetches, wait) in [(2, 5), (3, 10), (4, 20), (5, 40)] {
        // Each wait is shortened by up to a quarter.
        let early = Duration::from_millis(wait * 749);
        assert_eq!(bench.after(early).await, fetches - 1, "after {wait} s");
        assert_eq!(bench.after(Duration::from_secs(wait) - early).await, fetches, "after {wait} s");
    }
    assert_eq!(bench.woken().await, 6, "a wake does not wait");
    for fetches in 7..30 {
        assert_eq!(bench.after(LONGEST_RETRY).await, fetches, "no wait is longer");
    }
    bench.tasks.shutdown(LONGEST_RETRY, &bench.clock).await;
}

#[tokio::test]
async fn waits_do_not_grow_while_manifests_come() {
    let bench = Bench::new(Round::Some);
    assert_eq!(bench.woken().await, 1);
    for fetches in 2..10 {
        assert_eq!(bench.after(FIRST_RETRY).await, fetches);
    }
}

#[tokio::test]
async fn when_all_manifests_are_here_nobody_is_asked_until_something_happens() {
    let bench = Bench::new(Round::Done);
    assert_eq!(bench.woken().await, 1);
    assert_eq!(bench.after(LONGEST_RETRY * 100).await, 1);
    assert_eq!(bench.woken().await, 2);
}

async fn fetch(node: &Node, net: &Net) -> Round {
    let (replicator, _told) = ReplicatorHandle::recorded();
    fetch_all(Arc::clone(&node.core), net.clone(), replicator).await
}

#[tokio::test]
async fn a_peer_that_gets_a_manifest_itself_later_is_asked_until_it_has_it() {
    let studio = Studio::new();
    let london = studio.node("srv@london", ProjectMode::OnDemand);
    let montreal = studio.node("srv@montreal", ProjectMode::OnDemand);
    let (first, second) = (manifest(1, b"one"), manifest(2, b"two"));
    for manifest in [&first, &second] {
        london.says(Record::Published(published(manifest)));
    }
    montreal.hears(&london);
    let tasks = Tasks::new();
    let (net_of_london, _london_events) = london.net(&tasks, &[]);
    let (net, mut events) = montreal.net(&tasks, &[net_of_london.local_addr().to_string()]);
    assert_eq!(fetch(&montreal, &net).await, Round::Done, "nobody is there to be asked");
    while !matches!(events.recv().await, Some(NetEvent::PeerUp { .. })) {}
    assert_eq!(fetch(&montreal, &net).await, Round::Nothing);
    london.core.ledger.put_manifest(&first).unwrap();
    let (replicator, mut told) = ReplicatorHandle::recorded();
    assert_eq!(fetch_all(Arc::clone(&montreal.core), net.clone(), replicator).await, Round::Some);
    assert_eq!(told(), [crate::fixture::version(1)], "a policy may ask for what only the manifest says");
    london.core.ledger.put_manifest(&second).unwrap();
    assert_eq!(fetch(&montreal, &net).await, Round::Done);
    assert_eq!(montreal.core.ledger.manifest(second.id()).unwrap().as_ref(), Some(&second));
}

#[tokio::test]
async fn each_manifest_that_is_found_missing_wakes_whether_others_are_missing_or_came_back_meanwhile() {
    let studio = Studio::new();
    let node = studio.node("srv@london", ProjectMode::OnDemand);
    let manifests = [manifest(1, b"one"), manifest(2, b"two"), manifest(3, b"three")];
    for manifest in &manifests {
        node.publishes(manifest);
    }
    let wake = Arc::new(Notify::new());
    let (core, wake_there) = (Arc::clone(&node.core), Arc::clone(&wake));
    let tasks = Tasks::new();
    tasks.spawn("looking", async move { wake_when_one_is_missing(&core, &wake_there).await });
    // Whether somebody was woken at the next look.
    let woken = async || {
        for _ in 0..20 {
            tokio::task::yield_now().await;
        }
        node.clock.advance(FIRST_RETRY);
        for _ in 0..20 {
            tokio::task::yield_now().await;
        }
        let mut woken = Box::pin(wake.notified());
        std::future::poll_fn(|context| Poll::Ready(woken.as_mut().poll(context).is_ready())).await
    };
    let lose = |manifest: &Manifest| {
        let (state, name) = (node.dir.ancestors().nth(2).unwrap().join("state"), manifest.id().to_string());
        std::fs::remove_file(state.join("manifests").join(&name[..2]).join(&name)).unwrap();
        assert_eq!(node.core.ledger.manifest(manifest.id()).unwrap(), None);
    };
    woken().await;
    assert!(!woken().await, "nothing is missing");
    lose(&manifests[0]);
    assert!(woken().await);
    assert!(!woken().await, "it was told");
    lose(&manifests[1]);
    assert!(woken().await, "another one, while the first is still missing");
    node.core.ledger.put_manifest(&manifests[1]).unwrap();
    lose(&manifests[1]);
    assert!(woken().await, "it came and is lost again between two looks");
    node.core.ledger.put_manifest(&manifests[0]).unwrap();
    lose(&manifests[2]);
    assert!(woken().await, "one came, one went");
    assert!(!woken().await);
}

#[tokio::test]
async fn a_manifest_of_another_version_than_its_record_says_is_not_kept() {
    let studio = Studio::new();
    let london = studio.node("srv@london", ProjectMode::OnDemand);
    let montreal = studio.node("srv@montreal", ProjectMode::OnDemand);
    let other = draft(2, b"two").finish().unwrap();
    let mut lie = published(&other);
    lie.version = crate::fixture::version(1);
    london.says(Record::Published(lie));
    london.core.ledger.put_manifest(&other).unwrap();
    montreal.hears(&london);
    let tasks = Tasks::new();
    let (net_of_london, _london_events) = london.net(&tasks, &[]);
    let (net, mut events) = montreal.net(&tasks, &[net_of_london.local_addr().to_string()]);
    while !matches!(events.recv().await, Some(NetEvent::PeerUp { .. })) {}
    assert_eq!(fetch(&montreal, &net).await, Round::Nothing);
    assert_eq!(montreal.core.ledger.missing_manifests(&project(), 9).len(), 1);
    assert!(!montreal.core.ledger.has_manifest(other.id()).unwrap());
}

#[tokio::test]
async fn a_second_daemon_of_a_node_is_told_until_it_has_not_been_refused_for_five_minutes() {
    let studio = Studio::new();
    let london = studio.node("srv@london", ProjectMode::OnDemand);
    let tasks = Tasks::new();
    let run: crate::replicate::jobs::Run = Arc::new(|_| Box::pin(std::future::pending()));
    let (_replicator, handle) =
        crate::replicate::jobs::Replicator::new(Arc::clone(&london.core), tasks.clone(), "t".into(), run);
    let (events, receiver) = mpsc::channel(4);
    let wake = Arc::new(Notify::new());
    tasks.spawn("peers", to_network(Arc::clone(&london.core), receiver, handle, wake, tasks.token()));
    let refused = || NetEvent::DuplicateNode {
        node: "ws1@home".parse().unwrap(),
        address: "127.0.0.1:9".parse().unwrap(),
    };
    let is_told = || london.core.health.items().iter().any(|item| item.code == DUPLICATE_NODE);
    let settle = || async {
        for _ in 0..20 {
            tokio::task::yield_now().await;
        }
    };
    events.send(refused()).await.unwrap();
    settle().await;
    assert!(is_told());
    london.clock.advance(Duration::from_secs(200));
    settle().await;
    events.send(refused()).await.unwrap();
    settle().await;
    london.clock.advance(Duration::from_secs(299));
    settle().await;
    assert!(is_told(), "it was refused again");
    london.clock.advance(Duration::from_secs(1));
    settle().await;
    assert!(!is_told());
}
