//! From a path in a file to the published version that it leads to, at any site.
//!
//! Scenes hold paths of the machine that they were saved on: absolute, with another root or drive, with a variable for the
//! root, or relative to the file. The same version lies somewhere else at every site, so what is kept is its name, read
//! from the path by the project's template. A path that no template reads is kept as it is.

use std::collections::BTreeSet;

use super::{
    Find, Input,
    input::{drive, is_path},
    numbered::with_number,
};
use crate::{
    id::{ProjectName, VersionId, VersionSlot},
    reference::{Pattern, Reference, VersionSelector},
    rel_path::RelPath,
    template::TemplateSet,
};

/// How scenes write the root of all projects, which differs from machine to machine.
const ROOTS: [&str; 5] =
    ["{root}", "{root[work]}", "$AVALON_PROJECTS", "${AVALON_PROJECTS}", "%AVALON_PROJECTS%"];

/// A project that this node serves.
#[derive(Debug, Clone, Copy)]
pub struct KnownProject<'a> {
    /// Its name, as it stands in paths.
    pub name: &'a ProjectName,
    /// Where it lies on this machine: an absolute path.
    pub dir: &'a str,
    /// How versions lie in it.
    pub templates: &'a TemplateSet,
}

/// The file that paths were found in.
#[derive(Debug, Clone, Copy)]
pub struct Scanned<'a> {
    /// The version that it belongs to.
    pub version: &'a VersionId,
    /// The version directory, relative to the project.
    pub dir: &'a RelPath,
    /// The files of the version, relative to its directory: what leads to one of them is no input.
    pub files: &'a BTreeSet<RelPath>,
    /// The directory that relative paths start from, relative to the project: that of the file.
    pub base: &'a RelPath,
}

/// Finds the versions that paths lead to.
#[derive(Debug, Clone, Copy)]
pub struct Locator<'a> {
    projects: &'a [KnownProject<'a>],
}

impl<'a> Locator<'a> {
    /// Takes the projects that this node serves.
    pub fn new(projects: &'a [KnownProject<'a>]) -> Self {
        Self { projects }
    }

    /// Returns the input that something found in a file is; `None` for what belongs to the version itself.
    pub fn input_of(&self, scanned: &Scanned<'_>, find: &Find) -> Option<Input> {
        match find {
            Find::Path(path) => self.path(scanned, path),
            Find::SubsetVersion(number) => {
                let slot: VersionSlot = number.to_string().parse().ok()?;
                let version = VersionId { slot, ..scanned.version.clone() };
                (version != *scanned.version).then(|| Input::Reference(reference(scanned, &version, None)))
            }
        }
    }

    /// Returns the input that somebody wrote: a reference, or a path, absolute or relative to `scanned.base`.
    pub fn given(&self, scanned: &Scanned<'_>, text: &str) -> Option<Input> {
        match Input::read(text) {
            Input::Path(path) if is_path(&path) => self.path(scanned, &path),
            Input::Reference(mut reference) => {
                let own = &scanned.version.project;
                reference.project = reference.project.filter(|project| project != own);
                Some(Input::Reference(reference))
            }
            other => Some(other),
        }
    }

    fn path(&self, scanned: &Scanned<'_>, text: &str) -> Option<Input> {
        let plain = plain(text);
        let mut outside = None;
        for place in self.places(scanned, &plain) {
            match self.at(scanned, &place) {
                Lies::In(input) => return Some(input),
                Lies::InItself => return None,
                Lies::Nowhere(path) => outside = outside.or(path),
            }
        }
        Some(Input::Path(outside.unwrap_or(plain)))
    }

    /// Returns where a path may lie, as parts beneath the root of all projects, likeliest first.
    fn places<'p>(&self, scanned: &Scanned<'_>, path: &'p str) -> Vec<Place<'p>> {
        let mut places = Vec::new();
        if let Some(inside) = ROOTS.iter().find_map(|root| path.strip_prefix(root)) {
            places.push(Place { parts: parts_of(inside), is_sure: true });
            return places;
        }
        let parts = parts_of(path);
        let is_absolute = path.starts_with('/') || drive(path).is_some();
        for project in self.projects.iter().filter(|_| is_absolute) {
            let dir = plain(project.dir);
            let dir = parts_of(&dir);
            let is_within = parts.len() >= dir.len() && parts.iter().zip(&dir).all(|(part, dir)| part == dir);
            if is_within {
                let inside = parts.get(dir.len()..).unwrap_or_default();
                let parts = [&[project.name.to_string().into()], inside].concat();
                places.push(Place { parts, is_sure: true });
            }
        }
        if !is_absolute && !path.contains("://") {
            let own = std::iter::once(scanned.version.project.as_str()).chain(scanned.base.parts());
            let above: Vec<Part<'p>> = own.map(|part| part.to_owned().into()).collect();
            // Of the file first; some programs mean the project, or the root.
            places.push(Place { parts: [above.as_slice(), &parts].concat(), is_sure: true });
            let project = scanned.version.project.to_string().into();
            places.push(Place { parts: [&[project], parts.as_slice()].concat(), is_sure: false });
        }
        // Written on another machine, where the root is another: the project's name is the same.
        for (index, part) in parts.iter().enumerate() {
            if self.projects.iter().any(|project| project.name.as_str() == part.as_ref()) {
                places.push(Place { parts: parts.get(index..).unwrap_or_default().to_vec(), is_sure: false });
            }
        }
        places
    }

    fn at(&self, scanned: &Scanned<'_>, place: &Place<'_>) -> Lies {
        let Some(parts) = resolved(&place.parts) else { return Lies::Nowhere(None) };
        let shown = || place.is_sure.then(|| format!("{{root}}/{}", parts.join("/")));
        let Some((name, inside)) = parts.split_first() else { return Lies::Nowhere(None) };
        let Some(project) = self.projects.iter().find(|project| project.name.as_str() == *name) else {
            return Lies::Nowhere(shown());
        };
        let numbered = with_number(&inside.join("/"));
        let Ok(path) = numbered.parse::<RelPath>() else { return Lies::Nowhere(shown()) };
        if *project.name == scanned.version.project
            && let Some(own) = path.strip_prefix(scanned.dir)
        {
            return if is_own(scanned.files, &own) { Lies::InItself } else { Lies::Nowhere(shown()) };
        }
        let (fields, representation) = match project.templates.invert(&path) {
            Some(file) => (file.fields, Some(file.representation)),
            None => match project.templates.invert_dir(&path) {
                Some(dir) => (dir.fields, None),
                None => return Lies::Nowhere(shown()),
            },
        };
        let version = fields.version_id(project.name);
        if version == *scanned.version {
            return Lies::InItself;
        }
        let representation = representation.as_ref().map(Pattern::from);
        Lies::In(Input::Reference(reference(scanned, &version, representation)))
    }
}

type Part<'p> = std::borrow::Cow<'p, str>;

/// A place that a path may mean.
struct Place<'p> {
    /// The project's directory, and the way from there; with `.` and `..`.
    parts: Vec<Part<'p>>,
    /// Whether the path means it even if nothing published lies there.
    is_sure: bool,
}

enum Lies {
    In(Input),
    InItself,
    Nowhere(Option<String>),
}

fn reference(scanned: &Scanned<'_>, version: &VersionId, representation: Option<Pattern>) -> Reference {
    let is_own = version.project == scanned.version.project;
    Reference {
        project: (!is_own).then(|| version.project.clone()),
        asset: Pattern::from(&version.asset),
        subset: Pattern::from(&version.subset),
        representation,
        version: VersionSelector::Slot(version.slot),
    }
}

/// Writes a path with `/`, without a scheme.
fn plain(text: &str) -> String {
    let path = text.trim().replace('\\', "/");
    let path = path.strip_prefix("file://").map_or(path.as_str(), |path| match path.strip_prefix('/') {
        Some(on_drive) if drive(on_drive).is_some() => on_drive,
        _ => path,
    });
    path.to_owned()
}

fn parts_of(path: &str) -> Vec<Part<'_>> {
    path.split('/').filter(|part| !part.is_empty()).map(Part::from).collect()
}

/// Takes `.` and `..` away; `None` for what leaves the root.
fn resolved<'p>(parts: &'p [Part<'_>]) -> Option<Vec<&'p str>> {
    let mut plain = Vec::with_capacity(parts.len());
    for part in parts {
        match part.as_ref() {
            "." => {}
            ".." => drop(plain.pop()?),
            part => plain.push(part),
        }
    }
    Some(plain)
}

/// Says whether the version has this file, or another frame or tile of it.
fn is_own(files: &BTreeSet<RelPath>, path: &RelPath) -> bool {
    files.contains(path) || files.iter().any(|file| file.is_within(path)) || {
        let wanted = without_digits(path.as_str());
        files.iter().any(|file| without_digits(file.as_str()) == wanted)
    }
}

fn without_digits(name: &str) -> String {
    name.chars().filter(|c| !c.is_ascii_digit()).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::template::{DEFAULT_PUBLISH, Template};

    struct Studio {
        names: Vec<ProjectName>,
        templates: TemplateSet,
        version: VersionId,
        dir: RelPath,
        files: BTreeSet<RelPath>,
    }

    impl Studio {
        fn new() -> Self {
            Self {
                names: vec!["lantern".parse().unwrap(), "comet".parse().unwrap()],
                templates: TemplateSet::new(vec![Template::parse(DEFAULT_PUBLISH).unwrap()]).unwrap(),
                version: VersionId {
                    project: "lantern".parse().unwrap(),
                    asset: "sh010".parse().unwrap(),
                    subset: "layout".parse().unwrap(),
                    slot: "v002".parse().unwrap(),
                },
                dir: "film/sh010/publish/layout/v002".parse().unwrap(),
                files: ["layout.ma", "tex/a.1001.exr", "tex/a.1002.exr"].map(|f| f.parse().unwrap()).into(),
            }
        }

        fn locate(&self, find: &Find) -> Option<String> {
            self.with(|locator, scanned| locator.input_of(scanned, find))
        }

        fn with(&self, ask: impl Fn(&Locator<'_>, &Scanned<'_>) -> Option<Input>) -> Option<String> {
            let dirs = ["/srv/projects/lantern", "/mnt/old/comet"];
            let projects: Vec<KnownProject<'_>> = self
                .names
                .iter()
                .zip(dirs)
                .map(|(name, dir)| KnownProject { name, dir, templates: &self.templates })
                .collect();
            let (version, dir, files) = (&self.version, &self.dir, &self.files);
            let scanned = Scanned { version, dir, files, base: dir };
            ask(&Locator::new(&projects), &scanned).map(|input| input.to_string())
        }
    }

    #[track_caller]
    fn check(path: &str, expected: Option<&str>) {
        assert_eq!(Studio::new().locate(&Find::Path(path.into())).as_deref(), expected, "{path}");
    }

    #[test]
    fn a_path_leads_to_the_same_version_whatever_machine_wrote_it() {
        let model = Some("robot/modelDefault/usdc@v003");
        let inside = "assets/robot/publish/modelDefault/v003/modelDefault.usdc";
        for path in [
            format!("/srv/projects/lantern/{inside}"),
            format!("/srv/projects//lantern/./film/../{inside}"),
            format!("file:///srv/projects/lantern/{inside}"),
            format!("/nas/shows/lantern/{inside}"),
            format!("P:/projects/lantern/{inside}"),
            format!("P:\\lantern\\{}", inside.replace('/', "\\")),
            format!("file:///P:/lantern/{inside}"),
            format!("\\\\nas\\shows\\lantern\\{}", inside.replace('/', "\\")),
            format!("$AVALON_PROJECTS/lantern/{inside}"),
            format!("${{AVALON_PROJECTS}}/lantern/{inside}"),
            format!("%AVALON_PROJECTS%\\lantern\\{}", inside.replace('/', "\\")),
            format!("{{root}}/lantern/{inside}"),
            format!("../../../../../{inside}"),
            format!("./../../../../../{inside}"),
            format!("../../../../../../lantern/{inside}"),
            format!("lantern/{inside}"),
            inside.to_owned(),
        ] {
            check(&path, model);
        }
    }

    #[test]
    fn frames_tiles_heroes_and_directories_lead_to_their_version() {
        let robot = "/srv/projects/lantern/assets/robot/publish";
        check(&format!("{robot}/textureDefault/v003/a.<UDIM>.exr"), Some("robot/textureDefault/exr@v003"));
        check(&format!("{robot}/beauty/v001/beauty.exr/beauty.%04d.exr"), Some("robot/beauty/exr@v001"));
        check(&format!("{robot}/beauty/v001/beauty.exr/"), Some("robot/beauty/exr@v001"));
        check(&format!("{robot}/model/hero/model.abc"), Some("robot/model/abc@hero"));
        check(&format!("{robot}/model/v002"), Some("robot/model@v002"));
        check("/mnt/old/comet/assets/ship/publish/m/v001/m.ma", Some("comet:ship/m/ma@v001"));
        check("../../../../../../comet/assets/ship/publish/m/v001/m.ma", Some("comet:ship/m/ma@v001"));
    }

    #[test]
    fn what_is_not_published_stays_a_path_that_others_can_read() {
        check("/mnt/library/wood.exr", Some("/mnt/library/wood.exr"));
        check("P:\\library\\wood.exr", Some("P:/library/wood.exr"));
        check("https://example.org/a.exr", Some("https://example.org/a.exr"));
        let work = "film/sh010/work/light/tex.exr";
        check(&format!("/srv/projects/lantern/{work}"), Some(&format!("{{root}}/lantern/{work}")));
        check("../../../work/light/tex.exr", Some(&format!("{{root}}/lantern/{work}")));
        check(&format!("/nas/lantern/{work}"), Some(&format!("/nas/lantern/{work}")));
        check("{root}/ghost/assets/a/publish/b/v001/b.ma", Some("{root}/ghost/assets/a/publish/b/v001/b.ma"));
        check("../../../../../../../../x.exr", Some("../../../../../../../../x.exr"));
        check("sourceimages/x.exr", Some("{root}/lantern/film/sh010/publish/layout/v002/sourceimages/x.exr"));
    }

    #[test]
    fn the_own_files_of_a_version_are_no_inputs_and_a_missing_one_is_told() {
        for path in ["layout.ma", "./tex/a.1001.exr", "tex/a.<UDIM>.exr", "tex", "tex/a.1099.exr"] {
            check(path, None);
        }
        check("/nas/lantern/film/sh010/publish/layout/v002/layout.ma", None);
        check("tex/b.exr", Some("{root}/lantern/film/sh010/publish/layout/v002/tex/b.exr"));
    }

    #[test]
    fn other_versions_of_the_own_subset_are_inputs() {
        let studio = Studio::new();
        assert_eq!(studio.locate(&Find::SubsetVersion(1)).as_deref(), Some("sh010/layout@v001"));
        assert_eq!(studio.locate(&Find::SubsetVersion(2)), None);
        assert_eq!(studio.locate(&Find::SubsetVersion(u32::MAX)), None);
    }

    #[test]
    fn what_was_given_is_a_reference_or_a_path_that_leads_to_one() {
        let given = |text: &str| Studio::new().with(|locator, scanned| locator.given(scanned, text));
        assert_eq!(given("lantern:robot/rig@3").as_deref(), Some("robot/rig@v003"));
        assert_eq!(given("comet:robot/rig").as_deref(), Some("comet:robot/rig"));
        let path = "/srv/projects/lantern/assets/robot/publish/rig/v001/rig.ma";
        assert_eq!(given(path).as_deref(), Some("robot/rig/ma@v001"));
        assert_eq!(given("scene of anna").as_deref(), Some("scene of anna"));
    }

    proptest! {
        #[test]
        fn any_path_is_located(path in "([/.\\\\a:v0-9<%$#{}]|lantern|publish|/){0,24}") {
            let input = Studio::new().locate(&Find::Path(path.clone()));
            prop_assert!(input.is_none_or(|input| input.len() <= path.len() + 300));
        }
    }
}
