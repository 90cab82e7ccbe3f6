//! `avalonctl retire`, `restore` and `accept`: what becomes of versions after they were published.

use avalon_protocol::{
    control::{ApiError, ErrorCode, LifetimeItem, LifetimeReply, LifetimeRequest, LifetimeState, route},
    exit_code::ExitCode,
    reference::Reference,
};
use clap::Args;

use super::pull::{self, PullArgs, exit_of_parts};
use crate::{
    context::Context,
    escape::escape,
    failure::Failure,
    measure::{count, size},
};

/// Arguments of `retire`.
#[derive(Debug, Args)]
pub(crate) struct RetireArgs {
    /// The versions.
    #[arg(required = true, value_name = "REF")]
    references: Vec<String>,
    /// Why.
    #[arg(short = 'm', long)]
    comment: String,
    /// Who retires them; by default your user.
    #[arg(long, default_value = "", hide_default_value = true)]
    author: String,
    /// Only say what would be retired.
    #[arg(short = 'n', long)]
    dry_run: bool,
}

/// Arguments of `restore`.
#[derive(Debug, Args)]
pub(crate) struct RestoreArgs {
    /// The versions.
    #[arg(required = true, value_name = "REF")]
    references: Vec<String>,
    /// Who restores them; by default your user.
    #[arg(long, default_value = "", hide_default_value = true)]
    author: String,
    /// Only say what would be restored.
    #[arg(short = 'n', long)]
    dry_run: bool,
}

/// Arguments of `accept`.
#[derive(Debug, Args)]
pub(crate) struct AcceptArgs {
    /// The version.
    #[arg(value_name = "REF")]
    reference: String,
    /// What there is to say about the change.
    #[arg(short = 'm', long, default_value = "", hide_default_value = true)]
    comment: String,
    /// Who accepts it; by default your user.
    #[arg(long, default_value = "", hide_default_value = true)]
    author: String,
    /// Only say which files would be accepted.
    #[arg(short = 'n', long)]
    dry_run: bool,
}

/// Takes versions out of use.
pub(crate) async fn retire(context: &Context<'_>, args: RetireArgs) -> Result<ExitCode, Failure> {
    let RetireArgs { references: refs, comment, author, dry_run } = args;
    let request = LifetimeRequest { refs, comment, author, dry_run, project: None };
    let reply = ask(context, route::RETIRE, request).await?;
    Ok(show(context, &reply, dry_run))
}

/// Brings versions back, and puts back what stands over files that were changed in place; waits until that is done.
pub(crate) async fn restore(context: &Context<'_>, args: RestoreArgs) -> Result<ExitCode, Failure> {
    let RestoreArgs { references: refs, author, dry_run } = args;
    let request = LifetimeRequest { refs, author, dry_run, ..LifetimeRequest::default() };
    let reply = ask(context, route::RESTORE, request).await?;
    let coming = reply.versions.iter().filter(|item| item.job.is_some());
    let coming: Vec<String> = coming.map(|item| item.reference.clone()).collect();
    let shown = show(context, &reply, dry_run);
    if coming.is_empty() || dry_run {
        return Ok(shown);
    }
    let pulled = pull::run(context, &PullArgs::of(coming)).await?;
    Ok(if shown == ExitCode::Ok { pulled } else { shown })
}

/// Makes files that were changed in place the next generation of their version.
pub(crate) async fn accept(context: &Context<'_>, args: AcceptArgs) -> Result<ExitCode, Failure> {
    let AcceptArgs { reference, comment, author, dry_run } = args;
    let request = LifetimeRequest { refs: vec![reference], comment, author, dry_run, project: None };
    let reply = ask(context, route::ACCEPT, request).await?;
    Ok(show(context, &reply, dry_run))
}

async fn ask(
    context: &Context<'_>,
    path: &'static str,
    request: LifetimeRequest,
) -> Result<LifetimeReply, Failure> {
    for text in &request.refs {
        text.parse::<Reference>()?;
    }
    let request = LifetimeRequest { project: context.project.clone(), ..request };
    Ok(context.client.post(path, &request).await?)
}

fn show(context: &Context<'_>, reply: &LifetimeReply, is_dry: bool) -> ExitCode {
    if context.output.is_json() {
        context.output.json(reply);
    } else {
        reply.versions.iter().for_each(|item| show_item(context, item, is_dry));
        if is_dry {
            context.output.talk("nothing was done");
        }
    }
    let refused: Vec<ErrorCode> = reply.versions.iter().filter_map(|item| item.error).collect();
    exit_of_parts(reply.versions.len() - refused.len(), &refused)
}

fn show_item(context: &Context<'_>, item: &LifetimeItem, is_dry: bool) {
    let (output, reference) = (context.output, escape(&item.reference));
    if let Some(code) = item.error {
        output.error(&ApiError::new(code, format!("{}: {}", item.reference, item.messages.join("; "))));
        return;
    }
    let would = if is_dry { "would be " } else { "" };
    let what = match item.state {
        LifetimeState::Retired => {
            let until = item.undo_until.as_deref().unwrap_or("the undo window ends");
            format!("{would}retired; nothing of it is removed anywhere before {until}")
        }
        LifetimeState::Restored => format!("{would}in use again"),
        LifetimeState::PuttingBack => {
            format!(
                "{} {would}put back; what lies there goes to the trash",
                count(item.changed.len() as u64, "file")
            )
        }
        LifetimeState::Accepted => {
            format!(
                "{} {would}accepted as the next generation",
                count(item.changed.len() as u64, "changed file")
            )
        }
        LifetimeState::Unchanged => "nothing to do".to_owned(),
        LifetimeState::Refused => "refused".to_owned(),
    };
    output.data(&format!("{reference}  {}, {}: {what}", count(item.files, "file"), size(item.bytes)));
    for path in &item.changed {
        output.data(&format!("  {}", escape(path)));
    }
    for message in &item.messages {
        output.talk(&format!("  {}", escape(message)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fake::FakeDaemon;

    const REFERENCE: &str = "lantern:robot/modelDefault@v002";

    fn item(state: LifetimeState) -> LifetimeItem {
        LifetimeItem {
            reference: REFERENCE.into(),
            state,
            messages: Vec::new(),
            error: None,
            files: 2,
            bytes: 3 << 20,
            holders: vec!["srv@london".into()],
            undo_until: Some("2026-12-22T10:00:00Z".into()),
            job: None,
            changed: Vec::new(),
        }
    }

    fn daemon(request: &str, item: LifetimeItem) -> FakeDaemon {
        let daemon = FakeDaemon::start();
        let schema = "avalonctl.retire/1".into();
        daemon.on(request, &LifetimeReply { schema, versions: vec![item] });
        daemon
    }

    #[test]
    fn who_retires_has_to_say_why_and_hears_until_when_nothing_is_removed() {
        let daemon = daemon("POST /v1/retire", item(LifetimeState::Retired));
        assert_eq!(daemon.run(&["retire", "robot/modelDefault@v002"]).exit, 2, "without a comment");
        let ran = daemon.run(&["retire", "robot/modelDefault@v002", "-m", "wrong scale"]);
        assert_eq!(
            (ran.exit, ran.stdout.as_str()),
            (
                0,
                "lantern:robot/modelDefault@v002  2 files, 3.0 MiB: retired; nothing of it is removed anywhere \
                 before 2026-12-22T10:00:00Z\n"
            )
        );
        let sent = daemon.requests().pop().unwrap();
        assert!(sent.contains("\"comment\":\"wrong scale\"") && sent.contains("\"dry_run\":false"), "{sent}");
        let ran = daemon.run(&["retire", "robot/modelDefault@v002", "-m", "x", "-n"]);
        assert!(
            ran.stdout.contains("would be retired") && ran.stderr.contains("nothing was done"),
            "{ran:?}"
        );
    }

    #[test]
    fn what_is_accepted_is_listed() {
        let accepted = LifetimeItem {
            changed: vec!["a.abc".into()],
            messages: vec!["it is generation 2 now".into()],
            ..item(LifetimeState::Accepted)
        };
        let ran = daemon("POST /v1/accept", accepted).run(&["accept", "robot/modelDefault@v002"]);
        assert_eq!(
            ran.stdout,
            "lantern:robot/modelDefault@v002  2 files, 3.0 MiB: 1 changed file accepted as the next generation\n  a.abc\n"
        );
        assert_eq!(ran.stderr, "  it is generation 2 now\n");
    }

    #[test]
    fn what_is_refused_ends_with_the_code_of_its_error() {
        let refused = LifetimeItem {
            error: Some(ErrorCode::Conflict),
            messages: vec!["decide first".into()],
            ..item(LifetimeState::Refused)
        };
        let ran = daemon("POST /v1/restore", refused).run(&["restore", "robot/modelDefault@v002"]);
        assert_eq!((ran.exit, ran.stdout.as_str()), (8, ""));
        assert!(ran.stderr.contains("AVL-0802") && ran.stderr.contains("decide first"), "{ran:?}");
    }
}
