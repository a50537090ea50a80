//! What a pass dispatches on recorded devices, list by list: a change of a selection or of a fusion shows as a
//! difference of `goldens/dispatches`. Nothing is run, so the lists are the same on every machine.
//! `cargo xtask bless` rewrites them.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use girih_kernels::{Caps, Gpu, Tier};
use girih_model::checkpoint::source::ByteSource;
use girih_model::{Input, LoadOptions, Model, Rows, Session, SessionOptions, Tail, WeightPolicy};
use girih_ops::Format;
use girih_tests::devices::recorded;
use girih_tests::{fable, files, goldens, load};

/// Names of recorded devices, and the tiers that they are held down to; `None` is their best.
const DEVICES: [(&str, Option<Tier>); 7] = [
    ("WebGPU default limits", None),
    ("Apple M1", None),
    ("NVIDIA GeForce RTX 4070", None),
    ("AMD Radeon RX 580", None),
    ("Qualcomm Adreno 740", None),
    ("llvmpipe (256 bits)", Some(Tier::Subgroup)),
    ("llvmpipe (256 bits)", None),
];

/// Tokens of the prefills: rows by which kernels differ.
const PREFILLS: [usize; 2] = [4, 64];

fn device(name: &str, tier: Option<Tier>) -> Caps {
    let caps = recorded().into_iter().find(|caps| caps.adapter.name == name).expect("a recorded device");
    let tier = tier.unwrap_or(caps.tier);
    caps.at_tier(tier)
}

fn open(gpu: &Gpu, source: Arc<dyn ByteSource>, force: Option<Format>) -> (Arc<Model>, Session) {
    let weights = WeightPolicy { force: force.map(Into::into), ..WeightPolicy::default() };
    let model = load(gpu, source, LoadOptions { weights, ..LoadOptions::default() });
    let session = Session::new(&model, SessionOptions::default()).expect("a session");
    (model, session)
}

fn step(session: &Session) -> Vec<String> {
    session.record_step(Tail::Greedy).expect("records").recording().labels()
}

/// The lists of a device: name of the pass and labels of its dispatches.
fn passes(gpu: &Gpu) -> Vec<(String, Vec<String>)> {
    let (model, mut session) = open(gpu, fable(), None);
    let layers = model.config().num_hidden_layers as usize;
    let mut all = vec![("fable-5m, decode step".to_owned(), step(&session))];
    for len in PREFILLS {
        session.truncate(0, 0);
        let input = Input { slot: 0, token_ids: &vec![1; len] };
        let (frame, _) = session.record(&[input], Rows::Last, None).expect("records");
        all.push((format!("fable-5m, prefill of {len}"), frame.recording().labels()));
    }
    let (_, session) = open(gpu, fable(), Some(Format::Q4_0));
    all.push((format!("fable-5m in {}, decode step", Format::Q4_0), step(&session)));
    for (name, labels) in all.iter().filter(|(name, _)| name.ends_with("decode step")) {
        assert!(labels.len() <= 7 * layers + 5, "{name}: {} dispatches", labels.len());
    }
    // Norms behind products; biases behind products with norms before them, all vectors bound as one.
    for name in ["gemma2", "qwen2"] {
        let source = files::source(&goldens::dir().join("models").join(name));
        all.push((format!("{name}, decode step"), step(&open(gpu, source, None).1)));
    }
    all
}

#[test]
fn passes_on_recorded_devices_dispatch_the_golden_lists() {
    let gpu = girih_tests::gpu();
    let here = gpu.caps().buffer_bytes;
    let mut lists = BTreeMap::new();
    for (name, tier) in DEVICES {
        let caps = device(name, tier);
        let words = name.to_ascii_lowercase().replace(|c: char| !c.is_ascii_alphanumeric(), " ");
        let file = format!("{}-{}.txt", words.split_whitespace().collect::<Vec<_>>().join("-"), caps.tier);
        let device = gpu.with_caps(Caps { buffer_bytes: caps.buffer_bytes.min(here), ..caps });
        let mut text = String::new();
        for (pass, labels) in passes(&device) {
            writeln!(text, "# {pass}\n{}\n", labels.join("\n")).expect("a text");
        }
        assert!(lists.insert(file, text).is_none(), "{name} twice");
    }
    // Ours, whatever other goldens are compared.
    let dir: PathBuf = Path::new(env!("CARGO_MANIFEST_DIR")).join("goldens/dispatches");
    if std::env::var_os("GIRIH_BLESS").is_some() {
        let _ = std::fs::remove_dir_all(&dir);
        std::fs::create_dir_all(&dir).expect("a folder");
        for (file, text) in &lists {
            std::fs::write(dir.join(file), text).expect("written");
        }
    }
    assert_eq!(files::below(&dir), lists.keys().cloned().collect::<Vec<_>>(), "run `cargo xtask bless`");
    let read = |file: &String| std::fs::read_to_string(dir.join(file)).expect("a golden");
    let other: Vec<&String> =
        lists.iter().filter(|&(file, text)| read(file) != **text).map(|(file, _)| file).collect();
    assert!(other.is_empty(), "other dispatches in {other:?}: `cargo xtask bless` and look at `git diff`");
}
