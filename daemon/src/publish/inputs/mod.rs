//! What a version was made from, gathered when it is published: what was said, the sidecar, and what its files refer to.
//!
//! Between [`super::hash`] and [`super::manifest`]: the files were just read and are in the page cache, and the manifest
//! cannot be changed afterwards. It costs a bounded time, and nothing that goes wrong here keeps a version from being
//! published: it is logged, told to whoever publishes, and noted in the manifest as [`INCOMPLETE`].

mod source;
#[cfg(test)]
mod tests;

use std::{collections::BTreeSet, fmt::Display, io::Read as _, sync::Arc, time::Duration};

use avalon_protocol::{
    hash::ObjectHash,
    id::VersionId,
    inputs::{
        Finds, Input, KnownProject, Locator, MAX_SIDECAR_BYTES, SIDECAR, ScanError, Scanned, Source,
        read_sidecar, scanner_of,
    },
    limits::MAX_INPUTS,
    manifest::Manifest,
    rel_path::RelPath,
};
use avalon_store::fs::Dir;

use self::source::{Budget, FileSource, Inflated, is_zstd};
use super::hash::NamedFile;
use crate::{
    core::{Core, blocking},
    log::ErrorChain,
};

/// The key of the metadata that says what could not be looked at.
pub(super) const INCOMPLETE: &str = "inputs.incomplete";

/// How long looking into one file may take, and into all files of a version. An artist waits for it.
const FILE_TIME: Duration = Duration::from_secs(1);
const VERSION_TIME: Duration = Duration::from_secs(3);
/// How much is read of one file, decompressed. Scenes are smaller; of a text of caches the beginning is what counts.
const FILE_BYTES: u64 = 512 << 20;
/// Room in the manifest for what was not given by hand: with it, a record still travels in one piece.
const MAX_FOUND_BYTES: usize = 1 << 20;
/// Most things that are told of one version.
const MAX_NOTES: usize = 5;

/// What is published.
#[derive(Debug)]
pub(super) struct Publishing<'a> {
    /// Which version.
    pub(super) version: &'a VersionId,
    /// Its directory, relative to the project.
    pub(super) dir: &'a RelPath,
    /// Its files.
    pub(super) files: &'a [NamedFile],
    /// What was said that it was made from.
    pub(super) given: &'a [String],
    /// The generation that it has grown from, whose inputs are those of its files.
    pub(super) grown_from: Option<Arc<Manifest>>,
}

/// What a version was made from.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Gathered {
    /// For the manifest, each once: as given, from the sidecar, found.
    pub(super) inputs: Vec<String>,
    /// What a person should hear about it.
    pub(super) messages: Vec<String>,
    /// What could not be looked at, for the manifest.
    pub(super) incomplete: Option<String>,
}

/// Gathers the inputs of a version whose files lie beneath `root`. Never fails, and ends within a few seconds.
pub(super) async fn gather(core: &Arc<Core>, root: &Dir, publishing: &Publishing<'_>) -> Gathered {
    let (core, root) = (Arc::clone(core), root.clone());
    let version = publishing.version.clone();
    let job = Job {
        dir: publishing.dir.clone(),
        files: publishing.files.iter().map(|file| (file.inside.clone(), file.object)).collect(),
        given: publishing.given.to_vec(),
        grown_from: publishing.grown_from.clone(),
        version,
    };
    let gathered = blocking(move || job.run(&core, &root)).await;
    if let Some(incomplete) = &gathered.incomplete {
        tracing::warn!(version = %publishing.version, error = incomplete, "not all inputs were found");
    }
    gathered
}

struct Job {
    version: VersionId,
    dir: RelPath,
    files: Vec<(RelPath, ObjectHash)>,
    given: Vec<String>,
    grown_from: Option<Arc<Manifest>>,
}

impl Job {
    fn run(&self, core: &Core, root: &Dir) -> Gathered {
        let dirs: Vec<(_, String)> =
            core.projects.values().map(|p| (p, p.path().to_string_lossy().into_owned())).collect();
        let projects: Vec<KnownProject<'_>> = dirs
            .iter()
            .map(|(project, dir)| KnownProject { name: project.name(), dir, templates: project.templates() })
            .collect();
        let locator = Locator::new(&projects);
        let own: BTreeSet<RelPath> = self.files.iter().map(|(path, _)| path.clone()).collect();
        let scanned = Scanned { version: &self.version, dir: &self.dir, files: &own, base: &self.dir };
        let mut list = List::default();
        for text in &self.given {
            list.add(locator.given(&scanned, text));
            // What was said is not cut: the manifest's own limits say no to too much.
            list.bytes = 0;
        }
        self.sidecar(root, &locator, &scanned, &mut list);
        let before = self.grown_from.iter().flat_map(|manifest| &manifest.draft().inputs);
        before.for_each(|text| list.add(Some(Input::read(text))));
        self.scan_files(core, root, &locator, &scanned, &mut list);
        list.finish()
    }

    fn sidecar(&self, root: &Dir, locator: &Locator<'_>, scanned: &Scanned<'_>, list: &mut List) {
        let Ok(path) = self.dir.join_str(SIDECAR) else { return };
        let file = match root.open_file(&path) {
            Err(error) if error.is_not_found() => return,
            Err(error) => return list.note(SIDECAR, ErrorChain(&error)),
            Ok(file) => file,
        };
        let mut bytes = Vec::new();
        if let Err(error) = file.take(MAX_SIDECAR_BYTES + 1).read_to_end(&mut bytes) {
            return list.note(SIDECAR, error);
        }
        if bytes.len() as u64 > MAX_SIDECAR_BYTES {
            list.note(SIDECAR, format_args!("only the first {MAX_SIDECAR_BYTES} bytes are read"));
            let whole = usize::try_from(MAX_SIDECAR_BYTES).unwrap_or(usize::MAX);
            bytes.truncate(whole);
            // The last line may be cut.
            let end = bytes.iter().rposition(|byte| *byte == b'\n').unwrap_or(0);
            bytes.truncate(end);
        }
        for line in read_sidecar(&bytes) {
            match line {
                Ok(text) => list.add(locator.given(scanned, text)),
                Err(number) => list.note(SIDECAR, format_args!("line {number} is no text")),
            }
        }
    }

    fn scan_files(
        &self,
        core: &Core,
        root: &Dir,
        locator: &Locator<'_>,
        scanned: &Scanned<'_>,
        list: &mut List,
    ) {
        let known: BTreeSet<(&RelPath, &ObjectHash)> =
            self.grown_from.iter().flat_map(|m| m.files()).map(|file| (&file.path, &file.hash)).collect();
        let until = core.clock.monotonic() + VERSION_TIME;
        let new = self.files.iter().filter(|(path, hash)| !known.contains(&(path, hash)));
        for (path, _) in new {
            let Some(scanner) = scanner_of(path.file_name()) else { continue };
            let now = core.clock.monotonic();
            if now >= until {
                list.note(path, "there was no time left to look into it");
                continue;
            }
            let mut finds = Finds::default();
            let budget = Budget::new(&*core.clock, until.min(now + FILE_TIME), FILE_BYTES);
            let scan = |source: &mut dyn Source| scanner.scan(source, &mut finds);
            if let Err(error) = with_source(root, (&self.dir, path), &budget, scan) {
                list.note(path, ErrorChain(&*error));
            }
            let base = self.dir.join(path).ok().and_then(|path| path.parent());
            let base = base.unwrap_or_else(|| self.dir.clone());
            let from_here = Scanned { base: &base, ..*scanned };
            finds.into_found().iter().for_each(|find| list.add(locator.input_of(&from_here, find)));
        }
    }
}

/// Opens a file and scans it, decompressed where it is compressed.
fn with_source(
    root: &Dir,
    (dir, path): (&RelPath, &RelPath),
    budget: &Budget<'_>,
    scan: impl FnOnce(&mut dyn Source) -> Result<(), ScanError>,
) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let path = dir.join(path)?;
    let mut file = FileSource::new(root.open_file(&path)?, budget);
    if is_zstd(&mut file)? {
        scan(&mut Inflated::new(file, budget)?)?;
    } else {
        scan(&mut file)?;
    }
    Ok(())
}

/// The inputs as they are gathered.
#[derive(Debug, Default)]
struct List {
    inputs: Vec<String>,
    seen: BTreeSet<String>,
    notes: Vec<String>,
    notes_more: usize,
    bytes: usize,
    is_full: bool,
}

impl List {
    fn add(&mut self, input: Option<Input>) {
        let Some(input) = input else { return };
        let text = input.to_string();
        if self.seen.contains(&text) {
            return;
        }
        if self.bytes + text.len() > MAX_FOUND_BYTES || self.inputs.len() >= MAX_INPUTS {
            self.is_full = true;
            return;
        }
        self.bytes += text.len();
        self.seen.insert(text.clone());
        self.inputs.push(text);
    }

    fn note(&mut self, file: impl Display, why: impl Display) {
        if self.notes.len() < MAX_NOTES {
            self.notes.push(format!("{file}: {why}"));
        } else {
            self.notes_more += 1;
        }
    }

    fn finish(mut self) -> Gathered {
        if self.is_full {
            self.notes.push("there are more inputs than a manifest holds".to_owned());
        }
        if self.notes_more > 0 {
            self.notes.push(format!("and {} more files", self.notes_more));
        }
        // Names and causes together stay far below what a manifest takes.
        let incomplete =
            (!self.notes.is_empty()).then(|| self.notes.join("; ").chars().take(2000).collect::<String>());
        let messages = incomplete.iter().map(|notes| format!("not all inputs were found: {notes}")).collect();
        Gathered { inputs: self.inputs, messages, incomplete }
    }
}
