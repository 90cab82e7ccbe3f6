//! The events of a daemon, read in a thread.

use std::{
    io::BufRead,
    sync::mpsc::{Receiver, RecvTimeoutError, channel},
    thread,
    time::{Duration, Instant},
};

use avalon_protocol::control::{Event, EventKind};

use super::PATIENCE;

/// A stream of events. It ends with the daemon.
#[derive(Debug)]
pub struct Events {
    receiver: Receiver<Event>,
    /// All that were taken so far.
    pub seen: Vec<Event>,
    ended: bool,
}

impl Events {
    pub(super) fn follow(body: impl BufRead + Send + 'static) -> Self {
        let (sender, receiver) = channel();
        thread::spawn(move || {
            for line in body.lines() {
                let Ok(line) = line else { return };
                let Some(data) = line.strip_prefix("data:") else { continue };
                let event = serde_json::from_str(data).unwrap_or_else(|error| panic!("{error} in {data}"));
                if sender.send(event).is_err() {
                    return;
                }
            }
        });
        Self { receiver, seen: Vec::new(), ended: false }
    }

    /// Takes what comes within this time; returns the first event or nothing.
    pub fn next_within(&mut self, time: Duration) -> Option<&Event> {
        match self.receiver.recv_timeout(time) {
            Ok(event) => {
                self.seen.push(event);
                self.seen.last()
            }
            Err(RecvTimeoutError::Timeout) => None,
            Err(RecvTimeoutError::Disconnected) => {
                self.ended = true;
                None
            }
        }
    }

    /// Takes all that has come already.
    pub fn drain(&mut self) {
        self.seen.extend(self.receiver.try_iter());
    }

    /// Says whether the daemon has ended the stream.
    pub fn has_ended(&self) -> bool {
        self.ended
    }

    /// Waits for an event that `wanted` finds something in.
    pub fn wait<T>(&mut self, what: &str, wanted: impl Fn(&EventKind) -> Option<T>) -> T {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            match self.next_within(left) {
                Some(event) => {
                    if let Some(found) = wanted(&event.kind) {
                        return found;
                    }
                }
                None => panic!("waited in vain for {what}; seen: {:#?}", tail(&self.seen)),
            }
        }
    }

    /// Waits until a version is published at this node, and returns its generation.
    pub fn published(&mut self, version: &str) -> u32 {
        self.wait(&format!("published {version}"), |kind| match kind {
            EventKind::Published { reference, generation, .. } if reference == version => Some(*generation),
            _ => None,
        })
    }

    /// Waits until a version is placed at this node.
    pub fn placed(&mut self, version: &str) {
        self.wait(&format!("placed {version}"), |kind| match kind {
            EventKind::Placed { reference, .. } if reference == version => Some(()),
            _ => None,
        });
    }

    /// Counts those taken so far.
    pub fn count(&self, wanted: impl Fn(&EventKind) -> bool) -> usize {
        self.seen.iter().filter(|event| wanted(&event.kind)).count()
    }
}

fn tail(events: &[Event]) -> &[Event] {
    &events[events.len().saturating_sub(20)..]
}
