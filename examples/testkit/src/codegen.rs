//! Regenerates protobuf code with `protox`, so that nobody needs `protoc`.
//!
//! Generated code is checked in. A crate's test calls [`assert_current`]; with the variable
//! `MESHWRIGHT_REGENERATE=1` the same test writes the files instead.

use std::{fs, path::Path};

/// What to generate from which schema files.
#[derive(Debug)]
#[allow(
    clippy::exhaustive_structs,
    reason = "written out by the tests that use it"
)]
pub struct Generate<'a> {
    /// Folder of the crate (`env!("CARGO_MANIFEST_DIR")`).
    pub crate_dir: &'a str,
    /// Schema files below `proto/`.
    pub protos: &'a [&'a str],
    /// Folder of the generated files, below the crate's.
    pub out: &'a str,
    /// Whether to generate a gRPC client.
    pub client: bool,
    /// Whether to generate a gRPC server behind the crate's feature `server`.
    pub server: bool,
}

const HEADER: &str = "#![allow(\n    clippy::all,\n    clippy::pedantic,\n    clippy::restriction,\n    missing_docs,\n    unnameable_types,\n    unreachable_pub,\n    unused_qualifications,\n    rustdoc::all,\n    reason = \"generated\"\n)]\n";

/// Fails if a checked-in generated file differs from what its schema gives now.
///
/// # Panics
///
/// Panics when the schema does not compile, a file cannot be read or written, or a file differs.
#[track_caller]
#[allow(clippy::expect_used, reason = "an assertion for tests")]
pub fn assert_current(what: &Generate<'_>) {
    let root = Path::new(what.crate_dir);
    let proto = root.join("proto");
    let descriptors = protox::compile(what.protos, [&proto]).expect("the schema compiles");
    let fresh = tempdir(what.crate_dir);
    let mut config = tonic_prost_build::Config::new();
    config.bytes(["."]);
    // Ordered maps: the same message always encodes to the same bytes, which versions rely on.
    config.btree_map(["."]);
    tonic_prost_build::configure()
        .build_client(what.client)
        .build_server(what.server)
        .server_mod_attribute(".", "#[cfg(feature = \"server\")]")
        .build_transport(false)
        .out_dir(&fresh)
        .compile_fds_with_config(descriptors, config)
        .expect("code is generated");
    let out = root.join(what.out);
    for entry in fs::read_dir(&fresh).expect("the fresh folder is listed") {
        let entry = entry.expect("the fresh folder is listed");
        let code = fs::read_to_string(entry.path()).expect("fresh code is read");
        let code = format!("{HEADER}{}", code.trim_start());
        let name = entry.file_name().to_string_lossy().replace('.', "_");
        let file = out.join(name.trim_end_matches("_rs")).with_extension("rs");
        if std::env::var_os("MESHWRIGHT_REGENERATE").is_some() {
            fs::create_dir_all(&out).expect("the output folder is made");
            fs::write(&file, &code).expect("generated code is written");
        }
        let current = fs::read_to_string(&file).unwrap_or_default();
        assert!(
            normal(&current) == normal(&code),
            "{} is not what its schema gives; run this test with MESHWRIGHT_REGENERATE=1",
            file.display()
        );
    }
    fs::remove_dir_all(&fresh).expect("the fresh folder is removed");
}

/// Formatting aside: `cargo fmt` also formats generated files, and drops braces around one expression.
fn normal(code: &str) -> String {
    code.chars()
        .filter(|c| !c.is_whitespace() && !matches!(c, ',' | '{' | '}'))
        .collect()
}

#[allow(clippy::expect_used, reason = "an assertion for tests")]
fn tempdir(crate_dir: &str) -> std::path::PathBuf {
    let name = Path::new(crate_dir)
        .file_name()
        .map_or_else(String::new, |n| n.to_string_lossy().into_owned());
    let path =
        std::env::temp_dir().join(format!("meshwright-codegen-{name}-{}", std::process::id()));
    fs::create_dir_all(&path).expect("a temporary folder is made");
    path
}
