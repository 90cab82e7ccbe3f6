//! What a document would change: the catalog of every project, walked a page at a time and added up.

use std::collections::{BTreeMap, BTreeSet};

use avalon_protocol::{
    id::{NodeId, ProjectName, SiteName},
    mode::ProjectMode,
    policy::{Diff, Member, Policy, Problem, Studio, Totals, Whereabouts},
    wire::ServedProject,
};
use avalon_store::catalog::CatalogError;
use thiserror::Error;

use super::{ApplyError, Ranks, apply::check_replaced, understand};
use crate::core::Core;

/// Versions read from the catalog at once.
const PAGE_VERSIONS: usize = 500;

/// What the nodes that are connected said about the projects that they serve.
pub type Greeted = BTreeMap<NodeId, Vec<ServedProject>>;

/// What a document would change.
#[derive(Debug)]
pub struct PolicyDiff {
    /// The serial of the policy that it was compared with.
    pub in_effect: Option<u64>,
    /// The projects that were looked at.
    pub projects: Vec<ProjectName>,
    /// What all versions come to.
    pub totals: Totals,
    /// The sites of which a node is known to mirror.
    pub mirrored: BTreeSet<SiteName>,
    /// What does not fit the studio as it is known here.
    pub warnings: Vec<Problem>,
}

/// Why nothing is said.
#[derive(Debug, Error)]
pub enum DiffError {
    /// It would not be applied.
    #[error("the policy would not be applied")]
    Refused(#[source] ApplyError),
    /// The catalog does not answer.
    #[error("the catalog cannot be read")]
    Catalog(#[source] CatalogError),
}

impl Core {
    /// Says what applying a document would change, and applies nothing. Blocks: it reads the whole catalog, and manifests where
    /// a rule asks for what stands there.
    ///
    /// # Errors
    /// [`DiffError::Refused`] when applying it would be refused, [`DiffError::Catalog`] when the catalog is being rebuilt.
    pub fn policy_diff(
        &self,
        document: &str,
        replaces: Option<u64>,
        greeted: &Greeted,
    ) -> Result<PolicyDiff, DiffError> {
        let after = understand(document)
            .map_err(|problem| DiffError::Refused(ApplyError::NotUnderstood { problem }))?;
        self.refresh_policy();
        let view = self.policy.view();
        check_replaced(&view.fold, replaces).map_err(DiffError::Refused)?;
        let mut diff = Diff::new(view.in_effect.as_deref(), &after);
        let mut mirrored = BTreeSet::new();
        for project in self.projects.keys() {
            let members = self.members(project, greeted);
            let mirrors = members.iter().filter(|member| member.mode == Some(ProjectMode::Mirror));
            mirrored.extend(mirrors.map(|member| member.node.site.clone()));
            self.compare(project, members, &mut diff).map_err(DiffError::Catalog)?;
        }
        Ok(PolicyDiff {
            in_effect: view.fold.in_effect().map(|stands| stands.id.serial),
            projects: self.projects.keys().cloned().collect(),
            totals: diff.finish(),
            mirrored,
            warnings: self.policy_warnings(document, greeted),
        })
    }

    /// Adds all versions of a project.
    fn compare(
        &self,
        project: &ProjectName,
        members: Vec<Member>,
        diff: &mut Diff<'_>,
    ) -> Result<(), CatalogError> {
        let (crew, mut ranks, mut after) = (diff.crew(members), Ranks::default(), None);
        loop {
            let page = self.ledger.versions(project, None, after.as_ref(), PAGE_VERSIONS)?;
            let Some((last, _)) = page.last() else { return Ok(()) };
            after = Some(last.clone());
            for (id, fold) in &page {
                let Some(whereabouts) = Whereabouts::of(id.slot, fold) else { continue };
                let judged = self.with_facts(id, fold, &mut ranks, |facts, now| {
                    let judged = diff.judge(&crew, facts, &whereabouts, now);
                    let lacks = judged.lacks_manifest() && facts.manifest.is_none();
                    (judged, lacks)
                })?;
                if let Some(judged) = judged {
                    diff.add(&crew, id, &whereabouts, judged);
                }
            }
        }
    }

    /// Returns the nodes that take part in a project, as far as this one knows.
    fn members(&self, project: &ProjectName, greeted: &Greeted) -> Vec<Member> {
        let mode_of = |node: &NodeId| {
            if *node == self.me {
                return self.project(project).map(|project| Some(project.mode()));
            }
            match greeted.get(node) {
                // A node that is connected and does not name the project has none of it.
                Some(served) => served.iter().find(|served| served.name == *project).map(|s| Some(s.mode)),
                None => Some(None),
            }
        };
        let known = self.known_nodes(std::slice::from_ref(project), greeted).into_iter();
        known.filter_map(|node| mode_of(&node).map(|mode| Member { node, mode })).collect()
    }

    /// Returns the nodes of which there are feeds of these projects or of the studio, and those that are connected.
    pub fn known_nodes(&self, projects: &[ProjectName], greeted: &Greeted) -> BTreeSet<NodeId> {
        let studio = ProjectName::studio();
        let feeds = projects.iter().chain([&studio]).flat_map(|name| self.ledger.heads(name));
        let mut nodes: BTreeSet<NodeId> = feeds.map(|(node, _)| node).collect();
        nodes.extend(greeted.keys().cloned());
        nodes.insert(self.me.clone());
        nodes
    }

    /// Says what of a document does not fit the studio as this node knows it: nodes that it names and nobody has heard of, and
    /// minimums of copies that the sites cannot reach.
    pub fn policy_warnings(&self, document: &str, greeted: &Greeted) -> Vec<Problem> {
        let projects: Vec<ProjectName> = self.projects.keys().cloned().collect();
        let studio = Studio::of_nodes(self.known_nodes(&projects, greeted));
        Policy::check(document, Some(&studio)).map_or_else(|refused| refused.problems, |_| Vec::new())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        fixture::{Node, Studio as FixtureStudio, manifest, project},
        policy::Apply,
    };

    const HEAD: &str = "schema = \"avalon.policy/1\"\n[defaults]\nkeep = \"on-demand\"\nmin_copies = 1\n";

    fn document(matches: &str, sites: &str, more: &str) -> String {
        let rule =
            format!("[[rule]]\nname = \"a\"\nmatch = {{ {matches} }}\nsites = [{sites}]\nkeep = \"here\"\n");
        format!("{HEAD}{rule}{more}")
    }

    fn mirrors(node: &Node) -> (NodeId, Vec<ServedProject>) {
        (node.core.me.clone(), vec![ServedProject { name: project(), mode: ProjectMode::Mirror }])
    }

    /// London has published two versions, montreal holds the first of them; both know all of it.
    fn two_sites(studio: &FixtureStudio) -> [Node; 2] {
        let nodes = ["srv@london", "srv@montreal"].map(|name| studio.node(name, ProjectMode::Mirror));
        let [london, montreal] = &nodes;
        let versions = [manifest(1, b"one"), manifest(2, b"second")];
        versions.iter().for_each(|version| london.publishes(version));
        montreal.hears(london);
        montreal.places(&versions[0]);
        london.hears(montreal);
        nodes
    }

    #[test]
    fn the_catalog_says_what_would_come_and_what_could_go() {
        let studio = FixtureStudio::new();
        let [london, montreal] = two_sites(&studio);
        let greeted: Greeted = [mirrors(&montreal)].into();
        let document = document("silo = \"assets\"", "\"montreal\"", "");
        let diff = london.core.policy_diff(&document, None, &greeted).unwrap();
        let Totals { looked_at, sites, nodes, .. } = &diff.totals;
        assert_eq!((diff.in_effect, &diff.projects, looked_at.versions), (None, &vec![project()], 2));
        let at = |name: &str| sites[&name.parse::<SiteName>().unwrap()];
        let to_montreal = at("montreal").copying;
        assert_eq!((to_montreal.to_copy.versions, to_montreal.to_copy.bytes), (1, 6));
        assert_eq!(to_montreal.anyway.versions, 1, "it mirrors");
        assert_eq!(at("london").free.then.versions, 2, "when montreal has both");
        assert_eq!(nodes.keys().map(ToString::to_string).collect::<Vec<_>>(), ["srv@montreal"]);
        assert!(diff.warnings.is_empty() && diff.mirrored.len() == 2, "{diff:?}");
        assert!(london.core.policy.view().in_effect.is_none(), "nothing was applied");
    }

    #[test]
    fn what_needs_a_manifest_that_has_not_come_is_counted_apart() {
        let studio = FixtureStudio::new();
        let [_london, montreal] = two_sites(&studio);
        let document = document("silo = \"assets\"", "\"montreal\"", "");
        let totals = montreal.core.policy_diff(&document, None, &Greeted::new()).unwrap().totals;
        assert_eq!((totals.not_known.then.versions, totals.kept_nowhere.then.versions), (2, 0));
    }

    #[test]
    fn it_is_compared_with_the_policy_in_effect_and_refused_as_apply_is() {
        let studio = FixtureStudio::new();
        let [london, _montreal] = two_sites(&studio);
        let all = document("project = \"*\"", "\"montreal\", \"london\"", "");
        let (document, author, comment) = (all.clone(), "anna".into(), String::new());
        london.core.apply_policy(Apply { document, author, comment, replaces: None }).unwrap();
        let diff = london.core.policy_diff(&all, Some(1), &Greeted::new()).unwrap();
        assert_eq!(diff.in_effect, Some(1));
        assert!(diff.totals.sites.values().all(|site| site.copying.to_copy == site.copying.anyway));
        let late = london.core.policy_diff(&all, Some(0), &Greeted::new()).unwrap_err();
        assert!(matches!(late, DiffError::Refused(ApplyError::Changed { replaces: 0, .. })), "{late:?}");
        let bad = london.core.policy_diff("x", None, &Greeted::new()).unwrap_err();
        assert!(matches!(bad, DiffError::Refused(ApplyError::NotUnderstood { .. })), "{bad:?}");
    }

    #[test]
    fn names_that_nobody_has_heard_of_and_minimums_out_of_reach_are_warnings() {
        let studio = FixtureStudio::new();
        let [london, _montreal] = two_sites(&studio);
        let warnings = |sites: &str, more: &str| {
            let document = document("project = \"*\"", sites, more);
            let diff = london.core.policy_diff(&document, None, &Greeted::new()).unwrap();
            diff.warnings.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
        };
        assert!(warnings("\"montrael\"", "").contains("did you mean \"montreal\"?"));
        assert!(warnings("\"ws9@london\"", "").contains("the studio has no node `ws9@london`"));
        assert!(warnings("\"*\"", "min_copies = 3\n").contains("`min_copies` is 3"));
        assert_eq!(warnings("\"*\"", "min_copies = 2\n"), "");
    }
}
