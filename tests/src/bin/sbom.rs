//! Prints what the programs are made of: `cargo run -p avalon-tests --bin sbom > sbom.json`. CycloneDX 1.5.

use std::{path::Path, process::ExitCode};

fn main() -> ExitCode {
    let Some(root) = Path::new(env!("CARGO_MANIFEST_DIR")).parent() else { return ExitCode::FAILURE };
    match avalon_tests::sbom::of_workspace(root) {
        Ok(bill) => {
            println!("{bill:#}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("the bill of materials cannot be made: {error}");
            ExitCode::FAILURE
        }
    }
}
