//! Numbers that are asked for before they are used, where the policy names voters.

use std::{collections::BTreeSet, thread};

use avalon_protocol::exit_code::ExitCode;
use avalon_tests::daemons::{Studio, daemon::Daemon, tree};

use crate::support::{HOME, LONDON, MODEL, MONTREAL, model, publish_model, studio};

const SUBSET: &str = "robot/modelDefault";

/// Three sites, each with a voice, all connected with each other.
fn voters(studio: &Studio) -> (Daemon, Daemon, Daemon) {
    let london = studio.on_demand(LONDON, &[]);
    let montreal = studio.on_demand(MONTREAL, &[&london]);
    let home = studio.on_demand(HOME, &[&london, &montreal]);
    apply(studio, &london, &[LONDON, MONTREAL, HOME]);
    for daemon in [&montreal, &home] {
        daemon.until("the policy is in effect", |api| api.policy().filter(|shown| shown.policy.in_effect));
        daemon.until("all are connected", |api| {
            let online = api.status().peers.iter().filter(|peer| peer.rtt_ms.is_some()).count();
            (online == 2).then_some(())
        });
    }
    (london, montreal, home)
}

fn apply(studio: &Studio, daemon: &Daemon, voters: &[&str]) {
    let path = studio.dir().join("studio.toml");
    let text = format!(
        "schema = \"avalon.policy/1\"\n[defaults]\nkeep = \"on-demand\"\nmin_copies = 1\n[numbers]\nvoters = {voters:?}\n"
    );
    std::fs::write(&path, text).unwrap();
    daemon.ctl(&["policy", "apply", path.to_str().unwrap(), "-m", "voters"]).expect(ExitCode::Ok);
}

fn reserve(daemon: &Daemon) -> String {
    daemon.ctl(&["reserve", SUBSET]).expect(ExitCode::Ok).stdout.trim().to_owned()
}

#[test]
fn sites_that_ask_at_the_same_time_get_different_numbers_also_while_one_is_away() {
    let studio = studio();
    let (london, mut montreal, home) = voters(&studio);
    let all: Vec<String> = thread::scope(|scope| {
        let asking = [&london, &montreal, &home]
            .map(|daemon| scope.spawn(move || (0..4).map(|_| reserve(daemon)).collect::<Vec<_>>()));
        asking.into_iter().flat_map(|asking| asking.join().unwrap()).collect()
    });
    let distinct: BTreeSet<&String> = all.iter().collect();
    assert_eq!(distinct.len(), 12, "{all:?}");

    // Two of three are enough, and what was promised is not forgotten.
    montreal.kill9();
    let mut later = vec![reserve(&home), reserve(&london)];
    montreal.start();
    montreal.until("it is connected again", |api| {
        (api.status().peers.iter().filter(|peer| peer.rtt_ms.is_some()).count() == 2).then_some(())
    });
    later.push(reserve(&montreal));
    assert!(later.iter().all(|number| !all.contains(number)), "{later:?} of {all:?}");
    assert_eq!(later.iter().collect::<BTreeSet<_>>().len(), 3, "{later:?}");
}

#[test]
fn a_number_that_belongs_to_another_site_is_not_published_under_and_the_next_is() {
    let studio = studio();
    let (london, _montreal, home) = voters(&studio);
    assert_eq!(reserve(&london), model(1));
    let said = home.ctl(&["reserve", &model(1)]).expect(ExitCode::Integrity);
    assert!(said.stderr.contains("belongs to srv@london") && said.stderr.contains("v002"), "{said:?}");
    let path = home.path(&format!("{MODEL}/v001/modelDefault.usdc"));
    tree::write(&path, b"from home");
    let said = home.ctl(&["publish", path.parent().unwrap().to_str().unwrap()]).expect(ExitCode::Integrity);
    assert!(said.stderr.contains("rename the directory to v002"), "{said:?}");
    assert!(home.api().has_health("number-taken") && home.api().locate_one(&model(1)).is_none());
    // As it says.
    let (old, new) = (home.path(&format!("{MODEL}/v001")), home.path(&format!("{MODEL}/v002")));
    std::fs::rename(old, new).unwrap();
    home.until_complete_at(&model(2), HOME);
    home.until("nothing is wrong", |api| (!api.has_health("number-taken")).then_some(()));
    // Whom it belongs to publishes it, and everybody sees both.
    publish_model(&london, 1, b"from london");
    home.until_complete_at(&model(1), LONDON);
    assert_eq!(reserve(&home), model(3));
}

#[test]
fn without_most_of_the_voters_nothing_is_reserved_and_people_publish_all_the_same() {
    let studio = studio();
    let (london, mut montreal, mut home) = voters(&studio);
    montreal.kill9();
    home.kill9();
    london.until("nobody else is connected", |api| {
        api.status().peers.iter().all(|peer| peer.rtt_ms.is_none()).then_some(())
    });
    let said = london.ctl(&["reserve", SUBSET]).expect(ExitCode::NoSource);
    assert!(said.stderr.contains("too few voters answered") && said.stderr.contains(HOME), "{said:?}");
    publish_model(&london, 1, b"alone");
    london.until_complete_at(&model(1), LONDON);
}

#[test]
fn without_voters_in_the_policy_nothing_can_be_reserved_and_it_is_said_why() {
    let studio = studio();
    let london = studio.on_demand(LONDON, &[]);
    let said = london.ctl(&["reserve", SUBSET]).expect(ExitCode::Usage);
    assert!(said.stderr.contains("names no voters") && said.stderr.contains("[numbers]"), "{said:?}");
    london.ctl(&["reserve", "robot/*"]).expect(ExitCode::Usage);
    london.ctl(&["reserve", "robot/modelDefault@hero"]).expect(ExitCode::Usage);
}
