//! `girih embed`: texts to vectors.

use std::io::Write;

use clap::Args;
use girih_model::Prompt;
use serde_json::json;

use crate::error::Failure;
use crate::models::ModelArgs;
use crate::{Global, device};

/// Arguments.
#[derive(Debug, Args)]
pub struct Embed {
    #[command(flatten)]
    model: ModelArgs,
    /// Put this prompt of the model in front of each text (query, passage, ...); its default one if left out
    #[arg(long, value_name = "NAME", conflicts_with = "prompt")]
    prompt_name: Option<String>,
    /// Put this text in front of each text; an empty one for none
    #[arg(long, value_name = "TEXT")]
    prompt: Option<String>,
    /// Texts
    #[arg(required = true, value_name = "TEXT")]
    texts: Vec<String>,
}

impl Embed {
    /// Runs the command.
    pub async fn run(self, global: &Global) -> Result<(), Failure> {
        let gpu = device::open(global).await?;
        let model = self.model.load(&gpu, None, global).await?;
        let prompt = match (&self.prompt_name, &self.prompt) {
            (Some(name), _) => Prompt::Named(name),
            (None, Some(text)) => Prompt::Text(text),
            (None, None) => Prompt::Default,
        };
        let ids =
            self.texts.iter().map(|t| model.embedding_ids_with(t, prompt)).collect::<Result<Vec<_>, _>>()?;
        let left_out =
            self.texts.iter().map(|t| model.left_out_of(t, prompt)).collect::<Result<Vec<_>, _>>()?;
        for ((left_out, ids), number) in left_out.iter().zip(&ids).zip(1..).filter(|((n, _), _)| **n > 0) {
            global.note(&format_args!(
                "text {number} is longer than the model takes ({}): {left_out} of its {} tokens are left out",
                model.embedding_limit(),
                ids.len() + left_out
            ));
        }
        let vectors = model.embed_with(&ids, prompt).await?;
        let mut out = std::io::stdout().lock();
        if global.json {
            let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(x, y)| f64::from(x * y)).sum::<f64>();
            let similarity: Vec<Vec<f64>> =
                vectors.iter().map(|a| vectors.iter().map(|b| dot(a, b)).collect()).collect();
            let report = json!({ "embeddings": vectors, "token_ids": ids,
                "left_out_tokens": left_out, "similarity": similarity });
            writeln!(out, "{report}")?;
        } else {
            for vector in &vectors {
                let values: Vec<String> = vector.iter().map(ToString::to_string).collect();
                writeln!(out, "{}", values.join(" "))?;
            }
        }
        Ok(())
    }
}
