//! What a peer gets of a project, by what it may do there at that moment.

use std::sync::Arc;

use avalon_protocol::{
    access::Action,
    block::{BLOCK_BYTES, BlockValue},
    close_code::CloseCode,
    drop::Nonce,
    hash::{ManifestId, ObjectHash},
    id::{VersionId, VersionSlot},
    plan::Priority,
    wire::{
        AskNumber, Control, FetchEncoded, FetchManifests, FetchObjects, FetchProof, Framed as _, Request,
        Want,
    },
};
use bytes::Bytes;
use futures_util::{FutureExt as _, future::BoxFuture};
use tokio::sync::Notify;

use super::{
    hostile::{Deaf, Puppet, no_heads},
    studio::{Studio, feed, hello, node_id, project, within},
};
use crate::net::{BlockSink, FetchError, SinkStopped};

const VENDOR: &str = "puppet@london";
const SECRET: &[u8] = b"nobody outside may know";

fn version(of: &str) -> VersionId {
    VersionId {
        project: project(of),
        asset: "robot".parse().unwrap(),
        subset: "modelDefault".parse().unwrap(),
        slot: VersionSlot::Number(1),
    }
}

/// Everything that can be asked of a project.
fn requests(of: &str, object: ObjectHash, manifest: ManifestId) -> Vec<Request> {
    let size = SECRET.len() as u64;
    let want = |blocks, with_list| Want { object, size, first_block: 0, blocks, with_list };
    let name = project(of);
    let objects = |want| Request::Objects(FetchObjects { project: name.clone(), wants: vec![want] });
    let encoded = |compress| {
        let (project, wants, bases) = (name.clone(), vec![want(1, false)], vec![]);
        Request::Encoded(FetchEncoded { project, priority: Priority::Waiting, compress, wants, bases })
    };
    let proof = |read| {
        let nonce = Nonce::from_bytes([7; 32]);
        Request::Proof(FetchProof { version: version(of), manifest, nonce, read })
    };
    let number = |fresh| Request::Number(AskNumber { version: version(of), fresh, serial: 1 });
    vec![
        objects(want(1, false)),
        objects(want(1, true)),
        objects(want(0, true)),
        encoded(false),
        encoded(true),
        Request::Manifests(FetchManifests { project: name.clone(), manifests: vec![manifest, manifest] }),
        proof(false),
        proof(true),
        number(false),
        number(true),
    ]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_a_project_that_a_peer_may_not_see_it_gets_what_it_gets_of_one_that_does_not_exist() {
    let studio = Studio::new();
    let mut setup = studio.node("srv@montreal");
    setup.hello.projects = hello("srv@montreal", 1, &["lantern", "secret"]).projects;
    setup.rights.set(VENDOR, "secret", &[]);
    let object = setup.objects.add("secret", Bytes::from_static(SECRET));
    let manifest = setup.catalog.add_manifest("secret", SECRET);
    setup.catalog.append(&feed("secret", "srv@montreal"), "secret");
    let mut node = setup.start();
    let mut puppet = Puppet::dial(&studio, &node).await;
    // It guesses right what the project is called.
    puppet.greet_with(&["lantern", "secret", "nowhere"]).await;
    let greeted = puppet.hear().await;
    let Control::Hello(greeting) = greeted else { panic!("{greeted:?}") };
    let names: Vec<&str> = greeting.projects.iter().map(|project| project.name.as_str()).collect();
    assert_eq!(names, ["lantern"]);
    node.peer_up(VENDOR).await;
    for (of_secret, of_nowhere) in
        requests("secret", object, manifest).into_iter().zip(requests("nowhere", object, manifest))
    {
        let (secret, nowhere) = (puppet.ask(&of_secret).await, puppet.ask(&of_nowhere).await);
        assert_eq!(secret, nowhere, "{of_secret:?}");
        let leaks = secret.windows(SECRET.len()).any(|part| part == SECRET);
        assert!(!secret.is_empty() && secret.len() < 64 && !leaks, "{of_secret:?}: {secret:?}");
    }
    // Whoever may is given it by the same questions.
    node.setup.rights.set("ws1@london", "secret", &[Action::Pull]);
    let mut friend = studio.node("ws1@london").dialling(&[&node]);
    friend.hello.projects = hello("ws1@london", 1, &["secret"]).projects;
    let friend = friend.start();
    friend.catalog().until(&feed("secret", "srv@montreal"), 1).await;
    let link = friend.net.link(&node_id("srv@montreal")).unwrap();
    let fetched = link.fetch_manifests(&project("secret"), vec![manifest]).await.unwrap();
    assert_eq!(fetched[0].as_deref(), Some(SECRET));
    // Meanwhile the puppet has heard of lantern, and of nothing else.
    node.catalog().append(&feed("secret", "srv@montreal"), "more");
    node.catalog().append(&feed("lantern", "srv@montreal"), "for all");
    friend.catalog().until(&feed("secret", "srv@montreal"), 2).await;
    puppet.say(&Control::Heads(no_heads("lantern")).to_frame()).await;
    loop {
        let heard = puppet.hear().await;
        assert_eq!(heard.project(), Some(&project("lantern")), "{heard:?}");
        if matches!(heard, Control::Records(_)) {
            break;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_peer_says_of_a_project_that_it_may_not_see_is_taken_as_of_one_that_does_not_exist() {
    let studio = Studio::new();
    let mut ends = Vec::new();
    for name in ["secret", "nowhere"] {
        // Each at a node of its own: whoever broke the rules is kept off for a while.
        let mut setup = studio.node("srv@montreal");
        setup.hello.projects = hello("srv@montreal", 1, &["lantern", "secret"]).projects;
        setup.rights.set(VENDOR, "secret", &[]);
        let mut node = setup.start();
        let mut puppet = Puppet::dial(&studio, &node).await;
        puppet.greet_with(&["secret", "nowhere"]).await;
        node.peer_up(VENDOR).await;
        puppet.say(&Control::Heads(no_heads(name)).to_frame()).await;
        ends.push(puppet.closed().await);
        node.peer_down(VENDOR).await;
    }
    assert_eq!(ends[0].0, Some(CloseCode::Protocol));
    assert_eq!(ends[0], ends[1]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_request_needs_its_own_right() {
    let studio = Studio::new();
    let setup = studio.node("srv@montreal");
    setup.rights.set(VENDOR, "lantern", &[Action::See]);
    let object = setup.objects.add("lantern", Bytes::from_static(SECRET));
    let manifest = setup.catalog.add_manifest("lantern", SECRET);
    let mut node = setup.start();
    let mut puppet = Puppet::dial(&studio, &node).await;
    puppet.greet().await;
    node.peer_up(VENDOR).await;
    let requests = requests("lantern", object, manifest);
    for given in [&[Action::See][..], &[Action::Pull], &[Action::Publish], &[Action::Pull, Action::Publish]] {
        node.setup.rights.set(VENDOR, "lantern", given);
        let promised = node.setup.objects.promised();
        for request in &requests {
            let got = puppet.ask(request).await.windows(SECRET.len()).any(|part| part == SECRET);
            let (_, needs) = request.needs().unwrap();
            let is_content = match request {
                Request::Objects(fetch) => fetch.wants[0].blocks > 0,
                Request::Encoded(_) | Request::Manifests(_) => true,
                _ => false,
            };
            assert_eq!(got, is_content && (needs == Action::See || given.contains(&needs)), "{request:?}");
        }
        let asked = node.setup.objects.promised() - promised;
        assert_eq!(asked, if given.contains(&Action::Publish) { 2 } else { 0 });
    }
}

/// Takes the first block and then waits.
#[derive(Debug, Default)]
struct Halting {
    begun: Arc<Notify>,
    goes_on: Arc<Notify>,
    blocks: u64,
}

impl BlockSink for Halting {
    fn list(&mut self, _: ObjectHash, _: u64, _: Vec<BlockValue>) -> BoxFuture<'_, Result<(), SinkStopped>> {
        async { Ok(()) }.boxed()
    }

    fn block(&mut self, _: ObjectHash, _: u64, _: Bytes) -> BoxFuture<'_, Result<(), SinkStopped>> {
        self.blocks += 1;
        async {
            if self.blocks == 1 {
                self.begun.notify_one();
                self.goes_on.notified().await;
            }
            Ok(())
        }
        .boxed()
    }

    fn not_found(&mut self, _: ObjectHash) -> BoxFuture<'_, Result<(), SinkStopped>> {
        async { Ok(()) }.boxed()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_that_is_under_way_is_cut_when_the_right_to_it_is_taken() {
    let studio = Studio::new();
    let setup = studio.node("srv@montreal");
    let blocks = 160;
    let content = Bytes::from(vec![7; blocks * usize::try_from(BLOCK_BYTES).unwrap()]);
    let (size, object) = (content.len() as u64, setup.objects.add("lantern", content));
    let want = Want { object, size, first_block: 0, blocks: blocks as u64, with_list: false };
    let mut node = setup.start();
    let mut asking = studio.node("ws1@london").dialling(&[&node]).start();
    let link = asking.peer_up("srv@montreal").await;
    let (mut sink, lantern) = (Halting::default(), project("lantern"));
    let (begun, goes_on) = (Arc::clone(&sink.begun), Arc::clone(&sink.goes_on));
    let taking = async {
        begun.notified().await;
        // It may still see the project: the connection stays.
        node.setup.rights.set("ws1@london", "lantern", &[Action::See]);
        goes_on.notify_one();
    };
    let both = async { tokio::join!(link.fetch_objects(&lantern, vec![want], &mut sink), taking) };
    let error = within("the cut", both).await.0.unwrap_err();
    assert!(matches!(error, FetchError::GivenUp { .. }), "{error:?}");
    assert!(link.is_open() && sink.blocks < blocks as u64, "{} blocks", sink.blocks);
    let again = link.fetch_objects(&lantern, vec![want], &mut Deaf).await.unwrap();
    assert_eq!((again.found, again.bytes), (0, 0));

    // One that it may not even know of any more is not named in the next greeting.
    node.setup.rights.set("ws1@london", "lantern", &[]);
    asking.peer_down("srv@montreal").await;
    let link = asking.peer_up("srv@montreal").await;
    assert!(!link.shares(&lantern));
    node.catalog().append(&feed("lantern", "srv@montreal"), "not for all");
    // And one that it may see again is.
    node.setup.rights.set("ws1@london", "lantern", &[Action::Pull]);
    asking.peer_down("srv@montreal").await;
    assert!(asking.peer_up("srv@montreal").await.shares(&lantern));
    asking.catalog().until(&feed("lantern", "srv@montreal"), 1).await;
    node.peer_up("ws1@london").await;
}
