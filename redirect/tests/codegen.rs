//! The checked-in code is what the schema gives.
#![allow(missing_docs, reason = "tests")]

use meshwright_testkit::codegen::{Generate, assert_current};

#[test]
fn generated_code_is_current() {
    let _trace = meshwright_testkit::trace();
    assert_current(&Generate {
        crate_dir: env!("CARGO_MANIFEST_DIR"),
        protos: &["zds.proto"],
        out: "src/zds/generated",
        client: false,
        server: false,
    });
}
