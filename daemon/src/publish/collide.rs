//! Directories on the way to a version that are one with a sibling where case or Unicode composition is ignored.

use avalon_protocol::{
    rel_path::RelPath,
    settle::{NameProblem, ProblemKind},
};
use avalon_store::fs::{Dir, FileKind, IoError};

use super::settle::RecordedFiles;

/// Returns what stands against publishing a version into `dir`: on a mirror with Windows or macOS it would lie in the
/// directory of another. A directory of which something is recorded keeps its name against one of which nothing is, and a
/// version that is recorded goes on. A sibling whose name cannot be published does not count. Blocks.
///
/// # Errors
/// [`IoError`] when a directory on the way cannot be read.
pub fn collisions(
    project: &Dir,
    dir: &RelPath,
    recorded: &RecordedFiles,
) -> Result<Vec<NameProblem>, IoError> {
    let is_recorded = |dir: &RelPath| !recorded(dir, 1).is_empty();
    if is_recorded(dir) {
        return Ok(Vec::new());
    }
    let mut problems = Vec::new();
    let mut next = Some(dir.clone());
    while let Some(here) = next {
        next = here.parent();
        for other in same_name(project, &here)? {
            if is_recorded(&other) || !is_recorded(&here) {
                let kind = ProblemKind::Collision { other: other.to_string() };
                problems.push(NameProblem { name: here.to_string(), kind });
            }
        }
    }
    problems.sort();
    Ok(problems)
}

/// Returns the sibling directories that some systems take for this one.
fn same_name(project: &Dir, here: &RelPath) -> Result<Vec<RelPath>, IoError> {
    let parent = here.parent();
    let key = here.collision_key();
    let siblings = project.list(parent.as_ref())?.into_iter().filter(|entry| entry.kind == FileKind::Dir);
    let siblings = siblings.filter_map(|entry| {
        let name = entry.rel_path().ok()?;
        match &parent {
            Some(parent) => parent.join(&name).ok(),
            None => Some(name),
        }
    });
    Ok(siblings.filter(|other| other != here && other.collision_key() == key).collect())
}
