//! What the ledger and the network say is turned into what the rest of the daemon does: look at versions, tell people,
//! fetch the manifests that are missing.

use std::{collections::HashMap, ops::Range, sync::Arc, time::Duration};

use avalon_protocol::{
    backoff::Backoff,
    control::{EventKind, Health, PeerState, Severity},
    feed::{FeedId, SealedGroup},
    id::{NodeId, ProjectName},
    limits::{MAX_MANIFEST_WANTS, RECORDS_FRAME_TARGET_BYTES},
    manifest::Manifest,
    record::Record,
};
use avalon_store::{catalog::Cause, ledger::LedgerEvent};
use tokio::sync::{Notify, broadcast, mpsc};
use tokio_util::sync::CancellationToken;

use super::{announce::records_of, jobs::ReplicatorHandle};
use crate::{
    clock::{Clock, Sleep},
    core::{Core, blocking},
    health::HealthBoard,
    log::ErrorChain,
    net::{Net, NetEvent, PeerLink, endpoint::random},
};

/// Passes on what the ledger says, until the daemon stops.
pub async fn to_ledger(
    core: Arc<Core>,
    mut ledger_events: broadcast::Receiver<LedgerEvent>,
    replicator: ReplicatorHandle,
    manifests: Arc<Notify>,
    stop: CancellationToken,
) {
    let mut told: HashMap<FeedId, u64> = HashMap::new();
    for project in core.projects.keys() {
        for (node, head) in core.ledger.heads(project) {
            told.insert(FeedId { project: project.clone(), node }, head.next_seq);
        }
    }
    // It may have been ready before anybody listened.
    if core.ledger.is_ready() {
        core.health.clear(CATALOG_REBUILDING);
    }
    loop {
        let event = tokio::select! {
            () = stop.cancelled() => return,
            event = ledger_events.recv() => event,
        };
        match event {
            Ok(LedgerEvent::Rebuilding { cause }) => tell_rebuilding(&core.health, &cause),
            Ok(LedgerEvent::Rebuilt) => {
                core.health.clear(CATALOG_REBUILDING);
                look_at_all(&core, &replicator, &manifests).await;
            }
            Ok(LedgerEvent::Advanced { feed, head, touched }) => {
                let from_seq = told.insert(feed.clone(), head.next_seq).unwrap_or(0);
                if feed.node != core.me {
                    tell(&core, &feed, from_seq..head.next_seq, &stop).await;
                    manifests.notify_one();
                }
                replicator.touched(touched).await;
            }
            // Too much at once: everything is looked at instead.
            Err(broadcast::error::RecvError::Lagged(_)) => {
                if core.ledger.is_ready() {
                    core.health.clear(CATALOG_REBUILDING);
                }
                look_at_all(&core, &replicator, &manifests).await;
            }
            Err(broadcast::error::RecvError::Closed) => return,
        }
    }
}

/// The health code of a catalog that is being rebuilt.
const CATALOG_REBUILDING: &str = "catalog-rebuilding";

/// Says that the catalog is built anew, and what does not go on meanwhile.
pub fn tell_rebuilding(health: &HealthBoard, cause: &Cause) {
    tracing::warn!(%cause, "the catalog is built anew while the daemon runs");
    health.raise(Health {
        code: CATALOG_REBUILDING.into(),
        severity: Severity::Warning,
        message: format!(
            "the catalog is built anew ({cause}); peers are served what is known by now, publishing and fetching wait"
        ),
        hint: Some("nothing is lost; it goes on by itself, or once there is room on the disk".into()),
    });
}

async fn look_at_all(core: &Core, replicator: &ReplicatorHandle, manifests: &Notify) {
    for project in core.projects.keys() {
        replicator.look_at(project.clone()).await;
    }
    manifests.notify_one();
}

/// Tells what another node's new records say, some at a time: after a long absence there are many.
async fn tell(core: &Arc<Core>, feed: &FeedId, new: Range<u64>, stop: &CancellationToken) {
    let mut from_seq = new.start;
    while from_seq < new.end && !stop.is_cancelled() {
        let (ledger, feed_there) = (core.ledger.clone(), feed.clone());
        let groups =
            blocking(move || ledger.read_groups(&feed_there, from_seq, RECORDS_FRAME_TARGET_BYTES)).await;
        let groups = groups.unwrap_or_else(|error| {
            tracing::warn!(%feed, from_seq, error = %ErrorChain(&error), "what a peer published cannot be told");
            Vec::new()
        });
        tell_records(core, &groups);
        match groups.last().and_then(SealedGroup::claimed_end) {
            Some(end) if end > from_seq => from_seq = end,
            _ => return,
        }
    }
}

fn tell_records(core: &Core, groups: &[SealedGroup]) {
    for (node, record) in records_of(groups) {
        match record {
            Record::Published(published) => {
                tracing::info!(version = %published.version, manifest = %published.manifest, peer = %node, "announced");
                core.events.emit(EventKind::Announced {
                    reference: published.version.to_string(),
                    manifest: published.manifest.to_string(),
                    node: node.to_string(),
                });
            }
            Record::Placed(held) => {
                core.events.emit(EventKind::HeldElsewhere {
                    reference: held.version.to_string(),
                    manifest: held.manifest.to_string(),
                    node: node.to_string(),
                });
            }
            Record::Key(_) | Record::Dropped(_) => {}
        }
    }
}

/// Passes on what the network says, until the daemon stops.
pub async fn to_network(
    core: Arc<Core>,
    mut net_events: mpsc::Receiver<NetEvent>,
    replicator: ReplicatorHandle,
    manifests: Arc<Notify>,
    stop: CancellationToken,
) {
    // When a second daemon of a node was last refused: a report that nobody confirms any more is taken back.
    let mut duplicates: HashMap<NodeId, Duration> = HashMap::new();
    loop {
        let now = core.clock.monotonic();
        let oldest =
            duplicates.values().min().map(|refused| (*refused + DUPLICATE_STANDS).saturating_sub(now));
        let event = tokio::select! {
            () = stop.cancelled() => return,
            event = net_events.recv() => event,
            () = core.clock.sleep(oldest.unwrap_or_default()), if oldest.is_some() => {
                let now = core.clock.monotonic();
                duplicates.retain(|node, refused| {
                    let stands = now.saturating_sub(*refused) < DUPLICATE_STANDS;
                    if !stands {
                        core.health.about(&node.to_string()).clear(DUPLICATE_NODE);
                    }
                    stands
                });
                continue;
            }
        };
        let Some(event) = event else { return };
        match event {
            NetEvent::PeerUp { hello, link } => {
                tracing::info!(peer = %hello.node, address = %link.remote_address(), "peer connected");
                tell_peer(&core, &hello.node.to_string(), PeerState::Online, None);
                core.health.about(&hello.node.to_string()).clear(DUPLICATE_NODE);
                manifests.notify_one();
                replicator.peer_came().await;
            }
            NetEvent::PeerDown { node, reason } => {
                tracing::info!(peer = %node, reason, "peer gone");
                tell_peer(&core, &node.to_string(), PeerState::Offline, Some(reason));
            }
            NetEvent::Refused { address, node, reason, .. } => {
                tracing::warn!(address, reason, "peer refused");
                let name = node.map_or(address, |node| node.to_string());
                tell_peer(&core, &name, PeerState::Refused, Some(reason));
            }
            NetEvent::Fork { feed, peer } => tell_fork(&core, &feed, &peer),
            NetEvent::DuplicateNode { node, address } => {
                tracing::error!(%node, %address, "two daemons run with one node name");
                duplicates.insert(node.clone(), core.clock.monotonic());
                core.health.about(&node.to_string()).raise(Health {
                    code: DUPLICATE_NODE.into(),
                    severity: Severity::Error,
                    message: format!("two daemons run as {node}; the second is at {address} and is refused"),
                    hint: Some(
                        "issue each machine a certificate with a name of its own: avalonctl ca issue".into(),
                    ),
                });
            }
        }
    }
}

const DUPLICATE_NODE: &str = "duplicate-node";
/// How long it stands without the second daemon having been refused again.
const DUPLICATE_STANDS: Duration = Duration::from_secs(300);

fn tell_peer(core: &Core, node: &str, state: PeerState, detail: Option<String>) {
    core.events.emit(EventKind::Peer { node: node.to_owned(), state, detail });
}

fn tell_fork(core: &Core, feed: &FeedId, peer: &NodeId) {
    tracing::error!(%feed, %peer, "a feed has two histories");
    core.health.about(&feed.to_string()).raise(Health {
        code: "feed-fork".into(),
        severity: Severity::Error,
        message: format!(
            "{} has two histories of project {}; {peer} has the other one",
            feed.node, feed.project
        ),
        hint: Some(format!(
            "was {} restored from a backup? its records are not exchanged until that is settled",
            feed.node
        )),
    });
}

/// How long before manifests that did not come are asked for again: a peer may have been busy, or get them itself.
const FIRST_RETRY: Duration = Duration::from_secs(5);
/// The longest such wait. A node that comes, or a new record, ends it at once.
const LONGEST_RETRY: Duration = Duration::from_secs(600);

/// What a round of fetching manifests brought.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Round {
    /// Nothing more can be had now: all are here, or nobody is connected who could have them.
    Done,
    /// Some came, and not all.
    Some,
    /// None came that are missing.
    Nothing,
}

/// Fetches manifests that are named by records and not here, whenever it is woken and again after a while when not all came,
/// until the daemon stops.
pub async fn to_missing_manifests(core: Arc<Core>, net: Net, wake: Arc<Notify>, stop: CancellationToken) {
    let clock = Arc::clone(&core.clock);
    whenever_woken(&*clock, &wake, &stop, || fetch_all(Arc::clone(&core), net.clone())).await;
}

/// Fetches at each wake, and after waits that grow while something is missing. Dropping a fetch loses nothing that came.
async fn whenever_woken<F: Future<Output = Round>>(
    clock: &dyn Clock,
    wake: &Notify,
    stop: &CancellationToken,
    fetch: impl Fn() -> F,
) {
    let mut backoff = Backoff::new(FIRST_RETRY, LONGEST_RETRY);
    let mut again: Sleep = Box::pin(std::future::pending());
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            () = wake.notified() => {}
            () = &mut again => {}
        }
        let round = tokio::select! {
            () = stop.cancelled() => return,
            round = fetch() => round,
        };
        if round != Round::Nothing {
            backoff.succeeded();
        }
        again = match round {
            Round::Done => Box::pin(std::future::pending()),
            Round::Some | Round::Nothing => clock.sleep(backoff.failed(random())),
        };
    }
}

async fn fetch_all(core: Arc<Core>, net: Net) -> Round {
    let (mut stored, mut is_lacking) = (0, false);
    for project in core.projects.keys() {
        let links: Vec<PeerLink> = net.links().into_iter().filter(|link| link.shares(project)).collect();
        for link in &links {
            stored += fetch_missing(&core, link, project).await;
        }
        is_lacking |= !links.is_empty() && !core.ledger.missing_manifests(project, 1).is_empty();
    }
    match (is_lacking, stored) {
        (false, _) => Round::Done,
        (true, 0) => Round::Nothing,
        (true, _) => Round::Some,
    }
}

/// Returns how many manifests came and are stored.
async fn fetch_missing(core: &Arc<Core>, link: &PeerLink, project: &ProjectName) -> usize {
    let mut all_stored = 0;
    loop {
        let missing = core.ledger.missing_manifests(project, MAX_MANIFEST_WANTS);
        if missing.is_empty() {
            return all_stored;
        }
        let ids: Vec<_> = missing.iter().map(|(id, _)| *id).collect();
        let fetched = match link.fetch_manifests(project, ids).await {
            Ok(fetched) => fetched,
            Err(error) => {
                tracing::debug!(peer = %link.node(), error = %ErrorChain(&error), "manifests did not come");
                return all_stored;
            }
        };
        let mut stored = 0;
        for (bytes, (id, version)) in fetched.into_iter().zip(missing) {
            let Some(bytes) = bytes else { continue };
            let ledger = core.ledger.clone();
            let kept = blocking(move || match Manifest::decode(&bytes) {
                Ok(manifest) if manifest.id() == id && *manifest.version() == version => {
                    ledger.put_manifest(&manifest).is_ok()
                }
                _ => false,
            });
            if kept.await {
                stored += 1;
            } else {
                tracing::warn!(peer = %link.node(), manifest = %id, "a manifest is refused or cannot be stored");
            }
        }
        if stored == 0 {
            return all_stored;
        }
        all_stored += stored;
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

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
        fetch_all(Arc::clone(&node.core), net.clone()).await
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
        assert_eq!(fetch(&montreal, &net).await, Round::Some);
        london.core.ledger.put_manifest(&second).unwrap();
        assert_eq!(fetch(&montreal, &net).await, Round::Done);
        assert_eq!(montreal.core.ledger.manifest(second.id()).unwrap().as_ref(), Some(&second));
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
}
