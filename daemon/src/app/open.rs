//! What all parts share is opened, and what was found broken is told.

use std::sync::Arc;

use avalon_certs::{Identity, Revocations};
use avalon_protocol::{
    audit::{AuditAction, AuditFact},
    control::{Health, Severity},
    id::ProjectName,
};
use avalon_store::{
    ledger::{CatalogCare, Ledger, LedgerConfig, LedgerEvent, OpenReport},
    object::{hash::Hasher, serve::BlockCache},
    state_dir::StateDir,
};
use tokio::sync::broadcast;

use crate::{
    audit::Audit,
    buffers::Buffers,
    clock::Clock,
    config::Config,
    core::{Core, blocking},
    events::EventBus,
    health::HealthBoard,
    knowledge::Knowledge,
    limits::Limits,
    log::ErrorChain,
    net::Throttle,
    numbers::Numbers,
    own_feeds::OwnWriting,
    policy::{KeptExtract, StudioPolicy},
    project::Project,
    replicate::{jobs::Orders, listen},
    scrub::FoundDamaged,
    space::Space,
    transfers::TransferLog,
};

/// Opens the ledger and all that stands beside it; nothing runs yet.
///
/// # Errors
/// What prevented it.
pub(super) async fn core(
    config: &Config,
    state: &Arc<StateDir>,
    identity: &Identity,
    clock: Arc<dyn Clock>,
    ledger_events: broadcast::Sender<LedgerEvent>,
) -> anyhow::Result<Arc<Core>> {
    let events = EventBus::new(Arc::clone(&clock));
    let health = HealthBoard::new(events.clone());
    // A volume whose server is away keeps whoever opens it waiting, and a signal is heard all the same.
    let configured = config.projects.clone();
    let projects: Vec<Arc<Project>> =
        blocking(move || configured.iter().map(|project| Arc::new(Project::new(project))).collect()).await;
    let ledger_clock = Arc::clone(&clock);
    let state_there = Arc::clone(state);
    let kept = blocking(move || KeptExtract::read(&state_there.root)).await;
    let ledger_config = LedgerConfig {
        me: identity.node().clone(),
        signer: identity.signer(),
        trust: Arc::new(identity.trust()),
        projects: projects.iter().map(|project| (project.name().clone(), project.dir())).collect(),
        on_change: Arc::new(move |event| drop(ledger_events.send(event))),
        now: Arc::new(move || ledger_clock.monotonic()),
        extract: kept.for_ledger(),
        care: CatalogCare::default(),
        max_feed_bytes: config.max_feed_bytes,
    };
    let audit = open_audit(config, state, identity, &clock, &health).await?;
    let state_there = Arc::clone(state);
    let (ledger, report) = blocking(move || Ledger::open(&state_there, ledger_config)).await?;
    report_open(&health, &report);
    let own = own_writing((config, damaged_own(&report)), state, &ledger, identity, &health, &clock).await;
    let (ledger_there, health_there) = (ledger.clone(), health.clone());
    let policy = blocking(move || {
        let policy = StudioPolicy::open(&ledger_there, &health_there);
        policy.open_extract(kept, &health_there);
        policy
    });
    let policy = policy.await;
    let throttle = Arc::new(Throttle::new(identity.node().clone(), Arc::clone(&clock)));
    let (state_there, configured, health_) = (Arc::clone(state), config.limits.clone(), health.clone());
    let said = blocking(move || {
        let limits = Limits::open(&state_there.root, throttle, &configured, &health_);
        (limits, Orders::open(&state_there.root, &health_))
    });
    let (limits, orders) = said.await;
    let threads = std::thread::available_parallelism().unwrap_or(std::num::NonZeroUsize::MIN);
    Ok(Arc::new(Core {
        me: identity.node().clone(),
        role: identity.role(),
        studio: identity.studio().clone(),
        ledger,
        hasher: Hasher::new(threads)?,
        blocks: BlockCache::open(&state.root)?,
        deltas: Arc::default(),
        space: Space::open(&state.root, &health),
        numbers: Numbers::open(&state.root, &health),
        policy,
        own,
        buffers: Buffers::default(),
        projects: projects.into_iter().map(|project| (project.name().clone(), project)).collect(),
        events,
        revocations: Revocations::default(),
        knowledge: Knowledge::open(&state.root, identity.role(), config.knowledge, &health, &clock),
        limits,
        audit,
        orders,
        damaged: FoundDamaged::open(&state.root),
        transfers: TransferLog::new(&state.root),
        health,
        clock,
    }))
}

async fn open_audit(
    config: &Config,
    state: &Arc<StateDir>,
    identity: &Identity,
    clock: &Arc<dyn Clock>,
    health: &HealthBoard,
) -> anyhow::Result<Audit> {
    let (state, node, clock) = (Arc::clone(state), identity.node().to_string(), Arc::clone(clock));
    let (keep, health) = (config.audit_keep, health.clone());
    let audit = blocking(move || Audit::open(&state.audit, &node, keep, clock, &health)).await?;
    audit.note(AuditFact::daemon(AuditAction::Start).detail("version", env!("CARGO_PKG_VERSION")));
    Ok(audit)
}

/// Returns which own feeds were put aside, and how many records they had.
fn damaged_own(report: &OpenReport) -> Vec<(ProjectName, u64)> {
    let put_aside = report.quarantined.iter();
    put_aside.filter_map(|feed| Some((feed.feed.project.clone(), feed.own_records?))).collect()
}

/// Finds out whether this node's own feeds may be written as they are.
async fn own_writing(
    (config, damaged): (&Config, Vec<(ProjectName, u64)>),
    state: &Arc<StateDir>,
    ledger: &Ledger,
    identity: &Identity,
    health: &HealthBoard,
    clock: &Arc<dyn Clock>,
) -> OwnWriting {
    let configured = config.projects.iter().map(|project| project.name.clone());
    let projects: Vec<ProjectName> = configured.chain([ProjectName::studio()]).collect();
    let (state, ledger, me) = (Arc::clone(state), ledger.clone(), identity.node().clone());
    let (has_peers, health, clock) = (!config.peers.is_empty(), health.clone(), Arc::clone(clock));
    blocking(move || {
        OwnWriting::open(&state, &ledger, (&me, &projects), (has_peers, &damaged), &health, clock)
    })
    .await
}

/// Says what the ledger found broken and mended when it was opened.
fn report_open(health: &HealthBoard, report: &OpenReport) {
    for torn in &report.torn_tails {
        tracing::warn!(
            ?torn,
            "a crash had torn the end of a feed; it was cut off, nothing acknowledged is lost"
        );
    }
    for feed in &report.quarantined {
        tracing::error!(feed = %feed.feed, moved_to = %feed.moved_to.display(), own_records = feed.own_records, error = %ErrorChain(&feed.reason), "a feed is damaged and was put aside");
        health.about(&feed.feed.to_string()).raise(Health {
            code: "feed-damaged".into(),
            severity: Severity::Warning,
            message: match feed.own_records {
                Some(records) => format!(
                    "this node's own feed {} was damaged; its {records} records come back from a peer before anything is recorded \
                     there",
                    feed.feed
                ),
                None => format!("the copy of feed {} was damaged and is fetched again", feed.feed),
            },
            hint: Some("check the disk of the state directory".into()),
        });
    }
    if let Some(cause) = &report.rebuilding {
        listen::tell_rebuilding(health, cause);
    }
    if let Some(cause) = &report.rebuilt {
        tracing::warn!(%cause, records = report.replayed_records, "the catalog was built anew from the feeds");
    }
}
