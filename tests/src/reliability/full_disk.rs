//! A victim whose volume, or that of its state directory alone, has less room than a scenario needs, by every size from none to enough; and which has to go on
//! by itself when there is room again.

use std::path::Path;

use super::{
    report::{Outcome, Report},
    scenario::Scenario,
    scene::{Mounted, Scene},
};
use crate::daemons::Programs;

/// How much room there is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sizes {
    /// So many sizes, evenly from nothing to what the scenario takes.
    Evenly(u64),
    /// So many bytes.
    Only(u64),
}

/// Plays with room, and then with less.
pub fn full_disk(
    programs: &Programs,
    tracer: &Path,
    scenario: Scenario,
    mounted: Mounted,
    sizes: Sizes,
) -> Report {
    let mut report = Report::new(format!("full {mounted:?} {}", scenario.name()), 0);
    let mut taken = 0;
    report.run("with room", || {
        let mut scene = prepared(programs, tracer, scenario, mounted)?;
        let before = free(&scene)?;
        scene.victim.start();
        scenario.play(&mut scene).map_err(|_| "it ended while there was room")?;
        rustix::fs::sync();
        taken = before.saturating_sub(free(&scene)?);
        end(scenario, scene)
    });
    let rooms = match sizes {
        Sizes::Evenly(sizes) => (0..sizes).map(|number| taken * number / sizes).collect(),
        Sizes::Only(room) => vec![room],
    };
    for room in rooms {
        report.run(&format!("with {room} bytes"), || run(programs, tracer, scenario, mounted, room));
    }
    report.steps = taken;
    report
}

fn run(
    programs: &Programs,
    tracer: &Path,
    scenario: Scenario,
    mounted: Mounted,
    room: u64,
) -> Result<Outcome, String> {
    let mut scene = prepared(programs, tracer, scenario, mounted)?;
    scene.volume().ok_or("no volume")?.fill(room)?;
    // With no room at all it may refuse to start, and says so. It must not end once it runs.
    let ready = scene.victim.launch().log.wait_for("avalond::app: ready");
    let played = ready.then(|| scenario.play(&mut scene));
    let is_alive = scene.is_alive();
    if scene.unanswered() > 0 {
        return Err("a publish got no answer: who publishes has to hear that the disk is full".to_owned());
    }
    scene.volume().ok_or("no volume")?.make_room()?;
    let name = match (ready, is_alive, scene.refused()) {
        (false, ..) => "does not start",
        (true, false, _) => return Err(format!("it ended for want of room: {}", scene.victim.log())),
        (true, true, (_, 1..)) => "the daemon refuses",
        (true, true, (1.., 0)) => "artists cannot write",
        (true, true, (0, 0)) if played != Some(Ok(())) => "the daemon waits",
        (true, true, (0, 0)) => "all is done",
    };
    if !ready {
        scene.victim.kill9();
        scene.victim.start();
    }
    let mut outcome = end(scenario, scene)?;
    outcome.fault = Some(format!("full: {name}"));
    Ok(outcome)
}

fn prepared(
    programs: &Programs,
    tracer: &Path,
    scenario: Scenario,
    mounted: Mounted,
) -> Result<Scene, String> {
    let mut scene = Scene::new(programs.clone(), tracer, scenario.mode(), Some(mounted))?;
    scenario.prepare(&mut scene).map_err(|_| "it ended while all was prepared")?;
    scene.rest();
    Ok(scene)
}

fn free(scene: &Scene) -> Result<u64, String> {
    scene.volume().ok_or("no volume")?.free_bytes()
}

fn end(scenario: Scenario, mut scene: Scene) -> Result<Outcome, String> {
    let expected = scenario.finish(&mut scene).map_err(|_| {
        let is_alive = scene.is_alive();
        format!("when there was room again it did not go on, alive: {is_alive}; {}", scene.victim.log())
    })?;
    scene.verify(&expected)
}
