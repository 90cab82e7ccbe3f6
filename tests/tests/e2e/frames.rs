//! Some frames of a render: an artist at home looks at every tenth, and fetches the rest later.

use std::fs;

use avalon_protocol::{
    control::{JobState, Presence},
    exit_code::ExitCode,
};
use avalon_tests::daemons::{Studio, daemon::Daemon, tree};

use crate::support::{BEAUTY, HOME, LONDON, studio};

const RENDER: &str = "lantern:sh010/beauty@v009";

/// London with a render of a hundred frames and a movie, and home, which allows parts if `partial` says so.
fn sites(partial: bool) -> (Studio, Daemon, Daemon) {
    let studio = studio();
    let london = studio.on_demand(LONDON, &[]);
    let mut home = studio.on_demand(HOME, &[&london]);
    home.config.project_extra = format!("partial = {partial}\n");
    home.restart();
    let dir = london.path(&format!("{BEAUTY}/v009"));
    for frame in 1001..=1100u32 {
        let content = tree::noise(u64::from(frame), 100_000);
        tree::write(&dir.join(format!("beauty.exr/beauty.{frame}.exr")), &content);
    }
    tree::write(&dir.join("beauty.mov"), &tree::noise(7, 1_000_000));
    assert_eq!(london.api().publish(&dir).error, None);
    home.until("the version is known", |api| {
        api.list().versions.iter().any(|known| known.reference == RENDER).then_some(())
    });
    (studio, london, home)
}

fn frames_at(daemon: &Daemon) -> Vec<String> {
    let Ok(entries) = fs::read_dir(daemon.path(&format!("{BEAUTY}/v009/beauty.exr"))) else {
        return Vec::new();
    };
    let mut names: Vec<String> =
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn every_tenth_frame_comes_nothing_else_does_and_the_rest_comes_with_all() {
    let (_studio, london, home) = sites(true);
    let said = home
        .ctl(&["pull", "lantern:sh010/beauty/exr@v009", "--frames", "1001-1050x10", "-n", "--json"])
        .good();
    let plan = &said["versions"][0];
    assert_eq!((&plan["files"], &plan["bytes"]), (&5.into(), &500_000.into()), "{said}");
    assert!(frames_at(&home).is_empty());
    home.ctl(&["pull", "lantern:sh010/beauty/exr@v009", "--frames", "1001-1050x10"]).expect(ExitCode::Ok);
    assert_eq!(frames_at(&home), [1001, 1011, 1021, 1031, 1041].map(|frame| format!("beauty.{frame}.exr")));
    assert!(!home.path(&format!("{BEAUTY}/v009/beauty.mov")).exists());
    for frame in frames_at(&home) {
        let inside = format!("{BEAUTY}/v009/beauty.exr/{frame}");
        assert_eq!(fs::read(home.path(&inside)).unwrap(), fs::read(london.path(&inside)).unwrap());
    }
    // To everybody the version is not held here, and what is here can be seen.
    let item = london.api().locate_one(RENDER).unwrap();
    assert!(item.nodes.iter().all(|node| node.node != HOME || node.files_present == 0), "{item:?}");
    let info = home.api().info(RENDER).unwrap();
    assert_eq!((info.here, info.files_here), (Presence::Partial, 5));
    // Also when the tree is looked at anew: nothing is published, dropped or fetched.
    let mut home = home;
    home.restart();
    home.until_connected(LONDON);
    home.ctl(&["publish", home.path(&format!("{BEAUTY}/v009")).to_str().unwrap()]);
    assert_eq!(home.api().info(RENDER).unwrap().files_here, 5);
    assert_eq!(frames_at(&home).len(), 5);
    // More of it, then all; what is here does not come again.
    home.ctl(&["pull", "lantern:sh010/beauty/exr@v009", "--frames", "1001-1010,1100"]).expect(ExitCode::Ok);
    assert_eq!(frames_at(&home).len(), 15);
    home.ctl(&["pull", RENDER]).expect(ExitCode::Ok);
    home.until_complete_at(RENDER, HOME);
    let job = home.api().job_of(RENDER);
    assert!(job.state == JobState::Done && job.bytes_received < 9_900_000, "{job:?}");
    tree::assert_equal(&london.path(BEAUTY), &home.path(BEAUTY));
    assert!(fs::read_dir(home.path(".avalon/incoming")).unwrap().next().is_none(), "no area stays");
}

#[test]
fn all_frames_come_coarse_to_fine_and_go_on_after_a_crash() {
    let (_studio, london, mut home) = sites(true);
    home.ctl(&["limit", "set", "1MiB/s", "--direction", "receive"]).expect(ExitCode::Ok);
    home.ctl(&["pull", "lantern:sh010/beauty/exr@v009", "--frames", "1001-1100", "--detach"])
        .expect(ExitCode::Ok);
    let coarse = home.until("the first passes are there", |_| {
        let frames = frames_at(&home);
        (frames.len() >= 7).then_some(frames)
    });
    assert!(
        coarse.contains(&"beauty.1033.exr".to_owned()) && coarse.contains(&"beauty.1097.exr".to_owned()),
        "{coarse:?}"
    );
    home.kill9();
    home.start();
    home.until("it is wanted still", |api| api.jobs().iter().any(|job| job.frames.is_some()).then_some(()));
    home.ctl(&["limit", "clear", "--all"]).expect(ExitCode::Ok);
    home.until("all frames are there", |_| (frames_at(&home).len() == 100).then_some(()));
    home.until("the job has ended", |api| {
        api.jobs().iter().all(|job| job.state == JobState::Done).then_some(())
    });
    tree::assert_equal(
        &london.path(&format!("{BEAUTY}/v009/beauty.exr")),
        &home.path(&format!("{BEAUTY}/v009/beauty.exr")),
    );
    assert!(fs::read_dir(home.path(".avalon/incoming")).unwrap().next().is_none(), "no area stays");
}

#[test]
fn parts_of_versions_come_only_where_the_configuration_says_so() {
    let (_studio, _london, home) = sites(false);
    let said = home.ctl(&["pull", RENDER, "--frames", "1001"]).expect(ExitCode::Denied);
    assert!(said.stderr.contains("partial = true"), "{said:?}");
    assert!(!home.path(BEAUTY).exists());
}

#[test]
fn frames_that_do_not_exist_say_which_do_and_a_cancelled_job_leaves_nothing() {
    let (_studio, _london, home) = sites(true);
    let said = home.ctl(&["pull", RENDER, "--frames", "1-9"]).expect(ExitCode::NotFound);
    assert!(said.stderr.contains("beauty.exr/beauty.[1001-1100].exr"), "{said:?}");
    home.ctl(&["pull", RENDER, "--frames", "9-1"]).expect(ExitCode::Usage);
    home.ctl(&["limit", "set", "200KiB/s", "--direction", "receive"]).expect(ExitCode::Ok);
    home.ctl(&["pull", RENDER, "--frames", "1001-1100", "--detach"]).expect(ExitCode::Ok);
    let job = home.until("something comes", |api| api.jobs().into_iter().find(|job| job.bytes_present > 0));
    home.ctl(&["cancel", &job.id]).expect(ExitCode::Ok);
    home.until("nothing is left of what did not come", |_| {
        fs::read_dir(home.path(".avalon/incoming")).unwrap().next().is_none().then_some(())
    });
}
