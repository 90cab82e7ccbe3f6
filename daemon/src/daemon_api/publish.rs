//! `publish`: from paths to version directories, and what became of each.

use std::{
    collections::BTreeSet,
    path::{Component, Path, PathBuf},
    sync::Arc,
};

use avalon_protocol::{
    control::{ApiError, ErrorCode, PublishItem, PublishReply, PublishRequest, PublishState},
    rel_path::RelPath,
};

use avalon_store::fs::FileIdentity;
use tokio_util::sync::CancellationToken;

use super::{DaemonApi, stopping};
use crate::{
    api::Caller,
    core::blocking,
    project::Project,
    publish::{
        area::version_dir_of,
        author,
        scan::scan_beneath,
        settle::{PublishDetails, PublishOutcome, PublishedAs, Rewrites, SettlerHandle},
    },
};

impl DaemonApi {
    pub(super) async fn publish_reply(
        &self,
        request: PublishRequest,
        caller: Caller,
    ) -> Result<PublishReply, ApiError> {
        if request.paths.is_empty() {
            return Err(ApiError::new(ErrorCode::BadRequest, "no path to publish was given"));
        }
        let details = details(&request, &caller);
        let mut versions = Vec::new();
        for text in &request.paths {
            let path = normal(Path::new(text)).ok_or_else(|| {
                ApiError::new(ErrorCode::BadPath, format!("{text:?} is not an absolute path"))
            })?;
            let (project, settler, inside) = self.project_at(&path)?;
            let dirs = version_dirs(&project, &inside, text).await?;
            let asked = dirs.iter().map(|dir| settler.publish(dir.clone(), details.clone()));
            let outcomes = tokio::select! {
                biased;
                outcomes = futures_util::future::join_all(asked) => outcomes,
                () = self.until_room_is_lacking() => return Err(no_room()),
            };
            for (dir, outcome) in dirs.iter().zip(outcomes) {
                versions.push(item(&project, dir, outcome.map_err(|_| stopping())?));
            }
        }
        Ok(PublishReply { schema: "avalonctl.publish/1".into(), versions })
    }

    /// Returns the project that a path lies in, and the path relative to it; `None` for the project itself.
    fn project_at(&self, path: &Path) -> Result<(Arc<Project>, SettlerHandle, Option<RelPath>), ApiError> {
        // A root that is reached by a symbolic link counts by either name.
        let resolved = std::fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
        for (project, settler) in &self.settlers {
            let root = project.path();
            let real = std::fs::canonicalize(root).unwrap_or_else(|_| root.clone());
            let tail = path.strip_prefix(root).ok().or_else(|| resolved.strip_prefix(&real).ok());
            let Some(tail) = tail else { continue };
            if tail.as_os_str().is_empty() {
                return Ok((Arc::clone(project), settler.clone(), None));
            }
            let inside = tail.to_str().and_then(|text| text.parse::<RelPath>().ok());
            let inside = inside.ok_or_else(|| {
                ApiError::new(
                    ErrorCode::BadPath,
                    format!("{} has a name that not every system takes", tail.display()),
                )
                .with_hint(
                    "rename it: no reserved Windows names, no control characters, Unicode in composed form",
                )
            })?;
            return Ok((Arc::clone(project), settler.clone(), Some(inside)));
        }
        let roots: Vec<String> = self.settlers.iter().map(|(p, _)| p.path().display().to_string()).collect();
        Err(ApiError::new(
            ErrorCode::BadPath,
            format!("{} does not lie in a project of this node", path.display()),
        )
        .with_hint(if roots.is_empty() {
            "add a [[project]] to the configuration and restart avalond".to_owned()
        } else {
            format!("its projects are {}", roots.join(", "))
        }))
    }
}

fn no_room() -> ApiError {
    ApiError::new(
        ErrorCode::DiskFull,
        "the catalog has no room on its disk, so nothing can be published now",
    )
    .with_hint("make room on the volume of the state directory; what was to be published is then published by itself")
}

/// Removes `.` and resolves `..` in the text of an absolute path.
fn normal(path: &Path) -> Option<PathBuf> {
    if !path.is_absolute() {
        return None;
    }
    let mut normal = PathBuf::new();
    for part in path.components() {
        match part {
            Component::ParentDir => drop(normal.pop()),
            Component::CurDir => {}
            other => normal.push(other),
        }
    }
    Some(normal)
}

fn details(request: &PublishRequest, caller: &Caller) -> PublishDetails {
    let author = if request.author.is_empty() { author::name_of(caller.uid) } else { request.author.clone() };
    PublishDetails {
        author,
        comment: request.comment.clone(),
        inputs: request.inputs.clone(),
        metadata: request.metadata.clone(),
        rewrites: Rewrites::Hold,
    }
}

/// Returns the version directories that a path leads to: the one that it is or lies in, or all beneath it.
async fn version_dirs(
    project: &Arc<Project>,
    inside: &Option<RelPath>,
    text: &str,
) -> Result<BTreeSet<RelPath>, ApiError> {
    if let Some(inside) = inside
        && let Some(version) = version_dir_of(project.templates(), inside)
    {
        return Ok([version.dir].into());
    }
    let dir = project.dir().ok_or_else(|| {
        ApiError::new(
            ErrorCode::ProjectPaused,
            format!("project {} is paused, its directory is missing", project.name()),
        )
        .with_hint(format!("mount or create {}", project.path().display()))
    })?;
    let (project, start) = (Arc::clone(project), inside.clone());
    let scanned = blocking(move || {
        let unknown = |_: &RelPath, _: &FileIdentity| false;
        scan_beneath(&dir, start.as_ref(), project.templates(), &unknown, &CancellationToken::new())
    });
    let scanned = scanned.await.map_err(|error| {
        ApiError::new(
            ErrorCode::BadPath,
            format!("{text} cannot be looked into: {}", crate::log::ErrorChain(&error)),
        )
    })?;
    let found: BTreeSet<RelPath> = scanned.versions.into_iter().map(|version| version.dir).collect();
    if found.is_empty() {
        return Err(ApiError::new(
            ErrorCode::BadPath,
            format!("{text} is not a version directory, nor is one in it"),
        )
        .with_hint(
            "versions lie where the project's template says; see [[project]] template in the configuration",
        ));
    }
    Ok(found)
}

fn item(project: &Project, dir: &RelPath, outcome: PublishOutcome) -> PublishItem {
    let published = |state, as_: PublishedAs| PublishItem {
        reference: as_.version.to_string(),
        state,
        messages: as_.messages,
        error: None,
        generation: as_.generation,
        manifest: as_.manifest.to_string(),
        files: as_.files,
        bytes: as_.bytes,
        problems: as_.problems,
    };
    let refused = |messages: Vec<String>, code| PublishItem {
        reference: reference_of(project, dir),
        state: PublishState::Refused,
        messages,
        error: Some(code),
        generation: 0,
        manifest: String::new(),
        files: 0,
        bytes: 0,
        problems: Vec::new(),
    };
    match outcome {
        PublishOutcome::Published(as_) => published(PublishState::Published, as_),
        PublishOutcome::Unchanged(as_) => published(PublishState::Unchanged, as_),
        PublishOutcome::NotWhole { why, .. } => refused(why, ErrorCode::NotWhole),
        PublishOutcome::Refused { messages, code, .. } => refused(messages, code),
        PublishOutcome::Empty { dir } => {
            refused(vec![format!("there is no file in {dir}")], ErrorCode::BadPath)
        }
        PublishOutcome::NotAVersion => {
            refused(vec![format!("{dir} is not a version directory")], ErrorCode::BadPath)
        }
        PublishOutcome::Paused { why } => refused(vec![why], ErrorCode::ProjectPaused),
    }
}

fn reference_of(project: &Project, dir: &RelPath) -> String {
    let version = version_dir_of(project.templates(), dir);
    version.map_or_else(|| dir.to_string(), |version| version.fields.version_id(project.name()).to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_made_plain_without_asking_the_disk() {
        let plain = |text: &str| normal(Path::new(text)).map(|path| path.display().to_string());
        assert_eq!(plain("/a/./b/../c/").as_deref(), Some("/a/c"));
        assert_eq!(plain("/../a").as_deref(), Some("/a"));
        assert_eq!(plain("a/b"), None);
    }
}
