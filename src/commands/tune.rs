//! `girih tune`: the variants of kernels that take the least time on this machine.

use std::io::Write;

use clap::Args;
use girih_kernels::tune::{self, Kept, Row};
use girih_kernels::winners::Winners;
use girih_kernels::{Caps, Gpu};
use serde_json::{Value, json};

use crate::error::Failure;
use crate::models::LookedAt;
use crate::{Global, device};

/// Arguments.
#[derive(Debug, Args)]
pub struct Tune {
    #[command(flatten)]
    model: LookedAt,
    /// Seconds to measure for; shapes that are left then keep what they had
    #[arg(long, value_name = "S", default_value_t = 30.0)]
    seconds: f64,
    /// Forget all winners of this device
    #[arg(long)]
    reset: bool,
}

impl Tune {
    /// Runs the command.
    pub async fn run(self, global: &Global) -> Result<(), Failure> {
        if !(self.seconds >= 0.0 && self.seconds.is_finite()) {
            return Err(Failure::Argument(format!(
                "--seconds is {}, must be a number from 0 on",
                self.seconds
            )));
        }
        let gpu = device::open(global).await?;
        let mut kept = Kept::open(&gpu, device::cache_dir().as_deref());
        if self.reset {
            return reset(&gpu, kept, global);
        }
        let (gpu, model) = self.model.load(&untuned(&gpu), global).await?;
        let shapes = girih_model::tunable(&model, self.model.session())?;
        let gpu = gpu.with_caps(Caps { tuned: kept.winners.clone(), ..gpu.caps().clone() });
        let mut out = std::io::stdout().lock();
        if !global.json {
            writeln!(out, "{}, {}\n", device::describe(gpu.caps()), self.model.name())?;
            print_line(&mut out, ["kernel", "data", "shape", "rule", "us", "winner", "us", "ratio"])?;
            print_line(&mut out, ["---"; 8])?;
        }
        let mut printed = Ok(());
        let report = tune::run(&gpu, &shapes, self.seconds, |row| {
            if !global.json {
                printed = print_row(&mut out, row);
            }
            printed.is_ok()
        })
        .await?;
        report.apply(&mut kept.winners);
        kept.save().map_err(|source| Failure::File { path: "the file of winners".into(), source })?;
        printed?;
        let other = report.rows.iter().filter(|row| row.winner != row.rule).count();
        if global.json {
            let rows: Vec<Value> = report.rows.iter().map(json_row).collect();
            let report = json!({
                "device": device::describe(gpu.caps()), "model": self.model.name(), "seconds": report.seconds,
                "shapes": rows, "left": report.left, "winners": kept.winners.len(),
            });
            writeln!(out, "{report}")?;
            return Ok(());
        }
        writeln!(
            out,
            "\n{} shapes in {:.1} s, {other} with another winner than the rule's choice; {} in force on this device",
            report.rows.len(),
            report.seconds,
            kept.winners.len()
        )?;
        if !report.left.is_empty() {
            writeln!(
                out,
                "{} shapes were not measured (--seconds {}, memory): {}",
                report.left.len(),
                self.seconds,
                report.left.join(", ")
            )?;
        }
        Ok(())
    }
}

/// The rules alone, as if nothing had been measured.
fn untuned(gpu: &Gpu) -> Gpu {
    gpu.with_caps(Caps { tuned: Winners::default(), ..gpu.caps().clone() })
}

fn reset(gpu: &Gpu, mut kept: Kept, global: &Global) -> Result<(), Failure> {
    let removed = kept.winners.len();
    kept.winners = Winners::default();
    kept.save().map_err(|source| Failure::File { path: "the file of winners".into(), source })?;
    let mut out = std::io::stdout().lock();
    if global.json {
        writeln!(out, "{}", json!({ "device": device::describe(gpu.caps()), "removed": removed }))?;
    } else {
        writeln!(out, "{removed} winners forgotten; the rules are in force")?;
    }
    Ok(())
}

fn print_line(
    out: &mut impl Write,
    [kernel, data, shape, rule, us, winner, best, ratio]: [&str; 8],
) -> std::io::Result<()> {
    writeln!(
        out,
        "| {kernel:<17} | {data:<14} | {shape:<22} | {rule:<32} | {us:>9} | {winner:<32} | {best:>9} | {ratio:>5} |"
    )
}

fn print_row(out: &mut impl Write, row: &Row) -> std::io::Result<()> {
    let [us, best] = [row.rule_seconds, row.winner_seconds].map(|s| format!("{:.1}", 1e6 * s));
    let ratio = format!("{:.2}", row.winner_seconds / row.rule_seconds);
    let winner = if row.winner == row.rule { "=" } else { &row.winner };
    print_line(out, [row.kernel, &row.data, &row.shape, &row.rule, &us, winner, &best, &ratio])?;
    for (name, what) in &row.wrong {
        writeln!(out, "  {name} is out: {what}")?;
    }
    Ok(())
}

fn json_row(row: &Row) -> Value {
    let wrong: Vec<Value> =
        row.wrong.iter().map(|(name, what)| json!({ "variant": name, "what": what })).collect();
    json!({
        "kernel": row.kernel, "data": row.data, "shape": row.shape, "rule": row.rule, "rule_us": 1e6 * row.rule_seconds,
        "winner": row.winner, "winner_us": 1e6 * row.winner_seconds, "ratio": row.winner_seconds / row.rule_seconds,
        "before": row.before, "timed": row.timed, "wrong": wrong,
    })
}
