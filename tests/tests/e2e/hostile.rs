//! A daemon under attack, in short: that it stays safe. How fast it stays is measured by the program `hostile`.

use std::path::Path;

use avalon_tests::hostile::{Options, run};

use crate::support::programs;

#[test]
fn an_attacked_node_serves_on_within_its_memory_and_writes_nothing_beside_its_root() {
    let options = Options { rounds: 1, mib: 32, half_open: 300, verbose: false };
    let report = run(programs(), Path::new(env!("CARGO_BIN_EXE_hostile")), &options);
    assert_eq!(report.faults(false), Vec::<String>::new(), "{report:?}");
    let done = &report.attack;
    assert!(done.half_open > 50 && done.slow_reads > 0 && done.slow_writes > 0, "{done:?}");
    assert!(
        done.bad_frames > 0 && done.forged > 0 && report.flips > 100 && report.raced_pulls > 0,
        "{report:?}"
    );
}
