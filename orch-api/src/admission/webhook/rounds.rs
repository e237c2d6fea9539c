//! What is remembered of a request between the two rounds of mutating admission.
//!
//! Source: `k8s.io/apiserver/pkg/admission/plugin/webhook/mutating/reinvocationcontext.go`.

use std::collections::HashSet;

use serde_json::Value;

/// Who was asked, and who has to be asked again.
#[derive(Clone, Debug, Default)]
pub(crate) struct Rounds {
    /// This is the second round.
    second: bool,
    /// Somebody changed the object, so that others may have more to say.
    wanted: bool,
    /// Who was asked since the object last changed, and may be asked again.
    asked: HashSet<String>,
    /// Who is asked again.
    again: HashSet<String>,
    /// The object as the last of them left it.
    left: Option<Value>,
}

impl Rounds {
    /// Begins the second round, if there is need of one.
    pub(crate) fn begin_again(&mut self) -> bool {
        self.second = self.wanted;
        self.second
    }

    /// 0 in the first round, 1 in the second.
    pub(crate) fn number(&self) -> u8 {
        u8::from(self.second)
    }

    /// Looks at what others did to the object since the first round.
    pub(crate) fn enter(&mut self, object: Option<&Value>) {
        if self.second && self.left.as_ref() != object {
            self.ask_again();
        }
    }

    /// Keeps the object as it is left. Only worth its copy if somebody may be asked again.
    pub(crate) fn leave(&mut self, object: Option<&Value>) {
        let kept = self.wanted || !self.asked.is_empty() || !self.again.is_empty();
        self.left = if kept { object.cloned() } else { None };
    }

    /// Whether somebody is asked in this round.
    pub(crate) fn asks(&self, uid: &str) -> bool {
        !self.second || self.again.contains(uid)
    }

    /// Somebody was asked.
    pub(crate) fn note(&mut self, uid: &str, changed: bool, reinvoked: bool) {
        if changed {
            self.ask_again();
            self.wanted = true;
        }
        if reinvoked {
            self.asked.insert(uid.to_owned());
        }
    }

    fn ask_again(&mut self) {
        self.again.extend(self.asked.drain());
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn who_was_asked_before_a_change_is_asked_again() {
        let mut rounds = Rounds::default();
        rounds.enter(None);
        for (uid, changed) in [("a", false), ("b", true), ("c", false)] {
            assert!(rounds.asks(uid));
            rounds.note(uid, changed, true);
        }
        let object = json!({"a": 1});
        rounds.leave(Some(&object));
        assert!(rounds.begin_again());
        rounds.enter(Some(&object));
        assert!(rounds.asks("a") && !rounds.asks("b") && !rounds.asks("c"));
    }

    #[test]
    fn all_are_asked_again_after_others_changed_the_object() {
        let mut rounds = Rounds::default();
        rounds.note("a", true, true);
        rounds.leave(Some(&json!({"a": 1})));
        assert!(rounds.begin_again());
        rounds.enter(Some(&json!({"a": 2})));
        assert!(rounds.asks("a") && !rounds.asks("never"));
        let mut quiet = Rounds::default();
        quiet.note("a", false, true);
        assert!(!quiet.begin_again());
    }
}
