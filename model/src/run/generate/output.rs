//! What has been generated: tokens, the text that is certain, and where it ends.

use std::ops::ControlFlow;

use super::{Finish, GenerateOptions};
use crate::error::RunError;
use crate::run::session::Canceller;
use crate::text::tokenizer::{DecodeStream, Tokenizer};

/// Tokens so far, their text, and the part of it that was already given out.
pub(super) struct Output<'a> {
    pub options: &'a GenerateOptions,
    /// Tokens that end the text: those asked for, and stop texts that are one special token.
    pub stop_ids: Vec<u32>,
    stream: Option<DecodeStream<'a>>,
    /// The text with special tokens, where a stop text holds some.
    spelt: Option<Spelt<'a>>,
    /// Prompt and new tokens.
    pub history: Vec<u32>,
    prompt_tokens: usize,
    pub text: String,
    emitted: usize,
    canceller: Canceller,
}

/// The text with special tokens spelt out, in which stop texts with special tokens are looked for.
struct Spelt<'a> {
    tokenizer: &'a Tokenizer,
    stream: DecodeStream<'a>,
    stop: Vec<String>,
    text: String,
    /// Up to here no stop text begins.
    searched: usize,
    /// How much of either text there was before each token.
    places: Vec<(usize, usize)>,
}

impl Spelt<'_> {
    /// Where in the text without special tokens a place of this one is.
    fn place(&self, at: usize, len: usize) -> usize {
        let next = self.places.partition_point(|&(spelt, _)| spelt <= at);
        let end = self.places.get(next).map_or(len, |&(_, plain)| plain);
        let (spelt, plain) = self.places[..next].last().copied().unwrap_or_default();
        (plain + (at - spelt)).min(end)
    }

    /// Takes the last of some tokens, behind `len` bytes of text; where a stop text begins.
    fn push(&mut self, tokens: &[u32], len: usize) -> Result<Option<usize>, RunError> {
        let Some(&token) = tokens.last() else { return Ok(None) };
        if self.tokenizer.is_special(token) {
            let rest = self.tokenizer.stream_after(tokens, true)?;
            self.text.push_str(&std::mem::replace(&mut self.stream, rest).finish()?);
            self.places.push((self.text.len(), len));
            self.text.push_str(&self.tokenizer.id_to_token(token).unwrap_or_default());
        } else {
            self.places.push((self.text.len(), len));
            self.text.push_str(&self.stream.push(token)?);
        }
        let found = first_match(&self.text[self.searched..], &self.stop).map(|at| self.searched + at);
        self.searched = found.unwrap_or_else(|| self.text.len() - partial_match(&self.text, &self.stop));
        Ok(found)
    }
}

impl<'a> Output<'a> {
    pub fn new(
        tokenizer: Option<&'a Tokenizer>,
        prompt: &[u32],
        options: &'a GenerateOptions,
        canceller: Canceller,
    ) -> Result<Self, RunError> {
        let mut stop_ids = options.stop_ids.clone();
        let context = if options.continues { prompt } else { &[] };
        let (mut stream, mut spelt) = (None, None);
        if let Some(tokenizer) = tokenizer {
            stream = Some(tokenizer.stream_after(context, true)?);
            stop_ids.extend(options.stop.iter().filter_map(|text| tokenizer.special_id(text)));
            let stop: Vec<String> =
                options.stop.iter().filter(|text| tokenizer.holds_special(text)).cloned().collect();
            if !stop.is_empty() {
                let stream = tokenizer.stream_after(context, true)?;
                let (text, places) = (String::new(), Vec::new());
                spelt = Some(Spelt { tokenizer, stream, stop, text, searched: 0, places });
            }
        }
        let (history, prompt_tokens) = (prompt.to_vec(), prompt.len());
        let text = String::new();
        Ok(Self { options, stop_ids, stream, spelt, history, prompt_tokens, text, emitted: 0, canceller })
    }

    /// Tokens that may still be generated.
    pub fn left(&self) -> usize {
        self.options.max_tokens.saturating_sub(self.history.len() - self.prompt_tokens)
    }

    /// Takes a token; says why generation ends, if it does.
    pub fn push(
        &mut self,
        token: u32,
        on_text: &mut impl FnMut(&str) -> ControlFlow<()>,
    ) -> Result<Option<Finish>, RunError> {
        if self.options.max_tokens == 0 {
            return Ok(Some(Finish::Length));
        }
        if self.canceller.is_cancelled() {
            return Ok(Some(Finish::Cancelled));
        }
        if self.stop_ids.contains(&token) {
            return Ok(Some(Finish::Stop));
        }
        self.history.push(token);
        let before = self.text.len();
        if let Some(stream) = &mut self.stream {
            self.text.push_str(&stream.push(token)?);
        }
        let mut certain = self.text.len() - partial_match(&self.text, &self.options.stop);
        let mut cut = self.stop_text();
        if let Some(spelt) = &mut self.spelt {
            let from = if self.options.continues { 0 } else { self.prompt_tokens };
            let found = spelt.push(&self.history[from..], before)?;
            if found.is_some()
                && let Some(stream) = self.stream.take()
            {
                // What was held back until now stands in front of this token.
                let held = stream.finish()?;
                self.text.push_str(&held);
                if let Some(place) = spelt.places.last_mut() {
                    place.1 += held.len();
                }
            }
            let at = spelt.place(spelt.searched, self.text.len());
            certain = certain.min(at);
            cut = cut.into_iter().chain(found.map(|_| at)).min();
        }
        if let Some(at) = cut {
            self.end_at(at);
            return Ok(Some(Finish::Stop));
        }
        let certain = (self.emitted..=certain).rev().find(|&i| self.text.is_char_boundary(i));
        if let Some(certain) = certain
            && certain > self.emitted
        {
            let flow = on_text(&self.text[self.emitted..certain]);
            self.emitted = certain;
            if flow.is_break() {
                return Ok(Some(Finish::Cancelled));
            }
        }
        Ok((self.left() == 0).then_some(Finish::Length))
    }

    /// Where the first stop text begins. What is out already holds no beginning of one.
    pub fn stop_text(&self) -> Option<usize> {
        first_match(&self.text[self.emitted..], &self.options.stop).map(|at| self.emitted + at)
    }

    /// Ends the text there; what was held back behind it does not count.
    pub fn end_at(&mut self, at: usize) {
        let at = (self.emitted..=at).rev().find(|&i| self.text.is_char_boundary(i));
        self.text.truncate(at.unwrap_or(self.emitted));
        self.stream = None;
    }

    /// Gives out what was held back.
    pub fn finish(
        &mut self,
        mut finish: Finish,
        on_text: &mut impl FnMut(&str) -> ControlFlow<()>,
    ) -> Result<Finish, RunError> {
        if let Some(stream) = self.stream.take() {
            self.text.push_str(&stream.finish()?);
            if let Some(at) = self.stop_text().filter(|_| finish != Finish::Cancelled) {
                self.end_at(at);
                finish = Finish::Stop;
            }
        }
        if self.text.len() > self.emitted && finish != Finish::Cancelled {
            let _ = on_text(&self.text[self.emitted..]);
            self.emitted = self.text.len();
        }
        Ok(finish)
    }
}

/// Where the earliest stop text begins.
fn first_match(text: &str, stop: &[String]) -> Option<usize> {
    stop.iter().filter(|s| !s.is_empty()).filter_map(|s| text.find(s.as_str())).min()
}

/// Length of the longest end of `text` that is the beginning of a stop text.
fn partial_match(text: &str, stop: &[String]) -> usize {
    stop.iter()
        .flat_map(|s| s.char_indices().map(move |(i, _)| &s[..i]))
        .filter(|prefix| text.ends_with(prefix))
        .map(str::len)
        .max()
        .unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Sampling;

    #[test]
    fn stop_texts_are_found_and_their_beginnings_held_back() {
        let stop = ["</s>".to_owned(), "\n\n".to_owned()];
        assert_eq!(first_match("a\n\nb</s>", &stop), Some(1));
        assert_eq!(first_match("ab", &stop), None);
        assert_eq!(partial_match("ab</", &stop), 2);
        assert_eq!(partial_match("ab\n", &stop), 1);
        assert_eq!(partial_match("ab", &stop), 0);
        assert_eq!(partial_match("ab</s>", &[String::new()]), 0);
    }

    /// A SentencePiece tokenizer: a space in front of the first word, which decoding takes away; bytes for the rest.
    fn pieces() -> Tokenizer {
        let text = r#"{"normalizer": {"type": "Sequence", "normalizers": [{"type": "Prepend", "prepend": "▁"},
            {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}]},
            "decoder": {"type": "Sequence", "decoders": [
                {"type": "Replace", "pattern": {"String": "▁"}, "content": " "}, {"type": "ByteFallback"},
                {"type": "Fuse"}, {"type": "Strip", "content": " ", "start": 1, "stop": 0}]},
            "added_tokens": [
                {"id": 0, "content": "<s>", "special": true, "normalized": false},
                {"id": 1, "content": "<end>", "special": true, "normalized": false}],
            "model": {"type": "BPE", "byte_fallback": true, "merges": [], "vocab": {"<s>": 0, "<end>": 1, "▁once": 2,
                "▁the": 3, "<0xC3>": 4, "<0xA9>": 5, "▁": 6, "!": 7, "a": 8}}}"#;
        Tokenizer::from_bytes(text.as_bytes()).expect("a tokenizer")
    }

    /// Tokens that a model writes; what is shown, and why it ends.
    fn told(prompt: &[u32], tokens: &[u32], continues: bool, stop: &[&str]) -> (String, Finish) {
        let options = GenerateOptions {
            max_tokens: tokens.len(),
            sampling: Sampling::default(),
            stop: stop.iter().map(|&s| s.to_owned()).collect(),
            stop_ids: vec![1],
            continues,
            slot: 0,
        };
        let tokenizer = pieces();
        let mut output =
            Output::new(Some(&tokenizer), prompt, &options, Canceller::default()).expect("a context");
        let mut shown = String::new();
        let mut show = |text: &str| {
            shown += text;
            ControlFlow::Continue(())
        };
        let ended = tokens.iter().find_map(|&token| output.push(token, &mut show).expect("decodes"));
        let finish = output.finish(ended.expect("ends"), &mut show).expect("decodes");
        assert_eq!(shown, output.text);
        (shown, finish)
    }

    #[test]
    fn a_continuation_keeps_its_space_and_an_answer_does_not() {
        let word = |prompt: &[u32], continues| told(prompt, &[3, 3], continues, &[]).0;
        assert_eq!(word(&[0, 2], true), " the the");
        assert_eq!(word(&[0, 2], false), "the the");
        assert_eq!(word(&[0], true), "the the", "the text begins here");
        assert_eq!(word(&[2, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0], true), " the the", "tokens without text");
        assert_eq!(word(&[2, 6], true), " the the", "a prompt that ends in a space");
        // The second half of a character that the prompt began.
        assert_eq!(told(&[2, 4], &[5, 7], true, &[]).0, "é!");
        assert_eq!(told(&[0, 2], &[3, 3, 7], true, &[" the!"]), (" the".to_owned(), Finish::Stop));
        assert_eq!(told(&[0, 2], &[3, 7], true, &[" the"]), (String::new(), Finish::Stop));
    }

    #[test]
    fn special_tokens_are_no_text_but_stop() {
        let many = vec![0; 40];
        assert_eq!(told(&[2], &[&[3][..], &many, &[3]].concat(), true, &[]).0, " the the");
        assert_eq!(told(&[2], &[3, 0, 3], true, &["<s>"]), (" the".to_owned(), Finish::Stop));
        assert_eq!(told(&[2], &[3, 7, 0, 3], true, &["!<s>"]), (" the".to_owned(), Finish::Stop));
        assert_eq!(told(&[2], &[3, 0, 3, 7], true, &["<s> the"]), (" the".to_owned(), Finish::Stop));
        assert_eq!(told(&[2], &[3, 0, 7, 3], true, &["<s> the"]), (" the! the".to_owned(), Finish::Length));
        assert_eq!(told(&[2], &[3, 0, 0, 3], true, &["<s><s>", "x"]), (" the".to_owned(), Finish::Stop));
        assert_eq!(told(&[2], &[3, 7, 0, 3], true, &["!<s><s>"]), (" the! the".to_owned(), Finish::Length));
    }

    #[test]
    fn what_is_held_back_is_shown_before_an_end() {
        assert_eq!(told(&[2], &[3, 4, 1], true, &[]), (" the\u{fffd}".to_owned(), Finish::Stop));
        assert_eq!(told(&[2], &[3, 4], true, &[]), (" the\u{fffd}".to_owned(), Finish::Length));
        assert_eq!(told(&[2], &[3, 7, 1], true, &["!!"]), (" the!".to_owned(), Finish::Stop));
        assert_eq!(told(&[2], &[3, 7, 4, 1], true, &["!\u{fffd}"]), (" the".to_owned(), Finish::Stop));
    }
}
