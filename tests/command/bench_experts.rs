//! `girih bench model` on mixtures of experts.

use super::*;

/// The report of a small mixture.
fn bench(args: &[&str]) -> Value {
    let common =
        ["bench", "model", "--synthetic", "qwen3-moe-13m", "-p", "256", "-n", "2", "-r", "1", "--json"];
    json(&[&common[..], args].concat())
}

#[test]
fn synthetic_mixtures_route_as_they_are_told() {
    let spread = |routing: &str| {
        let report = bench(&["--layers", "2", "--routing", routing]);
        let experts = &report["experts"];
        assert_eq!(experts["routing"], routing);
        assert_eq!([&experts["layers"], &experts["experts"], &experts["per_token"]], [2, 32, 4], "{experts}");
        assert_eq!(experts["spread"]["tokens"], 256);
        let number = |key: &str| experts["spread"][key].as_f64().expect("a number");
        (number("chosen_experts"), number("busiest_over_mean"))
    };
    let (balanced, skewed, one_hot) = (spread("balanced"), spread("skewed"), spread("one-hot"));
    println!("{balanced:?} {skewed:?} {one_hot:?}");
    // 1024 choices of 32 experts: 32 each, give or take what 256 drawn ids differ by.
    assert!(balanced.0 == 32.0 && (1.0..1.7).contains(&balanced.1), "{balanced:?}");
    // The most frequent one of 32 by Zipf's law, four times of which none is repeated.
    assert!(skewed.0 > 20.0 && (3.0..7.5).contains(&skewed.1), "{skewed:?}");
    assert_eq!(one_hot, (4.0, 8.0));
}

/// A step reads the experts of one token: by its recorded dispatches it moves little more.
#[test]
fn a_step_of_a_mixture_moves_its_active_bytes() {
    for weights in ["f16", "int4"] {
        let report = bench(&["--layers", "1", "--weights", weights]);
        let experts = &report["experts"];
        let number = |key: &str| experts[key].as_f64().expect("a number");
        let all = number("expert_bytes");
        // 32 experts of three matrices of 256 x 128.
        let bits = if weights == "f16" { 16.0 } else { 4.5 };
        assert!((all - 32.0 * 3.0 * 256.0 * 128.0 * bits / 8.0).abs() < 1.0, "{experts}");
        assert!((number("active_expert_bytes_per_token") - all / 8.0).abs() < 1.0, "{experts}");
        let share = number("moved_share_of_active_experts");
        assert!((1.0..1.1).contains(&share), "{weights}: {experts}");
        assert!((0.95..1.1).contains(&number("moved_share_of_active")), "{weights}: {experts}");
        assert!(number("active_bytes_per_token") < report["weight_bytes"].as_f64().expect("bytes"));
        let paths = experts["paths"].as_array().expect("a list");
        assert_eq!(paths[0], serde_json::json!({ "tokens": 1, "path": "routed" }));
        assert!(paths.iter().any(|p| p["tokens"] == 512 && p["path"] == "grouped"), "{experts}");
        assert!(
            experts["grouped_from_tokens"].as_u64().is_some_and(|from| (2..64).contains(&from)),
            "{experts}"
        );
        let kernels = report["kernels"].as_array().expect("a list");
        let routed =
            kernels.iter().find(|k| k["kernel"].as_str().is_some_and(|k| k.starts_with("routed_gemv")));
        assert!(kernels.is_empty() || routed.is_some(), "{kernels:?}");
    }
    let dense = json(&["bench", "model", "-p", "8", "-n", "1", "-r", "1", "--json"]);
    assert!(dense["experts"].is_null(), "a dense model has none");
}

#[test]
fn mixtures_in_words_and_what_makes_no_sense() {
    let common = ["bench", "model", "--synthetic", "qwen3-moe-13m", "--layers", "1", "-n", "1", "-r", "1"];
    let output = girih(&[&common[..], &["-p", "64", "--routing", "one-hot"]].concat());
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    for words in [
        "4 of 32 for each token, in 1 layers, one-hot",
        "chooses 4.0 of them",
        "8.00 times",
        "1 routed",
        "512 grouped",
    ] {
        assert!(said.contains(words), "no {words:?} in {said}");
    }
    let bad = |args: &[&str], words: &[&str]| fails(&[&["bench", "model"], args].concat(), 4, words);
    bad(&["--synthetic", "llama-79m", "--routing", "skewed"], &["llama-79m", "no experts"]);
    bad(&["--synthetic", "qwen3-moe-13m", "--routing", "zipf"], &["zipf", "one-hot"]);
    bad(&["--synthetic", "qwen3-moe-13m", "--layers", "5"], &["--layers", "1 to 4"]);
    bad(&["--routing", "skewed"], &["--synthetic"]);
}
