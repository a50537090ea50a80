//! What quantisers are calibrated with: the inputs of linear layers, as the CPU computes them from the residual
//! stream.

use std::collections::{BTreeMap, BTreeSet};

use girih_model::checkpoint::weights::{WeightPolicy, Weights};
use girih_model::network::layers::Mixture;
use girih_model::{Input, Rows, Session, SessionOptions};
use girih_ops::moe::decode_routes;
use girih_tests::{fable, fable_moe, gpu, load};
use pollster::block_on;

const IDS: [u32; 7] = [0, 1062, 690, 262, 506, 15, 413];
const HIDDEN: usize = 256;
const WIDTH: usize = 768;

fn matrix(weights: &Weights, name: &str, n: usize, k: usize) -> Vec<f32> {
    block_on(weights.matrix_f32(format!("{name}.weight").as_str(), n as u32, k as u32)).expect("a matrix")
}

/// `x Wᵀ`: x `[T, k]`, w `[n, k]`.
fn product(x: &[f64], w: &[f32], k: usize) -> Vec<f64> {
    let dot = |x: &[f64], w: &[f32]| x.iter().zip(w).map(|(&x, &w)| x * f64::from(w)).sum();
    x.chunks(k).flat_map(|x| w.chunks(k).map(move |w| dot(x, w))).collect()
}

fn rms_norm(x: &[f64], w: &[f32]) -> Vec<f64> {
    let row = |x: &[f64]| {
        let scale = (x.iter().map(|v| v * v).sum::<f64>() / x.len() as f64 + 1e-5).sqrt().recip();
        x.iter().zip(w).map(|(&x, &w)| x * scale * f64::from(w)).collect::<Vec<_>>()
    };
    x.chunks(w.len()).flat_map(row).collect()
}

fn assert_near(got: &[f64], want: &[f64], what: &str) {
    assert_eq!(got.len(), want.len(), "{what}");
    let size = want.iter().fold(1e-3f64, |a, v| a.max(v.abs()));
    let worst = got.iter().zip(want).fold(0.0f64, |a, (g, w)| a.max((g - w).abs()));
    assert!(worst < 2e-5 * size, "{what}: off by {worst}, largest {size}");
}

#[test]
fn captured_inputs_are_those_of_the_definition() {
    let gpu = gpu();
    let model = load(&gpu, fable(), girih_model::LoadOptions::default());
    let weights = block_on(Weights::open(fable(), WeightPolicy::default())).expect("weights");
    let mut session = Session::new(&model, SessionOptions::default()).expect("a session");
    let input = [Input { slot: 0, token_ids: &IDS }];
    let mut trace = Vec::new();
    let logits = session.forward(&input, Rows::All, Some(&mut trace)).expect("runs");
    let read = |t: &girih_ops::Tensor| -> Vec<f64> {
        block_on(t.to_f32(&gpu)).expect("values").into_iter().map(f64::from).collect()
    };
    let (trace, logits): (Vec<_>, _) = (trace.iter().map(read).collect(), read(&logits));
    for layer in [0, 5] {
        let name = |rest: &str| format!("model.layers.{layer}.{rest}");
        let firsts = ["self_attn.q_proj", "self_attn.o_proj", "mlp.gate_proj", "mlp.down_proj"].map(name);
        session.truncate(0, 0);
        let notes = session.linear_inputs(&input, firsts.iter().cloned().collect()).expect("runs");
        assert_eq!(notes.len(), 4);
        let [q, o, gate, down] = firsts.each_ref().map(|name| read(&notes[name]));
        let norm = |rest: &str| block_on(weights.f32(&name(rest), &[HIDDEN as u32])).expect("a norm");
        let (x, y) = (&trace[layer], &trace[layer + 1]);
        assert_near(&q, &rms_norm(x, &norm("input_layernorm.weight")), "q, k and v");
        // The residual stream between attention and MLP, then its norm.
        let attended = product(&o, &matrix(&weights, &firsts[1], HIDDEN, HIDDEN), HIDDEN);
        let middle: Vec<f64> = x.iter().zip(&attended).map(|(x, a)| x + a).collect();
        assert_near(&gate, &rms_norm(&middle, &norm("post_attention_layernorm.weight")), "gate and up");
        let gated = product(&gate, &matrix(&weights, &firsts[2], WIDTH, HIDDEN), HIDDEN);
        let up = product(&gate, &matrix(&weights, &name("mlp.up_proj"), WIDTH, HIDDEN), HIDDEN);
        let hidden: Vec<f64> = gated.iter().zip(&up).map(|(g, u)| g / (1.0 + (-g).exp()) * u).collect();
        assert_near(&down, &hidden, "down");
        let added = product(&down, &matrix(&weights, &firsts[3], HIDDEN, WIDTH), WIDTH);
        let out: Vec<f64> = middle.iter().zip(&added).map(|(x, a)| x + a).collect();
        assert_near(&out, y, "the layer's result");
    }
    // A session that was watched goes on as if it had not been.
    session.truncate(0, 0);
    let again = session.forward(&input, Rows::All, None).expect("runs");
    assert_eq!(read(&again), logits);
}

/// What experts are given, by few tokens and by many: the normalised x, and the gated products of the experts that routes
/// name.
#[test]
fn inputs_of_experts_are_those_of_the_definition() {
    const WIDTH: usize = 192;
    let gpu = gpu();
    let model = load(&gpu, fable_moe(), girih_model::LoadOptions::default());
    let weights = block_on(Weights::open(fable_moe(), WeightPolicy::default())).expect("weights");
    let many: Vec<u32> = (0..80).map(|i| IDS[i % IDS.len()] + i as u32).collect();
    for ids in [&IDS[..], &many] {
        for (layer, mixture) in model.mixtures().into_iter().step_by(3) {
            let [_, routes] = mixture.notes();
            let (input, down) = (mixture.router_module(), mixture.down_note());
            let names: BTreeSet<String> = [input, routes, down].map(str::to_owned).into();
            let notes = model.linear_inputs(ids, names).expect("runs");
            let read = |name: &str| -> Vec<f64> {
                let values = block_on(notes[name].to_f32(&gpu)).expect("values");
                values.into_iter().map(f64::from).collect()
            };
            let (x, h) = (read(input), read(down));
            let words = block_on(notes[routes].to_u32(&gpu)).expect("routes");
            let slots = decode_routes(&words);
            let k = mixture.router().k as usize;
            assert_eq!((x.len(), h.len()), (ids.len() * HIDDEN, slots.len() * WIDTH));
            // The same x as the products of a dense layer are given: of unit size but for the norm's weights.
            let norm = format!("model.layers.{layer}.post_attention_layernorm.weight");
            let norm = block_on(weights.f32(&norm, &[HIDDEN as u32])).expect("a norm");
            for x in x.chunks(HIDDEN) {
                let size = x.iter().zip(&norm).map(|(x, &w)| (x / f64::from(w)).powi(2)).sum::<f64>();
                assert!((size / HIDDEN as f64 - 1.0).abs() < 0.01, "{size}");
            }
            let mut chosen = BTreeSet::new();
            for (slot, &(expert, _)) in slots.iter().enumerate() {
                chosen.insert(expert);
                let x = &x[slot / k * HIDDEN..][..HIDDEN];
                let name = |rest: &str| format!("model.layers.{layer}.mlp.experts.{expert}.{rest}");
                let gate = product(x, &matrix(&weights, &name("gate_proj"), WIDTH, HIDDEN), HIDDEN);
                let up = product(x, &matrix(&weights, &name("up_proj"), WIDTH, HIDDEN), HIDDEN);
                let want: Vec<f64> = gate.iter().zip(&up).map(|(g, u)| g / (1.0 + (-g).exp()) * u).collect();
                assert_near(&h[slot * WIDTH..][..WIDTH], &want, &format!("slot {slot} of layer {layer}"));
            }
            assert!(chosen.len() > 2, "{chosen:?}");
        }
    }
}

/// Every architecture says of which modules its matrices are made, and all of them can be watched.
#[test]
fn modules_are_those_of_the_checkpoint() {
    let gpu = gpu();
    let folder = girih_tests::goldens::dir().join("models");
    let mut tested = 0;
    for entry in std::fs::read_dir(folder).expect("the goldens") {
        let dir = entry.expect("an entry").path();
        let config = dir.join("config.json");
        if config.is_file() && !girih_tests::goldens::json(&config)["quantization_config"].is_null() {
            continue; // has no dense matrices
        }
        let source = std::sync::Arc::new(girih_model::checkpoint::source::DirSource::new(&dir));
        let Ok(weights) = block_on(Weights::open(source.clone(), WeightPolicy::default())) else { continue };
        let options = girih_model::LoadOptions::default();
        let Ok(model) = block_on(girih_model::Model::load(&gpu, source, options, |_| ())) else { continue };
        let linears = model.linears();
        let modules: BTreeSet<String> = linears.iter().flat_map(|l| l.modules()).cloned().collect();
        assert!(linears.iter().all(|l| !l.modules().is_empty()));
        // Scopes of mixtures of experts, whose routers, experts and gated networks are no linear layers.
        let blocks = model.decoder().map_or(&[][..], |decoder| decoder.blocks.as_slice());
        let mixtures: Vec<(String, &Mixture)> = blocks
            .iter()
            .filter_map(|block| block.feed_forward().mixture())
            .map(|m| (m.notes()[0].trim_end_matches("router_logits").to_owned(), m))
            .collect();
        // All matrices inside of layers, and no other tensor: norms with weights for each head have two dimensions, too.
        let matrix = |name: &str, dims: usize| dims == 2 && !name.ends_with("_norm.weight");
        let layers =
            weights.table().iter().filter(|t| t.name.contains("layer") && matrix(&t.name, t.shape.len()));
        let in_layers: BTreeSet<String> = layers
            .filter_map(|t| t.name.strip_suffix(".weight"))
            .filter(|name| {
                name.contains(".layers.") || name.contains(".layer.") || name.starts_with("layers.")
            })
            // The heads' matrices of latent attention go to both sides of the cache: nothing is their input as a module.
            .filter(|name| !name.ends_with(".kv_b_proj"))
            .filter(|name| modules.contains(*name) || !mixtures.iter().any(|m| name.starts_with(&m.0)))
            .map(str::to_owned)
            .collect();
        assert_eq!(modules, in_layers, "{}", dir.display());
        if model.decoder().is_ok() {
            let mut session = Session::new(&model, SessionOptions::default()).expect("a session");
            let firsts = linears.iter().map(|l| (l.modules()[0].clone(), vec![3, l.matrix().k]));
            // What a mixture is given, logits, routes, and what the down projections are given.
            let routed = mixtures.iter().flat_map(|(_, m)| {
                let ([logits, routes], router) = (m.notes().clone(), m.router());
                let input = (m.router_module().to_owned(), vec![3, model.config().hidden_size]);
                let down = (m.down_note().to_owned(), vec![3 * router.k, m.experts().expect("experts")[1].k]);
                [input, (logits, vec![3, router.experts]), (routes, vec![3, router.k, 2]), down]
            });
            let want: BTreeMap<String, Vec<u32>> = firsts.chain(routed).collect();
            let input = Input { slot: 0, token_ids: &[1, 2, 3] };
            let notes = session.linear_inputs(&[input], want.keys().cloned().collect()).expect("runs");
            let shapes: BTreeMap<String, Vec<u32>> =
                notes.iter().map(|(name, x)| (name.clone(), x.shape().to_vec())).collect();
            assert_eq!(shapes, want, "{}", dir.display());
        }
        tested += 1;
    }
    girih_tests::goldens::counted("models: watched", tested);
}
