//! What a node does about a version, and in which pieces it asks for it. Pure: the daemon and the simulation share it.

use std::{cmp::Reverse, collections::BTreeSet, ops::Range};

use crate::{
    block::{BLOCK_BYTES, block_count},
    hash::{ManifestId, ObjectHash},
    id::{NodeId, VersionSlot},
    limits::MAX_WANTS,
    mode::ProjectMode,
    policy::{Keep, Named, NotKnownYet, RuleRef, Ruling},
    version_fold::{Move, Standing, VersionFold},
    wire::Want,
};

/// How urgent a fetch is; a higher one goes first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Priority {
    /// Versions from before the node knew them.
    Backfill,
    /// A version that was just published, at a node that mirrors.
    Publish,
    /// Somebody waits for it.
    Waiting,
}

/// Whether somebody asked for a version.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wish {
    /// Nobody did.
    None,
    /// By `avalonctl pull` or the pipeline.
    Pulled,
}

/// What to do about a version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    /// It is here.
    Have(ManifestId),
    /// It is known and not wanted here.
    Leave,
    /// It has to come here.
    Fetch(ManifestId),
    /// Two sites published different content under its number: a person decides.
    Conflict(Vec<ManifestId>),
    /// The studio's policy does not let it come here, not even when somebody pulls it: the rule, none for the defaults.
    Forbidden(Option<RuleRef>),
    /// It is out of use: it does not come, not even when somebody pulls it, before it is restored.
    Retired,
    /// It lies here under a number that it lost when a conflict was resolved: it gets the new one.
    Move(Move),
    /// No generation of it is known yet.
    Unknown,
}

/// What a node is to do about a version by itself: the studio's policy, and without one the node's own mode.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Stance {
    /// It comes by itself.
    Keep,
    /// It belongs here, and comes by itself at another time of the week.
    Later,
    /// It comes when somebody asks for it.
    OnDemand,
    /// It does not come: the rule, none for the defaults.
    Never(Option<RuleRef>),
    /// The policy asks for something that stands in the manifest, which has not come: nothing comes by itself. What somebody
    /// pulls is begun with the manifest, and judged again then.
    NotKnown,
}

impl Stance {
    /// Takes the policy's ruling at a node with this mode; `None` where there is no policy.
    ///
    /// A policy that keeps a version at a site is carried out by the nodes that mirror there. A node that fetches on demand
    /// only keeps what is to be kept at the node itself.
    pub fn of(mode: ProjectMode, ruling: Option<&Result<Ruling, NotKnownYet>>) -> Self {
        let ruling = match ruling {
            None if mode == ProjectMode::Mirror => return Self::Keep,
            None => return Self::OnDemand,
            Some(Err(NotKnownYet { .. })) => return Self::NotKnown,
            Some(Ok(ruling)) => ruling,
        };
        match ruling.keep {
            Keep::Never => Self::Never(ruling.because.clone()),
            Keep::Here if mode == ProjectMode::Mirror || ruling.named == Named::Node => {
                if ruling.open_now {
                    Self::Keep
                } else {
                    Self::Later
                }
            }
            Keep::Here | Keep::OnDemand => Self::OnDemand,
        }
    }
}

/// Decides about one version.
///
/// A conflict blocks fetching only: a node that holds one of the candidates keeps it, until somebody decides and it has to
/// take another number. That a version is out of use blocks fetching only, too.
pub fn decide(slot: VersionSlot, fold: &VersionFold, me: &NodeId, stance: &Stance, wish: Wish) -> Decision {
    if let Some(to_move) = fold.to_move(slot, me) {
        return Decision::Move(to_move);
    }
    let head = match fold.standing(slot) {
        Standing::Unknown => return Decision::Unknown,
        Standing::Conflict(heads) => return Decision::Conflict(heads),
        Standing::Head(head) => head,
    };
    if fold.holds(me, &head) {
        return Decision::Have(head);
    }
    if fold.retired().is_some() {
        return Decision::Retired;
    }
    match stance {
        Stance::Never(rule) => Decision::Forbidden(rule.clone()),
        Stance::Keep => Decision::Fetch(head),
        _ if wish == Wish::Pulled => Decision::Fetch(head),
        // A node that holds an older generation of a version that grows goes on holding all of it.
        _ if fold.held_by(me).next().is_some() => Decision::Fetch(head),
        Stance::Later | Stance::OnDemand | Stance::NotKnown => Decision::Leave,
    }
}

/// Orders the nodes that hold something by how good a source they are: those at our own site first, then by name.
pub fn rank_sources(me: &NodeId, holders: &BTreeSet<NodeId>) -> Vec<NodeId> {
    let mut sources: Vec<NodeId> = holders.iter().filter(|node| *node != me).cloned().collect();
    sources.sort_by_key(|node| (Reverse(node.site == me.site), node.clone()));
    sources
}

/// What is missing of one object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Missing {
    /// The object.
    pub object: ObjectHash,
    /// Its size in bytes.
    pub size: u64,
    /// The ranges of blocks that are missing, ascending and apart.
    pub blocks: Vec<Range<u64>>,
    /// Whether its block list is known; an object of one block needs none.
    pub list_known: bool,
}

/// How many bytes one request asks for, about: enough that the next request is on its way long before this one is
/// answered, few enough that several requests share a version evenly.
pub const BATCH_BYTES: u64 = 32 << 20;

/// Cuts what is missing into requests for who has no [`Schedule`](crate::schedule::Schedule) of streams, as the simulation:
/// each of about [`BATCH_BYTES`] and at most [`MAX_WANTS`] wants, many small objects in one, a large one over several. A
/// block list is asked for once, with the first range of its object.
pub fn batches(missing: &[Missing]) -> Vec<Vec<Want>> {
    let mut batches: Vec<Vec<Want>> = Vec::new();
    let mut batch: Vec<Want> = Vec::new();
    let mut batch_bytes = 0;
    for want in missing.iter().flat_map(wants) {
        let bytes = want.blocks.saturating_mul(BLOCK_BYTES).min(want.size);
        if !batch.is_empty() && (batch_bytes + bytes > BATCH_BYTES || batch.len() == MAX_WANTS) {
            batches.push(std::mem::take(&mut batch));
            batch_bytes = 0;
        }
        batch_bytes += bytes;
        batch.push(want);
    }
    batches.extend((!batch.is_empty()).then_some(batch));
    batches
}

fn wants(missing: &Missing) -> impl Iterator<Item = Want> + '_ {
    let step = BATCH_BYTES / BLOCK_BYTES;
    let needs_list = block_count(missing.size) > 1 && !missing.list_known;
    let ranges = missing.blocks.iter().flat_map(move |range| {
        (range.start..range.end)
            .step_by(usize::try_from(step).unwrap_or(usize::MAX))
            .map(move |first| (first, step.min(range.end - first)))
    });
    ranges.enumerate().map(move |(index, (first_block, blocks))| Want {
        object: missing.object,
        size: missing.size,
        first_block,
        blocks,
        with_list: needs_list && index == 0,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        policy::Urgency,
        record::{
            Held, Record,
            tests::{published, resolved, restored, retired},
        },
    };

    const SLOT: VersionSlot = VersionSlot::Number(1);

    fn node(name: &str) -> NodeId {
        name.parse().unwrap()
    }

    fn id(byte: u8) -> ManifestId {
        ManifestId::from_bytes([byte; 32])
    }

    #[test]
    fn mirror_fetches_and_on_demand_waits_for_a_pull() {
        let mut fold = VersionFold::default();
        fold.apply(&node("a@x"), 0, &Record::Published(published(1, 1, 11, 1, None)));
        let me = node("b@y");
        let decide = |mode, wish| decide(SLOT, &fold, &me, &Stance::of(mode, None), wish);
        assert_eq!(decide(ProjectMode::Mirror, Wish::None), Decision::Fetch(id(1)));
        assert_eq!(decide(ProjectMode::OnDemand, Wish::None), Decision::Leave);
        assert_eq!(decide(ProjectMode::OnDemand, Wish::Pulled), Decision::Fetch(id(1)));
    }

    #[test]
    fn a_node_that_holds_an_old_generation_follows_the_growth() {
        let (mut fold, me) = (VersionFold::default(), node("b@y"));
        let version = crate::record::tests::version(1);
        fold.apply(&node("a@x"), 0, &Record::Published(published(1, 1, 11, 1, None)));
        fold.apply(&me, 0, &Record::Placed(Held { version, manifest: id(1) }));
        assert_eq!(decide(SLOT, &fold, &me, &Stance::OnDemand, Wish::None), Decision::Have(id(1)));
        fold.apply(&node("a@x"), 1, &Record::Published(published(1, 2, 12, 2, Some(1))));
        assert_eq!(decide(SLOT, &fold, &me, &Stance::OnDemand, Wish::None), Decision::Fetch(id(2)));
    }

    fn ruling(keep: Keep, named: Named, open_now: bool) -> Result<Ruling, NotKnownYet> {
        Ok(Ruling {
            keep,
            urgency: Urgency::Normal,
            min_copies: 1,
            keep_last: None,
            read_only: false,
            open_now,
            named,
            because: None,
            copies_because: None,
            next_change_ms: None,
        })
    }

    #[test]
    fn the_policy_comes_before_the_mode_and_never_holds_for_pulls_too() {
        let mut fold = VersionFold::default();
        fold.apply(&node("a@x"), 0, &Record::Published(published(1, 1, 11, 1, None)));
        let me = node("b@y");
        let by = |mode, ruling: &Result<Ruling, NotKnownYet>, wish| {
            decide(SLOT, &fold, &me, &Stance::of(mode, Some(ruling)), wish)
        };
        let (mirror, on_demand) = (ProjectMode::Mirror, ProjectMode::OnDemand);
        let (fetch, leave) = (Decision::Fetch(id(1)), Decision::Leave);
        let here = ruling(Keep::Here, Named::Site, true);
        assert_eq!(by(mirror, &here, Wish::None), fetch);
        assert_eq!(
            by(on_demand, &here, Wish::None),
            leave,
            "the site's server keeps it, not each workstation"
        );
        assert_eq!(by(on_demand, &ruling(Keep::Here, Named::Node, true), Wish::None), fetch);
        let later = ruling(Keep::Here, Named::Site, false);
        assert_eq!(
            (by(mirror, &later, Wish::None), by(mirror, &later, Wish::Pulled)),
            (leave.clone(), fetch.clone())
        );
        let pulled_only = ruling(Keep::OnDemand, Named::Site, true);
        assert_eq!(
            (by(mirror, &pulled_only, Wish::None), by(mirror, &pulled_only, Wish::Pulled)),
            (leave.clone(), fetch.clone())
        );
        let never = ruling(Keep::Never, Named::Site, true);
        assert_eq!(by(mirror, &never, Wish::Pulled), Decision::Forbidden(None));
        let rule = RuleRef { name: "rigs".into(), line: 3 };
        let unknown = Err(NotKnownYet { rule, fact: "the family".into() });
        assert_eq!((by(mirror, &unknown, Wish::None), by(mirror, &unknown, Wish::Pulled)), (leave, fetch));
        fold.apply(
            &me,
            0,
            &Record::Placed(Held { version: crate::record::tests::version(1), manifest: id(1) }),
        );
        let stance = Stance::of(mirror, Some(&never));
        assert_eq!(
            decide(SLOT, &fold, &me, &stance, Wish::None),
            Decision::Have(id(1)),
            "what is here stays"
        );
    }

    #[test]
    fn nobody_fetches_a_conflict() {
        let mut fold = VersionFold::default();
        fold.apply(&node("a@x"), 0, &Record::Published(published(1, 1, 11, 1, None)));
        fold.apply(&node("b@y"), 0, &Record::Published(published(1, 2, 12, 1, None)));
        let decision = decide(SLOT, &fold, &node("c@z"), &Stance::Keep, Wish::Pulled);
        assert!(matches!(decision, Decision::Conflict(_)));
    }

    #[test]
    fn nobody_fetches_what_is_retired_and_who_has_it_keeps_it() {
        let mut fold = VersionFold::default();
        let (me, holder) = (node("b@y"), node("a@x"));
        fold.apply(&holder, 0, &Record::Published(published(1, 1, 11, 1, None)));
        fold.apply(&holder, 1, &retired(1, "anna"));
        for wish in [Wish::None, Wish::Pulled] {
            assert_eq!(decide(SLOT, &fold, &me, &Stance::Keep, wish), Decision::Retired);
        }
        assert_eq!(decide(SLOT, &fold, &holder, &Stance::Keep, Wish::None), Decision::Have(id(1)));
        fold.apply(&holder, 2, &restored(1, "ben"));
        assert_eq!(decide(SLOT, &fold, &me, &Stance::Keep, Wish::None), Decision::Fetch(id(1)));
    }

    #[test]
    fn who_holds_what_lost_its_number_moves_it_and_then_fetches_what_kept_it() {
        let mut fold = VersionFold::default();
        let (me, other) = (node("b@y"), node("a@x"));
        fold.apply(&other, 0, &Record::Published(published(1, 1, 11, 1, None)));
        fold.apply(&me, 0, &Record::Published(published(1, 2, 12, 1, None)));
        fold.apply(&other, 1, &resolved(1, 1, &[(2, 5)]));
        let decided = |fold: &VersionFold| decide(SLOT, fold, &me, &Stance::Keep, Wish::None);
        assert_eq!(decided(&fold), Decision::Move(Move { manifest: id(2), number: 5 }));
        let held = Held { version: crate::record::tests::version(1), manifest: id(2) };
        fold.apply(&me, 1, &Record::Dropped(held));
        assert_eq!(decided(&fold), Decision::Fetch(id(1)));
    }

    #[test]
    fn sources_at_our_own_site_come_first() {
        let holders = ["a@x", "b@y", "c@y", "me@y"].map(node).into();
        assert_eq!(rank_sources(&node("me@y"), &holders), ["b@y", "c@y", "a@x"].map(node));
    }

    #[test]
    fn small_objects_share_a_request_and_large_ones_are_cut() {
        let small = |byte: u8| Missing {
            object: ObjectHash::from_bytes([byte; 32]),
            size: 8192,
            blocks: vec![0..1],
            list_known: false,
        };
        let large = Missing {
            object: ObjectHash::from_bytes([99; 32]),
            size: 100 * BLOCK_BYTES,
            blocks: vec![0..40, 90..100],
            list_known: false,
        };
        let all: Vec<Missing> = (0..10).map(small).chain([large]).collect();
        let batches = batches(&all);
        let shape: Vec<(usize, u64)> =
            batches.iter().map(|batch| (batch.len(), batch.iter().map(|want| want.blocks).sum())).collect();
        assert_eq!(shape, [(10, 10), (1, 32), (2, 18)]);
        let lists: Vec<&Want> = batches.iter().flatten().filter(|want| want.with_list).collect();
        assert_eq!(lists.len(), 1);
        assert_eq!((lists[0].first_block, lists[0].object.as_bytes()[0]), (0, 99));
    }

    #[test]
    fn a_request_never_has_more_wants_than_the_limit() {
        let tiny = |index: usize| Missing {
            object: ObjectHash::of(&index.to_le_bytes()),
            size: 1,
            blocks: vec![0..1],
            list_known: true,
        };
        let all: Vec<Missing> = (0..10_000).map(tiny).collect();
        let batches = batches(&all);
        assert_eq!(batches.iter().map(Vec::len).sum::<usize>(), 10_000);
        assert!(batches.iter().all(|batch| batch.len() <= MAX_WANTS));
    }
}
