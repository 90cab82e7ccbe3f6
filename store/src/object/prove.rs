//! Reading all of a version for a proof of possession: see [`avalon_protocol::drop`].

use std::io;

use avalon_protocol::{
    block::block_count, drop::Prover, hash::ObjectHash, manifest::Manifest, rel_path::RelPath,
};
use thiserror::Error;

use super::name::with_block;
use crate::fs::{Dir, FileStat, IoError};

/// Whether it is checked that files hold what the manifest names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Names {
    /// Whoever compares the proof does that.
    Trust,
    /// Each file is hashed besides.
    Check,
}

/// Why there is no proof.
#[derive(Debug, Error)]
pub enum ProveError {
    /// A file is not as the manifest says, or changed while it was read.
    #[error("{path} is not what was published")]
    Changed {
        /// The file, relative to the project.
        path: RelPath,
    },
    /// Whoever asked wants no more.
    #[error("nobody waits for the proof any more")]
    Stopped,
    /// It is gone, or the system refuses.
    #[error("{path} cannot be read")]
    Io {
        /// The file, relative to the project.
        path: RelPath,
        /// What and why.
        #[source]
        source: IoError,
    },
}

/// Reads every file of a version from the project tree, in the order of the manifest, and gives each byte to each prover.
///
/// `go_on` is told how many bytes were read since it was last told, and ends it with `false`. Returns what the file system
/// says of each file, the same before it was read and after. One thread, one block in memory. That it was read does not count
/// as use.
///
/// # Errors
/// [`ProveError`]; the provers are of no use then.
pub fn read_version(
    project: &Dir,
    manifest: &Manifest,
    provers: &mut [Prover],
    names: Names,
    go_on: &dyn Fn(u64) -> bool,
) -> Result<Vec<FileStat>, ProveError> {
    let mut stats = Vec::with_capacity(manifest.files().len());
    for entry in manifest.files() {
        let Ok(path) = manifest.dir().join(&entry.path) else { return Err(ProveError::Stopped) };
        let changed = || ProveError::Changed { path: path.clone() };
        let failed = |source| ProveError::Io { path: path.clone(), source };
        let file = project.open_unnoticed(&path).map_err(failed)?;
        let at = || project.path().join(path.as_str());
        let stat = || file.metadata().map(|m| FileStat::from(&m)).map_err(|e| IoError::new("stat", at(), e));
        let before = stat().map_err(failed)?;
        if before.size != entry.size {
            return Err(changed());
        }
        provers.iter_mut().for_each(|prover| prover.file(entry.size));
        let mut name = (names == Names::Check).then(blake3::Hasher::new);
        for index in 0..block_count(entry.size) {
            let read = with_block(&file, entry.size, index, |bytes| {
                provers.iter_mut().for_each(|prover| prover.bytes(bytes));
                if let Some(name) = &mut name {
                    name.update(bytes);
                }
                Ok(bytes.len() as u64)
            });
            match read {
                Ok(bytes) if go_on(bytes) => {}
                Ok(_) => return Err(ProveError::Stopped),
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Err(changed()),
                Err(error) => return Err(failed(IoError::new("read", at(), error))),
            }
        }
        let is_named =
            |name: blake3::Hasher| ObjectHash::from_bytes(*name.finalize().as_bytes()) == entry.hash;
        if stat().map_err(failed)?.identity() != before.identity() || !name.is_none_or(is_named) {
            return Err(changed());
        }
        stats.push(before);
    }
    Ok(stats)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use avalon_protocol::drop::{Nonce, Proof};

    use super::*;
    use crate::{
        fs::WriteMode,
        object::fixture::{BLOCK, Studio, bytes},
    };

    fn write(studio: &Studio, manifest: &Manifest, name: &str, content: &[u8]) {
        let path = manifest.dir().join(&name.parse().unwrap()).unwrap();
        studio.project.create_dirs(&path.parent().unwrap()).unwrap();
        studio.project.write_atomic(&path, content, WriteMode::Replace).unwrap();
    }

    fn prove(studio: &Studio, manifest: &Manifest, names: Names) -> Result<Proof, ProveError> {
        let node = "srv@london".parse().unwrap();
        let mut provers = [Prover::new(&Nonce::from_bytes([5; 32]), &node, &manifest.id())];
        read_version(&studio.project, manifest, &mut provers, names, &|_| true)?;
        Ok(provers[0].finish())
    }

    #[test]
    fn the_proof_is_of_the_bytes_that_are_there_now() {
        let mut studio = Studio::new();
        let (large, small) = (bytes(2 * BLOCK + 9, 1), bytes(100, 2));
        let manifest = studio.version(&[("a", &large), ("b/c", &small), ("empty", b"")]);
        let dir = studio.path().join(manifest.dir().as_str());
        for (name, content) in [("a", &large), ("b/c", &small), ("empty", &Vec::new())] {
            write(&studio, &manifest, name, content);
        }
        let good = prove(&studio, &manifest, Names::Trust).unwrap();
        assert_eq!(prove(&studio, &manifest, Names::Check).unwrap(), good);

        let mut flipped = large.clone();
        flipped[BLOCK + 5] ^= 1;
        write(&studio, &manifest, "a", &flipped);
        assert_ne!(prove(&studio, &manifest, Names::Trust).unwrap(), good);
        let refused = prove(&studio, &manifest, Names::Check).unwrap_err();
        assert!(matches!(refused, ProveError::Changed { path } if path.as_str().ends_with("/a")));
        write(&studio, &manifest, "a", &large[..BLOCK]);
        assert!(matches!(prove(&studio, &manifest, Names::Trust), Err(ProveError::Changed { .. })));
        fs::remove_file(dir.join("a")).unwrap();
        assert!(matches!(prove(&studio, &manifest, Names::Trust), Err(ProveError::Io { .. })));
    }

    #[test]
    fn it_ends_when_nobody_waits() {
        let mut studio = Studio::new();
        let large = bytes(3 * BLOCK, 1);
        let manifest = studio.version(&[("a", &large)]);
        write(&studio, &manifest, "a", &large);
        let read = std::cell::Cell::new(0);
        let ended = read_version(&studio.project, &manifest, &mut [], Names::Trust, &|bytes| {
            read.set(read.get() + bytes);
            false
        });
        assert!(matches!(ended, Err(ProveError::Stopped)));
        assert_eq!(read.get(), BLOCK as u64);
    }
}
