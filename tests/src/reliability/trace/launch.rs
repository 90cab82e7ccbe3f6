//! What a traced daemon is before it is the daemon.

use std::{collections::BTreeMap, fs, os::unix::process::CommandExt as _, process::Command, thread};

use seccompiler::{BpfProgram, SeccompAction, SeccompFilter, TargetArch};

use super::calls::stopped_at;

/// Waits for its tracer, puts the filter in place, and becomes the program that the arguments name. Returns only when
/// that fails, with the reason.
pub fn launch(arguments: &[String]) -> String {
    let [what, program, arguments @ ..] = arguments else { return "nothing to launch".to_owned() };
    let rules: BTreeMap<_, _> =
        stopped_at(what == "reads").into_iter().map(|number| (number, Vec::new())).collect();
    let filter = SeccompFilter::new(rules, SeccompAction::Allow, SeccompAction::Trace(0), TargetArch::x86_64);
    let program_of_filter: BpfProgram = match filter.and_then(BpfProgram::try_from) {
        Ok(filter) => filter,
        Err(error) => return format!("the filter: {error}"),
    };
    // Under the filter and without a tracer every step would fail.
    while !is_traced() {
        thread::yield_now();
    }
    if let Err(error) = seccompiler::apply_filter(&program_of_filter) {
        return format!("the kernel refuses the filter: {error}");
    }
    Command::new(program).args(arguments).exec().to_string()
}

fn is_traced() -> bool {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    status.lines().any(|line| line.strip_prefix("TracerPid:").is_some_and(|pid| pid.trim() != "0"))
}
