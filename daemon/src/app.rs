//! Where everything is wired: the one place to see the whole daemon.
//!
//! Start: state directory, identity, ledger, sockets, then tasks, then ready. Nothing that peers or artists see happens
//! before the ledger is open. Stop: no more publishes, no more connections, jobs checkpoint, the ledger is flushed, and
//! what hangs is named.

mod care;
mod local_api;
mod open;

use std::{sync::Arc, time::Duration};

use anyhow::Context as _;
use avalon_certs::Identity;
use avalon_protocol::{
    audit::{AuditAction, AuditFact},
    feed::{FeedHead, FeedId},
    id::ProjectName,
    mode::ProjectMode,
    wire::{
        FEATURE_ENCODED, FEATURE_EXTRACT, FEATURE_ISSUES, FEATURE_NUMBERS, FEATURE_PROOF, Hello,
        PROTOCOL_MAX, PROTOCOL_MIN, ServedProject,
    },
};
use avalon_store::{ledger::LedgerEvent, state_dir::StateDir};
use rustix::rand::{GetRandomFlags, getrandom};
use tokio::sync::{Notify, broadcast, mpsc};

use crate::{
    access::PeerRights,
    api, audit,
    clock::{Clock, RealClock},
    config::Config,
    core::{Core, blocking},
    daemon_api::DaemonApi,
    hooks,
    join::Joining,
    log::{ErrorChain, LogHandle},
    net::{Catalog as _, Net, NetConfig, NetEvent},
    policy,
    project::Project,
    publish::{publisher, settle::SettlerHandle},
    reload::Reloader,
    replicate::{
        announce::LedgerCatalog,
        fork,
        jobs::{Job, Replicator, ReplicatorHandle, Run},
        listen,
        place::forget_area,
        serve::TreeObjects,
        transfer::{self, LeftOver},
    },
    revocation, rights,
    scrub::{ScrubParts, Scrubber, Verified},
    service::ServiceNotifier,
    signals::{Signal, Signals},
    space::{self, Dropper},
    tasks::Tasks,
    transfers,
};

/// How many changes of feeds may wait for a listener; one that is further behind looks at everything instead.
const LEDGER_EVENTS: usize = 4096;
/// How many events of the network may wait.
const NET_EVENTS: usize = 1024;
/// How much longer than usual the service manager is asked to wait while the catalog is built anew.
const OPEN_TIMEOUT: Duration = Duration::from_secs(600);

/// What runs, kept until it stops.
struct Running {
    core: Arc<Core>,
    net: Net,
    tasks: Tasks,
    /// Publishing is stopped before anything else.
    publishing: Tasks,
    notifier: ServiceNotifier,
    /// Keeps the state directory ours.
    _state: Arc<StateDir>,
    _socket: api::SocketGuard,
}

/// Runs the daemon until it is told to stop.
///
/// # Errors
/// What prevented the start, with what to do about it.
pub async fn run(config: Config, log: LogHandle) -> anyhow::Result<()> {
    let notifier = ServiceNotifier::from_env();
    let mut signals = Signals::listen().context("cannot listen for signals")?;
    let clock: Arc<dyn Clock> = Arc::new(RealClock::new());
    let mut reload = false;
    let starting = start(config, log, clock, notifier.clone());
    let Some(started) = unless_stopped(&mut signals, &mut reload, starting).await else {
        // As after a crash: the next start builds on what is on disk.
        notifier.stopping();
        tracing::info!("told to stop while starting");
        return Ok(());
    };
    let (running, mut reloader) = started?;
    running.notifier.ready();
    running.notifier.status(&format!("running as {}", running.core.me));
    tracing::info!(node = %running.core.me, listen = %running.net.local_addr(), "ready");
    while reload || signals.next().await == Signal::Reload {
        reload = false;
        let reloading = reloader.reload(&running.notifier);
        if unless_stopped(&mut signals, &mut reload, reloading).await.is_none() {
            break;
        }
    }
    let timeout = reloader.config().shutdown_timeout;
    tokio::select! {
        () = stop(running, timeout) => {}
        () = signals.again() => tracing::warn!("stopping at once"),
    }
    Ok(())
}

/// Does what may take minutes; `None` when it is told to stop meanwhile. A reload that is asked for meanwhile is noted.
async fn unless_stopped<T>(
    signals: &mut Signals,
    reload: &mut bool,
    work: impl Future<Output = T>,
) -> Option<T> {
    let mut work = std::pin::pin!(work);
    loop {
        tokio::select! {
            done = &mut work => return Some(done),
            signal = signals.next() => match signal {
                Signal::Reload => *reload = true,
                Signal::Stop => return None,
            },
        }
    }
}

async fn start(
    config: Config,
    log: LogHandle,
    clock: Arc<dyn Clock>,
    notifier: ServiceNotifier,
) -> anyhow::Result<(Running, Reloader)> {
    let state_dir = config.state_dir.clone();
    let state = Arc::new(blocking(move || StateDir::open(&state_dir)).await?);
    let identity_dir = config.state_dir.join("identity");
    let identity = Arc::new(Identity::load(&identity_dir, clock.now())?);
    let roles = Arc::new(api::ApiRoles::resolve(&config.api)?);
    let (listener, socket_guard) = api::bind(&config.socket, config.socket_group.as_deref())?;
    let tcp = local_api::bind_tcp(&config, &state).await?;
    notifier.extend_timeout(OPEN_TIMEOUT);
    notifier.status("opening the catalog");
    let (ledger_events, _) = broadcast::channel(LEDGER_EVENTS);
    let core = open::core(&config, &state, &identity, Arc::clone(&clock), ledger_events.clone()).await?;

    let (tasks, publishing) = (Tasks::new(), Tasks::new());
    let (advanced, _) = broadcast::channel(LEDGER_EVENTS);
    let heads = forward_heads(Arc::clone(&core), ledger_events.subscribe(), advanced.clone(), tasks.token());
    tasks.spawn("feed-heads", heads);
    fork::tell_known(&core);
    tasks.spawn("own feeds", core.own.clone().watch(tasks.token()));
    let joining = Joining::open(&core, &state.root, &identity_dir, &config).await?;
    let hello = hello(&config, &core, joining.issuer.is_some());
    let instance = hello.instance;
    let rights = PeerRights::new(&core);
    tasks.spawn("rights", Arc::clone(&rights).follow(ledger_events.subscribe(), tasks.token()));
    let (net_events, net_receiver) = mpsc::channel(NET_EVENTS);
    revocation::prepare(&core);
    let net_config = NetConfig {
        admission: joining.admission(&core),
        permissions: rights,
        issuer: joining.served(),
        listen: config.listen,
        peers: config.peers.clone(),
        hello: hello.clone(),
        identity: Arc::clone(&identity),
        throttle: Arc::clone(core.limits.throttle()),
    };
    let net = Net::start(
        net_config,
        Arc::new(LedgerCatalog(Arc::clone(&core))),
        Arc::new(TreeObjects(Arc::clone(&core))),
        advanced,
        net_events,
        &tasks,
        Arc::clone(&clock),
    )?;
    core.numbers.connect(net.clone());
    let replicator = start_replicator(&core, &net, &tasks, instance);
    follow_records(&core, &net, &replicator, (&ledger_events, net_receiver), &tasks);
    revocation::start(&core, &net, &ledger_events, &tasks);
    rights::start(&core, &tasks);
    let certificate_end = joining.care(&core, &net, &identity, &tasks);
    let hooks = start_listeners(&core, &config, &tasks);
    care::udp_health(config.listen, net.udp_buffers()).into_iter().for_each(|item| core.health.raise(item));

    let settlers = start_projects(&core, &config, &replicator, (&publishing, &tasks));
    let scrubber = start_scrub(&core, &config, &state, (&replicator, &settlers), &tasks).await;
    let keepers = (start_space(&core, &net, &replicator, &tasks), scrubber);
    let api = DaemonApi::new(&core, &net, &replicator, keepers, settlers.clone(), certificate_end, joining);
    let gate = api::Gate { roles, token: None, audit: core.audit.clone() };
    local_api::serve(Arc::new(api), (listener, tcp), gate, &clock, &tasks);
    notifier.clone().watchdog(care::probe(&core), Arc::clone(&clock), &tasks);
    let reloader = Reloader::new(config, Arc::clone(&core), net.clone(), replicator, settlers, log, hello)
        .with_hooks(hooks);
    let running = Running { core, net, tasks, publishing, notifier, _state: state, _socket: socket_guard };
    Ok((running, reloader))
}

/// Looks for what is whole in each project, and goes on with what was being fetched.
fn start_projects(
    core: &Arc<Core>,
    config: &Config,
    replicator: &ReplicatorHandle,
    (publishing, tasks): (&Tasks, &Tasks),
) -> Vec<(Arc<Project>, SettlerHandle)> {
    let start =
        |project: &Arc<Project>| (Arc::clone(project), publisher::start(core, project, config, publishing));
    let settlers = core.projects.values().map(start).collect();
    for project in core.projects.values() {
        resume(core, project, replicator, tasks);
    }
    settlers
}

fn hello(config: &Config, core: &Core, issues: bool) -> Hello {
    let mut random = [0; 8];
    // Without randomness the time tells two daemons apart well enough.
    let instance = match getrandom(&mut random, GetRandomFlags::empty()) {
        Ok(_) => u64::from_le_bytes(random),
        Err(_) => core.now_ms(),
    };
    Hello {
        protocol_min: PROTOCOL_MIN,
        protocol_max: PROTOCOL_MAX,
        features: FEATURE_ENCODED
            | FEATURE_PROOF
            | FEATURE_NUMBERS
            | FEATURE_EXTRACT
            | if issues { FEATURE_ISSUES } else { 0 },
        build: env!("CARGO_PKG_VERSION").to_owned(),
        studio: core.studio.clone(),
        node: core.me.clone(),
        instance,
        projects: served(config),
    }
}

/// Returns the projects as they are named in the greeting: those of the configuration, and the studio's own, which every
/// node has.
pub fn served(config: &Config) -> Vec<ServedProject> {
    let served = config.projects.iter().map(|p| ServedProject { name: p.name.clone(), mode: p.mode });
    let studio = ServedProject { name: ProjectName::studio(), mode: ProjectMode::OnDemand };
    served.chain([studio]).collect()
}

fn start_replicator(core: &Arc<Core>, net: &Net, tasks: &Tasks, instance: u64) -> ReplicatorHandle {
    let (core_, net_) = (Arc::clone(core), net.clone());
    let run: Run =
        Arc::new(move |job: Arc<Job>| Box::pin(transfer::run(Arc::clone(&core_), net_.clone(), job)));
    let prefix = format!("{:04x}", instance & 0xffff);
    let (replicator, handle) = Replicator::new(Arc::clone(core), tasks.clone(), prefix, run);
    tasks.spawn("replicator", replicator.run());
    handle
}

/// Starts what hears of records: those that are written here, and those that come from peers.
fn follow_records(
    core: &Arc<Core>,
    net: &Net,
    replicator: &ReplicatorHandle,
    (ledger_events, net_events): (&broadcast::Sender<LedgerEvent>, mpsc::Receiver<NetEvent>),
    tasks: &Tasks,
) {
    let (wake, stop) = (Arc::new(Notify::new()), tasks.token());
    let (core_, handle_, wake_) = (Arc::clone(core), replicator.clone(), Arc::clone(&wake));
    tasks.spawn("ledger", listen::to_ledger(core_, ledger_events.subscribe(), handle_, wake_, stop.clone()));
    let (core_, handle_, wake_) = (Arc::clone(core), replicator.clone(), Arc::clone(&wake));
    tasks.spawn("peers", listen::to_network(core_, net_events, handle_, wake_, stop.clone()));
    let (core_, net_, handle_) = (Arc::clone(core), net.clone(), replicator.clone());
    tasks.spawn("manifests", listen::to_missing_manifests(core_, net_, handle_, wake, stop.clone()));
    tasks.spawn("policy", policy::follow(Arc::clone(core), ledger_events.subscribe(), stop));
}

/// Starts what keeps projects within their quotas and empties their trash.
fn start_space(core: &Arc<Core>, net: &Net, replicator: &ReplicatorHandle, tasks: &Tasks) -> Dropper {
    let dropper = Dropper::new(core, net, &replicator.board, tasks);
    for project in core.projects.values() {
        let stop = tasks.token();
        tasks.spawn("room", space::make_room(dropper.clone(), Arc::clone(project), stop.clone()));
        tasks.spawn("trash", space::empty_trash(Arc::clone(core), Arc::clone(project), stop));
    }
    dropper
}

/// Starts what reads files again to find damage.
async fn start_scrub(
    core: &Arc<Core>,
    config: &Config,
    state: &Arc<StateDir>,
    (replicator, settlers): (&ReplicatorHandle, &[(Arc<Project>, SettlerHandle)]),
    tasks: &Tasks,
) -> Scrubber {
    let state = Arc::clone(state);
    let verified = blocking(move || Verified::open(&state.root)).await;
    let scrubber = Scrubber::new(ScrubParts {
        core: Arc::clone(core),
        replicator: replicator.clone(),
        settlers: settlers.to_vec(),
        config: config.scrub,
        verified,
        tasks: tasks.clone(),
    });
    scrubber.start();
    scrubber
}

/// Lets transfers of an earlier run go on, and looks at what a mirror lacks.
fn resume(core: &Arc<Core>, project: &Arc<Project>, replicator: &ReplicatorHandle, tasks: &Tasks) {
    let (core, project, replicator) = (Arc::clone(core), Arc::clone(project), replicator.clone());
    let stop = tasks.token();
    tasks.spawn("resume", async move {
        if !core.until_catalog(&stop).await {
            return;
        }
        if let Some(dir) = project.dir() {
            let mut pulled = Vec::new();
            for manifest in transfer::unfinished(&core, &dir).await {
                match transfer::left_over(&core, manifest).await {
                    LeftOver::Pulled(version) => pulled.push(version),
                    LeftOver::Useless => forget_area(&project, manifest).await,
                    LeftOver::Kept => {}
                }
            }
            if !pulled.is_empty() {
                replicator.pull(pulled).await.ok();
            }
        }
        replicator.look_at(project.name().clone()).await;
    });
}

/// Passes on how far the feeds are, without which versions they are about: sessions need no more.
async fn forward_heads(
    core: Arc<Core>,
    mut events: broadcast::Receiver<LedgerEvent>,
    heads: broadcast::Sender<(FeedId, FeedHead)>,
    stop: tokio_util::sync::CancellationToken,
) {
    loop {
        let event = tokio::select! {
            () = stop.cancelled() => return,
            event = events.recv() => event,
        };
        match event {
            Ok(LedgerEvent::Advanced { feed, head, .. }) => {
                core.own.advanced(&feed, head.next_seq);
                drop(heads.send((feed, head)));
            }
            // Sessions look what is known of the feed, and show it to their peers.
            Ok(LedgerEvent::Forked { feed }) => {
                let mut known = core.ledger.heads(&feed.project).into_iter();
                let head =
                    known.find(|(node, _)| *node == feed.node).map_or(FeedHead::EMPTY, |(_, head)| head);
                drop(heads.send((feed, head)));
            }
            Ok(
                LedgerEvent::Rebuilding { .. }
                | LedgerEvent::Rebuilt
                | LedgerEvent::Rights
                | LedgerEvent::NotAllowed { .. },
            ) => {}
            Err(broadcast::error::RecvError::Lagged(_)) => {
                for (feed, head) in LedgerCatalog(Arc::clone(&core)).heads() {
                    core.own.advanced(&feed, head.next_seq);
                    drop(heads.send((feed, head)));
                }
            }
            Err(broadcast::error::RecvError::Closed) => return,
        }
    }
}

/// Starts what watches the ledger and what happens; returns what changes the hooks.
fn start_listeners(core: &Arc<Core>, config: &Config, tasks: &Tasks) -> hooks::HooksHandle {
    care::watch_ledger(core, tasks);
    audit::follow(core, tasks);
    audit::keep_heads(core, tasks);
    transfers::start(core, tasks);
    hooks::start(core, &config.hooks, tasks)
}

async fn stop(running: Running, timeout: Duration) {
    let Running { core, net, tasks, publishing, notifier, .. } = &running;
    notifier.stopping();
    notifier.status("stopping");
    tracing::info!("stopping");
    let part = timeout / 3;
    let mut hung = publishing.shutdown(part, core.clock.as_ref()).await;
    net.shutdown(part).await;
    hung.extend(tasks.shutdown(part, core.clock.as_ref()).await);
    if !hung.is_empty() {
        tracing::error!(tasks = hung.join(", "), "tasks did not end in time and were left");
    }
    core.audit.note(AuditFact::daemon(AuditAction::Stop));
    core.audit.close().await;
    let (ledger, was_ready) = (core.ledger.clone(), core.ledger.is_ready());
    if let Err(error) = blocking(move || ledger.close()).await {
        if was_ready {
            tracing::error!(error = %ErrorChain(&error), "the ledger was not closed cleanly; it is checked at the next start");
        } else {
            tracing::info!("the catalog is not built yet; the next start builds it");
        }
    }
    let own = core.own.clone();
    blocking(move || own.witness_end()).await;
    tracing::info!("stopped");
}
