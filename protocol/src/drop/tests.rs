//! Many droppers at once, in any order, with lost, late and repeated messages and with crashes; and what goes first.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;
use crate::{
    hash::ManifestId,
    id::{NodeId, SiteName, VersionId},
};

fn node(name: &str) -> NodeId {
    name.parse().unwrap()
}

fn nonce(number: u64) -> Nonce {
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&number.to_le_bytes());
    Nonce::from_bytes(bytes)
}

fn prove(who: &NodeId, nonce: &Nonce, content: &[u8]) -> Proof {
    let mut prover = Prover::new(nonce, who, &ManifestId::from_bytes([7; 32]));
    prover.file(content.len() as u64);
    prover.bytes(content);
    prover.finish()
}

fn version() -> VersionId {
    crate::record::tests::version(1)
}

/// How a wrong protocol would do it, to see that the test notices.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Rules {
    AsWritten,
    /// The holder looks at its records first and at the state after.
    LooksTheOtherWayRound,
    /// The state is entered when the questions are out.
    AsksFirst,
    /// The state is left before the record is durable.
    LeavesEarly,
}

#[derive(Debug)]
struct Node {
    name: NodeId,
    /// Durable.
    holds: bool,
    content: &'static [u8],
    min_copies: u32,
    /// The rest is in memory.
    dropping: Dropping,
    attempt: Option<(u64, Attempt)>,
    permitted: Option<Counted>,
    recorded: bool,
    /// Questions that it has looked at once: who asked, the attempt, the nonce, what the first look said.
    halfway: Vec<(usize, u64, Nonce, bool)>,
}

#[derive(Debug, Clone)]
enum Message {
    Question { from: usize, to: usize, attempt: u64, nonce: Nonce },
    Answer { from: usize, to: usize, attempt: u64, answer: Result<(Proof, u32), NotCounted> },
}

#[derive(Debug)]
struct World {
    rules: Rules,
    nodes: Vec<Node>,
    air: Vec<Message>,
    attempts: u64,
    drops: usize,
}

impl World {
    fn new(rules: Rules, names: &[&str], min_copies: &[u32]) -> Self {
        let nodes = names.iter().zip(min_copies).map(|(name, min_copies)| Node {
            name: node(name),
            holds: true,
            content: b"the same bytes",
            min_copies: *min_copies,
            dropping: Dropping::default(),
            attempt: None,
            permitted: None,
            recorded: false,
            halfway: Vec::new(),
        });
        Self { rules, nodes: nodes.collect(), air: Vec::new(), attempts: 0, drops: 0 }
    }

    /// Sites where a node records the version and has its bytes.
    fn copies(&self) -> usize {
        let good = self.nodes.iter().filter(|node| node.holds && node.content == b"the same bytes");
        good.map(|node| &node.name.site).collect::<BTreeSet<&SiteName>>().len()
    }

    fn holders(&self, but: usize) -> Vec<NodeId> {
        let others = self.nodes.iter().enumerate().filter(|(index, node)| *index != but && node.holds);
        others.map(|(_, node)| node.name.clone()).collect()
    }

    fn act(&mut self, what: u8, which: usize) {
        let count = self.nodes.len();
        match what {
            0 | 1 => self.begin(which % count),
            2..=6 if !self.air.is_empty() => {
                let message = self.air.remove(which % self.air.len());
                self.deliver(message);
            }
            7 if !self.air.is_empty() => drop(self.air.remove(which % self.air.len())),
            8 if !self.air.is_empty() => self.air.push(self.air[which % self.air.len()].clone()),
            9 | 10 => self.answer(which % count),
            11 | 12 => self.go_on(which % count),
            13 => self.crash(which % count),
            14 => self.time_out(which % count),
            15 if self.copies() > 0 => {
                let node = &mut self.nodes[which % count];
                if node.attempt.is_none() && !node.holds {
                    (node.holds, node.content) = (true, b"the same bytes");
                }
            }
            _ => {}
        }
    }

    fn begin(&mut self, me: usize) {
        let holders = self.holders(me);
        self.attempts += 1;
        let attempt = self.attempts;
        let nonces = holders.into_iter().zip((0..).map(|i| nonce(attempt * 100 + i)));
        let node = &mut self.nodes[me];
        if !node.holds || node.attempt.is_some() {
            return;
        }
        if self.rules != Rules::AsksFirst {
            node.dropping.enter(&version()).unwrap();
        }
        node.attempt = Some((attempt, Attempt::begin(node.min_copies, nonces)));
        self.step(me);
    }

    fn step(&mut self, me: usize) {
        let Some((number, attempt)) = &mut self.nodes[me].attempt else { return };
        let number = *number;
        match attempt.step() {
            Step::Ask(asks) => {
                for ask in asks {
                    let content = self.nodes[me].content;
                    let own = prove(&ask.node, &ask.nonce, content);
                    let to = self.nodes.iter().position(|node| node.name == ask.node).unwrap();
                    if let Some((_, attempt)) = &mut self.nodes[me].attempt {
                        attempt.own(&ask.node, own);
                    }
                    self.air.push(Message::Question { from: me, to, attempt: number, nonce: ask.nonce });
                }
            }
            Step::Wait => {}
            Step::Drop(counted) => {
                self.nodes[me].permitted = Some(counted);
                if self.rules == Rules::AsksFirst {
                    self.nodes[me].dropping.enter(&version()).ok();
                }
                if self.rules == Rules::LeavesEarly {
                    self.nodes[me].dropping.leave(&version());
                }
            }
            Step::GiveUp(_) => self.leave(me),
        }
    }

    fn leave(&mut self, me: usize) {
        let node = &mut self.nodes[me];
        node.dropping.leave(&version());
        (node.attempt, node.permitted, node.recorded) = (None, None, false);
    }

    /// Records what was permitted, or leaves the state after it: two moments.
    fn go_on(&mut self, me: usize) {
        let node = &mut self.nodes[me];
        let Some(counted) = &node.permitted else { return };
        if node.recorded {
            return self.leave(me);
        }
        let needed = usize::try_from(counted.min_copies).unwrap();
        assert!(counted.sites().len() >= needed && counted.min_copies >= node.min_copies);
        (node.holds, node.recorded) = (false, true);
        self.drops += 1;
    }

    fn deliver(&mut self, message: Message) {
        match message {
            Message::Question { from, to, attempt, nonce } => {
                let node = &mut self.nodes[to];
                let first = match self.rules {
                    Rules::LooksTheOtherWayRound => node.holds,
                    _ => !node.dropping.contains(&version()),
                };
                node.halfway.push((from, attempt, nonce, first));
            }
            Message::Answer { from, to, attempt, answer } => {
                let name = self.nodes[from].name.clone();
                let is_decided = self.nodes[to].permitted.is_some();
                let Some((current, open)) = &mut self.nodes[to].attempt else { return };
                if *current != attempt || is_decided {
                    return;
                }
                match answer {
                    Ok((proof, min_copies)) => open.answered(&name, proof, min_copies),
                    Err(why) => open.doubted(&name, Doubt::Said(why)),
                }
                self.step(to);
            }
        }
    }

    fn answer(&mut self, me: usize) {
        let node = &mut self.nodes[me];
        let Some((asker, attempt, nonce, first)) = node.halfway.pop() else { return };
        let second = match self.rules {
            Rules::LooksTheOtherWayRound => !node.dropping.contains(&version()),
            _ => node.holds,
        };
        let answer = if first && second {
            Ok((prove(&node.name, &nonce, node.content), node.min_copies))
        } else {
            Err(if first { NotCounted::NotHeld } else { NotCounted::Dropping })
        };
        self.air.push(Message::Answer { from: me, to: asker, attempt, answer });
    }

    fn crash(&mut self, me: usize) {
        self.nodes[me].dropping = Dropping::default();
        self.nodes[me].halfway.clear();
        self.leave(me);
    }

    fn time_out(&mut self, me: usize) {
        let holders = self.holders(me);
        let node = &mut self.nodes[me];
        if node.permitted.is_some() {
            return;
        }
        if let Some((_, attempt)) = &mut node.attempt {
            for holder in holders {
                attempt.doubted(&holder, Doubt::NoAnswer("too slow".into()));
            }
            self.step(me);
        }
    }
}

const NAMES: [&str; 6] = ["a@x", "b@x", "c@y", "d@z", "e@z", "f@w"];

/// Returns whether the copies stayed, and how many drops there were.
fn run(rules: Rules, nodes: usize, min_copies: u32, actions: &[(u8, usize)]) -> (bool, usize) {
    let mut world = World::new(rules, &NAMES[..nodes], &[min_copies; 6]);
    let floor = world.copies().min(min_copies as usize);
    for (what, which) in actions {
        world.act(*what, *which);
        if world.copies() < floor {
            return (false, world.drops);
        }
    }
    (true, world.drops)
}

fn actions() -> impl Strategy<Value = Vec<(u8, usize)>> {
    prop::collection::vec((0u8..16, 0usize..1000), 1..400)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn copies_never_fall_below_the_minimum(
        nodes in 2usize..=6, min_copies in 1u32..=3, actions in actions()
    ) {
        let (stayed, _) = run(Rules::AsWritten, nodes, min_copies, &actions);
        prop_assert!(stayed);
    }

    #[test]
    fn nodes_with_different_policies_keep_what_those_that_remain_ask_for(
        nodes in 2usize..=6, minimums in prop::collection::vec(1u32..=3, 6), actions in actions()
    ) {
        let mut world = World::new(Rules::AsWritten, &NAMES[..nodes], &minimums);
        let floor = world.copies().min(minimums[..nodes].iter().copied().min().unwrap() as usize);
        for (what, which) in &actions {
            world.act(*what, *which);
            prop_assert!(world.copies() >= floor);
        }
    }

    #[test]
    fn bytes_that_changed_at_a_holder_do_not_count(
        nodes in 2usize..=6, bad in 0usize..6, actions in actions()
    ) {
        let mut world = World::new(Rules::AsWritten, &NAMES[..nodes], &[1; 6]);
        world.nodes[bad % nodes].content = b"other bytes!!!";
        for (what, which) in &actions {
            world.act(*what, *which);
            prop_assert!(world.copies() >= 1, "a good copy stays, whoever drops");
        }
    }
}

/// A fixed series of runs: how many lose copies, and how many drop at all.
fn series(rules: Rules) -> (usize, usize) {
    let mut state = 1u64;
    let mut draw = move |below: u64| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) % below
    };
    let mut sums = (0, 0);
    for _ in 0..3000 {
        let nodes = 2 + usize::try_from(draw(5)).unwrap();
        let actions: Vec<(u8, usize)> = (0..200)
            .map(|_| (u8::try_from(draw(16)).unwrap(), usize::try_from(draw(1000)).unwrap()))
            .collect();
        let min_copies = 1 + u32::try_from(draw(2)).unwrap();
        let (stayed, drops) = run(rules, nodes, min_copies, &actions);
        sums.0 += usize::from(!stayed);
        sums.1 += drops;
    }
    sums
}

#[test]
fn each_step_of_the_protocol_is_needed_and_drops_do_happen() {
    let (lost, drops) = series(Rules::AsWritten);
    assert_eq!(lost, 0);
    assert!(drops > 1000, "{drops}");
    for rules in [Rules::LooksTheOtherWayRound, Rules::AsksFirst, Rules::LeavesEarly] {
        let (lost, _) = series(rules);
        assert!(lost > 0, "{rules:?} is not noticed");
    }
}

fn held(attempt: &mut Attempt, asks: &[Ask], min_copies: u32) {
    for Ask { node, nonce } in asks {
        let proof = prove(node, nonce, b"it");
        attempt.own(node, proof);
        attempt.answered(node, proof, min_copies);
    }
}

fn begin(min_copies: u32, holders: &[&str]) -> Attempt {
    Attempt::begin(min_copies, holders.iter().map(|name| node(name)).zip((0..).map(nonce)))
}

fn asks(step: Step) -> Vec<Ask> {
    match step {
        Step::Ask(asks) => asks,
        other => panic!("{other:?}"),
    }
}

fn names(asks: &[Ask]) -> Vec<String> {
    asks.iter().map(|ask| ask.node.to_string()).collect()
}

#[test]
fn one_node_of_each_site_is_asked_and_no_more_than_needed() {
    let mut attempt = begin(2, &["a@x", "b@x", "c@y", "d@z"]);
    let first = asks(attempt.step());
    assert_eq!(names(&first), ["a@x", "c@y"]);
    assert_eq!(attempt.step(), Step::Wait);
    held(&mut attempt, &first[..1], 1);
    attempt.doubted(&node("c@y"), Doubt::NoAnswer("not connected".into()));
    let second = asks(attempt.step());
    assert_eq!(names(&second), ["d@z"], "b is at a site that has proved");
    held(&mut attempt, &second, 1);
    let Step::Drop(counted) = attempt.step() else { panic!() };
    assert_eq!(counted.nodes, [node("a@x"), node("d@z")]);
}

#[test]
fn who_proves_and_asks_for_more_copies_is_heeded() {
    let mut attempt = begin(0, &["a@x", "b@y"]);
    let first = asks(attempt.step());
    assert_eq!(names(&first), ["a@x"], "one other copy at least, whatever the policy says");
    held(&mut attempt, &first, 3);
    let Step::GiveUp(why) = attempt.step() else { panic!() };
    assert_eq!((why.min_copies, why.not_asked.as_slice()), (3, &[node("b@y")][..]));
    assert_eq!(
        why.to_string(),
        "1 of 3 other sites proved a copy: b@y has it by its records and was not asked"
    );
}

#[test]
fn a_proof_counts_only_for_the_node_that_gave_it_and_its_nonce() {
    let mut attempt = begin(1, &["a@x"]);
    let first = asks(attempt.step());
    attempt.own(&node("a@x"), prove(&node("a@x"), &first[0].nonce, b"it"));
    let passed_on = prove(&node("b@y"), &first[0].nonce, b"it");
    let mut other = attempt.clone();
    other.answered(&node("a@x"), passed_on, 1);
    let Step::GiveUp(why) = other.step() else { panic!() };
    assert_eq!(why.not_counted, [(node("a@x"), Doubt::OtherBytes)]);
    attempt.answered(&node("a@x"), prove(&node("a@x"), &nonce(99), b"it"), 1);
    assert!(matches!(attempt.step(), Step::GiveUp(_)));
}

#[test]
fn sizes_are_part_of_the_proof() {
    let two = |first: &[u8], second: &[u8]| {
        let mut prover = Prover::new(&nonce(1), &node("a@x"), &ManifestId::from_bytes([7; 32]));
        for bytes in [first, second] {
            prover.file(bytes.len() as u64);
            prover.bytes(bytes);
        }
        prover.finish()
    };
    assert_ne!(two(b"ab", b"c"), two(b"a", b"bc"));
}

#[test]
fn own_files_that_are_not_right_end_the_attempt() {
    let mut attempt = begin(1, &["a@x"]);
    let first = asks(attempt.step());
    held(&mut attempt, &first, 1);
    attempt.own_doubted("beauty.0001.exr is shorter".into());
    let Step::GiveUp(why) = attempt.step() else { panic!() };
    assert!(!why.is_race() && why.to_string().contains("beauty.0001.exr is shorter"));
}

#[test]
fn two_that_drop_at_once_may_try_again() {
    let mut attempt = begin(1, &["a@x"]);
    asks(attempt.step());
    attempt.doubted(&node("a@x"), Doubt::Said(NotCounted::Dropping));
    let Step::GiveUp(why) = attempt.step() else { panic!() };
    assert!(why.is_race());
    let mut dropping = Dropping::default();
    dropping.enter(&version()).unwrap();
    assert!(dropping.enter(&version()).is_err());
    assert_eq!(dropping.vouch(&version(), || true), Err(NotCounted::Dropping));
    dropping.leave(&version());
    assert_eq!(dropping.vouch(&version(), || false), Err(NotCounted::NotHeld));
    assert_eq!(dropping.vouch(&version(), || true), Ok(()));
}

fn candidate(what: u32, bytes: u64, last_used_ms: u64) -> Candidate<u32> {
    Candidate { what, bytes, last_used_ms, is_retired: false, guard: None }
}

#[test]
fn what_was_not_used_for_longest_goes_first_and_only_as_much_as_needed() {
    let mut all =
        vec![candidate(1, 10, 500), candidate(2, 10, 100), candidate(3, 10, 300), candidate(4, 10, 900)];
    all[3].is_retired = true;
    assert_eq!(choose(&all, 15).victims, [4, 2]);
    assert!(choose(&all, 0).victims.is_empty());
    all[1].guard = Some(Guard::Pinned);
    let choice = choose(&all, 40);
    assert_eq!((choice.victims, choice.bytes), (vec![4, 3, 1], 30));
    assert_eq!(choice.blocked, [(Guard::Pinned, (1, 10))].into());
}

#[test]
fn pressure_is_relieved_by_a_little_more_than_is_over() {
    let pressure = |used_bytes, free_bytes| Pressure {
        used_bytes,
        quota_bytes: Some(1000),
        free_bytes,
        keep_free_bytes: Some(100),
    };
    assert_eq!(pressure(1000, 100).excess_bytes(), 0);
    assert_eq!(pressure(1001, 100).excess_bytes(), 51);
    assert_eq!(pressure(1000, 99).excess_bytes(), 6);
    assert_eq!((pressure(900, 300).excess_bytes_for(100), pressure(901, 300).excess_bytes_for(100)), (0, 51));
    assert_eq!(pressure(500, 150).excess_bytes_for(60), 15);
    assert!(pressure(900, 300).has_room_for(100) && !pressure(900, 300).has_room_for(101));
    assert!(!pressure(900, 199).has_room_for(100));
    assert!(pressure(800, 900).has_much_room_for(100) && !pressure(801, 900).has_much_room_for(100));
    let unlimited = Pressure { used_bytes: u64::MAX, ..Pressure::default() };
    assert_eq!(unlimited.excess_bytes(), 0);
    assert!(unlimited.has_much_room_for(u64::MAX));
}

#[test]
fn what_belongs_here_makes_just_enough_room_for_the_smallest_or_none_at_all() {
    let pressure = Pressure { used_bytes: 900, quota_bytes: Some(1000), ..Pressure::default() };
    let mut all = vec![candidate(1, 60, 500), candidate(2, 100, 100), candidate(3, 200, 300)];
    assert!(choose_for(&all, &pressure, [400, 40]).victims.is_empty(), "one has room, and comes first");
    assert_eq!(choose_for(&all, &pressure, [400, 150]).victims, [2], "down to 950 with it");
    assert_eq!(choose_for(&all, &pressure, [200]).victims, [2, 3]);
    assert!(choose_for(&all, &pressure, [500]).victims.is_empty(), "all together are not enough");
    all[2].guard = Some(Guard::TooFewCopies);
    assert_eq!(choose_for(&all, &pressure, [200]).victims, [2, 1]);
    assert!(choose_for(&all, &pressure, []).victims.is_empty());
}

proptest! {
    #[test]
    fn what_is_guarded_never_goes_and_enough_goes_when_it_can(
        items in prop::collection::vec((1u64..100, 0u64..50, any::<bool>(), any::<bool>()), 0..30),
        excess in 0u64..2000
    ) {
        let all: Vec<Candidate<u32>> = (0..).zip(&items).map(|(what, (bytes, used, retired, guarded))| {
            let guard = guarded.then_some(Guard::Kept);
            Candidate { what, bytes: *bytes, last_used_ms: *used, is_retired: *retired, guard }
        }).collect();
        let choice = choose(&all, excess);
        let may: u64 = all.iter().filter(|c| c.guard.is_none()).map(|c| c.bytes).sum();
        prop_assert!(choice.victims.iter().all(|what| all[*what as usize].guard.is_none()));
        prop_assert!(choice.bytes >= excess.min(may));
        let last = choice.victims.last().map_or(0, |what| all[*what as usize].bytes);
        prop_assert!(choice.bytes.saturating_sub(last) < excess.max(1), "one less is too little");
    }
}
