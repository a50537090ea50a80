//! Text to tokens and back, conversations to text.

pub mod chat;
mod pieces;
pub mod tokenizer;
mod vocabulary;
