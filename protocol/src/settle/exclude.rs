//! Avalon's built-in exclusions: what is never a published file, and what says that a publish is not finished.

use super::BlockerKind;
use crate::{inputs::SIDECAR, rel_path::RelPath};

/// What a path is to a publish.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exclusion {
    /// An ordinary file or directory.
    None,
    /// As if it were not there: never entered, never watched, never published.
    Ignored,
    /// Never published, and the version that it lies in is not whole while it is there.
    Blocks(BlockerKind),
}

/// Directories that are never entered, as whole names: `workbench` is an ordinary asset.
///
/// The others are what NAS boxes, Windows and Linux keep on a volume for themselves.
const IGNORED_DIRECTORIES: [&str; 7] =
    ["work", "@eaDir", "#recycle", "#snapshot", "lost+found", "$RECYCLE.BIN", "System Volume Information"];

/// What operating systems leave behind when somebody looks at a folder, in lower case.
const LITTER: [&str; 3] = [".ds_store", "thumbs.db", "desktop.ini"];

/// Endings of files that are not finished, in lower case. `.blend@` is what Blender writes before it renames.
const TEMP_ENDINGS: [&str; 9] =
    [".tmp", ".temp", ".part", ".partial", ".filepart", ".crdownload", ".swp", ".blend@", "~"];

/// How Avalon sync itself names a file that it has not finished.
const OWN_TEMP_PREFIX: &str = ".avalon-tmp-";

/// Says what a path, relative to the project or to a version directory, is to a publish.
///
/// The rules for directories hold for every part, so that all beneath an ignored directory is ignored too, and a file that
/// has the name of an ignored directory is ignored like it. The rules for files hold for the last part.
///
/// `stage` is ignored with what is in it, except where it is an asset: a part `stage` that `publish` follows. The
/// directory alone is therefore not excluded, all else in it is.
pub fn classify(path: &RelPath) -> Exclusion {
    let parts: Vec<&str> = path.parts().collect();
    let followed = parts.iter().zip(parts.iter().skip(1));
    let in_stage = followed.clone().any(|(part, next)| *part == "stage" && *next != "publish");
    let in_hidden = followed.clone().any(|(part, _)| part.starts_with('.'));
    if in_stage || in_hidden || parts.iter().any(|part| is_ignored_directory(part)) {
        return Exclusion::Ignored;
    }
    classify_name(path.file_name())
}

/// Says whether `name` is what an integrator renames the hero directory `hero` to while it writes a new one.
///
/// While it is there, the hero beside it is not whole.
pub fn hero_backup(name: &str) -> bool {
    name.starts_with("hero.BACKUP")
}

fn is_ignored_directory(part: &str) -> bool {
    IGNORED_DIRECTORIES.contains(&part)
        || part.ends_with("._stage")
        || hero_backup(part)
        || matches!(part, ".avalon" | ".git" | ".svn" | ".mayaSwatches" | ".snapshot")
}

fn classify_name(name: &str) -> Exclusion {
    let lower = name.to_ascii_lowercase();
    // Its content becomes part of the manifest, and travels with that.
    if name == SIDECAR
        || LITTER.contains(&lower.as_str())
        || lower.starts_with(".nfs")
        || lower.starts_with("._")
    {
        return Exclusion::Ignored;
    }
    // LibreOffice and Emacs.
    let is_editor_lock = lower.starts_with(".~lock.") || lower.starts_with(".#");
    if lower.ends_with(".lock") || is_editor_lock {
        return Exclusion::Blocks(BlockerKind::Lock);
    }
    if lower.ends_with(".bak") {
        return Exclusion::Blocks(BlockerKind::Backup);
    }
    let is_temp = lower.starts_with('~')
        || lower.starts_with(OWN_TEMP_PREFIX)
        || TEMP_ENDINGS.iter().any(|ending| lower.ends_with(ending));
    if is_temp || is_rsync_temp(name) { Exclusion::Blocks(BlockerKind::Temp) } else { Exclusion::None }
}

/// rsync writes `model.abc` as `.model.abc.x8Yq2Z`; a hidden file with just one more dot is somebody's settings.
fn is_rsync_temp(name: &str) -> bool {
    let Some((stem, suffix)) = name.strip_prefix('.').and_then(|rest| rest.rsplit_once('.')) else {
        return false;
    };
    stem.contains('.') && suffix.len() == 6 && suffix.bytes().all(|b| b.is_ascii_alphanumeric())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(path: &str, expected: Exclusion) {
        assert_eq!(classify(&path.parse().unwrap()), expected, "{path}");
    }

    #[test]
    fn published_files_and_the_way_to_them_are_not_excluded() {
        for path in [
            "assets",
            "assets/robot/publish/modelDefault/v001/modelDefault.abc",
            "assets/workbench/publish/work2/v001/homework.ma",
            "assets/stage",
            "assets/stage/publish/modelDefault/v001/modelDefault.abc",
            "film/sh010/publish/beauty/hero/beauty.1001.exr",
            "a/b.backup",
            "template.ma",
            "artwork.partial.exr",
            ".settings.config",
            "nul~l.ma",
        ] {
            check(path, Exclusion::None);
        }
    }

    #[test]
    fn work_stage_backup_and_hidden_directories_are_ignored_with_all_that_is_in_them() {
        for path in [
            "assets/robot/work",
            "assets/robot/work/model/maya/publish/x/v001/x.ma",
            "assets/robot/publish/x/stage/20260101/x.ma",
            "stage/a.ma",
            "assets/robot/publish/x/v001/repr.abc._stage",
            "assets/robot/publish/x/v001/repr.abc._stage/x.abc",
            "assets/robot/publish/x/hero.BACKUP",
            "assets/robot/publish/x/hero.BACKUP12/x.abc",
            ".avalon",
            ".avalon/incoming/x.abc",
            "assets/.git/HEAD",
            "tex/.mayaSwatches/skin.swatch",
            "assets/@eaDir/x",
            "x/.DS_Store",
            "x/THUMBS.DB",
            "x/desktop.ini",
            "x/.nfs000000000012ab",
            "x/._model.abc",
            "assets/robot/publish/x/v001/.avalon-inputs",
        ] {
            check(path, Exclusion::Ignored);
        }
    }

    #[test]
    fn locks_temporary_files_and_backups_block() {
        for (kind, names) in [
            (BlockerKind::Lock, vec![".publish.lock", "model.LOCK", ".~lock.notes.ods#", ".#model.ma"]),
            (BlockerKind::Backup, vec!["model.abc.bak", "model.BAK"]),
            (
                BlockerKind::Temp,
                vec![
                    "a.tmp",
                    "a.temp",
                    "a.exr.part",
                    "a.partial",
                    "~a.ma",
                    "~$notes.xlsx",
                    "a.ma~",
                    ".a.ma.swp",
                    "scene.blend@",
                    ".model.abc.x8Yq2Z",
                    ".avalon-tmp-77-0",
                    "A.TMP",
                ],
            ),
        ] {
            for name in names {
                check(&format!("assets/robot/publish/x/v001/{name}"), Exclusion::Blocks(kind));
            }
        }
    }
}
