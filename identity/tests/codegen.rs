//! The checked-in code is what the schema gives.

use meshwright_testkit::codegen::{Generate, assert_current};

#[test]
fn generated_code_is_current() {
    let _trace = meshwright_testkit::trace();
    assert_current(&Generate {
        crate_dir: env!("CARGO_MANIFEST_DIR"),
        protos: &["citadel.proto"],
        out: "src/generated",
        client: true,
        server: true,
    });
}
