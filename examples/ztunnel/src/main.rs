//! The node proxy as a program; see the library.

fn main() -> std::process::ExitCode {
    meshwright_ztunnel::run(std::env::args_os())
}
