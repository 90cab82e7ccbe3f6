//! `avalonctl feed`: the feeds that the daemon keeps, and what a person decides about them.

use avalon_protocol::{
    control::{FeedItem, FeedRequest, FeedState, FeedsReply, ForkSide, route},
    exit_code::ExitCode,
};
use clap::{Args, Subcommand};

use crate::{
    context::Context,
    escape::escape,
    failure::Failure,
    table::{self, Cell},
};

/// Arguments of `feed`.
#[derive(Debug, Args)]
pub(crate) struct FeedArgs {
    /// What to do; without it, the feeds are listed.
    #[command(subcommand)]
    action: Option<Action>,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Show what proves that a feed has two histories.
    Show {
        /// PROJECT/NODE@SITE, as the list has it.
        feed: String,
    },
    /// Say that a feed with two histories was dealt with: it is not told any more, and stays frozen.
    Settle {
        /// PROJECT/NODE@SITE, as the list has it.
        feed: String,
        /// What was done.
        #[arg(short, long, default_value = "")]
        comment: String,
    },
    /// Let this node write its feed as it is, though no peer has said how far it went. If one knows more, that makes a
    /// second history.
    Release {
        /// The project; _studio for what concerns the studio.
        project: String,
    },
}

/// Lists feeds, shows one, or decides about one.
pub(crate) async fn run(context: &Context<'_>, args: FeedArgs) -> Result<ExitCode, Failure> {
    match args.action {
        None => list(context).await,
        Some(Action::Show { feed }) => show(context, &feed).await,
        Some(Action::Settle { feed, comment }) => {
            change(context, FeedRequest::Settle { feed, comment }, "is settled; nothing more of it is taken")
                .await
        }
        Some(Action::Release { project }) => {
            change(context, FeedRequest::Release { project }, "is written as it is").await
        }
    }
}

async fn list(context: &Context<'_>) -> Result<ExitCode, Failure> {
    let reply: FeedsReply = context.client.get(route::FEEDS, &[]).await?;
    if context.output.is_json() {
        context.output.json(&reply);
        return Ok(ExitCode::Ok);
    }
    let rows = reply.feeds.iter().map(|item| {
        vec![
            Cell::text(&item.feed),
            Cell::number(item.records, item.records.to_string()),
            Cell::text(state(item.state)),
            Cell::text(item.head.get(..10).unwrap_or(&item.head)),
        ]
    });
    table::print(context.output, &["FEED", "RECORDS", "STATE", "HEAD"], rows.collect());
    Ok(ExitCode::Ok)
}

fn state(state: FeedState) -> &'static str {
    match state {
        FeedState::Good => "good",
        FeedState::Held => "held",
        FeedState::Forked => "forked",
        FeedState::Settled => "settled",
    }
}

async fn show(context: &Context<'_>, feed: &str) -> Result<ExitCode, Failure> {
    let mut reply: FeedsReply = context.client.get(route::FEEDS, &[]).await?;
    reply.feeds.retain(|item| item.feed == feed);
    if context.output.is_json() {
        context.output.json(&reply);
    } else if let Some(item) = reply.feeds.first() {
        lines(item).iter().for_each(|line| context.output.data(line));
    }
    if reply.feeds.is_empty() {
        context.output.talk(&format!("no feed {} is kept here", escape(feed)));
        return Ok(ExitCode::NotFound);
    }
    Ok(ExitCode::Ok)
}

fn lines(item: &FeedItem) -> Vec<String> {
    let mut lines = vec![format!(
        "{}: {} records, {}, {}",
        escape(&item.feed),
        item.records,
        item.head,
        state(item.state)
    )];
    let Some(fork) = &item.fork else { return lines };
    match fork.record {
        Some(record) => lines.push(format!("two histories, which part at record {record}")),
        None => lines.push("two histories; the proof is damaged".to_owned()),
    }
    let sides = [("here", &fork.ours), ("elsewhere", &fork.theirs)];
    lines.extend(sides.into_iter().filter_map(|(name, side)| Some(side_line(name, side.as_ref()?))));
    lines.push(format!("proof: {} in the state directory", escape(&fork.proof)));
    if let Some(by) = &fork.settled_by {
        lines.push(format!("settled by {}: {}", escape(by), escape(fork.comment.as_deref().unwrap_or(""))));
    }
    lines
}

fn side_line(name: &str, side: &ForkSide) -> String {
    let versions: Vec<String> = side.versions.iter().map(|version| escape(version).to_string()).collect();
    format!(
        "{name}: written {}, from record {}, {} {}",
        escape(&side.written),
        side.first_record,
        side.head,
        versions.join(", ")
    )
}

async fn change(context: &Context<'_>, request: FeedRequest, done: &str) -> Result<ExitCode, Failure> {
    let reply: FeedsReply = context.client.post(route::FEEDS, &request).await?;
    if context.output.is_json() {
        context.output.json(&reply);
        return Ok(ExitCode::Ok);
    }
    for item in &reply.feeds {
        context.output.data(&format!("{} {done}", escape(&item.feed)));
    }
    Ok(ExitCode::Ok)
}

#[cfg(test)]
mod tests {
    use avalon_protocol::control::ForkItem;

    use super::*;
    use crate::fake::FakeDaemon;

    fn reply(state: FeedState) -> String {
        let side = |written: &str, version: &str| ForkSide {
            first_record: 12,
            written: written.into(),
            head: "aa".repeat(32),
            versions: vec![version.into()],
        };
        let fork = ForkItem {
            record: Some(12),
            proof: "forks/lantern/ws1@london.json".into(),
            ours: Some(side("2026-11-01T10:00:00Z", "lantern:robot/rig@v001")),
            theirs: Some(side("2026-11-02T10:00:00Z", "lantern:robot/rig@v002")),
            settled_by: None,
            comment: None,
        };
        let item = FeedItem {
            feed: "lantern/ws1@london".into(),
            records: 14,
            state,
            head: "ab".repeat(32),
            fork: Some(fork),
        };
        let reply = FeedsReply { schema: "avalonctl.feeds/1".into(), feeds: vec![item] };
        serde_json::to_string(&reply).unwrap()
    }

    #[test]
    fn feeds_are_listed_and_one_with_two_histories_is_shown_with_both() {
        let daemon = FakeDaemon::start();
        daemon.answer("GET /v1/feeds", 200, reply(FeedState::Forked));
        let ran = daemon.run(&["feed"]);
        assert!(ran.stdout.contains("lantern/ws1@london") && ran.stdout.contains("forked"), "{ran:?}");
        let ran = daemon.run(&["feed", "show", "lantern/ws1@london"]);
        for told in ["part at record 12", "rig@v001", "rig@v002", "forks/lantern/ws1@london.json"] {
            assert!(ran.stdout.contains(told), "{told}: {ran:?}");
        }
        assert_eq!(daemon.run(&["feed", "show", "lantern/ws2@london"]).exit, 4);
    }

    #[test]
    fn what_a_person_decides_is_sent() {
        let daemon = FakeDaemon::start();
        daemon.answer("POST /v1/feeds", 200, reply(FeedState::Settled));
        let ran = daemon.run(&["feed", "settle", "lantern/ws1@london", "--comment", "is ws3 now"]);
        assert_eq!((ran.exit, ran.stdout.contains("is settled")), (0, true), "{ran:?}");
        let ran = daemon.run(&["feed", "release", "lantern"]);
        assert_eq!((ran.exit, ran.stdout.contains("is written as it is")), (0, true), "{ran:?}");
    }
}
