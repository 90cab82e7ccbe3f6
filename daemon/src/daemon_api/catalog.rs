//! The catalog: made anew, verified, counted, out as text and in again.

use std::{
    error::Error,
    io::{self, Write as _},
    sync::Arc,
    time::Duration,
};

use avalon_protocol::control::{ApiError, CatalogStatsReply, ErrorCode, RebuildReply, VerifyReply};
use avalon_store::{
    catalog::SourceError,
    ledger::{LedgerError, RebuildError, Rebuilt},
};
use bytes::Bytes;
use futures_util::{StreamExt as _, stream};

use super::DaemonApi;
use crate::{api::ByteStream, core::blocking, log::ErrorChain};

impl DaemonApi {
    pub(super) async fn rebuild_reply(&self) -> Result<RebuildReply, ApiError> {
        let (ledger, start) = (self.core.ledger.clone(), self.core.clock.monotonic());
        let rebuilt = blocking(move || ledger.rebuild(Box::new(|_| {}))).await;
        let rebuilt = rebuilt.map_err(|error| failed(&error))?;
        Ok(self.rebuilt("avalonctl.catalog-rebuild/1", rebuilt, start).await)
    }

    async fn rebuilt(&self, schema: &str, rebuilt: Rebuilt, start: Duration) -> RebuildReply {
        let ledger = self.core.ledger.clone();
        let stats = blocking(move || ledger.stats()).await;
        RebuildReply {
            schema: schema.into(),
            generation: stats.generation,
            records: stats.records,
            replayed: rebuilt.replayed_records,
            rows: stats.rows,
            seconds: self.core.clock.monotonic().saturating_sub(start).as_secs_f64(),
        }
    }

    pub(super) async fn verify_reply(&self) -> Result<VerifyReply, ApiError> {
        let (ledger, clock) = (self.core.ledger.clone(), Arc::clone(&self.core.clock));
        let start = clock.monotonic();
        let report = blocking(move || ledger.verify()).await;
        let mut problems = Vec::new();
        problems.extend(report.catalog.iter().map(|error| ErrorChain(error).to_string()));
        problems.extend(report.feeds.iter().map(|(_, error)| ErrorChain(error).to_string()));
        problems.extend(report.damaged_manifests.iter().map(|id| format!("manifest {id} is damaged")));
        Ok(VerifyReply {
            schema: "avalonctl.catalog-verify/1".into(),
            ok: problems.is_empty(),
            rows: report.rows,
            problems,
            seconds: clock.monotonic().saturating_sub(start).as_secs_f64(),
        })
    }

    pub(super) async fn stats_reply(&self) -> Result<CatalogStatsReply, ApiError> {
        let ledger = self.core.ledger.clone();
        let stats = blocking(move || ledger.stats()).await;
        Ok(CatalogStatsReply {
            schema: "avalonctl.catalog-stats/1".into(),
            generation: stats.generation,
            versions: stats.versions,
            manifests: stats.manifests,
            local_files: stats.local_files,
            feeds: stats.feeds,
            records: stats.records,
            disk_bytes: stats.disk_bytes,
            rows: stats.rows,
            live_bytes: stats.live_bytes,
            checkpoint_records: stats.checkpoint_records,
        })
    }

    /// No thread is held by a reader that takes its time.
    pub(super) async fn export_text(&self) -> Result<ByteStream, ApiError> {
        let ledger = self.core.ledger.clone();
        let export = blocking(move || ledger.export()).await.map_err(|error| failed(&error))?;
        let pieces = stream::unfold(Some(export), |export| async move {
            let mut export = export?;
            let (chunk, export) = blocking(move || (export.next_chunk(), export)).await;
            match chunk {
                Ok(chunk) => chunk.map(|text| (Ok(Bytes::from(text)), Some(export))),
                Err(error) => {
                    tracing::error!(error = %ErrorChain(&error), "an export of the catalog breaks off");
                    Some((Err(io::Error::other(error)), None))
                }
            }
        });
        Ok(pieces.boxed())
    }

    /// The text is first kept in a file without a name: the ledger does not wait for whoever sends it.
    pub(super) async fn import_reply(&self, mut text: ByteStream) -> Result<RebuildReply, ApiError> {
        let (ledger, start) = (self.core.ledger.clone(), self.core.clock.monotonic());
        let file = blocking(move || ledger.import_file()).await;
        let mut file = file.map_err(|error| failed(&error))?;
        while let Some(piece) = text.next().await {
            let piece = piece.map_err(|error| {
                ApiError::new(ErrorCode::BadRequest, format!("the text broke off: {error}"))
            })?;
            let written = blocking(move || file.write_all(&piece).map(|()| file)).await;
            file = written
                .map_err(|error| failed(&LedgerError::Export { source: Arc::new(SourceError::Io(error)) }))?;
        }
        let ledger = self.core.ledger.clone();
        let imported = blocking(move || ledger.import(file)).await.map_err(|error| failed(&error))?;
        Ok(self.rebuilt("avalonctl.catalog-import/1", imported, start).await)
    }
}

/// Tells whose fault it is: that of a file, of the disk, or our own.
fn failed(error: &LedgerError) -> ApiError {
    let message = ErrorChain(error).to_string();
    if is_full(error) {
        return ApiError::new(ErrorCode::DiskFull, message)
            .with_hint("free room on the volume of the state directory, then try again");
    }
    match error {
        LedgerError::Rebuild { source: RebuildError::Source { source } } => match &**source {
            SourceError::Newer { .. } | SourceError::OtherLayout { .. } => {
                ApiError::new(ErrorCode::BadRequest, message)
                    .with_hint("the catalog stays as it was; to make it anew: avalonctl catalog rebuild")
            }
            _ => ApiError::new(ErrorCode::Damaged, message).with_hint(
                "the catalog stays as it was; take an export of this node that is whole, or make the catalog anew: \
                 avalonctl catalog rebuild",
            ),
        },
        _ => ApiError::new(ErrorCode::Internal, message),
    }
}

fn is_full(error: &LedgerError) -> bool {
    let mut cause: Option<&dyn Error> = Some(error);
    while let Some(error) = cause {
        let kind = error.downcast_ref::<io::Error>().map(io::Error::kind);
        if matches!(kind, Some(io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)) {
            return true;
        }
        cause = error.source();
    }
    false
}
