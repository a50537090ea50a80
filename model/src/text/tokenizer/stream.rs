//! Tokens to text one by one.

use super::Tokenizer;
use crate::TextError;

/// Held tokens after which a stream no longer waits for a character to be completed.
const MAX_HELD: usize = 24;
/// Tokens of a prompt that are context at first; twice as many each time while they have no text.
const CONTEXT: usize = 8;
const REPLACEMENT: char = '\u{fffd}';

/// Text of a growing sequence of tokens, in pieces that are whole characters.
///
/// The pieces joined are the text of all tokens, as far as later tokens do not change the text of earlier ones
/// (WordPiece contractions, bytes after a character that turn a run of byte tokens invalid). Text that ends in an
/// incomplete character is held back until the character is complete or [`DecodeStream::finish`] is called.
#[derive(Clone, Debug)]
pub struct DecodeStream<'a> {
    tokenizer: &'a Tokenizer,
    skip_special: bool,
    /// Tokens that are still needed: some whose text is out, as context, and those held back.
    ids: Vec<u32>,
    /// How many of them are context.
    context: usize,
    /// Text of the tokens above that is out already.
    printed: String,
}

impl<'a> DecodeStream<'a> {
    pub(super) fn new(tokenizer: &'a Tokenizer, skip_special: bool) -> Self {
        Self { tokenizer, skip_special, ids: Vec::new(), context: 0, printed: String::new() }
    }

    pub(super) fn after(
        tokenizer: &'a Tokenizer,
        tokens: &[u32],
        skip_special: bool,
    ) -> Result<Self, TextError> {
        let mut stream = Self::new(tokenizer, skip_special);
        let mut count = CONTEXT.min(tokens.len());
        while count > 0 {
            let context = &tokens[tokens.len() - count..];
            let text = tokenizer.decode(context, skip_special)?;
            // Decoders strip a space where a text begins, so the context must have text of its own.
            if !text.trim_end_matches(REPLACEMENT).is_empty() || count == tokens.len() {
                stream.ids = context.to_vec();
                stream.context = count;
                stream.printed = text;
                break;
            }
            count = (2 * count).min(tokens.len());
        }
        Ok(stream)
    }

    /// Adds a token; the text that has become certain, which may be empty.
    ///
    /// # Errors
    /// [`TextError::Decode`].
    pub fn push(&mut self, id: u32) -> Result<String, TextError> {
        if self.tokenizer.is_textless(id, self.skip_special) {
            return Ok(String::new());
        }
        self.ids.push(id);
        let mut text = self.tokenizer.decode(&self.ids, self.skip_special)?;
        let whole = text.trim_end_matches(REPLACEMENT).len();
        if whole < text.len() {
            // Only the last character can still change in a byte-level vocabulary.
            if self.ids.len() - self.context < MAX_HELD {
                return Ok(String::new());
            }
            if self.ids.len() - self.context < 4 * MAX_HELD {
                text.pop();
                let new = self.unprinted(&text);
                self.printed = text;
                return Ok(new);
            }
        }
        let new = self.unprinted(&text);
        if new.is_empty() && self.ids.len() < MAX_HELD {
            // A token without text (a space that decoders strip at the start) is no context.
            return Ok(new);
        }
        // Decoders treat the first token and neighbours specially (leading space, contractions), so the last piece
        // stays as context of the next.
        self.ids.drain(..self.context);
        self.context = self.ids.len();
        self.printed = self.tokenizer.decode(&self.ids, self.skip_special)?;
        Ok(new)
    }

    /// The text that is held back. Incomplete characters become U+FFFD.
    ///
    /// # Errors
    /// [`TextError::Decode`].
    pub fn finish(self) -> Result<String, TextError> {
        let text = self.tokenizer.decode(&self.ids, self.skip_special)?;
        Ok(self.unprinted(&text))
    }

    /// What follows the printed text. If that has changed in hindsight, what follows as many characters: what a
    /// reader has seen cannot be taken back. A character that was incomplete counts as new.
    fn unprinted(&self, text: &str) -> String {
        let whole = self.printed.trim_end_matches(REPLACEMENT);
        match (text.strip_prefix(self.printed.as_str()), text.strip_prefix(whole)) {
            (Some(new), _) | (None, Some(new)) => new.to_owned(),
            _ => text.chars().skip(self.printed.chars().count()).collect(),
        }
    }
}
