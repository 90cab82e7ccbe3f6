//! Answers the requests of peers from the tree, want by want.

use avalon_protocol::{
    block::{BlockList, block_range},
    id::ProjectName,
    wire::{FetchObjects, Framed, ManifestReply, ObjectReply, ObjectStatus, Request, Want},
};
use rand::Rng as _;

use super::{SimNode, talk::read_frame};
use crate::{
    content::block_list,
    env::Env,
    event::{ConnectionId, StreamId},
};

impl SimNode {
    /// Answers one request; the whole answer is sent off, and the connection may end before all of it arrives.
    pub(super) fn serve(&mut self, id: ConnectionId, stream: u64, frame: &[u8], env: &mut Env) {
        let Some(link) = self.life.as_ref().and_then(|life| life.links.get(&id)) else { return };
        let Ok(request) = read_frame::<Request>(frame) else { return };
        // Nobody here says that it knows encodings or proofs, so nobody asks for them.
        let (Request::Objects(FetchObjects { project, .. })
        | Request::Manifests(avalon_protocol::wire::FetchManifests { project, .. })) = &request
        else {
            return;
        };
        // A peer that does not serve the project learns as much as about something that is not there.
        let allowed = self.projects.contains_key(project) && link.shares(project);
        let mut answers: Vec<Vec<u8>> = match &request {
            Request::Objects(fetch) => {
                let wants = fetch.wants.iter();
                wants.map(|want| self.object_reply(project, want, allowed, env)).collect()
            }
            Request::Manifests(fetch) => fetch
                .manifests
                .iter()
                .map(|manifest| {
                    let known = self.disk.manifests.get(manifest);
                    let known = known.filter(|known| allowed && known.project() == project);
                    let mut bytes = known.map(|manifest| manifest.encode()).unwrap_or_default();
                    let frame = ManifestReply { bytes: bytes.len() as u64 }.to_frame();
                    self.lie(&mut bytes, env);
                    [frame, bytes].concat()
                })
                .collect(),
            Request::Encoded(_) | Request::Proof(_) | Request::Number(_) | Request::Renew(_) => return,
        };
        if env.fault(5) {
            // The stream is reset in the middle.
            let kept = env.dice.random_range(0..answers.len().max(1));
            answers.truncate(kept);
        }
        for mut answer in answers {
            if env.chance(20) {
                let rest = answer.split_off(env.dice.random_range(0..answer.len()));
                env.send(id, self.who.node, StreamId::Request(stream), answer, false);
                answer = rest;
            }
            env.send(id, self.who.node, StreamId::Request(stream), answer, false);
        }
        env.send(id, self.who.node, StreamId::Request(stream), Vec::new(), true);
    }

    fn object_reply(&self, project: &ProjectName, want: &Want, allowed: bool, env: &mut Env) -> Vec<u8> {
        let object = self.disk.tree.object(project, &want.object);
        let object = object.filter(|bytes| allowed && bytes.len() as u64 == want.size);
        let Some(mut bytes) = object.filter(|_| !(self.liar && env.fault(5))).cloned() else {
            let reply =
                ObjectReply { status: ObjectStatus::NotFound, list_values: 0, body_bytes: 0, encoding: 0 };
            return reply.to_frame();
        };
        if self.liar && env.fault(if want.with_list { 40 } else { 15 }) {
            // A lie that agrees with itself: other bytes, with the block list that belongs to them.
            let forged: Vec<u8> = bytes.iter().map(|byte| byte ^ 1).collect();
            bytes = forged.into();
        }
        let start = block_range(want.size, want.first_block).start;
        let end = block_range(want.size, (want.first_block + want.blocks).saturating_sub(1)).end;
        let place = |at: u64| usize::try_from(at).expect("it is in memory");
        let mut body = bytes[place(start)..place(end)].to_vec();
        let mut list = Vec::new();
        if want.with_list && BlockList::value_count(want.size) > 0 {
            list = block_list(&bytes).values().concat();
        }
        let reply = ObjectReply {
            status: ObjectStatus::Found,
            list_values: list.len() as u64 / 32,
            body_bytes: body.len() as u64,
            encoding: 0,
        };
        self.lie(if env.chance(20) { &mut list } else { &mut body }, env);
        [reply.to_frame(), list, body].concat()
    }

    /// Changes a byte now and then, if this node is the liar.
    fn lie(&self, bytes: &mut [u8], env: &mut Env) {
        if self.liar && !bytes.is_empty() && env.fault(40) {
            let at = env.dice.random_range(0..bytes.len());
            bytes[at] ^= 0x20;
        }
    }
}
