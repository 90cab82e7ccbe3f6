//! A story in words, for people who have to find out why a promise broke.

use super::Scenario;
use crate::event::{Deed, Event, Fault, NodeIndex};

impl Scenario {
    /// Tells the story: a line for each node, then one for each event of the agenda.
    pub fn words(&self) -> Vec<String> {
        let nodes = self.nodes.iter().map(|node| {
            let projects = node.projects.iter().map(|(project, mode)| format!("{project} ({mode:?})"));
            let liar = if node.liar { ", a liar" } else { "" };
            let projects = projects.collect::<Vec<_>>().join(", ");
            format!("{} has {projects}; its clock is {} ms ahead{liar}", node.id, node.ahead_ms)
        });
        let mut agenda: Vec<&(u64, Event)> = self.agenda.iter().collect();
        agenda.sort_by_key(|(at_ms, _)| *at_ms);
        let events = agenda.into_iter().map(|(at_ms, event)| format!("{at_ms} ms: {}", self.tell(event)));
        let chance = (self.by_chance).then(|| "besides: what breaks by chance".to_owned());
        nodes.chain(events).chain(chance).collect()
    }

    fn name(&self, node: NodeIndex) -> String {
        self.nodes.get(node).map_or_else(|| format!("node {node}"), |plan| plan.id.to_string())
    }

    fn tell(&self, event: &Event) -> String {
        match event {
            Event::Deed { node, deed } => {
                let who = self.name(*node);
                match deed {
                    Deed::Publish { version, files } => {
                        let file =
                            |file: &crate::content::SavedFile| format!("{} ({} bytes)", file.path, file.len);
                        let files: Vec<String> = files.iter().map(file).collect();
                        format!("{who} saves {version}: {}", files.join(", "))
                    }
                    Deed::Grow { version, file } => {
                        format!("{who} adds {} ({} bytes) to {version}", file.path, file.len)
                    }
                    Deed::Pull { version } => format!("{who} pulls {version}"),
                    Deed::Apply { text } => format!("{who} applies policy {text}"),
                }
            }
            Event::Fault(fault) => self.tell_fault(fault),
            other => format!("{other:?}"),
        }
    }

    fn tell_fault(&self, fault: &Fault) -> String {
        match fault {
            Fault::Part { partition, island } => {
                let island: Vec<String> = island.iter().map(|node| self.name(*node)).collect();
                format!("partition {partition}: nothing passes between {} and the others", island.join(", "))
            }
            Fault::Heal { partition } => format!("partition {partition} is over"),
            Fault::Cut { .. } => "some connection breaks".to_owned(),
            Fault::Crash { node } => format!("{} loses power", self.name(*node)),
            Fault::Kill { node } => format!("{} is killed", self.name(*node)),
            Fault::Restart { node } => format!("{} starts again", self.name(*node)),
            Fault::Full { node } => format!("the disk of {} is full", self.name(*node)),
            Fault::Room { node } => format!("the disk of {} has room", self.name(*node)),
            Fault::BadSync { node } => format!("the next fsync at {} fails", self.name(*node)),
            Fault::Clock { node, ahead_ms } => {
                format!("the clock of {} is set {ahead_ms} ms ahead", self.name(*node))
            }
            Fault::Backup { node } => format!("a backup is made of {}", self.name(*node)),
            Fault::Restore { node } => format!("{} is put back to its backup", self.name(*node)),
            Fault::End => "all faults are over".to_owned(),
        }
    }
}
