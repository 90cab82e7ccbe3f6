//! Who may do what in which project: the policy's grants, at real daemons and over real connections.

use std::{
    fs,
    path::PathBuf,
    time::{Duration, UNIX_EPOCH},
};

use avalon_protocol::{
    access::{Action, Role},
    block::BlockValue,
    close_code::CloseCode,
    control::{ErrorCode, PlanState, PublishItem, PublishState},
    drop::{Nonce, NotCounted},
    exit_code::ExitCode,
    hash::{ManifestId, ObjectHash},
    id::{VersionId, VersionSlot},
    mode::ProjectMode,
    numbers::Answer,
    plan::Priority,
    wire::{
        AskNumber, Control, FetchEncoded, FetchManifests, FetchObjects, FetchProof, Framed as _, NumberReply,
        ProjectHeads, ProofReply, Request, Want,
    },
};
use avalon_tests::daemons::{Studio, daemon::Daemon, now, raw::RawPeer, tree};

use crate::support::{LONDON, MODEL, model, publish_model, studio};

const ROLES: [Role; 5] = [Role::Admin, Role::Site, Role::Workstation, Role::Farm, Role::Vendor];
/// What stands in a file that a peer may not have.
const SECRET: &[u8] = b"the robot is the murderer";

/// Applies a policy in which all roles but admin are granted this in project lantern, and nothing in others.
fn grant(studio: &Studio, daemon: &Daemon, actions: &[Action], more: &str) {
    let actions: Vec<&str> = actions.iter().map(|action| action.as_str()).collect();
    let project = if actions.is_empty() { "elsewhere" } else { "lantern" };
    let actions = if actions.is_empty() { vec!["see"] } else { actions };
    let text = format!(
        "schema = \"avalon.policy/1\"\n[defaults]\nkeep = \"on-demand\"\nmin_copies = 1\n[numbers]\nvoters = [\"{LONDON}\"]\n\
         [[grant]]\nto = [\"role:site\", \"role:workstation\", \"role:farm\", \"role:vendor\"]\nprojects = \"{project}\"\n\
         actions = {actions:?}\n{more}"
    );
    let path = studio.dir().join("studio.toml");
    fs::write(&path, text).unwrap();
    daemon.ctl(&["policy", "apply", path.to_str().unwrap()]).expect(ExitCode::Ok);
}

/// Starts an admin's node with two projects and one version in each.
fn london(studio: &Studio) -> (Daemon, [PublishItem; 2]) {
    let mut london = studio.node(LONDON, ProjectMode::OnDemand);
    london.config.more_projects.push("comet".into());
    fs::create_dir_all(london.config.root.join("comet")).unwrap();
    london.start();
    let items = ["lantern", "comet"].map(|project| {
        let dir = london.config.root.join(project).join(MODEL).join("v001");
        tree::write(&dir.join("modelDefault.usdc"), SECRET);
        let item = london.api().publish(&dir);
        assert_eq!(item.error, None, "{item:?}");
        item
    });
    (london, items)
}

fn issue(studio: &Studio, role: Role) -> PathBuf {
    let dir = studio.dir().join(format!("by-hand-{role}"));
    studio.issue_as(&format!("{role}@elsewhere"), role, &dir);
    dir
}

fn version(project: &str) -> VersionId {
    VersionId {
        project: project.parse().unwrap(),
        asset: "robot".parse().unwrap(),
        subset: "modelDefault".parse().unwrap(),
        slot: VersionSlot::Number(1),
    }
}

/// Everything that can be asked of a project, with what it needs.
fn requests(project: &str, manifest: &str) -> Vec<Request> {
    let (object, size) = (ObjectHash::of(SECRET), SECRET.len() as u64);
    let manifest: ManifestId = manifest.parse().unwrap();
    let want = |blocks, with_list| Want { object, size, first_block: 0, blocks, with_list };
    let name = version(project).project;
    let objects = |want| Request::Objects(FetchObjects { project: name.clone(), wants: vec![want] });
    let encoded = |compress| {
        let (project, wants, bases) = (name.clone(), vec![want(1, false)], vec![]);
        Request::Encoded(FetchEncoded { project, priority: Priority::Waiting, compress, wants, bases })
    };
    let proof = |read| {
        let nonce = Nonce::from_bytes([7; 32]);
        Request::Proof(FetchProof { version: version(project), manifest, nonce, read })
    };
    vec![
        objects(want(1, false)),
        objects(want(1, true)),
        objects(want(0, true)),
        encoded(false),
        encoded(true),
        Request::Manifests(FetchManifests { project: name.clone(), manifests: vec![manifest; 3] }),
        proof(false),
        proof(true),
        Request::Number(AskNumber { version: version(project), fresh: false, serial: 1 }),
        Request::Number(AskNumber { version: version(project), fresh: true, serial: 9 }),
    ]
}

/// Says whether an answer tells more than that nothing is there.
fn tells(request: &Request, answer: &[u8]) -> bool {
    let payload = &answer[6..];
    match request {
        Request::Number(_) => NumberReply::from_payload(25, payload) != Ok(NumberReply(Answer::Unsure)),
        Request::Proof(_) => {
            ProofReply::from_payload(23, payload) != Ok(ProofReply::Not(NotCounted::NotHeld))
        }
        Request::Objects(fetch) if fetch.wants[0].blocks == 0 => {
            // The object is shorter than a block: its list is its name.
            answer[6] == 0 || answer.len() > 6 + 4 + size_of::<BlockValue>()
        }
        Request::Objects(_) | Request::Encoded(_) => answer.windows(SECRET.len()).any(|part| part == SECRET),
        Request::Manifests(_) => answer.len() > 3 * 7,
        Request::Renew(_) => unreachable!("it is about no project"),
    }
}

#[test]
fn a_peer_gets_of_a_project_what_its_role_is_granted_and_else_what_it_gets_of_none() {
    let studio = studio();
    let (london, [lantern, comet]) = london(&studio);
    let identities = ROLES.map(|role| (role, issue(&studio, role)));
    let everything = ["lantern", "comet", "nowhere", "_studio"];
    for granted in [None, Some(Action::See), Some(Action::Pull), Some(Action::Publish), Some(Action::Retire)]
    {
        grant(&studio, &london, granted.as_slice(), "");
        for (role, identity) in &identities {
            let is_admin = *role == Role::Admin;
            let (peer, named) = RawPeer::greet(identity, &london.listen(), &everything);
            let expected: &[&str] = match (is_admin, granted) {
                (true, _) => &["lantern", "comet", "_studio"],
                (false, Some(_)) => &["lantern"],
                (false, None) => &[],
            };
            assert_eq!(named, expected, "{role}, {granted:?}");
            let of = |project: &str, manifest: &str| -> Vec<(Request, Vec<u8>)> {
                requests(project, manifest).into_iter().map(|r| (r.clone(), peer.ask(&r))).collect()
            };
            let nowhere = of("nowhere", &lantern.manifest);
            for (project, item) in [("lantern", &lantern), ("comet", &comet)] {
                for ((request, answer), (_, of_nowhere)) in
                    of(project, &item.manifest).into_iter().zip(&nowhere)
                {
                    let (_, needs) = request.needs().unwrap();
                    let is_granted = project == "lantern"
                        && (granted == Some(needs) || granted.is_some() && needs == Action::See);
                    let case = format!("{role} granted {granted:?} asks in {project}: {request:?}");
                    assert_eq!(tells(&request, &answer), is_admin || is_granted, "{case}: {answer:?}");
                    if !is_admin && !is_granted {
                        assert_eq!(answer, *of_nowhere, "{case}");
                    }
                }
            }
        }
    }
}

#[test]
fn heads_of_a_project_that_a_peer_may_not_see_are_those_of_one_that_does_not_exist() {
    let studio = studio();
    let (london, _) = london(&studio);
    grant(&studio, &london, &[Action::See], "");
    let ends = ["comet", "nowhere", "_studio"].map(|name| {
        // Whoever broke the rules is kept off for a while.
        let vendor = studio.dir().join(format!("who asks for {name}"));
        studio.issue_as(&format!("{}@elsewhere", name.trim_matches('_')), Role::Vendor, &vendor);
        let (mut peer, _) = RawPeer::greet(&vendor, &london.listen(), &["lantern", name]);
        peer.say(&Control::Heads(ProjectHeads { project: name.parse().unwrap(), heads: vec![] }));
        peer.closed()
    });
    assert_eq!(ends[0].0, Some(CloseCode::Protocol));
    assert!(ends.iter().all(|end| *end == ends[0]), "{ends:?}");
}

#[test]
fn a_grant_that_is_taken_or_ends_closes_what_was_open_and_is_gone_from_the_next_greeting() {
    let studio = studio();
    let (london, [lantern, _]) = london(&studio);
    let vendor = issue(&studio, Role::Vendor);
    let greet = || RawPeer::greet(&vendor, &london.listen(), &["lantern"]);
    let pull = |peer: &RawPeer| {
        let request = requests("lantern", &lantern.manifest).swap_remove(0);
        tells(&request, &peer.ask(&request))
    };
    grant(&studio, &london, &[Action::Pull], "");
    let (peer, named) = greet();
    assert!(named == ["lantern"] && pull(&peer));
    grant(&studio, &london, &[], "");
    assert_eq!(peer.closed().0, Some(CloseCode::Shutdown));
    let (peer, named) = greet();
    assert!(named.is_empty() && !pull(&peer));
    // One that ends by itself, soon.
    let end = now() + Duration::from_secs(4);
    let end_ms = u64::try_from(end.duration_since(UNIX_EPOCH).unwrap().as_millis()).unwrap();
    let until = format!("until = {}\n", avalond::clock::time_of_ms(end_ms));
    grant(&studio, &london, &[Action::Pull], &until);
    assert_eq!(peer.closed().0, Some(CloseCode::Shutdown), "it is greeted with what it may see now");
    let (peer, named) = greet();
    assert!(named == ["lantern"] && pull(&peer));
    assert_eq!(peer.closed().0, Some(CloseCode::Shutdown));
    assert!(now() >= end);
    let (peer, named) = greet();
    assert!(named.is_empty() && !pull(&peer));
}

/// Starts a node of each role but admin, which knows lantern's first versions and what it is granted: not to pull.
fn nodes(studio: &Studio, london: &Daemon) -> Vec<Daemon> {
    let roles = ROLES.into_iter().filter(|role| *role != Role::Admin);
    let nodes = roles.map(|role| {
        let mut node = studio.node_as(&format!("node@{role}"), role, ProjectMode::OnDemand);
        node.config.peers = vec![london.listen()];
        node.start();
        node.until("it knows what london published", |api| (api.list().versions.len() >= 4).then_some(()));
        until_known(&node, "has no grant to pull");
        node
    });
    nodes.collect()
}

/// Waits until a node explains so why it has not got a version.
fn until_known(node: &Daemon, reason: &str) {
    node.until(reason, |_| node.ctl(&["why", &model(1)]).stdout.contains(reason).then_some(()));
}

fn publish(node: &Daemon, number: u32) -> PublishItem {
    let dir = node.path(&format!("{MODEL}/v{number:03}"));
    tree::write(&dir.join("modelDefault.usdc"), node.config.node.as_bytes());
    node.api().publish(&dir)
}

fn is_retired(daemon: &Daemon, version: u32) -> bool {
    let listed = daemon.ctl(&["ls", "--json", "lantern:robot"]).good();
    !listed["versions"].as_array().unwrap().iter().any(|found| found["ref"] == model(version))
}

#[test]
fn what_a_node_publishes_counts_with_that_grant_and_what_it_retires_does_not() {
    let studio = studio();
    let (london, _) = london(&studio);
    (2..=4).for_each(|number| drop(publish_model(&london, number, b"of london")));
    grant(&studio, &london, &[Action::Publish], "");
    for (node, number) in nodes(&studio, &london).iter().zip(1..) {
        assert_eq!(publish(node, 10 + number).state, PublishState::Published);
        london.until("it is known", |api| api.locate_one(&model(10 + number)));
        node.ctl(&["retire", &model(number), "-m", "wrong"]).expect(ExitCode::Denied);
        assert!(!is_retired(node, number) && !is_retired(&london, number), "by {}", node.config.node);
    }
}

#[test]
fn what_a_node_retires_counts_with_that_grant_and_what_it_publishes_does_not() {
    let studio = studio();
    let (london, _) = london(&studio);
    // One stays, so that something is listed.
    (2..=5).for_each(|number| drop(publish_model(&london, number, b"of london")));
    grant(&studio, &london, &[Action::Retire], "");
    for (node, number) in nodes(&studio, &london).iter().zip(1..) {
        let item = publish(node, 10 + number);
        assert_eq!(
            (item.state, item.error),
            (PublishState::Refused, Some(ErrorCode::NotGranted)),
            "{item:?}"
        );
        node.ctl(&["retire", &model(number), "-m", "wrong"]).expect(ExitCode::Ok);
        london.until("it is out of use", |_| is_retired(&london, number).then_some(()));
    }
}

#[test]
fn a_node_that_knows_that_it_may_not_says_so_and_does_not_try() {
    let studio = studio();
    let (london, _) = london(&studio);
    let everywhere = "[[grant]]\nto = \"role:workstation\"\nprojects = \"*\"\nactions = \"see\"\n";
    grant(&studio, &london, &[Action::See], everywhere);
    let mut home = studio.node_as("ws1@home", Role::Workstation, ProjectMode::Mirror);
    home.config.peers = vec![london.listen()];
    home.start();
    home.until("it knows the policy and the version", |api| api.policy().and(api.locate_one(&model(1))));
    let pulled = home.api().pull(&model(1)).unwrap().versions.remove(0);
    assert_eq!((pulled.state, pulled.job), (PlanState::Forbidden, None));
    let reason = "this node, ws1@home, has no grant to pull in project lantern; its role is workstation";
    assert!(pulled.reason.as_deref().is_some_and(|said| said.starts_with(reason)), "{:?}", pulled.reason);
    let why = home.ctl(&["why", &model(1)]).stdout;
    assert!(why.contains("has no grant to pull in project lantern"), "{why}");
    let item = publish(&home, 2);
    assert_eq!((item.state, item.error), (PublishState::Refused, Some(ErrorCode::NotGranted)), "{item:?}");
    assert!(
        item.messages[0].contains("ask an admin of the studio for a grant of publish in lantern"),
        "{item:?}"
    );
    let reserved = home.ctl(&["reserve", "lantern:robot/modelDefault"]).expect(ExitCode::Denied);
    assert!(reserved.stderr.contains("AVL-0903"), "{reserved:?}");
    let retired = home.ctl(&["retire", &model(1), "-m", "wrong"]).expect(ExitCode::Denied);
    assert!(
        retired.stdout.contains("no grant to retire") || retired.stderr.contains("no grant to retire"),
        "{retired:?}"
    );
    assert!(home.api().jobs().is_empty(), "nor did the mirror");
    // With the grants it may.
    let more = everywhere.replace("\"see\"", "[\"pull\", \"publish\"]");
    grant(&studio, &london, &[Action::See], &more);
    home.until("it may pull", |api| {
        let pulled = api.pull(&model(1)).ok()?.versions.pop()?;
        matches!(pulled.state, PlanState::Fetch | PlanState::Here).then_some(())
    });
    home.until_complete_at(&model(1), "ws1@home");
    assert_eq!(publish(&home, 2).state, PublishState::Published);
    london.until("it is known", |api| api.locate_one(&model(2)));
}

#[test]
fn a_vendor_works_by_its_extract_of_the_policy_also_after_a_restart() {
    let studio = studio();
    let (london, _) = london(&studio);
    let secret = "# comet is for nobody\n[[rule]]\nname = \"comet stays\"\nmatch = { project = \"comet\" }\nsites = \"*\"\nkeep = \"never\"\n";
    grant(&studio, &london, &[Action::Pull], secret);
    let mut vendor = studio.node_as("ws1@van", Role::Vendor, ProjectMode::OnDemand);
    vendor.config.peers = vec![london.listen()];
    vendor.start();
    vendor.until("it may pull", |api| {
        let pulled = api.pull(&model(1)).ok()?.versions.pop()?;
        matches!(pulled.state, PlanState::Fetch | PlanState::Here).then_some(())
    });
    vendor.until_complete_at(&model(1), "ws1@van");
    london.until_complete_at(&model(1), "ws1@van");
    assert_eq!(publish(&vendor, 2).error, Some(ErrorCode::NotGranted));
    // It is granted more, and hears of it at once.
    grant(&studio, &london, &[Action::Pull, Action::Publish], secret);
    vendor.until("it may publish", |_| (publish(&vendor, 2).state != PublishState::Refused).then_some(()));
    london.until("it is known", |api| api.locate_one(&model(2)));
    // Alone it goes by what it was told.
    vendor.terminate();
    vendor.config.peers.clear();
    vendor.start();
    assert_eq!(publish(&vendor, 3).state, PublishState::Published);
    assert!(vendor.api().locate_one(&model(2)).is_some());
    let told = fs::read_to_string(vendor.config.state_dir.join("policy-extract.json")).unwrap();
    assert!(told.contains("lantern") && !told.contains("comet"), "{told}");
    assert!(!vendor.config.state_dir.join("feeds/_studio").join(LONDON).exists());
}
