//! `policy`: what stands, what was, and what is applied.

use std::sync::Arc;

use avalon_protocol::{
    control::{
        ApiError, ErrorCode, PolicyAppliedReply, PolicyHistoryReply, PolicyItem, PolicyReply, PolicyRequest,
    },
    studio::{Entry, PolicyId},
};

use super::DaemonApi;
use crate::{
    api::{Caller, PolicyQuery},
    clock::time_of_ms,
    core::blocking,
    log::ErrorChain,
    policy::{Apply, ApplyError, PolicyView, read_document, understand},
    publish::author,
};

impl DaemonApi {
    pub(super) async fn policy_reply(&self, query: PolicyQuery) -> Result<PolicyReply, ApiError> {
        let view = self.core.policy.view();
        let (id, document) = match (query.serial, view.fold.standing()) {
            (None, None) => {
                return Err(ApiError::new(ErrorCode::NotFound, "no policy was applied in this studio yet")
                    .with_hint("apply one: avalonctl policy apply FILE"));
            }
            (None, Some(stands)) => (stands.id, stands.document.to_string()),
            (Some(serial), _) => self.document_of(&view, serial).await?,
        };
        Ok(PolicyReply {
            schema: "avalonctl.policy-show/1".into(),
            policy: item(&view, id)?,
            problem: understand(&document).err(),
            document,
            in_effect: view.fold.in_effect().map(|stands| stands.id.serial),
        })
    }

    /// Reads a document of the history; of two with one serial, the one that stood.
    async fn document_of(&self, view: &PolicyView, serial: u64) -> Result<(PolicyId, String), ApiError> {
        let missing = || {
            ApiError::new(ErrorCode::NotFound, format!("policy {serial} is not known at this node"))
                .with_hint("list them: avalonctl policy history")
        };
        let mut newest_first = view.fold.history().iter().rev();
        let (id, entry) = newest_first.find(|(id, _)| id.serial == serial).ok_or_else(missing)?;
        let (id, entry, ledger) = (*id, entry.clone(), self.core.ledger.clone());
        let read = blocking(move || read_document(&ledger, &id, &entry)).await.map_err(|error| {
            let message = format!("policy {serial} cannot be read back: {}", ErrorChain(&error));
            ApiError::new(ErrorCode::Internal, message).with_hint("check the disk of the state directory")
        });
        Ok((id, read?.ok_or_else(missing)?))
    }

    pub(super) fn policy_history_reply(&self) -> PolicyHistoryReply {
        let view = self.core.policy.view();
        let newest_first = view.fold.history().iter().rev();
        PolicyHistoryReply {
            schema: "avalonctl.policy-history/1".into(),
            policies: newest_first.map(|(id, entry)| item_of(&view, id, entry)).collect(),
        }
    }

    pub(super) async fn policy_applied(
        &self,
        request: PolicyRequest,
        caller: Caller,
    ) -> Result<PolicyAppliedReply, ApiError> {
        let author = if request.author.is_empty() { author::name_of(caller.uid) } else { request.author };
        let apply = Apply {
            document: request.document,
            author,
            comment: request.comment,
            replaces: request.replaces,
        };
        let (core, greeted) = (Arc::clone(&self.core), self.greeted());
        // Not dropped when the caller hangs up: two must not be at it at once.
        let applied = blocking(move || {
            let warnings = core.policy_warnings(&apply.document, &greeted);
            core.apply_policy(apply).map(|id| (id, warnings))
        });
        let (id, warnings) = applied.await.map_err(|error| refused(&error))?;
        Ok(PolicyAppliedReply {
            schema: "avalonctl.policy-apply/1".into(),
            policy: item(&self.core.policy.view(), id)?,
            replaced: id.serial - 1,
            warnings,
        })
    }
}

fn item(view: &PolicyView, id: PolicyId) -> Result<PolicyItem, ApiError> {
    let entry = view.fold.history().get(&id).ok_or_else(|| {
        // Only when a thousand newer ones came in this moment.
        ApiError::new(ErrorCode::NotFound, format!("policy {} is not known any more", id.serial))
            .with_hint("list them: avalonctl policy history")
    })?;
    Ok(item_of(view, &id, entry))
}

fn item_of(view: &PolicyView, id: &PolicyId, entry: &Entry) -> PolicyItem {
    PolicyItem {
        serial: id.serial,
        hash: id.hash.to_string(),
        bytes: entry.bytes as u64,
        author: entry.author.clone(),
        comment: entry.comment.clone(),
        node: entry.place.0.to_string(),
        applied: time_of_ms(entry.applied_at_ms),
        stands: view.fold.standing().is_some_and(|stands| stands.id == *id),
        in_effect: view.fold.in_effect().is_some_and(|stands| stands.id == *id),
        understood: entry.is_understood,
    }
}

pub(super) fn refused(error: &ApplyError) -> ApiError {
    let (code, hint) = match error {
        ApplyError::NotUnderstood { .. } | ApplyError::TooLong { .. } => {
            (ErrorCode::BadPolicy, "correct the document and apply it again".to_owned())
        }
        ApplyError::Changed { stands, .. } => {
            let serial = stands.id.serial;
            let hint = format!(
                "look at it, avalonctl policy show; put your changes into it, and apply with --replaces {serial}"
            );
            (ErrorCode::PolicyChanged, hint)
        }
        ApplyError::NotKnown { newest, .. } => {
            let hint = format!("wait until it has come here, or apply with --replaces {newest}");
            (ErrorCode::PolicyChanged, hint)
        }
        ApplyError::NotAllowed { .. } => {
            let hint = "apply it at a node with the role admin; the studio CA gives it: avalonctl ca issue --role admin";
            (ErrorCode::Denied, hint.to_owned())
        }
        ApplyError::NoSerial => {
            (ErrorCode::Internal, "no policy can follow it; find out who applied it".to_owned())
        }
        ApplyError::Ledger { source } if source.is_no_space() => {
            (ErrorCode::DiskFull, "make room on the disk of the state directory".to_owned())
        }
        ApplyError::Ledger { .. } => (ErrorCode::Internal, "avalonctl status says what is wrong".to_owned()),
    };
    ApiError::new(code, ErrorChain(error).to_string()).with_hint(hint)
}
