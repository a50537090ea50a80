//! Text to tokens and back.

mod charsmap;
mod check;
mod plain;
mod regex;
mod special;
mod stream;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::panic::{AssertUnwindSafe, catch_unwind};

use serde_json::Value;
use tokenizers::normalizers::Lowercase;
use tokenizers::{
    AddedToken, DecoderWrapper, NormalizedString, Normalizer as _, NormalizerWrapper, PostProcessor as _,
    PostProcessorWrapper, PreTokenizerWrapper, TokenizerImpl, TruncationDirection,
};

pub use stream::DecodeStream;

use crate::checkpoint::format::json;
use crate::checkpoint::source::{ByteSource, read_whole};
use crate::text::vocabulary::Vocabulary;
use crate::{LoadError, TextError};
use special::{Declarations, Declared};

type Inner =
    TokenizerImpl<Vocabulary, NormalizerWrapper, PreTokenizerWrapper, PostProcessorWrapper, DecoderWrapper>;
type Failure = Box<dyn std::error::Error + Send + Sync>;

const FILE: &str = "tokenizer.json";

/// Bytes of `tokenizer.json` at most: twice the largest ones that are published.
const MAX_BYTES: u64 = 64 << 20;
/// Tokens with other ids than a file says that are told; one is enough to see that files do not fit.
const MAX_NOTES: usize = 8;
/// Bytes of the small files beside it.
const MAX_SMALL: u64 = 16 << 20;

/// A tokenizer as the files of a checkpoint describe it.
#[derive(Clone, Debug)]
pub struct Tokenizer {
    inner: Inner,
    /// Special tokens by their name in the configuration.
    named: BTreeMap<String, String>,
    notes: Vec<String>,
}

/// Calls the crate, which is known to panic on some files that nobody publishes: what is known is refused beforehand,
/// what is not ends here where panics unwind.
fn guarded<T>(call: impl FnOnce() -> Result<T, Failure>) -> Result<T, String> {
    match catch_unwind(AssertUnwindSafe(call)) {
        Ok(result) => result.map_err(|e| e.to_string()),
        Err(_) => Err("the tokenizer's parts do not fit each other".to_owned()),
    }
}

fn broken(message: impl Into<String>) -> TextError {
    TextError::Tokenizer { message: message.into() }
}

fn parse(bytes: &[u8]) -> Result<Value, TextError> {
    let bytes = bytes.strip_prefix("\u{feff}".as_bytes()).unwrap_or(bytes);
    serde_json::from_slice(bytes).map_err(|e| broken(e.to_string()))
}

/// An added token that is looked for in normalised text, and of which nothing is left there: the crate would find it
/// everywhere.
fn vanishing(inner: &Inner) -> Result<Option<String>, Failure> {
    let Some(normalizer) = inner.get_normalizer() else { return Ok(None) };
    for token in inner.get_added_tokens_decoder().into_values().filter(|token| token.normalized) {
        let mut text = NormalizedString::from(token.content.as_str());
        normalizer.normalize(&mut text)?;
        if text.get().is_empty() {
            return Ok(Some(token.content));
        }
    }
    Ok(None)
}

impl Tokenizer {
    /// Reads `tokenizer.json` alone. Truncation and padding that it may ask for are left out: they are the caller's
    /// business.
    ///
    /// # Errors
    /// [`TextError::Tokenizer`].
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, TextError> {
        Self::build(parse(bytes)?, &Declarations::default())
    }

    /// Reads what a checkpoint says of its tokenizer: `tokenizer.json`, and the special tokens of
    /// `tokenizer_config.json`, `special_tokens_map.json` and `added_tokens.json`, which become part of it as in
    /// transformers. Without a `tokenizer.json` it is made of `vocab.txt` (BERT), of `vocab.json` and `merges.txt` (GPT-2,
    /// Qwen2), where the class of the configuration is known. `None` if there is no tokenizer.
    ///
    /// # Errors
    /// Files that cannot be read or used.
    pub async fn load(source: &dyn ByteSource) -> Result<Option<Self>, LoadError> {
        let mut found = Vec::new();
        for file in ["tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"] {
            let bytes = read_whole(source, file, MAX_SMALL).await?;
            found.push(bytes.map(|bytes| json::parse(file, &bytes)).transpose()?);
        }
        let declarations = Declarations {
            added: found.pop().flatten(),
            map: found.pop().flatten(),
            config: found.pop().flatten(),
        };
        let value = match read_whole(source, FILE, MAX_BYTES).await? {
            Some(bytes) => parse(&bytes)?,
            None => match plain::load(source, declarations.config.as_ref()).await? {
                Some(value) => value,
                None => return Ok(None),
            },
        };
        Ok(Some(Self::build(value, &declarations)?))
    }

    fn build(mut value: Value, declarations: &Declarations) -> Result<Self, TextError> {
        check::tokenizer(&value).map_err(broken)?;
        let Some(parts) = value.as_object_mut() else { return Err(broken("must be an object")) };
        for part in ["truncation", "padding"] {
            parts.remove(part);
        }
        let own = special::own(parts.insert("added_tokens".to_owned(), Value::Array(Vec::new())))?;
        let declared = Declared::read(declarations, &own)?;
        let make = || {
            let mut inner: Inner = serde_json::from_value(value)?;
            inner.add_tokens(own.iter().map(|(_, token)| token.clone()))?;
            let known = inner.get_added_tokens_decoder();
            let known: HashMap<&str, &AddedToken> = known.values().map(|t| (t.content.as_str(), t)).collect();
            let declared_tokens = declared.tokens.iter().map(|(_, token)| token);
            let more: Vec<AddedToken> =
                declared_tokens.filter(|t| known.get(t.content.as_str()) != Some(t)).cloned().collect();
            inner.add_tokens(more)?;
            inner.set_encode_special_tokens(declared.split);
            match vanishing(&inner)? {
                Some(token) => {
                    Err(format!("the normalizer leaves nothing of the added token {token:?}").into())
                }
                None => Ok(inner),
            }
        };
        let inner = guarded(make).map_err(broken)?;
        let mut tokenizer = Self { inner, named: declared.named, notes: Vec::new() };
        let listed: HashSet<(&str, u32)> =
            own.iter().map(|(id, token)| (token.content.as_str(), *id)).collect();
        let others = declared.tokens.iter().filter_map(|(id, token)| Some((declared.file, (*id)?, token)));
        let others = others.filter(|(_, id, token)| !listed.contains(&(token.content.as_str(), *id)));
        let ids = own.iter().map(|(id, token)| (FILE, *id, token)).chain(others);
        let differ = |(file, id, token): (&str, u32, &AddedToken)| {
            let got = tokenizer.token_to_id(&token.content).filter(|got| *got != id)?;
            Some(format!("{file} says that token {:?} has id {id}; it has {got}", token.content))
        };
        tokenizer.notes = ids.filter_map(differ).take(MAX_NOTES).collect();
        Ok(tokenizer)
    }

    /// What the files say and what does not count.
    pub fn notes(&self) -> &[String] {
        &self.notes
    }

    /// The text of a special token by its name in the configuration: `eos_token`.
    pub fn named(&self, name: &str) -> Option<&str> {
        self.named.get(name).map(String::as_str)
    }

    /// Tokens of a text. `add_special` adds what the post-processor adds: beginning of text, `[CLS]`. Special tokens
    /// spelt out in the text become special tokens.
    ///
    /// # Errors
    /// [`TextError::Encode`].
    pub fn encode(&self, text: &str, add_special: bool) -> Result<Vec<u32>, TextError> {
        let encoding = guarded(|| self.inner.encode_fast(text, add_special));
        encoding.map(|e| e.get_ids().to_vec()).map_err(|message| TextError::Encode { message })
    }

    /// As [`Tokenizer::encode`] with special tokens and at most `most` tokens: what does not fit is left out of the text's
    /// end, or of its beginning if `from_start`.
    ///
    /// # Errors
    /// [`TextError::Encode`].
    pub fn encode_within(&self, text: &str, most: usize, from_start: bool) -> Result<Vec<u32>, TextError> {
        let within = || {
            let mut encoding = self.inner.encode_fast(text, false)?;
            let processor = self.inner.get_post_processor();
            let added = processor.map_or(0, |p| p.added_tokens(false));
            if encoding.len() + added > most {
                let direction =
                    if from_start { TruncationDirection::Left } else { TruncationDirection::Right };
                encoding.truncate(most.saturating_sub(added), 0, direction);
            }
            if let Some(processor) = processor {
                encoding = processor.process(encoding, None, true)?;
            }
            Ok(encoding.get_ids().to_vec())
        };
        guarded(within).map_err(|message| TextError::Encode { message })
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
        set.map(|_| ()).map_err(|e| broken(e.to_string()))
    }

    /// Tokens and segments of a pair of texts, with special tokens.
    ///
    /// # Errors
    /// [`TextError::Encode`].
    pub fn encode_pair(&self, a: &str, b: &str) -> Result<(Vec<u32>, Vec<u32>), TextError> {
        // The fast path leaves the segments out.
        let encoding = guarded(|| self.inner.encode_char_offsets((a, b), true));
        encoding
            .map(|e| (e.get_ids().to_vec(), e.get_type_ids().to_vec()))
            .map_err(|message| TextError::Encode { message })
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
        let encoding = guarded(|| self.inner.encode_char_offsets(text, add_special))
            .map_err(|message| TextError::Encode { message })?;
        let places = encoding.get_offsets().iter().map(|&(a, b)| a..b);
        let tokens = encoding.get_ids().iter().copied().zip(encoding.get_tokens().iter().cloned());
        Ok(tokens.zip(places).map(|((id, token), place)| (id, token, place)).collect())
    }

    /// Text of tokens; each maximal invalid part of UTF-8 becomes U+FFFD. Ids that the tokenizer does not know have no
    /// text.
    ///
    /// # Errors
    /// [`TextError::Decode`].
    pub fn decode(&self, ids: &[u32], skip_special: bool) -> Result<String, TextError> {
        if ids.iter().all(|&id| self.is_textless(id, skip_special)) {
            return Ok(String::new());
        }
        guarded(|| self.inner.decode(ids, skip_special)).map_err(|message| TextError::Decode { message })
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
        self.id_to_token(id).is_some_and(|token| self.inner.get_added_vocabulary().is_special_token(&token))
    }

    /// Id of the special token that is spelt so.
    pub fn special_id(&self, text: &str) -> Option<u32> {
        self.token_to_id(text).filter(|&id| self.is_special(id))
    }

    /// Whether a text holds the spelling of a special token.
    pub(crate) fn holds_special(&self, text: &str) -> bool {
        let added = self.inner.get_added_vocabulary();
        added.get_vocab().keys().any(|token| added.is_special_token(token) && text.contains(token.as_str()))
    }

    /// The longest added token that a text begins with.
    pub(crate) fn added_prefix(&self, text: &str) -> Option<u32> {
        let added = self.inner.get_added_vocabulary().get_vocab().iter();
        let fits = added.filter(|(token, _)| text.starts_with(token.as_str()));
        fits.max_by_key(|(token, _)| token.len()).map(|(_, id)| *id)
    }

    /// Whether decoding has nothing to show for a token.
    fn is_textless(&self, id: u32, skip_special: bool) -> bool {
        self.id_to_token(id).is_none() || (skip_special && self.is_special(id))
    }

    /// Tokens that a model of `vocab_size` tokens does not have, by id. They are no error before one of them occurs in a
    /// prompt.
    pub fn beyond(&self, vocab_size: u32) -> Vec<(u32, String)> {
        let all = self.inner.get_vocab(true).into_iter();
        let mut found: Vec<(u32, String)> =
            all.filter(|(_, id)| *id >= vocab_size).map(|(token, id)| (id, token)).collect();
        found.sort_unstable();
        found
    }

    /// Starts turning tokens into text one by one.
    pub fn stream(&self, skip_special: bool) -> DecodeStream<'_> {
        DecodeStream::new(self, skip_special)
    }

    /// As [`Tokenizer::stream`], for tokens that go on after others whose text is known: the first word keeps the space
    /// in front of it, and a character that those began is completed.
    ///
    /// # Errors
    /// [`TextError::Decode`].
    pub fn stream_after(&self, tokens: &[u32], skip_special: bool) -> Result<DecodeStream<'_>, TextError> {
        DecodeStream::after(self, tokens, skip_special)
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
        assert_eq!(
            t.decode(&[0, 77, u32::MAX, 0], false).expect("decodes"),
            "aa",
            "unknown ids have no text"
        );
        assert_eq!(t.beyond(5), []);
        assert_eq!(t.beyond(3), [(3, "ĺ".to_owned()), (4, "Ģ".to_owned())]);
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
