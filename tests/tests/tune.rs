//! Variants chosen by measuring: what is kept and used, what cannot win, and that every way of a model's passes is right.

use girih_kernels::fused::Norm;
use girih_kernels::matmul::gemv::{self, Args};
use girih_kernels::matmul::{Act, Epilogue, Part, Shape, WeightFormat};
use girih_kernels::spec::{Tuning, Ways};
use girih_kernels::tune;
use girih_kernels::winners::Winners;
use girih_kernels::{Caps, Gpu, Kernel, Launch, Recorder};
use girih_tests::on_device;

/// A product of one row, recorded.
fn product(gpu: &Gpu) -> Recorder {
    let gpu = gpu.recording_only();
    let [x, w, y] =
        [4 * 256, 2 * 512 * 256, 4 * 512].map(|bytes| gpu.alloc(bytes).expect("it takes no memory"));
    let part = Part { buffer: &w, scales: None, format: WeightFormat::F16, row0: 0, rows: 512 };
    let epilogue = Epilogue { bias: None, alpha: 1.0, act: Act::Identity, residual: None };
    let mut recorder = Recorder::new(&gpu);
    let args = Args { x: &x, parts: &[part], norm: Norm::None, epilogue, y: &y };
    gemv::record(&mut recorder, args, Shape { m: 1, n: 512, k: 256 }).expect("recorded");
    recorder
}

const KEY: &str = "gemv/f16/1x512x256";
const CHEAT: &str = "one workgroup";

/// As if a variant left out most of the work, and were the fastest therefore.
fn with_a_cheat(caps: &Caps, launch: &Launch) -> Option<Ways> {
    let mut ways = gemv::KERNEL.tuning.and_then(|tuning| (tuning.ways)(caps, launch))?;
    let mut cheat = ways.ways[0].clone();
    cheat.name = CHEAT.into();
    cheat.steps[0].launch.grid = [1; 3];
    ways.ways.push(cheat);
    Some(ways)
}

static CHEATING: Kernel = Kernel {
    tuning: Some(Tuning {
        ways: with_a_cheat,
        workload: match gemv::KERNEL.tuning {
            Some(tuning) => tuning.workload,
            None => panic!("gemv is measured"),
        },
    }),
    ..gemv::KERNEL
};

#[on_device]
async fn what_computes_something_else_cannot_win(gpu: Gpu) {
    let recorder = product(&gpu);
    let shapes = tune::shapes_among(&[&CHEATING], gpu.caps(), recorder.dispatches());
    assert_eq!(shapes.iter().map(|shape| shape.key.as_str()).collect::<Vec<_>>(), [KEY]);
    let mut told = Vec::new();
    let report = tune::run(&gpu, &shapes, 60.0, |row| {
        told.push(row.winner.clone());
        true
    });
    let report = report.await.expect("measured");
    let row = &report.rows[0];
    println!("{row:?}, {:.1} s", report.seconds);
    assert_eq!((told.len(), told[0] == row.winner), (1, true));
    // All others agree with the twin.
    assert_eq!(
        row.wrong.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>(),
        [CHEAT],
        "{:?}",
        row.wrong
    );
    assert!(row.winner != CHEAT && row.timed >= 1 && row.before == row.rule);
    assert!(row.winner_seconds <= row.rule_seconds && row.winner_seconds > 0.0);
    let mut winners = Winners::default();
    winners.set(KEY, Some("what was best before"));
    report.apply(&mut winners);
    assert_eq!(winners.get(KEY), (row.winner != row.rule).then_some(row.winner.as_str()));
    // No time, no shape; and nothing that was known is forgotten.
    let none = tune::run(&gpu, &shapes, 0.0, |_| true).await.expect("nothing to do");
    assert_eq!((none.rows.len(), none.left), (0, vec![KEY.to_owned()]));
}

/// What uses files and whole models.
#[cfg(test)]
mod native {
    use std::path::PathBuf;
    use std::sync::Arc;

    use girih_kernels::Tier;
    use girih_kernels::tune::Kept;
    use girih_model::checkpoint::source::ByteSource;
    use girih_model::{Input, LoadOptions, Model, Rows, Session, SessionOptions, tunable};
    use girih_tests::{fable, files, goldens, gpu, load};

    use super::*;

    fn folder(name: &str) -> PathBuf {
        let dir = std::env::temp_dir().join(format!("girih-tune-{name}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&dir);
        dir
    }

    #[test]
    fn winners_are_kept_and_used_and_damaged_ones_are_not() {
        let gpu = gpu();
        let dir = folder("kept");
        let recorder = product(&gpu);
        let launch = recorder.dispatches().next().expect("a dispatch").launch();
        let tuning = gemv::KERNEL.tuning.expect("gemv is measured");
        let ways = (tuning.ways)(gpu.caps(), &launch).expect("ways");
        let other = &ways.ways.last().expect("more than one way");
        assert_ne!(other.name, ways.ways[0].name);
        let mut kept = Kept::open(&gpu, Some(&dir));
        assert!(kept.winners.is_empty());
        kept.save().expect("nothing to save");
        kept.winners.set(KEY, Some(&other.name));
        kept.save().expect("saved");
        let files: Vec<_> =
            std::fs::read_dir(&dir).expect("a folder").flatten().map(|entry| entry.path()).collect();
        assert_eq!(files.len(), 1, "{files:?}");
        let chosen = |gpu: &Gpu| product(gpu).dispatches().next().expect("a dispatch").launch();
        let tuned = Kept::open(&gpu, Some(&dir)).apply(&gpu);
        let got = chosen(&tuned);
        assert_eq!(
            (got.choice, got.grid),
            (other.steps[0].launch.choice.clone(), other.steps[0].launch.grid)
        );
        assert_eq!(chosen(&gpu).choice, launch.choice, "the handle without winners");
        // What has failed its self-test since is passed over.
        let variant = other.steps[0].launch.choice.variant;
        if variant != launch.choice.variant {
            let mut caps = tuned.caps().clone();
            caps.blocked.insert(format!("gemv/{variant}"));
            assert_eq!(chosen(&gpu.with_caps(caps)).choice, launch.choice);
        }
        // A file of another tier has another name.
        let whole = std::fs::read(&files[0]).expect("a file");
        for cut in 0..whole.len() {
            std::fs::write(&files[0], &whole[..cut]).expect("written");
            assert!(Kept::open(&gpu, Some(&dir)).winners.is_empty(), "{cut}");
        }
        let mut damaged = whole.clone();
        damaged[whole.len() - 2] ^= 1;
        std::fs::write(&files[0], &damaged).expect("written");
        assert!(Kept::open(&gpu, Some(&dir)).winners.is_empty());
        std::fs::write(&files[0], &whole).expect("written");
        let mut kept = Kept::open(&gpu, Some(&dir));
        assert_eq!(kept.winners.len(), 1);
        kept.winners = Winners::default();
        kept.save().expect("removed");
        assert!(!files[0].exists());
        std::fs::remove_dir_all(&dir).expect("removed");
    }

    /// Logits of a prompt and of the decode step behind it.
    fn logits(gpu: &Gpu, source: Arc<dyn ByteSource>) -> Vec<f32> {
        let model = load(gpu, source, LoadOptions::default());
        let mut session = Session::new(&model, SessionOptions::default()).expect("a session");
        let ids: Vec<u32> = (1..38).collect();
        let mut all = Vec::new();
        for token_ids in [&ids[..], &[7]] {
            let y = session.forward(&[Input { slot: 0, token_ids }], Rows::Last, None).expect("a pass");
            all.extend(pollster::block_on(y.to_f32(gpu)).expect("logits"));
        }
        all
    }

    /// Whatever `girih tune` may choose for a model gives the model's numbers.
    #[test]
    fn every_way_of_a_models_passes_is_right() {
        every_way(&gpu(), &fable(), (&["/1x", "/64x"], 8));
    }

    /// The same with norms behind blocks, which GPUs take along into products.
    #[test]
    fn every_way_of_norms_behind_blocks_is_right() {
        let gpu = gpu();
        let gpu = gpu.with_caps(gpu.caps().clone().at_tier(Tier::Subgroup));
        let gemma = files::source(&goldens::dir().join("models/gemma2"));
        every_way(&gpu, &gemma, (&["gemv/f32/1x"], 4));
    }

    /// Every way of the shapes, at least so many, whose key contains one of `keys`.
    fn every_way(gpu: &Gpu, source: &Arc<dyn ByteSource>, (keys, least): (&[&str], usize)) {
        let model =
            pollster::block_on(Model::load_recording(gpu, source, LoadOptions::default())).expect("recorded");
        let shapes = tunable(&model, SessionOptions::default()).expect("shapes");
        let used: Vec<_> = shapes.iter().filter(|s| keys.iter().any(|key| s.key.contains(key))).collect();
        assert!(used.len() >= least, "{:?}", shapes.iter().map(|s| &s.key).collect::<Vec<_>>());
        let want = logits(gpu, source.clone());
        let largest = want.iter().fold(0.0, |max: f32, v| max.max(v.abs()));
        let most = used.iter().map(|shape| shape.names().count()).max().expect("ways");
        for at in 1..most {
            let mut caps = gpu.caps().clone();
            for shape in &used {
                caps.tuned.set(&shape.key, shape.names().nth(at));
            }
            let tuned = gpu.with_caps(caps);
            let got = logits(&tuned, source.clone());
            let difference = got.iter().zip(&want).fold(0.0, |max: f32, (g, w)| max.max((g - w).abs()));
            println!("way {at}: logits up to {largest}, difference {difference}");
            assert!(difference <= 1e-4 * largest, "way {at}: {difference}");
        }
    }
}
