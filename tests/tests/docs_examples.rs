//! The configurations that the documents show are ones that the daemon takes.

use std::{
    fs,
    path::{Path, PathBuf},
};

use avalond::config::Config;

/// The configurations in a text: each goes from a line `[node]` to the fence, or to the line that stands further left.
fn configurations(text: &str) -> Vec<String> {
    let indent = |line: &str| line.len() - line.trim_start().len();
    let lines: Vec<&str> = text.lines().collect();
    let starts = lines.iter().enumerate().filter(|(_, line)| line.trim() == "[node]");
    let blocks = starts.map(|(start, first)| {
        let belongs = |line: &&&str| {
            let is_fence = line.trim_start().starts_with("```");
            line.trim().is_empty() || (!is_fence && indent(line) >= indent(first))
        };
        lines[start..].iter().take_while(belongs).map(|line| line.trim()).collect::<Vec<_>>().join("\n")
    });
    blocks.collect()
}

#[test]
fn configurations_in_documents_are_accepted_by_the_daemon() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let documents =
        walkdir::WalkDir::new(root.join("docs")).into_iter().map(|entry| entry.unwrap().into_path());
    let readme = Some(root.join("README.md")).filter(|path| path.exists());
    let is_markdown = |path: &PathBuf| path.extension().is_some_and(|extension| extension == "md");
    for path in documents.filter(is_markdown).chain(readme) {
        for example in configurations(&fs::read_to_string(&path).unwrap()) {
            let checked = Config::parse(&path, &example);
            assert!(checked.is_ok(), "{}: {}", path.display(), checked.unwrap_err());
        }
    }
}

#[test]
fn configurations_are_found_in_fences_and_in_indented_text() {
    let text = "a\n```toml\n[node]\nx = 1\n\n[log]\n```\ny\n\n    [node]\n    z = 2\n\nend\n";
    assert_eq!(configurations(text), ["[node]\nx = 1\n\n[log]", "[node]\nz = 2\n"]);
}
