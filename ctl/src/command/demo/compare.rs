//! Compares what arrived with the show, file by file, by BLAKE3.

use std::{
    fs::File,
    io,
    path::{Path, PathBuf},
};

use walkdir::WalkDir;

use super::show::ShowVersion;

/// How the copies of some versions are.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Comparison {
    /// How many files were compared.
    pub(super) compared: u64,
    /// Files whose content differs, or that cannot be read.
    pub(super) differ: Vec<PathBuf>,
    /// Files that are not there.
    pub(super) missing: Vec<PathBuf>,
    /// Files that should not be there.
    pub(super) extra: Vec<PathBuf>,
}

impl Comparison {
    /// Adds another comparison to this one.
    pub(super) fn and(mut self, other: Self) -> Self {
        self.compared += other.compared;
        self.differ.extend(other.differ);
        self.missing.extend(other.missing);
        self.extra.extend(other.extra);
        self
    }
}

/// One version at one site, as something that a worker can take along.
#[derive(Debug)]
pub(super) struct Task {
    files: Vec<PathBuf>,
    source: PathBuf,
    copy: PathBuf,
}

impl Task {
    /// Compares the version in one project directory with that in another.
    pub(super) fn new(version: &ShowVersion, source_project: &Path, copy_project: &Path) -> Self {
        let files = version.files.iter().map(|file| file.path.clone()).collect();
        Self { files, source: source_project.join(&version.dir), copy: copy_project.join(&version.dir) }
    }

    /// Reads every file on both sides.
    pub(super) fn compare(&self) -> Comparison {
        let mut comparison = Comparison::default();
        for file in &self.files {
            let (source, copy) = (self.source.join(file), self.copy.join(file));
            comparison.compared += 1;
            match (hash(&source), hash(&copy)) {
                (Ok(source), Ok(copy)) if source == copy => {}
                (_, Err(error)) if error.kind() == io::ErrorKind::NotFound => comparison.missing.push(copy),
                _ => comparison.differ.push(copy),
            }
        }
        let found =
            WalkDir::new(&self.copy).into_iter().flatten().filter(|entry| !entry.file_type().is_dir());
        let relative = |path: &Path| path.strip_prefix(&self.copy).map(Path::to_owned).unwrap_or_default();
        let extra = found.filter(|entry| !self.files.contains(&relative(entry.path())));
        comparison.extra.extend(extra.map(walkdir::DirEntry::into_path));
        comparison
    }
}

fn hash(path: &Path) -> io::Result<blake3::Hash> {
    let mut hasher = blake3::Hasher::new();
    hasher.update_reader(File::open(path)?)?;
    Ok(hasher.finalize())
}

#[cfg(test)]
mod tests {
    use std::{fs, io::Write};

    use super::{super::show::Show, *};

    #[test]
    fn every_kind_of_difference_is_counted() {
        let dir = tempfile::tempdir().unwrap();
        let write = |path: &str, content: &[u8]| {
            let path = dir.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            File::create(path).unwrap().write_all(content).unwrap();
        };
        for name in ["same", "changed", "lost"] {
            write(&format!("comet/assets/a/publish/m/v001/{name}"), b"one");
        }
        write("copy/assets/a/publish/m/v001/same", b"one");
        write("copy/assets/a/publish/m/v001/changed", b"two");
        write("copy/assets/a/publish/m/v001/added", b"one");
        let show = Show::read(&dir.path().join("comet")).unwrap();
        let copy = dir.path().join("copy");
        let comparison = Task::new(&show.versions[0], &show.dir, &copy).compare();
        let at = |name: &str| vec![copy.join("assets/a/publish/m/v001").join(name)];
        assert_eq!(comparison.compared, 3);
        assert_eq!(comparison.differ, at("changed"));
        assert_eq!(comparison.missing, at("lost"));
        assert_eq!(comparison.extra, at("added"));
        let nowhere = Task::new(&show.versions[0], &show.dir, &dir.path().join("nowhere")).compare();
        assert_eq!(nowhere.missing.len(), 3);
    }
}
