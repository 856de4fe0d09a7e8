//! Traces, recorders and assertions shared by the tests of the workspace.
//!
//! This library depends on no crate of the workspace, so that every one of them may use it as a
//! dev-dependency without a cycle. It is not published.
//!
//! | item | when |
//! | --- | --- |
//! | [`trace`] | first line of every test: a failure prints its spans |
//! | [`Recorder`] | implement a crate's `Events` over it: "it was counted" becomes an assertion |
//! | [`assert_chain_says_each_thing_once`] | one test per error variant |
//! | [`codegen`] | the test that generated protobuf code equals its `.proto` files |
#![forbid(unsafe_code)]

pub mod codegen;
mod errors;
mod recorder;
mod tracing_guard;

pub use errors::assert_chain_says_each_thing_once;
pub use recorder::Recorder;
pub use tracing_guard::{TraceGuard, trace};
