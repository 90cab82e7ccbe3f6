//! Published files that their disk damaged are never published as something new.

use avalon_protocol::rel_path::RelPath;

use super::Recording;

impl Recording<'_> {
    /// Returns the files that were found damaged and that nobody wrote since: they would go everywhere as the next state of a hero.
    pub(super) fn damaged(&self, dir: &RelPath) -> Vec<RelPath> {
        let project = self.project.name();
        let found = self.named.iter().filter_map(|named| {
            let path = dir.join(&named.inside).ok()?;
            self.core.damaged.has(project, &path, named.stat.identity()).then_some(path)
        });
        found.collect()
    }
}
