//! What is wrong with a text, a tokenizer or a template.

/// A text cannot be made into tokens, or tokens into text.
#[derive(Clone, Debug, thiserror::Error)]
pub enum TextError {
    /// `tokenizer.json` cannot be used.
    #[error("tokenizer.json: {message}")]
    Tokenizer {
        /// What the tokenizer said.
        message: String,
    },
    /// A text cannot be encoded.
    #[error("cannot encode: {message}")]
    Encode {
        /// What the tokenizer said.
        message: String,
    },
    /// Tokens cannot be decoded.
    #[error("cannot decode: {message}")]
    Decode {
        /// What the tokenizer said.
        message: String,
    },
    /// A tokenizer configuration of another form.
    #[error("{file}: {field} is {got}, must be {want}")]
    Config {
        /// File.
        file: &'static str,
        /// Field.
        field: String,
        /// Value found.
        got: String,
        /// Values allowed.
        want: &'static str,
    },
    /// The model has no chat template of that name.
    #[error("no chat template {got:?}; there are: {}", .known.join(", "))]
    NoTemplate {
        /// Name asked for.
        got: String,
        /// Names there are.
        known: Vec<String>,
    },
    /// The template called `raise_exception`: it rejects this conversation.
    #[error("the chat template rejects the conversation: {message}")]
    Rejected {
        /// What the template said.
        message: String,
    },
    /// The template is broken or does something that is not supported.
    #[error("chat template: {message}")]
    Template {
        /// Where and why.
        message: String,
    },
    /// The template asks for more than any template needs.
    #[error("chat template: {got} {what}, at most {limit} are allowed")]
    TemplateLimit {
        /// What there is too much of.
        what: &'static str,
        /// Asked for.
        got: u64,
        /// Allowed.
        limit: u64,
    },
}
