//! Rule files: any text is read, or refused with a place and a reason; what is read can be checked
//! and used.

#![no_main]

use libfuzzer_sys::fuzz_target;
use smtpsweep::fingerprint::{Observation, RuleSet};
use smtpsweep::smtp::Stage;

fuzz_target!(|text: &str| {
    match RuleSet::parse(&[("fuzz.toml", text)]) {
        Ok(rules) => {
            let _ = rules.check();
            let _ = rules.list();
            let greeting = b"220 mx.example.test ESMTP Postfix 3.9\r\n";
            let verdict = rules.classify(&Observation::only(Stage::Greeting, greeting));
            assert!(
                (0.0..=1.0).contains(&verdict.confidence),
                "{}",
                verdict.confidence
            );
        }
        Err(error) => assert!(error.to_string().contains("fuzz.toml"), "{error}"),
    }
});
