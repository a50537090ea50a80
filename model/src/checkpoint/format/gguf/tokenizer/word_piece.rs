//! `bert`: WordPiece.

use serde_json::{Value, json};

use super::super::Gguf;
use super::PREFIX;
use super::special::{CONTROL, UNKNOWN, USER_DEFINED, Vocabulary};
use crate::LoadError;

/// A piece without the mark of its place in a word.
fn bare(token: &str) -> &str {
    token.strip_prefix('▁').or_else(|| token.strip_prefix("##")).unwrap_or(token)
}

/// Whether the vocabulary was made of texts in lower case: then no capital letter is a piece. Every vocabulary of mixed
/// case has single capital letters, and those of lower case have capitals only inside special tokens (`[CLS]`).
fn is_uncased(tokens: &[String]) -> bool {
    !tokens.iter().any(|token| {
        let mut chars = bare(token).chars();
        chars.next().is_some_and(char::is_uppercase) && chars.next().is_none()
    })
}

impl Gguf {
    /// Files mark the beginnings of words; WordPiece marks what continues them.
    pub(super) fn word_piece(&self, v: &Vocabulary<'_>) -> Result<Value, LoadError> {
        let marked = v.tokens.iter().any(|t| t.starts_with('▁'));
        let spelling = |id: usize, token: &str| match token.strip_prefix('▁') {
            _ if matches!(v.kinds[id], UNKNOWN | CONTROL | USER_DEFINED) => token.to_owned(),
            Some(word) => word.to_owned(),
            None if !marked || (token.starts_with('[') && token.ends_with(']')) => token.to_owned(),
            None => format!("##{token}"),
        };
        let unknown = self.special("unknown", v.tokens)?.and_then(|id| v.tokens.get(id as usize));
        let model = json!({"type": "WordPiece", "unk_token": unknown.map_or("[UNK]", String::as_str),
            "continuing_subword_prefix": "##", "max_input_chars_per_word": 100});
        let model = v.model(model, spelling, |_| true);
        let lowercase = self.flag(&format!("{PREFIX}normalizer.lowercase"))?;
        let lowercase = lowercase.unwrap_or_else(|| is_uncased(v.tokens));
        let strip_accents = self.flag(&format!("{PREFIX}normalizer.strip_accents"))?;
        Ok(json!({
            "normalizer": {"type": "BertNormalizer", "clean_text": true, "handle_chinese_chars": true,
                "strip_accents": strip_accents, "lowercase": lowercase},
            "pre_tokenizer": {"type": "BertPreTokenizer"},
            "decoder": {"type": "WordPiece", "prefix": "##", "cleanup": true}, "model": model}))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn vocabularies_of_mixed_case() {
        let uncased =
            |tokens: &[&str]| is_uncased(&tokens.iter().map(|t| (*t).to_owned()).collect::<Vec<_>>());
        assert!(uncased(&["[CLS]", "[URL]", "▁a", "b", "▁Σοφ"]));
        assert!(!uncased(&["[CLS]", "▁a", "▁B"]));
        assert!(!uncased(&["[CLS]", "a", "##Ж"]));
    }
}
