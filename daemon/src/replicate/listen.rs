//! What the ledger and the network say is turned into what the rest of the daemon does: look at versions, tell people,
//! fetch the manifests that are missing.

use std::{collections::HashMap, ops::Range, sync::Arc, time::Duration};

use avalon_protocol::{
    access::Action,
    backoff::Backoff,
    close_code::CloseCode,
    control::{EventKind, Health, PeerState, Severity},
    feed::{FeedId, SealedGroup},
    id::{NodeId, ProjectName, VersionId},
    limits::{MAX_MANIFEST_WANTS, RECORDS_FRAME_TARGET_BYTES},
    manifest::Manifest,
    record::Record,
};
use avalon_store::{catalog::Cause, ledger::LedgerEvent};
use tokio::sync::{Notify, broadcast, mpsc};
use tokio_util::sync::CancellationToken;

use super::{announce::records_of, fork, jobs::ReplicatorHandle};
use crate::{
    clock::{Clock, Sleep},
    core::{Core, blocking},
    health::HealthBoard,
    log::ErrorChain,
    net::{FAULTS_REMEMBERED, Net, NetEvent, PeerLink, endpoint::random},
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
    for project in core.feed_projects() {
        for (node, head) in core.ledger.heads(&project) {
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
            Ok(LedgerEvent::NotAllowed { feed, seq, action }) => tell_not_allowed(&core, &feed, seq, action),
            // Who goes by rights listens by themselves.
            Ok(LedgerEvent::Rights) => {}
            Ok(LedgerEvent::Forked { feed }) => {
                core.ledger.fork(&feed).iter().for_each(|fork| fork::tell_fork(&core, fork));
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

/// The health code of a record that states nothing, because its author lacked the right.
const NOT_ALLOWED: &str = "record-not-allowed";

fn tell_not_allowed(core: &Core, feed: &FeedId, seq: u64, action: Action) {
    tracing::warn!(%feed, seq, %action, "a record states nothing: its author lacks the right");
    let about = core.health.about(&feed.to_string());
    about.raise(Health {
        code: NOT_ALLOWED.into(),
        severity: Severity::Warning,
        message: format!(
            "{} may not {action} in project {}; what it said there has no effect (record {seq})",
            feed.node, feed.project
        ),
        hint: Some("grant it in the policy, or ask what happens there: avalonctl node list".into()),
    });
    core.events.emit(EventKind::NotAllowed {
        node: feed.node.to_string(),
        project: feed.project.to_string(),
        action: action.to_string(),
    });
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
    for (node, record) in records_of(&core.ledger, groups) {
        match record {
            Record::Published(published) => {
                tracing::debug!(version = %published.version, manifest = %published.manifest, peer = %node, "announced");
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
            // What concerns the studio is told by who holds it.
            Record::Key(_)
            | Record::Dropped(_)
            | Record::Policy(_)
            | Record::Revoked(_)
            | Record::Judged(_)
            | Record::Crl(_)
            | Record::Issued(_)
            | Record::AuditHead(_) => {}
            Record::Retired(_) | Record::Restored(_) | Record::Resolved(_) => {
                if let Some(event) = lifetime_event(&node, &record) {
                    core.events.emit(event);
                }
            }
        }
    }
}

/// Returns what people hear of a record about what becomes of a version after it was published.
pub fn lifetime_event(node: &NodeId, record: &Record) -> Option<EventKind> {
    let node = node.to_string();
    Some(match record {
        Record::Retired(retired) => EventKind::Retired {
            reference: retired.version.to_string(),
            author: retired.author.as_str().to_owned(),
            comment: retired.comment.as_str().to_owned(),
            node,
        },
        Record::Restored(restored) => EventKind::Restored {
            reference: restored.version.to_string(),
            author: restored.author.as_str().to_owned(),
            node,
        },
        Record::Resolved(resolved) => EventKind::Resolved {
            reference: resolved.version().to_string(),
            keep: resolved.keep().to_string(),
            author: resolved.said().author.as_str().to_owned(),
            node,
        },
        _ => return None,
    })
}

/// Passes on what the network says, until the daemon stops.
pub async fn to_network(
    core: Arc<Core>,
    mut net_events: mpsc::Receiver<NetEvent>,
    replicator: ReplicatorHandle,
    manifests: Arc<Notify>,
    stop: CancellationToken,
) {
    // Until when a report about a node stands: one that nothing confirms any more is taken back.
    let mut reports: HashMap<(NodeId, &'static str), Duration> = HashMap::new();
    loop {
        let next = reports.values().min().map(|end| end.saturating_sub(core.clock.monotonic()));
        let event = tokio::select! {
            () = stop.cancelled() => return,
            event = net_events.recv() => event,
            () = core.clock.sleep(next.unwrap_or_default()), if next.is_some() => {
                let now = core.clock.monotonic();
                reports.retain(|(node, code), end| {
                    if *end <= now {
                        core.health.about(&node.to_string()).clear(code);
                    }
                    *end > now
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
                core.health.about(&refused_by(&hello.node)).clear(DUPLICATE_NODE);
                core.own.greeted(&hello.node);
                manifests.notify_one();
                replicator.peer_came().await;
            }
            NetEvent::PeerDown { node, reason } => {
                tracing::info!(peer = %node, reason, "peer gone");
                core.own.gone(&node);
                tell_peer(&core, &node.to_string(), PeerState::Offline, Some(reason));
            }
            NetEvent::Refused { address, node, reason, code } => {
                tracing::warn!(address, reason, "peer refused");
                if let (Some(CloseCode::DuplicateNode), Some(node)) = (code, &node) {
                    tell_we_are_two(&core, node);
                }
                let name = node.map_or(address, |node| node.to_string());
                tell_peer(&core, &name, PeerState::Refused, Some(reason));
            }
            NetEvent::Fork { feed, peer } => fork::tell_mismatch(&core, &feed, &peer),
            NetEvent::OwnFeed { project, peer, next_seq } => core.own.heard(&project, &peer, next_seq),
            NetEvent::FellBack { peer, feed, fallen } => fork::tell_fallen_back(&core, &peer, &feed, fallen),
            NetEvent::Faulty { node, reason, faults, kept_off } => {
                tracing::warn!(peer = %node, reason, faults, kept_off_s = kept_off.as_secs(), "peer broke the rules");
                reports.insert((node.clone(), FAULTY_PEER), core.clock.monotonic() + FAULTS_REMEMBERED);
                tell_peer(&core, &node.to_string(), PeerState::Refused, Some(reason.clone()));
                core.health.about(&node.to_string()).raise(faulty_peer(&node, &reason, faults, kept_off));
            }
            NetEvent::DuplicateNode { node, address } => {
                tracing::error!(%node, %address, "two daemons run with one node name");
                reports.insert((node.clone(), DUPLICATE_NODE), core.clock.monotonic() + DUPLICATE_STANDS);
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

const FAULTY_PEER: &str = "faulty-peer";

fn faulty_peer(node: &NodeId, reason: &str, faults: u32, kept_off: Duration) -> Health {
    let seconds = kept_off.as_secs();
    let times = if faults == 1 { "once".to_owned() } else { format!("{faults} times") };
    Health {
        code: FAULTY_PEER.into(),
        severity: Severity::Warning,
        message: format!(
            "{node} broke the rules {times} and is kept off for {seconds} s, the last time: {reason}"
        ),
        hint: Some(format!(
            "look at {node}: another version, a bad disk, or somebody who should not have its key"
        )),
    }
}

fn tell_peer(core: &Core, node: &str, state: PeerState, detail: Option<String>) {
    core.events.emit(EventKind::Peer { node: node.to_owned(), state, detail });
}

/// What it is about when this node itself is refused as the second of its name: who refuses it.
fn refused_by(peer: &NodeId) -> String {
    format!("refused by {peer}")
}

/// Says at the second daemon itself that it is one.
fn tell_we_are_two(core: &Core, peer: &NodeId) {
    core.health.about(&refused_by(peer)).raise(Health {
        code: DUPLICATE_NODE.into(),
        severity: Severity::Error,
        message: format!("another daemon is connected to {peer} as {}, which is this node's name", core.me),
        hint: Some(
            "this machine may be a copy of that one: stop one of them, and let it join under a new name"
                .into(),
        ),
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
/// until the daemon stops. The versions of those that came are looked at again: a policy can ask for what only the manifest says.
pub async fn to_missing_manifests(
    core: Arc<Core>,
    net: Net,
    replicator: ReplicatorHandle,
    wake: Arc<Notify>,
    stop: CancellationToken,
) {
    let clock = Arc::clone(&core.clock);
    let fetch = || fetch_all(Arc::clone(&core), net.clone(), replicator.clone());
    tokio::select! {
        () = whenever_woken(&*clock, &wake, &stop, fetch) => {}
        () = wake_when_one_is_missing(&core, &wake) => {}
    }
}

/// A manifest may be found damaged at any time, by whoever wants to read it. Each that is more than at the last look wakes, whether
/// others are missing already or not.
async fn wake_when_one_is_missing(core: &Core, wake: &Notify) {
    let mut known = 0;
    loop {
        core.clock.sleep(FIRST_RETRY).await;
        let missed = core.ledger.manifests_went_missing();
        if missed != known {
            wake.notify_one();
        }
        known = missed;
    }
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

async fn fetch_all(core: Arc<Core>, net: Net, replicator: ReplicatorHandle) -> Round {
    let (mut stored, mut is_lacking) = (0, false);
    for project in core.projects.keys() {
        let links: Vec<PeerLink> = net.links().into_iter().filter(|link| link.shares(project)).collect();
        for link in &links {
            stored += fetch_missing(&core, link, project, &replicator).await;
        }
        is_lacking |= !links.is_empty() && !core.ledger.missing_manifests(project, 1).is_empty();
    }
    match (is_lacking, stored) {
        (false, _) => Round::Done,
        (true, 0) => Round::Nothing,
        (true, _) => Round::Some,
    }
}

/// Returns how many manifests came and are stored; the replicator has heard of their versions.
async fn fetch_missing(
    core: &Arc<Core>,
    link: &PeerLink,
    project: &ProjectName,
    replicator: &ReplicatorHandle,
) -> usize {
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
        let (ledger, peer) = (core.ledger.clone(), link.node().clone());
        let stored = blocking(move || {
            let good = fetched.into_iter().zip(missing).filter_map(|(bytes, (id, version))| {
                let manifest = Manifest::decode(&bytes?).ok();
                let manifest = manifest.filter(|good| good.id() == id && *good.version() == version);
                if manifest.is_none() {
                    tracing::warn!(%peer, manifest = %id, "a manifest is refused");
                }
                manifest
            });
            let good: Vec<Manifest> = good.collect();
            if ledger.put_manifests(&good).is_ok() {
                return good.iter().map(|manifest| manifest.version().clone()).collect();
            }
            // One that cannot be stored must not keep the others out, which would be asked for with it again and again.
            let stores = |manifest: &&Manifest| {
                let stored = ledger.put_manifests(std::slice::from_ref(*manifest));
                stored.map_err(|error| tracing::warn!(%peer, manifest = %manifest.id(), error = %ErrorChain(&error), "a manifest cannot be stored")).is_ok()
            };
            good.iter().filter(stores).map(|manifest| manifest.version().clone()).collect()
        });
        let stored: Vec<VersionId> = stored.await;
        if stored.is_empty() {
            return all_stored;
        }
        all_stored += stored.len();
        replicator.touched(stored).await;
    }
}

#[cfg(test)]
mod tests;
