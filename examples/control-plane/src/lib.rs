//! A control plane for laptops and tests (work in progress).
#![forbid(unsafe_code)]

use std::{ffi::OsString, process::ExitCode};

mod args;
pub mod compile;
pub mod manifest;

pub use args::Config;
pub use manifest::Manifests;

/// Runs the program with these arguments (the first is the program's name) until SIGTERM or SIGINT.
pub fn run<I>(args: I) -> ExitCode
where
    I: IntoIterator<Item = OsString>,
{
    match Config::parse_args(args) {
        Ok(_) => ExitCode::SUCCESS,
        Err(error) => error.exit(),
    }
}
mod ca_dir;
mod callers;
