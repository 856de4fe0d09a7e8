//! Policies from the wire: what is accepted encodes to something that is accepted and equal, and
//! says what the messages say.
#![no_main]

use libfuzzer_sys::fuzz_target;
use meshwright_policy::{Mode, PolicyStore, convert, proto::Authorization};
use prost::Message as _;

fuzz_target!(|bytes: &[u8]| {
    let Ok(message) = Authorization::decode(bytes) else {
        assert!(
            convert("ns/name", bytes).is_err(),
            "accepted what is no message"
        );
        return;
    };
    let name = format!("{}/{}", message.namespace, message.name);
    let (mut store, reader) = PolicyStore::new(Mode::Strict);
    let rejected = store.apply([(name.as_str(), bytes)], []);
    match convert(&name, bytes) {
        Ok(policy) => {
            assert!(rejected.is_empty());
            let encoded = policy.authorization().encode_to_vec();
            let again = convert(&name, &encoded).expect("its own encoding is accepted");
            assert_eq!(
                again.authorization(),
                policy.authorization(),
                "the encoding is stable"
            );
            assert_eq!(
                policy.authorization().rules.len(),
                message.rules.len(),
                "a rule was lost"
            );
            assert_eq!(reader.set().len(), 1);
        }
        Err(_) => assert_eq!(rejected.len(), 1, "refused without being named"),
    }
    store.apply([], [name.as_str()]);
    assert_eq!(reader.set().len(), 0, "a removed policy stays");
});
