//! Options of choosing tokens, shared by the commands that write.

use clap::Args;
use girih_model::{GenerateOptions, Model, Sampling};

/// How tokens are chosen. What is left out comes from the checkpoint's generation_config.json.
#[derive(Clone, Debug, Args)]
pub struct SamplingArgs {
    /// 0 takes the best token each time; higher is more varied
    #[arg(long, value_name = "T")]
    temperature: Option<f32>,
    /// Choose among the K best tokens only (0: all)
    #[arg(long, value_name = "K")]
    top_k: Option<u32>,
    /// Choose among the best tokens that together have probability P
    #[arg(long, value_name = "P")]
    top_p: Option<f32>,
    /// Choose among tokens with at least P times the best token's probability
    #[arg(long, value_name = "P")]
    min_p: Option<f32>,
    /// Divide the logits of tokens that occurred by this
    #[arg(long, value_name = "X")]
    repetition_penalty: Option<f32>,
    /// Subtract this from the logits of tokens that occurred
    #[arg(long, value_name = "X")]
    presence_penalty: Option<f32>,
    /// Subtract this from the logits of tokens, once for each time they occurred
    #[arg(long, value_name = "X")]
    frequency_penalty: Option<f32>,
    /// Add BIAS to the logit of the token ID (may be given several times)
    #[arg(long, value_name = "ID=BIAS", value_parser = parse_bias, allow_hyphen_values = true)]
    logit_bias: Vec<(u32, f32)>,
    /// Same seed, same text
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Stop before this text (may be given several times)
    #[arg(long, value_name = "TEXT")]
    stop: Vec<String>,
}

impl SamplingArgs {
    /// Options of continuing a text.
    pub fn options(&self, model: &Model, max_tokens: usize) -> GenerateOptions {
        let default = GenerateOptions::of(model);
        GenerateOptions {
            max_tokens,
            sampling: self.over(&default.sampling),
            stop: self.stop.iter().chain(&default.stop).cloned().collect(),
            ..default
        }
    }

    /// Options of an answer in a conversation.
    pub fn answer_options(&self, model: &Model, max_tokens: usize) -> GenerateOptions {
        GenerateOptions {
            sampling: self.over(&model.generation().chat_sampling()),
            continues: false,
            ..self.options(model, max_tokens)
        }
    }

    /// What was asked for, over the defaults.
    fn over(&self, default: &Sampling) -> Sampling {
        Sampling {
            temperature: self.temperature.unwrap_or(default.temperature),
            top_k: self.top_k.unwrap_or(default.top_k),
            top_p: self.top_p.unwrap_or(default.top_p),
            min_p: self.min_p.unwrap_or(default.min_p),
            repetition_penalty: self.repetition_penalty.unwrap_or(default.repetition_penalty),
            presence_penalty: self.presence_penalty.unwrap_or(default.presence_penalty),
            frequency_penalty: self.frequency_penalty.unwrap_or(default.frequency_penalty),
            logit_bias: [&default.logit_bias[..], &self.logit_bias].concat(),
            seed: self.seed,
            ..default.clone()
        }
    }
}

fn parse_bias(text: &str) -> Result<(u32, f32), String> {
    let found = text.split_once('=').and_then(|(id, bias)| Some((id.parse().ok()?, bias.parse().ok()?)));
    found.ok_or_else(|| "wanted a token id and a number, like 1062=-5".to_owned())
}
