//! The description of the API for people and for generators of clients.

use utoipa::OpenApi;

use super::{events, routes};

#[derive(OpenApi)]
#[openapi(
    info(
        title = "Avalon sync: the local API of avalond",
        description = "HTTP with JSON over the daemon's Unix socket. Sizes are bytes, durations seconds, times RFC 3339 \
                       UTC. Fields are only ever added; a reader ignores what it does not know.",
        version = "1",
        license(name = "MIT OR Apache-2.0")
    ),
    paths(
        routes::status,
        routes::list,
        routes::locate,
        routes::info,
        routes::why,
        routes::inputs,
        routes::problems,
        routes::destination,
        routes::report,
        routes::publish,
        routes::pull,
        routes::retire,
        routes::restore,
        routes::accept,
        routes::conflicts,
        routes::resolve,
        routes::reserve,
        routes::drop_versions,
        routes::pins,
        routes::set_pins,
        routes::verify_files,
        routes::verifying,
        routes::end_verify,
        routes::jobs,
        routes::job,
        routes::cancel,
        routes::queue,
        routes::change_queue,
        routes::limits,
        routes::set_limit,
        routes::clear_limits,
        routes::clear_limit,
        routes::policy,
        routes::apply_policy,
        routes::policy_history,
        routes::feeds,
        routes::change_feed,
        routes::invites,
        routes::invite,
        routes::revoke_invite,
        routes::nodes,
        routes::revoke_node,
        events::stream,
        routes::rebuild,
        routes::verify,
        routes::stats,
        routes::export,
        routes::import,
        routes::audit,
        routes::audit_verify,
        routes::audit_heads,
        routes::openapi,
    )
)]
struct Description;

/// Returns the description of the API in OpenAPI 3, as JSON; `docs/openapi.json` is the same text.
pub fn openapi_json() -> String {
    #[expect(clippy::expect_used, reason = "a test makes the same text from the same constants")]
    let mut json = Description::openapi().to_pretty_json().expect("the description is plain data");
    json.push('\n');
    json
}

#[cfg(test)]
mod tests {
    use std::{fs, path::Path};

    use super::*;

    #[test]
    #[expect(clippy::disallowed_methods, reason = "the file is a source file")]
    fn the_committed_description_is_the_generated_one() {
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/openapi.json");
        if std::env::var_os("UPDATE_OPENAPI").is_some() {
            fs::write(&file, openapi_json()).unwrap();
        }
        let committed = fs::read_to_string(&file).unwrap_or_default();
        assert!(
            committed == openapi_json(),
            "run this test with UPDATE_OPENAPI=1 and commit docs/openapi.json"
        );
    }
}
