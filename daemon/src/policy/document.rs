//! What this version of the daemon understands of a policy document: the one place that parses one.

use avalon_protocol::policy::Policy;

/// Reads a policy document.
///
/// # Errors
/// All that is wrong with it, in words. A document of a newer version is one that is not understood.
pub fn understand(document: &str) -> Result<Policy, String> {
    Policy::parse(document).map_err(|refused| {
        let problems: Vec<String> =
            refused.problems.iter().map(|problem| format!("line {problem}")).collect();
        problems.join("; ")
    })
}
