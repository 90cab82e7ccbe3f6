//! What nodes may say to each other.

use std::collections::BTreeSet;

use avalon_protocol::{feed::FeedId, hash::ObjectHash, id::ProjectName};

use super::{Checked, Violation};
use crate::{env::Said, node::SimNode};

/// Blocks that were seen to be durable at the node that speaks.
type Durable = BTreeSet<(ProjectName, ObjectHash, u64)>;

pub(super) fn check(said: &Said, nodes: &[SimNode], durable: &Durable) -> Checked {
    match said {
        Said::Saved { .. }
        | Said::Pulled { .. }
        | Said::Lost { .. }
        | Said::Acknowledged { .. }
        | Said::Forgot { .. }
        | Said::Restored { .. } => Ok(()),
        Said::Head { .. } => {
            invariant_only_durable_records_are_announced(said, nodes)?;
            invariant_only_shared_projects_are_spoken_of(said, nodes)
        }
        Said::Project { .. } => invariant_only_shared_projects_are_spoken_of(said, nodes),
        Said::Accused { .. } => invariant_only_liars_are_accused(said, nodes),
        Said::Want { .. } => invariant_durable_blocks_are_not_fetched_again(said, nodes, durable),
        Said::Fork { from, feed } => {
            Err(Violation::new("no_fork", format!("node {from} sees two histories of {feed}")))
        }
    }
}

/// A head that is sent, alone or with its records, is the head of groups that survive a crash of the sender.
fn invariant_only_durable_records_are_announced(said: &Said, nodes: &[SimNode]) -> Checked {
    let Said::Head { from, feed, head, .. } = said else { return Ok(()) };
    let log = nodes[*from].disk.ledger.feeds().get(feed);
    let durable = log.is_some_and(|log| log.on_disk().iter().rev().any(|group| group.head == *head));
    let detail =
        || format!("node {from} announces {feed} up to {}, which is not durable there", head.next_seq);
    durable.then_some(()).ok_or_else(|| Violation::new("only_durable_records_are_announced", detail()))
}

/// Nothing about a project goes to or comes from a node that does not serve it.
fn invariant_only_shared_projects_are_spoken_of(said: &Said, nodes: &[SimNode]) -> Checked {
    let (from, to, project) = match said {
        Said::Head { from, to, feed, .. } => (from, to, &feed.project),
        Said::Project { from, to, project } => (from, to, project),
        _ => return Ok(()),
    };
    let shared = [from, to].iter().all(|node| nodes[**node].projects.contains_key(project));
    let detail = || format!("node {from} speaks of {project} to node {to}");
    shared.then_some(()).ok_or_else(|| Violation::new("only_shared_projects_are_spoken_of", detail()))
}

/// A block that was durable once, whatever crashed since, or that lies in the tree, is not asked for again.
fn invariant_durable_blocks_are_not_fetched_again(
    said: &Said,
    nodes: &[SimNode],
    durable: &Durable,
) -> Checked {
    let Said::Want { from, project, want } = said else { return Ok(()) };
    let in_tree = nodes[*from].disk.tree.object(project, &want.object).is_some();
    let blocks = want.first_block..want.first_block + want.blocks;
    let mut again =
        blocks.filter(|block| in_tree || durable.contains(&(project.clone(), want.object, *block)));
    match again.next() {
        Some(block) => {
            let detail = format!("node {from} asks for block {block} of {} that it has", want.object);
            Err(Violation::new("durable_blocks_are_not_fetched_again", detail))
        }
        None => Ok(()),
    }
}

/// Whatever breaks on the way, what an honest node sends is never refused.
fn invariant_only_liars_are_accused(said: &Said, nodes: &[SimNode]) -> Checked {
    let Said::Accused { from, peer, reason } = said else { return Ok(()) };
    let detail = || format!("node {from} refuses what node {peer} sent: {reason}");
    nodes[*peer].liar.then_some(()).ok_or_else(|| Violation::new("only_liars_are_accused", detail()))
}

/// Nobody believes that a peer has records that it neither said to have nor was sent: it would never be sent them.
pub(super) fn invariant_nobody_overrates_a_peer(node: &SimNode, feed: &FeedId) -> Checked {
    match node.overrated_peers(feed).next() {
        Some(peer) => {
            let detail = format!("{} thinks that node {peer} has more of {feed} than it said", node.id);
            Err(Violation::new("nobody_overrates_a_peer", detail))
        }
        None => Ok(()),
    }
}
