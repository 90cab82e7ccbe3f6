//! `avalonctl completions SHELL`.

use avalon_protocol::exit_code::ExitCode;
use clap::Args;
use clap_complete::Shell;

use crate::{args, context::Context};

/// Arguments of `completions`.
#[derive(Debug, Args)]
pub(crate) struct CompletionsArgs {
    /// Which shell.
    #[arg(value_name = "SHELL")]
    shell: Shell,
}

/// Prints the completions.
pub(crate) fn run(context: &Context<'_>, args: &CompletionsArgs) -> ExitCode {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut args::command(), "avalonctl", &mut script);
    context.output.bytes(&script);
    ExitCode::Ok
}

#[cfg(test)]
mod tests {
    use crate::fake::run;

    #[test]
    fn every_shell_gets_completions_that_know_the_commands() {
        for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
            let ran = run(&["completions", shell]);
            assert_eq!((ran.exit, ran.stderr.as_str()), (0, ""));
            assert!(ran.stdout.contains("avalonctl") && ran.stdout.contains("publish"), "{shell}");
        }
        assert_eq!(run(&["completions", "tcsh"]).exit, 2);
    }
}
