//! What is to happen when: the heart of both simulations.

use std::{cmp::Reverse, collections::BinaryHeap};

/// Events in the order of their times. Those of one time come in the order of their numbers, which whoever adds them draws.
#[derive(Debug)]
pub struct Agenda<E>(BinaryHeap<Reverse<Appointment<E>>>);

#[derive(Debug)]
struct Appointment<E> {
    at_ms: u64,
    number: u64,
    event: E,
}

impl<E> Agenda<E> {
    /// An agenda with nothing on it.
    pub fn new() -> Self {
        Self(BinaryHeap::new())
    }

    /// Adds an event; no two have one number.
    pub fn add(&mut self, at_ms: u64, number: u64, event: E) {
        self.0.push(Reverse(Appointment { at_ms, number, event }));
    }

    /// Takes the next event with its time.
    pub fn take(&mut self) -> Option<(u64, E)> {
        let Reverse(next) = self.0.pop()?;
        Some((next.at_ms, next.event))
    }
}

impl<E> Default for Agenda<E> {
    fn default() -> Self {
        Self::new()
    }
}

impl<E> PartialEq for Appointment<E> {
    fn eq(&self, other: &Self) -> bool {
        self.number == other.number
    }
}

impl<E> Eq for Appointment<E> {}

impl<E> PartialOrd for Appointment<E> {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl<E> Ord for Appointment<E> {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.at_ms, self.number).cmp(&(other.at_ms, other.number))
    }
}
