//! The show that the demo moves: somebody's project directory, or one made up here.

use std::{
    fs::{self, File, FileTimes},
    io::Write,
    path::{Path, PathBuf},
};

use avalon_protocol::{
    id::{AssetName, ProjectName, SubsetName, VersionId, VersionSlot},
    rel_path::RelPath,
    settle::{Exclusion, classify},
};
use walkdir::WalkDir;

use super::DemoError;

const MIB: usize = 1024 * 1024;

/// The project of a generated show.
const GENERATED_PROJECT: &str = "lantern";

/// A project's versions, as they lie on disk.
#[derive(Debug)]
pub(super) struct Show {
    /// The project, which is the directory's name.
    pub(super) project: ProjectName,
    /// The project's directory; only read.
    pub(super) dir: PathBuf,
    /// The versions, largest first: that one is still on its way when montreal is killed.
    pub(super) versions: Vec<ShowVersion>,
}

/// One version.
#[derive(Debug)]
pub(super) struct ShowVersion {
    /// Its name.
    pub(super) id: VersionId,
    /// Its directory, relative to the project.
    pub(super) dir: PathBuf,
    /// Its files.
    pub(super) files: Vec<ShowFile>,
}

/// One file.
#[derive(Debug)]
pub(super) struct ShowFile {
    /// Relative to the version directory.
    pub(super) path: PathBuf,
    /// Its size.
    pub(super) bytes: u64,
}

impl ShowVersion {
    /// Returns the size of all files.
    pub(super) fn bytes(&self) -> u64 {
        self.files.iter().map(|file| file.bytes).sum()
    }
}

impl Show {
    /// Reads a project directory: every `publish/<subset>/v<number>` in it is a version.
    ///
    /// What a daemon never publishes, such as `Thumbs.db` and work areas, is no part of it.
    pub(super) fn read(dir: &Path) -> Result<Self, DemoError> {
        let dir = fs::canonicalize(dir).map_err(|source| failed("read", dir, source))?;
        let name = dir.file_name().unwrap_or_default().to_string_lossy();
        let project: ProjectName = name.parse().map_err(|error| bad_name(&dir, error))?;
        let mut versions = Vec::new();
        let mut walk = WalkDir::new(&dir).sort_by_file_name().into_iter();
        while let Some(entry) = walk.next() {
            let entry = entry.map_err(|error| failed("read", &dir, error.into()))?;
            if !entry.file_type().is_dir() || entry.depth() == 0 {
                continue;
            }
            let relative = entry.path().strip_prefix(&dir).unwrap_or(entry.path());
            if rel_path(relative).is_none_or(|path| classify(&path) == Exclusion::Ignored) {
                walk.skip_current_dir();
            } else if let Some(id) = version_of(&project, relative) {
                versions.push(ShowVersion { id, dir: relative.to_owned(), files: files(entry.path())? });
                walk.skip_current_dir();
            }
        }
        versions.retain(|version| !version.files.is_empty());
        if versions.is_empty() {
            return Err(DemoError::NoVersions { path: dir });
        }
        versions.sort_by_key(|version| std::cmp::Reverse(version.bytes()));
        Ok(Self { project, dir, versions })
    }

    /// Writes a small show into `parent` and reads it: 5 versions of about 70 MiB, the same bytes each time.
    pub(super) fn generate(parent: &Path) -> Result<Self, DemoError> {
        let dir = parent.join(GENERATED_PROJECT);
        let model = "assets/robot/publish/modelDefault";
        for (number, moved) in [(1, 0), (2, 40)] {
            let dir = dir.join(format!("{model}/v{number:03}"));
            write(&dir.join("modelDefault.obj"), mesh(30_000, moved).as_bytes())?;
            write(&dir.join("modelDefault.mtl"), b"newmtl copper\nKd 0.72 0.45 0.20\n")?;
            write(&dir.join("modelDefault.fbx"), &noise("fbx", 2 * MIB))?;
        }
        let textures = dir.join("assets/robot/publish/textureDefault/v001");
        for tile in 1001..=1004 {
            for channel in ["diffuse", "normal"] {
                let name = format!("robot_{channel}.{tile}.tif");
                write(&textures.join(&name), &noise(&name, MIB / 4))?;
            }
        }
        let beauty = dir.join("film/sh010/publish/beauty/v001/beauty.dpx");
        for frame in 1001..=1016 {
            let name = format!("beauty.{frame}.dpx");
            write(&beauty.join(&name), &noise(&name, MIB / 8))?;
        }
        write(&dir.join("film/sh010/publish/smoke/v001/smoke.vdb"), &noise("smoke", 64 * MIB))?;
        Self::read(&dir)
    }

    /// Returns the number of all files.
    pub(super) fn files(&self) -> u64 {
        self.versions.iter().map(|version| version.files.len() as u64).sum()
    }

    /// Returns the size of all files.
    pub(super) fn bytes(&self) -> u64 {
        self.versions.iter().map(ShowVersion::bytes).sum()
    }
}

/// Publishes a version as a careful integrator does: copies it aside, then renames the directory into the project.
pub(super) fn publish(
    show: &Show,
    version: &ShowVersion,
    stage: &Path,
    project_dir: &Path,
) -> Result<(), DemoError> {
    let (from, staged) = (show.dir.join(&version.dir), stage.join("version"));
    for file in &version.files {
        let (source, target) = (from.join(&file.path), staged.join(&file.path));
        make_parent(&target)?;
        fs::copy(&source, &target).map_err(|error| failed("copy", &source, error))?;
        keep_time(&source, &target).map_err(|error| failed("copy", &source, error))?;
    }
    let target = project_dir.join(&version.dir);
    make_parent(&target)?;
    fs::rename(&staged, &target).map_err(|source| failed("make", &target, source))
}

fn keep_time(source: &Path, target: &Path) -> std::io::Result<()> {
    let modified = fs::metadata(source)?.modified()?;
    let target = File::options().append(true).open(target)?;
    target.set_times(FileTimes::new().set_modified(modified))
}

/// Returns the version that a directory is, by the default template: `.../<asset>/publish/<subset>/v<number>`.
fn version_of(project: &ProjectName, dir: &Path) -> Option<VersionId> {
    let mut parts = dir.iter().rev().map(|part| part.to_str());
    let version = parts.next()??;
    let (subset, publish, asset) = (parts.next()??, parts.next()??, parts.next()??);
    // A silo stands before the asset.
    if publish != "publish" || parts.next().is_none() {
        return None;
    }
    let number: u32 = version.strip_prefix('v')?.parse().ok()?;
    Some(VersionId {
        project: project.clone(),
        asset: asset.parse::<AssetName>().ok()?,
        subset: subset.parse::<SubsetName>().ok()?,
        slot: VersionSlot::Number(number),
    })
}

fn files(version_dir: &Path) -> Result<Vec<ShowFile>, DemoError> {
    let mut files = Vec::new();
    for entry in WalkDir::new(version_dir).sort_by_file_name() {
        let entry = entry.map_err(|error| failed("read", version_dir, error.into()))?;
        let relative = entry.path().strip_prefix(version_dir).unwrap_or(entry.path());
        let is_published = rel_path(relative).is_some_and(|path| classify(&path) != Exclusion::Ignored);
        if entry.file_type().is_file() && is_published {
            let metadata = entry.metadata().map_err(|error| failed("read", entry.path(), error.into()))?;
            files.push(ShowFile { path: relative.to_owned(), bytes: metadata.len() });
        }
    }
    Ok(files)
}

fn rel_path(path: &Path) -> Option<RelPath> {
    path.to_str()?.parse().ok()
}

/// A mesh as text: the kind of file of which two versions differ in a few lines.
fn mesh(points: u32, moved: u32) -> String {
    let mut text = String::from("# robot\no modelDefault\n");
    for point in 0..points {
        let height = if point < moved { point * 7 } else { point * 3 };
        text.push_str(&format!("v {}.{:04} {}.5000 {}.2500\n", point % 97, point, height % 89, point % 61));
    }
    text
}

/// Bytes that nothing compresses, the same each time.
fn noise(seed: &str, bytes: usize) -> Vec<u8> {
    let mut content = vec![0; bytes];
    blake3::Hasher::new().update(seed.as_bytes()).finalize_xof().fill(&mut content);
    content
}

fn write(path: &Path, content: &[u8]) -> Result<(), DemoError> {
    make_parent(path)?;
    let written = File::create(path).and_then(|mut file| file.write_all(content));
    written.map_err(|source| failed("write", path, source))
}

fn make_parent(path: &Path) -> Result<(), DemoError> {
    let parent = path.parent().unwrap_or(path);
    fs::create_dir_all(parent).map_err(|source| failed("make", parent, source))
}

/// Says what could not be done with a file.
pub(super) fn failed(action: &'static str, path: &Path, source: std::io::Error) -> DemoError {
    DemoError::File { action, path: path.to_owned(), source }
}

fn bad_name(path: &Path, error: avalon_protocol::id::InvalidId) -> DemoError {
    DemoError::Name { path: path.to_owned(), source: Box::new(error) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_generated_show_is_the_same_each_time_and_its_largest_version_comes_first() {
        let dir = tempfile::tempdir().unwrap();
        let show = Show::generate(dir.path()).unwrap();
        assert_eq!((show.versions.len(), show.files()), (5, 31));
        let ids: Vec<String> = show.versions.iter().map(|version| version.id.to_string()).collect();
        assert_eq!(ids.first().unwrap(), "lantern:sh010/smoke@v001");
        assert!(ids.contains(&"lantern:robot/modelDefault@v002".to_owned()), "{ids:?}");
        assert_eq!(show.versions[0].bytes(), 64 * 1024 * 1024);
        assert_eq!(noise("a", 70), noise("a", 70));
        assert_ne!(noise("a", 70), noise("b", 70));
    }

    #[test]
    fn only_versions_are_read_and_only_what_a_daemon_publishes() {
        let dir = tempfile::tempdir().unwrap();
        let project = dir.path().join("comet");
        for path in [
            "assets/a/publish/m/v001/m.ma",
            "assets/a/publish/m/v001/Thumbs.db",
            "film/seq1/sh010/publish/render/v0002/r.exr/r.1001.exr",
            "assets/a/publish/m/hero/m.ma",
            "assets/a/publish/m/vX/m.ma",
            "assets/a/work/b/publish/m/v001/m.ma",
            "publish/m/v001/m.ma",
        ] {
            write(&project.join(path), b"x").unwrap();
        }
        fs::create_dir_all(project.join("assets/a/publish/m/v009")).unwrap();
        let show = Show::read(&project).unwrap();
        let found: Vec<_> = show.versions.iter().map(|v| (v.id.to_string(), v.files.len())).collect();
        assert_eq!(found, [("comet:a/m@v001".into(), 1), ("comet:sh010/render@v002".into(), 1)]);
        assert!(matches!(
            Show::read(&project.join("film/seq1/sh010/publish")),
            Err(DemoError::NoVersions { .. })
        ));
    }

    #[test]
    fn a_published_version_is_an_equal_copy_with_the_times_of_the_files() {
        let dir = tempfile::tempdir().unwrap();
        let project = dir.path().join("comet");
        write(&project.join("assets/a/publish/m/v001/sub/m.ma"), b"maya").unwrap();
        let show = Show::read(&project).unwrap();
        let (stage, target) = (dir.path().join("stage"), dir.path().join("root/comet"));
        publish(&show, &show.versions[0], &stage, &target).unwrap();
        let relative = "assets/a/publish/m/v001/sub/m.ma";
        assert_eq!(fs::read(target.join(relative)).unwrap(), b"maya");
        let modified = |dir: &Path| fs::metadata(dir.join(relative)).unwrap().modified().unwrap();
        assert_eq!(modified(&target), modified(&project));
        assert!(fs::read_dir(&stage).unwrap().next().is_none(), "nothing is left in the stage");
    }
}
