//! The catalog as text, out and in again.

use std::{fs::File, sync::Arc};

use super::{
    Ledger, LedgerError, RebuildError, Rebuilt,
    load::FillError,
    open::build_from,
    wait,
    writer::{Job, Writer},
};
use crate::{
    catalog::{EXPORTED, Export, Import, Snapshot, SourceError, SourceRow, write_snapshot},
    error_chain::ErrorChain,
};

/// The rows of an export, as the thread that writes takes them.
pub(super) type ImportRows = Box<dyn Iterator<Item = Result<SourceRow, SourceError>> + Send>;

impl Ledger {
    /// Takes the catalog as it is now, to be read as text. Writing waits while it is taken, not while it is read.
    ///
    /// # Errors
    /// [`LedgerError::Export`] when there is no room for it beside the catalog, or the catalog fails.
    pub fn export(&self) -> Result<Export, LedgerError> {
        let file = wait(|reply| self.inner.send(Job::Snapshot { reply }));
        let file = file.unwrap_or(Err(LedgerError::Closed))?;
        let (node, generation) = (self.inner.shared.me.clone(), self.inner.shared.store().generation());
        let export = Snapshot::open(file).and_then(|snapshot| Export::new(snapshot, node, generation));
        export.map_err(|source| LedgerError::Export { source: Arc::new(source) })
    }

    /// Makes a file for an export that is to be read back. It has no name and is gone when it is closed.
    ///
    /// # Errors
    /// [`LedgerError::Export`] when the volume of the state directory does not take it.
    pub fn import_file(&self) -> Result<File, LedgerError> {
        let file = self.inner.state_dir.create_unnamed();
        file.map_err(|error| LedgerError::Export { source: Arc::new(error.into()) })
    }

    /// Makes the next generation of the catalog from an export: its hash, its counts and its cursors must be right. What the
    /// feeds have beyond it is applied. Local files are taken where the trees still have them just so.
    ///
    /// Reading goes on with the generation in use; writing waits while the next one is made.
    ///
    /// # Errors
    /// [`LedgerError::Rebuild`], with `is_bad_source` for an export that is refused; the generation in use stays.
    pub fn import(&self, file: File) -> Result<Rebuilt, LedgerError> {
        let import = Import::open(file).map_err(refused)?;
        let rows: ImportRows = Box::new(import.rows());
        wait(|reply| self.inner.send(Job::Import { rows, reply })).unwrap_or(Err(LedgerError::Closed))
    }
}

fn refused(source: SourceError) -> LedgerError {
    LedgerError::Rebuild { source: RebuildError::Source { source: Arc::new(source) } }
}

impl Writer {
    /// Writes the rows of an export into a file without a name.
    pub(super) fn snapshot(&self) -> Result<File, LedgerError> {
        let taken = self.catalog_dir.create_unnamed().map_err(SourceError::from).and_then(|file| {
            write_snapshot(&*self.shared.store(), &EXPORTED, self.shared.total_records(), &file)?;
            Ok(file)
        });
        taken.map_err(|error| {
            if let SourceError::Catalog(error) = &error {
                self.shared.note_damage(error);
            }
            LedgerError::Export { source: Arc::new(error) }
        })
    }

    /// Builds the next generation from an export and puts it in the place of this one.
    pub(super) fn import(&mut self, mut rows: ImportRows) -> Result<Rebuilt, LedgerError> {
        self.give_up_compaction("the catalog is imported");
        match build_from(&self.shared, &self.generations, Some(&mut *rows), &mut |_| {}) {
            Ok((store, built)) => {
                self.use_rebuilt(store);
                tracing::info!(generation = self.shared.store().generation(), ?built, "catalog imported");
                Ok(built)
            }
            Err(error) => {
                let error = match error {
                    FillError::Source(source) => refused(source),
                    FillError::Rebuild(source) => LedgerError::Rebuild { source },
                };
                tracing::warn!(error = %ErrorChain(&error), "catalog not imported; the one in use stays");
                Err(error)
            }
        }
    }
}
