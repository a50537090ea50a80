//! How texts are split before BPE: what the name in `tokenizer.ggml.pre` stands for.
//!
//! Patterns are those of the models' own `tokenizer.json`, where llama.cpp rewrites them for its engine. What files do not
//! say, and llama.cpp decides by name, stands here too.

/// Splits of a text before BPE.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rule {
    /// Values of `tokenizer.ggml.pre`.
    pub names: &'static [&'static str],
    /// Patterns, one after the other; behind them GPT-2's own if `gpt2`.
    pub patterns: &'static [&'static str],
    /// GPT-2's pattern, which the byte-level step brings along.
    pub gpt2: bool,
    /// Whether the text is put into the composed form NFC.
    pub nfc: bool,
    /// Whether a piece that is a token as a whole becomes it, whatever the merges say.
    pub ignore_merges: bool,
    /// Whether texts begin with the begin-of-text token where metadata are silent.
    pub bos: bool,
}

const PLAIN: Rule =
    Rule { names: &[], patterns: &[], gpt2: false, nfc: false, ignore_merges: false, bos: false };

/// GPT-2's rule behind others.
const GPT2: Rule = Rule { gpt2: true, ..PLAIN };

const GPT2_PATTERN: &str = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+";

const LLAMA3: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";

const QWEN2: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";

const O200K: &str = r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+";

const CJK: &str = "[\u{4e00}-\u{9fa5}\u{3040}-\u{309f}\u{30a0}-\u{30ff}]+";

const DEEPSEEK3: &str = r##"[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"##;

const BLOOM: &str = r" ?[^(\s|.,!?…。，、।۔،)]+";

pub(super) const RULES: &[Rule] = &[
    // llama.cpp's rule for files that name none.
    Rule {
        names: &["default"],
        patterns: &[r"[\p{P}\$\+<=>\^~\|]+", GPT2_PATTERN, r"\p{N}+", "[0-9][0-9][0-9]"],
        ..PLAIN
    },
    Rule {
        names: &[
            "llama-bpe",
            "llama3",
            "llama-v3",
            "falcon3",
            "falcon-h1",
            "pixtral",
            "midm-2.0",
            "lfm2",
            "jina-v5-nano",
        ],
        patterns: &[LLAMA3],
        ignore_merges: true,
        bos: true,
        ..PLAIN
    },
    Rule { names: &["dbrx", "glm4", "chatglm-bpe", "smaug-bpe"], patterns: &[LLAMA3], ..PLAIN },
    Rule {
        names: &["minicpm5"],
        patterns: &[
            r"\p{N}{1,3}",
            r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}+| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
        ],
        ignore_merges: true,
        ..PLAIN
    },
    Rule {
        names: &["qwen2", "stablelm2", "deepseek-r1-qwen", "megrez"],
        patterns: &[QWEN2],
        nfc: true,
        ..PLAIN
    },
    Rule { names: &["kormo", "f2llmv2", "hunyuan", "solar-open", "grok-2"], patterns: &[QWEN2], ..PLAIN },
    Rule {
        names: &["qwen35"],
        patterns: &[
            r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
        ],
        nfc: true,
        ..PLAIN
    },
    Rule {
        names: &["ufakzeka"],
        patterns: &[r"[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"],
        ..PLAIN
    },
    Rule { names: &["laguna"], patterns: &[r"[^\n]+|[\n]+", QWEN2], ..PLAIN },
    Rule {
        names: &["exaone-moe"],
        patterns: &[
            r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?(?:\p{L}\p{M}*(?: \p{L}\p{M}*)*)+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]?|\s*[\r\n]|\s+(?!\S)|\s+",
        ],
        ..PLAIN
    },
    Rule {
        names: &["bailingmoe", "bailingmoe2", "llada-moe"],
        patterns: &[
            r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]|\s+(?!\S)|\s+",
        ],
        ..PLAIN
    },
    Rule {
        names: &["seed-coder"],
        patterns: &[
            r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1}| ?[^\s\p{L}\p{N}\r\n]+|\s*[\r\n]+|\s+(?!\S)|\s+",
        ],
        ..PLAIN
    },
    Rule {
        names: &[
            "gpt-2",
            "gpt2",
            "phi-2",
            "mpt",
            "olmo",
            "jais",
            "trillion",
            "granite-docling",
            "roberta-bpe",
            "modern-bert",
            "exaone4",
            "gigachat",
            "a.x-4.0",
            "mellum",
            "jina-es",
            "jina-de",
            "jina-v1-en",
            "jina-v2-es",
            "jina-v2-de",
            "jina-v2-code",
        ],
        ..GPT2
    },
    Rule {
        names: &["smollm", "starcoder", "refact", "codeshell", "exaone", "minerva-7b", "mellum2"],
        patterns: &[r"\p{N}"],
        ..GPT2
    },
    Rule { names: &["command-r"], patterns: &[r"\p{N}"], nfc: true, ..GPT2 },
    Rule {
        names: &["falcon"],
        patterns: &[r"[\p{P}\$\+<=>\^~\|`]+", GPT2_PATTERN, "[0-9][0-9][0-9]"],
        ..PLAIN
    },
    Rule {
        names: &["chameleon"],
        patterns: &[
            "<sentinel:[0-9]+>",
            "(IMGIMG)((A|B|C|D|E|F|G|H|I){1,4})Z",
            "([\\t\\n]|    |  )",
            r"\p{N}",
            r"[\p{P}!-/:-@\[-`{-~]",
        ],
        bos: true,
        ..GPT2
    },
    Rule { names: &["poro-chat", "bloom", "gpt3-finnish"], patterns: &[BLOOM], ..PLAIN },
    Rule { names: &["viking"], patterns: &[BLOOM, r"\p{N}"], ..PLAIN },
    Rule { names: &["superbpe"], patterns: &[r"\p{N}+", r"(?=(\d{3})+(?!\d))"], ..PLAIN },
    Rule { names: &["gpt-4o", "llama4", "kanana2", "talkie", "minimax-m2"], patterns: &[O200K], ..PLAIN },
    Rule { names: &["granite-embed-multi-97m"], patterns: &[O200K], ignore_merges: true, ..PLAIN },
    Rule { names: &["tiny_aya", "cohere2moe"], patterns: &[r"\d{1,3}(?=(?:\d{3})*\b)", O200K], ..PLAIN },
    Rule {
        names: &["tekken"],
        patterns: &[
            r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+",
        ],
        ignore_merges: true,
        bos: true,
        ..PLAIN
    },
    Rule {
        names: &["youtu"],
        patterns: &[
            "[\u{ac00}-\u{d7a3}\u{3131}-\u{318e}]+|[\u{ff01}\u{2026}\u{201c}\u{201d}\u{2018}\u{2019}\u{2014}\u{ff1a}\u{ff1b}\u{ff0c}\u{3001}-\u{303f}\u{fe30}-\u{fe4f}]+|[\u{3105}-\u{312f}]+|[\u{4e00}-\u{9fa5}\u{3040}-\u{309f}\u{30a0}-\u{30ff}]+",
            r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+",
        ],
        ignore_merges: true,
        ..PLAIN
    },
    Rule {
        names: &["deepseek-v3", "hunyuan-dense", "joyai-llm", "hy_v4"],
        patterns: &[r"\p{N}{1,3}", CJK, DEEPSEEK3],
        ..PLAIN
    },
    Rule {
        names: &["spark2_5"],
        patterns: &[
            r"\p{N}{1,3}",
            CJK,
            r##"[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+|[\r\n]|\s+(?!\S)|\s+"##,
            r"\p{N}",
        ],
        ..PLAIN
    },
    Rule {
        names: &["deepseek-coder"],
        patterns: &[
            r"[\r\n]",
            r"\s?\p{L}+",
            r"\s?\p{P}+",
            "[\u{4e00}-\u{9fa5}\u{800}-\u{4e00}\u{ac00}-\u{d7ff}]+",
            r"\p{N}",
        ],
        ..PLAIN
    },
];

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use serde_json::json;

    use super::*;
    use crate::Tokenizer;

    fn rule(name: &str) -> &'static Rule {
        RULES.iter().find(|r| r.names.contains(&name)).expect(name)
    }

    /// The words that a rule makes of a text, of which every one is a token.
    fn words<'a>(name: &str, words: &[&'a str]) -> Vec<&'a str> {
        let rule = rule(name);
        let mut splits: Vec<_> = rule
            .patterns
            .iter()
            .map(|p| json!({"type": "Split", "pattern": {"Regex": p}, "behavior": "Isolated", "invert": false}))
            .collect();
        splits.push(json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true,
            "use_regex": rule.gpt2}));
        let text = json!({"version": "1.0", "added_tokens": [], "decoder": null, "post_processor": null,
            "normalizer": null, "pre_tokenizer": {"type": "Sequence", "pretokenizers": splits},
            "model": {"type": "WordLevel", "unk_token": "?", "vocab": {"?": 0}}});
        let t = Tokenizer::from_bytes(text.to_string().as_bytes()).expect(name);
        let whole = words.concat();
        let found = t.encode_with_offsets(&whole, false).expect("encodes");
        let starts: Vec<usize> = found.iter().map(|(_, _, place)| place.start).collect();
        let mut at = 0;
        let all = words.iter().map(|word| {
            at += word.chars().count();
            (at - word.chars().count(), *word)
        });
        let kept = all.filter(|(start, _)| starts.contains(start)).map(|(_, word)| word).collect::<Vec<_>>();
        assert_eq!(found.len(), kept.len(), "{name}: {found:?}");
        kept
    }

    #[test]
    fn every_pattern_is_understood_and_every_name_stands_once() {
        let mut names = BTreeSet::new();
        for rule in RULES {
            for name in rule.names {
                assert!(names.insert(name), "{name}");
            }
            words(rule.names[0], &[]);
        }
    }

    /// llama.cpp gives both one pattern, and only one of them the rest of Llama 3's rules.
    #[test]
    fn rules_that_share_a_pattern_only() {
        let (llama, smaug) = (rule("llama-bpe"), rule("smaug-bpe"));
        assert_eq!(llama.patterns, smaug.patterns);
        assert_eq!((llama.ignore_merges, llama.bos), (true, true));
        assert_eq!((smaug.ignore_merges, smaug.bos), (false, false));
        let bos: Vec<&str> = RULES.iter().filter(|r| r.bos).map(|r| r.names[0]).collect();
        assert_eq!(bos, ["llama-bpe", "chameleon", "tekken"]);
    }

    #[test]
    fn words_of_rules() {
        for (name, text) in [
            ("llama-bpe", &["Don", "'t", " say", " ", "123", "4", "!\n", " x"][..]),
            ("qwen2", &["1", "2", " x", "\n\n"]),
            ("starcoder", &["a", "1", "2", " b", "  ", " c"]),
            ("falcon", &["Hi", "!?", "123", "4"]),
            ("superbpe", &["a b ", "1", "234", "567"]),
            ("tiny_aya", &["1", "234", "567", " Ab", "Cd"]),
            ("deepseek-v3", &["123", "4", "你好", "ab", " ."]),
            ("deepseek-coder", &["\n", "\n", " ab", " (", "1", "2"]),
            ("poro-chat", &["a", " b", ",", " c"]),
            ("viking", &["a", " b", "1", "2"]),
            ("bailingmoe", &["it", "'S", "\n\n"]),
            ("seed-coder", &["a", " !", "\n"]),
            ("exaone-moe", &["one two", "1"]),
            ("laguna", &["a", "\n\n", " b"]),
            ("minicpm5", &["123", "4", "a"]),
            ("ufakzeka", &["Ankara", "'da"]),
            ("chameleon", &["<", "a", ">", "1"]),
        ] {
            assert_eq!(words(name, text), text, "{name}");
        }
    }
}
