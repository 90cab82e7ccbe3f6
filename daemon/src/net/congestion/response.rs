//! Whether loss answers to what this flow does.
//!
//! Loss above the limit makes the flow send less. Where the loss goes on all the same, a bad link or a sender that takes no notice of
//! it is the cause, and giving way helps nobody: a flow that halves itself again and again ends at nothing. So after
//! it sends clearly less the flow counts again. Loss that is still there counts as usual, until there is less of it.

use super::{loss::Verdict, units::percent};

/// What links lose by themselves, and what BBR takes for harmless: 2 % (draft-ietf-ccwg-bbr: `LossThresh`).
pub(super) const HARMLESS: f64 = 0.02;
/// More than this is never taken for usual: some of it is certainly a queue.
const MOST_USUAL: f64 = 0.15;
/// What is usual varies: as many times the share that was counted is harmless.
const MARGIN: f64 = 1.5;

/// Sending less than this part of what it was should show.
const CLEARLY_LESS_PERCENT: u64 = 60;
/// Loss that answers falls below this part of what it was.
const ANSWERED: f64 = 0.5;
/// A count says something when it has this many packets, and this many of them were lost: chance alone seldom halves
/// or doubles a share of so many.
const ENOUGH: f64 = 300.0;
const ENOUGH_LOST: f64 = 12.0;
/// A count of this many packets says something however few were lost.
const PLENTY: f64 = 1_000.0;
/// Round trips without too much loss that end a test: it has answered.
const CALM_ROUNDS: u32 = 16;

/// What to do about a round trip.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Answer {
    /// Nothing.
    Hold,
    /// Lower the ceiling, as the verdict says.
    Lower,
    /// Loss does not answer: put the ceiling back to what it was.
    Restore(Option<u64>),
}

/// A round trip, in packets.
#[derive(Debug, Clone, Copy)]
pub(super) struct Count {
    pub(super) delivered: f64,
    pub(super) lost: f64,
}

impl Count {
    fn add(&mut self, more: Self) {
        self.delivered += more.delivered;
        self.lost += more.lost;
    }

    fn all(self) -> f64 {
        self.delivered + self.lost
    }

    fn share(self) -> f64 {
        self.lost / self.all().max(1.0)
    }
}

const NOTHING: Count = Count { delivered: 0.0, lost: 0.0 };

/// What is known about loss on the path.
#[derive(Debug, Clone)]
pub(super) struct Response {
    harmless: f64,
    test: Option<Test>,
    /// Since the share that is usual was last looked at, and what it was then.
    usual: (Count, f64),
}

/// The flow is sending less, to see what comes of it.
#[derive(Debug, Clone, Copy)]
struct Test {
    window: u64,
    ceiling: Option<u64>,
    /// What was lost when it began.
    share: f64,
    /// Since it sends clearly less.
    less: Option<Count>,
    calm: u32,
}

impl Default for Response {
    fn default() -> Self {
        Self { harmless: HARMLESS, test: None, usual: (NOTHING, 0.0) }
    }
}

impl Response {
    /// Returns the share of lost packets that says nothing.
    pub(super) fn harmless(&self) -> f64 {
        self.harmless
    }

    /// Says whether a round trip lost more than is usual; a single packet is, unless loss is known to go on always.
    pub(super) fn is_unusual(&self, round: Count) -> bool {
        round.lost > 0.0 && (self.harmless <= HARMLESS || round.share() > self.harmless)
    }

    /// Takes a round trip that ended with `window` bytes allowed and `ceiling` known; `share` is what the verdict is about.
    pub(super) fn end_round(
        &mut self,
        round: Count,
        (verdict, share): (Verdict, f64),
        window: u64,
        ceiling: Option<u64>,
    ) -> Answer {
        self.look_at_usual(round);
        let too_much = verdict == Verdict::TooMuch;
        let plain = if verdict == Verdict::Harmless { Answer::Hold } else { Answer::Lower };
        let Some(test) = &mut self.test else {
            self.test = too_much.then_some(Test { window, ceiling, share, less: None, calm: 0 });
            return plain;
        };
        let Some(less) = &mut test.less else {
            test.calm = if too_much { 0 } else { test.calm + 1 };
            if test.calm >= CALM_ROUNDS {
                self.test = None;
            } else if window <= percent(test.window, CLEARLY_LESS_PERCENT) {
                test.less = Some(NOTHING);
            }
            return plain;
        };
        less.add(round);
        let enough = less.lost >= ENOUGH_LOST && less.all() >= ENOUGH || less.all() >= PLENTY;
        if !enough {
            return Answer::Hold;
        }
        let (less, test) = (*less, *test);
        self.test = None;
        if less.share() < ANSWERED * test.share {
            return plain;
        }
        self.harmless = (less.share() * MARGIN).clamp(self.harmless, MOST_USUAL);
        self.usual = (NOTHING, less.share());
        Answer::Restore(test.ceiling)
    }

    /// Takes less for usual as soon as two counts in a row had less.
    fn look_at_usual(&mut self, round: Count) {
        if self.harmless <= HARMLESS {
            return;
        }
        let (count, before) = &mut self.usual;
        count.add(round);
        if count.all() >= PLENTY {
            let share = count.share();
            self.harmless = (share.max(*before) * MARGIN).clamp(HARMLESS, self.harmless);
            self.usual = (NOTHING, share);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn round(delivered: f64, lost: f64) -> Count {
        Count { delivered, lost }
    }

    const TOO_MUCH: (Verdict, f64) = (Verdict::TooMuch, 0.05);
    const FINE: (Verdict, f64) = (Verdict::Harmless, 0.0);

    /// Sends less by a tenth in each round, as long as it should.
    fn answers(response: &mut Response, lost: impl Fn(u64) -> f64) -> Vec<Answer> {
        let mut window = 1_000_000;
        let mut answers = Vec::new();
        for _ in 0..40 {
            let lost = lost(window);
            let verdict = if lost > 0.02 * 400.0 { TOO_MUCH } else { FINE };
            let answer = response.end_round(round(400.0, lost), verdict, window, Some(900_000));
            if answer == Answer::Lower {
                window = percent(window, 90);
            }
            answers.push(answer);
        }
        answers
    }

    #[test]
    fn loss_that_goes_on_is_harmless_and_what_it_cost_is_given_back() {
        let mut response = Response::default();
        let answers = answers(&mut response, |_| 20.0);
        assert!(answers.contains(&Answer::Restore(Some(900_000))), "{answers:?}");
        assert!(response.harmless() > 20.0 / 420.0, "{}", response.harmless());
        assert!(!response.is_unusual(round(400.0, 20.0)));
    }

    #[test]
    fn loss_that_ends_with_less_is_a_queue() {
        let mut response = Response::default();
        let answers = answers(&mut response, |window| if window > 700_000 { 20.0 } else { 0.0 });
        assert!(!answers.iter().any(|answer| matches!(answer, Answer::Restore(_))), "{answers:?}");
        assert!(response.harmless() <= HARMLESS);
        assert!(response.is_unusual(round(400.0, 1.0)));
    }

    #[test]
    fn nothing_makes_a_sixth_usual() {
        let mut response = Response::default();
        answers(&mut response, |_| 200.0);
        assert!(response.harmless() <= MOST_USUAL);
    }

    #[test]
    fn what_is_usual_falls_with_the_loss() {
        let mut response = Response::default();
        answers(&mut response, |_| 20.0);
        for _ in 0..3 {
            response.end_round(round(PLENTY, 0.0), FINE, 1_000_000, None);
        }
        assert!(response.harmless() <= HARMLESS);
    }
}
