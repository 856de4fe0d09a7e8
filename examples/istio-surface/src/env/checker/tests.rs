use std::ffi::OsString;
use std::io::Write;
use std::os::unix::ffi::OsStringExt;
use std::path::Path;
use std::time::Duration;

use super::super::{InvalidValue, ProxyConfig, Roots, Token, Variables};

fn nowhere() -> &'static Path {
    Path::new("./no/such/file")
}

#[test]
fn every_fault_is_reported_at_once_and_in_order() {
    let _trace = meshwright_testkit::trace();
    let variables = Variables::from_pairs([("A", "yes"), ("B", "5x"), ("C", "7"), ("D", "nine")]);
    let mut checker = variables.checker();
    assert!(!checker.boolean("A", false));
    assert_eq!(checker.duration("B", Duration::ZERO), Duration::ZERO);
    assert_eq!(checker.number("C", 1, 10), Some(7));
    assert_eq!(checker.number("D", 1, 10), None);
    let faults = checker.finish().unwrap_err();
    assert_eq!(
        faults.to_string(),
        "3 settings are invalid: A=\"yes\" is neither `true` nor `false`; B=\"5x\" is not a length \
         of time such as `90`, `5m` or `1h30m`, at most ten years; D=\"nine\" is not a whole number \
         from 1 to 10"
    );
}

#[test]
fn secret_values_appear_in_no_message() {
    let _trace = meshwright_testkit::trace();
    let variables = Variables::from_pairs([
        ("AUTH_TOKEN", "hunter2\u{7}"),
        ("XDS_HEADER_bad name", "hunter2"),
        ("XDS_HEADER_authorization", "hunter2"),
    ]);
    let mut checker = variables.checker();
    let headers = checker.headers("XDS_HEADER_");
    let token = checker.token("AUTH_TOKEN", nowhere());
    assert_eq!(headers.len(), 1);
    let faults = checker.finish().unwrap_err();
    assert_eq!(faults.faults().len(), 2);
    let printed = format!("{faults} {faults:?} {headers:?} {token:?} {variables:?}");
    assert!(!printed.contains("hunter2"), "{printed}");
}

#[test]
fn value_that_is_not_unicode_is_a_fault_only_if_the_variable_is_read() {
    let _trace = meshwright_testkit::trace();
    let odd = OsString::from_vec(vec![0xff, 0xfe]);
    let variables = Variables::from_pairs([("MINE", odd.clone()), ("OTHER", odd)]);
    let mut checker = variables.checker();
    assert_eq!(checker.text("MINE"), None);
    let faults = checker.finish().unwrap_err();
    assert_eq!(faults.faults()[0].reason, InvalidValue::NotUnicode);
    assert_eq!(faults.faults().len(), 1);
}

#[test]
fn roots_are_the_store_a_file_or_pem_and_nothing_else() {
    let _trace = meshwright_testkit::trace();
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(b"x").unwrap();
    let pem = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    let variables = Variables::from_pairs([
        ("SYSTEM", "SYSTEM"),
        ("FILE", file.path().to_str().unwrap()),
        ("PEM", pem),
        ("WRONG", "/no/such/root.pem"),
        (
            "KEY",
            "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n",
        ),
    ]);
    let mut checker = variables.checker();
    assert_eq!(checker.roots("SYSTEM", nowhere()), Roots::System);
    assert_eq!(
        checker.roots("FILE", nowhere()),
        Roots::File(file.path().to_owned())
    );
    assert_eq!(checker.roots("PEM", nowhere()), Roots::Pem(pem.into()));
    assert_eq!(
        checker.roots("UNSET", file.path()),
        Roots::File(file.path().to_owned())
    );
    checker.roots("WRONG", nowhere());
    checker.roots("KEY", nowhere());
    checker.roots("UNSET", nowhere());
    let refused = checker.finish().unwrap_err();
    assert_eq!(refused.faults().len(), 3);
    assert!(
        !refused.to_string().contains("PRIVATE"),
        "a key is not repeated"
    );
}

#[test]
fn token_is_a_file_or_itself_but_never_a_missing_path() {
    let _trace = meshwright_testkit::trace();
    let file = tempfile::NamedTempFile::new().unwrap();
    let variables = Variables::from_pairs([
        ("FILE", file.path().to_str().unwrap()),
        ("TEXT", "eyJhbGciOi\n"),
        ("MISSING", "/9j4AAQSkZJRgABAQAAAQ"),
    ]);
    let mut checker = variables.checker();
    assert_eq!(
        checker.token("FILE", nowhere()),
        Token::File(file.path().to_owned())
    );
    let Token::Static(token) = checker.token("TEXT", nowhere()) else {
        panic!("text that names no file is the token itself");
    };
    assert_eq!(
        token.expose(),
        "eyJhbGciOi",
        "a trailing newline is not part of a token"
    );
    assert_eq!(checker.token("UNSET", nowhere()), Token::None);
    assert_eq!(checker.token("MISSING", nowhere()), Token::None);
    assert_eq!(
        checker.finish().unwrap_err().to_string(),
        "1 setting is invalid: MISSING names a file that does not exist",
        "what may be a token is not repeated"
    );
}

#[test]
fn server_without_scheme_is_https_and_plain_http_is_refused() {
    let _trace = meshwright_testkit::trace();
    let variables = Variables::default();
    let mut checker = variables.checker();
    assert_eq!(
        checker
            .server("XDS_ADDRESS", "istiod:15012")
            .unwrap()
            .to_string(),
        "https://istiod:15012/"
    );
    assert_eq!(checker.server("XDS_ADDRESS", "http://istiod:15010"), None);
    assert_eq!(checker.server("XDS_ADDRESS", "https://"), None);
    assert_eq!(checker.server("XDS_ADDRESS", "me:s3cret@istiod:1"), None);
    let refused = checker.finish().unwrap_err();
    assert_eq!(refused.faults().len(), 3);
    assert!(!refused.to_string().contains("s3cret"), "{refused}");
}

#[test]
fn proxy_config_overrides_the_mesh_file_and_istio_meta_overrides_both() {
    let _trace = meshwright_testkit::trace();
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(
        b"accessLogFile: /dev/stdout\ndefaultConfig:\n  discoveryAddress: mesh:1\n  statsPort: 1\n  \
          proxyMetadata:\n    ISTIO_META_A: mesh\n    B: mesh\n    C: mesh\n",
    )
    .unwrap();
    let variables = Variables::from_pairs([
        (
            "PROXY_CONFIG",
            "{\"discoveryAddress\": \"own:2\", \"tracing\": {}, \"proxyMetadata\": {\"ISTIO_META_B\": \"own\"}}",
        ),
        ("ISTIO_META_C", "meta"),
    ]);
    let mut checker = variables.checker();
    let config = ProxyConfig::load(&mut checker, file.path());
    checker.finish().unwrap();
    assert_eq!(config.discovery_address.as_deref(), Some("own:2"));
    assert_eq!(config.stats_port, Some(1));
    let metadata: Vec<_> = config.proxy_metadata.iter().collect();
    let expected = [("A", "mesh"), ("B", "own"), ("C", "meta")];
    assert_eq!(
        metadata,
        expected
            .map(|(k, v)| (k.to_owned(), v.to_owned()))
            .iter()
            .map(|(k, v)| (k, v))
            .collect::<Vec<_>>()
    );
}

#[test]
fn malformed_mesh_file_is_a_fault_and_a_missing_one_is_not() {
    let _trace = meshwright_testkit::trace();
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(b"defaultConfig: [1").unwrap();
    let settings = "proxyMetadata: {KEY: s3cret}\nstatsPort: many";
    let variables = Variables::from_pairs([("PROXY_CONFIG", settings)]);
    let mut checker = variables.checker();
    assert_eq!(
        ProxyConfig::load(&mut checker, nowhere()),
        ProxyConfig::default()
    );
    ProxyConfig::load(&mut checker, file.path());
    let refused = checker.finish().unwrap_err();
    let count = refused.faults().len();
    assert_eq!(
        count, 2,
        "PROXY_CONFIG once, though it was read twice, and the file"
    );
    assert!(!refused.to_string().contains("s3cret"), "{refused}");
}

#[test]
fn unknown_variable_of_ours_is_a_fault_and_of_others_is_not() {
    let _trace = meshwright_testkit::trace();
    let variables = Variables::from_pairs([
        ("MESHWRIGHT_A", "1"),
        ("MESHWRIGHT_CP_X", "1"),
        ("MESHWRIGHT_B", "1"),
        ("OTHER_C", "1"),
    ]);
    let mut checker = variables.checker();
    checker.only("MESHWRIGHT_", &["MESHWRIGHT_A"], &["MESHWRIGHT_CP_"]);
    assert_eq!(
        checker.finish().unwrap_err().to_string(),
        "1 setting is invalid: MESHWRIGHT_B is not a setting of this program"
    );
}
