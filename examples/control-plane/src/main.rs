//! Runs the control plane; see the library.

use std::process::ExitCode;

fn main() -> ExitCode {
    meshwright_control_plane::run(std::env::args_os())
}
