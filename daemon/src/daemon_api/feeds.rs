//! `feed`: the feeds that are kept here, those with two histories, and what a person decides about them.

use avalon_protocol::{
    control::{ApiError, ErrorCode, FeedItem, FeedRequest, FeedState, FeedsReply, ForkItem, ForkSide},
    feed::{FeedHead, FeedId, Group, SealedGroup},
    id::ProjectName,
    own_feed::Writing,
    record::Record,
};
use avalon_store::ledger::{Fork, Settled};

use super::DaemonApi;
use crate::{
    api::Caller, clock::time_of_ms, core::blocking, log::ErrorChain, publish::author,
    replicate::fork::tell_fork,
};

impl DaemonApi {
    pub(super) fn feeds_reply(&self) -> FeedsReply {
        let mut feeds = Vec::new();
        for project in self.core.feed_projects() {
            for (node, head) in self.core.ledger.heads(&project) {
                feeds.push(self.feed_item(&FeedId { project: project.clone(), node }, head));
            }
            // A node that has written nothing yet may be kept from it all the same.
            let own = FeedId { project, node: self.core.me.clone() };
            if !feeds.iter().any(|item| item.feed == own.to_string()) {
                feeds.push(self.feed_item(&own, FeedHead::EMPTY));
            }
        }
        reply(feeds)
    }

    fn feed_item(&self, feed: &FeedId, head: FeedHead) -> FeedItem {
        let fork = self.core.ledger.fork(feed);
        let is_held = feed.node == self.core.me && self.core.own.writing(&feed.project) == Writing::Refused;
        let state = match &fork {
            Some(fork) if fork.settled.is_some() => FeedState::Settled,
            Some(_) => FeedState::Forked,
            None if is_held => FeedState::Held,
            None => FeedState::Good,
        };
        FeedItem {
            feed: feed.to_string(),
            records: head.next_seq,
            state,
            head: head.chain.to_string(),
            fork: fork.map(|fork| fork_item(&fork)),
        }
    }

    pub(super) async fn feed_changed(
        &self,
        request: FeedRequest,
        caller: &Caller,
    ) -> Result<FeedsReply, ApiError> {
        let feed = match request {
            FeedRequest::Release { project } => self.released(&project)?,
            FeedRequest::Settle { feed, comment } => self.settled(&feed, comment, caller).await?,
        };
        let mut known = self.core.ledger.heads(&feed.project).into_iter();
        let head = known.find(|(node, _)| *node == feed.node).map_or(FeedHead::EMPTY, |(_, head)| head);
        Ok(reply(vec![self.feed_item(&feed, head)]))
    }

    fn released(&self, project: &str) -> Result<FeedId, ApiError> {
        let name = self.core.feed_projects().find(|name| name.as_str() == project);
        let name: ProjectName = name.ok_or_else(|| {
            ApiError::new(ErrorCode::NoProject, format!("this node does not serve project {project:?}"))
        })?;
        tracing::warn!(project = %name, "the own feed is written as it is, by command");
        self.core.own.release(&name);
        Ok(FeedId { project: name, node: self.core.me.clone() })
    }

    async fn settled(&self, text: &str, comment: String, caller: &Caller) -> Result<FeedId, ApiError> {
        let parsed = text.split_once('/').and_then(|(project, node)| {
            Some(FeedId { project: project.parse().ok()?, node: node.parse().ok()? })
        });
        let feed = parsed.ok_or_else(|| {
            ApiError::new(ErrorCode::BadRequest, format!("{text:?} is no feed"))
                .with_hint("name it as avalonctl feed shows it: PROJECT/NODE@SITE")
        })?;
        if feed.node == self.core.me {
            let message = format!("{feed} is this node's own feed: it cannot write under this name any more");
            return Err(ApiError::new(ErrorCode::Denied, message)
                .with_hint("let this machine join again under a new name: avalonctl join"));
        }
        let said = Settled { by: author::name_of(caller.uid), comment, at_ms: self.core.now_ms() };
        let (ledger, about) = (self.core.ledger.clone(), feed.clone());
        match blocking(move || ledger.settle_fork(&about, said)).await {
            Ok(true) => {}
            Ok(false) => {
                return Err(ApiError::new(ErrorCode::NotFound, format!("feed {feed} has one history")));
            }
            Err(error) => {
                let code = if error.is_no_space() { ErrorCode::DiskFull } else { ErrorCode::Internal };
                return Err(ApiError::new(code, ErrorChain(&error).to_string()));
            }
        }
        self.core.ledger.fork(&feed).iter().for_each(|fork| tell_fork(&self.core, fork));
        Ok(feed)
    }
}

fn reply(feeds: Vec<FeedItem>) -> FeedsReply {
    FeedsReply { schema: "avalonctl.feeds/1".into(), feeds }
}

fn fork_item(fork: &Fork) -> ForkItem {
    let proof = fork.proof.as_ref();
    ForkItem {
        record: proof.map(|proof| proof.seq),
        proof: format!("forks/{}/{}.json", fork.feed.project, fork.feed.node),
        ours: proof.and_then(|proof| side(&proof.ours)),
        theirs: proof.and_then(|proof| side(&proof.theirs)),
        settled_by: fork.settled.as_ref().map(|settled| settled.by.clone()),
        comment: fork.settled.as_ref().map(|settled| settled.comment.clone()),
    }
}

fn side(group: &SealedGroup) -> Option<ForkSide> {
    let body: Group = postcard::from_bytes(&group.body).ok()?;
    let records = body.records.iter().filter_map(|raw| Record::in_feed(raw, &body.feed.project).ok());
    let mut versions: Vec<String> =
        records.filter_map(|record| Some(record.version()?.to_string())).collect();
    versions.sort();
    versions.dedup();
    Some(ForkSide {
        first_record: body.first_seq,
        written: time_of_ms(body.written_at_ms),
        head: group.chain().to_string(),
        versions,
    })
}
