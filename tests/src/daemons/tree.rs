//! Files as artists make them, and what is at a site in the end.

use std::{
    collections::BTreeMap,
    fs,
    io::Write as _,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    time::SystemTime,
};

use rand::{RngCore as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;
use walkdir::WalkDir;

/// Writes a file with all its directories.
pub fn write(path: &Path, content: &[u8]) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, content).unwrap();
}

/// Returns bytes that are the same for the same seed and do not compress.
pub fn noise(seed: u64, bytes: usize) -> Vec<u8> {
    let mut content = vec![0; bytes];
    ChaCha8Rng::seed_from_u64(seed).fill_bytes(&mut content);
    content
}

/// Writes a large file of noise.
pub fn write_noise(path: &Path, seed: u64, bytes: u64) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    let mut file = fs::File::create(path).unwrap();
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    let mut piece = vec![0; 1 << 20];
    let mut left = bytes;
    while left > 0 {
        random.fill_bytes(&mut piece);
        let length = left.min(piece.len() as u64) as usize;
        file.write_all(&piece[..length]).unwrap();
        left -= length as u64;
    }
}

/// Copies a directory as `cp -r` does, mtimes kept.
pub fn copy(from: &Path, to: &Path) {
    for entry in WalkDir::new(from) {
        let entry = entry.unwrap();
        let target = to.join(entry.path().strip_prefix(from).unwrap());
        if entry.file_type().is_dir() {
            fs::create_dir_all(&target).unwrap();
        } else {
            copy_file(entry.path(), &target);
        }
    }
}

/// Copies files that nobody else may read: a checkout forgets that.
pub fn copy_private(from: &Path, to: &Path) {
    copy(from, to);
    for entry in WalkDir::new(to) {
        let entry = entry.unwrap();
        let mode = if entry.file_type().is_dir() { 0o700 } else { 0o600 };
        fs::set_permissions(entry.path(), fs::Permissions::from_mode(mode)).unwrap();
    }
}

/// Copies one file, its mtime kept.
pub fn copy_file(from: &Path, to: &Path) {
    fs::create_dir_all(to.parent().unwrap()).unwrap();
    fs::copy(from, to).unwrap();
    let mtime = fs::metadata(from).unwrap().modified().unwrap();
    fs::File::options().write(true).open(to).unwrap().set_modified(mtime).unwrap();
}

/// What is to be compared of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    /// BLAKE3 of its content.
    pub hash: blake3::Hash,
    /// When it was changed.
    pub mtime: SystemTime,
}

/// Reads every file of a directory, except what is Avalon sync's own; the paths are relative to it.
pub fn read(dir: &Path) -> BTreeMap<PathBuf, Seen> {
    let own = |entry: &walkdir::DirEntry| entry.file_name() == ".avalon";
    let files = WalkDir::new(dir).into_iter().filter_entry(|entry| !own(entry)).map(Result::unwrap);
    let files = files.filter(|entry| !entry.file_type().is_dir()).map(|entry| {
        let mut hasher = blake3::Hasher::new();
        hasher.update_reader(fs::File::open(entry.path()).unwrap()).unwrap();
        let seen = Seen { hash: hasher.finalize(), mtime: entry.metadata().unwrap().modified().unwrap() };
        (entry.path().strip_prefix(dir).unwrap().to_owned(), seen)
    });
    files.collect()
}

/// Fails unless both directories have the same files with the same content and times.
pub fn assert_equal(one: &Path, other: &Path) {
    let (one_files, other_files) = (read(one), read(other));
    assert!(!one_files.is_empty(), "nothing in {}", one.display());
    assert_eq!(
        one_files.keys().collect::<Vec<_>>(),
        other_files.keys().collect::<Vec<_>>(),
        "{} and {}",
        one.display(),
        other.display()
    );
    for (path, seen) in &one_files {
        assert_eq!(seen, &other_files[path], "{}", path.display());
    }
}
