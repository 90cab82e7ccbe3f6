//! From the command line to the exit code.

use std::ffi::OsString;

use avalon_protocol::exit_code::ExitCode;
use clap::Parser;

use crate::{
    args::{Cli, Command},
    client::Client,
    command,
    context::Context,
    environment::Environment,
    failure::Failure,
    interrupt::Interrupt,
    output::{Output, Streams},
};

/// Runs the process's command line.
pub fn main() -> ExitCode {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    match runtime {
        Ok(runtime) => {
            let environment = Environment::of_process();
            let interrupt = Interrupt::of_process();
            runtime.block_on(run(std::env::args_os(), &environment, &Streams::Process, &interrupt))
        }
        Err(error) => {
            eprintln!("error: could not start: {error}");
            ExitCode::Error
        }
    }
}

/// Runs a command line and returns how it ended; everything is said by then.
pub(crate) async fn run(
    args: impl IntoIterator<Item = OsString>,
    environment: &Environment,
    streams: &Streams,
    interrupt: &Interrupt,
) -> ExitCode {
    let cli = match Cli::try_parse_from(args) {
        Ok(cli) => cli,
        Err(error) => return show_usage(&error, streams),
    };
    let output = Output::new(streams.clone(), &cli.global, environment);
    let project = cli.global.project.or_else(|| environment.project().map(str::to_owned));
    let socket = cli.global.socket.unwrap_or_else(|| environment.socket());
    output.detail(&format!("socket {}", socket.display()));
    let context = Context { client: Client::new(socket), project, output: &output, interrupt, environment };
    match Box::pin(dispatch(&context, cli.command)).await {
        Ok(exit) => exit,
        Err(failure) => {
            output.error(&failure.report());
            failure.exit()
        }
    }
}

async fn dispatch(context: &Context<'_>, command: Command) -> Result<ExitCode, Failure> {
    match command {
        Command::Publish(args) => command::publish::run(context, args).await,
        Command::Pull(args) => command::pull::run(context, &args).await,
        Command::Ingest(args) => command::ingest::run(context, args).await,
        Command::Deliver(args) => command::deliver::run(context, &args).await,
        Command::Wait(args) => command::wait::run(context, &args).await,
        Command::Ls(args) => command::ls::run(context, &args).await,
        Command::Where(args) => command::where_is::run(context, &args).await,
        Command::Why(args) => command::why::run(context, &args).await,
        Command::Info(args) => command::info::run(context, &args).await,
        Command::Inputs(args) => command::inputs::run(context, &args).await,
        Command::Problems(args) => command::problems::run(context, &args).await,
        Command::Retire(args) => command::lifetime::retire(context, args).await,
        Command::Restore(args) => command::lifetime::restore(context, args).await,
        Command::Accept(args) => command::lifetime::accept(context, args).await,
        Command::Conflicts(args) => command::conflict::list(context, args).await,
        Command::Reserve(args) => command::reserve::run(context, args).await,
        Command::Resolve(args) => command::conflict::resolve(context, args).await,
        Command::Status(args) => command::status::run(context, &args).await,
        Command::Report(args) => command::report::run(context, &args).await,
        Command::Log(args) => command::log::run(context, &args).await,
        Command::Queue(args) => command::queue::queue(context, &args).await,
        Command::Pause(args) => command::queue::pause(context, args).await,
        Command::Resume(args) => command::queue::resume(context, args).await,
        Command::Prio(args) => command::queue::prio(context, args).await,
        Command::Cancel(args) => command::cancel::run(context, &args).await,
        Command::Drop(args) => command::drop::run(context, &args).await,
        Command::Verify(args) => command::verify::run(context, &args).await,
        Command::Pin(args) => command::pin::run(context, &args, command::pin::Change::Pin).await,
        Command::Unpin(args) => command::pin::run(context, &args, command::pin::Change::Unpin).await,
        Command::Pins(_) => command::pin::list(context).await,
        Command::Limit(args) => command::limit::run(context, args).await,
        Command::Policy(args) => command::policy::run(context, args).await,
        Command::Audit(args) => command::audit::run(context, &args).await,
        Command::Feed(args) => command::feed::run(context, args).await,
        Command::Fsck(args) => command::fsck::run(context, &args),
        Command::Catalog(args) => command::catalog::run(context, &args).await,
        Command::Invite(args) => command::invite::run(context, args).await,
        Command::Invites(_) => command::invite::list(context).await,
        Command::Node(args) => command::node::run(context, args).await,
        Command::Join(args) => command::join::run(context, &args),
        Command::Ca(args) => command::ca::run(context, &args),
        Command::Service(args) => command::service::run(context, &args),
        Command::Completions(args) => Ok(command::completions::run(context, &args)),
        Command::Demo(args) => command::demo::run(context, &args).await,
    }
}

/// Prints help, the version or what is wrong with the command line.
fn show_usage(error: &clap::Error, streams: &Streams) -> ExitCode {
    streams.usage(error);
    if error.use_stderr() { ExitCode::Usage } else { ExitCode::Ok }
}

#[cfg(test)]
mod tests {
    use crate::fake::{FakeDaemon, Line, run};

    #[test]
    fn help_is_data_and_a_wrong_command_line_is_talk_with_a_suggestion() {
        let ran = run(&["--help"]);
        assert_eq!((ran.exit, ran.stderr.as_str()), (0, ""));
        for command in [
            "publish", "pull", "wait", "ls", "where", "info", "status", "log", "queue", "pause", "resume",
            "audit", "prio", "drop", "verify", "pin", "unpin", "pins", "limit", "policy", "feed", "invite",
            "invites", "join", "node", "ca", "catalog", "fsck", "demo",
        ] {
            assert!(ran.stdout.contains(&format!("\n  {command} ")), "{command}");
        }
        let ran = run(&["pul", "a/b"]);
        assert_eq!((ran.exit, ran.stdout.as_str()), (2, ""));
        assert!(ran.stderr.contains("'pull'"), "{ran:?}");
    }

    #[test]
    fn project_comes_from_the_flag_then_the_environment() {
        let daemon = FakeDaemon::start();
        let asked = |line: Line| {
            line.run();
            daemon.requests().pop().unwrap()
        };
        let environment = || vec![("AVALON_PROJECT", "comet".to_owned())];
        let line = Line { environment: environment(), ..daemon.line(&["ls"]) };
        assert_eq!(asked(line), "GET /v1/versions?project=comet");
        let line = Line { environment: environment(), ..daemon.line(&["ls", "--project", "lantern"]) };
        assert_eq!(asked(line), "GET /v1/versions?project=lantern");
        assert_eq!(asked(daemon.line(&["ls"])), "GET /v1/versions");
    }

    #[test]
    fn colours_are_for_terminals_and_no_color_forbids_them() {
        let line = |args: &[&str]| Line { is_terminal: true, ..Line::new(args) };
        let red = "\u{1b}[1;31merror[AVL-0202]:\u{1b}[0m";
        assert!(line(&["where", "x"]).run().stderr.starts_with(red));
        assert!(!run(&["where", "x"]).stderr.contains('\u{1b}'));
        assert!(run(&["where", "x", "--color", "always"]).stderr.starts_with(red));
        let environment = vec![("NO_COLOR", "1".to_owned())];
        assert!(!Line { environment, ..line(&["where", "x"]) }.run().stderr.contains('\u{1b}'));
    }
}
