//! Which paths of a project have to do with publishing.

use avalon_protocol::{
    rel_path::RelPath,
    settle::{Exclusion, classify},
    template::{TemplateSet, VersionDir},
};

/// Finds the version directory that `path` is or lies in; both relative to the project.
pub fn version_dir_of(templates: &TemplateSet, path: &RelPath) -> Option<VersionDir> {
    match templates.invert(path) {
        Some(file) => Some(VersionDir { dir: file.dir, fields: file.fields }),
        None => templates.invert_dir(path),
    }
}

/// Says whether a directory may have a version in it, is one, or lies in one; and is not excluded.
pub fn concerns_publishing(templates: &TemplateSet, dir: &RelPath) -> bool {
    classify(dir) == Exclusion::None
        && (templates.could_lead_to_version(dir) || templates.invert(dir).is_some())
}

#[cfg(test)]
mod tests {
    use avalon_protocol::template::{DEFAULT_PUBLISH, Template};

    use super::*;

    #[test]
    fn only_the_way_to_versions_and_what_is_in_them_concerns_publishing() {
        let templates = TemplateSet::new(vec![Template::parse(DEFAULT_PUBLISH).unwrap()]).unwrap();
        let concerns = |path: &str| concerns_publishing(&templates, &path.parse().unwrap());
        for path in [
            "assets",
            "assets/robot",
            "assets/robot/publish",
            "assets/robot/publish/model",
            "assets/robot/publish/model/v001",
            "assets/robot/publish/model/hero",
            "film/sh010/publish/beauty/v001/beauty.exr",
            "film/sh010/publish/beauty/v001/a/b/c",
        ] {
            assert!(concerns(path), "{path}");
        }
        for path in [
            ".avalon",
            "assets/robot/work",
            "assets/robot/notes",
            "assets/robot/publish/model/hero.BACKUP1",
            "assets/robot/publish/model/latest",
            "assets/robot/publish/model/v001/.git",
        ] {
            assert!(!concerns(path), "{path}");
        }
        let dir = |path: &str| version_dir_of(&templates, &path.parse().unwrap()).map(|v| v.dir.to_string());
        let version = "assets/robot/publish/model/v001";
        assert_eq!(dir(version).as_deref(), Some(version));
        assert_eq!(dir(&format!("{version}/tex/a.exr")).as_deref(), Some(version));
        assert_eq!(dir("assets/robot/publish/model"), None);
    }
}
