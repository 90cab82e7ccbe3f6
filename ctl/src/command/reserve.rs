//! `avalonctl reserve SUBSET`: a version number that nobody else publishes under.

use avalon_protocol::{
    control::{ReserveReply, ReserveRequest, route},
    exit_code::ExitCode,
    reference::Reference,
};
use clap::Args;

use crate::{context::Context, escape::escape, failure::Failure};

/// Arguments of `reserve`.
#[derive(Debug, Args)]
pub(crate) struct ReserveArgs {
    /// The subset, as asset/subset; with @v007 that very number.
    #[arg(value_name = "REF")]
    reference: String,
}

/// Reserves a number, and prints the version that may be published.
pub(crate) async fn run(context: &Context<'_>, args: ReserveArgs) -> Result<ExitCode, Failure> {
    args.reference.parse::<Reference>()?;
    let request = ReserveRequest { reference: args.reference, project: context.project.clone() };
    let reply: ReserveReply = context.client.post(route::RESERVE, &request).await?;
    if context.output.is_json() {
        context.output.json(&reply);
    } else {
        context.output.data(&escape(&reply.reference));
        context.output.talk("nobody else gets this number; publish it at this machine");
    }
    Ok(ExitCode::Ok)
}

#[cfg(test)]
mod tests {
    use avalon_protocol::control::{ApiError, ErrorCode};

    use crate::fake::FakeDaemon;

    use super::*;

    #[test]
    fn the_version_is_printed_for_scripts_and_what_failed_has_its_exit_code() {
        let daemon = FakeDaemon::start();
        let reference = "lantern:robot/modelDefault@v005".to_owned();
        let reply = ReserveReply { schema: "avalonctl.reserve/1".into(), reference, number: 5 };
        daemon.on("POST /v1/reserve", &reply);
        let ran = daemon.run(&["reserve", "robot/modelDefault"]);
        assert_eq!((ran.exit, ran.stdout.as_str()), (0, "lantern:robot/modelDefault@v005\n"));
        assert_eq!(daemon.requests(), ["POST /v1/reserve {\"ref\":\"robot/modelDefault\",\"project\":null}"]);
        assert_eq!(daemon.run(&["reserve", "robot/modelDefault", "--json"]).json()["number"], 5);

        let refusing = FakeDaemon::start();
        refusing.refuse("POST /v1/reserve", &ApiError::new(ErrorCode::NoQuorum, "too few voters answered"));
        let ran = refusing.run(&["reserve", "robot/modelDefault"]);
        assert!(ran.exit == 6 && ran.stderr.contains("too few voters"), "{ran:?}");
    }
}
