//! A victim that is killed, loses its power, or gets errors at each step of a scenario in turn, until a run comes to its end
//! before that step.

use std::path::Path;

use rand::{Rng as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;

use super::{
    report::{Outcome, Report},
    scenario::Scenario,
    scene::{Mounted, Scene},
    trace::{Fault, Kind, Seen},
    volume::FileSystem,
};
use crate::daemons::Programs;

/// What happens at the step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// SIGKILL.
    Kill,
    /// The power goes.
    Cut(FileSystem),
    /// This kind of call fails so often from there on.
    Fail {
        /// Which calls.
        kind: Kind,
        /// How many.
        count: u64,
        /// `errno`.
        errno: i32,
    },
}

impl Way {
    fn fault(self, at: u64, scene: &Scene) -> Fault {
        match self {
            Self::Kill => Fault::Kill { at },
            Self::Cut(_) => Fault::Cut { at, mount: scene.volume().expect("a volume").path().to_owned() },
            Self::Fail { kind, count, errno } => Fault::Fail { kind, from: at, count, errno },
        }
    }

    fn mounted(self) -> Option<Mounted> {
        match self {
            Self::Cut(system) => Some(Mounted::All(system)),
            _ => None,
        }
    }

    fn reads(self) -> bool {
        matches!(self, Self::Fail { kind: Kind::Read, .. })
    }

    /// Returns how many of the steps that were seen are of the kind that counts.
    fn steps(self, seen: &Seen) -> u64 {
        match self {
            Self::Fail { kind, .. } => seen.kinds.get(&kind).copied().unwrap_or_default(),
            Self::Kill | Self::Cut(_) => seen.steps,
        }
    }

    /// Returns about how many steps a scenario has, before anything was seen.
    fn guess(self) -> u64 {
        match self {
            Self::Fail { .. } => 20,
            Self::Kill | Self::Cut(_) => 200,
        }
    }

    fn name(self) -> String {
        match self {
            Self::Kill => "kill".to_owned(),
            Self::Cut(system) => format!("cut {system:?}"),
            Self::Fail { kind, count, errno } => match count {
                1 => format!("errno {errno} {kind:?}"),
                _ => format!("errno {errno} {kind:?} from there on"),
            },
        }
    }
}

/// Plays a scenario with a fault at one step, and everything after it. `seen` gets what the tracer saw as soon as that is known.
///
/// # Errors
/// With what was wrong.
pub fn run(
    programs: &Programs,
    tracer: &Path,
    scenario: Scenario,
    way: Way,
    at: u64,
    seen: &mut Seen,
) -> Result<Outcome, String> {
    let mut scene = Scene::new(programs.clone(), tracer, scenario.mode(), way.mounted())?;
    scenario.prepare(&mut scene).map_err(|_| "it ended while all was prepared")?;
    scene.rest();
    let fault = way.fault(at, &scene);
    *seen = scene.traced(fault, way.reads(), |scene| scenario.play(scene))?;
    scene.mount_again()?;
    scenario.write_torn_again(&scene)?;
    scene.victim.start();
    let expected = scenario.finish(&mut scene).map_err(|_| "it ended after it was started again")?;
    let mut outcome = scene.verify(&expected)?;
    outcome.fault = seen.fired.as_ref().map(|step| {
        let kind = step.split(' ').next().unwrap_or_default();
        format!("{} {kind}", way.name())
    });
    Ok(outcome)
}

/// Tries every `every`-th step from `first` to `most`, until a run ends before it.
pub fn enumerate(
    programs: &Programs,
    tracer: &Path,
    scenario: Scenario,
    way: Way,
    (first, every, most): (u64, u64, u64),
) -> Report {
    let mut report = Report::new(format!("{} {}", way.name(), scenario.name()), 0);
    let mut at = first;
    while at <= most {
        let mut seen = Seen::default();
        let name = format!("at {at}");
        let ended = report.run(&name, || run(programs, tracer, scenario, way, at, &mut seen)).is_some();
        report.steps = report.steps.max(way.steps(&seen));
        // A run that went wrong may not have come to its step.
        if ended && seen.fired.is_none() {
            break;
        }
        at += every;
    }
    report
}

/// Tries `runs` steps by chance, over all that the scenario has.
pub fn sample(
    programs: &Programs,
    tracer: &Path,
    scenario: Scenario,
    way: Way,
    runs: u64,
    seed: u64,
) -> Report {
    let mut report = Report::new(format!("{} {}, by chance", way.name(), scenario.name()), seed);
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    let mut steps = way.guess();
    for _ in 0..runs {
        let at = random.random_range(1..=steps);
        let mut seen = Seen::default();
        report.run(&format!("at {at}"), || run(programs, tracer, scenario, way, at, &mut seen));
        // A run that met no fault says how many steps there are.
        steps = if seen.fired.is_some() { steps.max(at + at / 4) } else { way.steps(&seen).max(1) };
        report.steps = report.steps.max(way.steps(&seen));
    }
    report
}
