//! The messages of a conversation, and what of them fits the context.

use girih_model::RunError;
use serde_json::{Value, json};

/// The part of the context that is kept for an answer, unless it may be shorter: one in so many.
const ANSWER_SHARE: usize = 4;

/// Messages so far.
#[derive(Clone, Debug, Default)]
pub struct History {
    messages: Vec<Value>,
    /// Messages in front that stay: the system message.
    fixed: usize,
}

/// A conversation that fits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fitted {
    /// Its tokens.
    pub ids: Vec<u32>,
    /// Messages that were left out for it.
    pub left_out: usize,
}

impl History {
    /// A conversation with a system message, if there is one.
    pub fn new(system: Option<&str>) -> Self {
        let messages: Vec<Value> =
            system.map(|content| json!({ "role": "system", "content": content })).into_iter().collect();
        Self { fixed: messages.len(), messages }
    }

    /// Adds a message.
    pub fn push(&mut self, role: &str, content: &str) {
        self.messages.push(json!({ "role": role, "content": content }));
    }

    /// Takes the last message back.
    pub fn withdraw(&mut self) {
        if self.messages.len() > self.fixed {
            self.messages.pop();
        }
    }

    /// The tokens of the conversation, so that an answer fits behind them: if need be, the oldest messages are left out
    /// for good, from a question to the one before the next. The system message and the newest question stay.
    ///
    /// # Errors
    /// What `encode` cannot do; a newest question that does not fit by itself.
    pub fn fit(
        &mut self,
        context: u32,
        max_tokens: usize,
        encode: impl Fn(&[Value]) -> Result<Vec<u32>, RunError>,
    ) -> Result<Fitted, RunError> {
        let limit = context as usize;
        let room = max_tokens.min(limit / ANSWER_SHARE);
        let mut rest = self.messages.clone();
        let mut left_out = 0;
        loop {
            let ids = encode(&rest)?;
            if ids.len() + room <= limit {
                self.messages = rest;
                return Ok(Fitted { ids, left_out });
            }
            let turn = rest.iter().skip(self.fixed + 1).position(|message| message["role"] == "user");
            match turn {
                Some(turn) => {
                    rest.drain(self.fixed..=self.fixed + turn);
                    left_out += turn + 1;
                }
                // The question alone: with a shorter answer, or not at all.
                None if ids.len() < limit => {
                    self.messages = rest;
                    return Ok(Fitted { ids, left_out });
                }
                None => return Err(RunError::PromptTooLong { length: ids.len(), context }),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A token for each letter.
    #[expect(clippy::unnecessary_wraps, reason = "it stands for rendering, which can fail")]
    fn letters(messages: &[Value]) -> Result<Vec<u32>, RunError> {
        let text: String = messages.iter().filter_map(|m| m["content"].as_str()).collect();
        Ok(text.chars().map(u32::from).collect())
    }

    fn text(ids: &[u32]) -> String {
        ids.iter().filter_map(|&id| char::from_u32(id)).collect()
    }

    #[test]
    fn the_oldest_turns_are_left_out_and_the_system_message_stays() {
        let mut history = History::new(Some("S"));
        for (question, answer) in [("aaa", "bbb"), ("ccc", "ddd")] {
            history.push("user", question);
            history.push("assistant", answer);
        }
        history.push("user", "eee");
        assert_eq!(
            history.clone().fit(20, 4, letters).map(|f| text(&f.ids)).as_deref().ok(),
            Some("Saaabbbcccdddeee")
        );
        let fitted = history.fit(16, 4, letters).expect("fits");
        assert_eq!((text(&fitted.ids).as_str(), fitted.left_out), ("Scccdddeee", 2));
        // For good, and one turn at a time.
        history.push("assistant", "fff");
        history.push("user", "ggg");
        let fitted = history.fit(16, 2, letters).expect("fits");
        assert_eq!((text(&fitted.ids).as_str(), fitted.left_out), ("Seeefffggg", 2));
        history.withdraw();
        history.push("user", "h");
        assert_eq!(history.fit(16, 2, letters).map(|f| text(&f.ids)).as_deref().ok(), Some("Seeefffh"));
    }

    #[test]
    fn a_question_may_take_the_room_of_its_answer_but_no_more() {
        let mut history = History::new(None);
        history.push("user", "aaaaaaa");
        assert_eq!(history.fit(8, 100, letters).map(|f| f.ids.len()).ok(), Some(7));
        history.withdraw();
        history.push("user", "aaaaaaaa");
        let error = history.fit(8, 100, letters).expect_err("too long");
        assert!(matches!(error, RunError::PromptTooLong { length: 8, context: 8 }), "{error}");
        // Nothing was left out on the way to the error.
        history.withdraw();
        history.push("user", "b");
        assert_eq!(history.fit(8, 100, letters).map(|f| text(&f.ids)).as_deref().ok(), Some("b"));
    }
}
