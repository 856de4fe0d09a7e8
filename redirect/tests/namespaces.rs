//! Tests in fresh network namespaces.
//!
//! They need root, or a kernel that lets everybody make user namespaces. Without that, or without
//! the program that a test names, they are reported as ignored and say what is missing;
//! `MESHWRIGHT_REQUIRE=all` makes that a failure.
#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    missing_docs,
    unreachable_pub,
    reason = "tests"
)]

#[path = "namespaces/capture.rs"]
mod capture;
#[path = "namespaces/handover.rs"]
mod handover;
#[path = "namespaces/matrix.rs"]
mod matrix;
#[path = "namespaces/rig.rs"]
mod rig;
#[path = "namespaces/sockets.rs"]
mod sockets;
#[path = "namespaces/traffic.rs"]
mod traffic;
#[path = "namespaces/zds.rs"]
mod zds;

use libtest_mimic::{Arguments, Failed, Trial};
use rig::Capabilities;

/// A test: its name, the programs it needs besides namespaces, and its body.
pub type Test = (&'static str, &'static [&'static str], fn());

fn main() {
    let arguments = Arguments::from_args();
    let capabilities = Capabilities::probe();
    let all = [
        capture::TESTS,
        handover::TESTS,
        matrix::TESTS,
        sockets::TESTS,
        traffic::TESTS,
        zds::TESTS,
    ];
    let trials = all
        .iter()
        .flat_map(|tests| tests.iter())
        .map(|(name, needs, body)| trial(name, capabilities.missing(needs), *body))
        .collect();
    libtest_mimic::run(&arguments, trials).exit();
}

fn trial(name: &'static str, missing: Option<String>, body: fn()) -> Trial {
    let required = std::env::var_os("MESHWRIGHT_REQUIRE").is_some_and(|value| value == "all");
    match missing {
        None => Trial::test(name, move || rig::on_own_thread(body)),
        Some(missing) if required => {
            Trial::test(name, move || Err(Failed::from(format!("needs {missing}"))))
        }
        Some(missing) => {
            Trial::test(format!("{name} (needs {missing})"), || Ok(())).with_ignored_flag(true)
        }
    }
}
