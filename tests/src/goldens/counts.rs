//! How many goldens there are. A folder that lost some, or a test that passes them over, must fail.

use crate::on_device::variable;

/// Name of what is counted, and its number: `ops/<op>` are the cases of an operator, `<op>: <what>` those that a test
/// takes, others are folders or what a test compares of them.
const COUNTS: &[(&str, usize)] = &[
    ("configs/classes", 60),
    ("embeddings/cases", 22),
    ("gguf", 27),
    ("gguf: prompts", 73),
    ("gguf_moe", 18),
    ("gguf_moe: prompts", 54),
    ("gguf_moe: stories", 3),
    ("models", 34),
    ("models: causal", 31),
    ("models: causal in two styles", 31),
    ("models: converted to GGUF", 27),
    ("models: embedding", 2),
    ("models: in two styles", 33),
    ("models: mixtures of experts", 12),
    ("models: texts", 6),
    ("models: watched", 30),
    ("ops/attention", 38),
    ("ops/attention: covered", 36),
    ("ops/awq", 3),
    ("ops/fake_quant", 4),
    ("ops/fake_quant: products", 8),
    ("ops/float_formats", 7),
    ("ops/fp8_block", 3),
    ("ops/gguf", 15),
    ("ops/gguf_file", 1),
    ("ops/glu", 16),
    ("ops/gptq", 6),
    ("ops/hadamard", 20),
    ("ops/kronecker", 6),
    ("ops/layernorm", 5),
    ("ops/linear_attention_decay", 2),
    ("ops/matmul", 19),
    ("ops/matmul: covered", 18),
    ("ops/moe_block", 2),
    ("ops/mxfp4", 3),
    ("ops/nvfp4", 2),
    ("ops/rmsnorm", 15),
    ("ops/rmsnorm: covered", 14),
    ("ops/rope", 20),
    ("ops/routing", 16),
    ("ops/sampling", 7),
    ("ops/sampling: greedy", 1),
    ("ops/sampling_rules", 35),
    ("ops/softmax", 11),
    ("tokenizers", 11),
    ("tokenizers/jinja_cases", 31),
    ("tokenizers/jinja_table", 1451),
    ("tokenizers/special_tokens", 19),
    ("tokenizers: conversations", 108),
    ("tokenizers: decode_random_ids", 132),
    ("tokenizers: encode", 800),
    ("tokenizers: pairs", 33),
    ("tokenizers: stream", 33),
    ("trained/fable-5m: greedy", 5),
];

/// Compares a number of goldens with the one that is expected of the committed copy; of another folder
/// (`GIRIH_GOLDENS`) at least one must be there.
///
/// # Panics
/// Another number, or a name that this list does not have.
pub fn counted(what: &str, found: usize) {
    let want = COUNTS.iter().find(|(name, _)| *name == what).map(|&(_, count)| count);
    let want = want.unwrap_or_else(|| panic!("{what}: tests/src/goldens/counts.rs does not say how many"));
    if variable("GIRIH_GOLDENS").is_some() {
        assert!(found > 0, "{what}: none in {}", super::dir().display());
    } else {
        assert_eq!(found, want, "{what}: goldens, as counted in tests/src/goldens/counts.rs");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_sorted_and_counts_are_not_zero() {
        assert!(COUNTS.is_sorted_by(|a, b| a.0 < b.0));
        assert!(COUNTS.iter().all(|(_, count)| *count > 0));
    }

    #[test]
    fn a_lost_golden_fails() {
        if variable("GIRIH_GOLDENS").is_none() {
            assert!(std::panic::catch_unwind(|| counted("models", 20)).is_err());
        }
        assert!(std::panic::catch_unwind(|| counted("models", 0)).is_err());
        assert!(std::panic::catch_unwind(|| counted("models of clay", 1)).is_err());
    }
}
