//! What one policy, or none, comes to for one version at all nodes of its project: where it comes, stays and may go.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    decide::{NotKnownYet, Now, RuleRef, Ruling},
    document::Policy,
    facts::VersionFacts,
};
use crate::{
    id::{NodeId, SiteName, VersionSlot},
    mode::ProjectMode,
    plan::Stance,
    version_fold::{Standing, VersionFold},
};

/// A node that takes part in a project.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// Which.
    pub node: NodeId,
    /// Its own mode for the project; `None` when it did not say. Of a site of which no node is known to mirror, one that did
    /// not say is taken for the site's server.
    pub mode: Option<ProjectMode>,
}

/// Where a version is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Whereabouts {
    /// The bytes of its newest generation.
    pub bytes: u64,
    /// Who holds all of that.
    pub holders: BTreeSet<NodeId>,
    /// Who holds another generation only; they take the newest as well.
    pub older: BTreeSet<NodeId>,
    /// Whether sites published different content under its number; then it goes nowhere.
    pub is_conflict: bool,
    /// Whether it is out of use; then it goes nowhere, too, and what becomes of the copies is no matter of the policy.
    pub is_retired: bool,
}

impl Whereabouts {
    /// Takes them from the records; `None` when nobody has published it.
    pub fn of(slot: VersionSlot, fold: &VersionFold) -> Option<Self> {
        let (head, is_conflict) = match fold.standing(slot) {
            Standing::Unknown => return None,
            Standing::Head(head) => (head, false),
            Standing::Conflict(heads) => (*heads.first()?, true),
        };
        let holders = fold.holders(&head);
        let mut older: BTreeSet<NodeId> = fold.generations().keys().flat_map(|id| fold.holders(id)).collect();
        older.retain(|node| !holders.contains(node));
        Some(Self {
            bytes: fold.generation(&head)?.bytes,
            holders,
            older,
            is_conflict,
            is_retired: fold.retired().is_some(),
        })
    }
}

/// The nodes of a project, those that a policy names alike together: it is asked once for all of them.
#[derive(Debug)]
pub(super) struct Seats {
    /// Of each member, which group it is in.
    group_of: Vec<usize>,
    /// Of each group, one member.
    firsts: Vec<usize>,
}

impl Seats {
    pub(super) fn new(policy: Option<&Policy>, members: &[Member]) -> Self {
        let (mut groups, mut seats) = (Vec::new(), Self { group_of: Vec::new(), firsts: Vec::new() });
        for (index, member) in members.iter().enumerate() {
            let rules = policy.map_or(&[][..], Policy::rules);
            let names = |rule: &super::rule::Rule| {
                (rule.places.contains(&member.node), rule.places.nodes.contains(&member.node))
            };
            let named: Vec<(bool, bool)> = rules.iter().map(names).collect();
            let group = groups.iter().position(|known| *known == named).unwrap_or_else(|| {
                groups.push(named);
                seats.firsts.push(index);
                groups.len() - 1
            });
            seats.group_of.push(group);
        }
        seats
    }
}

/// What a policy comes to for a version.
#[derive(Debug, Default)]
pub(super) struct Effect {
    /// The members to which it has to be copied.
    pub(super) nodes: BTreeSet<usize>,
    /// The sites to which it has to be copied: none of their nodes holds it.
    pub(super) sites: BTreeSet<SiteName>,
    /// How many copies could be freed at a site, if no other site frees any.
    pub(super) free: Vec<(SiteName, u64)>,
    /// How many copies could be freed at all sites together.
    pub(super) free_together: u64,
    /// Whether any site keeps it by rule.
    pub(super) is_kept: bool,
    /// The sites that have it in the end.
    pub(super) copies: u32,
    /// At how many it has to be, and who says so; 0 without a policy.
    pub(super) min_copies: u32,
    pub(super) copies_because: Option<RuleRef>,
    /// Why nothing can be said.
    pub(super) not_known: Option<NotKnownYet>,
}

/// One site, while a version is looked at.
#[derive(Default)]
struct AtSite {
    holds: bool,
    /// It comes to a node of it, or is held and may not be removed.
    stays: bool,
    comes: bool,
    /// Copies that may be removed, as far as the site is concerned.
    removable: u64,
}

impl Effect {
    pub(super) fn of(
        policy: Option<&Policy>,
        members: &[Member],
        seats: &Seats,
        facts: &VersionFacts<'_>,
        at: &Whereabouts,
        now: Now,
    ) -> Self {
        let ask = |member: &Member| policy.map(|policy| policy.decide(&member.node, facts, now));
        let rulings: Vec<Option<Result<Ruling, NotKnownYet>>> =
            seats.firsts.iter().filter_map(|first| members.get(*first)).map(ask).collect();
        let mut effect = Self {
            not_known: rulings.iter().flatten().find_map(|ruling| ruling.as_ref().err().cloned()),
            ..Self::default()
        };
        if effect.not_known.is_some() || at.is_conflict || at.is_retired {
            return effect;
        }
        if let Some(Some(Ok(ruling))) = rulings.first() {
            effect.min_copies = ruling.min_copies;
            effect.copies_because.clone_from(&ruling.copies_because);
        }
        let sites = effect.look(members, seats, &rulings, facts, at);
        effect.count(&sites);
        effect
    }

    /// Looks at each member, and returns what comes to and stays at their sites.
    fn look<'m>(
        &mut self,
        members: &'m [Member],
        seats: &Seats,
        rulings: &[Option<Result<Ruling, NotKnownYet>>],
        facts: &VersionFacts<'_>,
        at: &Whereabouts,
    ) -> BTreeMap<&'m SiteName, AtSite> {
        let mirrors = members.iter().filter(|member| member.mode == Some(ProjectMode::Mirror));
        let mirrored: BTreeSet<&SiteName> = mirrors.map(|member| &member.node.site).collect();
        let mut sites: BTreeMap<&SiteName, AtSite> = BTreeMap::new();
        for (index, (member, group)) in members.iter().zip(&seats.group_of).enumerate() {
            let (node, ruling) = (&member.node, rulings.get(*group).and_then(Option::as_ref));
            let stance = Stance::of(member.mode.unwrap_or(ProjectMode::OnDemand), ruling);
            let may_mirror = member.mode.is_none() && !mirrored.contains(&node.site);
            let is_kept = keeps(&stance) || (may_mirror && keeps(&Stance::of(ProjectMode::Mirror, ruling)));
            // Who holds a generation of a version that grows goes on holding all of it, unless it may not.
            let follows = at.older.contains(node) && !matches!(stance, Stance::Never(_));
            self.is_kept |= is_kept;
            let site = sites.entry(&node.site).or_default();
            if at.holders.contains(node) {
                site.holds = true;
                match ruling {
                    Some(Ok(ruling)) if ruling.may_be_removed(facts) => site.removable += 1,
                    _ => site.stays = true,
                }
            } else if is_kept || follows {
                (site.comes, site.stays) = (true, true);
                if keeps(&stance) || follows {
                    self.nodes.insert(index);
                }
            }
        }
        sites
    }

    fn count(&mut self, sites: &BTreeMap<&SiteName, AtSite>) {
        let in_the_end = sites.values().filter(|site| site.holds || site.comes).count();
        self.copies = u32::try_from(in_the_end).unwrap_or(u32::MAX);
        let coming = sites.iter().filter(|(_, site)| site.comes && !site.holds);
        self.sites = coming.map(|(name, _)| (*name).clone()).collect();
        let is_enough_elsewhere = self.copies.saturating_sub(1) >= self.min_copies;
        let (mut stay, mut could_empty, mut removable) = (0, 0, 0);
        for (name, site) in sites {
            stay += u32::from(site.stays);
            could_empty += u32::from(!site.stays && site.removable > 0);
            removable += site.removable;
            // Else one copy has to stay for the site.
            let free = match site.stays || is_enough_elsewhere {
                true => site.removable,
                false => site.removable.saturating_sub(1),
            };
            if free > 0 {
                self.free.push(((*name).clone(), free));
            }
        }
        let have_to_stay = self.min_copies.saturating_sub(stay).min(could_empty);
        self.free_together = removable.saturating_sub(u64::from(have_to_stay));
    }

    /// Says whether fewer sites have it in the end than there have to be.
    pub(super) fn is_short(&self) -> bool {
        self.copies < self.min_copies
    }
}

fn keeps(stance: &Stance) -> bool {
    matches!(stance, Stance::Keep | Stance::Later)
}
