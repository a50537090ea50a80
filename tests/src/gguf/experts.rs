//! Experts of checkpoints as `convert_hf_to_gguf.py` writes them: one tensor of each projection, `[E, N, K]`.

use std::collections::BTreeMap;

use girih_model::checkpoint::format::gguf::{Family, GgufType, Value};
use girih_model::checkpoint::weights::Weights;
use serde_json::Value as Json;

use super::{File, Tensor, ggml_name};

/// Keys of whole numbers, and what configurations call them.
const COUNTS: &[(&str, &[&str])] = &[
    ("expert_count", &["num_experts", "num_local_experts", "n_routed_experts", "moe_num_experts"]),
    ("expert_used_count", &["num_experts_per_tok", "moe_k", "moe_topk"]),
    ("expert_feed_forward_length", &["moe_intermediate_size"]),
    ("expert_shared_count", &["n_shared_experts", "moe_num_shared_experts"]),
    ("expert_shared_feed_forward_length", &["shared_expert_intermediate_size"]),
    ("leading_dense_block_count", &["first_k_dense_replace", "moe_layer_start_index"]),
    ("interleave_moe_layer_step", &["moe_layer_interval"]),
    ("expert_group_count", &["n_group"]),
    ("expert_group_used_count", &["topk_group"]),
];

/// Writes what the configuration says of experts.
pub(super) fn metadata(out: &mut File, arch: &str, config: &Json) {
    let mut set = |key: &str, value: Value| out.set(&format!("{arch}.{key}"), value);
    for (key, names) in COUNTS {
        if let Some(n) = names.iter().find_map(|name| config[*name].as_u64()) {
            set(key, Value::Uint(n));
        }
    }
    if let Some(v) = config["routed_scaling_factor"].as_f64() {
        set("expert_weights_scale", Value::Float(v));
    }
    if let Some(v) = config["norm_topk_prob"].as_bool() {
        set("expert_weights_norm", Value::Bool(v));
    }
    match config["scoring_func"].as_str() {
        Some("softmax") => set("expert_gating_func", Value::Uint(1)),
        Some("sigmoid") => set("expert_gating_func", Value::Uint(2)),
        // What its class does; llama.cpp's converter leaves it out then, and llama.cpp takes softmax.
        None if config["model_type"] == "deepseek_v3" => set("expert_gating_func", Value::Uint(2)),
        _ => {}
    }
}

/// Whether a tensor belongs to the experts.
pub(super) fn is_of_experts(name: &str) -> bool {
    [".experts.", ".input_linear.", ".output_linear."].iter().any(|part| name.contains(part))
}

/// Shape and values.
type Values = (Vec<u64>, Vec<f32>);

/// The tensors of all experts.
pub(super) fn tensors(weights: &Weights, family: &Family) -> Vec<Tensor> {
    let mut separate: BTreeMap<String, BTreeMap<usize, Values>> = BTreeMap::new();
    let mut out = Vec::new();
    let mut push = |own: &str, shape: Vec<u64>, values: &[f32]| {
        let name = ggml_name(family, own).unwrap_or_else(|| panic!("ggml has no name for {own}"));
        let bytes = values.iter().flat_map(|v| v.to_le_bytes()).collect();
        out.push(Tensor { name, ty: GgufType::F32, shape, bytes });
    };
    for info in weights.table().iter().filter(|info| is_of_experts(&info.name)) {
        let shape: Vec<u32> = info.shape.iter().map(|&d| d as u32).collect();
        let values = pollster::block_on(weights.f32(&info.name, &shape)).expect("floats");
        if let Some((own, expert)) = without_number(&info.name) {
            separate.entry(own).or_default().insert(expert, (info.shape.clone(), values));
            continue;
        }
        let (scope, part) = info.name.rsplit_once("experts.").unwrap_or((&info.name, ""));
        let own = |name: &str| format!("{scope}experts.{name}");
        match (part, info.shape.as_slice()) {
            // gpt-oss: columns and their biases alternate.
            ("gate_up_proj", &[e, k, n]) => {
                let values = transposed(&values, k as usize, n as usize);
                let [gate, up] = alternate(&values, k as usize);
                push(&own("gate_proj.weight"), vec![e, n / 2, k], &gate);
                push(&own("up_proj.weight"), vec![e, n / 2, k], &up);
            }
            ("gate_up_proj_bias", &[e, n]) => {
                let [gate, up] = alternate(&values, 1);
                push(&own("gate_proj_bias"), vec![e, n / 2], &gate);
                push(&own("up_proj_bias"), vec![e, n / 2], &up);
            }
            ("down_proj", &[e, k, n]) => {
                push(&own("down_proj.weight"), vec![e, n, k], &transposed(&values, k as usize, n as usize));
            }
            ("down_proj_bias", &[e, n]) => push(&own("down_proj_bias"), vec![e, n], &values),
            // Granite: gate rows first.
            (_, &[e, n, k]) => {
                let Some(scope) = info.name.strip_suffix("input_linear.weight") else {
                    let own = info.name.replace("output_linear", "experts.down_proj");
                    push(&own, vec![e, n, k], &values);
                    continue;
                };
                let half = (n / 2 * k) as usize;
                for (at, name) in [(0, "gate_proj"), (half, "up_proj")] {
                    let parts = values.chunks_exact(2 * half).flat_map(|v| &v[at..at + half]);
                    let part: Vec<f32> = parts.copied().collect();
                    push(&format!("{scope}experts.{name}.weight"), vec![e, n / 2, k], &part);
                }
            }
            _ => panic!("{}: {:?}", info.name, info.shape),
        }
    }
    for (own, experts) in separate {
        let [n, k] = experts[&0].0[..] else { panic!("{own} is no matrix") };
        let values: Vec<f32> = experts.values().flat_map(|(_, values)| values).copied().collect();
        push(&own, vec![experts.len() as u64, n, k], &values);
    }
    out
}

/// `experts.3.w1.weight` → `experts.w1.weight`, 3.
fn without_number(name: &str) -> Option<(String, usize)> {
    let (scope, rest) = name.split_once(".experts.")?;
    let (number, part) = rest.split_once('.')?;
    Some((format!("{scope}.experts.{part}"), number.parse().ok()?))
}

/// Matrices `[K, N]` one after the other as `[N, K]`.
fn transposed(values: &[f32], k: usize, n: usize) -> Vec<f32> {
    let one = |m: &[f32]| (0..n * k).map(|i| m[i % k * n + i / k]).collect::<Vec<f32>>();
    values.chunks_exact(k * n).flat_map(one).collect()
}

/// Even and odd rows.
fn alternate(values: &[f32], k: usize) -> [Vec<f32>; 2] {
    [0, 1].map(|which| values.chunks_exact(k).skip(which).step_by(2).flatten().copied().collect())
}
