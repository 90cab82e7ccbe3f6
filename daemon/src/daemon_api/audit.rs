//! `audit`: entries, checks and heads.

use avalon_protocol::{
    audit::Known,
    control::{ApiError, AuditHeadItem, AuditHeadsReply, AuditVerifyReply, ErrorCode},
    id::NodeId,
};
use avalon_store::{audit::AuditReader, fs::IoError};
use bytes::Bytes;
use futures_util::{StreamExt as _, stream};
use jiff::Timestamp;
use tokio::sync::mpsc;

use super::DaemonApi;
use crate::{
    api::{AuditQuery, ByteStream},
    audit::{at_text, heads_of},
    clock::time_of_ms,
    core::blocking,
    log::ErrorChain,
};

/// Pieces of an export that wait for the reader.
const PIECES: usize = 4;
/// How long a piece gets.
const PIECE_BYTES: usize = 64 << 10;
/// How many of the last entries may be asked for: they are kept in memory.
const MAX_LAST: u64 = 100_000;

impl DaemonApi {
    pub(super) fn audit_text(&self, query: AuditQuery) -> Result<ByteStream, ApiError> {
        let reader = self.audit_reader()?;
        let written = self.core.audit.written();
        let at = |ms: Option<u64>| {
            let time = ms.and_then(|ms| Timestamp::from_millisecond(i64::try_from(ms).ok()?).ok());
            time.map(at_text)
        };
        let (since, until) = (at(query.since_ms), at(query.until_ms));
        let last = query.last.map(|last| usize::try_from(last.min(MAX_LAST)).unwrap_or(0));
        let (send, receive) = mpsc::channel::<std::io::Result<Bytes>>(PIECES);
        let read = move || {
            let mut kept = std::collections::VecDeque::new();
            let mut piece = Vec::new();
            let mut is_gone = false;
            let verdict = reader.check(&Known::default(), written.as_ref(), |line, bytes| {
                let at = line.entry.at.as_str();
                let is_in = since.as_deref().is_none_or(|since| at >= since)
                    && until.as_deref().is_none_or(|until| at < until);
                if !is_in || is_gone {
                    return;
                }
                if let Some(last) = last {
                    kept.push_back(bytes.to_vec());
                    if kept.len() > last {
                        kept.pop_front();
                    }
                    return;
                }
                piece.extend_from_slice(bytes);
                piece.push(b'\n');
                if piece.len() >= PIECE_BYTES {
                    is_gone = send.blocking_send(Ok(Bytes::from(std::mem::take(&mut piece)))).is_err();
                }
            });
            for line in kept {
                piece.extend(line);
                piece.push(b'\n');
            }
            // A reader that is gone wants nothing more.
            drop(send.blocking_send(Ok(Bytes::from(piece))));
            if let Err(error) = verdict {
                drop(send.blocking_send(Err(std::io::Error::other(ErrorChain(&error).to_string()))));
            }
        };
        drop(tokio::task::spawn_blocking(read));
        Ok(stream::unfold(receive, |mut receive| async {
            let piece = receive.recv().await?;
            Some((piece, receive))
        })
        .boxed())
    }

    pub(super) async fn audit_checked(&self) -> Result<AuditVerifyReply, ApiError> {
        let (reader, written) = (self.audit_reader()?, self.core.audit.written());
        let core = std::sync::Arc::clone(&self.core);
        let checked = blocking(move || {
            let heads = heads_of(&core.ledger, &core.me).unwrap_or_default();
            let running = written.as_ref().map(|written| (written.entries, written.hash));
            reader.check(&Known { heads, running }, written.as_ref(), |_, _| {})
        });
        Ok(checked.await.map_err(|error| unreadable(&error))?.into())
    }

    pub(super) async fn audit_heads_reply(&self, node: Option<String>) -> Result<AuditHeadsReply, ApiError> {
        let node: NodeId = match node {
            None => self.core.me.clone(),
            Some(text) => text.parse().map_err(|_| {
                ApiError::new(
                    ErrorCode::BadRequest,
                    format!("{text:?} is no node; write it like ws12@london"),
                )
            })?,
        };
        let (ledger, of) = (self.core.ledger.clone(), node.clone());
        let heads = blocking(move || heads_of(&ledger, &of)).await.map_err(|error| {
            let message = format!("the studio feed of {node} cannot be read: {}", ErrorChain(&error));
            ApiError::new(ErrorCode::Internal, message).with_hint("check the disk of the state directory")
        })?;
        let item = |head: avalon_protocol::audit::AuditHead| AuditHeadItem {
            entries: head.entries,
            hash: head.hash.to_string(),
            published: time_of_ms(head.at_ms),
        };
        Ok(AuditHeadsReply {
            schema: "avalonctl.audit-heads/1".into(),
            node: node.to_string(),
            heads: heads.into_iter().map(item).collect(),
        })
    }

    fn audit_reader(&self) -> Result<AuditReader, ApiError> {
        let none = || ApiError::new(ErrorCode::NotFound, "this daemon keeps no audit");
        self.core.audit.reader().ok_or_else(none)
    }
}

fn unreadable(error: &IoError) -> ApiError {
    ApiError::new(ErrorCode::Internal, format!("the audit cannot be read: {}", ErrorChain(error)))
        .with_hint("check the disk of the state directory")
}
