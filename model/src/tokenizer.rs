//! Text to tokens and back.

use tokenizers::normalizers::Lowercase;
use tokenizers::{
    DecoderWrapper, NormalizerWrapper, PostProcessor as _, PostProcessorWrapper, PreTokenizerWrapper,
    TokenizerImpl, TruncationDirection,
};

use crate::TextError;
use crate::vocabulary::Vocabulary;

type Inner =
    TokenizerImpl<Vocabulary, NormalizerWrapper, PreTokenizerWrapper, PostProcessorWrapper, DecoderWrapper>;

/// Held tokens after which a stream no longer waits for a character to be completed.
const MAX_HELD: usize = 24;
const REPLACEMENT: char = '\u{fffd}';

/// A tokenizer as `tokenizer.json` describes it.
#[derive(Clone, Debug)]
pub struct Tokenizer {
    inner: Inner,
}

impl Tokenizer {
    /// Reads `tokenizer.json`. Truncation and padding that it may ask for are left out: they are the caller's
    /// business.
    ///
    /// # Errors
    /// [`TextError::Tokenizer`].
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, TextError> {
        let error =
            |e: Box<dyn std::error::Error + Send + Sync>| TextError::Tokenizer { message: e.to_string() };
        let mut inner = Inner::from_bytes(bytes).map_err(error)?;
        inner.with_padding(None);
        inner.with_truncation(None).map_err(error)?;
        Ok(Self { inner })
    }

    /// Tokens of a text. `add_special` adds what the post-processor adds: beginning of text, `[CLS]`. Special tokens
    /// spelt out in the text become special tokens.
    ///
    /// # Errors
    /// [`TextError::Encode`].
    pub fn encode(&self, text: &str, add_special: bool) -> Result<Vec<u32>, TextError> {
        let encoding = self.inner.encode_fast(text, add_special);
        encoding.map(|e| e.get_ids().to_vec()).map_err(|e| TextError::Encode { message: e.to_string() })
    }

    /// As [`Tokenizer::encode`] with special tokens and at most `most` tokens: what does not fit is left out of the text's
    /// end, or of its beginning if `from_start`.
    ///
    /// # Errors
    /// [`TextError::Encode`].
    pub fn encode_within(&self, text: &str, most: usize, from_start: bool) -> Result<Vec<u32>, TextError> {
        let error =
            |e: Box<dyn std::error::Error + Send + Sync>| TextError::Encode { message: e.to_string() };
        let mut encoding = self.inner.encode_fast(text, false).map_err(error)?;
        let processor = self.inner.get_post_processor();
        let added = processor.map_or(0, |p| p.added_tokens(false));
        if encoding.len() + added > most {
            let direction = if from_start { TruncationDirection::Left } else { TruncationDirection::Right };
            encoding.truncate(most.saturating_sub(added), 0, direction);
        }
        if let Some(processor) = processor {
            encoding = processor.process(encoding, None, true).map_err(error)?;
        }
        Ok(encoding.get_ids().to_vec())
    }

    /// Puts texts into lower case before anything else, unless the tokenizer does it anyway. Special tokens spelt out in
    /// a text stay what they are.
    ///
    /// # Errors
    /// [`TextError::Tokenizer`].
    pub fn lower_case(&mut self) -> Result<(), TextError> {
        let mut steps = match self.inner.get_normalizer().cloned() {
            Some(NormalizerWrapper::Sequence(steps)) => steps.as_ref().to_vec(),
            Some(one) => vec![one],
            None => Vec::new(),
        };
        let lowers = |step: &NormalizerWrapper| match step {
            NormalizerWrapper::Lowercase(_) => true,
            NormalizerWrapper::BertNormalizer(bert) => bert.lowercase,
            _ => false,
        };
        if steps.iter().any(lowers) {
            return Ok(());
        }
        steps.insert(0, Lowercase.into());
        let sequence = tokenizers::normalizers::Sequence::new(steps);
        let set = self.inner.with_normalizer(Some(sequence));
        set.map(|_| ()).map_err(|e| TextError::Tokenizer { message: e.to_string() })
    }

    /// Tokens and segments of a pair of texts, with special tokens.
    ///
    /// # Errors
    /// [`TextError::Encode`].
    pub fn encode_pair(&self, a: &str, b: &str) -> Result<(Vec<u32>, Vec<u32>), TextError> {
        // The fast path leaves the segments out.
        let encoding = self.inner.encode_char_offsets((a, b), true);
        encoding
            .map(|e| (e.get_ids().to_vec(), e.get_type_ids().to_vec()))
            .map_err(|e| TextError::Encode { message: e.to_string() })
    }

    /// Tokens of a text with their spelling and their place in it, in Unicode scalar values.
    ///
    /// # Errors
    /// [`TextError::Encode`].
    pub fn encode_with_offsets(
        &self,
        text: &str,
        add_special: bool,
    ) -> Result<Vec<(u32, String, std::ops::Range<usize>)>, TextError> {
        let encoding = self
            .inner
            .encode_char_offsets(text, add_special)
            .map_err(|e| TextError::Encode { message: e.to_string() })?;
        let places = encoding.get_offsets().iter().map(|&(a, b)| a..b);
        let tokens = encoding.get_ids().iter().copied().zip(encoding.get_tokens().iter().cloned());
        Ok(tokens.zip(places).map(|((id, token), place)| (id, token, place)).collect())
    }

    /// Text of tokens; each maximal invalid part of UTF-8 becomes U+FFFD.
    ///
    /// # Errors
    /// [`TextError::Decode`].
    pub fn decode(&self, ids: &[u32], skip_special: bool) -> Result<String, TextError> {
        self.inner.decode(ids, skip_special).map_err(|e| TextError::Decode { message: e.to_string() })
    }

    /// Number of tokens, added ones included.
    pub fn vocab_size(&self) -> u32 {
        self.inner.get_vocab_size(true) as u32
    }

    /// Id of a token.
    pub fn token_to_id(&self, token: &str) -> Option<u32> {
        self.inner.token_to_id(token)
    }

    /// Spelling of a token.
    pub fn id_to_token(&self, id: u32) -> Option<String> {
        self.inner.id_to_token(id)
    }

    /// Whether decoding leaves a token out when special tokens are skipped.
    pub fn is_special(&self, id: u32) -> bool {
        self.inner.get_added_tokens_decoder().get(&id).is_some_and(|token| token.special)
    }

    /// Checks that the model has an embedding for every token.
    ///
    /// # Errors
    /// [`TextError::Vocabulary`] naming the highest token.
    pub fn check_vocab(&self, vocab_size: u32) -> Result<(), TextError> {
        let highest = self.inner.get_vocab(true).into_iter().max_by_key(|(_, id)| *id);
        match highest {
            Some((token, got)) if got >= vocab_size => Err(TextError::Vocabulary { token, got, vocab_size }),
            _ => Ok(()),
        }
    }

    /// Starts turning tokens into text one by one.
    pub fn stream(&self, skip_special: bool) -> DecodeStream<'_> {
        DecodeStream { tokenizer: self, skip_special, ids: Vec::new(), context: 0, printed: String::new() }
    }
}

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

impl DecodeStream<'_> {
    /// Adds a token; the text that has become certain, which may be empty.
    ///
    /// # Errors
    /// [`TextError::Decode`].
    pub fn push(&mut self, id: u32) -> Result<String, TextError> {
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
            // A token without text (special, or a space that decoders strip at the start) is no context.
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
    /// reader has seen cannot be taken back.
    fn unprinted(&self, text: &str) -> String {
        match text.strip_prefix(self.printed.as_str()) {
            Some(new) => new.to_owned(),
            None => text.chars().skip(self.printed.chars().count()).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TINY: &str = r#"{"version":"1.0","truncation":null,"padding":null,"added_tokens":[],"normalizer":null,
        "pre_tokenizer":null,"post_processor":null,"decoder":{"type":"ByteLevel",
        "add_prefix_space":false,"trim_offsets":false,"use_regex":false},
        "model":{"type":"BPE","vocab":{"a":0,"ð":1,"Ł":2,"ĺ":3,"Ģ":4},"merges":[]}}"#;

    #[test]
    fn what_is_no_tokenizer() {
        for bad in [&b""[..], b"{}", b"[]", b"\xff\xff", br#"{"model":{"type":"BPE"}}"#] {
            assert!(matches!(Tokenizer::from_bytes(bad), Err(TextError::Tokenizer { .. })));
        }
    }

    #[test]
    fn vocabulary_check() {
        let t = Tokenizer::from_bytes(TINY.as_bytes()).expect("valid");
        t.check_vocab(5).expect("fits");
        let error = t.check_vocab(4).expect_err("id 4");
        assert!(matches!(error, TextError::Vocabulary { got: 4, vocab_size: 4, .. }), "{error}");
    }

    #[test]
    fn characters_are_never_split() {
        let t = Tokenizer::from_bytes(TINY.as_bytes()).expect("valid");
        let mut s = t.stream(false);
        let pieces: Vec<String> = [0, 1, 2, 3, 4, 0].iter().map(|&id| s.push(id).expect("decodes")).collect();
        let whole = t.decode(&[1, 2, 3, 4], false).expect("decodes");
        assert_eq!(whole.chars().count(), 1);
        assert_eq!(pieces, ["a", "", "", "", &whole, "a"]);
        assert_eq!(s.finish().expect("decodes"), "");
        let mut s = t.stream(false);
        assert_eq!(s.push(1).expect("decodes") + &s.finish().expect("decodes"), "\u{fffd}");
    }

    /// Bytes that never become a character do not hold the text back for ever, and nothing is lost.
    #[test]
    fn endless_broken_bytes() {
        let t = Tokenizer::from_bytes(TINY.as_bytes()).expect("valid");
        let mut s = t.stream(false);
        let mut text = String::new();
        for _ in 0..200 {
            text += &s.push(2).expect("decodes");
        }
        assert!(!text.is_empty());
        text += &s.finish().expect("decodes");
        assert_eq!(text, t.decode(&[2; 200], false).expect("decodes"));
    }
}
