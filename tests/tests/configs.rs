//! Configurations: both styles of every golden model give the same.

use girih_model::Config;
use girih_model::config::{KNOWN, LayerType};
use girih_tests::goldens;

#[test]
fn both_styles_agree() {
    let mut count = 0;
    for folder in goldens::folders("models") {
        let read = |file: &str| std::fs::read(folder.join(file)).ok();
        let (Some(main), Some(alt)) = (read("config.json"), read("config.alt.json")) else { continue };
        let [a, b] = [&main, &alt].map(|bytes| Config::parse(bytes));
        let name = folder.display();
        match (a, b) {
            (Ok(mut a), Ok(mut b)) => {
                a.raw.clear();
                b.raw.clear();
                assert_eq!(a, b, "{name}");
                count += 1;
            }
            (Err(a), Err(b)) => {
                let message = a.to_string();
                assert_eq!(message, b.to_string(), "{name}");
                assert!(!KNOWN.iter().any(|m| message.contains(&format!("is \"{m}\""))), "{name}: {message}");
            }
            (a, b) => panic!("{name}: only one style is read: {a:?} {b:?}"),
        }
    }
    println!("{count} models");
}

#[test]
fn layers_of_the_golden_models() {
    let sliding = |model: &str| {
        let path = goldens::dir().join("models").join(model).join("config.json");
        let config =
            Config::parse(&std::fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display())));
        let config = config.unwrap_or_else(|e| panic!("{model}: {e}"));
        let slides = config.layer_types.iter().map(|t| *t == LayerType::Sliding).collect::<Vec<_>>();
        (slides, config.sliding_window, config.uses_rope)
    };
    assert_eq!(sliding("gemma2"), (vec![true, false, true, false], Some(12), vec![true; 4]));
    assert_eq!(sliding("gemma3_text"), (vec![true, true, false, true], Some(10), vec![true; 4]));
    assert_eq!(sliding("qwen2"), (vec![false, true, true], Some(24), vec![true; 3]));
    assert_eq!(sliding("mistral_swa_f16"), (vec![true; 3], Some(16), vec![true; 3]));
    assert_eq!(sliding("smollm3"), (vec![false; 4], None, vec![true, true, true, false]));
}
