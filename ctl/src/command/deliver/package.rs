//! The package: files, what they are, and sums that plain tools check.

use std::{
    collections::BTreeSet,
    fmt::Write as _,
    fs, io,
    path::{Path, PathBuf},
};

use avalon_protocol::{
    control::{ApiError, ErrorCode, FileItem, InfoReply, MissingInput, PullItem},
    hash::ObjectHash,
    id::VersionSlot,
    reference::{Reference, VersionSelector},
    rel_path::RelPath,
};
use jiff::Timestamp;
use serde::Serialize;
use walkdir::WalkDir;

use crate::{
    copying::{self, Sums, beside, failed},
    escape::escape,
    failure::Failure,
    interrupt::Interrupt,
    measure::{count, size},
    output::Output,
    table::{self, Cell},
};

/// The file that says what is in a package.
const MANIFEST: &str = "manifest.json";
/// The file that `b3sum --check` reads.
const BLAKE3SUMS: &str = "BLAKE3SUMS";
/// The file that `sha256sum --check` reads.
const SHA256SUMS: &str = "SHA256SUMS";
/// What the name of a package ends with until all is in it.
const PART: &str = ".part";

/// Where versions lie within a package.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Layout {
    /// As in the project, beneath its name.
    Project,
    /// One directory each, named by asset, subset and version.
    Flat,
}

impl Layout {
    /// Returns the directory of a version within the package; nothing for a name that cannot be one.
    pub(super) fn dir(self, info: &InfoReply) -> Option<RelPath> {
        let reference: Reference = info.reference.parse().ok()?;
        let project = reference.project.as_ref()?;
        let VersionSelector::Slot(slot) = reference.version else { return None };
        let slot: VersionSlot = slot;
        match self {
            Self::Project => format!("{project}/{}", info.dir).parse().ok(),
            Self::Flat => {
                format!("{}_{}_{slot}", reference.asset.as_str(), reference.subset.as_str()).parse().ok()
            }
        }
    }
}

/// One file of a version.
#[derive(Debug, Clone)]
pub(super) struct Entry {
    path: RelPath,
    bytes: u64,
    hash: ObjectHash,
    representation: String,
}

impl Entry {
    /// Reads what the daemon says of a file; it comes from other sites, so its path is checked again.
    pub(super) fn of(item: &FileItem) -> Option<Self> {
        Some(Self {
            path: item.path.parse().ok()?,
            bytes: item.bytes,
            hash: item.hash.parse().ok()?,
            representation: item.representation.clone(),
        })
    }
}

/// One version of a package.
#[derive(Debug)]
pub(super) struct Version {
    pub(super) info: InfoReply,
    /// The version directory in the project.
    pub(super) source: PathBuf,
    /// Its directory in the package.
    pub(super) dir: RelPath,
    pub(super) entries: Vec<Entry>,
}

/// What is to be delivered.
pub(super) struct Package<'o> {
    to: PathBuf,
    versions: Vec<Version>,
    pub(super) missing: Vec<MissingInput>,
    output: &'o Output,
}

#[derive(Serialize)]
struct Summary<'p> {
    schema: &'static str,
    to: String,
    versions: Vec<&'p str>,
    files: u64,
    bytes: u64,
    /// Files that were in the package already, and are as they should be.
    kept: u64,
    missing: &'p [MissingInput],
    not_here: Vec<&'p str>,
    dry_run: bool,
}

#[derive(Serialize)]
struct Document<'p> {
    schema: &'static str,
    created: String,
    versions: Vec<DocumentVersion<'p>>,
    missing: &'p [MissingInput],
}

#[derive(Serialize)]
struct DocumentVersion<'p> {
    #[serde(rename = "ref")]
    reference: &'p str,
    generation: u32,
    manifest: &'p str,
    author: &'p str,
    comment: &'p str,
    published: &'p str,
    inputs: &'p [String],
    directory: &'p RelPath,
    files: Vec<DocumentFile<'p>>,
}

#[derive(Serialize)]
struct DocumentFile<'p> {
    path: &'p RelPath,
    bytes: u64,
    representation: &'p str,
    blake3: String,
    sha256: &'p str,
}

impl<'o> Package<'o> {
    pub(super) fn new(
        to: PathBuf,
        versions: Vec<Version>,
        missing: Vec<MissingInput>,
        output: &'o Output,
    ) -> Result<Self, Failure> {
        let to = std::path::absolute(&to)
            .map_err(|error| Failure::Said(failed("use the directory", &to, &error)))?;
        let mut places: Vec<&RelPath> = versions.iter().map(|version| &version.dir).collect();
        places.sort();
        if let Some(pair) = places.windows(2).find(|pair| pair.first() == pair.last()) {
            let place = pair.first().map(ToString::to_string).unwrap_or_default();
            let message = format!("two versions would lie in {place}");
            let error = ApiError::new(ErrorCode::BadRequest, message);
            return Err(Failure::Said(error.with_hint("deliver them apart, or without --flat")));
        }
        Ok(Self { to, versions, missing, output })
    }

    fn totals(&self) -> (u64, u64) {
        let entries = self.versions.iter().flat_map(|version| &version.entries);
        entries.fold((0, 0), |(files, bytes), entry| (files + 1, bytes + entry.bytes))
    }

    /// Says what would be delivered.
    pub(super) fn show(&self, away: &[&PullItem]) {
        let rows = self.versions.iter().map(|version| {
            let bytes = version.entries.iter().map(|entry| entry.bytes).sum();
            vec![
                Cell::text(&version.info.reference),
                Cell::number(version.entries.len(), version.entries.len().to_string()),
                Cell::number(bytes, size(bytes)),
                Cell::text(version.dir.as_str()),
            ]
        });
        if self.output.is_json() {
            return self.summary(0, away, true);
        }
        table::print(self.output, &["VERSION", "FILES", "SIZE", "DIRECTORY"], rows.collect());
        for item in away {
            self.output.talk(&format!("not here: {}, {}", escape(&item.reference), size(item.bytes)));
        }
        self.say_missing();
        let (files, bytes) = self.totals();
        self.output.talk(&format!("{}, {} to {}", count(files, "file"), size(bytes), self.to.display()));
    }

    fn say_missing(&self) {
        for missing in &self.missing {
            let words = crate::command::pull::missing_words(missing);
            self.output.talk(&format!("missing: {}", escape(&words)));
        }
    }

    fn summary(&self, kept: u64, away: &[&PullItem], dry_run: bool) {
        let (files, bytes) = self.totals();
        self.output.json(&Summary {
            schema: "avalonctl.deliver/1",
            to: self.to.display().to_string(),
            versions: self.versions.iter().map(|version| version.info.reference.as_str()).collect(),
            files,
            bytes,
            kept,
            missing: &self.missing,
            not_here: away.iter().map(|item| item.reference.as_str()).collect(),
            dry_run,
        });
    }

    /// Writes the package; it has its name, and is on disk, when this returns true. False when the user has stopped it.
    ///
    /// Signals are looked at between files, if they no longer end the process by themselves.
    pub(super) async fn write(&self, resume: bool, interrupt: Option<&Interrupt>) -> Result<bool, ApiError> {
        let part = beside(&self.to, PART);
        self.check_place(&part, resume)?;
        self.check_part(&part)?;
        fs::create_dir_all(&part).map_err(|error| failed("make", &part, &error))?;
        let (mut all, mut kept) = (Vec::new(), 0);
        for version in &self.versions {
            for entry in &version.entries {
                if is_interrupted(interrupt).await {
                    self.output.talk("stopped; go on with --resume");
                    return Ok(false);
                }
                let path = version.dir.join(&entry.path).map_err(|error| {
                    ApiError::new(ErrorCode::BadPath, error.to_string())
                        .with_hint("use --flat: its paths are shorter")
                })?;
                let (sums, was_there) = put(version, entry, &part.join(path.as_str()))?;
                kept += u64::from(was_there);
                all.push((path, sums));
            }
            self.output.talk(&format!(
                "{}  {}",
                escape(&version.info.reference),
                count(version.entries.len() as u64, "file")
            ));
        }
        self.write_sums(&part, &mut all)?;
        copying::sync_dirs(&part).map_err(|error| failed("sync", &part, &error))?;
        // An empty directory gives way; anything else stays.
        fs::remove_dir(&self.to).ok();
        copying::rename_new(&part, &self.to)
            .map_err(|error| failed("put the package in its place", &self.to, &error))?;
        if self.output.is_json() {
            self.summary(kept, &[], false);
        } else {
            let (files, bytes) = self.totals();
            self.say_missing();
            self.output.data(&format!("{}", self.to.display()));
            self.output.talk(&format!(
                "{}, {}, verified; check it with: cd {} && sha256sum -c {SHA256SUMS}",
                count(files, "file"),
                size(bytes),
                self.to.display()
            ));
        }
        Ok(true)
    }

    fn check_place(&self, part: &Path, resume: bool) -> Result<(), ApiError> {
        let refuse =
            |message: String, hint: &str| Err(ApiError::new(ErrorCode::BadPath, message).with_hint(hint));
        let is_taken = match fs::read_dir(&self.to) {
            Ok(mut entries) => entries.next().is_some(),
            Err(error) => error.kind() != io::ErrorKind::NotFound,
        };
        if is_taken {
            let message = format!("{} is there and not an empty directory", self.to.display());
            return refuse(message, "name another directory with --to");
        }
        if !resume && part.symlink_metadata().is_ok() {
            let message = format!("{} is there: a package that was cut off", part.display());
            return refuse(message, "go on with --resume, or remove it");
        }
        Ok(())
    }

    /// What was cut off may have been another package: nothing may come into this one that no sum speaks of.
    fn check_part(&self, part: &Path) -> Result<(), ApiError> {
        let own: BTreeSet<PathBuf> = self
            .versions
            .iter()
            .flat_map(|version| version.entries.iter().map(move |entry| (version, entry)))
            .filter_map(|(version, entry)| Some(PathBuf::from(version.dir.join(&entry.path).ok()?.as_str())))
            .chain([MANIFEST, BLAKE3SUMS, SHA256SUMS].map(PathBuf::from))
            .collect();
        if part.symlink_metadata().is_err() {
            return Ok(());
        }
        for entry in WalkDir::new(part) {
            let entry = entry.map_err(|error| {
                let path = error.path().unwrap_or(part).to_owned();
                failed("read", &path, &error.into_io_error().unwrap_or_else(|| io::Error::other("a loop")))
            })?;
            let inside = entry.path().strip_prefix(part).unwrap_or(entry.path());
            if entry.file_type().is_dir() || entry.file_type().is_file() && own.contains(inside) {
                continue;
            }
            let message = format!("{} is not of this package", entry.path().display());
            return Err(ApiError::new(ErrorCode::BadPath, message).with_hint(format!(
                "name the same versions as before, or remove {} and begin anew",
                part.display()
            )));
        }
        Ok(())
    }

    /// Writes what is in the package, and the sums of everything, that file included.
    fn write_sums(&self, part: &Path, all: &mut Vec<(RelPath, Sums)>) -> Result<(), ApiError> {
        for name in [MANIFEST, BLAKE3SUMS, SHA256SUMS] {
            // Of a package that was cut off.
            fs::remove_file(part.join(name)).ok();
        }
        let write = |name: &str, text: &str| {
            let path = part.join(name);
            copying::write_new(&path, text).map_err(|error| failed("write", &path, &error))
        };
        write(MANIFEST, &self.document(all))?;
        let path = part.join(MANIFEST);
        let sums = copying::read(&path).map_err(|error| failed("read", &path, &error))?;
        let name = MANIFEST.parse().map_err(|_| ApiError::new(ErrorCode::Internal, "a name is none"))?;
        all.push((name, sums));
        let (mut blake3, mut sha256) = (String::new(), String::new());
        for (path, sums) in all.iter() {
            // No path has a line break or a backslash in it, so none needs to be escaped.
            writeln!(blake3, "{}  {path}", sums.blake3).ok();
            writeln!(sha256, "{}  {path}", sums.sha256).ok();
        }
        write(BLAKE3SUMS, &blake3)?;
        write(SHA256SUMS, &sha256)
    }

    fn document(&self, all: &[(RelPath, Sums)]) -> String {
        let mut sums = all.iter();
        let versions = self.versions.iter().map(|version| DocumentVersion {
            reference: &version.info.reference,
            generation: version.info.generation,
            manifest: &version.info.manifest,
            author: &version.info.author,
            comment: &version.info.comment,
            published: &version.info.published,
            inputs: &version.info.inputs,
            directory: &version.dir,
            files: version
                .entries
                .iter()
                .zip(sums.by_ref())
                .map(|(entry, (_, sums))| DocumentFile {
                    path: &entry.path,
                    bytes: entry.bytes,
                    representation: &entry.representation,
                    blake3: entry.hash.to_string(),
                    sha256: &sums.sha256,
                })
                .collect(),
        });
        #[expect(clippy::disallowed_methods, reason = "when a package was made is for people")]
        let created = Timestamp::try_from(std::time::SystemTime::now()).unwrap_or(Timestamp::UNIX_EPOCH);
        let document = Document {
            schema: "avalonctl.package/1",
            created: format!("{created:.0}"),
            versions: versions.collect(),
            missing: &self.missing,
        };
        let mut text = serde_json::to_string_pretty(&document).unwrap_or_default();
        text.push('\n');
        text
    }
}

/// Says whether the user wants to stop.
async fn is_interrupted(interrupt: Option<&Interrupt>) -> bool {
    let Some(interrupt) = interrupt else { return false };
    tokio::select! {
        biased;
        () = interrupt.wait() => true,
        () = tokio::task::yield_now() => false,
    }
}

/// Copies a file into the package, unless it is there already as it should be. Says whether it was.
fn put(version: &Version, entry: &Entry, to: &Path) -> Result<(Sums, bool), ApiError> {
    if let Some(parent) = to.parent() {
        fs::create_dir_all(parent).map_err(|error| failed("make", parent, &error))?;
    }
    let is_right = |sums: &Sums| sums.blake3 == entry.hash && sums.bytes == entry.bytes;
    if to.symlink_metadata().is_ok() {
        if let Some(sums) = copying::read(to).ok().filter(is_right) {
            return Ok((sums, true));
        }
        fs::remove_file(to).map_err(|error| failed("replace", to, &error))?;
    }
    let from = version.source.join(entry.path.as_str());
    let sums = copying::copy(&from, to).map_err(|error| failed("copy", &from, &error))?;
    if is_right(&sums) {
        return Ok((sums, false));
    }
    fs::remove_file(to).ok();
    let message = format!("{} is not what was published as {}", from.display(), version.info.reference);
    Err(ApiError::new(ErrorCode::Damaged, message).with_hint(
        "the file was changed, or its disk is damaged: see avalonctl status, and pull the version elsewhere",
    ))
}
