//! Looking at one version directory: what lies there, and whether it is whole.

use std::{
    collections::BTreeMap,
    thread,
    time::{Duration, SystemTime},
};

use avalon_protocol::{
    rel_path::RelPath,
    settle::{DirSnapshot, SeenFile, Settle, Verdict, WaitReason},
};
use avalon_store::fs::{Dir, FileIdentity};

use super::{
    super::{
        collide,
        snapshot::{SnapshotError, snapshot_again, snapshot_at_server},
        writers::Writers,
    },
    pace::Mount,
    versions::{Asked, Look, Looked, Seen},
    words::ProjectSource,
};
use crate::log::ErrorChain;

/// After how long it is looked again, for somebody who waits, whether a program still has a file open.
const LOOK_AGAIN: Duration = Duration::from_millis(25);

/// Looks at one version directory. Blocks.
pub(super) fn look(
    (project, mount): (&Dir, Mount),
    source: &ProjectSource,
    writers: &Writers,
    order: Look,
    (now_ms, now): (u64, SystemTime),
) -> Looked {
    let Look { dir, mut settle, asked } = order;
    let seen = match snapshot_again(project, &dir, settle.files(), now) {
        Err(SnapshotError::Gone { .. }) => Seen::Gone,
        Err(error) => Seen::Failed { why: ErrorChain(&error).to_string() },
        Ok(snapshot) if asked == Asked::No && is_known(&dir, &snapshot, source) => Seen::Known,
        Ok(snapshot) => {
            let recorded = || (source.recorded)(&dir, usize::MAX);
            let decide = |settle: &mut Box<Settle>, snapshot| {
                decide(settle, asked, snapshot, (writers, &recorded), now_ms)
            };
            let before = mount.has_other_writers().then(|| (settle.clone(), snapshot.clone()));
            let mut seen = decide(&mut settle, snapshot);
            if let Some((before, looked)) = before.filter(|_| is_handed_on(&seen)) {
                // The system may have answered from memory. What the server says now and what was seen a quiet period ago
                // being the same proves that nothing changed in between, however old that was.
                match snapshot_at_server(project, &dir, (&looked.files, before.files()), now) {
                    Ok(snapshot) if snapshot == looked => {}
                    Ok(snapshot) => {
                        settle = before;
                        seen = decide(&mut settle, snapshot);
                    }
                    Err(SnapshotError::Gone { .. }) => seen = Seen::Gone,
                    Err(error) => seen = Seen::Failed { why: ErrorChain(&error).to_string() },
                }
            }
            unless_it_collides(seen, project, &dir, source)
        }
    };
    Looked { dir, settle, asked, seen }
}

fn is_handed_on(seen: &Seen) -> bool {
    matches!(seen, Seen::Decided(Verdict::Whole { .. } | Verdict::Grows { .. }))
}

/// Decides; only for what would be whole, all processes are looked at, and only for what time does not mend, the catalog.
fn decide(
    settle: &mut Settle,
    asked: Asked,
    mut snapshot: DirSnapshot,
    (writers, recorded): (&Writers, &dyn Fn() -> Vec<(RelPath, FileIdentity)>),
    now_ms: u64,
) -> Seen {
    let before = settle.clone();
    let mut verdict = settle.observe(now_ms, &snapshot);
    // A published file that lost its end would else be waited for and nobody would hear of it.
    let stays = |reason: &WaitReason| matches!(reason, WaitReason::Gap(_) | WaitReason::NotClosed { .. });
    let mut is_changed = false;
    if matches!(&verdict, Verdict::Wait { why, .. } if why.iter().any(stays)) {
        let recorded: BTreeMap<RelPath, FileIdentity> = recorded().into_iter().collect();
        is_changed = snapshot
            .files
            .iter()
            .any(|file| recorded.get(&file.path).is_some_and(|recorded| *recorded != identity(file)));
        snapshot.recorded = recorded.into_keys().collect();
        *settle = before.clone();
        verdict = settle.observe(now_ms, &snapshot);
    }
    let looked_at = match &verdict {
        Verdict::Grows { files, .. } => files.clone(),
        _ => snapshot.files.clone(),
    };
    match verdict {
        Verdict::Wait { until_ms, why } if is_changed && asked == Asked::No && why.iter().all(stays) => {
            return Seen::Rewritten { until_ms, why };
        }
        Verdict::Whole { .. } | Verdict::Grows { .. } => {}
        verdict => return Seen::Decided(verdict),
    }
    snapshot.open_writers = match asked {
        Asked::No => writers.hold(&looked_at, now_ms),
        Asked::Yes => writers.still_hold(&looked_at, now_ms, || thread::sleep(LOOK_AGAIN)),
    };
    if snapshot.open_writers != Some(true) {
        return Seen::Decided(verdict);
    }
    *settle = before;
    Seen::Decided(settle.observe(now_ms, &snapshot))
}

/// What would be whole is refused where its directory is that of another on some systems.
fn unless_it_collides(seen: Seen, project: &Dir, dir: &RelPath, source: &ProjectSource) -> Seen {
    if !matches!(seen, Seen::Decided(Verdict::Whole { .. })) {
        return seen;
    }
    match collide::collisions(project, dir, source.recorded.as_ref()) {
        Ok(problems) if problems.is_empty() => seen,
        Ok(problems) => Seen::Decided(Verdict::Refused { problems }),
        Err(error) => Seen::Failed { why: ErrorChain(&error).to_string() },
    }
}

fn identity(file: &SeenFile) -> FileIdentity {
    let SeenFile { size, mtime_ns, ctime_ns, inode, .. } = *file;
    FileIdentity { size, mtime_ns, ctime_ns, inode }
}

fn is_known(dir: &RelPath, snapshot: &DirSnapshot, source: &ProjectSource) -> bool {
    let is_known =
        |file: &SeenFile| dir.join(&file.path).is_ok_and(|path| (source.known)(&path, &identity(file)));
    let is_known =
        !snapshot.files.is_empty() && snapshot.problems.is_empty() && snapshot.files.iter().all(is_known);
    is_known && !(source.grows)(dir)
}
