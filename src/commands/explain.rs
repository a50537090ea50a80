//! `girih explain`: what a pass of a model dispatches, in which variants and why.

use std::io::Write;

use clap::Args;
use girih_kernels::explain::{Explained, Why, explain};
use girih_model::{Passes, Tail};
use serde_json::{Value, json};

use crate::error::Failure;
use crate::models::LookedAt;
use crate::{Global, device};

/// Arguments.
#[derive(Debug, Args)]
pub struct Explain {
    #[command(flatten)]
    model: LookedAt,
    /// Explain the pass over a prompt of N tokens instead of a decode step
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    rows: Option<u32>,
    /// Keys in the cache of the decode step; as many as fit if left out
    #[arg(long, value_name = "N", conflicts_with = "rows", value_parser = clap::value_parser!(u32).range(1..))]
    keys: Option<u32>,
}

impl Explain {
    /// Runs the command.
    pub async fn run(self, global: &Global) -> Result<(), Failure> {
        let gpu = device::open(global).await?;
        let (gpu, model) = self.model.load(&gpu, global).await?;
        let mut passes = Passes::new(&model, self.model.session())?;
        let longest = passes.longest();
        let asked = self.rows.or(self.keys).unwrap_or(1);
        if asked > longest {
            return Err(Failure::Argument(format!(
                "{asked} tokens do not fit a context of {longest} (see --context)"
            )));
        }
        let keys = self.keys.unwrap_or(longest);
        let step = if self.rows.is_some() { None } else { passes.step(Tail::Greedy)? };
        let (pass, frame) = match (step, self.rows) {
            (Some(frame), _) => (format!("decode step, {keys} keys"), frame),
            (None, rows) => {
                // An encoder has no steps.
                let rows = rows.unwrap_or(longest.min(128));
                (format!("prompt of {rows} tokens"), passes.prompt(rows)?)
            }
        };
        let all: Vec<Explained> =
            frame.recording().dispatches().map(|d| explain(gpu.caps(), d, keys)).collect();
        let runs = fold(&all);
        let bytes: u64 = all.iter().map(|e| e.cost.bytes).sum();
        let flops: u64 = all.iter().map(|e| e.cost.flops).sum();
        let mut out = std::io::stdout().lock();
        if global.json {
            let json_run = |run: &Run<'_>| json!({ "times": run.times, "dispatches": run.items.iter().map(json_item).collect::<Vec<_>>() });
            let report = json!({
                "device": device::describe(gpu.caps()), "model": self.model.name(), "pass": pass,
                "runs": runs.iter().map(json_run).collect::<Vec<_>>(),
                "dispatches": all.len(), "bytes": bytes, "flops": flops,
            });
            writeln!(out, "{report}")?;
            return Ok(());
        }
        writeln!(out, "{}, {}, {pass}\n", device::describe(gpu.caps()), self.model.name())?;
        print_line(&mut out, ["kernel", "variant", "why", "workgroups", "KB", "MFLOP", "shape"])?;
        print_line(&mut out, ["---"; 7])?;
        for run in &runs {
            if run.times > 1 {
                writeln!(out, "{} times:", run.times)?;
            }
            for item in run.items {
                print_item(&mut out, item)?;
            }
        }
        writeln!(
            out,
            "\n{} dispatches, {:.2} MB moved, {:.2} MFLOP in products and attention",
            all.len(),
            bytes as f64 / 1e6,
            flops as f64 / 1e6
        )?;
        let mut words: Vec<(&str, &str, &str)> =
            all.iter().map(|e| (e.kernel, variant_of(e), e.words)).collect();
        words.sort_unstable();
        words.dedup();
        for (kernel, variant, words) in words {
            writeln!(out, "  {kernel} {variant}: {words}")?;
        }
        Ok(())
    }
}

/// The first word of a variant and its sizes.
fn variant_of(item: &Explained) -> &str {
    item.variant.split([' ', ',']).next().unwrap_or_default()
}

/// Dispatches that are repeated in this order.
#[derive(Debug, PartialEq)]
struct Run<'a> {
    times: usize,
    items: &'a [Explained],
}

/// Equal runs that follow each other become one: at each place the repetition that covers most.
fn fold(all: &[Explained]) -> Vec<Run<'_>> {
    let mut runs: Vec<Run<'_>> = Vec::new();
    let (mut at, mut single) = (0, 0);
    while at < all.len() {
        let rest = &all[at..];
        let times = |len: usize| rest.chunks_exact(len).take_while(|chunk| *chunk == &rest[..len]).count();
        let best = (1..=rest.len() / 2).map(|len| (times(len), len)).filter(|&(times, _)| times > 1);
        // Of those that cover as much, the shortest.
        match best.max_by_key(|&(times, len)| (times * len, std::cmp::Reverse(len))) {
            Some((times, len)) => {
                if single < at {
                    runs.push(Run { times: 1, items: &all[single..at] });
                }
                runs.push(Run { times, items: &rest[..len] });
                at += times * len;
                single = at;
            }
            None => at += 1,
        }
    }
    if single < all.len() {
        runs.push(Run { times: 1, items: &all[single..] });
    }
    runs
}

fn why(item: &Explained) -> String {
    let why = match item.why {
        Why::Only => "the only one",
        Why::Rule => "rule",
        Why::Measured => "measured",
    };
    if item.blocked.is_empty() { why.into() } else { format!("{why}; blocked: {}", item.blocked.join(", ")) }
}

fn print_line(
    out: &mut impl Write,
    [kernel, variant, why, groups, kb, mflop, shape]: [&str; 7],
) -> std::io::Result<()> {
    writeln!(
        out,
        "| {kernel:<28} | {variant:<32} | {why:<12} | {groups:>11} | {kb:>10} | {mflop:>9} | {shape:<22} |"
    )
}

fn print_item(out: &mut impl Write, item: &Explained) -> std::io::Result<()> {
    let kernel =
        if item.data.is_empty() { item.kernel.into() } else { format!("{} {}", item.kernel, item.data) };
    let [x, y, z] = item.grid;
    let (kb, mflop) = (item.cost.bytes as f64 / 1e3, item.cost.flops as f64 / 1e6);
    print_line(
        out,
        [
            &kernel,
            &item.variant,
            &why(item),
            &format!("{x}x{y}x{z}"),
            &format!("{kb:.1}"),
            &format!("{mflop:.3}"),
            item.shape.as_deref().unwrap_or_default(),
        ],
    )
}

fn json_item(item: &Explained) -> Value {
    let why = match item.why {
        Why::Only => "only",
        Why::Rule => "rule",
        Why::Measured => "measured",
    };
    json!({
        "kernel": item.kernel, "data": item.data, "variant": item.variant, "words": item.words, "shape": item.shape,
        "why": why, "blocked": item.blocked, "workgroups": item.grid, "bytes": item.cost.bytes, "flops": item.cost.flops,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use girih_kernels::spec::Cost;

    fn item(variant: &str) -> Explained {
        Explained {
            kernel: "gemv",
            data: String::new(),
            variant: variant.into(),
            words: "",
            shape: None,
            why: Why::Rule,
            blocked: Vec::new(),
            grid: [1; 3],
            cost: Cost::default(),
        }
    }

    #[test]
    fn equal_layers_are_folded() {
        let folded = |names: &str| {
            let all: Vec<Explained> = names.chars().map(|c| item(&c.to_string())).collect();
            let runs = fold(&all);
            let text = |run: &Run<'_>| {
                format!("{}{}", run.times, run.items.iter().map(|i| i.variant.as_str()).collect::<String>())
            };
            runs.iter().map(text).collect::<Vec<_>>().join(" ")
        };
        assert_eq!(folded(""), "");
        assert_eq!(folded("eabcabcabch"), "1e 3abc 1h");
        assert_eq!(folded("abcd"), "1abcd");
        assert_eq!(folded("aaaa"), "4a");
        // Layers of two kinds, in turn.
        assert_eq!(folded("xababcababcy"), "1x 2ababc 1y");
    }
}
