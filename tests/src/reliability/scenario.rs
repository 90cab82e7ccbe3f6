//! What a victim does while it meets its fault.

use std::path::Path;

use avalon_protocol::mode::ProjectMode;
use serde::Serialize;

use super::scene::{At, Ended, Scene};
use crate::daemons::tree;

/// Where the versions lie.
const MODEL: &str = "assets/robot/publish/modelDefault";
const HERO: &str = "assets/robot/publish/rigMain/hero";
/// The version that is a long sequence.
const SEQUENCE: u32 = 3;

/// One of the things that daemons do all day.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Scenario {
    /// Versions are published by it: single files, sequences, growth, a hero.
    Publish,
    /// It fetches what another node published: whole directories, files into one that is there, a hero that moves.
    Receive,
    /// It drops what another one holds, and fetches that again.
    Drop,
    /// Its catalog is built anew, and it goes on publishing.
    Rebuild,
    /// Versions go out of use and come back; a changed file is put back, another one accepted.
    Lifetime,
}

impl Scenario {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Publish, Self::Receive, Self::Drop, Self::Rebuild, Self::Lifetime];

    /// Returns its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Publish => "publish",
            Self::Receive => "receive",
            Self::Drop => "drop",
            Self::Rebuild => "rebuild",
            Self::Lifetime => "lifetime",
        }
    }

    /// Returns whether versions come to the victim by themselves. What is dropped must not.
    pub fn mode(self) -> ProjectMode {
        match self {
            Self::Drop => ProjectMode::OnDemand,
            _ => ProjectMode::Mirror,
        }
    }

    /// Does what has to be there before: nothing of it meets a fault.
    ///
    /// # Errors
    /// The daemon ended.
    pub fn prepare(self, scene: &mut Scene) -> Result<(), Ended> {
        match self {
            Self::Publish | Self::Receive => {}
            Self::Drop | Self::Rebuild | Self::Lifetime => {
                for version in 1..=3 {
                    model(scene, At::Peer, version)?;
                    if self == Self::Drop {
                        scene.until(|victim| victim.api().locate_one(&reference(version)))?;
                        said(scene, &["pull", &reference(version), "--timeout", "30s"])?;
                    }
                    scene.until_here(&reference(version))?;
                }
            }
        }
        Ok(())
    }

    /// Plays it.
    ///
    /// # Errors
    /// The daemon ended.
    pub fn play(self, scene: &mut Scene) -> Result<(), Ended> {
        match self {
            Self::Publish => {
                model(scene, At::Victim, 1)?;
                model(scene, At::Victim, 2)?;
                growth(scene, At::Victim, 2)?;
                sequence(scene, At::Victim)?;
                hero(scene, At::Victim, 1)?;
                hero(scene, At::Victim, 2)
            }
            Self::Receive => {
                model(scene, At::Peer, 1)?;
                scene.until_here(&reference(1))?;
                growth(scene, At::Peer, 1)?;
                hero(scene, At::Peer, 1)?;
                scene.until_here(HERO_REFERENCE)?;
                hero(scene, At::Peer, 2)?;
                model(scene, At::Peer, 2)?;
                scene.until_here(&reference(2))?;
                sequence(scene, At::Peer)?;
                scene.until_here(&reference(SEQUENCE))
            }
            Self::Drop => {
                said(scene, &["drop", &reference(1), "--timeout", "5s"])?;
                said(scene, &["pull", &reference(1), "--timeout", "5s"])?;
                said(scene, &["drop", &reference(2), "--timeout", "5s"])
            }
            Self::Rebuild => {
                said(scene, &["catalog", "rebuild"])?;
                model(scene, At::Victim, 4)?;
                said(scene, &["catalog", "verify"])
            }
            Self::Lifetime => {
                said(scene, &["retire", &reference(1), "-m", "old"])?;
                said(scene, &["restore", &reference(1)])?;
                scribble(scene, 2)?;
                said(scene, &["restore", &reference(2), "--timeout", "5s"])?;
                scribble(scene, 3)?;
                said(scene, &["accept", &reference(3), "-m", "better"])
            }
        }
    }

    /// Does what artists at the victim do before its daemon runs again: what was torn while it was written, and never
    /// published, is written again. Else the daemon would publish what lies there, as it should.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn write_torn_again(self, scene: &Scene) -> Result<(), String> {
        match self {
            Self::Publish => {
                scene.write_torn_again(&dir(1), &model_files(1))?;
                scene.write_torn_again(&dir(2), &model_files(2))?;
                scene.write_torn_again(&dir(2), &growth_files(2))?;
                scene.write_torn_again(&dir(SEQUENCE), &sequence_files())?;
                scene.write_torn_again(HERO, &hero_files(2))
            }
            Self::Rebuild => scene.write_torn_again(&dir(4), &model_files(4)),
            Self::Receive | Self::Drop | Self::Lifetime => Ok(()),
        }
    }

    /// Does what people would do afterwards, when all is well again: what was not published is, what was dropped is fetched, what
    /// was changed is put back. Returns the versions that both nodes have in the end.
    ///
    /// # Errors
    /// The daemon ended.
    pub fn finish(self, scene: &mut Scene) -> Result<Vec<String>, Ended> {
        let models = |numbers: std::ops::RangeInclusive<u32>| numbers.map(reference).collect::<Vec<_>>();
        match self {
            Self::Publish | Self::Receive => {
                let at = if self == Self::Publish { At::Victim } else { At::Peer };
                for version in 1..=2 {
                    model(scene, at, version)?;
                }
                growth(scene, at, if self == Self::Publish { 2 } else { 1 })?;
                sequence(scene, at)?;
                hero(scene, at, 2)?;
                Ok([models(1..=SEQUENCE), vec![HERO_REFERENCE.to_owned()]].concat())
            }
            Self::Drop => {
                for version in 1..=3 {
                    said(scene, &["pull", &reference(version)])?;
                }
                Ok(models(1..=3))
            }
            Self::Rebuild => {
                model(scene, At::Victim, 4)?;
                Ok(models(1..=4))
            }
            Self::Lifetime => {
                said(scene, &["restore", &reference(1)])?;
                for version in 2..=3 {
                    said(scene, &["restore", &reference(version)])?;
                }
                Ok(models(1..=3))
            }
        }
    }
}

const HERO_REFERENCE: &str = "lantern:robot/rigMain@hero";

fn reference(version: u32) -> String {
    format!("lantern:robot/modelDefault@v{version:03}")
}

fn dir(version: u32) -> String {
    format!("{MODEL}/v{version:03}")
}

type Files = Vec<(String, Vec<u8>)>;

/// One file and a directory of three.
fn model_files(version: u32) -> Files {
    let content = |file: u64| tree::noise(u64::from(version) * 100 + file, 40_000);
    vec![
        ("modelDefault.usdc".to_owned(), content(0)),
        ("modelDefault.frames/a.1001.exr".to_owned(), content(1)),
        ("modelDefault.frames/a.1002.exr".to_owned(), content(2)),
        ("modelDefault.frames/a.1003.exr".to_owned(), content(3)),
    ]
}

/// More files in a version that is there.
fn growth_files(version: u32) -> Files {
    let content = |file: u64| tree::noise(u64::from(version) * 100 + file, 30_000);
    vec![
        ("modelDefault.frames/a.1004.exr".to_owned(), content(4)),
        ("modelDefault.abc".to_owned(), content(5)),
    ]
}

/// So many files that they are synced together.
fn sequence_files() -> Files {
    let frames = 1001..=1020u64;
    frames
        .map(|frame| (format!("modelDefault.frames/b.{frame}.exr"), tree::noise(30_000 + frame, 5_000)))
        .collect()
}

fn hero_files(content: u64) -> Files {
    vec![("rigMain.usdc".to_owned(), tree::noise(content + 10_000, 25_000))]
}

fn model(scene: &mut Scene, at: At, version: u32) -> Result<(), Ended> {
    scene.publish(at, &dir(version), &model_files(version))
}

fn growth(scene: &mut Scene, at: At, version: u32) -> Result<(), Ended> {
    scene.publish(at, &dir(version), &growth_files(version))
}

fn sequence(scene: &mut Scene, at: At) -> Result<(), Ended> {
    scene.publish(at, &dir(SEQUENCE), &sequence_files())
}

fn hero(scene: &mut Scene, at: At, content: u64) -> Result<(), Ended> {
    scene.forget(&Path::new(HERO).join("rigMain.usdc"));
    scene.publish(at, HERO, &hero_files(content))
}

/// Changes a published file at the victim.
fn scribble(scene: &mut Scene, version: u32) -> Result<(), Ended> {
    let inside = Path::new(&dir(version)).join("modelDefault.usdc");
    // The change may be accepted, and is the content then.
    scene.forget(&inside);
    let path = scene.victim.config.project_dir().join(inside);
    std::fs::write(path, tree::noise(u64::from(version) + 20_000, 40_000)).map_err(|_| Ended)
}

/// Runs a command of the victim's; whatever it says is fine while the daemon lives.
fn said(scene: &mut Scene, arguments: &[&str]) -> Result<(), Ended> {
    scene.victim.ctl(arguments);
    if scene.is_alive() { Ok(()) } else { Err(Ended) }
}
