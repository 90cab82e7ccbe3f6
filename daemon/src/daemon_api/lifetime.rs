//! `retire`, `restore` and `accept`: what becomes of versions after they were published.

use std::sync::Arc;

use avalon_protocol::{
    access::Action,
    control::{
        ApiError, ErrorCode, LifetimeItem, LifetimeReply, LifetimeRequest, LifetimeState, RetiredItem,
    },
    hash::ManifestId,
    id::VersionId,
    manifest::Manifest,
    record::{Held, Note, Record, Restored, Retired},
    rel_path::RelPath,
    version_fold::{DEFAULT_UNDO_MS, Retirement, Standing, VersionFold},
};
use avalon_store::fs::{Dir, FileKind};

use super::{
    DaemonApi, catalog_failed,
    find::{Found, Hidden},
    show::head_of,
    stopping,
};
use crate::{
    api::{Caller, Lifetime},
    clock::time_of_ms,
    core::{Core, blocking},
    log::ErrorChain,
    project::Project,
    publish::{
        author,
        settle::{PublishDetails, PublishOutcome, Rewrites},
    },
    replicate::listen::lifetime_event,
};

/// Who does something and why, as it is recorded.
pub(super) struct Doer {
    pub(super) author: Note,
    pub(super) comment: Note,
}

impl Doer {
    pub(super) fn new(author: &str, comment: &str, caller: Caller) -> Result<Self, ApiError> {
        let author = if author.is_empty() { author::name_of(caller.uid) } else { author.to_owned() };
        let note = |text: String| {
            Note::try_from(text).map_err(|error| ApiError::new(ErrorCode::BadRequest, error.to_string()))
        };
        Ok(Self { author: note(author)?, comment: note(comment.to_owned())? })
    }
}

impl DaemonApi {
    pub(super) async fn lifetime_reply(
        &self,
        what: Lifetime,
        request: LifetimeRequest,
        caller: Caller,
    ) -> Result<LifetimeReply, ApiError> {
        let doer = Doer::new(&request.author, &request.comment, caller)?;
        let mut found: Found = Vec::new();
        for text in &request.refs {
            let reference = self.parse(text)?;
            let hidden = if what == Lifetime::Restore { Hidden::Found } else { Hidden::Passed };
            found.extend(self.find_also(&reference, request.project.as_deref(), hidden).await?);
        }
        found.sort_by(|a, b| a.0.cmp(&b.0));
        found.dedup_by(|a, b| a.0 == b.0);
        let mut versions = Vec::with_capacity(found.len());
        for (version, fold) in found {
            versions.push(match what {
                Lifetime::Retire => self.retire(&version, &fold, &doer, request.dry_run).await?,
                Lifetime::Restore => self.restore(&version, &fold, &doer, request.dry_run).await?,
                Lifetime::Accept => self.accept(&version, &fold, &doer, request.dry_run).await?,
            });
        }
        let name = match what {
            Lifetime::Retire => "retire",
            Lifetime::Restore => "restore",
            Lifetime::Accept => "accept",
        };
        Ok(LifetimeReply { schema: format!("avalonctl.{name}/1"), versions })
    }

    async fn retire(
        &self,
        version: &VersionId,
        fold: &VersionFold,
        doer: &Doer,
        is_dry: bool,
    ) -> Result<LifetimeItem, ApiError> {
        let mut item = item_of(version, fold);
        let now_ms = self.core.now_ms();
        if let Some(retirement) = fold.retired() {
            item.messages.push(retired_by(version, retirement));
            item.undo_until = Some(self.undo_until(retirement.at_ms));
            return Ok(item);
        }
        if let Err(refused) = self.core.check_may(&version.project, Action::Retire) {
            return Ok(refuse(item, refused.code(), refused.to_string()));
        }
        item.state = LifetimeState::Retired;
        item.undo_until = Some(self.undo_until(now_ms));
        if is_dry {
            return Ok(item);
        }
        let (author, comment) = (doer.author.clone(), doer.comment.clone());
        let round = fold.use_round().saturating_add(1);
        let retired = Retired { version: version.clone(), round, author, comment, at_ms: now_ms };
        self.say(version, Record::Retired(retired)).await?;
        Ok(item)
    }

    async fn restore(
        &self,
        version: &VersionId,
        fold: &VersionFold,
        doer: &Doer,
        is_dry: bool,
    ) -> Result<LifetimeItem, ApiError> {
        let mut item = item_of(version, fold);
        if fold.retired().is_some() {
            if let Err(refused) = self.core.check_may(&version.project, Action::Retire) {
                return Ok(refuse(item, refused.code(), refused.to_string()));
            }
            item.state = LifetimeState::Restored;
            if !is_dry {
                let restored = Restored {
                    version: version.clone(),
                    round: fold.use_round(),
                    author: doer.author.clone(),
                    at_ms: self.core.now_ms(),
                };
                self.say(version, Record::Restored(restored)).await?;
            }
            return Ok(item);
        }
        let Some(rewritten) = self.rewritten(version, fold).await? else {
            item.messages.push(format!(
                "{version} is in use, and no published file of it was changed in place at this node"
            ));
            return Ok(item);
        };
        if !rewritten.is_at_hand {
            let why = format!(
                "the manifest of what this node held of {version} is damaged here, and comes back by itself from a node that has it; \
                 where nobody has it, what lies here can be the next generation: avalonctl accept {version}"
            );
            return Ok(refuse(item, ErrorCode::Damaged, why));
        }
        item.changed = rewritten.changed.iter().map(ToString::to_string).collect();
        if matches!(fold.standing(version.slot), Standing::Conflict(_)) {
            return Ok(refuse(item, ErrorCode::Conflict, in_conflict(version)));
        }
        item.state = LifetimeState::PuttingBack;
        if is_dry {
            return Ok(item);
        }
        // What is held is not fetched, and the settler may not have looked yet, or waits for a lock to go.
        if fold.held_by(&self.core.me).any(|held| held == rewritten.base) {
            let dropped = Held { version: version.clone(), manifest: rewritten.base };
            self.say(version, Record::Dropped(dropped)).await?;
        }
        let pulled = self.replicator.restore(version.clone()).await.map_err(|_| stopping())?;
        match pulled.job {
            Some(job) => item.job = Some(job.id.clone()),
            None => {
                let why = format!("what stands of {version} may not come here: avalonctl why {version}");
                return Ok(refuse(item, ErrorCode::Denied, why));
            }
        }
        Ok(item)
    }

    async fn accept(
        &self,
        version: &VersionId,
        fold: &VersionFold,
        doer: &Doer,
        is_dry: bool,
    ) -> Result<LifetimeItem, ApiError> {
        let mut item = item_of(version, fold);
        let Some(rewritten) = self.rewritten(version, fold).await? else {
            item.messages.push(format!("no published file of {version} was changed in place at this node"));
            return Ok(item);
        };
        item.changed = rewritten.changed.iter().map(ToString::to_string).collect();
        if !rewritten.is_at_hand {
            item.messages.push(format!(
                "the manifest of what this node held of {version} cannot be read, so nobody can say what was changed"
            ));
        }
        item.state = LifetimeState::Accepted;
        if is_dry {
            return Ok(item);
        }
        let settler = self.settlers.iter().find(|(project, _)| *project.name() == version.project);
        let Some((_, settler)) = settler else { return Err(stopping()) };
        let details = PublishDetails {
            author: doer.author.as_str().to_owned(),
            comment: doer.comment.as_str().to_owned(),
            rewrites: Rewrites::Accept,
            ..PublishDetails::default()
        };
        let outcome = settler.publish(rewritten.dir, details).await.map_err(|_| stopping())?;
        Ok(match outcome {
            PublishOutcome::Published(published) => {
                item.messages.extend(published.messages);
                item.messages.push(format!("it is generation {} now", published.generation));
                LifetimeItem { files: published.files, bytes: published.bytes, ..item }
            }
            PublishOutcome::Unchanged(_) => LifetimeItem { state: LifetimeState::Unchanged, ..item },
            PublishOutcome::NotWhole { why, .. } => refuse(item, ErrorCode::NotWhole, why.join("; ")),
            PublishOutcome::Refused { messages, code, .. } => refuse(item, code, messages.join("; ")),
            PublishOutcome::Paused { why } => refuse(item, ErrorCode::ProjectPaused, why),
            PublishOutcome::Empty { .. } | PublishOutcome::NotAVersion => {
                refuse(item, ErrorCode::BadPath, "there is no file of it here".to_owned())
            }
        })
    }

    /// Records something about a version.
    pub(super) async fn say(&self, version: &VersionId, record: Record) -> Result<(), ApiError> {
        let event = lifetime_event(&self.core.me, &record);
        let said = self.core.commit(version.project.clone(), vec![record], Vec::new()).await;
        said.map(|_| {
            if let Some(event) = event {
                self.core.events.emit(event);
            }
        })
        .map_err(|error| {
            let code = if error.is_no_space() { ErrorCode::DiskFull } else { ErrorCode::Internal };
            ApiError::new(code, format!("{version}: nothing was recorded: {}", ErrorChain(&error)))
        })
    }

    fn undo_until(&self, retired_at_ms: u64) -> String {
        let undo_ms = self.core.policy.in_effect().map_or(DEFAULT_UNDO_MS, |policy| policy.undo_ms());
        time_of_ms(retired_at_ms.saturating_add(undo_ms))
    }

    /// Returns what of a version was changed in place at this node, after it had held it.
    async fn rewritten(
        &self,
        version: &VersionId,
        fold: &VersionFold,
    ) -> Result<Option<Rewritten>, ApiError> {
        let Some(project) = self.core.project(&version.project).cloned() else { return Ok(None) };
        let Some(dir) = project.dir() else { return Ok(None) };
        let Some(base) = fold.compared_with(version.slot, &self.core.me) else { return Ok(None) };
        let (core, version) = (Arc::clone(&self.core), version.clone());
        blocking(move || {
            let Ok(Some(base)) = core.ledger.manifest(base) else {
                let waiting = waits_at(&project, &version);
                return Ok(waiting.map(|dir| Rewritten {
                    base,
                    dir,
                    changed: Vec::new(),
                    is_at_hand: false,
                }));
            };
            let changed = changed_files(&core, &dir, &base)?;
            let dir = base.dir().clone();
            let found = Rewritten { base: base.id(), dir, changed, is_at_hand: true };
            Ok((!found.changed.is_empty()).then_some(found))
        })
        .await
        .map_err(|error| catalog_failed(&self.core.ledger, &error))
    }
}

/// Returns where files of a version wait that could not be recorded. Where the manifest of what was held cannot be read, nothing else says
/// where they lie.
fn waits_at(project: &Project, version: &VersionId) -> Option<RelPath> {
    let is_of_it = |dir: &RelPath| {
        let read = project.templates().invert_dir(dir);
        read.is_some_and(|read| read.fields.version_id(project.name()) == *version)
    };
    project.pending().iter().filter_map(|pending| pending.dir.parse().ok()).find(is_of_it)
}

/// What was changed in place.
struct Rewritten {
    base: ManifestId,
    dir: RelPath,
    changed: Vec<RelPath>,
    /// Whether the manifest can be read; else what was changed is not known.
    is_at_hand: bool,
}

/// Returns the files of a generation that are there and are not as it says. Blocks. What the catalog knows is not read again.
fn changed_files(
    core: &Core,
    dir: &Dir,
    base: &Manifest,
) -> Result<Vec<RelPath>, avalon_store::catalog::CatalogError> {
    let mut changed = Vec::new();
    for file in base.files() {
        let Ok(path) = base.dir().join(&file.path) else { continue };
        let Ok(Some(stat)) = dir.stat(&path) else { continue };
        let known = core.ledger.local_file(base.project(), &path)?;
        let is_same = match known.filter(|known| known.identity() == stat.identity()) {
            Some(known) => known.hash == file.hash,
            None => {
                stat.kind == FileKind::File
                    && stat.size == file.size
                    && core.hasher.hash_file(dir, &path).is_ok_and(|hashed| hashed.object() == file.hash)
            }
        };
        if !is_same {
            changed.push(file.path.clone());
        }
    }
    Ok(changed)
}

/// Says who took a version out of use, and how it comes back.
pub(super) fn retired_by(version: &VersionId, retirement: &Retirement) -> String {
    let comment = match retirement.comment.as_str() {
        "" => String::new(),
        comment => format!(" ({comment})"),
    };
    format!(
        "retired by {} on {}{comment}; to bring it back: avalonctl restore {version}",
        retirement.author.as_str(),
        time_of_ms(retirement.at_ms),
    )
}

pub(super) fn retired_item(fold: &VersionFold) -> Option<RetiredItem> {
    fold.retired().map(|retirement| RetiredItem {
        author: retirement.author.as_str().to_owned(),
        comment: retirement.comment.as_str().to_owned(),
        node: retirement.node.to_string(),
        at: time_of_ms(retirement.at_ms),
    })
}

pub(super) fn in_conflict(version: &VersionId) -> String {
    format!(
        "sites published different content as {version}; decide first: avalonctl resolve {version} --keep SITE"
    )
}

fn item_of(version: &VersionId, fold: &VersionFold) -> LifetimeItem {
    let head = head_of(version, fold).map(|(head, _)| head);
    let generation = head.and_then(|head| fold.generation(&head));
    LifetimeItem {
        reference: version.to_string(),
        state: LifetimeState::Unchanged,
        messages: Vec::new(),
        error: None,
        files: generation.map_or(0, |generation| generation.files),
        bytes: generation.map_or(0, |generation| generation.bytes),
        holders: head.map(|head| fold.holders(&head)).into_iter().flatten().map(|n| n.to_string()).collect(),
        undo_until: None,
        job: None,
        changed: Vec::new(),
    }
}

fn refuse(item: LifetimeItem, code: ErrorCode, why: String) -> LifetimeItem {
    LifetimeItem { state: LifetimeState::Refused, error: Some(code), messages: vec![why], ..item }
}
