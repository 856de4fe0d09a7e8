//! The checked-in protobuf code is what its schema gives.

use meshwright_testkit::codegen::{Generate, assert_current};

#[test]
fn checked_in_code_is_current() {
    let _trace = meshwright_testkit::trace();
    assert_current(&Generate {
        crate_dir: env!("CARGO_MANIFEST_DIR"),
        protos: &["authorization.proto"],
        out: "src/proto",
        client: false,
        server: false,
    });
}
