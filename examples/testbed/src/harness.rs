//! Runs end-to-end tests: one shared world per test binary, every test reported truthfully.
//!
//! A test binary has `harness = false` and its `main` is one call of [`main`]. Where the machine
//! cannot make network namespaces every test is reported as ignored and says so; with
//! `MESHWRIGHT_REQUIRE=all` in the environment that is a failure instead.

use std::{
    path::Path,
    process::ExitCode,
    sync::{Arc, OnceLock},
};

use libtest_mimic::{Arguments, Completion, Failed, Trial};

use crate::{World, WorldError, dispatch, privilege};

/// One test: a fact as its name, and what shows it.
pub type Case = (&'static str, fn(&World) -> Result<(), WorldError>);

/// Names cases after their functions.
#[macro_export]
macro_rules! cases {
    ($($(#[$meta:meta])* $case:path),* $(,)?) => {
        &[$($(#[$meta])* (stringify!($case), $case)),*]
    };
}

/// Runs the tests of a binary against one world, one after the other.
///
/// The world is built by the first test that runs. Call it as the only statement of `main`.
pub fn main(build: fn() -> Result<World, WorldError>, cases: &[Case]) -> ExitCode {
    if let Some(code) = dispatch() {
        return code;
    }
    let missing = privilege::obtain()
        .err()
        .map(|error| format!("network namespaces are missing: {}", error.chain()));
    let mut arguments = Arguments::from_args();
    // They share a world in which some of them kill things.
    arguments.test_threads = Some(1);
    let shared: Arc<Shared> = Arc::default();
    let trials = cases
        .iter()
        .map(|(name, case)| {
            let (shared, missing, case) = (Arc::clone(&shared), missing.clone(), *case);
            Trial::ignorable_test(*name, move || match missing {
                Some(reason) => unavailable(&reason),
                None => run(&shared, build, case),
            })
        })
        .collect();
    let conclusion = libtest_mimic::run(&arguments, trials);
    if conclusion.has_failed()
        && let Some(Ok(world)) = shared.world.get()
    {
        report(world.keep_files());
    }
    conclusion.exit_code()
}

#[expect(clippy::print_stderr, reason = "who reads of a failure needs the logs")]
fn report(folder: &Path) {
    eprintln!("logs and manifests: {}", folder.display());
}

#[derive(Default)]
struct Shared {
    world: OnceLock<Result<World, String>>,
}

fn run(
    shared: &Shared,
    build: fn() -> Result<World, WorldError>,
    case: fn(&World) -> Result<(), WorldError>,
) -> Result<Completion, Failed> {
    let world = shared
        .world
        .get_or_init(|| build().map_err(|error| error.chain()))
        .as_ref()
        .map_err(|error| Failed::from(format!("the world was not built: {error}")))?;
    case(world)
        .map(|()| Completion::Completed)
        .map_err(|error| Failed::from(error.chain()))
}

/// Reports a test as ignored for want of a capability, or as failed where all are required.
///
/// # Errors
///
/// Fails with the reason when `MESHWRIGHT_REQUIRE` is `all` in the environment.
pub fn unavailable(reason: &str) -> Result<Completion, Failed> {
    if std::env::var_os("MESHWRIGHT_REQUIRE").is_some_and(|value| value == "all") {
        Err(Failed::from(reason.to_owned()))
    } else {
        Ok(Completion::ignored_with(reason))
    }
}
