//! The configurations that the documents show are ones that the daemon takes.

use std::{
    fs,
    path::{Path, PathBuf},
};

use avalond::config::Config;

#[test]
fn configurations_in_documents_are_accepted_by_the_daemon() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let documents =
        walkdir::WalkDir::new(root.join("docs")).into_iter().map(|entry| entry.unwrap().into_path());
    let readme = Some(root.join("README.md")).filter(|path| path.exists());
    let is_markdown = |path: &PathBuf| path.extension().is_some_and(|extension| extension == "md");
    for path in documents.filter(is_markdown).chain(readme) {
        let text = fs::read_to_string(&path).unwrap();
        for block in text.split("```toml\n").skip(1) {
            let (example, _) = block.split_once("```").unwrap();
            if example.contains("[node]") {
                let checked = Config::parse(&path, example);
                assert!(checked.is_ok(), "{}: {}", path.display(), checked.unwrap_err());
            }
        }
    }
}
