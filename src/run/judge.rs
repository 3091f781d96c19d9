//! When a dialogue has told enough.
//!
//! A verdict is certain when all that was said so far names a product with a confidence of [`CERTAIN`],
//! **and** what was said after the greeting names the same one by itself. A greeting is what a host
//! most easily fakes, so none is believed on its own word: where EHLO says nothing, or something else
//! (another product's keywords in another product's order), the dialogue goes on with HELP and errors
//! until the behaviour agrees with the words, or the error budget is spent.
//!
//! A protocol that is not mail is certain at once: there is nothing to ask it.

use std::sync::Arc;

use crate::fingerprint::{Observation, Replies, RuleSet};
use crate::session::Judge;
use crate::smtp::Stage;

/// The confidence from which on nothing more is asked: one error in a hundred, beside which what is
/// left to learn is not worth another command. A name and a version in their usual place give 0.9998.
pub(super) const CERTAIN: f64 = 0.99;

/// The judge of a sweep, by its rules.
pub(super) fn judge(rules: Arc<RuleSet>) -> Judge {
    Box::new(move |transcript| is_certain(&rules, &Replies::of(transcript).observation()))
}

fn is_certain(rules: &RuleSet, observation: &Observation<'_>) -> bool {
    let verdict = rules.classify(observation);
    if verdict.product.is_none() || verdict.confidence < CERTAIN {
        return verdict.protocol.is_some();
    }
    let behaviour = rules.classify(&observation.with(Stage::Greeting, b""));
    behaviour.product == verdict.product
}

#[cfg(test)]
mod tests {
    use super::*;

    const POSTFIX: &[u8] = b"220 mx.example.test ESMTP Postfix (Debian/GNU)\r\n";
    const POSTFIX_EHLO: &[u8] =
        b"250-mx.example.test\r\n250-PIPELINING\r\n250-SIZE 10240000\r\n250-VRFY\r\n\
          250-ETRN\r\n250-STARTTLS\r\n250-ENHANCEDSTATUSCODES\r\n250-8BITMIME\r\n250-DSN\r\n\
          250-SMTPUTF8\r\n250 CHUNKING\r\n";

    fn certain(greeting: &[u8], ehlo: &[u8]) -> bool {
        let observation = Observation::only(Stage::Greeting, greeting).with(Stage::Ehlo, ehlo);
        is_certain(&RuleSet::builtin(), &observation)
    }

    #[test]
    fn words_and_behaviour_that_agree_are_enough() {
        assert!(certain(POSTFIX, POSTFIX_EHLO));
    }

    #[test]
    fn a_greeting_alone_is_not_believed() {
        assert!(!certain(POSTFIX, b"250 mx.example.test\r\n"));
    }

    #[test]
    fn a_greeting_that_the_keywords_contradict_is_not_believed() {
        assert!(!certain(
            b"220 mx.example.test ESMTP Exim 4.96\r\n",
            POSTFIX_EHLO
        ));
    }

    #[test]
    fn a_disguise_is_looked_behind() {
        assert!(!certain(
            b"220 mx.example.test ESMTP\r\n",
            b"250 mx.example.test\r\n"
        ));
    }

    #[test]
    fn another_protocol_is_asked_nothing() {
        assert!(certain(
            b"220 ProFTPD 1.3.5 Server (x) [192.0.2.1]\r\n",
            b"500 no\r\n"
        ));
    }
}
