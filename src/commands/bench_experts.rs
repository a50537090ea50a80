//! What `girih bench model` says of a mixture of experts: how tokens are spread, what a step has to read and what it
//! moves, and which path products take.

use std::collections::BTreeMap;
use std::io::Write;
use std::sync::Arc;

use girih_kernels::explain::{Explained, explain};
use girih_kernels::matmul::ExpertShape;
use girih_model::checkpoint::synthetic::{ExpertChoice, Preset, SyntheticSource};
use girih_model::{Model, Session, Tail};
use girih_ops::{ExpertPath, Frame, Matrix, expert_path};
use serde_json::{Value, json};

use crate::error::Failure;

/// Numbers of tokens whose path is printed.
const TOKENS: [u32; 10] = [1, 2, 4, 8, 16, 32, 64, 128, 256, 512];
/// Products with the matrices of experts.
pub const PRODUCTS: [&str; 4] = ["routed_gemv", "routed_gemv_int", "grouped_gemm", "grouped_gemm_int"];

/// A synthetic checkpoint, whose tokens go to experts as `choice` says, with the first `layers`.
pub fn synthetic(
    name: &str,
    choice: Option<ExpertChoice>,
    layers: Option<u32>,
) -> Result<SyntheticSource, Failure> {
    let preset = Preset::named(name)?;
    if choice.is_some() && preset.experts[0] == 0 {
        return Err(Failure::Argument(format!("--routing: {name} has no experts to choose among")));
    }
    let layers = layers.unwrap_or(preset.num_layers);
    if layers == 0 || layers > preset.num_layers {
        return Err(Failure::Argument(format!(
            "--layers is {layers}; {name} has 1 to {}",
            preset.num_layers
        )));
    }
    Ok(SyntheticSource::of(Preset { num_layers: layers, ..preset }, choice.unwrap_or_default()))
}

/// Bytes that a decode step moves by what is recorded of it, each dispatch at most, and those of the products of experts.
fn moved(frame: &Frame, model: &Model) -> [u64; 2] {
    let explained = frame.recording().dispatches().map(|d| explain(model.gpu().caps(), d, 1));
    explained.fold([0; 2], |[all, experts], e: Explained| {
        [all + e.cost.bytes, experts + if PRODUCTS.contains(&e.kernel) { e.cost.bytes } else { 0 }]
    })
}

/// What the report has under `experts`; null for models without, and where experts are in a cache.
pub async fn report(
    model: &Arc<Model>,
    session: &Session,
    ids: &[u32],
    routing: Option<&str>,
) -> Result<Value, Failure> {
    let mixtures = model.mixtures();
    let Some((_, first)) = mixtures.first().filter(|_| model.experts().is_none()) else {
        return Ok(Value::Null);
    };
    let [count, chosen] = [first.router().experts, first.router().k];
    let (mut all, mut active) = (0f64, 0f64);
    for (_, mixture) in &mixtures {
        let bytes: u64 = mixture.experts().into_iter().flatten().map(Matrix::bytes).sum();
        let router = mixture.router();
        all += bytes as f64;
        active += bytes as f64 * f64::from(router.k) / f64::from(router.experts);
    }
    let decoder = model.decoder()?;
    // Of a table of embeddings one row is read, unless it is the head.
    let tied = decoder.head.as_ref().is_some_and(|head| head.linear.modules().is_empty());
    let table = if tied { 0 } else { decoder.embedding.bytes() };
    let step = model.weight_bytes() as f64 - all + active - table as f64;
    let [moved_step, moved_experts] = moved(&session.record_step(Tail::Greedy)?, model);

    let spread = spread(model, ids).await?;
    let Some([gate_up, _]) = first.experts() else { return Ok(Value::Null) };
    let path = |tokens| {
        let (n, k) = (gate_up.expert_rows(), gate_up.k);
        let shape = ExpertShape { tokens, slots: chosen, experts: count, n, k };
        match expert_path(model.gpu().caps(), shape) {
            ExpertPath::Routed => "routed",
            ExpertPath::Grouped => "grouped",
        }
    };
    let grouped_from = (1..=1 << 16).find(|&tokens| path(tokens) == "grouped");
    Ok(json!({
        "layers": mixtures.len(), "experts": count, "per_token": chosen, "routing": routing,
        "spread": spread,
        "expert_bytes": all, "active_expert_bytes_per_token": active, "active_bytes_per_token": step,
        "moved_expert_bytes_per_token": moved_experts, "moved_bytes_per_token": moved_step,
        "moved_share_of_active_experts": moved_experts as f64 / active.max(1.0),
        "moved_share_of_active": moved_step as f64 / step.max(1.0),
        "paths": TOKENS.map(|tokens| json!({ "tokens": tokens, "path": path(tokens) })),
        "grouped_from_tokens": grouped_from,
    }))
}

/// How the tokens of a prompt are spread over the experts, as the routers chose: the mean over layers.
async fn spread(model: &Arc<Model>, ids: &[u32]) -> Result<Value, Failure> {
    if ids.is_empty() {
        return Ok(Value::Null);
    }
    let routing = model.routing(ids).await?;
    let (mut distinct, mut busiest) = (0f64, 0f64);
    for layer in &routing.layers {
        let mut counts: BTreeMap<u32, u64> = BTreeMap::new();
        for &(expert, _) in layer.tokens.iter().flatten() {
            *counts.entry(expert).or_default() += 1;
        }
        let slots: u64 = counts.values().sum();
        let most = counts.values().max().copied().unwrap_or(0);
        distinct += counts.len() as f64;
        busiest += most as f64 * f64::from(layer.experts) / slots.max(1) as f64;
    }
    let layers = routing.layers.len().max(1) as f64;
    Ok(
        json!({ "tokens": ids.len(), "chosen_experts": distinct / layers, "busiest_over_mean": busiest / layers }),
    )
}

/// The report as text.
pub fn print(out: &mut impl Write, report: &Value) -> std::io::Result<()> {
    if report.is_null() {
        return Ok(());
    }
    let number = |key: &str| report[key].as_f64().unwrap_or(0.0);
    let mb = |key: &str| number(key) / 1e6;
    let spread = &report["spread"];
    writeln!(
        out,
        "\nexperts: {} of {} for each token, in {} layers{}",
        report["per_token"],
        report["experts"],
        report["layers"],
        report["routing"].as_str().map_or(String::new(), |routing| format!(", {routing}"))
    )?;
    if spread.is_object() {
        writeln!(
            out,
            "a prompt of {} tokens chooses {:.1} of them at all, the busiest {:.2} times as often as the mean",
            spread["tokens"],
            spread["chosen_experts"].as_f64().unwrap_or(0.0),
            spread["busiest_over_mean"].as_f64().unwrap_or(0.0)
        )?;
    }
    writeln!(
        out,
        "active bytes of a token: {:.2} MB, of these {:.2} MB of the {:.2} MB of experts",
        mb("active_bytes_per_token"),
        mb("active_expert_bytes_per_token"),
        mb("expert_bytes")
    )?;
    writeln!(
        out,
        "a decode step moves at most {:.2} MB, {:.3} times its active bytes; products of experts {:.2} MB, {:.3} times",
        mb("moved_bytes_per_token"),
        number("moved_share_of_active"),
        mb("moved_expert_bytes_per_token"),
        number("moved_share_of_active_experts")
    )?;
    let paths = report["paths"].as_array().into_iter().flatten();
    let paths: Vec<String> =
        paths.map(|p| format!("{} {}", p["tokens"], p["path"].as_str().unwrap_or_default())).collect();
    let from = report["grouped_from_tokens"].as_u64();
    let from = from.map_or(String::new(), |tokens| format!(" (grouped from {tokens} on)"));
    writeln!(out, "path by tokens: {}{from}", paths.join(", "))
}
