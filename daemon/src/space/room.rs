//! Making room by itself: when a project is over its quota, or too little is free, what was not used for longest is dropped.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use avalon_protocol::{
    control::{ErrorCode, EventKind, Health, JobKind, JobState, Severity},
    drop::{Blocked, Candidate, Choice, Guard, Pressure, choose, choose_for},
    id::{ProjectName, VersionId},
};
use tokio_util::sync::CancellationToken;

use super::{
    dropper::Dropper,
    judge::{Judging, Purpose, last_used_ms},
    open_files::OpenFiles,
    trash::remove_oldest_dropped,
    usage::{each_version, newest_held},
};
use crate::{
    core::{Core, blocking},
    log::ErrorChain,
    policy::Ranks,
    project::Project,
};

/// How often it is looked whether there is room enough, if nothing happens.
const EVERY: Duration = Duration::from_secs(60);
/// How long after something happened: much comes together.
const AFTER_EVENT: Duration = Duration::from_secs(1);
/// How long a version that could not go is left alone, unless something happens that may change that.
const REFUSED_FOR: Duration = Duration::from_secs(600);

/// How long nothing goes to let something come when that was in vain: what was chosen did not go after all, and what did
/// comes again.
const IN_VAIN_FOR: Duration = Duration::from_secs(3600);
/// How long room that was made for what belongs here is kept from what would be removed again: its job looks for it sooner.
const KEPT_FOR: Duration = Duration::from_secs(90);

/// The health code of a project that takes too much room, when nothing may go.
const QUOTA_EXCEEDED: &str = "quota-exceeded";

/// Who drops, in events and logs, when nobody does.
const BY: &str = "quota";

/// Versions that could not go, why, and when that was.
type Refused = BTreeMap<VersionId, (Guard, Duration)>;

/// What is remembered from one look to the next.
#[derive(Debug, Default)]
struct Memory {
    refused: Refused,
    /// Nothing goes before then to let something come.
    nothing_before: Duration,
}

/// Keeps a project within its limits until the daemon stops.
pub async fn make_room(dropper: Dropper, project: Arc<Project>, stop: CancellationToken) {
    let core = Arc::clone(&dropper.core);
    if !core.until_catalog(&stop).await {
        return;
    }
    let mut events = core.events.follow();
    let mut memory = Memory::default();
    loop {
        let now = core.clock.monotonic();
        memory.refused.retain(|_, (_, since)| now.saturating_sub(*since) < REFUSED_FOR);
        if let Some(pressure) = relieve(&dropper, &project, &mut memory.refused, &stop).await {
            let_come(&dropper, &project, &mut memory, pressure, &stop).await;
        }
        let waited = async {
            loop {
                match matters(&events.next().await.kind, project.name()) {
                    Matters::No => {}
                    Matters::ToWaiting if core.clock.monotonic() < memory.nothing_before => {}
                    matters => return matters,
                }
            }
        };
        tokio::select! {
            () = stop.cancelled() => return,
            () = core.clock.sleep(EVERY) => {}
            matters = waited => {
                if matters == Matters::ToRefused {
                    memory.refused.clear();
                }
                tokio::select! {
                    () = stop.cancelled() => return,
                    () = core.clock.sleep(AFTER_EVENT) => {}
                }
            }
        }
    }
}

/// What an event means for the room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Matters {
    No,
    /// More is held than before.
    Yes,
    /// Something begins to wait for room.
    ToWaiting,
    /// What could not go may go now.
    ToRefused,
}

fn matters(event: &EventKind, project: &ProjectName) -> Matters {
    let is_here =
        |reference: &str| reference.strip_prefix(project.as_str()).is_some_and(|r| r.starts_with(':'));
    match event {
        EventKind::Placed { reference, .. } | EventKind::Published { reference, .. }
            if is_here(reference) =>
        {
            Matters::Yes
        }
        EventKind::Job { job } if is_here(&job.reference) => {
            let waits = job.state == JobState::Waiting && job.error == Some(ErrorCode::DiskFull);
            if waits && job.kind == JobKind::Mirror { Matters::ToWaiting } else { Matters::No }
        }
        EventKind::HeldElsewhere { reference, .. } if is_here(reference) => Matters::ToRefused,
        EventKind::Peer { .. } | EventKind::PolicyApplied { .. } | EventKind::Reloaded { .. } => {
            Matters::ToRefused
        }
        _ => Matters::No,
    }
}

/// Drops until there is room enough or nothing more may go; returns how full the project is when it is within its limits.
async fn relieve(
    dropper: &Dropper,
    project: &Arc<Project>,
    refused: &mut Refused,
    stop: &CancellationToken,
) -> Option<Pressure> {
    let core = &dropper.core;
    let board = core.health.about(project.name().as_str());
    let limits = project.space();
    if limits.quota_bytes.is_none() && limits.keep_free_bytes.is_none() {
        board.clear(QUOTA_EXCEEDED);
        return None;
    }
    while !stop.is_cancelled() {
        let pressure = measure(core, project).await?;
        let excess = pressure.excess_bytes();
        if excess == 0 {
            board.clear(QUOTA_EXCEEDED);
            return Some(pressure);
        }
        if pressure.keep_free_bytes.is_some_and(|keep| pressure.free_bytes < keep) {
            let there = Arc::clone(project);
            if blocking(move || remove_oldest_dropped(&there)).await {
                continue;
            }
        }
        let candidates = look_for_candidates(dropper, project, refused).await?;
        let choice = choose(&candidates, excess);
        if choice.victims.is_empty() {
            board.raise(exceeded(project.name(), &pressure, &choice.blocked));
            return None;
        }
        drop_all(dropper, choice, refused).await;
    }
    None
}

/// Measures how full a project is; nothing while the catalog is built anew or its volume is away: it is looked at again.
async fn measure(core: &Arc<Core>, project: &Project) -> Option<Pressure> {
    let (core, name) = (Arc::clone(core), project.name().clone());
    let measured = blocking(move || {
        core.count_used(&name).ok()?;
        core.pressure(&name)
    });
    measured.await
}

/// Drops what may go so that what belongs here, and would not be removed again, comes: it does not wait behind the rest.
async fn let_come(
    dropper: &Dropper,
    project: &Arc<Project>,
    memory: &mut Memory,
    mut pressure: Pressure,
    stop: &CancellationToken,
) {
    let core = &dropper.core;
    let mut has_gone = false;
    while !stop.is_cancelled() && core.clock.monotonic() >= memory.nothing_before {
        let waiting = waiting_for_room(dropper, project).await;
        let Some(smallest) = waiting.iter().copied().min() else { return };
        if pressure.excess_bytes_for(smallest) == 0 {
            return;
        }
        let candidates = look_for_candidates(dropper, project, &memory.refused).await;
        let choice = choose_for(&candidates.unwrap_or_default(), &pressure, waiting);
        if choice.victims.is_empty() {
            let wait = if has_gone { IN_VAIN_FOR } else { REFUSED_FOR };
            memory.nothing_before = core.clock.monotonic() + wait;
            return;
        }
        has_gone = true;
        core.space.keep_room(project.name(), core.clock.monotonic() + KEPT_FOR);
        drop_all(dropper, choice, &mut memory.refused).await;
        core.space.keep_room(project.name(), core.clock.monotonic() + KEPT_FOR);
        match measure(core, project).await {
            Some(measured) => pressure = measured,
            None => return,
        }
    }
}

/// Returns the sizes of what waits for room and would not be removed again.
async fn waiting_for_room(dropper: &Dropper, project: &Project) -> Vec<u64> {
    let (core, waiting) = (Arc::clone(&dropper.core), dropper.board.waiting_for_room(project.name()));
    let firm = move || {
        let firm = waiting.into_iter().filter(|(version, _)| !core.is_expendable(version));
        firm.map(|(_, bytes)| bytes).collect()
    };
    blocking(firm).await
}

/// Drops what was chosen; what stays is remembered.
async fn drop_all(dropper: &Dropper, choice: Choice<VersionId>, refused: &mut Refused) {
    for version in choice.victims {
        if let Err(stays) = dropper.drop_version(version.clone(), Purpose::Room, BY.into()).await {
            tracing::debug!(%version, reason = stays.reason, "not dropped to make room");
            let guard = stays.guard.unwrap_or(Guard::Unable);
            refused.insert(version, (guard, dropper.core.clock.monotonic()));
        }
    }
}

/// Judges every version that is here, but for those that were refused a short while ago.
async fn look_for_candidates(
    dropper: &Dropper,
    project: &Arc<Project>,
    refused: &Refused,
) -> Option<Vec<Candidate<VersionId>>> {
    let (dropper, project) = (dropper.clone(), Arc::clone(project));
    let known: BTreeMap<VersionId, Guard> =
        refused.iter().map(|(version, (guard, _))| (version.clone(), *guard)).collect();
    blocking(move || look(&dropper, &project, &known)).await
}

/// Judges every version that is here. Blocks.
fn look(
    dropper: &Dropper,
    project: &Project,
    refused: &BTreeMap<VersionId, Guard>,
) -> Option<Vec<Candidate<VersionId>>> {
    let (core, open) = (&*dropper.core, OpenFiles::look());
    let judging = Judging { core, board: &dropper.board, open: &open, purpose: Purpose::Room };
    let (mut candidates, mut ranks) = (Vec::new(), Ranks::default());
    let looked = each_version(core, project.name(), |version, fold| {
        let Some(held) = newest_held(&fold, &core.me) else { return };
        let judged = match refused.get(&version) {
            Some(guard) => Err(*guard),
            None => judging
                .judge_fold(&version, &fold, &mut ranks)
                .map_err(|stays| stays.guard.unwrap_or(Guard::Unable)),
        };
        candidates.push(Candidate {
            bytes: held.bytes,
            last_used_ms: judged.as_ref().map_or(0, |may| last_used_ms(project, &may.manifest)),
            is_retired: fold.retired().is_some(),
            guard: judged.err(),
            what: version,
        });
    });
    match looked {
        Ok(()) => Some(candidates),
        Err(error) => {
            tracing::warn!(project = %project.name(), error = %ErrorChain(&error), "what may go cannot be told");
            None
        }
    }
}

/// Says why a project stays over its limits.
fn exceeded(project: &ProjectName, pressure: &Pressure, blocked: &Blocked) -> Health {
    let over = match pressure.quota_bytes.filter(|quota| pressure.used_bytes > *quota) {
        Some(quota) => format!("takes {} of its quota of {}", size(pressure.used_bytes), size(quota)),
        None => format!(
            "leaves {} free on its volume, of {} that are to stay free",
            size(pressure.free_bytes),
            size(pressure.keep_free_bytes.unwrap_or_default())
        ),
    };
    let mut reasons: Vec<String> = blocked
        .iter()
        .map(|(guard, (versions, bytes))| format!("{versions} {} ({})", words(*guard), size(*bytes)))
        .collect();
    if reasons.is_empty() {
        reasons.push("no version of it is here".to_owned());
    }
    Health {
        code: QUOTA_EXCEEDED.into(),
        severity: Severity::Warning,
        message: format!("project {project} {over}, and nothing more may go: {}", reasons.join(", ")),
        hint: Some(
            "raise quota or lower keep_free in the configuration, unpin or drop versions, or change the policy; avalonctl \
             drop -n REF says of one version why it stays"
                .into(),
        ),
    }
}

fn words(guard: Guard) -> &'static str {
    match guard {
        Guard::Pinned => "pinned",
        Guard::Kept => "kept here by the policy or as a mirror",
        Guard::NotKnown => "of which the policy cannot be told yet",
        Guard::Conflict => "in conflict",
        Guard::Open => "open in a program",
        Guard::Recent => "used a short while ago",
        Guard::Coming => "being fetched, published or dropped",
        Guard::Changed => "with files that were changed",
        Guard::TooFewCopies => "without enough copies elsewhere",
        Guard::Unable => "that cannot be looked at",
    }
}

fn size(bytes: u64) -> String {
    bytesize::ByteSize(bytes).display().iec().to_string()
}

impl Core {
    /// Says whether a version that comes by itself may be removed again to make room: it waits for much room.
    pub fn is_expendable(&self, version: &VersionId) -> bool {
        let Some(policy) = self.policy.in_effect() else { return false };
        let Ok(Some(fold)) = self.ledger.version(version) else { return false };
        let judged = self.with_facts(version, &fold, &mut Ranks::default(), |facts, now| {
            let ruling = policy.decide(&self.me, facts, now);
            let lacks = ruling.is_err() && facts.manifest.is_none();
            (ruling.is_ok_and(|ruling| ruling.may_be_removed(facts)), lacks)
        });
        matches!(judged, Ok(Some(true)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_project_that_stays_over_its_quota_says_why() {
        let pressure = Pressure { used_bytes: 3 << 30, quota_bytes: Some(2 << 30), ..Pressure::default() };
        let blocked = [(Guard::Pinned, (2, 1 << 30)), (Guard::TooFewCopies, (1, 2 << 30))].into();
        let health = exceeded(&"lantern".parse().unwrap(), &pressure, &blocked);
        assert_eq!(
            health.message,
            "project lantern takes 3.0 GiB of its quota of 2.0 GiB, and nothing more may go: 2 pinned (1.0 GiB), 1 without \
             enough copies elsewhere (2.0 GiB)"
        );
        let lacking = Pressure { free_bytes: 5 << 20, keep_free_bytes: Some(1 << 30), ..Pressure::default() };
        let health = exceeded(&"lantern".parse().unwrap(), &lacking, &Blocked::new());
        assert!(
            health.message.contains("leaves 5.0 MiB free on its volume, of 1.0 GiB"),
            "{}",
            health.message
        );
    }

    #[test]
    fn only_what_concerns_the_project_makes_it_look() {
        let project = "lantern".parse().unwrap();
        let held = |reference: &str| EventKind::HeldElsewhere {
            reference: reference.into(),
            manifest: String::new(),
            node: String::new(),
        };
        assert_eq!(matters(&held("lantern:a/b@v001"), &project), Matters::ToRefused);
        assert_eq!(matters(&held("lantern2:a/b@v001"), &project), Matters::No);
    }
}
