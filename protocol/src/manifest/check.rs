//! What makes a manifest acceptable, from a publish here as from a peer.

use std::collections::HashMap;

use thiserror::Error;

use super::ManifestDraft;
use crate::{
    limits::{MAX_INPUTS, MAX_MANIFEST_FILES, MAX_METADATA_PAIRS, MAX_OBJECT_BYTES, MAX_TEXT_BYTES},
    rel_path::{InvalidPath, RelPath},
};

/// Why a manifest was refused.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum InvalidManifest {
    /// There is nothing in it.
    #[error("the version has no files")]
    NoFiles,
    /// More than [`MAX_MANIFEST_FILES`].
    #[error(
        "the version has {files} files, the limit is {MAX_MANIFEST_FILES}; publish it as several subsets"
    )]
    TooManyFiles {
        /// How many it has.
        files: usize,
    },
    /// Longer than the limit in canonical bytes.
    #[error("the manifest has {bytes} bytes, the limit is 32 MiB; publish the version as several subsets")]
    TooManyBytes {
        /// How many it has.
        bytes: usize,
    },
    /// Two entries of one path, or not in order.
    #[error("the file {path} stands twice in the manifest or out of order")]
    Order {
        /// The second of the two.
        path: RelPath,
    },
    /// A path is a file here and a directory there.
    #[error("{path} is a file and also a directory of other files")]
    FileIsDirectory {
        /// The path that is both.
        path: RelPath,
    },
    /// Two names that macOS or Windows takes for one.
    #[error(
        "{first} and {second} are one name where case or Unicode composition is ignored; rename one of them"
    )]
    Collision {
        /// The first in order.
        first: RelPath,
        /// The second.
        second: RelPath,
    },
    /// Over the largest object.
    #[error("the file {path} is larger than the limit of 8 TiB")]
    FileTooLarge {
        /// The file.
        path: RelPath,
    },
    /// A file of no representation, or a representation of no file.
    #[error("the representations of {path} do not fit its files")]
    Representation {
        /// The file, or the entry of the representation.
        path: RelPath,
    },
    /// The directory lies in a place that is never synced, or joined paths are too long.
    #[error("the version directory is not usable")]
    Directory(#[source] InvalidPath),
    /// The directory is Avalon sync's own.
    #[error("the version directory {path} lies in .avalon, which is never synced")]
    Reserved {
        /// The directory.
        path: RelPath,
    },
    /// First generation with a predecessor, or a later one without.
    #[error("generation {generation} does not fit its predecessor")]
    Generation {
        /// The number.
        generation: u32,
    },
    /// A text, the metadata or the inputs are over their limits.
    #[error("the {field} of the manifest is over its limit")]
    Text {
        /// Which field.
        field: &'static str,
    },
}

pub(super) fn check(draft: &ManifestDraft) -> Result<(), InvalidManifest> {
    check_directory(draft)?;
    check_files(draft)?;
    check_collisions(draft)?;
    check_representations(draft)?;
    check_texts(draft)
}

fn check_directory(draft: &ManifestDraft) -> Result<(), InvalidManifest> {
    if (draft.generation == 1) != draft.predecessor.is_none() || draft.generation == 0 {
        return Err(InvalidManifest::Generation { generation: draft.generation });
    }
    if draft.dir.parts().any(|part| part.eq_ignore_ascii_case(".avalon")) {
        return Err(InvalidManifest::Reserved { path: draft.dir.clone() });
    }
    for file in &draft.files {
        draft.dir.join(&file.path).map_err(InvalidManifest::Directory)?;
    }
    Ok(())
}

fn check_files(draft: &ManifestDraft) -> Result<(), InvalidManifest> {
    let files = &draft.files;
    if files.is_empty() {
        return Err(InvalidManifest::NoFiles);
    }
    if files.len() > MAX_MANIFEST_FILES {
        return Err(InvalidManifest::TooManyFiles { files: files.len() });
    }
    for (one, next) in files.iter().zip(files.iter().skip(1)) {
        if one.path >= next.path {
            return Err(InvalidManifest::Order { path: next.path.clone() });
        }
        if next.path.is_within(&one.path) {
            return Err(InvalidManifest::FileIsDirectory { path: one.path.clone() });
        }
    }
    match files.iter().find(|file| file.size > MAX_OBJECT_BYTES) {
        Some(file) => Err(InvalidManifest::FileTooLarge { path: file.path.clone() }),
        None => Ok(()),
    }
}

/// Every directory and file name must be distinct from its siblings where case and composition are ignored: one
/// spelling per folded path, for directories too.
fn check_collisions(draft: &ManifestDraft) -> Result<(), InvalidManifest> {
    let mut spelling: HashMap<String, RelPath> = HashMap::with_capacity(draft.files.len());
    for file in &draft.files {
        let mut path = Some(file.path.clone());
        while let Some(prefix) = path {
            let known = spelling.entry(prefix.collision_key()).or_insert_with(|| prefix.clone());
            if *known != prefix {
                return Err(InvalidManifest::Collision { first: known.clone(), second: prefix });
            }
            path = prefix.parent();
        }
    }
    Ok(())
}

fn check_representations(draft: &ManifestDraft) -> Result<(), InvalidManifest> {
    let mut used = vec![false; draft.representations.len()];
    for file in &draft.files {
        match used.get_mut(usize::from(file.representation)) {
            Some(mark) => *mark = true,
            None => return Err(InvalidManifest::Representation { path: file.path.clone() }),
        }
    }
    for (index, representation) in draft.representations.iter().enumerate() {
        let in_order =
            draft.representations.get(index + 1).is_none_or(|next| representation.name < next.name);
        let first = draft.files.partition_point(|file| file.path < representation.entry);
        let known = draft.files.get(first).is_some_and(|file| file.path.is_within(&representation.entry));
        if !in_order || !known || used.get(index) != Some(&true) {
            return Err(InvalidManifest::Representation { path: representation.entry.clone() });
        }
    }
    Ok(())
}

fn check_texts(draft: &ManifestDraft) -> Result<(), InvalidManifest> {
    let fits = |text: &String| text.len() <= MAX_TEXT_BYTES;
    let metadata = &draft.metadata;
    for (field, ok) in [
        ("author", fits(&draft.author)),
        ("comment", fits(&draft.comment)),
        ("inputs", draft.inputs.len() <= MAX_INPUTS && draft.inputs.iter().all(fits)),
        (
            "metadata",
            metadata.len() <= MAX_METADATA_PAIRS
                && metadata.iter().all(|(key, value)| fits(key) && fits(value)),
        ),
    ] {
        if !ok {
            return Err(InvalidManifest::Text { field });
        }
    }
    Ok(())
}
